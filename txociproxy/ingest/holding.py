"""What is held of an arriving body: its recent bytes in memory, and all that is flushed in a spool."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from txociproxy.ingest.window import Window
from txociproxy.interfaces import ISpool
from txociproxy.oci.errors import BodyLost


def stopped(call: IDelayedCall | None) -> IDelayedCall | None:
    """Cancel a timer that may have run already; what is left is no timer."""
    if call is not None and call.active():
        call.cancel()
    return None


@define(eq=False)
class Holding:
    """Window and spool, and what is left of a spool that died.

    :ivar spool: where the content goes on its way to be kept; None once it is dead, or if there never was one.
    :ivar _dropped: called with a spool that has just died, and why.
    :ivar _changed: called when more can be read, or less has to be waited for.
    """

    _window: Window
    spool: ISpool | None
    _clock: IReactorTime
    _stall_s: float
    _dropped: Callable[[ISpool, str], None]
    _changed: Callable[[], None]
    _dead: ISpool | None = field(default=None, init=False)
    _stall: IDelayedCall | None = field(default=None, init=False)
    _flushed_before: int = field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        if self.spool is not None:
            self.spool.follow(self._progressed)

    @property
    def start_bytes(self) -> int:
        """Where memory begins."""
        return self._window.start_bytes

    @property
    def received_bytes(self) -> int:
        """How far the body has come."""
        return self._window.end_bytes

    @property
    def memory_bytes(self) -> int:
        """How much memory is taken."""
        return self._window.size_bytes

    @property
    def flushed_bytes(self) -> int:
        """How far the spool holds the bytes, dead or alive."""
        holder = self._holder
        return holder.flushed_bytes if holder is not None else 0

    def remember(self, data: bytes) -> None:
        """Take the next bytes into memory."""
        self._window.append(data)

    def keep(self, data: bytes) -> None:
        """Give the same bytes to the spool."""
        if self.spool is not None:
            self.spool.write(data)

    def trim(self, before_bytes: int) -> None:
        """Let memory go up to here."""
        self._window.trim(before_bytes)

    def can_serve(self, offset_bytes: int) -> bool:
        """Whether a reader that begins at ``offset_bytes`` will find everything from there on."""
        return offset_bytes >= self.start_bytes or self.flushed_bytes >= self.start_bytes

    def read_at(self, offset_bytes: int, max_bytes: int) -> bytes:
        """See :meth:`IBody.read_at`."""
        data = self._window.read_at(offset_bytes, max_bytes)
        if data:
            return data
        holder = self._holder
        if holder is not None and offset_bytes < holder.flushed_bytes:
            return holder.read_at(offset_bytes, max_bytes)
        if offset_bytes < self.start_bytes:
            raise BodyLost("these bytes were let go before this reader came to them")
        return b""

    def extent_at(self, offset_bytes: int, max_bytes: int) -> tuple[int, int] | None:
        """See :meth:`IBody.extent_at`."""
        holder = self._holder
        if holder is None or offset_bytes >= holder.flushed_bytes:
            return None
        try:
            return holder.extent_at(offset_bytes, max_bytes)
        except BodyLost:
            return None  # the disk cannot be read, but memory may have it

    def watch(self, needed: bool) -> None:
        """Drop the spool when it makes no progress while bytes wait for it."""
        spool = self.spool
        if spool is None or not needed or spool.flushed_bytes >= self.received_bytes:
            self._stall = stopped(self._stall)
        elif self._stall is None:
            self._flushed_before = spool.flushed_bytes
            self._stall = self._clock.callLater(self._stall_s, self._stalled)

    def drop(self, why: str) -> None:
        """Write nothing more to the spool; what it holds stays readable."""
        spool, self.spool = self.spool, None
        if spool is not None:
            self._dead = spool
            self._stall = stopped(self._stall)
            spool.abandon()
            self._dropped(spool, why)

    def abandon(self) -> None:
        """Keep nothing."""
        if self.spool is not None:
            self.spool.abandon()

    def close(self) -> None:
        """Let go of the files."""
        holder = self._holder
        if holder is not None:
            holder.close()

    @property
    def _holder(self) -> ISpool | None:
        return self.spool or self._dead

    def _progressed(self) -> None:
        """The spool has flushed something, has read pages in, or has died."""
        if self.spool is not None and self.spool.failure is not None:
            self.drop(str(self.spool.failure))
        self._changed()

    def _stalled(self) -> None:
        self._stall = None
        if self.spool is not None and self.spool.flushed_bytes == self._flushed_before:
            self.drop(f"no progress for {self._stall_s} s")
        self._changed()
