"""The token endpoint: every client gets a token, so that clients which insist on one can pull (RULES C4, C5).

What is given here holds no credential yet: exchanging a client's own for the upstream's is not built, so each token
is an anonymous one, and the upstream is asked as anybody would.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import BinaryIO, Final, cast
from urllib.parse import parse_qs

from attrs import define, field
from twisted.internet.interfaces import IReactorTime
from twisted.web.server import Request

from txociproxy.envelopes import Envelopes
from txociproxy.oci.challenges import Scope, parse_scopes
from txociproxy.oci.errors import OCIError
from txociproxy.oci.names import Repository
from txociproxy.oci.requests import TokenAsk
from txociproxy.upstreams.table import LiveTable
from txociproxy.web.asking import host_of
from txociproxy.web.heads import malformed
from txociproxy.web.sending import Reply

MAX_PARAMETERS: Final = 64
FAILURES: Final = 10
FAILURES_PER_S: Final = 60.0
MAX_CLIENTS: Final = 4096

Parameters = Mapping[str, list[str]]


@define(eq=False)
class Failures:
    """Remembers who failed lately, so that nobody can try many things in a minute."""

    _clock: IReactorTime
    _at_s: dict[str, deque[float]] = field(factory=dict, init=False)

    def check(self, client: str) -> None:
        """Let a client pass.

        :raises OCIError: it has failed too often.
        """
        if len(self._recent(client)) >= FAILURES:
            raise OCIError("TOOMANYREQUESTS", "too many failures", headers=(("Retry-After", "60"),))

    def count(self, client: str) -> None:
        """Remember a failure; the client that has been quiet longest makes room."""
        recent = self._recent(client)
        recent.append(self._clock.seconds())
        self._at_s.pop(client, None)
        self._at_s[client] = recent
        if len(self._at_s) > MAX_CLIENTS:
            del self._at_s[next(iter(self._at_s))]

    def _recent(self, client: str) -> deque[float]:
        recent = self._at_s.get(client, deque(maxlen=FAILURES))
        while recent and recent[0] <= self._clock.seconds() - FAILURES_PER_S:
            recent.popleft()
        return recent


@define(eq=False)
class TokenEndpoint:
    """Gives tokens."""

    _clock: IReactorTime
    _table: LiveTable
    _envelopes: Envelopes
    _life_s: int
    _failures: Failures = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._failures = Failures(self._clock)

    def answer(self, request: Request, asked: TokenAsk, client: str, listener: str | None) -> Reply:
        """Give a token for what was asked, as far as it is served here.

        :raises OCIError: the request makes no sense, or this client made too many that did not.
        """
        is_known = client != "-"  # behind a Unix socket there may be anybody
        if is_known:
            self._failures.check(client)
        try:
            scopes = parse_scopes(_parameters(request).get("scope", []))
            if asked.namespace is None:
                granted = self._routed(scopes, host_of(request), listener)
            else:
                namespace = self._table.current.listed(asked.namespace).namespace
                granted = (namespace, self._repositories(scopes, namespace))
        except OCIError:
            if is_known:
                self._failures.count(client)
            raise
        return self._reply(*granted)

    def _routed(
        self, scopes: tuple[Scope, ...], host: str | None, listener: str | None
    ) -> tuple[str, tuple[Repository, ...]]:
        """Take the namespace of the first scope that has one; the others must agree.

        A login asks for no scope: its token is good for nothing but a ping.
        """
        namespace = ""
        repositories: list[Repository] = []
        for scope in filter(_pulls, scopes):
            try:
                route = self._table.current.route(scope.name, None, host, listener)
            except OCIError:
                continue
            namespace = namespace or route.namespace
            if route.namespace == namespace:
                repositories.append(route.repository)
        return namespace, tuple(repositories)

    def _repositories(self, scopes: tuple[Scope, ...], namespace: str) -> tuple[Repository, ...]:
        """Return the repositories of this namespace that are named; a name that is not served is left out."""
        repositories: list[Repository] = []
        for scope in filter(_pulls, scopes):
            try:
                repositories.append(self._table.current.route(scope.name, namespace, None).repository)
            except OCIError:
                continue
        return tuple(repositories)

    def _reply(self, namespace: str, repositories: tuple[Repository, ...]) -> Reply:
        """Print a token as both names of it that clients look for."""
        now_s = self._clock.seconds()
        token = self._envelopes.seal(namespace, tuple(map(str, repositories)), None, now_s + self._life_s)
        issued = datetime.fromtimestamp(int(now_s), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        answer = {"token": token, "access_token": token, "expires_in": self._life_s, "issued_at": issued}
        body = json.dumps(answer).encode("ascii")
        headers = (("Content-Type", "application/json"), ("Cache-Control", "no-store"))
        return Reply(200, headers, body, len(body))


def _pulls(scope: Scope) -> bool:
    """Say whether anything is left of a scope once it is cut to pulling from a repository."""
    return scope.type == "repository" and bool({"pull", "*"} & set(scope.actions))


def _parameters(request: Request) -> Parameters:
    """Return what a GET says in its query or a POST in its form."""
    text = request.uri.partition(b"?")[2]
    if request.method == b"POST":
        text = cast(BinaryIO, request.content).read()
    try:
        return parse_qs(text.decode("ascii"), keep_blank_values=True, max_num_fields=MAX_PARAMETERS)
    except ValueError as error:  # not ASCII, too many, or no form at all
        raise malformed("the form cannot be read") from error
