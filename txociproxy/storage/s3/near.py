"""The near side of the storage: the local disk, with what waits for its upload and, in a tier, what is used most."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol as Shape
from typing import TypeVar, cast

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from txociproxy.interfaces import ISpool, IWorkers, Local
from txociproxy.oci.errors import NoSpace, StorageUnavailable
from txociproxy.oci.names import Descriptor, Digest
from txociproxy.storage.files import Files
from txociproxy.storage.layout import Layout
from txociproxy.storage.s3.budget import Budget
from txociproxy.storage.s3.far import Far
from txociproxy.storage.s3.publishing import publish
from txociproxy.storage.s3.spool import S3Spool
from txociproxy.storage.s3.tier import Backing, Tier
from txociproxy.storage.s3.uploads import Uploads
from txociproxy.storage.s3.waiting import Waiting
from txociproxy.storage.s3.watching import WatchedSpool
from txociproxy.storage.trimming import pieces, size_of

T = TypeVar("T")


class LocalStorage(Shape):
    """What is needed of the storage on the local disk."""

    def prepare(self, mode: str, adopt: bool = False) -> None:
        """Make the root ready; blocks."""

    def find(self, digest: Digest, namespace: str) -> Awaitable[Local | None]:
        """See :meth:`IStorage.find`."""

    def open_spool(self, digest: Digest, size_bytes: int | None) -> ISpool:
        """See :meth:`IStorage.open_spool`."""

    def walk(self) -> AsyncIterator[Descriptor]:
        """See :meth:`IStorage.walk`."""


@define(eq=False)
class Near:
    """What lies here, and its way into the bucket.

    :ivar _arrived: called when content has come into the bucket, and its local copy was let go or stays in the tier.
    :ivar local: over ``_layout``.
    :ivar _workers: the pool for what asks S3.
    :ivar _disk: the pool for writes to the local disk.
    """

    _far: Far
    _arrived: Callable[[Digest], None]
    local: LocalStorage
    _files: Files
    _layout: Layout
    _workers: IWorkers
    _disk: IWorkers
    _clock: IReactorTime
    uploads: Uploads = field(init=False)
    tier: Tier = field(init=False)
    _waiting: Waiting = field(init=False)
    _budget: Budget = field(init=False)
    _backing: Backing = field(init=False)

    log = Logger()

    def __attrs_post_init__(self) -> None:
        far, settings, clock = self._far, self._far.settings, self._clock
        self._waiting = Waiting(self._files, self._layout)
        self.uploads = Uploads(self._publish, self._done, self._workers, far.gate, clock, settings.uploads)
        self._budget = Budget(settings.spool_max_bytes, self.uploads, clock)
        self.tier = Tier(self._files, self._layout, self._disk, settings.tier_max_bytes, self.uploads.holds, clock)
        self._backing = Backing(far.objects.find, self._restore, far.gate, clock, settings.lifecycle_days)

    def prepare(self, mode: str, adopt: bool) -> None:
        """Make the root ready and take up what earlier processes have left for the bucket; blocks.

        :raises StorageUnavailable: the root cannot be read or written, or belongs to another mode or version.
        """
        self.local.prepare(mode, adopt)
        try:
            if not self.tier.is_on:
                self._mark_the_unmarked()
            for digest, size_bytes in self._waiting.sizes():
                self.uploads.add(digest, size_bytes)
        except OSError as error:
            raise StorageUnavailable(f"cannot read {self._layout.root}: {error.strerror or error}") from error

    def start(self) -> None:
        """Begin to upload."""
        self._say_what_waits("they will be brought into the bucket")
        self.uploads.start()
        self.tier.start()

    def stop(self) -> Deferred[None]:
        """Begin no upload more and give up those that run; what is unfinished stays marked."""
        later = "the next start with this spool_dir goes on with them"
        return self.uploads.stop().addCallback(lambda _: self._say_what_waits(later))

    def _say_what_waits(self, what_comes: str) -> None:
        if self.uploads.waiting:
            self.log.info(
                "{count} blobs and manifests ({size_bytes} bytes) wait in {spool_dir}; {what_comes}",
                count=self.uploads.waiting,
                size_bytes=self.uploads.waiting_bytes,
                spool_dir=str(self._layout.root),
                what_comes=what_comes,
            )

    async def find(self, digest: Digest, namespace: str) -> Local | None:
        """Return the local copy, if it may answer; what the disk does not tell may be in the bucket."""
        is_waiting = self.uploads.holds(digest)
        if not is_waiting and not self.tier.is_on:
            return None
        try:
            local = await self.local.find(digest, namespace)
        except StorageUnavailable:
            return None
        if local is not None and not is_waiting:
            self._backing.used(local.descriptor, namespace)
        return local

    def open_spool(self, digest: Digest, size_bytes: int | None) -> ISpool:
        """See :meth:`IStorage.open_spool`."""
        self._budget.check(size_bytes or 0)
        inner = self._open(digest, size_bytes)
        return S3Spool(inner, size_bytes, self._waiting, self.uploads, self._budget, self._disk)

    def fill_for(self, descriptor: Descriptor) -> Callable[[], ISpool] | None:
        """Return what opens a spool for content that was found in the bucket; None if it is not to stay here."""
        digest, size_bytes = descriptor.digest, descriptor.size_bytes
        if size_bytes is None or not self.tier.takes(size_bytes):
            return None
        self._backing.seen(digest)
        return lambda: self.open_fill(digest, size_bytes)

    def open_fill(self, digest: Digest, size_bytes: int) -> ISpool:
        """Begin to keep a copy of what is in the bucket; its commit uploads nothing.

        :raises NoSpace: it cannot fit.
        :raises StorageUnavailable: nothing can be written now.
        """
        inner = self._open(digest, size_bytes)
        return WatchedSpool(inner, lambda is_done: self.tier.grew(size_bytes) if is_done else None)

    async def remove(self, digest: Digest) -> bool:
        """Remove the local copy, and the mark that it is to be uploaded; only within :meth:`Uploads.cancel`.

        It ends with the thread that works for it, however long that takes: it must not remove what is committed later.

        :raises StorageUnavailable: it could not be removed.
        """
        try:
            return await self._on_disk(self._waiting.finish, digest)
        except OSError as error:
            raise StorageUnavailable(f"{type(error).__name__}: {error.strerror or error}") from error

    # --- in the reactor

    async def _done(self, digest: Digest) -> None:
        """It is in the bucket: let go of the local copy, or keep it in the tier."""
        stays_bytes = await self._on_disk(self._settle, digest)
        if stays_bytes:
            self.tier.grew(stays_bytes)
        self._backing.seen(digest)
        self._arrived(digest)

    async def _restore(self, descriptor: Descriptor) -> None:
        """Bring what the tier has into the bucket once more, which has lost it."""
        digest = descriptor.digest
        await self.uploads.committing(digest)
        size_bytes = None  # without a mark it does not begin
        try:
            await self._on_disk(self._waiting.mark, digest)
            size_bytes = descriptor.size_bytes or 0
        finally:
            self.uploads.committed(digest, size_bytes)

    def _open(self, digest: Digest, size_bytes: int | None) -> ISpool:
        """Open a spool of the local disk; where it finds no room the tier makes some, for the next one."""
        try:
            spool = self.local.open_spool(digest, size_bytes)
        except NoSpace:
            self.tier.make_room(size_bytes or 0)
            raise

        def look() -> None:
            if isinstance(spool.failure, NoSpace):
                self.tier.make_room(size_bytes or 0)

        spool.follow(look)
        return spool

    def _on_disk(self, function: Callable[..., T], *args: object) -> Deferred[T]:
        return cast("Deferred[T]", self._disk.run(function, *args))

    # --- in a thread

    def _mark_the_unmarked(self) -> None:
        """What lies here without a mark is of a tier that was turned off, and must not stay for ever."""
        found = {piece.digest for piece in pieces(self._files, self._layout)}
        self._waiting.mark_the_unmarked(found.difference(self._waiting.marks()))

    def _publish(self, digest: Digest, is_cancelled: Callable[[], bool]) -> None:
        far = self._far
        if publish(far.opened(), far.keys, self._files, self._layout, digest, is_cancelled):
            far.leftovers.add(digest)

    def _settle(self, digest: Digest) -> int:
        """Let go of what was uploaded; returns how many bytes stay in the tier."""
        size_bytes = size_of(self._files, self._layout, digest)
        if self.tier.takes(size_bytes):
            self._waiting.unmark(digest)
            return size_bytes
        self._waiting.finish(digest)
        return 0
