"""A file of users and their passwords, as ``htpasswd -B`` writes it.  Everything here blocks."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Final

from attrs import define, field, frozen

from txociproxy.upstreams.logins.secret_files import read_regular

MAX_FILE_BYTES: Final = 1024 * 1024
# All that the algorithm looks at; htpasswd cuts there as well.
MAX_PASSWORD_BYTES: Final = 72
# The most that htpasswd writes; one check takes some seconds then, and four times as long for every two more.
MAX_COST: Final = 17
# The salt has 16 bytes: of its 22 characters the last has two bits only, and bcrypt raises at any others.
_BCRYPT: Final = re.compile(rb"\$2[aby]\$([0-9]{2})\$[./A-Za-z0-9]{21}[.Oeu][./A-Za-z0-9]{31}")


@frozen
class Users:
    """The users of a file.

    :ivar hashes: by name, as it stands in the file.
    """

    hashes: Mapping[bytes, bytes] = field(repr=False)

    @classmethod
    def parse(cls, data: bytes) -> Users:
        """Read a file's content; empty lines and those that begin with # do not count, the first of a name does.

        :raises ValueError: a line is something else, or there is none.
        """
        hashes: dict[bytes, bytes] = {}
        for number, line in enumerate(data.splitlines(), 1):
            line = line.strip()
            if line and not line.startswith(b"#"):
                name, hashed = _entry(number, line)
                hashes.setdefault(name, hashed)
        if not hashes:
            raise ValueError("has no user; write one with htpasswd -B")
        return cls(hashes)

    def knows(self, name: bytes, password: bytes) -> bool:
        """Say whether this is a user's password; takes as long for a name that nobody has."""
        from bcrypt import checkpw  # an extra, which nobody needs who has no such file

        hashed = self.hashes.get(name)
        compared = next(iter(self.hashes.values())) if hashed is None else hashed
        return checkpw(password[:MAX_PASSWORD_BYTES], compared) and hashed is not None


@define(eq=False)
class UserFile:
    """The users of a file as it is now; it is read again when it has changed.

    :ivar _seen: what told the last time whether it has changed; empty where there was no file.
    """

    _path: str
    _users: Users | None = field(default=None, init=False)
    _seen: tuple[int, ...] | None = field(default=None, init=False)

    def look(self) -> tuple[Users | None, str | None]:
        """Return the users, and what is wrong with the file, which is told once for each change.

        A file that is gone or wrong leaves those of before; None where there never were any.
        """
        seen: tuple[int, ...] = ()
        trouble = None
        try:
            found = os.stat(self._path)
            seen = (found.st_mtime_ns, found.st_size, found.st_ino, found.st_ctime_ns)
            if seen != self._seen:
                self._users = read_users(self._path)
        except (OSError, ValueError) as error:
            trouble = getattr(error, "strerror", None) or str(error)
        news, self._seen = seen != self._seen, seen
        return self._users, trouble if news else None


def read_users(path: str) -> Users:
    """Read a file of users.

    :raises ValueError: it cannot be read, or is something else; the text holds nothing of it.
    """
    try:
        data = read_regular(path, MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ValueError(f"cannot be read ({error.strerror})") from None
    if len(data) > MAX_FILE_BYTES:
        raise ValueError(f"has more than {MAX_FILE_BYTES} bytes")
    return Users.parse(data)


def _entry(number: int, line: bytes) -> tuple[bytes, bytes]:
    name, colon, hashed = line.partition(b":")
    found = _BCRYPT.fullmatch(hashed)
    if not name or not colon or found is None:
        raise ValueError(f"line {number} is no user with a bcrypt hash; write it with htpasswd -B")
    if not 4 <= int(found[1]) <= MAX_COST:
        raise ValueError(f"line {number}: the cost is not from 4 to {MAX_COST}; write it with htpasswd -B -C 10")
    return name, hashed
