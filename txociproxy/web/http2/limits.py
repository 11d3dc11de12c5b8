"""What a client may make us hold or do on one HTTP/2 connection (RULES A3, A5)."""

from __future__ import annotations

from typing import Final

from attrs import define, field
from twisted.internet.interfaces import IReactorTime

from txociproxy.web.heads import MAX_FORM_BYTES

MAX_STREAMS: Final = 100
MAX_HEAD_BYTES: Final = 256 * 1024
MAX_FIELD_BYTES: Final = 128 * 1024
MAX_FIELDS: Final = 500
# Forms that arrive side by side, all together.
MAX_FORMS_BYTES: Final = 4 * MAX_FORM_BYTES
# What one stream may have waiting, and all of a connection; then their producers are paused.
STREAM_BYTES: Final = 256 * 1024
CONNECTION_BYTES: Final = 4 * 1024 * 1024
# Bodies without a producer are in memory whole; what is beyond this ends its stream.
QUEUE_BYTES: Final = 16 * 1024 * 1024
# Per turn of the reactor, and per stream before the next one has its turn.
TURN_BYTES: Final = 256 * 1024
SLICE_BYTES: Final = 64 * 1024
# Answers to a client that does not read: acknowledgements, and the heads of answers.
MAX_CONTROL_BYTES: Final = 1024 * 1024
# A request that is reset at once costs its sender nothing (CVE-2023-44487).
RESETS_PER_MINUTE: Final = 100
# PING, SETTINGS, WINDOW_UPDATE and so on; a request and what was sent to the client give it more.
FRAMES_PER_MINUTE: Final = 1000
FRAMES_PER_REQUEST: Final = 10
SENT_BYTES_PER_FRAME: Final = 4096

# Long heads, as they come or as they are meant, whichever is longer: reading them is most of what a request may cost.
# With half of it left the client is asked to go on elsewhere; 80 requests with 100 KiB of Authorization come before.
HEAD_BYTES_PER_MINUTE: Final = 16 * 1024 * 1024
FREE_HEAD_BYTES: Final = 1024

_MINUTE_S: Final = 60.0
_MAX_EARNED: Final = 4


@define(eq=False)
class Allowance:
    """So much at once, and as much again each minute."""

    _clock: IReactorTime
    _per_minute: int
    _left: float = field(init=False)
    _at_s: float = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._left = self._per_minute
        self._at_s = self._clock.seconds()

    def spend(self, count: int) -> bool:
        """Take some; False says that they were not there."""
        if not self.has(count):
            return False
        self._left -= count
        return True

    def has(self, count: int) -> bool:
        """Say whether so many are there."""
        now_s = self._clock.seconds()
        if self._left < self._per_minute:
            # A wall clock may step back.
            refill = max(0.0, now_s - self._at_s) * self._per_minute / _MINUTE_S
            self._left = min(self._per_minute, self._left + refill)
        self._at_s = now_s
        return self._left >= count

    def earn(self, count: float) -> None:
        """Add some, up to a few minutes' worth."""
        self._left = min(self._per_minute * _MAX_EARNED, self._left + count)
