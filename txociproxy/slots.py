"""Slots: how many of a kind may run together, in all and per key; who comes too late waits a while (RULES A5)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from txociproxy.oci.errors import OCIError

Keys = tuple[Hashable, ...]


@define(eq=False)
class Slots:
    """A cap per position of the keys: ``limits=(256, 64)`` caps ``("all", namespace)``.

    :ivar _wait_s: how long to wait for a place.
    """

    _what: str
    _limits: tuple[int, ...]
    _clock: IReactorTime
    _wait_s: float = 5.0
    taken: Counter[tuple[int, Hashable]] = field(factory=Counter)
    _waiting: list[tuple[Keys, Deferred[None]]] = field(factory=list)

    def patience_ends_s(self) -> float:
        """Return until when somebody waits who comes now."""
        return self._clock.seconds() + self._wait_s

    async def enter(self, *keys: Hashable, until_s: float | None = None) -> None:
        """Take a place under each key.

        :param until_s: how long to wait, by the clock; None is the usual time from now on.
        :raises OCIError: TOOMANYREQUESTS with status 503, if none came free in time.
        """
        if self._fits(keys):
            self._take(keys)
            return
        wait_s = self._wait_s if until_s is None else until_s - self._clock.seconds()
        if wait_s <= 0:
            raise self._full()
        waiter: Deferred[None] = Deferred(lambda _: None)
        place = (keys, waiter)
        timer = self._clock.callLater(wait_s, lambda: waiter.errback(self._full()))
        self._waiting.append(place)
        try:
            await waiter
        finally:
            if timer.active():
                timer.cancel()
            if place in self._waiting:
                self._waiting.remove(place)

    def leave(self, *keys: Hashable) -> None:
        """Give the place back; whoever waits longest and fits now gets it."""
        for position in enumerate(keys):
            self.taken[position] -= 1
            if self.taken[position] <= 0:
                del self.taken[position]
        for place in list(self._waiting):
            # Whoever is told may give his place back at once, and so tell those behind him.
            if place in self._waiting and self._fits(place[0]):
                self._waiting.remove(place)
                self._take(place[0])
                place[1].callback(None)

    def _fits(self, keys: Keys) -> bool:
        return all(self.taken[position] < limit for position, limit in zip(enumerate(keys), self._limits, strict=True))

    def _take(self, keys: Keys) -> None:
        self.taken.update(enumerate(keys))

    def _full(self) -> OCIError:
        return OCIError(
            "TOOMANYREQUESTS", f"too many {self._what} at once; try again", status=503, headers=(("Retry-After", "1"),)
        )
