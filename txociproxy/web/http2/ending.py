"""How a connection of HTTP/2 is closed, and how long nothing may happen on it before that."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import define, field
from twisted.internet.interfaces import IDelayedCall, IReactorTime, ISSLTransport, ITCPTransport

from txociproxy.web.closing import LINGER_BYTES


@define(eq=False)
class Ending:
    """Closes a connection so that the client can read what was sent.

    Closing with unread input would reset the connection (RFC 9112 §9.6), and clients of HTTP/2 have always something
    to say: windows, acknowledgements.  So our side is closed first, and what still comes is swallowed.
    """

    _transport: Any
    _clock: IReactorTime
    has_begun: bool = field(default=False, init=False)
    _swallowed_bytes: int = field(default=0, init=False)
    _abort: IDelayedCall | None = field(default=None, init=False)

    def begin(self, linger_s: float) -> None:
        """Close our side, and all of it after a while; TLS waits for the client's word by itself."""
        self.has_begun = True
        transport = self._transport
        transport.unregisterProducer()
        self._abort = self._clock.callLater(linger_s, transport.abortConnection)
        if ITCPTransport.providedBy(transport) and not is_secure(transport):
            transport.loseWriteConnection()
        else:
            transport.loseConnection()

    def swallow(self, data: bytes) -> None:
        """Forget input, up to a bound."""
        self._swallowed_bytes += len(data)
        if self._swallowed_bytes > LINGER_BYTES:
            self._transport.abortConnection()

    def over(self) -> None:
        """The connection is closed."""
        self.has_begun = True
        cancel(self._abort)


@define(eq=False)
class Clocks:
    """Ends a connection on which nothing goes on, or something remains half said.

    :ivar _header_s: from the beginning of a frame or a field section to its end, and for the client's first words.
    :ivar _idle_s: without any stream.  What a client says meanwhile does not count: it could say it for ever.
    """

    _clock: IReactorTime
    _header_s: float
    _idle_s: float
    _end: Callable[[], None]
    _idle: IDelayedCall | None = field(default=None, init=False)
    _half: IDelayedCall | None = field(default=None, init=False)
    _has_heard: bool = field(default=False, init=False)

    def start(self) -> None:
        """Wait for the client's first words."""
        self._idle = self._clock.callLater(self._header_s, self._end)

    def heard(self, something_whole: bool, is_between: bool) -> None:
        """Note what has come."""
        if something_whole and not self._has_heard:
            self._has_heard = True
            self.busy(False)
        if something_whole or is_between:
            cancel(self._half)
            self._half = None
        if self._half is None and not is_between:
            self._half = self._clock.callLater(self._header_s, self._end)

    def busy(self, has_streams: bool) -> None:
        """Note whether anything goes on; only that stops the clock, or starts it anew."""
        cancel(self._idle)
        self._idle = None if has_streams else self._clock.callLater(self._idle_s, self._end)

    def stop(self) -> None:
        """End nothing."""
        cancel(self._idle)
        cancel(self._half)
        self._idle = self._half = None


def is_secure(transport: Any) -> bool:
    """Whether TLS is spoken."""
    return ISSLTransport(transport, None) is not None


def cancel(call: IDelayedCall | None) -> None:
    """Let a call not happen, if it has not yet."""
    if call is not None and call.active():
        call.cancel()
