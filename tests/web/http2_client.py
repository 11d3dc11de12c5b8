"""A client of HTTP/2 in memory: h2 is the judge of all that we send."""

from __future__ import annotations

import json
from typing import Any, cast

from attrs import define, field
from h2.config import H2Configuration
from h2.connection import ConnectionState, H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    InformationalResponseReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
)
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IAddress
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from tests.web.doubles import Echo, Wire, client
from txociproxy.bodies.lending import MemoryBody
from txociproxy.bodies.reader import Reader
from txociproxy.web.http2.connection import Connection
from txociproxy.web.http2.frames import GOAWAY
from txociproxy.web.sending import RequestSink
from txociproxy.web.site import Census, DoorLimits, DoorRequest, DoorSite, DoorTimes
from txociproxy.web.switch import Switch


@define(eq=False)
class Got:
    """What came on one stream.

    :ivar reset: the code of RST_STREAM.
    """

    status: int | None = None
    fields: dict[str, str] = field(factory=dict)
    body: bytes = b""
    is_whole: bool = False
    reset: int | None = None
    informational: list[int] = field(factory=list)

    def error(self) -> str:
        """Return the code of an error in the form of the spec."""
        return str(json.loads(self.body)["errors"][0]["code"])


class Client:
    """One client's connection to a site in memory.

    :ivar takes: whether windows are opened again for what was received.
    :ivar goaway: (last stream, code) of the last GOAWAY.
    """

    def __init__(
        self,
        site: DoorSite | None = None,
        limits: DoorLimits | None = None,
        times: DoorTimes | None = None,
        peer: IAddress | None = None,
        negotiated: bytes | None = None,
        greets: bool = True,
        window_bytes: int | None = None,
    ) -> None:
        self.root = Echo()
        self.site = site or DoorSite(self.root, Clock(), Census(limits or DoorLimits()), times=times)
        self.clock = cast(Clock, self.site.reactor)
        self.wire = Wire(peerAddress=peer or client("192.0.2.1"))
        if negotiated is not None:
            self.wire.negotiatedProtocol = negotiated  # type: ignore[attr-defined]
        config = H2Configuration(client_side=True, header_encoding="latin-1")
        config.validate_outbound_headers = config.normalize_outbound_headers = False
        self.machine = H2Connection(config)
        self.takes = True
        self.got: dict[int, Got] = {}
        self.events: list[Event] = []
        self.goaway: tuple[int, int] | None = None
        door = self.site.buildProtocol(self.wire.getPeer())
        assert isinstance(door, Switch)
        self.door = door
        self.door.makeConnection(self.wire)
        self.machine.initiate_connection()
        if window_bytes is not None:
            self.machine.update_settings({4: window_bytes})
        if greets:
            self.flush()

    @property
    def connection(self) -> Connection:
        """What speaks HTTP/2 on our side."""
        assert isinstance(self.door.spoken, Connection)
        return self.door.spoken

    def flush(self) -> None:
        """Send what the machine has printed, and read the answers."""
        data = self.machine.data_to_send()
        if data:
            self.send(data)

    def send(self, data: bytes) -> None:
        """Send bytes, and read the answers."""
        self.door.dataReceived(data)
        self.read()

    def read(self) -> None:
        """Let what is due now happen, and read until nothing more comes."""
        while True:
            self.clock.advance(0)
            data = self.wire.value()
            if not data:
                return
            self.wire.clear()
            self._read(bytes(data))
            answer = self.machine.data_to_send()
            if answer and not self.wire.disconnected:
                self.door.dataReceived(answer)

    def _read(self, data: bytes) -> None:
        # Frame by frame: h2 looks only once each time how long a frame may be.
        events: list[Event] = []
        start = 0
        while start < len(data):
            end = start + 9 + int.from_bytes(data[start : start + 3], "big")
            events += self.machine.receive_data(data[start:end])
            if data[start + 3] == GOAWAY:
                # h2 takes it for the end of everything; here what runs goes on (RFC 9113 §6.8).
                self.machine.state_machine.state = ConnectionState.CLIENT_OPEN
            start = end
        for event in events:
            self.events.append(event)
            if isinstance(event, ConnectionTerminated):
                self.goaway = (event.last_stream_id or 0, int(event.error_code or 0))
            if getattr(event, "stream_id", None):
                self._note(event, self.got.setdefault(event.stream_id, Got()))  # type: ignore[attr-defined]

    def _note(self, event: Event, got: Got) -> None:
        if isinstance(event, ResponseReceived):
            fields = dict(cast(Any, event.headers))
            got.status, got.fields = int(fields.pop(":status")), fields
        elif isinstance(event, InformationalResponseReceived):
            got.informational += [int(dict(cast(Any, event.headers))[":status"])]
        elif isinstance(event, DataReceived):
            got.body += event.data
            if self.takes and event.flow_controlled_length:
                self.take(event.stream_id, event.flow_controlled_length)
        elif isinstance(event, StreamEnded):
            got.is_whole = True
        elif isinstance(event, StreamReset):
            got.reset = int(event.error_code)

    def take(self, stream_id: int, count: int) -> None:
        """Open both windows again."""
        self.machine.increment_flow_control_window(count)
        if self.machine.streams.get(stream_id) is not None and not self.machine.streams[stream_id].closed:
            self.machine.increment_flow_control_window(count, stream_id)

    def begin(
        self,
        method: str = "GET",
        path: str = "/v2/",
        *fields: tuple[str, str],
        ends: bool = True,
        authority: str | None = "cache.example",
    ) -> int:
        """Send a head, and wait for nothing."""
        stream_id = self.machine.get_next_available_stream_id()
        pseudo = [(":method", method), (":path", path), (":scheme", "http")]
        if authority is not None:
            pseudo.append((":authority", authority))
        self.machine.send_headers(stream_id, [*pseudo, *fields], end_stream=ends)
        self.got[stream_id] = Got()
        return stream_id

    def ask(self, method: str = "GET", path: str = "/v2/", *fields: tuple[str, str], body: bytes = b"") -> Got:
        """Ask and return what has come then."""
        stream_id = self.begin(method, path, *fields, ends=not body)
        if body:
            for start in range(0, len(body), 16384):
                piece = body[start : start + 16384]
                self.machine.send_data(stream_id, piece, end_stream=start + 16384 >= len(body))
        self.flush()
        return self.got[stream_id]

    def request_of(self, stream_id: int) -> DoorRequest:
        """Return what is being answered on a stream."""
        request = self.connection._streams[stream_id]._request
        assert request is not None
        return request

    def pause(self) -> None:
        """Let the transport have enough."""
        self._producer().pauseProducing()

    def resume(self) -> None:
        """Let the transport take more."""
        self._producer().resumeProducing()

    def _producer(self) -> Any:
        return self.wire.producer

    def hang_up(self) -> None:
        """The client closes."""
        self.door.connectionLost(Failure(ConnectionDone()))


class Bodies(Resource):
    """Answers ``/N`` with N bytes by a real Reader, as fast as the client takes them.

    :ivar ends: how each answer ended, by target.
    """

    isLeaf = True

    def __init__(self, stall_s: float = 300.0) -> None:
        super().__init__()
        self.stall_s = stall_s
        self.requests: dict[bytes, Any] = {}
        self.readers: dict[bytes, Reader] = {}
        self.ends: dict[bytes, str] = {}
        self.lost: list[bytes] = []

    def render(self, request: Request) -> int:
        """Begin."""
        target = request.uri
        self.requests[target] = request
        data = content(int(target[1:]))
        request.setHeader("Content-Length", str(len(data)))
        sink = RequestSink(request, lambda _: None)
        clock = request.channel.site.reactor  # type: ignore[attr-defined]
        reader = self.readers[target] = Reader(MemoryBody(data, promised=1), 0, None, sink, clock, self.stall_s)
        over = request.notifyFinish()
        over.addErrback(lambda _: self.lost.append(target))
        request.notifyFinish().addErrback(lambda _: reader.stopProducing())
        reader.done.addCallback(lambda how: self.ends.__setitem__(target, how))
        reader.start()
        return NOT_DONE_YET


def content(size_bytes: int) -> bytes:
    """Return bytes that no two sizes share."""
    word = b"%d," % size_bytes
    return (word * (size_bytes // len(word) + 1))[:size_bytes]


def bodies_site(**more: Any) -> tuple[Bodies, DoorSite]:
    """Return a site of such answers."""
    root = Bodies(**more)
    return root, DoorSite(root, Clock(), Census(DoorLimits()))
