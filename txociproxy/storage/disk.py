"""DiskStorage: the file system is the index.

There is no truth in memory, so any number of processes may share a root.  A hit holds an open descriptor, so content
may be removed under it.  Every operation runs in a thread of the disk pool and is waited for with a bound: a disk that
does not answer makes a miss, not a hang.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TypeVar, cast

from attrs import define, field
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from txociproxy.bodies.files import FileBody
from txociproxy.bodies.lending import MemoryBody
from txociproxy.interfaces import IStorage, IWorkers, Local, TagName, TagRecord
from txociproxy.oci.errors import StorageUnavailable
from txociproxy.oci.names import Descriptor, Digest
from txociproxy.storage import layout as on_disk
from txociproxy.storage.files import Files, put
from txociproxy.storage.layout import Layout
from txociproxy.storage.shelf import MAX_SIDECAR_BYTES, Opened, Shelf
from txociproxy.storage.space import Space
from txociproxy.storage.spool import DiskSpool
from txociproxy.storage.start import prepare

T = TypeVar("T")


@implementer(IStorage)
@define(eq=False)
class DiskStorage:
    """Content under a root directory.

    :ivar _readers, _writers: pools of their own, so that slow writes and syncs turn no hit into a miss.
    :ivar _patience_s: how long an answer of the disk is waited for.
    :ivar _now: seconds since the epoch.
    """

    _layout: Layout
    _files: Files
    _readers: IWorkers
    _writers: IWorkers
    _clock: IReactorTime
    _space: Space
    _now: Callable[[], float]
    _patience_s: float = 5.0
    _shelf: Shelf = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._shelf = Shelf(self._files, self._layout, self._now)

    def prepare(self, mode: str, adopt: bool = False) -> None:
        """Make the root ready before the first listen; blocks.

        :param adopt: take over a store of the other mode, with all that it keeps (RULES D4).

        :raises StorageUnavailable: the root cannot be written, or belongs to another mode or version.
        """
        prepare(self._files, self._layout, mode, adopt)
        with contextlib.suppress(OSError):  # a file system that does not tell is tried
            self._space.look()

    def start(self) -> None:
        """Begin nothing: a directory needs nobody in the background."""

    def stop(self) -> Deferred[None]:
        """End nothing."""
        return succeed(None)

    def find(self, digest: Digest, namespace: str) -> Deferred[Local | None]:
        """See :meth:`IStorage.find`."""
        d = self._bounded(self._readers, self._shelf.open, digest, namespace, late=self._close_opened)
        return d.addCallback(self._to_local, digest)

    def open_spool(self, digest: Digest, size_bytes: int | None) -> DiskSpool:
        """See :meth:`IStorage.open_spool`."""
        try:
            if self._writers.stuck(self._patience_s):
                raise StorageUnavailable("the disk does not answer")
            if self._space.is_due():
                cast("Deferred[None]", self._writers.run(self._space.look)).addErrback(_ignore)
            self._space.check_known(size_bytes or 0)
        except StorageUnavailable as error:
            self._space.warn(error)
            raise
        pools = (self._readers, self._writers)
        return DiskSpool(self._files, self._layout, *pools, self._space, self._spool_path(), size_bytes, self._now)

    def await_turn(self, digest: Digest) -> Deferred[bool]:
        """See :meth:`IStorage.await_turn`; two that fetch the same end both right, so nobody waits here."""
        return succeed(False)

    def leave_turn(self, digest: Digest) -> None:
        """See :meth:`IStorage.leave_turn`; nobody has waited."""

    def remove(self, digest: Digest) -> Deferred[bool]:
        """See :meth:`IStorage.remove`."""
        return self._bounded(self._writers, self._shelf.remove, digest)

    def recall_tag(self, name: TagName) -> Deferred[tuple[TagRecord, ...]]:
        """See :meth:`IStorage.recall_tag`."""
        return self._bounded(self._readers, self._recall, name).addErrback(
            lambda failure: failure.trap(StorageUnavailable) and ()
        )

    def record_tag(self, name: TagName, record: TagRecord) -> Deferred[None]:
        """See :meth:`IStorage.record_tag`."""
        return self._bounded(self._writers, self._record, name, record).addErrback(_ignore)

    def forget_tag(self, name: TagName) -> Deferred[None]:
        """See :meth:`IStorage.forget_tag`."""
        d = self._bounded(self._writers, self._files.unlink, self._layout.tag(name))
        return d.addCallback(lambda _: None).addErrback(_ignore)

    async def walk(self) -> AsyncIterator[Descriptor]:
        """See :meth:`IStorage.walk`."""
        for algorithm in ("sha256", "sha512"):
            top = self._layout.root / "blobs" / algorithm
            for prefix in await self._bounded(self._readers, lambda path: list(self._files.names(path)), top):
                for descriptor in await self._bounded(self._readers, self._shelf.describe, algorithm, top / prefix):
                    yield descriptor

    # --- in the reactor

    def _bounded(
        self, workers: IWorkers, function: Callable[..., T], *args: object, late: Callable[[T], None] | None = None
    ) -> Deferred[T]:
        """Call in a thread and wait for a bounded time; a result that comes too late is given to ``late``."""
        if workers.stuck(self._patience_s):
            return fail(StorageUnavailable("the disk does not answer"))
        outer: Deferred[T] = Deferred(lambda _: None)
        timer = self._clock.callLater(
            self._patience_s, lambda: outer.errback(StorageUnavailable("the disk did not answer in time"))
        )

        def arrived(result: T | Failure) -> None:
            if not outer.called:
                outer.callback(_storage_failure(result) if isinstance(result, Failure) else result)
            elif late is not None and not isinstance(result, Failure):
                late(result)

        def answered(result: T | Failure) -> T | Failure:
            if timer.active():
                timer.cancel()
            return result

        outer.addBoth(answered)
        cast("Deferred[T]", workers.run(function, *args)).addBoth(arrived)
        return outer

    def _to_local(self, opened: Opened | None, digest: Digest) -> Local | None:
        if opened is None:
            return None
        content, size_bytes, sidecar = opened
        body = (
            MemoryBody(content, promised=1)
            if isinstance(content, bytes)
            else FileBody(content, size_bytes, self._readers, promised=1)
        )
        descriptor = on_disk.describe(digest, size_bytes, sidecar)
        return Local(descriptor, sidecar.headers, sidecar.namespace, body, sidecar.kept_at_s)

    def _close_opened(self, opened: Opened | None) -> None:
        if opened is not None and isinstance(opened[0], int):
            cast("Deferred[None]", self._readers.run(self._files.close, opened[0])).addErrback(_ignore)

    def _spool_path(self) -> Path:
        return self._layout.spool(secrets.token_hex(16))

    # --- in a thread

    def _recall(self, name: TagName) -> tuple[TagRecord, ...]:
        return on_disk.tags_from_json(self._files.read(self._layout.tag(name), MAX_SIDECAR_BYTES))

    def _record(self, name: TagName, record: TagRecord) -> None:
        path = self._layout.tag(name)
        self._files.make_directory(path.parent)
        # What others have learnt meanwhile, in this process or beside it, must not be written over.
        lock = self._files.lock_directory(path.parent)
        try:
            records = on_disk.with_record(self._recall(name), record)
            put(self._files, self._spool_path(), path, on_disk.tags_to_json(records))
            self._files.fsync_directory(path.parent)
        finally:
            self._files.close(lock)


def _storage_failure(failure: Failure) -> Failure:
    if isinstance(failure.value, OSError):
        return Failure(StorageUnavailable(failure.value.strerror or type(failure.value).__name__))
    return failure


def _ignore(failure: Failure) -> None:
    failure.trap(StorageUnavailable, OSError)
