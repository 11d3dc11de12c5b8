"""The tier: content that stays on the local disk after its upload, and is served from there.

It is bounded apart from what waits for its upload: together they take at most ``tier_max_bytes`` and
``spool_max_bytes``, with what is just arriving.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import cast

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from txociproxy.interfaces import IWorkers
from txociproxy.oci.errors import StorageUnavailable
from txociproxy.oci.names import Descriptor, Digest
from txociproxy.remembering import remember
from txociproxy.storage.files import Files
from txociproxy.storage.layout import Layout
from txociproxy.storage.s3.gate import Gate
from txociproxy.storage.trimming import trim

LEFT_PERCENT = 90  # a trim makes room for some time, so that not every upload begins one
MAKE_ROOM_EVERY_S = 10.0  # longer than an old look at the disk is believed, which does not see the room yet
MAX_SEEN = 10_000
ASKS_AT_ONCE = 4
DAY_S = 24 * 3600.0


@define(eq=False)
class Tier:
    """Knows how much there is, and removes what was used longest ago when it is too much.

    :ivar _max_bytes: 0 is no tier at all.
    :ivar _is_waiting: whether content still waits for its upload; called in a thread.
    :ivar used_bytes: what there is, counted on from the last look; exact after each look.
    """

    _files: Files
    _layout: Layout
    _workers: IWorkers
    _max_bytes: int
    _is_waiting: Callable[[Digest], bool]
    _clock: IReactorTime
    used_bytes: int = 0
    _grown_bytes: int = field(default=0, init=False)
    _busy: bool = field(default=False, init=False)
    _made_room_s: float = field(default=float("-inf"), init=False)

    log = Logger()

    @property
    def is_on(self) -> bool:
        """Whether anything stays at all."""
        return self._max_bytes > 0

    def takes(self, size_bytes: int) -> bool:
        """Whether content of this size may stay; one that drove out all the others may not."""
        return self.is_on and size_bytes <= self._target_bytes

    @property
    def _target_bytes(self) -> int:
        return self._max_bytes * LEFT_PERCENT // 100

    def start(self) -> None:
        """Count what an earlier process has left."""
        if self.is_on:
            self._begin()

    def grew(self, size_bytes: int) -> None:
        """Count content that has come to stay.  Reactor only."""
        self.used_bytes += size_bytes
        self._grown_bytes += size_bytes
        if self.used_bytes > self._max_bytes and not self._busy:
            self._begin()

    def make_room(self, size_bytes: int) -> None:
        """Let go of some of it: the disk has no room for this much.  Reactor only.

        Whoever asked is not helped any more; the next one is, when the disk has been looked at again.
        """
        now_s = self._clock.seconds()
        if self.is_on and not self._busy and now_s - self._made_room_s >= MAKE_ROOM_EVERY_S:
            self._made_room_s = now_s
            tenth_bytes = self.used_bytes * (100 - LEFT_PERCENT) // 100
            left_bytes = max(self.used_bytes - max(tenth_bytes, size_bytes), self.used_bytes // 2)
            # One that was never counted is only counted.
            self._begin((left_bytes, left_bytes) if self.used_bytes else None)

    def _begin(self, bounds: tuple[int, int] | None = None) -> None:
        self._busy, self._grown_bytes = True, 0
        max_bytes, target_bytes = bounds or (self._max_bytes, self._target_bytes)
        cast("Deferred[int]", self._workers.run(self._trim, max_bytes, target_bytes)).addCallbacks(
            self._trimmed, self._failed
        )

    def _trim(self, max_bytes: int, target_bytes: int) -> int:
        return trim(self._files, self._layout, max_bytes, target_bytes, self._is_waiting)[0]

    def _trimmed(self, left_bytes: int) -> None:
        self._busy = False
        # What came meanwhile may have been seen, or not: counted twice it brings the next look forward, no more.
        self.used_bytes = left_bytes + self._grown_bytes
        if self.used_bytes > self._max_bytes:
            self._begin()

    def _failed(self, failure: Failure) -> None:
        self._busy = False
        failure.trap(OSError)
        self.log.warn("the local tier could not be trimmed: {reason}", reason=failure.getErrorMessage())


@define(eq=False)
class Backing:
    """Sees to it that what the tier answers for stays in the bucket: asks after it, once a quarter of the lifecycle.

    Asking renews what is old there (RULES G4); what the bucket has lost is brought again.

    :ivar _find: asks the bucket; None is a miss.
    :ivar _restore: brings local content into the bucket; behind.
    :ivar _lifecycle_days: 0 is never.
    """

    _find: Callable[[Digest, str], Awaitable[object]]
    _restore: Callable[[Descriptor], Awaitable[None]]
    _gate: Gate
    _clock: IReactorTime
    _lifecycle_days: int
    _seen_s: OrderedDict[Digest, float] = field(factory=OrderedDict, init=False)
    _running: set[Digest] = field(factory=set, init=False)

    log = Logger()

    def seen(self, digest: Digest) -> None:
        """It has just been met in the bucket, or brought there."""
        remember(self._seen_s, digest, self._clock.seconds(), MAX_SEEN)

    def used(self, descriptor: Descriptor, namespace: str) -> None:
        """The tier has answered for it; never waits and never raises."""
        digest = descriptor.digest
        seen_s = self._seen_s.get(digest, float("-inf"))
        is_due = self._lifecycle_days > 0 and self._clock.seconds() - seen_s >= self._lifecycle_days * DAY_S / 4
        if is_due and self._gate.is_open and len(self._running) < ASKS_AT_ONCE and digest not in self._running:
            self._running.add(digest)
            d = Deferred.fromCoroutine(self._look(descriptor, namespace))
            d.addBoth(self._looked, digest)

    async def _look(self, descriptor: Descriptor, namespace: str) -> None:
        if await self._find(descriptor.digest, namespace) is None:
            await self._restore(descriptor)
        self.seen(descriptor.digest)

    def _looked(self, result: Failure | None, digest: Digest) -> None:
        self._running.discard(digest)
        if isinstance(result, Failure) and not result.check(StorageUnavailable, OSError, CancelledError):
            self.log.failure("the bucket could not be asked after what the tier has", result)
