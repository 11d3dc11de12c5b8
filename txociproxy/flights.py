"""Flights: at most one ask per key, shared by all who want the same.

Success is shared, refusal is not (law 7).  The ask belongs to the flight and to no client: it goes on when the one
who started it leaves and others wait, and is cancelled when nobody waits any more.  Everybody waits on a Deferred of
his own.  An upstream that gave no answer at all is a failure, not a refusal, and everybody is told; but that our own
login cannot be had concerns nobody who brings another.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from attrs import define, field, frozen
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from txociproxy.upstreams.logins.accounts import LoginUnavailable

T = TypeVar("T")
R = TypeVar("R")


@frozen
class Landed(Generic[T]):
    """An outcome for everybody.

    :ivar brought: whether the ask brought it; False says that somebody else's had done so meanwhile.
    """

    value: T
    brought: bool = True


@define(eq=False)
class _Flight(Generic[T, R]):
    ask: Deferred[Landed[T] | R] | None = None
    waiters: list[Deferred[Landed[T] | R]] = field(factory=list)
    over: bool = False


@define(eq=False)
class Flights(Generic[T, R]):
    """The asks that are under way.

    :ivar _claim: called with a value that has landed, once for each who is about to be told; that is earlier than
        he could do it himself, when the ask ended before it was waited for.
    :ivar _settled: called with a value that has landed, after all who waited were told.
    """

    _claim: Callable[[T], None] = field(default=lambda _: None)
    _settled: Callable[[T], None] = field(default=lambda _: None)
    _flying: dict[Hashable, _Flight[T, R]] = field(factory=dict)

    def is_flying(self, key: Hashable) -> bool:
        """Whether an ask under this key is under way."""
        return key in self._flying

    async def join(self, key: Hashable, ask: Callable[[], Awaitable[Landed[T] | R]]) -> tuple[Landed[T] | R, bool]:
        """Wait for the ask under this key, or start it.

        After somebody else's refusal, or where only ours would have done for him, this client asks for itself.

        :returns: the outcome, and whether this client's own ask brought it.
        :raises Exception: whatever the shared ask raised.
        """
        while True:
            flight = self._flying.get(key)
            started = flight is None
            if flight is None:
                flight = self._flying[key] = _Flight()
            waiter: Deferred[Landed[T] | R] = Deferred()
            flight.waiters.append(waiter)
            if started:
                self._take_off(key, flight, ask)
            try:
                outcome = await waiter
            except LoginUnavailable:
                if started:
                    raise
                continue
            finally:
                self._leave(key, flight, waiter)
            if isinstance(outcome, Landed):
                return outcome, started and outcome.brought
            if started:
                return outcome, True

    def _take_off(self, key: Hashable, flight: _Flight[T, R], ask: Callable[[], Awaitable[Landed[T] | R]]) -> None:
        async def asking() -> Landed[T] | R:
            return await ask()

        flying = Deferred.fromCoroutine(asking())
        flying.addBoth(self._land, key, flight)
        flight.ask = flying

    def _land(self, outcome: Landed[T] | R | Failure, key: Hashable, flight: _Flight[T, R]) -> None:
        flight.over = True
        if self._flying.get(key) is flight:
            del self._flying[key]
        waiters, flight.waiters = flight.waiters, []
        for waiter in waiters:
            if waiter.called:
                continue  # he left while those before him were told
            if isinstance(outcome, Landed):
                self._claim(outcome.value)
            waiter.callback(outcome)  # a Failure makes it an errback
        if isinstance(outcome, Landed):
            self._settled(outcome.value)

    def _leave(self, key: Hashable, flight: _Flight[T, R], waiter: Deferred[Landed[T] | R]) -> None:
        if waiter in flight.waiters:
            flight.waiters.remove(waiter)
        if not flight.over and not flight.waiters and flight.ask is not None:
            if self._flying.get(key) is flight:
                del self._flying[key]
            flight.ask.cancel()
