"""The line of uploads that wait for their turn: the oldest first, those that failed not before their time."""

from __future__ import annotations

import heapq
from itertools import count

from attrs import define, field

from txociproxy.storage.s3.hands import Upload


@define(eq=False)
class Line:
    """Uploads in the order of their age, but for those that are not due."""

    _ready: list[tuple[int, int, Upload]] = field(factory=list)
    _later: list[tuple[float, int, Upload]] = field(factory=list)
    _serial: count[int] = field(factory=count)  # two entries are never compared by their uploads

    def push(self, upload: Upload) -> None:
        """Let it wait for its turn, and for its time; once, however often this is said."""
        if not upload.queued:
            upload.queued = True
            heapq.heappush(self._later, (upload.due_s, next(self._serial), upload))

    def pop(self, now_s: float) -> Upload | None:
        """Take the oldest one that is due and was not cancelled; None if there is none now."""
        while self._later and self._later[0][0] <= now_s:
            upload = heapq.heappop(self._later)[2]
            heapq.heappush(self._ready, (upload.number, next(self._serial), upload))
        while self._ready:
            upload = heapq.heappop(self._ready)[2]
            if upload.queued:
                upload.queued = False
                return upload
        return None

    def due_s(self) -> float | None:
        """Return when the next one is due; None if none waits for its time."""
        return self._later[0][0] if self._later else None
