"""One connection of HTTP/2: streams come and go, bounds hold, and its end leaves nothing half said."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    RemoteSettingsChanged,
    RequestReceived,
    StreamEnded,
    StreamReset,
)
from h2.exceptions import ProtocolError, StreamClosedError
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IAddress, ITCPTransport
from twisted.internet.protocol import Protocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from txociproxy.web.access import client_address
from txociproxy.web.closing import CLOSING_S, LINGER_S
from txociproxy.web.heads import form_too_large
from txociproxy.web.http2.ending import Clocks, Ending, is_secure
from txociproxy.web.http2.frames import goaway
from txociproxy.web.http2.guard import Guard
from txociproxy.web.http2.limits import MAX_FORMS_BYTES, QUEUE_BYTES
from txociproxy.web.http2.machine import bound_encoder, make_machine
from txociproxy.web.http2.sender import Sender
from txociproxy.web.http2.stream import Stream, connection_lost

if TYPE_CHECKING:
    from txociproxy.web.site import DoorSite

_DONE = Failure(ConnectionDone())


class Connection(Protocol):
    """Speaks HTTP/2 with one client.

    :ivar _last_id: the highest stream that is still answered, once the end was announced.
    """

    _log = Logger(namespace="txociproxy.doors")
    transport: Any
    sender: Sender
    _ending: Ending

    def __init__(self, site: DoorSite) -> None:
        self.site = site
        self._clock = site.reactor
        self._machine = make_machine(self._clock)
        self._guard = Guard(self._clock)
        self._clocks = Clocks(self._clock, site.times.header_s, site.times.idle_s, self.close)
        self._streams: dict[int, Stream] = {}
        self._last_id: int | None = None

    def connectionMade(self) -> None:
        """Say what our limits are; the client has to say its own within the time for a head."""
        if ITCPTransport.providedBy(self.transport):
            self.transport.setTcpNoDelay(True)
        self._ending = Ending(self.transport, self._clock)
        self.sender = Sender(self._machine, self.transport, self._clock, self)
        self.transport.registerProducer(self.sender, True)
        self._machine.initiate_connection()
        self.sender.run()
        self._clocks.start()

    def connectionLost(self, reason: Failure = _DONE) -> None:
        """Tell all requests."""
        self._ending.over()
        self._clocks.stop()
        self._lose_streams(reason)

    def dataReceived(self, data: bytes) -> None:
        """Count what comes before it can cost anything, then let h2 read it."""
        if self._ending.has_begun:
            self._ending.swallow(data)
        elif self._guard.allows(data):
            self._read(data)
        else:
            self._refuse("too many frames or resets", ErrorCodes.ENHANCE_YOUR_CALM)

    def _read(self, data: bytes) -> None:
        """Let h2 read, and do what follows from it."""
        try:
            events = self._machine.receive_data(data)
        except ProtocolError as error:
            self._refuse(str(error) or type(error).__name__, None)
            return
        # Before its requests begin: they stop the clock that this may start.
        self._clocks.heard(bool(events), self._guard.is_between)
        self._handle(events)
        if not self._ending.has_begun:
            if self._machine.is_weary:
                self.drain()
            self.sender.run()

    def _handle(self, events: list[Event]) -> None:
        """Resets first: what was reset in the same breath is not even begun."""
        resets = [event for event in events if isinstance(event, StreamReset)]
        if not self._guard.allows_resets(sum(not event.remote_reset for event in resets)):
            self._refuse("too many broken streams", ErrorCodes.ENHANCE_YOUR_CALM)
            return
        reset_ids = {event.stream_id for event in resets}
        for stream_id in reset_ids & self._streams.keys():
            self._forget(self._streams[stream_id]).lost(connection_lost("the client has reset the stream"))
        for event in events:
            if getattr(event, "stream_id", None) not in reset_ids and not self._ending.has_begun:
                self._handle_one(event)

    def _handle_one(self, event: Event) -> None:
        if isinstance(event, RequestReceived):
            self._begin(event)
        elif isinstance(event, DataReceived):
            self._take(event)
        elif isinstance(event, StreamEnded):
            if event.stream_id in self._streams:
                self._streams[event.stream_id].receive_end()
        elif isinstance(event, RemoteSettingsChanged):
            bound_encoder(self._machine)
        elif isinstance(event, ConnectionTerminated):
            # What was asked is answered, unless something was wrong.
            self.drain() if event.error_code == ErrorCodes.NO_ERROR else self.close()

    def _begin(self, event: RequestReceived) -> None:
        """Begin a request; one that came after the end was announced can be sent elsewhere."""
        stream_id = event.stream_id
        if self._last_id is not None and stream_id > self._last_id:
            self._machine.reset_stream(stream_id, ErrorCodes.REFUSED_STREAM)
            return
        self._guard.requested()
        stream = self._streams[stream_id] = Stream(stream_id, self.site, self)
        self._clocks.busy(True)
        self.sender.open(stream_id)
        stream.begin(event.headers, event.stream_ended is not None)

    def _take(self, event: DataReceived) -> None:
        """Take bytes of a form, and let as many more come; its own bounds hold it."""
        stream = self._streams.get(event.stream_id)
        if stream is not None:
            stream.receive(event.data)
        if sum(each.form_bytes for each in self._streams.values()) > MAX_FORMS_BYTES and stream is not None:
            stream.refuse(form_too_large())
        with suppress(StreamClosedError):  # then h2 has opened the connection's window by itself
            self._machine.acknowledge_received_data(event.flow_controlled_length, event.stream_id)

    def send_fields(self, stream_id: int, fields: Iterable[tuple[bytes, bytes]]) -> None:
        """Send the head of an answer."""
        self._machine.send_headers(stream_id, list(fields))
        self.sender.wake()

    def write(self, stream: Stream, data: bytes) -> None:
        """Send bytes of a body, unless far too much waits already."""
        if self.sender.queued_bytes + len(data) > QUEUE_BYTES:
            self.reset(stream, ErrorCodes.ENHANCE_YOUR_CALM)
        else:
            self.sender.write(stream.stream_id, data)

    def reset(self, stream: Stream, code: ErrorCodes) -> None:
        """End one stream visibly; its request hears of it in a moment, as it would of a lost connection."""
        self._machine.reset_stream(stream.stream_id, code)
        self.sender.wake()
        self._clock.callLater(0, self._forget(stream).lost, connection_lost("the stream was reset"))

    def delivered(self, stream_id: int) -> None:
        """A body is out; a client that still sends its own is told to stop (RFC 9113 §8.1)."""
        stream = self._streams[stream_id]
        if not stream.is_received:
            self._machine.reset_stream(stream_id, ErrorCodes.NO_ERROR)
            self.sender.wake()
        self._forget(stream).lost(_DONE)

    def sent(self, sent_bytes: int) -> None:
        """The client has been given something."""
        self._guard.sent(sent_bytes)

    def choked(self) -> None:
        """The client makes us answer and does not read."""
        self.transport.abortConnection()

    def _forget(self, stream: Stream) -> Stream:
        """Take a stream out; without any the connection is idle, or over if that was announced."""
        stream.is_open = False
        del self._streams[stream.stream_id]
        self.sender.drop(stream.stream_id)
        if not self._streams and self._last_id is not None:
            self._end(CLOSING_S)
        elif not self._streams:
            self._clocks.busy(False)
        return stream

    def drain(self) -> None:
        """Take no new streams, and close after those that are here."""
        if self._ending.has_begun or self._last_id is not None:
            return
        if self._streams:
            self._last_id = self._machine.highest_inbound_stream_id
            self._goaway(ErrorCodes.NO_ERROR)
        else:
            self.close()

    def close(self, code: ErrorCodes = ErrorCodes.NO_ERROR) -> None:
        """Say goodbye, lose what is left, and close once the client can have read it."""
        if not self._ending.has_begun:
            self._goaway(code)
            self._end(LINGER_S)

    def _goaway(self, code: ErrorCodes) -> None:
        last_id = self._machine.highest_inbound_stream_id if self._last_id is None else self._last_id
        self.sender.collect()
        self.sender.put(goaway(last_id, code))
        self.sender.wake()

    def _refuse(self, why: str, code: ErrorCodes | None) -> None:
        """End a connection on which something is wrong.

        :param code: None when h2 has said goodbye already.
        """
        self._log.debug("refused", reason=why, client=client_address(self.getPeer()))
        if code is None:
            self._end(LINGER_S)
        else:
            self.close(code)

    def _end(self, linger_s: float) -> None:
        """Send what is printed, lose what is left, and close."""
        self._clocks.stop()
        self.sender.flush()
        self._ending.begin(linger_s)
        self._lose_streams(connection_lost("the connection has ended"))

    def _lose_streams(self, reason: Failure) -> None:
        self.sender.stop()
        streams, self._streams = list(self._streams.values()), {}
        for stream in streams:
            # Whoever hears of the first one may let go of what another one has waited for.
            stream.is_open = False
        for stream in streams:
            stream.lost(reason)

    def getPeer(self) -> IAddress:
        """Return the client's address."""
        return self.transport.getPeer()  # type: ignore[no-any-return]

    def getHost(self) -> IAddress:
        """Return our address."""
        return self.transport.getHost()  # type: ignore[no-any-return]

    def isSecure(self) -> bool:
        """Whether TLS is spoken."""
        return is_secure(self.transport)
