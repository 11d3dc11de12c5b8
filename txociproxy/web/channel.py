"""One connection of HTTP/1.x: its limits, and how a request is refused before anything else sees it (RULES A1-A3, A5).

This room knows private names of :class:`twisted.web.http.HTTPChannel`; no other does.
"""

# Twisted leaves these base classes untyped, and mypy takes their methods for ours.
# mypy: allow-untyped-calls

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IDelayedCall, ITCPTransport
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel, Request

from txociproxy.oci.errors import OCIError
from txociproxy.web.access import client_address
from txociproxy.web.closing import CLOSING_S, CUT_S, LINGER_BYTES, LINGER_S
from txociproxy.web.heads import check_field, check_head, form_too_large, malformed, refusal

if TYPE_CHECKING:
    from txociproxy.web.site import DoorSite

MAX_LINE_BYTES: Final = 128 * 1024
MAX_HEAD_BYTES: Final = 256 * 1024

_DONE: Final = Failure(ConnectionDone())


class Channel(HTTPChannel):
    """An HTTP/1.x connection that refuses what two machines could read differently.

    A refusal is written at once; then the connection is half closed and what still comes is swallowed for a short
    while.  Closing with unread input would send a reset, and the client might never read the answer (RFC 9112,
    section 9.6).
    """

    MAX_LENGTH = MAX_LINE_BYTES
    totalHeadersSize = MAX_HEAD_BYTES
    site: DoorSite
    transport: Any
    _buffer: bytes
    _busyReceiving: bool
    _networkProducer: Any

    timeOut: Any
    _abortingCall: IDelayedCall | None = None
    _lingering = False
    _gone = False
    _swallowed_bytes = 0

    def __init__(self, site: DoorSite) -> None:
        super().__init__()
        self.site = site
        self.requestFactory = site.requestFactory
        self.timeOut = site.times.header_s

    def callLater(self, period: float, func: Callable[[], object]) -> IDelayedCall:
        """Call after a while, by the site's clock."""
        return self.site.reactor.callLater(period, func)

    def connectionLost(self, reason: Failure = _DONE) -> None:
        """Tell the request that is being answered."""
        self._gone = True
        super().connectionLost(reason)

    def dataReceived(self, data: bytes) -> None:
        """Read on, unless this connection has been refused."""
        if self._lingering:
            self._swallow(data)
            return
        super().dataReceived(data)
        # What is left is a line without its end; a line feed in it is a bare one.  An answer that is given at once
        # comes back here with the requests behind it, which the outer call has still to read.
        if self.line_mode and not self._busyReceiving and b"\n" in self._buffer:
            self.refuse(malformed("a line ends without CR"))

    def resetTimeout(self) -> None:
        """Count from the first byte of a request: one byte now and then would hold a place for ever."""
        if not self.requests and not self._buffer:
            # A call that is moved sooner is looked for among those of all connections; a new one is not.
            self.setTimeout(None)
            self.setTimeout(self.site.times.header_s)

    def requestDone(self, request: Request) -> None:
        """Wait for the next request; this is where the base class takes the time for that from."""
        self._savedTimeOut = self.site.times.idle_s
        super().requestDone(request)

    def lineReceived(self, line: bytes) -> None:
        """Refuse what hides another line, and folded lines (RFC 9112, sections 2.2 and 5.2)."""
        if b"\n" in line or b"\r" in line:
            self.refuse(malformed("a line ends without CR"))
        elif line[:1] in (b" ", b"\t"):
            self.refuse(malformed("a line is folded"))
        else:
            super().lineReceived(line)

    def lineLengthExceeded(self, line: bytes) -> None:
        """Refuse an endless line."""
        if hasattr(self, "_command"):
            self.refuse(OCIError("SIZE_INVALID", "a header field is too long", status=431))
        else:
            self.refuse(OCIError("SIZE_INVALID", "the request target is too long", status=414))

    def headerReceived(self, line: bytes) -> bool:
        """Judge each field before it is believed."""
        error = check_field(line)
        if error is not None:
            self.refuse(error)
            return False
        return bool(super().headerReceived(line))

    def allHeadersReceived(self) -> None:
        """Judge the whole head; a body that must not come is refused before its first byte."""
        if self._lingering:
            return
        headers = self.requests[-1].requestHeaders
        error = check_head(self._command, self._path, self._version, headers)
        if error is None:
            super().allHeadersReceived()
            return
        self.refuse(error)
        # Whatever the length said, no body is received and no request is started.
        self.length = None

    def checkPersistence(self, request: Request, version: bytes) -> bool:
        """Say whether another request may follow: all tokens of all lines count (RFC 9110, section 7.6.1)."""
        lines = request.requestHeaders.getRawHeaders(b"Connection", [])
        tokens = {token.strip().lower() for line in lines for token in line.split(b",")}
        if version != b"HTTP/1.1" or b"close" in tokens or self.site.census.draining:
            request.responseHeaders.setRawHeaders(b"Connection", [b"close"])
            return False
        return True

    def rawDataReceived(self, data: bytes) -> None:
        """Take the bytes of a form, or keep those of the next request."""
        if self._lingering:
            self._swallow(data)
        else:
            super().rawDataReceived(data)

    def allContentReceived(self) -> None:
        """Begin the request, unless its form was too large to be one."""
        if not self._lingering:
            super().allContentReceived()

    def form_overflowed(self) -> None:
        """Refuse a chunked form that grew too large."""
        if not self._lingering:
            self.refuse(form_too_large())

    def timeoutConnection(self) -> None:
        """Close an idle connection, or one whose refusal has been there long enough to be read."""
        if self._lingering:
            self._abort_after(CUT_S)
            self.transport.loseConnection()
        else:
            self.loseConnection()

    def loseConnection(self) -> None:
        """Close after what is buffered, which a slow client may take its time to read, but not for ever."""
        self._abort_after(CLOSING_S)
        super().loseConnection()

    def drain(self) -> None:
        """Close now if nothing goes on, else after the answer.

        An idle client under TLS may never notice; little can still be on its way to it.
        """
        if self.requests:
            self._end_after_answer()
        else:
            self.cut_short()

    def _end_after_answer(self) -> None:
        """Take no request after the one that is here, and say so if there is still time."""
        self.persistent = False
        request = self.requests[-1]
        if not request.startedWriting:
            request.responseHeaders.setRawHeaders(b"Connection", [b"close"])

    def cut_short(self) -> None:
        """Close in the middle of a body; a client that takes nothing is aborted soon, since all is lost anyway."""
        self._abort_after(CUT_S)
        super().loseConnection()

    def _abort_after(self, delay_s: float) -> None:
        """Let the connection live so long at most."""
        if self._abortingCall is not None:
            self._abortingCall.cancel()
        self._abortingCall = None if self._gone else self.callLater(delay_s, self.forceAbortClient)

    def forceAbortClient(self) -> None:
        """Abort; the client had its time."""
        self._abortingCall = None
        self.transport.abortConnection()

    def refuse(self, error: OCIError) -> None:
        """Answer with an error, take nothing more, and close once the client can have read it."""
        if self._lingering:
            return
        self._lingering = True
        client = client_address(self.getPeer())
        # It may come right behind an answer, in whose context we are then; this is another request.
        self._log.debug("refused", status=error.status, reason=error.message, client=client, request_id=None)
        self.setRawMode()
        # A paused producer would keep the transport from closing; and input must flow to be swallowed.
        self._networkProducer.unregisterProducer()
        self._networkProducer.resumeProducing()
        self.transport.write(refusal(error, with_body=getattr(self, "_command", b"") != b"HEAD"))
        if ITCPTransport.providedBy(self.transport) and not self.isSecure():
            self.transport.loseWriteConnection()
            self.setTimeout(LINGER_S)
        else:
            self.loseConnection()

    def _respondToBadRequestAndDisconnect(self) -> None:
        """Refuse what Twisted's parser refuses, in our words."""
        too_large = self._receivedHeaderSize > self.totalHeadersSize or self._receivedHeaderCount > self.maxHeaders
        if too_large:
            self.refuse(OCIError("SIZE_INVALID", "the request's head is too large", status=431))
        else:
            self.refuse(malformed("the request is malformed"))

    def _swallow(self, data: bytes) -> None:
        """Forget input after a refusal, up to a bound."""
        self._swallowed_bytes += len(data)
        if self._swallowed_bytes > LINGER_BYTES:
            self.transport.abortConnection()
