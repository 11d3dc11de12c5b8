"""How often somebody may fail, so that nobody can try many passwords (RULES C4)."""

from __future__ import annotations

import math
from collections import deque
from typing import Final

from attrs import define, field
from twisted.internet.interfaces import IReactorTime

from txociproxy.oci.errors import OCIError

WITHIN_S: Final = 60.0
MAX_KEYS: Final = 4096


@define(eq=False)
class Failures:
    """Remembers who failed within the last minute.

    :ivar _limit: how many failures a minute somebody may have.
    """

    _clock: IReactorTime
    _limit: int
    _max_keys: int = MAX_KEYS
    _at_s: dict[str, deque[float]] = field(factory=dict, init=False)

    def check(self, key: str) -> None:
        """Let somebody pass.

        :raises OCIError: TOOMANYREQUESTS, and when to come again.
        """
        recent = self._recent(key)
        if len(recent) < self._limit:
            return
        wait_s = max(1, math.ceil(recent[0] + WITHIN_S - self._clock.seconds()))
        raise OCIError("TOOMANYREQUESTS", "too many failures", headers=(("Retry-After", str(wait_s)),))

    def count(self, key: str) -> None:
        """Remember a failure; whoever has been good longest makes room."""
        recent = self._recent(key)
        recent.append(self._clock.seconds())
        self._at_s.pop(key, None)
        self._at_s[key] = recent
        if len(self._at_s) > self._max_keys:
            del self._at_s[next(iter(self._at_s))]

    def _recent(self, key: str) -> deque[float]:
        recent = self._at_s.get(key, deque(maxlen=self._limit))
        while recent and recent[0] <= self._clock.seconds() - WITHIN_S:
            recent.popleft()
        return recent
