"""How upstream is asked on behalf of a pull: with whose credentials, how long, and what becomes of a refusal."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from attrs import define
from twisted.internet.interfaces import IReactorTime
from twisted.web.iweb import IResponse

from txociproxy.answers import fields_of
from txociproxy.interfaces import ANONYMOUS, Ask, Credentials, IUpstream, Pull, Relay
from txociproxy.oci.errors import OCIError, UpstreamUnreachable
from txociproxy.upstreams.collect import BodyTooLong, collect, discard
from txociproxy.upstreams.entry import Entry

MAX_RELAYED_BYTES = 1024 * 1024  # RULES E11
# A small body that drips is never silent, and would hold its client and its connection as long as it likes.
SMALL_BODY_S = 60.0


class Registry(Protocol):
    """What is known of all upstreams."""

    def upstream(self, namespace: str) -> IUpstream | None:
        """Return the upstream of a namespace."""

    def entry(self, namespace: str) -> Entry | None:
        """Return what is configured about a namespace."""


@define(eq=False)
class Asking:
    """Asks upstreams.

    :ivar _silence_s: without a byte of a small body, after which it counts as broken off.
    """

    _registry: Registry
    _clock: IReactorTime
    _silence_s: float = 30.0

    async def get(self, ask: Ask, pull: Pull, byte_range: str | None = None, stale: bool = False) -> IResponse:
        """GET with the client's credentials; where they are refused, without any.

        :param stale: whether a stale answer is at hand, which shortens the deadline.
        :raises UpstreamUnreachable: no answer.
        """
        upstream, deadline_s = self._upstream(pull), self._deadline_s(ask, pull, "GET", stale)
        return await self.as_anybody(ask.credentials, lambda who: upstream.get(pull, who, byte_range, deadline_s))

    async def head(self, ask: Ask, pull: Pull, stale: bool = False) -> IResponse:
        """HEAD with the client's credentials; where they are refused, without any."""
        upstream, deadline_s = self._upstream(pull), self._deadline_s(ask, pull, "HEAD", stale)
        response = await self.as_anybody(ask.credentials, lambda who: upstream.head(pull, who, deadline_s))
        discard(response)
        return response

    async def relay(self, response: IResponse, max_bytes: int = MAX_RELAYED_BYTES) -> Relay:
        """Read an answer whole, to be passed on.

        A refusal with a longer page than that keeps its status, which is what clients go by.

        :raises OCIError: a good answer is longer than ``max_bytes``.
        """
        try:
            body = await collect(response, max_bytes, self._clock, self._silence_s, SMALL_BODY_S)
        except BodyTooLong as error:
            if response.code < 400:
                raise OCIError(
                    "UNAVAILABLE", "the upstream's answer is too long to be passed on", status=502
                ) from error
            body = b""
        return Relay(response.code, fields_of(response), body)

    async def as_anybody(
        self, credentials: Credentials, send: Callable[[Credentials], Awaitable[IResponse]]
    ) -> IResponse:
        """Send with the client's credentials; where they are refused, without any."""
        response = await send(credentials)
        if response.code in (401, 403) and credentials.authorization is not None:
            # Transparent mode: who may not read this with his own credential reads what everybody may.
            discard(response)
            response = await send(ANONYMOUS)
        return response

    def _upstream(self, pull: Pull) -> IUpstream:
        upstream = self._registry.upstream(pull.namespace)
        if upstream is None:
            raise UpstreamUnreachable(f"no upstream is configured for {pull.namespace}")
        return upstream

    def _deadline_s(self, ask: Ask, pull: Pull, method: str, stale: bool) -> float | None:
        entry = self._registry.entry(pull.namespace)
        if entry is None:
            return None
        if stale:
            return entry.stale_deadline_s
        if not ask.has_fallback:
            return entry.deadline_s
        return entry.blob_deadline_s if pull.kind == "blob" and method == "GET" else entry.head_deadline_s
