"""Small files, read whole and bounded; what is wrong is said without what is in them, which may be a secret."""

from __future__ import annotations

import os
import stat

from txociproxy.upstreams.logins.accounts import Login, LoginUnavailable, PasswordFile

MAX_PASSWORD_BYTES = 64 * 1024


def read_secret(path: str, max_bytes: int) -> str:
    """Return the text of a regular file; blocks.

    :raises LoginUnavailable: it is not there, not readable, too large or not UTF-8.
    """
    try:
        data = read_regular(path, max_bytes + 1)
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL in it
        why = error.strerror if isinstance(error, OSError) else None
        raise LoginUnavailable(f"{path} cannot be read: {why or 'not a path'}") from None
    if len(data) > max_bytes:
        raise LoginUnavailable(f"{path} has more than {max_bytes} bytes")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:  # its text would repeat a piece of the secret
        raise LoginUnavailable(f"{path} is not text in UTF-8") from None


def read_regular(path: str, max_bytes: int) -> bytes:
    """Return up to this many bytes; blocks for no longer than a disk does.

    :raises OSError: it cannot be read, or is a pipe or a device, which might never begin or never end.
    :raises ValueError: the path has a NUL in it.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe without writers must not wait
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(0, "not a regular file")
        return file.read(max_bytes)


def read_password_file(account: PasswordFile) -> Login:
    """Return the login whose password is in a file; blocks.

    :raises LoginUnavailable: the file has none.
    """
    text = read_secret(account.path, MAX_PASSWORD_BYTES)
    password = text.removesuffix("\n").removesuffix("\r") if text.endswith("\n") else text
    if not password:
        raise LoginUnavailable(f"{account.path} is empty, where a password should be")
    return Login(account.username, password)
