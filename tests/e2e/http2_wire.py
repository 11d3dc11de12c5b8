"""A client of HTTP/2 by prior knowledge over a real socket, which does what curl cannot be told to do."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import Any, cast

from attrs import define, field
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated, DataReceived, ResponseReceived, StreamEnded, StreamReset

from tests.e2e.processes import E2EError

WINDOW_BYTES = 1 << 20


@define(eq=False)
class Arrived:
    """What has come on one stream; ``reset`` is the code of RST_STREAM."""

    status: int | None = None
    body: bytearray = field(factory=bytearray)
    is_whole: bool = False
    reset: int | None = None


class Wire2:
    """One connection.

    :ivar goaway: the code of GOAWAY.
    :ivar is_closed: the server has closed its side.
    """

    def __init__(self, port: int, window_bytes: int = WINDOW_BYTES) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        config = H2Configuration(client_side=True, header_encoding="latin-1")
        self.machine = H2Connection(config)
        self.machine.initiate_connection()
        self.machine.update_settings({4: window_bytes})
        self.machine.increment_flow_control_window(window_bytes)
        self.arrived: dict[int, Arrived] = {}
        self.goaway: int | None = None
        self.is_closed = False
        self._flush()

    def begin(self, target: str, *fields: tuple[str, str], method: str = "GET") -> Arrived:
        """Ask, and wait for nothing."""
        stream_id = self.machine.get_next_available_stream_id()
        pseudo = [(":method", method), (":path", target), (":scheme", "http"), (":authority", "127.0.0.1")]
        self.machine.send_headers(stream_id, [*pseudo, *fields], end_stream=True)
        self._flush()
        arrived = self.arrived[stream_id] = Arrived()
        return arrived

    def read_until(self, fact: Callable[[], bool], within_s: float = 30) -> None:
        """Take what comes until a fact holds.

        :raises E2EError: it did not in time.
        """
        end_s = time.monotonic() + within_s
        while not fact():
            self.socket.settimeout(max(0.01, end_s - time.monotonic()))
            try:
                data = self.socket.recv(1 << 18)
            except TimeoutError as error:
                raise E2EError(f"not within {within_s} s: {self.arrived}") from error
            if not data:
                self.is_closed = True
                if fact():
                    return
                raise E2EError(f"closed: {self.arrived}")
            self._take(data)

    def close(self) -> None:
        """Hang up."""
        self.socket.close()

    def _take(self, data: bytes) -> None:
        state = self.machine.state_machine.state
        for event in self.machine.receive_data(data):
            arrived = self.arrived.get(getattr(event, "stream_id", None) or 0, Arrived())
            if isinstance(event, ResponseReceived):
                arrived.status = int(dict(cast(Any, event.headers))[":status"])
            elif isinstance(event, DataReceived):
                arrived.body += event.data
                if event.flow_controlled_length:
                    self.machine.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, StreamEnded):
                arrived.is_whole = True
            elif isinstance(event, StreamReset):
                arrived.reset = int(event.error_code)
            elif isinstance(event, ConnectionTerminated):
                self.goaway = int(event.error_code or 0)
                # h2 takes it for the end of everything; here what runs goes on (RFC 9113 §6.8).
                self.machine.state_machine.state = state
        self._flush()

    def _flush(self) -> None:
        data = self.machine.data_to_send()
        if data:
            self.socket.sendall(data)
