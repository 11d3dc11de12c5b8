"""What has to be done for a bucket now and then, behind everybody's back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol as Shape
from typing import cast

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from txociproxy.interfaces import IWorkers
from txociproxy.oci.errors import StorageUnavailable
from txociproxy.storage.s3.bucket import Bucket
from txociproxy.storage.s3.gate import Gate
from txociproxy.storage.s3.keys import Keys
from txociproxy.storage.s3.lifecycle import apply_lifecycle
from txociproxy.storage.s3.settings import S3Settings

DAY_S = 24 * 3600.0
REFRESH_EVERY_S = 60.0
# RULES G4: younger ones may be another proxy's that is still at work.
OLD_UPLOAD_S = DAY_S
# They live for a minute: whoever made one that is so old is dead.
OLD_LEASE_S = DAY_S


class Leaseholds(Shape):
    """What is needed of a bucket; everything blocks and raises S3Trouble only."""

    def delete(self, *keys: str) -> None:
        """Remove objects."""

    def head(self, key: str) -> tuple[int, float] | None:
        """Return (size in bytes, age in seconds by the server's clock); None is not there."""

    def page(self, prefix: str, after: str | None) -> tuple[list[tuple[str, int]], str | None]:
        """Return keys with their sizes, and what the next page comes after."""


@define(eq=False)
class Chores:
    """The lifecycle, what dead uploads and dead proxies have left, and credentials that end.

    None of them is worth an outage, so the gate is told of nothing; the owner is, once for each kind of trouble.

    :ivar _bucket: None while there is none.
    :ivar _refresh: takes the credentials anew; blocks.
    """

    _bucket: Callable[[], Bucket | None]
    _refresh: Callable[[], None]
    _keys: Keys
    _settings: S3Settings
    _workers: IWorkers
    _gate: Gate
    _clock: IReactorTime
    _loops: list[LoopingCall] = field(factory=list, init=False)
    _is_busy: bool = field(default=False, init=False)
    _troubles: dict[str, str] = field(factory=dict, init=False)

    log = Logger()

    def start(self) -> None:
        """Begin now, after every outage, and once a day."""
        self._gate.on_open.append(self.begin)
        for function, every_s in ((self.begin, DAY_S), (self._refresh_behind, REFRESH_EVERY_S)):
            loop = LoopingCall(function)
            loop.clock = self._clock
            loop.start(every_s, now=False)
            self._loops.append(loop)
        self.begin()

    def stop(self) -> None:
        """Begin nothing more."""
        if self.begin in self._gate.on_open:
            self._gate.on_open.remove(self.begin)
        while self._loops:
            self._loops.pop().stop()

    def begin(self) -> None:
        """Do what is due once a day, unless it is being done, or S3 is out."""
        bucket = self._bucket()
        if bucket is not None and self._gate.is_open and not self._is_busy:
            self._is_busy = True
            Deferred.fromCoroutine(self._all(bucket)).addErrback(lambda failure: self.log.failure("chores", failure))

    async def _all(self, bucket: Bucket) -> None:
        scope, days = self._keys.content_scope, self._settings.lifecycle_days
        try:
            await self._try("the lifecycle was not set", lambda: apply_lifecycle(bucket, self._keys, days))
            await self._try("old uploads were not ended", lambda: bucket.abort_old_uploads(scope, OLD_UPLOAD_S))
            if self._settings.lease_wait_s > 0:
                await self._try("old leases were not removed", lambda: remove_old_leases(bucket, self._keys))
        finally:
            self._is_busy = False

    def _refresh_behind(self) -> Deferred[None]:
        # Its end is waited for: while one hangs no other begins.
        return Deferred.fromCoroutine(self._try("the credentials were not renewed", self._refresh))

    async def _try(self, what: str, step: Callable[[], object]) -> None:
        """Do a step in a thread; its trouble is told when it is new."""
        try:
            await cast("Deferred[object]", self._workers.run(step))
        except StorageUnavailable as trouble:
            if self._troubles.get(what) != str(trouble):
                self._troubles[what] = str(trouble)
                self.log.warn("S3: {what}: {reason}", what=what, reason=str(trouble))
        else:
            self._troubles.pop(what, None)


def remove_old_leases(bucket: Leaseholds, keys: Keys) -> int:
    """Remove the leases that processes have left which died more than a day ago; blocks; returns how many.

    :raises S3Trouble: the bucket does not do it.
    """
    scope, after, removed = f"{keys.marker.rpartition('/')[0]}/leases/".lstrip("/"), None, 0
    while True:
        found, after = bucket.page(scope, after)
        for key, _ in found:
            head = bucket.head(key)
            if head is not None and head[1] > OLD_LEASE_S:
                bucket.delete(key)
                removed += 1
        if after is None:
            return removed
