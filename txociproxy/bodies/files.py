"""Bodies that lie in files, read without waiting for the disk in the reactor."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar, cast

from attrs import define, field
from twisted.internet.defer import Deferred
from zope.interface import implementer

from txociproxy.bodies.lending import Lent
from txociproxy.bodies.reader import FILE_CHUNK_BYTES
from txociproxy.interfaces import IBody, IWorkers
from txociproxy.oci.errors import BodyLost

T = TypeVar("T")
WARM_BYTES = 1024 * 1024


def resident(fd: int, offset_bytes: int, count: int) -> bytes | None:
    """Return bytes of a file if they are in memory, None if reading would wait for the disk.

    File systems that cannot tell are believed to be fast.
    """
    buffer = bytearray(count)
    try:
        got = os.preadv(fd, [buffer], offset_bytes, os.RWF_NOWAIT)
    except BlockingIOError:
        return None
    except OSError:  # EOPNOTSUPP: no such question to this file system
        return os.pread(fd, count, offset_bytes)
    return bytes(buffer[:got])


def warm(fd: int, offset_bytes: int, count: int) -> bytes:
    """Read a part of a file, so that its pages are in memory; blocks, for threads only."""
    return os.pread(fd, count, offset_bytes)


def _readable(read: Callable[[int, int, int], T], fd: int, offset_bytes: int, count: int) -> T:
    try:
        return read(fd, offset_bytes, count)
    except OSError as error:
        raise BodyLost("the disk does not give these bytes") from error


@define(eq=False)
class Pages:
    """Reads a file without ever waiting for the disk in the reactor (law 10).

    :ivar _told: called when pages that were missing have come, or could not be read.
    :ivar _resident: see :func:`resident`.
    """

    _workers: IWorkers
    _told: Callable[[], None]
    _resident: Callable[[int, int, int], bytes | None] = resident
    _ready: tuple[int, int] = (0, 0)
    _warming: bool = False
    _broken: bool = False

    def bytes_at(self, fd: int, offset_bytes: int, count: int) -> bytes:
        """Return bytes that are in memory; ``b""`` after asking for those that are not."""
        data = self._look(fd, offset_bytes, count)
        if data is None and self._is_ready(offset_bytes):
            # It was read a moment ago and the kernel dropped it again; waiting once more would never end.
            data = _readable(warm, fd, offset_bytes, count)
        if data is None:
            self._warm(fd, offset_bytes)
            return b""
        return data

    def extent_at(self, fd: int, offset_bytes: int, count: int) -> tuple[int, int] | None:
        """Return (fd, count) if sendfile would not wait, else None after asking for the pages."""
        count = min(count, FILE_CHUNK_BYTES)
        if self._is_ready(offset_bytes):
            return fd, min(count, self._ready[1] - offset_bytes)
        ends = self._look(fd, offset_bytes, 1), self._look(fd, offset_bytes + count - 1, 1)
        if None in ends:
            self._warm(fd, offset_bytes)
        # A file that is shorter than it was would give sendfile nothing, again and again.
        return (fd, count) if all(ends) else None

    def _look(self, fd: int, offset_bytes: int, count: int) -> bytes | None:
        if self._broken:
            raise BodyLost("the disk does not give these bytes")
        return _readable(self._resident, fd, offset_bytes, count)

    def _is_ready(self, offset_bytes: int) -> bool:
        return self._ready[0] <= offset_bytes < self._ready[1]

    def _warm(self, fd: int, offset_bytes: int) -> None:
        if self._warming:
            return
        self._warming = True
        d = cast("Deferred[bytes]", self._workers.run(warm, fd, offset_bytes, WARM_BYTES))
        d.addCallbacks(self._warmed, self._failed, callbackArgs=(offset_bytes,))

    def _warmed(self, data: bytes, offset_bytes: int) -> None:
        self._warming = False
        self._ready = (offset_bytes, offset_bytes + len(data))
        self._told()

    def _failed(self, failure: object) -> None:
        self._warming = False
        self._broken = True
        self._told()


@implementer(IBody)
@define(eq=False)
class FileBody(Lent):
    """Content that lies in a file; owns the descriptor and closes it when the last reader is gone.

    Whoever makes one has promised it to somebody: ``FileBody(..., promised=1)``.
    """

    _fd: int
    size_bytes: int
    _workers: IWorkers
    _closed: bool = False
    _pages: Pages = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._pages = Pages(self._workers, self._tell)

    def read_at(self, offset_bytes: int, max_bytes: int) -> bytes:
        """See :meth:`IBody.read_at`."""
        count = min(max_bytes, self.size_bytes - offset_bytes)
        if count <= 0:
            return b""
        data = self._pages.bytes_at(self._open_fd(), offset_bytes, count)
        if not data and resident(self._fd, offset_bytes, 1) == b"":
            raise BodyLost("the file is shorter than it was")
        return data

    def extent_at(self, offset_bytes: int, max_bytes: int) -> tuple[int, int] | None:
        """See :meth:`IBody.extent_at`."""
        count = min(max_bytes, self.size_bytes - offset_bytes)
        return self._pages.extent_at(self._open_fd(), offset_bytes, count) if count > 0 else None

    def _open_fd(self) -> int:
        if self._closed:
            raise BodyLost("the file is closed")
        return self._fd

    def _let_go(self) -> None:
        if not self._closed:
            self._closed = True
            os.close(self._fd)
