"""A stage for Readers: bodies, sockets and files that do what the test says."""

from __future__ import annotations

import os
from collections.abc import Callable

from attrs import define, field
from twisted.internet.task import Clock
from twisted.trial.unittest import SkipTest, SynchronousTestCase
from zope.interface import implementer

from tests.doubles import FakeSink
from txociproxy.bodies.files import resident
from txociproxy.bodies.lending import Lent
from txociproxy.bodies.reader import IFileTransport, Reader
from txociproxy.interfaces import IBody
from txociproxy.oci.errors import BodyLost

STALL_S = 60.0
DATA = bytes(range(256)) * 2048  # 512 KiB


@implementer(IBody)
@define(eq=False)
class SlowBody(Lent):
    """A body whose bytes come when the test says so."""

    size_bytes: int | None
    data: bytes = b""
    lost: bool = False
    closed: int = 0
    step_bytes: int = 10**9

    def read_at(self, offset_bytes: int, max_bytes: int) -> bytes:
        """Return what has come."""
        if self.lost:
            raise BodyLost("lost")
        return self.data[offset_bytes : offset_bytes + min(max_bytes, self.step_bytes)]

    def extent_at(self, offset_bytes: int, max_bytes: int) -> tuple[int, int] | None:
        """Be no file."""
        return None

    def come(self, data: bytes = b"") -> None:
        """Let more come."""
        self.data += data
        self._tell()

    def lose(self) -> None:
        """Let it be over."""
        self.lost = True
        self._tell()

    def _let_go(self) -> None:
        self.closed += 1


@implementer(IFileTransport)
@define(eq=False)
class FakeFiles:
    """A socket that takes files, as much as the test says.

    :ivar room_bytes: what it takes now.
    """

    sink: FakeSink
    room_bytes: int = 10**9
    waiting: Callable[[], None] | None = None
    sends: list[tuple[int, int, int]] = field(factory=list)

    def send_file(self, fd: int, offset: int, count: int) -> int:
        """Take what fits."""
        data = os.pread(fd, min(count, self.room_bytes), offset)
        self.room_bytes -= len(data)
        self.sink.written += data
        self.sends.append((offset, count, len(data)))
        return len(data)

    def when_writable(self, callback: Callable[[], None] | None) -> None:
        """Remember it."""
        self.waiting = callback

    def writable(self) -> None:
        """Say that more fits."""
        callback, self.waiting = self.waiting, None
        assert callback is not None
        callback()


class BodyCase(SynchronousTestCase):
    """What all of them use."""

    def setUp(self) -> None:
        """Begin at time 0."""
        self.clock = Clock()
        self.ends: list[str] = []

    def reader(self, body: IBody, sink: FakeSink, start: int = 0, stop: int | None = None) -> Reader:
        """Let a Reader begin."""
        reader = Reader(body, start, stop, sink, self.clock, STALL_S)
        reader.done.addCallback(self.ends.append)
        reader.start()
        return reader

    def file(self, data: bytes = DATA) -> int:
        """Return a descriptor of a file with this content."""
        path = self.mktemp()
        with open(path, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        fd = os.open(path, os.O_RDONLY)
        os.unlink(path)
        return fd

    def cold_file(self, data: bytes = DATA) -> int:
        """Return a descriptor of a file none of which is in memory."""
        fd = self.file(data)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        try:
            is_cold = resident(fd, 0, 1) is None and resident(fd, len(data) - 1, 1) is None
        except OSError:
            is_cold = False
        if not is_cold:
            os.close(fd)
            raise SkipTest("this file system keeps everything in memory, or cannot tell")
        return fd

    def assert_closed(self, fd: int) -> None:
        """Check that a descriptor is closed."""
        with self.assertRaises(OSError):
            os.fstat(fd)
