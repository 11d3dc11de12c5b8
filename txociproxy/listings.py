"""Listings: tag lists and referrers, remembered for a short while and good for an outage (RULES E8)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from attrs import define, evolve, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from twisted.web.iweb import IResponse

from txociproxy.asking import Asking
from txociproxy.flights import Flights, Landed
from txociproxy.interfaces import Relay
from txociproxy.oci.errors import OCIError, UpstreamUnreachable
from txociproxy.oci.names import Repository

MAX_LISTING_BYTES = 4 * 1024 * 1024
KEEP_S = 60.0
QUIET_S = 30.0  # how long a lost upstream is not asked again for the same list
# What one list costs beside its texts.
OVERHEAD_BYTES = 1024

Key = tuple[str, Repository, str, str]
T = TypeVar("T")


@define(eq=False)
class _Kept:
    """A list, and what it costs: clients choose the query, registries the fields, so both count."""

    relay: Relay
    fresh_until_s: float
    size_bytes: int


@define(eq=False)
class Listings:
    """Remembers lists, the least used are forgotten first.

    :ivar _remembers: whether the mode lets one client have what another was given.
    :ivar _max_bytes: of all lists together.
    """

    _asking: Asking
    _clock: IReactorTime
    _remembers: bool
    _max_bytes: int = 32 * 1024 * 1024
    _kept: OrderedDict[Key, _Kept] = field(factory=OrderedDict)
    _kept_bytes: int = 0
    _flights: Flights[Relay, Relay] = field(factory=Flights)

    async def get(self, key: Key, send: Callable[[], Awaitable[IResponse]]) -> Relay:
        """Return a list.

        :param key: namespace, repository, path and query.
        :param send: asks upstream.
        :raises UpstreamUnreachable: upstream is lost and nothing is remembered.
        """
        if not self._remembers:
            return await self._asking.relay(await send(), MAX_LISTING_BYTES)
        kept = self._kept.get(key)
        if kept is not None:
            self._kept.move_to_end(key)
            if self._clock.seconds() < kept.fresh_until_s:
                return kept.relay
        asked = self._flights.join(key, lambda: self._ask(key, send))
        try:
            outcome, _ = await (asked if kept is None else self._soon(key[0], asked))
        except (UpstreamUnreachable, OCIError):
            if kept is None:
                raise
            return self._stale(kept)
        relay = outcome.value if isinstance(outcome, Landed) else outcome
        if kept is not None and (relay.status == 429 or relay.status >= 500):
            return self._stale(kept)
        return relay

    def _soon(self, namespace: str, asked: Coroutine[Any, Any, T]) -> Deferred[T]:
        """Wait as long as a stale answer may wait (RULES D7).

        A list that takes longer goes on coming for those who ask later: a slow registry is not a lost one.
        """
        running = Deferred.fromCoroutine(asked)
        waiter: Deferred[T] = Deferred(lambda _: running.cancel())
        late = UpstreamUnreachable("the upstream did not give its list in time", timed_out=True)
        timer = self._clock.callLater(self._asking.patience_s(namespace), waiter.errback, late)

        def over(result: T | Failure) -> None:
            if timer.active():
                timer.cancel()
                waiter.callback(result)  # a Failure makes it an errback
            elif isinstance(result, Failure):
                result.trap(UpstreamUnreachable, OCIError)

        running.addBoth(over)
        return waiter

    async def _ask(self, key: Key, send: Callable[[], Awaitable[IResponse]]) -> Landed[Relay] | Relay:
        relay = await self._asking.relay(await send(), MAX_LISTING_BYTES)
        if relay.status == 404 and key[2].startswith("referrers/"):
            # A registry that does not know referrers: clients go on with tags, and must be able to in an outage too.
            self._keep(key, relay, 0.0)
            return relay
        if relay.status != 200 or not relay.body.lstrip().startswith(b"{"):
            return relay  # a page of a portal, say, that must not be remembered
        self._keep(key, evolve(relay, outcome="hit"), KEEP_S)
        return Landed(relay)

    def _keep(self, key: Key, relay: Relay, fresh_s: float) -> None:
        self._forget(key)
        fields_bytes = sum(len(name) + len(value) for name, value in relay.headers)
        size_bytes = OVERHEAD_BYTES + sum(len(str(part)) for part in key) + fields_bytes + len(relay.body)
        self._kept[key] = kept = _Kept(relay, self._clock.seconds() + fresh_s, size_bytes)
        self._kept_bytes += kept.size_bytes
        while self._kept_bytes > self._max_bytes:
            self._forget(next(iter(self._kept)))

    def _forget(self, key: Key) -> None:
        kept = self._kept.pop(key, None)
        if kept is not None:
            self._kept_bytes -= kept.size_bytes

    def _stale(self, kept: _Kept) -> Relay:
        kept.fresh_until_s = self._clock.seconds() + QUIET_S
        kept.relay = evolve(kept.relay, outcome="stale")
        return kept.relay
