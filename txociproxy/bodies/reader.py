"""The Reader: the only thing that writes bodies to clients.

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

from collections.abc import Callable
from typing import Protocol

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime
from zope.interface import Interface, implementer

from txociproxy.interfaces import IBody, IFollower
from txociproxy.oci.errors import BodyLost

CHUNK_BYTES = 64 * 1024  # what a transport takes before it pauses its producer
FILE_CHUNK_BYTES = 256 * 1024  # per turn of the reactor: more starves small answers beside it
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
