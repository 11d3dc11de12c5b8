"""Where the proxy's own credentials for an upstream come from: what is configured, as values; nothing is read here."""

from __future__ import annotations

import re
from typing import Protocol

from attrs import Attribute, field, frozen

from txociproxy.oci.challenges import basic
from txociproxy.oci.errors import UpstreamUnreachable

DEFAULT_LIFETIME_S = 3600.0
# It becomes a part of a program's name, so that it must not lead to another directory.
_HELPER_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")


def is_text(value: str) -> bool:
    """Whether it can be sent: JSON and the environment can hold halves of characters, UTF-8 cannot."""
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


@frozen
class Login:
    """A name and a password, as they are used now; neither is ever printed.

    :raises LoginUnavailable: they cannot be sent.
    """

    username: str = field(repr=False)
    password: str = field(repr=False)

    def __attrs_post_init__(self) -> None:
        if not is_text(self.username) or not is_text(self.password):
            raise LoginUnavailable("our own login is not text that UTF-8 can hold")

    @property
    def authorization(self) -> str:
        """The value of an Authorization field (RFC 7617)."""
        return basic(f"{self.username}:{self.password}".encode())


@frozen
class Password:
    """A name and a password that do not change while the process runs."""

    username: str = field(repr=False)
    password: str = field(repr=False)


@frozen
class PasswordFile:
    """A password in a file of its own, which may be replaced at any time; its last line end does not count."""

    username: str = field(repr=False)
    path: str


@frozen
class DockerConfig:
    """A ``config.json`` as ``docker login`` writes it: ``auths``, ``credHelpers`` and ``credsStore``.

    :ivar environment: names of variables that a helper it names may see, with their values.
    """

    path: str
    environment: tuple[tuple[str, str], ...] = field(default=(), repr=False)


def _check_helper_name(helper: Helper, attribute: Attribute[str], name: str) -> None:
    """Refuse what cannot be the end of a program's name.

    :raises ValueError: it cannot.
    """
    if not _HELPER_NAME.fullmatch(name):
        raise ValueError("the name of a credential helper is what follows docker-credential-: a-z, 0-9, '.', '_', '-'")


@frozen
class Helper:
    """A program ``docker-credential-<name>`` (docker-credential-helpers, "get").

    :ivar server: what it is asked for; None is what ``docker login`` calls the upstream: host and port of its first
        URL, or ``https://index.docker.io/v1/`` for Docker Hub.
    :ivar lifetime_s: how long its answer is used.
    :ivar environment: the only variables that it sees, with their values; PATH is added if it is not among them.
    """

    name: str = field(validator=_check_helper_name)
    server: str | None = None
    lifetime_s: float = DEFAULT_LIFETIME_S
    environment: tuple[tuple[str, str], ...] = field(default=(), repr=False)


@frozen
class Ecr:
    """Amazon ECR: GetAuthorizationToken, with what the AWS SDK finds in its usual places.

    :ivar region: None is taken from the host, ``<account>.dkr.ecr.<region>.amazonaws.com``.
    :ivar profile: of the SDK's configuration file.
    """

    region: str | None = None
    profile: str | None = None


Account = Password | PasswordFile | DockerConfig | Helper | Ecr


class LoginUnavailable(UpstreamUnreachable):
    """Our own credentials cannot be had now: a file is gone, a helper fails; the text says which, and no secret."""


class LoginSource(Protocol):
    """Gives the login of one upstream, and keeps it as long as it may."""

    async def login(self) -> Login:
        """Return the login that is good now; all who ask at once share one reading.

        :raises LoginUnavailable: there is none now.
        """

    def refused(self, login: Login) -> None:
        """Hear that the upstream or its token server has refused this login: the next ask reads afresh."""

    def stop(self) -> None:
        """End what is running (a helper's process)."""
