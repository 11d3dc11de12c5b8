"""Fetching from a cache as a client does: kept connections, redirects, and the token that a challenge asks for."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Final
from urllib.parse import urlencode, urljoin, urlsplit

from attrs import define, field, frozen

from txociproxy import __version__
from txociproxy.cli.places import Place, place_of_url
from txociproxy.cli.waiting import Deadline, WireError
from txociproxy.cli.wire import Reply, Wire, ask
from txociproxy.oci.challenges import basic, parse_challenges

MAX_HOPS: Final = 5
MAX_TOKEN_BYTES: Final = 64 * 1024
DRAINED_BYTES: Final = 1024 * 1024
_REDIRECTS: Final = (301, 302, 303, 307, 308)


class Refused(Exception):
    """The cache, or whom it sends us to, answers with something else than content.

    :ivar status: of that answer.
    """

    def __init__(self, status: int, what: str) -> None:
        super().__init__(f"{what}: status {status}")
        self.status = status


@frozen
class Login:
    """Who pulls."""

    user: str
    password: str = field(repr=False)

    def basic(self) -> str:
        """Return the value of an Authorization field."""
        return basic(f"{self.user}:{self.password}".encode())


@define(eq=False)
class Fetcher:
    """Fetches within one deadline, over one connection for each origin.

    :ivar _base: the cache.
    :ivar _open: makes a connection to an origin.
    :ivar _login: shown to the cache and to a token server on the cache's host only.
    """

    _base: Place
    _deadline: Deadline
    _open: Callable[[Place], Wire]
    _login: Login | None = None
    _wires: dict[Place, Wire] = field(factory=dict, init=False)
    _authorization: str | None = field(default=None, init=False, repr=False)

    def get(self, target: str, headers: Mapping[str, str] | None = None, logs_in: bool = True) -> Reply:
        """Return the answer to a GET, whatever its status; a challenge is answered once.

        :param logs_in: whether challenges are answered.
        :raises WireError: there is none in time.
        :raises Refused: the token server says no.
        """
        reply = self._get(target, headers or {})
        if reply.status != 401 or not logs_in:
            return reply
        reply.whole(DRAINED_BYTES)
        self._authorization = self._answer_to(reply.fields.get("www-authenticate", ""))
        return reply if self._authorization is None else self._get(target, headers or {})

    def close(self) -> None:
        """Let go of all connections."""
        for wire in self._wires.values():
            wire.end()

    def _get(self, target: str, headers: Mapping[str, str]) -> Reply:
        """Ask, and follow where the answer leads; what we are is told to the cache alone."""
        url = urljoin(self._base.text, target)
        for _ in range(MAX_HOPS):
            place = _place(url)
            shown = {"Authorization": self._authorization} if place == self._base and self._authorization else {}
            reply = self._ask(place, url, {**headers, **shown})
            if reply.status not in _REDIRECTS:
                return reply
            reply.whole(DRAINED_BYTES)
            url = _joined(url, reply.fields.get("location", ""))
            if place.tls and not _place(url).tls:
                raise WireError("redirected from https to http")
        raise WireError(f"more than {MAX_HOPS} redirects")

    def _ask(self, place: Place, url: str, headers: dict[str, str]) -> Reply:
        parts = urlsplit(url)
        target = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
        headers = {"User-Agent": f"txociproxy-smoke/{__version__}", **headers}
        used = self._wires.pop(place, None)
        if used is not None:
            try:
                return self._asked(used, place, target, headers)
            except WireError:  # it may just have been closed for being idle; what is wrong is wrong again
                self._deadline.left_s()
        return self._asked(self._open(place), place, target, headers)

    def _asked(self, wire: Wire, place: Place, target: str, headers: dict[str, str]) -> Reply:
        """Ask over a connection, and keep it."""
        try:
            reply = ask(wire, target, headers, self._deadline)
        except BaseException:
            wire.end()
            raise
        self._wires[place] = wire
        return reply

    def _answer_to(self, line: str) -> str | None:
        """Return the Authorization that a challenge asks for; None if we have none.

        :raises Refused: the token server gives none.
        """
        challenges = {challenge.scheme: challenge for challenge in parse_challenges([line])}
        if "bearer" in challenges:
            challenge = challenges["bearer"]
            realm = challenge.get("realm") or ""
            asked = {name: challenge.get(name) for name in ("service", "scope")}
            return self._token(realm, {name: value for name, value in asked.items() if value})
        return self._login.basic() if "basic" in challenges and self._login else None

    def _token(self, realm: str, asked: Mapping[str, str]) -> str:
        """Ask a token server."""
        url = f"{realm}{'&' if '?' in realm else '?'}{urlencode(asked)}"
        place = _place(url)
        headers = {}
        if self._login is not None:
            # A cache that is not what it should be could send us anywhere.
            if place.hosts != self._base.hosts or place.tls < self._base.tls:
                raise WireError("the token server is at another address: name that one as --url (see public_url)")
            headers = {"Authorization": self._login.basic()}
        reply = self._ask(place, url, headers)
        body = reply.whole(MAX_TOKEN_BYTES)
        if reply.status != 200:
            raise Refused(reply.status, "the token server")
        try:
            answer = json.loads(body)
            token = answer.get("token") or answer["access_token"]
        except (ValueError, RecursionError, AttributeError, KeyError):
            raise WireError("the token server gives no token") from None
        if not isinstance(token, str) or not token.isascii() or not token.isprintable():
            raise WireError("the token server gives no token")
        return f"Bearer {token}"


def _joined(url: str, location: str) -> str:
    """Return where a redirect leads.

    :raises WireError: nowhere.
    """
    try:
        return urljoin(url, location)
    except ValueError:  # half an IPv6 address
        raise WireError("redirected to what is no URL") from None


def _place(url: str) -> Place:
    """Return where a URL of the other side leads.

    :raises WireError: nowhere.
    """
    try:
        place = place_of_url(url)
    except ValueError:
        place = None
    if place is None or place.path is not None:
        raise WireError("redirected to what is no URL")
    return place
