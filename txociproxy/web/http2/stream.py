"""One request and its answer on an HTTP/2 connection: what a channel is to a request of HTTP/1.1."""

# Twisted leaves these base classes untyped, and mypy takes their methods for ours.
# mypy: allow-untyped-calls

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final, cast

from attrs import define
from h2.errors import ErrorCodes
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IAddress, IDelayedCall, IPullProducer, IPushProducer
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http_headers import Headers

from txociproxy.oci.errors import OCIError
from txociproxy.web.access import client_address
from txociproxy.web.closing import CLOSING_S
from txociproxy.web.heads import check_bringing, form_too_large, refusal_fields
from txociproxy.web.http2.ending import cancel
from txociproxy.web.http2.heads import Head, read_head

if TYPE_CHECKING:
    from txociproxy.web.http2.connection import Connection
    from txociproxy.web.site import DoorRequest, DoorSite

_log: Final = Logger(namespace="txociproxy.doors")


@define(eq=False)
class Stream:
    """The channel of one request.

    :ivar transport: there is none of its own; nobody may go past the connection.
    :ivar is_received: the client has said all; else it has to be told to stop once it is answered.
    :ivar is_open: bytes can still be sent on it.
    """

    stream_id: int
    site: DoorSite
    _connection: Connection
    transport: None = None
    is_received: bool = False
    is_open: bool = True
    form_bytes: int = 0
    _head: Head | None = None
    _request: DoorRequest | None = None
    _is_refused: bool = False
    _deadline: IDelayedCall | None = None

    # What the client sends.

    def begin(self, fields: Iterable[tuple[bytes, bytes]], is_received: bool) -> None:
        """Judge a head; a body that must not come is refused before its first byte (RULES A2)."""
        self.is_received = is_received
        self._head, error = read_head(fields)
        if error is not None:
            self.refuse(error)
            return
        self._request = self.site.requestFactory(self)
        self._request.requestHeaders = self._head.headers
        self._request.gotLength(self._head.length_bytes)
        if not is_received:
            self._within(self.site.times.header_s)
            if self._head.wants_continue:
                self._connection.send_fields(self.stream_id, [(b":status", b"100")])

    def receive(self, data: bytes) -> None:
        """Take a piece of a form; a body that nobody announced is refused with its first byte."""
        if self._is_refused or self._request is None or self._head is None or not data:
            return
        error = None if self.form_bytes else check_bringing(self._head.method, self._head.target)
        if error is not None:
            self.refuse(error)
            return
        self.form_bytes += len(data)
        self._request.handleContentChunk(data)

    def receive_end(self) -> None:
        """Begin the request, unless it was refused."""
        self.is_received = True
        self.form_bytes = 0
        if self._is_refused or self._request is None or self._head is None:
            return
        self._no_deadline()
        self._request.requestReceived(self._head.method, self._head.target, b"HTTP/2")

    def form_overflowed(self) -> None:
        """Refuse a form that grew too large."""
        self.refuse(form_too_large())

    def refuse(self, error: OCIError) -> None:
        """Answer with an error in place of a request that is never handed on."""
        if self._is_refused or not self.is_open:
            return
        self._is_refused, self._request, self.form_bytes = True, None, 0
        client = client_address(self.getPeer())
        _log.debug("refused", status=error.status, reason=error.message, client=client, request_id=None)
        fields = [(name.lower().encode("ascii"), value.encode("latin-1")) for name, value in refusal_fields(error)]
        self._put_head(b"%d" % error.status, fields)
        if self._head is None or self._head.method != b"HEAD":
            self.write(error.to_json())
        self._end()

    def lost(self, reason: Failure) -> None:
        """Nothing more can be sent; whoever answers is told."""
        self.is_open = False
        self._no_deadline()
        request, self._request = self._request, None
        if request is not None:
            request.connectionLost(reason)

    # What a request expects of its channel.

    def writeHeaders(self, version: bytes, code: bytes, reason: bytes, headers: Headers) -> None:
        """Send the head of an answer; a reason has no place in it."""
        lines = headers.getAllRawHeaders()
        self._put_head(code, [(name.lower(), value) for name, values in lines for value in values])

    def write(self, data: bytes) -> None:
        """Send bytes of a body."""
        if self.is_open:
            self._connection.write(self, data)

    def writeSequence(self, pieces: Iterable[bytes]) -> None:
        """Send bytes of a body."""
        self.write(b"".join(pieces))

    def registerProducer(self, producer: IPushProducer | IPullProducer, streaming: bool) -> None:
        """Pause and resume whoever feeds a body; here they all push."""
        if self.is_open:
            self._connection.sender.produce(self.stream_id, cast(IPushProducer, producer))
        else:
            producer.stopProducing()

    def unregisterProducer(self) -> None:
        """Pause and resume nobody."""
        if self.is_open:
            self._connection.sender.produce(self.stream_id, None)

    def requestDone(self, request: Any) -> None:
        """The answer is whole; what waits has a while to be taken."""
        self._request = None
        self._end()

    def cut_short(self) -> None:
        """End in the middle of a body, so that no client takes it for whole; all other streams go on."""
        self._reset(ErrorCodes.INTERNAL_ERROR)

    def loseConnection(self) -> None:
        """End; the connection is not one request's to lose."""
        self.cut_short()

    def abortConnection(self) -> None:
        """End; the connection is not one request's to lose."""
        self.cut_short()

    def getPeer(self) -> IAddress:
        """Return the client's address."""
        return self._connection.getPeer()

    def getHost(self) -> IAddress:
        """Return our address."""
        return self._connection.getHost()

    def isSecure(self) -> bool:
        """Whether TLS is spoken."""
        return self._connection.isSecure()

    def _put_head(self, code: bytes, fields: list[tuple[bytes, bytes]]) -> None:
        """Send fields; h2 leaves out what concerns one connection, and so has no place here (RFC 9113 §8.2.2)."""
        if self.is_open:
            self._connection.send_fields(self.stream_id, [(b":status", code), *fields])

    def _end(self) -> None:
        if self.is_open:
            self._within(CLOSING_S)
            self._connection.sender.end(self.stream_id)

    def _within(self, delay_s: float) -> None:
        """Give the client so long for what is next."""
        self._no_deadline()
        self._deadline = self.site.reactor.callLater(delay_s, self._reset, ErrorCodes.CANCEL)

    def _no_deadline(self) -> None:
        cancel(self._deadline)
        self._deadline = None

    def _reset(self, code: ErrorCodes) -> None:
        if self.is_open:
            self._connection.reset(self, code)


def connection_lost(why: str) -> Failure:
    """Return what a request is told that can get no further."""
    return Failure(ConnectionLost(why))
