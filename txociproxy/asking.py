"""How upstream is asked on behalf of a pull: in whose name, how long, and what becomes of a refusal."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, Protocol, TypeVar

from attrs import define, frozen
from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.web.iweb import IResponse

from txociproxy.answers import fields_of
from txociproxy.collect import BodyTooLong, collect, discard
from txociproxy.interfaces import ANONYMOUS, OWN, Ask, Credentials, IUpstream, Pull, Relay
from txociproxy.oci.errors import OCIError, UpstreamUnreachable
from txociproxy.upstreams.entries.entry import Entry
from txociproxy.upstreams.logins.accounts import LoginUnavailable

MAX_RELAYED_BYTES = 1024 * 1024  # RULES E11
# A small body that drips is never silent, and would hold its client and its connection as long as it likes.
SMALL_BODY_S = 60.0
STALE_DEADLINE_S = 2.0  # RULES D7
T = TypeVar("T")


class Registry(Protocol):
    """What is known of all upstreams."""

    def upstream(self, namespace: str) -> IUpstream | None:
        """Return the upstream of a namespace."""

    def entry(self, namespace: str) -> Entry | None:
        """Return what is configured about a namespace."""


@frozen
class Got:
    """An upstream's answer.

    :ivar held: what it brings is for the clients of its own upstream only (RULES D3): it was given to the proxy's
        own credentials or, where each client is admitted, to a client's.
    """

    response: IResponse
    held: bool = False


@define(eq=False)
class Asking:
    """Asks upstreams.

    :ivar _strict: only in the client's own name; else, where that is refused, in ours and then in nobody's.
    :ivar _silence_s: without a byte of a small body, after which it counts as broken off.
    """

    _registry: Registry
    _clock: IReactorTime
    _strict: bool
    _silence_s: float = 30.0

    async def get(
        self,
        ask: Ask,
        pull: Pull,
        byte_range: str | None = None,
        stale: bool = False,
        others: Iterable[Credentials] = (),
    ) -> Got:
        """GET in the names that this mode allows, until one is not refused.

        :param stale: whether a stale answer is at hand, which shortens the deadline.
        :param others: what other clients brought who may have the same content of the same repository.
        :raises UpstreamUnreachable: no answer.
        """
        upstream, deadline_s = self.upstream(pull.namespace), self._deadline_s(ask, pull, "GET", stale)
        names = (ask.credentials, *others)
        return await self.as_allowed(upstream, names, lambda who: upstream.get(pull, who, byte_range, deadline_s))

    async def head(self, ask: Ask, pull: Pull, stale: bool = False) -> IResponse:
        """HEAD in the names that this mode allows, until one is not refused."""
        upstream, deadline_s = self.upstream(pull.namespace), self._deadline_s(ask, pull, "HEAD", stale)
        got = await self.as_allowed(upstream, (ask.credentials,), lambda who: upstream.head(pull, who, deadline_s))
        discard(got.response)
        return got.response

    async def probe(self, ask: Ask) -> IResponse:
        """Ask whether the client's own credentials reach what it asks for."""
        deadline_s = self._deadline_s(ask, ask.pull, "HEAD", False)
        return await self.upstream(ask.pull.namespace).probe(ask.pull, ask.credentials, deadline_s)

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

    async def as_allowed(
        self,
        upstream: IUpstream,
        brought: Iterable[Credentials],
        send: Callable[[Credentials], Awaitable[IResponse]],
    ) -> Got:
        """Send in one name after the other until one is not refused; the last refusal is the answer.

        :param brought: what clients brought, first choice first.
        :raises LoginUnavailable: our own login cannot be had now, and nobody else's is enough.
        """
        lost: LoginUnavailable | None = None
        got: Got | None = None
        for who in self._names(upstream, brought):
            if got is not None:
                discard(got.response)
            try:
                got = Got(await send(who), self._holds(who))
            except LoginUnavailable as error:
                got, lost = None, error
                continue
            if got.response.code not in (401, 403):
                return got
        if lost is not None:
            if got is not None:
                discard(got.response)
            raise lost
        assert got is not None, "somebody is always asked for"
        return got

    def _holds(self, who: Credentials) -> bool:
        """Whether what comes in this name is held (RULES D3).

        Where each client is admitted, any registry may say yes to any digest: it must not open what another guards.
        """
        return who.own or (self._strict and not who.is_anonymous)

    def _names(self, upstream: IUpstream, brought: Iterable[Credentials]) -> list[Credentials]:
        """Return in whose names to ask, each once."""
        names = dict.fromkeys(brought)
        if self._strict:
            return list(names)
        # Transparent mode: who may not read this with his own credential reads what we, and what everybody may.
        named = [who for who in names if not who.is_anonymous]
        return [*named, *((OWN,) if upstream.has_own_credentials else ()), ANONYMOUS]

    def upstream(self, namespace: str) -> IUpstream:
        """Return the upstream of a namespace.

        :raises UpstreamUnreachable: it has been taken out of the configuration meanwhile.
        """
        upstream = self._registry.upstream(namespace)
        if upstream is None:
            raise UpstreamUnreachable(f"no upstream is configured for {namespace}")
        return upstream

    def entry(self, namespace: str) -> Entry | None:
        """Return what is configured about a namespace."""
        return self._registry.entry(namespace)

    def patience_s(self, namespace: str) -> float:
        """Return how long a client waits who can have a stale answer: for upstream, and as long again for a token."""
        entry = self.entry(namespace)
        return 2 * (STALE_DEADLINE_S if entry is None else entry.stale_deadline_s)

    async def in_time(self, namespace: str, asked: Coroutine[Any, Any, T]) -> T:
        """Wait as long as a stale answer may wait; whatever takes longer is given up.

        :raises UpstreamUnreachable: it takes longer.
        """
        try:
            return await Deferred.fromCoroutine(asked).addTimeout(self.patience_s(namespace), self._clock)
        except TimeoutError as error:
            raise UpstreamUnreachable("the upstream did not say in time what holds now", timed_out=True) from error

    def _deadline_s(self, ask: Ask, pull: Pull, method: str, stale: bool) -> float | None:
        entry = self.entry(pull.namespace)
        if entry is None:
            return None
        if stale:
            return entry.stale_deadline_s
        if not ask.has_fallback:
            return entry.deadline_s
        return entry.blob_deadline_s if pull.kind == "blob" and method == "GET" else entry.head_deadline_s
