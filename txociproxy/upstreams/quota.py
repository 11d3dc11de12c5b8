"""What an upstream says that is left of its pull quota, so that no pull is wasted on what nobody waits for."""

from __future__ import annotations

import re
from collections.abc import Callable

from attrs import define, field
from twisted.internet.interfaces import IReactorTime
from twisted.web.iweb import IResponse

from txociproxy.answers import field_of

# Docker Hub's form: ``100;w=21600``, 100 pulls in 21600 seconds.
_COUNT = re.compile(r"\s*(\d{1,12})\s*(?:;\s*w\s*=\s*(\d{1,9})\s*)?(?:[;,].*)?", re.ASCII | re.DOTALL)
# Where no window is said.
_WINDOW_S = 3600.0
_MAX_WINDOW_S = 24 * 3600.0


@define(eq=False)
class Quota:
    """The state of one upstream's quota, as its last answers to us told it.

    :ivar _low: the part of the limit below which it is scarce.
    :ivar _told: called with the limit and what is left of it.
    """

    _clock: IReactorTime
    _low: float
    _told: Callable[[int, int], None] = lambda limit, remaining: None
    _scarce_until_s: float = field(init=False, default=0.0)
    _paused_until_s: float = field(init=False, default=0.0)

    @property
    def can_spare(self) -> bool:
        """Whether there is room for asks that no client waits for."""
        return self._clock.seconds() >= max(self._scarce_until_s, self._paused_until_s)

    def note(self, response: IResponse) -> None:
        """Hear an answer; one that says nothing about a quota changes nothing."""
        limit, said_s = _count(response, "RateLimit-Limit")
        remaining, also_said_s = _count(response, "RateLimit-Remaining")
        if not limit or remaining is None:
            return
        self._told(limit, remaining)
        window_s = min(said_s or also_said_s or _WINDOW_S, _MAX_WINDOW_S)
        is_scarce = remaining / limit < self._low
        self._scarce_until_s = self._clock.seconds() + window_s if is_scarce else 0.0

    def pause(self, pause_s: float) -> None:
        """Hear that the upstream wants a pause."""
        self._paused_until_s = max(self._paused_until_s, self._clock.seconds() + pause_s)


def _count(response: IResponse, name: str) -> tuple[int | None, float | None]:
    """Return a field's number and its window in seconds, as far as they are there."""
    match = _COUNT.fullmatch(field_of(response, name) or "")
    if match is None:
        return None, None
    return int(match[1]), float(match[2]) if match[2] else None
