"""S3Storage: a bucket that many proxies share, and a local disk before it.

The bucket is the truth.  What has just arrived is published on the local disk, which ends the pull, and brought into
the bucket behind everybody's back; until it is there this process answers from the local copy.  Trouble with S3 slows
no pull: what cannot be told within the patience, or while the gate is closed, is StorageUnavailable at once.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

from attrs import define, evolve, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from twisted.web.iweb import IAgent
from zope.interface import implementer

from txociproxy.interfaces import Elsewhere, ISpool, IStorage, IWorkers, Local, TagName, TagRecord
from txociproxy.oci.errors import StorageUnavailable
from txociproxy.oci.names import Descriptor, Digest
from txociproxy.storage.files import Files
from txociproxy.storage.layout import Layout
from txociproxy.storage.s3.connecting import Connection
from txociproxy.storage.s3.far import Far
from txociproxy.storage.s3.leases import Leases
from txociproxy.storage.s3.near import LocalStorage, Near
from txociproxy.storage.s3.opening import START_PATIENCE_S
from txociproxy.storage.s3.settings import S3Settings
from txociproxy.storage.s3.watching import WatchedSpool

REMOVAL_S = 30.0


@implementer(IStorage)
@define(eq=False)
class S3Storage:
    """Content in a bucket.

    :ivar _local: over ``_layout``; has what waits for its upload and, with a tier, what is used most.
    :ivar _workers: the pool for what asks S3 and blocks.
    :ivar _now: seconds since the epoch.
    :ivar _connect: see :func:`connecting.connect`.
    :ivar _agent_for: makes what sends reads, for an endpoint's URL and a file of authorities that are trusted.
    :ivar _disk_workers: the pool for writes to the local disk; without it they wait among what asks S3.
    :ivar far, near: the bucket, and what lies here.
    """

    _settings: S3Settings
    _local: LocalStorage
    _files: Files
    _layout: Layout
    _workers: IWorkers
    _clock: IReactorTime
    _now: Callable[[], float]
    _connect: Callable[[S3Settings], Connection]
    _agent_for: Callable[[str, str | None], IAgent]
    _disk_workers: IWorkers | None = None
    _start_patience_s: float = START_PATIENCE_S
    far: Far = field(init=False)
    near: Near = field(init=False)
    leases: Leases = field(init=False)

    def __attrs_post_init__(self) -> None:
        settings, workers, clock = self._settings, self._workers, self._clock
        makers = (self._connect, self._agent_for)
        far = self.far = Far(settings, workers, clock, self._now, *makers, self._start_patience_s)
        disk = (self._local, self._files, self._layout, workers, self._disk_workers or workers)
        near = self.near = Near(far, self._arrived, *disk, clock)
        about = (far.bucket, far.reads.head, far.keys, workers, far.gate, clock)
        self.leases = Leases(*about, near.uploads.is_coming, settings.lease_wait_s)

    # --- its life

    def prepare(self, mode: str, adopt: bool = False) -> None:
        """Make ready before the first listen; blocks.  S3 that is out is a warning, it is tried again behind.

        :param adopt: take over stores of the other mode, here and there, with all that they keep (RULES D4).

        :raises StorageUnavailable: the local root cannot be written, it or the bucket belongs to another mode or
            version, or there is no SDK.
        """
        self.near.prepare(mode, adopt)
        self.far.prepare(mode, adopt)

    def start(self) -> None:
        """Begin what goes on behind, in the reactor."""
        self.far.start()
        self.near.start()
        self.leases.start()

    def stop(self) -> Deferred[None]:
        """Begin nothing more; fires when the uploads have ended or were given up, within some seconds.

        What is not in the bucket stays marked on the local disk.
        """
        self.leases.stop()
        self.far.stop()
        return self.near.stop()

    # --- content

    def find(self, digest: Digest, namespace: str) -> Deferred[Local | Elsewhere | None]:
        """See :meth:`IStorage.find`."""
        return Deferred.fromCoroutine(self._find(digest, namespace))

    async def _find(self, digest: Digest, namespace: str) -> Local | Elsewhere | None:
        local = await self.near.find(digest, namespace)
        if local is not None:
            return local
        elsewhere = await self.far.objects.find(digest, namespace)
        if elsewhere is not None and (fill := self.near.fill_for(elsewhere.descriptor)) is not None:
            return evolve(elsewhere, fill=fill)
        return elsewhere

    def open_spool(self, digest: Digest, size_bytes: int | None) -> ISpool:
        """See :meth:`IStorage.open_spool`; also while S3 is out: then it waits here, as far as the budget goes."""
        try:
            if self.far.opening.not_ours is not None:
                raise self.far.opening.not_ours
            spool = self.near.open_spool(digest, size_bytes)
        except StorageUnavailable:
            self.leases.release(digest)
            raise
        if self._settings.lease_wait_s <= 0:
            return spool
        self.leases.opened(digest)
        return WatchedSpool(spool, lambda _: self.leases.closed(digest))

    def await_turn(self, digest: Digest) -> Deferred[bool]:
        """See :meth:`IStorage.await_turn`."""
        return self.leases.await_turn(digest)

    def leave_turn(self, digest: Digest) -> None:
        """See :meth:`IStorage.leave_turn`."""
        self.leases.release(digest)

    def remove(self, digest: Digest) -> Deferred[bool]:
        """See :meth:`IStorage.remove`; other proxies may believe in it for a moment, or have a copy in their tier.

        :raises StorageUnavailable: it is not certain that all of it has gone, or not in time; then it goes on behind.
        """
        return Deferred.fromCoroutine(self._remove(digest)).addTimeout(REMOVAL_S, self._clock, _late)

    async def _remove(self, digest: Digest) -> bool:
        there: list[bool] = []

        async def work() -> None:
            try:
                there.append(await self.near.remove(digest))
                there.append(await self.far.remove(digest))
            finally:
                self.far.objects.forget(digest)

        await self.near.uploads.cancel(digest, work)
        return any(there)

    async def walk(self) -> AsyncIterator[Descriptor]:
        """See :meth:`IStorage.walk`; the digests of what is here and one page of keys are all that is in memory.

        :raises StorageUnavailable: what is in the bucket cannot be told, or not to its end.
        """
        here: set[Digest] = set()
        async for descriptor in self._local.walk():
            here.add(descriptor.digest)
            yield descriptor
        async for descriptor in self.far.walk(here.__contains__):
            yield descriptor

    # --- tags

    def recall_tag(self, name: TagName) -> Deferred[tuple[TagRecord, ...]]:
        """See :meth:`IStorage.recall_tag`."""
        return Deferred.fromCoroutine(self.far.tags.recall(name))

    def record_tag(self, name: TagName, record: TagRecord) -> Deferred[None]:
        """See :meth:`IStorage.record_tag`; it is in the bucket soon after."""
        return self.far.tags.record(name, record)

    def forget_tag(self, name: TagName) -> Deferred[None]:
        """See :meth:`IStorage.forget_tag`; it has gone from the bucket soon after."""
        return self.far.tags.forget(name)

    def _arrived(self, digest: Digest) -> None:
        """It is in the bucket."""
        self.far.objects.forget(digest)
        self.leases.release(digest, is_done=True)


def _late(_: object, after_s: float) -> Failure:
    return Failure(StorageUnavailable(f"a removal has not ended after {after_s:g} seconds"))
