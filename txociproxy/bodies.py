"""Bodies that are all here, and the Reader: the only thing that writes bodies to clients.

How a Reader moves
------------------
It is a push producer toward its client and a follower of its body.  Two things can make it wait: the client (the
transport paused it, or the socket takes no more of a file) and the body (nothing more can be read yet).  Whatever
ends a wait calls ``pump``, which goes on until one of the two says no.  ``pump`` is never entered twice: a write may
pause, resume or stop us before it returns, so the state is looked at again after each one.

It ends in exactly one of three ways: ``finished`` (all bytes handed over), ``cut`` (they will never come, or the
client took nothing for too long) or ``left`` (the client went away).  Each lets go of the body and of the client.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Protocol, TypeVar, cast

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime
from zope.interface import Interface, implementer

from txociproxy.interfaces import IBody, IFollower, IWorkers
from txociproxy.oci.errors import BodyLost

T = TypeVar("T")
CHUNK_BYTES = 64 * 1024  # what a transport takes before it pauses its producer
FILE_CHUNK_BYTES = 256 * 1024  # per turn of the reactor: more starves small answers beside it
WARM_BYTES = 1024 * 1024
BODY_WAIT_S = 300.0  # longer than an ingest takes to give a body up; who waits longer waits for a disk that hangs


class IFileTransport(Interface):
    """A transport that can send from a file."""

    def send_file(fd: int, offset: int, count: int) -> int:
        """Send now; return the bytes that the socket took, 0 when it takes none or earlier bytes still wait."""

    def when_writable(callback: Callable[[], None] | None) -> None:
        """Call once, when all earlier bytes have left and the socket takes more; None forgets it."""


class Sink(Protocol):
    """Where a Reader writes to: one response."""

    file_transport: IFileTransport | None

    def write(self, data: bytes) -> None:
        """Send bytes."""

    def registerProducer(self, producer: IPushProducer, streaming: bool) -> None:
        """Begin to pause and resume."""

    def unregisterProducer(self) -> None:
        """Stop to pause and resume."""

    def finish(self) -> None:
        """The body is whole."""

    def cut(self) -> None:
        """The body ends short, visibly."""


@define(eq=False)
class Lent:
    """Counts who still needs a body: those who follow it and those to whom it was promised."""

    _promised: int = field(default=0, kw_only=True)
    _followers: list[IFollower] = field(factory=list, init=False)

    def promise(self) -> None:
        """Somebody has been given this body and will follow or close it, once."""
        self._promised += 1

    def follow(self, follower: IFollower) -> None:
        """See :meth:`IBody.follow`."""
        self._promised = max(0, self._promised - 1)
        self._followers.append(follower)

    def unfollow(self, follower: IFollower) -> None:
        """See :meth:`IBody.unfollow`."""
        if follower in self._followers:
            self._followers.remove(follower)
            self._settle()

    def close(self) -> None:
        """See :meth:`IBody.close`."""
        self._promised = max(0, self._promised - 1)
        self._settle()

    def _settle(self) -> None:
        if not self._followers and not self._promised:
            self._let_go()

    def _let_go(self) -> None:
        """Nobody needs this any more."""

    def _tell(self) -> None:
        for follower in list(self._followers):
            follower.advanced()


@implementer(IBody)
@define(eq=False)
class MemoryBody(Lent):
    """Content in memory: a manifest that has just been proven."""

    data: bytes

    @property
    def size_bytes(self) -> int:
        """Whole length."""
        return len(self.data)

    def read_at(self, offset_bytes: int, max_bytes: int) -> bytes:
        """Return what is there."""
        return self.data[offset_bytes : offset_bytes + max_bytes]

    def extent_at(self, offset_bytes: int, max_bytes: int) -> tuple[int, int] | None:
        """Memory is no file."""
        return None


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


@implementer(IFollower)
@define(eq=False)
class _Gatherer:
    """Reads a small body whole into memory."""

    _body: IBody
    _done: Deferred[bytes]
    offset_bytes: int = 0
    _chunks: list[bytes] = field(factory=list)

    def advanced(self) -> None:
        """Read what has come."""
        try:
            while data := self._body.read_at(self.offset_bytes, CHUNK_BYTES):
                self.offset_bytes += len(data)
                self._chunks.append(data)
        except BodyLost as error:
            self._end(error)
        else:
            if self.offset_bytes == self._body.size_bytes:
                self._end(b"".join(self._chunks))

    def _end(self, result: bytes | BodyLost) -> None:
        self._body.unfollow(self)
        if not self._done.called:
            self._done.callback(result) if isinstance(result, bytes) else self._done.errback(result)


async def whole(body: IBody) -> bytes:
    """Return all bytes of a small body, and leave it as it was.

    :raises BodyLost: they are not all there.
    """
    done: Deferred[bytes] = Deferred(lambda _: body.unfollow(gatherer))
    gatherer = _Gatherer(body, done)
    body.promise()
    body.follow(gatherer)
    gatherer.advanced()
    return await done


@implementer(IPushProducer, IFollower)
@define(eq=False)
class Reader:
    """Carries a body, or the part of it from ``offset_bytes`` to ``_stop_bytes``, to one client.

    :ivar _stop_bytes: where to end; None is the end of the body, also when that is not known yet.
    :ivar _stall_s: a client that takes nothing for so long is cut.
    :ivar _body_wait_s: a body that gives nothing for so long is given up.
    :ivar done: fires once with ``finished``, ``cut`` or ``left``.
    """

    _body: IBody
    offset_bytes: int
    _stop_bytes: int | None
    _sink: Sink
    _clock: IReactorTime
    _stall_s: float
    _body_wait_s: float = BODY_WAIT_S
    done: Deferred[str] = field(factory=Deferred)
    _paused: bool = False
    _socket_full: bool = False
    _pumping: bool = False
    _over: bool = False
    _stall: IDelayedCall | None = None
    _seen_bytes: int = -1
    _seen_s: float = 0.0

    def start(self) -> None:
        """Begin."""
        self._body.follow(self)
        self._sink.registerProducer(self, True)
        if not self._over:  # a client that has gone already stops its producer on the spot
            self._watch()
            self.pump()

    def advanced(self) -> None:
        """The body has more, or is over."""
        self.pump()

    def resumeProducing(self) -> None:
        """The client takes more."""
        self._paused = False
        self.pump()

    def pauseProducing(self) -> None:
        """The client's buffer is full."""
        self._paused = True

    def stopProducing(self) -> None:
        """The client has gone."""
        self._end("left")

    def pump(self) -> None:
        """Move bytes until the client or the body says no."""
        if self._pumping:
            return
        self._pumping = True
        try:
            while not (self._over or self._paused or self._socket_full) and self._step():
                pass
        except BodyLost:
            self._end("cut")
        finally:
            self._pumping = False

    def _step(self) -> bool:
        stop_bytes = self._body.size_bytes if self._stop_bytes is None else self._stop_bytes
        left_bytes = FILE_CHUNK_BYTES if stop_bytes is None else stop_bytes - self.offset_bytes
        if left_bytes <= 0:
            self._end("finished")
            return False
        return self._send_file(left_bytes) or self._write(min(left_bytes, CHUNK_BYTES))

    def _send_file(self, max_bytes: int) -> bool:
        transport = self._sink.file_transport
        extent = self._body.extent_at(self.offset_bytes, max_bytes) if transport is not None else None
        if transport is None or extent is None:
            return False
        sent_bytes = transport.send_file(extent[0], self.offset_bytes, min(extent[1], FILE_CHUNK_BYTES))
        self.offset_bytes += sent_bytes
        if sent_bytes < max_bytes and not self._over:
            # One file chunk a turn: the others want their turn as well.
            self._socket_full = True
            transport.when_writable(self._writable)
        return True

    def _writable(self) -> None:
        self._socket_full = False
        self.pump()

    def _write(self, max_bytes: int) -> bool:
        data = self._body.read_at(self.offset_bytes, max_bytes)
        if data:
            self.offset_bytes += len(data)
            self._sink.write(data)
        return bool(data)

    def _watch(self) -> None:
        if self._seen_bytes != self.offset_bytes:
            self._seen_bytes, self._seen_s = self.offset_bytes, self._clock.seconds()
        patience_s = self._stall_s if self._paused or self._socket_full else self._body_wait_s
        if self._seen_s + patience_s <= self._clock.seconds():
            self._end("cut")
        else:
            self._stall = self._clock.callLater(self._stall_s, self._watch)

    def _end(self, how: str) -> None:
        if self._over:
            return
        self._over = True
        if self._stall is not None and self._stall.active():
            self._stall.cancel()
        if self._sink.file_transport is not None:
            self._sink.file_transport.when_writable(None)
        self._body.unfollow(self)
        if how != "left":
            self._sink.unregisterProducer()
            self._sink.finish() if how == "finished" else self._sink.cut()
        self.done.callback(how)
