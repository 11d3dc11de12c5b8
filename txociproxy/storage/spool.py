"""DiskSpool: content on its way to the disk.

Order is law (RULES G1): write, fsync the file, sidecar, rename, fsync the directory.  Every step runs in a thread, one
at a time per spool; the descriptor is closed only after the last of them, so that a late write can never hit a
descriptor that means another file by then.  A step that never returns keeps its descriptor and its thread, and nobody
waits for it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import cast

from attrs import define, field
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IProducer
from twisted.python.failure import Failure
from zope.interface import implementer

from txociproxy.bodies.files import Pages
from txociproxy.interfaces import HeaderList, ISpool, IWorkers
from txociproxy.oci.errors import BodyLost, NoSpace, StorageUnavailable
from txociproxy.oci.names import Descriptor, Digest
from txociproxy.storage.files import Files
from txociproxy.storage.layout import Layout, Sidecar
from txociproxy.storage.publishing import publish
from txociproxy.storage.space import Space
from txociproxy.workers import Batches

LOOK_EVERY_BYTES = 64 * 1024 * 1024  # how often a spool of unknown length looks at the free space


@implementer(ISpool)
@define(eq=False)
class DiskSpool:
    """An unfinished file under ``ingest/``, locked while somebody alive owns it.

    :ivar _size_bytes: what the content will take, if upstream said.
    :ivar _now: seconds since the epoch; without it nobody will know when the content was published.
    """

    _files: Files
    _layout: Layout
    _readers: IWorkers
    _writers: IWorkers
    _space: Space
    _path: Path
    _size_bytes: int | None
    _now: Callable[[], float] | None = None
    flushed_bytes: int = 0
    failure: Exception | None = None
    _fd: int | None = None
    _looked_bytes: int = 0
    _state: str = "open"  # then: committing, committed, abandoned
    _closed: bool = False
    _busy: bool = False
    _committed: Deferred[None] | None = None
    _followers: list[Callable[[], None]] = field(factory=list)
    _producer: IProducer | None = None
    _afterwards: list[Callable[[], None]] = field(factory=list, init=False)
    _batches: Batches[int] = field(init=False)
    _pages: Pages = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._batches = Batches(self._writers, self._flush, self._flushed, self._broke)
        self._pages = Pages(self._readers, self._tell)
        self._space.claim(id(self), self._size_bytes or 0)

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        """Tell this producer when the spool dies; the pace is taken from ``flushed_bytes``, not from pauses."""
        self._producer = producer

    def unregisterProducer(self) -> None:
        """Forget the producer."""
        self._producer = None

    def follow(self, progressed: Callable[[], None]) -> None:
        """See :meth:`ISpool.follow`."""
        self._followers.append(progressed)

    def write(self, data: bytes) -> None:
        """See :meth:`ISpool.write`."""
        if self.failure is None and self._state == "open":
            self._batches.add(data)

    def read_at(self, offset_bytes: int, max_bytes: int) -> bytes:
        """See :meth:`ISpool.read_at`."""
        count = min(max_bytes, self.flushed_bytes - offset_bytes)
        return self._pages.bytes_at(self._readable(), offset_bytes, count) if count > 0 else b""

    def extent_at(self, offset_bytes: int, max_bytes: int) -> tuple[int, int] | None:
        """See :meth:`ISpool.extent_at`."""
        count = min(max_bytes, self.flushed_bytes - offset_bytes)
        return self._pages.extent_at(self._readable(), offset_bytes, count) if count > 0 else None

    def commit(self, descriptor: Descriptor, headers: HeaderList, namespace: str, held: bool) -> Deferred[None]:
        """See :meth:`ISpool.commit`."""
        if self._state != "open" or self.failure is not None:
            return fail(self.failure or StorageUnavailable(f"this spool is {self._state} already"))
        committed = self._committed = Deferred()
        self._state = "committing"
        self._batches.when_idle(lambda: self._publish(descriptor, headers, namespace, held))
        return committed

    def abandon(self) -> None:
        """See :meth:`ISpool.abandon`."""
        if self._state in ("committed", "abandoned"):
            return
        self._state = "abandoned"
        self._batches.kill()
        self._space.give_back(id(self))
        self._uncommitted(Failure(self.failure or StorageUnavailable("this spool was abandoned")))
        self._when_quiet(lambda: self._ignoring(self._files.unlink, self._path))

    def close(self) -> None:
        """See :meth:`ISpool.close`."""
        if self._closed:
            return
        self._closed = True
        if self._state != "committed":
            self.abandon()
        self._when_quiet(self._let_go)

    # --- in the reactor

    def _readable(self) -> int:
        if self._closed or self._fd is None:
            raise BodyLost("this spool is closed")
        return self._fd

    def _flushed(self, written_bytes: int, _: int) -> None:
        self.flushed_bytes += written_bytes
        if self._size_bytes is not None and self._state == "open":
            self._space.claim(id(self), max(0, self._size_bytes - self.flushed_bytes))
        self._tell()

    def _broke(self, failure: Failure) -> None:
        self.failure = _as_storage_error(failure)
        if isinstance(self.failure, NoSpace):
            self._space.warn(self.failure)
        self._space.give_back(id(self))
        self._uncommitted(Failure(self.failure))
        if self._producer is not None:
            self._producer.stopProducing()
        self._tell()

    def _tell(self) -> None:
        for progressed in list(self._followers):
            progressed()

    def _publish(self, descriptor: Descriptor, headers: HeaderList, namespace: str, held: bool) -> None:
        if self._state != "committing" or self.failure is not None:
            return
        self._busy = True
        kept_at_s = None if self._now is None else self._now()
        sidecar = Sidecar(descriptor.media_type, descriptor.size_bytes, namespace, headers, kept_at_s=kept_at_s)
        held_for = namespace if held else None
        d = cast("Deferred[None]", self._writers.run(self._publish_in_order, descriptor.digest, sidecar, held_for))
        d.addBoth(self._published)

    def _published(self, result: Failure | None) -> None:
        self._busy = False
        self._space.give_back(id(self))
        if isinstance(result, Failure):
            self._broke(result)
            return
        self._state = "committed"
        committed, self._committed = self._committed, None
        if committed is not None:
            committed.callback(None)
        self._after()

    def _uncommitted(self, failure: Failure) -> None:
        committed, self._committed = self._committed, None
        if committed is not None:
            committed.errback(failure)
        self._after()

    def _when_quiet(self, callback: Callable[[], None]) -> None:
        """Call back when no thread works for this spool any more."""
        self._afterwards.append(callback)
        self._batches.when_idle(self._after)

    def _after(self) -> None:
        while self._afterwards and not self._busy and not self._batches.busy:
            self._afterwards.pop(0)()

    def _let_go(self) -> None:
        fd, self._fd = self._fd, None
        if fd is not None:
            self._ignoring(self._files.close, fd)

    def _ignoring(self, function: Callable[..., object], *args: object) -> None:
        d = cast("Deferred[object]", self._writers.run(function, *args))
        # What cannot be removed now is removed at the next start.
        d.addErrback(lambda failure: failure.trap(OSError) and None)

    # --- in a thread

    def _open(self) -> int:
        self._space.check(self._space.before(id(self)), self._size_bytes or 0)
        self._files.make_directory(self._path.parent)  # somebody may have emptied the root while we run
        self._fd = self._files.create(self._path)
        if not self._files.lock(self._fd):
            raise StorageUnavailable("a process that just starts took this spool for a dead one")
        return self._fd

    def _flush(self, chunks: list[bytes]) -> int:
        fd = self._open() if self._fd is None else self._fd
        if self.flushed_bytes - self._looked_bytes >= LOOK_EVERY_BYTES:
            self._looked_bytes = self.flushed_bytes
            self._space.check(0, 0)
        return self._files.write(fd, chunks, self.flushed_bytes)

    def _publish_in_order(self, digest: Digest, sidecar: Sidecar, held_for: str | None) -> None:
        fd = self._open() if self._fd is None else self._fd  # content of no bytes was never written
        self._files.fsync(fd)
        publish(self._files, self._layout, self._path, digest, sidecar, held_for)


def _as_storage_error(failure: Failure) -> StorageUnavailable:
    error = failure.value
    if isinstance(error, StorageUnavailable):
        return error
    return StorageUnavailable(f"{type(error).__name__}: {getattr(error, 'strerror', None) or error}")
