"""One connection that speaks TLS: how long its handshake may take, and what is said to who speaks plain HTTP.

Until the handshake is done nothing of a client is known, so nothing else bounds it (RULES A5).
"""

# Twisted leaves these base classes untyped, and mypy takes their methods for ours.
# mypy: allow-untyped-calls

from __future__ import annotations

import sys
from fcntl import ioctl
from termios import TIOCOUTQ
from typing import Any, Final

from twisted.internet.interfaces import IDelayedCall, IProtocolFactory, IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.protocols.tls import BufferingTLSTransport, TLSMemoryBIOFactory
from twisted.python.failure import Failure

from txociproxy.web.closing import LINGER_S

# The first byte of a record that carries a handshake (RFC 8446 §5.1).
HANDSHAKE: Final = 0x16
CLOSE_S: Final = 5.0
_TEXT: Final = b"this door speaks TLS; use https://\n"
PLAIN_ANSWER: Final = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n"
    b"Content-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(_TEXT), _TEXT)
)


class DoorTransport(BufferingTLSTransport):
    """TLS with a deadline for the handshake, which counts from the accept."""

    factory: TlsFactory
    transport: Any

    _aborted: bool
    _lostTLSConnection: bool
    _deadline: IDelayedCall | None = None
    _closing: IDelayedCall | None = None
    _begun = False
    _refused = False

    def makeConnection(self, transport: Any) -> None:
        """Begin to count, then as ever."""
        self._deadline = self.factory.clock.callLater(self.factory.handshake_s, self._late)
        super().makeConnection(transport)

    def dataReceived(self, data: bytes) -> None:
        """Take bytes of TLS; the first byte of all tells whether it is."""
        if not self._begun:
            self._begun = True
            if data[0] != HANDSHAKE:
                self._refuse(data)
        if self._refused:
            return
        super().dataReceived(data)
        if self._deadline is not None and self._is_done():
            self._forget_deadline()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Stop to count."""
        self._forget_deadline()
        if self._closing is not None:
            self._closing.cancel()
            self._closing = None
        super().connectionLost(reason)

    def _shutdownTLS(self) -> None:
        """Say that this is the end; whoever does not say it too (RFC 8446 §6.1) would hold a place in the census."""
        super()._shutdownTLS()
        if self._closing is None and not (self._aborted or self._lostTLSConnection):
            self._closing = self.factory.clock.callLater(CLOSE_S, self._close)

    def _close(self) -> None:
        """Close without an answer, once the client has all that was sent."""
        self._closing = None
        if unsent_bytes(self.transport):
            self._closing = self.factory.clock.callLater(CLOSE_S, self._close)
        else:
            self.transport.loseConnection()

    def _is_done(self) -> bool:
        """Say whether the client has finished the handshake."""
        handle = self.getHandle()
        return handle is not None and handle.get_peer_finished() is not None

    def _refuse(self, data: bytes) -> None:
        """Tell who speaks plain HTTP; nothing to who speaks neither.

        What still comes is swallowed for a moment: closing with unread input would send a reset, and the answer
        might never be read (RFC 9112 §9.6).
        """
        self._refused = True
        if not data[:1].isalpha():
            self.transport.abortConnection()
            return
        self._forget_deadline()
        self._deadline = self.factory.clock.callLater(LINGER_S, self._late)
        self.transport.write(PLAIN_ANSWER)
        self.transport.loseWriteConnection()

    def _late(self) -> None:
        self._deadline = None
        if self._refused:
            self.transport.abortConnection()
        else:
            self.abortConnection()

    def _forget_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def unsent_bytes(transport: Any) -> int:
    """Return how much the system holds that the other side has not taken (tcp(7), SIOCOUTQ); 0 where it cannot tell."""
    if not hasattr(transport, "getHandle"):
        return 0
    try:
        told = ioctl(transport.getHandle().fileno(), TIOCOUTQ, bytes(4))
    except OSError:
        return 0
    return int.from_bytes(told, sys.byteorder)


class TlsFactory(TLSMemoryBIOFactory):
    """Puts TLS below the protocols of another factory.

    :ivar handshake_s: how long a client may take until TLS is agreed upon.
    """

    protocol = DoorTransport

    def __init__(self, creator: Any, wrapped: IProtocolFactory, clock: IReactorTime, handshake_s: float) -> None:
        super().__init__(creator, False, wrapped, clock)
        self.clock = clock
        self.handshake_s = handshake_s
