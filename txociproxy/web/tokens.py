"""The token endpoint: a token of ours for what a client shows, the upstream's own inside (RULES C4, C5)."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from attrs import define, field
from twisted.internet.interfaces import IReactorTime
from twisted.web.server import Request

from txociproxy.envelopes import Envelopes
from txociproxy.interfaces import Exchanged, Relay
from txociproxy.oci.errors import OCIError, UpstreamUnreachable
from txociproxy.oci.requests import TokenAsk
from txociproxy.upstreams.entries.table import LiveTable
from txociproxy.web.access import Visit
from txociproxy.web.failures import Failures
from txociproxy.web.replies import NOT_KEPT
from txociproxy.web.sending import Reply
from txociproxy.web.settings import WebSettings
from txociproxy.web.wishes import Wish

if TYPE_CHECKING:
    from txociproxy.cache import Cache

FAILURES_PER_CLIENT: Final = 10
FAILURES_PER_ENTRY: Final = 60
_NOTHING: Final = Exchanged(None)
_SECONDS: Final = re.compile(r"[0-9]{1,6}")


@define(eq=False)
class TokenEndpoint:
    """Gives tokens."""

    _clock: IReactorTime
    _cache: Cache
    _table: LiveTable
    _envelopes: Envelopes
    _settings: WebSettings
    _clients: Failures = field(init=False)
    _entries: Failures = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._clients = Failures(self._clock, FAILURES_PER_CLIENT)
        self._entries = Failures(self._clock, FAILURES_PER_ENTRY)

    async def answer(self, request: Request, visit: Visit, asked: TokenAsk) -> Reply:
        """Give a token for what was asked, as far as it is served here.

        :raises OCIError: the request makes no sense, its credentials are refused, or too many were lately.
        :raises UpstreamUnreachable: the upstream's token server does not answer, and the mode does not survive that.
        """
        if self._settings.owns_authorization:
            raise OCIError("UNSUPPORTED", "no token is needed here", status=404)
        self._clients.check(visit.client)
        try:
            wish = Wish.of(request, asked, self._table.current)
        except OCIError as error:
            # A refused refresh token is no guess: containerd shows what it has there before anything else.
            if error.status != 401:
                self._count_client(visit.client)
            raise
        visit.namespace = wish.namespace or None
        exchanged = _NOTHING if wish.login is None else await self._exchanged(visit.client, wish, wish.login)
        return self._reply(wish, exchanged)

    async def _exchanged(self, client: str, wish: Wish, login: str) -> Exchanged:
        """Ask the upstream what it wants to see in this client's name."""
        self._entries.check(wish.namespace)
        answer = await self._cache.exchange(wish.namespace, wish.repositories, login)
        # Guesses that were made side by side learn no more than the same one after another.
        self._clients.check(client)
        self._entries.check(wish.namespace)
        if isinstance(answer, Exchanged):
            return answer
        if answer.status == 429:
            raise _too_many(answer)
        if 400 <= answer.status < 500:
            self._count_client(client)
            self._entries.count(wish.namespace)
            raise OCIError("UNAUTHORIZED", "the upstream refuses these credentials")
        if self._settings.is_transparent:
            return _NOTHING
        raise UpstreamUnreachable(f"the token server of {wish.namespace} answers with status {answer.status}")

    def _count_client(self, client: str) -> None:
        """Remember that a client failed; behind a Unix socket there may be anybody, and nobody is counted."""
        if client != "-":
            self._clients.count(client)

    def _reply(self, wish: Wish, exchanged: Exchanged) -> Reply:
        """Print a token under both names that clients look for.

        :raises OCIError: what the upstream wants is too long to be handed on.
        """
        now_s, life_s = self._clock.seconds(), self._settings.token_life_s
        if exchanged.life_s is not None:
            life_s = max(1, int(min(life_s, exchanged.life_s)))
        repositories = tuple(map(str, wish.repositories))
        token = self._envelopes.seal(wish.namespace, repositories, exchanged.authorization, now_s + life_s)
        issued = datetime.fromtimestamp(int(now_s), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        answer = {"token": token, "access_token": token, "expires_in": life_s, "issued_at": issued}
        body = json.dumps(answer).encode("ascii")
        return Reply(200, (("Content-Type", "application/json"), NOT_KEPT), body, len(body))


def _too_many(relay: Relay) -> OCIError:
    """Pass on that the upstream's token server is asked too often, and when it wants to be asked again."""
    values = [value for name, value in relay.headers if name.lower() == "retry-after" and _SECONDS.fullmatch(value)]
    retry_after = ("Retry-After", values[0] if values else "60")
    return OCIError("TOOMANYREQUESTS", "the upstream's token server is asked too often", headers=(retry_after,))
