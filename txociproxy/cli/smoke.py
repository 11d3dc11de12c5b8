"""``ociproxy smoke``: pull twice through a running cache, one line per event."""

from __future__ import annotations

import argparse
import socket
import ssl
import sys
from collections.abc import Callable, Mapping
from typing import Final

from txociproxy.cli.answer import Answer
from txociproxy.cli.fetching import Fetcher, Login
from txociproxy.cli.places import place_of_url
from txociproxy.cli.pulling import IGet, Image
from txociproxy.cli.trying import Smoke, Subject
from txociproxy.cli.waiting import Deadline, resolve
from txociproxy.cli.wire import Wire

PASSWORD: Final = "SMOKE_PASSWORD"
MAX_PASSWORD_BYTES: Final = 4096


def smoke(said: argparse.Namespace, environ: Mapping[str, str]) -> Answer:
    """Run the command; lines are written as they become true.

    :param said: ``url``, ``image``, ``platform``, ``target``, ``user``, ``password_file``, ``ca``, ``insecure``,
        ``timeout``.
    """
    try:
        place = place_of_url(said.url)
        if place.path is not None:
            raise ValueError("--url: write http://HOST:PORT or https://HOST:PORT")
        images = {name: Image.parse(name) for name in said.image}
        login = _login(said.user, said.password_file, environ)
        context = trust(said.ca, said.insecure)
    except (ValueError, OSError) as error:
        return Answer(1, str(error))
    subject = Subject(place, said.target or place.hosts[0], said.platform)

    def fetch() -> tuple[IGet, Callable[[], None]]:
        deadline = Deadline.after(said.timeout)
        fetcher = Fetcher(place, deadline, lambda at: Wire(at, deadline, context if at.tls else None), login)
        return fetcher, fetcher.close

    run = Smoke(subject, fetch, _say, _complain, socket.gethostname())
    good = run.run(images, lambda: resolve(place.hosts[0], place.port, Deadline.after(said.timeout)))
    return Answer(0 if good else 1, "")


def trust(ca: str | None, insecure: bool) -> ssl.SSLContext:
    """Return what TLS believes: the system's authorities and one more, or everybody.

    :raises ValueError: the authority's file cannot be used.
    """
    context = ssl.create_default_context()
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if ca is not None:
        try:
            context.load_verify_locations(ca)
        except OSError as error:  # ssl.SSLError is one
            raise ValueError(f"--ca: {ca}: {error.strerror or 'no certificate in it'}") from None
    return context


def _login(user: str | None, password_file: str | None, environ: Mapping[str, str]) -> Login | None:
    """Find the password; it is never an argument, which everybody on the machine could read.

    :raises ValueError: there is none.
    """
    if user is None:
        if password_file is not None:
            raise ValueError("--password-file: counts with --user only")
        return None
    if password_file is None:
        password = environ.get(PASSWORD, "")
    else:
        try:
            with open(password_file, encoding="utf-8") as file:
                password = file.readline(MAX_PASSWORD_BYTES).rstrip("\r\n")
        except OSError as error:
            raise ValueError(f"--password-file: {password_file}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise ValueError(f"--password-file: {password_file}: not text") from None
    if not password:
        raise ValueError(f"--user: there is no password; set {PASSWORD}, or name a file with --password-file")
    return Login(user, password)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _complain(sentence: str) -> None:
    sys.stderr.write(f"ociproxy smoke: {sentence}\n")
