"""Slots: how many of a kind may run together, in all and per key; who comes too late waits a while (RULES A5)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from txociproxy.oci.errors import OCIError

Keys = tuple[Hashable, ...]


def _nobody_counts(_: str) -> None:
    """Take no note of a cap."""


@define(eq=False)
class Slots:
    """A cap per position of the keys: ``limits=(256, 64)`` caps ``("all", namespace)``.

    :ivar _wait_s: how long to wait for a place.
    :ivar _names: the caps' names, one per position; none are told of where there are none.
    :ivar _reached: called with the name of each cap that lets somebody wait, or refuses him.
    """

    _what: str
    _limits: tuple[int, ...]
    _clock: IReactorTime
    _wait_s: float = 5.0
    _names: tuple[str, ...] = ()
    _reached: Callable[[str], object] = _nobody_counts
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
        for name in dict.fromkeys(self._full_for(keys)):
            self._reached(name)
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

    def uses(self) -> dict[str, tuple[float, float]]:
        """Return how much is taken of each cap, under its fullest key, and how much there is."""
        found: dict[str, tuple[float, float]] = {}
        for position, (name, limit) in enumerate(zip(self._names, self._limits, strict=False)):
            taken = (count for (where, _), count in self.taken.items() if where == position)
            found.setdefault(name, (max(taken, default=0), limit))
        return found

    def _full_for(self, keys: Keys) -> list[str]:
        """Return the names of the caps that have no place under these keys."""
        positions = zip(self._names, enumerate(keys), self._limits, strict=False)
        return [name for name, position, limit in positions if self.taken[position] >= limit]

    def _fits(self, keys: Keys) -> bool:
        return all(self.taken[position] < limit for position, limit in zip(enumerate(keys), self._limits, strict=True))

    def _take(self, keys: Keys) -> None:
        self.taken.update(enumerate(keys))

    def _full(self) -> OCIError:
        return OCIError(
            "TOOMANYREQUESTS", f"too many {self._what} at once; try again", status=503, headers=(("Retry-After", "1"),)
        )
