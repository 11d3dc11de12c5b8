"""Asks that are shared: one per key, which belongs to nobody and ends when nobody waits for it any more."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


@define(eq=False)
class _Asking(Generic[V]):
    answer: Deferred[V] | None = None
    waiters: list[Deferred[V]] = field(factory=list)
    over: bool = False


@define(eq=False)
class Shared(Generic[K, V]):
    """The asks that are under way.

    :ivar _landed: called with each answer, before anybody is told, unless its key has been parted with meanwhile.
    """

    _landed: Callable[[K, V], None]
    _asking: dict[K, _Asking[V]] = field(init=False, factory=dict)

    async def join(self, key: K, ask: Callable[[], Coroutine[Deferred[Any], Any, V]]) -> V:
        """Wait for the ask under this key, or start it.

        :raises Exception: whatever the ask raised, to all who waited.
        """
        asking = self._asking.get(key)
        waiter: Deferred[V] = Deferred()
        if asking is None:
            asking = self._asking[key] = _Asking()
            asking.waiters.append(waiter)
            answer = Deferred.fromCoroutine(ask())
            asking.answer = answer
            answer.addBoth(self._land, key, asking)
        else:
            asking.waiters.append(waiter)
        try:
            return await waiter
        finally:
            self._leave(key, asking, waiter)

    def part(self, key: K) -> None:
        """Let those who wait have their answer, and nobody else: what it tells is of the past."""
        self._asking.pop(key, None)

    def part_all(self) -> None:
        """Part with all keys."""
        self._asking.clear()

    def _land(self, outcome: V | Failure, key: K, asking: _Asking[V]) -> None:
        asking.over = True
        if self._asking.get(key) is asking:
            del self._asking[key]
            if not isinstance(outcome, Failure):
                self._landed(key, outcome)
        waiters, asking.waiters = asking.waiters, []
        for waiter in waiters:
            waiter.callback(outcome)  # a Failure makes it an errback; one who has left meanwhile does not hear it

    def _leave(self, key: K, asking: _Asking[V], waiter: Deferred[V]) -> None:
        if waiter in asking.waiters:
            asking.waiters.remove(waiter)
        if not asking.over and not asking.waiters and asking.answer is not None:
            if self._asking.get(key) is asking:
                del self._asking[key]
            asking.answer.cancel()
