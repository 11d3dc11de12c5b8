"""One connection until it is known what is spoken on it, and its place in the census for as long as it lasts.

Over TLS the client chooses among what the site offers (RFC 7301); elsewhere one that speaks HTTP/2 begins with its
preface, which is no request of HTTP/1.1 (RFC 9113 §3.3, §3.4).
"""

# Twisted leaves these base classes untyped, and mypy takes their methods for ours.
# mypy: allow-untyped-calls

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from h2.errors import ErrorCodes
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IAddress, IDelayedCall
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure

from txociproxy.oci.errors import OCIError
from txociproxy.web.channel import Channel
from txociproxy.web.closing import CUT_S, LINGER_S
from txociproxy.web.http2.connection import Connection

if TYPE_CHECKING:
    from txociproxy.web.site import DoorSite

# As much of the preface as no request of HTTP/1.1 has.
_PREFACE: Final = b"PRI "

_DONE: Final = Failure(ConnectionDone())


class Switch(Protocol):
    """Waits for the first bytes, and hands everything to whoever speaks their language.

    :ivar spoken: None until that is known.
    :ivar _is_welcome: there was a place in the census; else the client is told in its own language.
    """

    site: DoorSite
    transport: Any
    spoken: Channel | Connection | None = None
    _held = b""
    _is_welcome = False
    _is_hung_up = False
    _waiting: IDelayedCall | None = None

    def connectionMade(self) -> None:
        """Take a place in the site's census, and wait for the first bytes."""
        self._is_welcome = self.site.census.enter(self)
        if not self._is_welcome:
            self.site.tell_full(self)
        wait_s = self.site.times.header_s if self._is_welcome else LINGER_S
        self._waiting = self.site.reactor.callLater(wait_s, self._late)

    def connectionLost(self, reason: Failure = _DONE) -> None:
        """Give the place back."""
        self._wait_no_more()
        try:
            if self.spoken is not None:
                self.spoken.connectionLost(reason)
        finally:
            self.site.census.leave(self)

    def dataReceived(self, data: bytes) -> None:
        """Hand on, as soon as it is known to whom."""
        if self._is_hung_up:
            return
        if self.spoken is None:
            data = self._held = self._held + data
            if not self._knows():
                return
            self.spoken = self._begin()
            self._held = b""
        self.spoken.dataReceived(data)

    def getPeer(self) -> IAddress:
        """Return the client's address."""
        return self.transport.getPeer()  # type: ignore[no-any-return]

    def drain(self) -> None:
        """Take no more requests, and close after the answers that are under way."""
        if self.spoken is None:
            self._hang_up()
        else:
            self.spoken.drain()

    def _negotiated(self) -> bytes | None:
        """Return what the client has chosen under TLS, if it could and did."""
        return getattr(self.transport, "negotiatedProtocol", None)

    def _knows(self) -> bool:
        """Say whether enough has come."""
        return self._negotiated() is not None or not _PREFACE.startswith(self._held) or self._held == _PREFACE

    def _begin(self) -> Channel | Connection:
        """Make whoever speaks the language of the first bytes."""
        self._wait_no_more()
        return self._http2() if self._is_http2() else self._http1()

    def _is_http2(self) -> bool:
        negotiated = self._negotiated()
        return self._held.startswith(_PREFACE) if negotiated is None else negotiated == b"h2"

    def _http2(self) -> Connection:
        connection = Connection(self.site)
        connection.makeConnection(self.transport)
        if not self._is_welcome:
            connection.close(ErrorCodes.ENHANCE_YOUR_CALM)
        return connection

    def _http1(self) -> Channel:
        channel = Channel(self.site)
        channel.makeConnection(self.transport)
        if not self._is_welcome:
            retry = (("Retry-After", "1"),)
            channel.refuse(OCIError("TOOMANYREQUESTS", "too many connections", status=503, headers=retry))
        return channel

    def _wait_no_more(self) -> None:
        if self._waiting is not None and self._waiting.active():
            self._waiting.cancel()

    def _late(self) -> None:
        """Wait no longer for the first bytes; who has no place is told even so."""
        if self._is_welcome:
            self._hang_up()
        else:
            self.spoken = self._begin()

    def _hang_up(self) -> None:
        """Close; under TLS a client may never agree, and then it is aborted."""
        self._wait_no_more()
        self._is_hung_up = True
        self._waiting = self.site.reactor.callLater(CUT_S, self.transport.abortConnection)
        self.transport.loseConnection()
