"""Bodies on their way out: fair between streams, few copies, and never more waiting than the client has asked for.

h2 counts windows and prints everything but DATA frames.  Those are made here: their payload is never copied before it
is joined for the transport, once for each turn of the reactor.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any, Protocol

from attrs import define, field
from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime
from zope.interface import implementer

from txociproxy.web.http2.frames import data_head
from txociproxy.web.http2.limits import (
    CONNECTION_BYTES,
    MAX_CONTROL_BYTES,
    SLICE_BYTES,
    STREAM_BYTES,
    TURN_BYTES,
)
from txociproxy.web.http2.machine import Machine


@define(eq=False)
class Outgoing:
    """What one stream still has to send.

    :ivar is_ended: nothing is added any more.
    :ivar producer: who is asked for more; None for nobody.
    """

    stream_id: int
    chunks: deque[memoryview] = field(factory=deque)
    queued_bytes: int = 0
    is_ended: bool = False
    producer: IPushProducer | None = None
    is_paused: bool = False


class Owner(Protocol):
    """Whose bodies are sent."""

    def delivered(self, stream_id: int) -> None:
        """The whole body of a stream was given to the transport."""

    def sent(self, sent_bytes: int) -> None:
        """Bytes were given to the transport."""

    def choked(self) -> None:
        """The client does not read, and too much waits for it that cannot be left out."""


@implementer(IPushProducer)
@define(eq=False)
class Sender:
    """Sends what streams have, in turns; the transport pauses and resumes it."""

    _machine: Machine
    _transport: Any
    _clock: IReactorTime
    _owner: Owner
    queued_bytes: int = field(default=0, init=False)
    _streams: dict[int, Outgoing] = field(factory=dict, init=False)
    _turns: deque[Outgoing] = field(factory=deque, init=False)
    _control: list[bytes] = field(factory=list, init=False)
    _control_bytes: int = field(default=0, init=False)
    _is_blocked: bool = field(default=False, init=False)
    _is_stopped: bool = field(default=False, init=False)
    _next: IDelayedCall | None = field(default=None, init=False)

    def open(self, stream_id: int) -> None:
        """Take a stream in."""
        self._streams[stream_id] = Outgoing(stream_id)

    def write(self, stream_id: int, data: bytes) -> None:
        """Add to a stream's body."""
        out = self._streams[stream_id]
        self._turn_for(out)
        out.chunks.append(memoryview(data))
        out.queued_bytes += len(data)
        self.queued_bytes += len(data)
        self._regulate(out)
        self.wake()

    def end(self, stream_id: int) -> None:
        """Nothing is added to a stream's body any more."""
        out = self._streams[stream_id]
        self._turn_for(out)
        out.is_ended = True
        self.wake()

    def drop(self, stream_id: int) -> None:
        """Forget a stream and what it has."""
        out = self._streams.pop(stream_id)
        self.queued_bytes -= out.queued_bytes
        out.producer = None
        if out in self._turns:
            self._turns.remove(out)

    def produce(self, stream_id: int, producer: IPushProducer | None) -> None:
        """Let somebody feed a stream, as fast as the client takes it; None is nobody."""
        out = self._streams[stream_id]
        out.producer, out.is_paused = producer, False
        self._regulate(out)

    def wake(self) -> None:
        """Send soon: all that is written until then leaves together."""
        if self._next is None and not self._is_stopped:
            self._next = self._clock.callLater(0, self._turn)

    def collect(self) -> None:
        """Take what h2 has printed; it has to leave before anything that is printed later."""
        data = self._machine.data_to_send()
        if data:
            self.put(data)

    def put(self, frame: bytes) -> None:
        """Send a whole frame that h2 knows nothing of."""
        self._control.append(frame)
        self._control_bytes += len(frame)

    def flush(self) -> None:
        """Send what is no body, whether the client reads or not; for the end of a connection."""
        self.collect()
        control, self._control, self._control_bytes = self._control, [], 0
        if control:
            self._transport.write(b"".join(control))

    def stop(self) -> None:
        """Send nothing more."""
        self._is_stopped = True
        if self._next is not None:
            self._next.cancel()
            self._next = None
        self._streams.clear()
        self._turns.clear()
        self.queued_bytes = 0

    def pauseProducing(self) -> None:
        """The transport has enough."""
        self._is_blocked = True

    def resumeProducing(self) -> None:
        """The transport takes more."""
        self._is_blocked = False
        self.run()

    def stopProducing(self) -> None:
        """The connection is lost; its owner is told by others."""
        self._is_blocked = True

    def run(self) -> None:
        """Have a turn now."""
        if self._next is not None:
            self._next.cancel()
        self._turn()

    def _turn(self) -> None:
        """Send what the client and the transport take, up to a bound."""
        self._next = None
        if self._is_stopped:
            return
        self.collect()
        if self._is_blocked:
            if self._control_bytes > MAX_CONTROL_BYTES:
                self._owner.choked()
            return
        pieces: list[bytes | memoryview] = list(self._control)
        self._control, self._control_bytes = [], 0
        delivered, sent_bytes = self._bodies(pieces)
        if pieces:
            self._transport.write(b"".join(pieces))
        self._owner.sent(sent_bytes)
        for stream_id in delivered:
            self._owner.delivered(stream_id)
        if not self._is_stopped:
            self._feed()

    def _bodies(self, pieces: list[bytes | memoryview]) -> tuple[list[int], int]:
        """Add frames of all streams by turns; return the streams that are through, and the size of all."""
        delivered: list[int] = []
        left_bytes, in_vain = TURN_BYTES, 0
        while left_bytes > 0 and in_vain < len(self._turns):
            out = self._turns.popleft()
            sent_bytes = self._slice(out, min(left_bytes, SLICE_BYTES), pieces)
            left_bytes -= sent_bytes
            if out.queued_bytes:
                in_vain = 0 if sent_bytes else in_vain + 1
                self._turns.append(out)
            elif out.is_ended:
                self._machine.end_stream(out.stream_id)
                pieces.append(self._machine.data_to_send())
                delivered.append(out.stream_id)
        return delivered, TURN_BYTES - left_bytes

    def _slice(self, out: Outgoing, max_bytes: int, pieces: list[bytes | memoryview]) -> int:
        """Add frames of one stream and let its windows know."""
        machine, stream_id = self._machine, out.stream_id
        left_bytes = amount = min(max_bytes, out.queued_bytes, machine.local_flow_control_window(stream_id))
        if amount <= 0:
            return 0
        while left_bytes > 0:
            chunk = out.chunks[0]
            size_bytes = min(left_bytes, len(chunk), machine.max_outbound_frame_size)
            pieces += (data_head(stream_id, size_bytes), chunk[:size_bytes])
            left_bytes -= size_bytes
            if size_bytes == len(chunk):
                out.chunks.popleft()
            else:
                out.chunks[0] = chunk[size_bytes:]
        out.queued_bytes -= amount
        self.queued_bytes -= amount
        machine.outbound_flow_control_window -= amount
        machine.streams[stream_id].outbound_flow_control_window -= amount
        return amount

    def _turn_for(self, out: Outgoing) -> None:
        """Let a stream have its turns, if it has none yet."""
        if not out.queued_bytes and not out.is_ended and out not in self._turns:
            self._turns.append(out)

    def _feed(self) -> None:
        """Ask for more where there is room again, and go on if something can be sent."""
        for out in list(self._streams.values()):
            if out.is_paused and out.producer is not None and self._has_room(out):
                # Whoever was asked last is asked last the next time.
                self._streams[out.stream_id] = self._streams.pop(out.stream_id)
                out.is_paused = False
                out.producer.resumeProducing()
        if self._turns and not self._is_blocked and self._can_send(self._turns):
            self.wake()

    def _can_send(self, turns: Iterable[Outgoing]) -> bool:
        """Say whether a turn would send anything."""
        return any(not out.queued_bytes or self._window(out) > 0 for out in turns)

    def _regulate(self, out: Outgoing) -> None:
        """Pause whoever has fed enough."""
        if out.producer is not None and not out.is_paused and not self._has_room(out):
            out.is_paused = True
            out.producer.pauseProducing()

    def _has_room(self, out: Outgoing) -> bool:
        """Say whether a stream may have more waiting: never more than its client has asked for."""
        queued_bytes = out.queued_bytes
        has_room = queued_bytes < STREAM_BYTES and self.queued_bytes < CONNECTION_BYTES
        return has_room and queued_bytes < self._window(out)

    def _window(self, out: Outgoing) -> int:
        return self._machine.local_flow_control_window(out.stream_id)
