"""How much a client may send that costs us more than it (CVE-2019-9512 to 9518, CVE-2023-44487, CVE-2025-8671)."""

from __future__ import annotations

from attrs import define, field
from twisted.internet.interfaces import IReactorTime

from txociproxy.web.http2.frames import RST_STREAM, FrameMeter
from txociproxy.web.http2.limits import (
    FRAMES_PER_MINUTE,
    FRAMES_PER_REQUEST,
    RESETS_PER_MINUTE,
    SENT_BYTES_PER_FRAME,
    Allowance,
)


@define(eq=False)
class Guard:
    """Counts what comes in on one connection."""

    _clock: IReactorTime
    _meter: FrameMeter = field(factory=FrameMeter, init=False)
    _resets: Allowance = field(init=False)
    _frames: Allowance = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._resets = Allowance(self._clock, RESETS_PER_MINUTE)
        self._frames = Allowance(self._clock, FRAMES_PER_MINUTE)

    @property
    def is_between(self) -> bool:
        """Whether nothing is half said."""
        return self._meter.is_between

    def allows(self, data: bytes) -> bool:
        """Say whether the client may send this."""
        kinds = self._meter.feed(data)
        resets = kinds.count(RST_STREAM)
        others = len(kinds) - resets
        return self.allows_resets(resets) and (not others or self._frames.spend(others))

    def requested(self) -> None:
        """The client has begun a request, and may say more for it; no head that begins none gives it anything."""
        self._frames.earn(1 + FRAMES_PER_REQUEST)

    def allows_resets(self, count: int) -> bool:
        """Say whether so many streams may be reset; those that a client makes us reset cost as much as its own."""
        return not count or self._resets.spend(count)

    def sent(self, sent_bytes: int) -> None:
        """The client was given so much, and may say more for it: windows above all."""
        self._frames.earn(sent_bytes / SENT_BYTES_PER_FRAME)
