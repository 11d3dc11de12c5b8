"""A relay between the proxy and a real S3 server that does what it is told, faults included.

Heads and bodies pass byte for byte, the Host field included, so that signatures hold: the server must take the relay's
address for its own.  One thread per connection and direction; nobody here sends a request before the last one's answer.
"""

from __future__ import annotations

import contextlib
import re
import socket
import struct
import threading
import time
from collections.abc import Callable

from attrs import define, field

from tests.e2e.processes import free_port
from tests.e2e.s3_fault_kinds import PASS, Fault, S3Request

PIECE_BYTES = 64 * 1024
MAX_HEAD_BYTES = 64 * 1024
TICK_S = 0.05
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_BUSY = b"<?xml version='1.0'?><Error><Code>%s</Code></Error>"


class Over(Exception):
    """This connection ends here."""


@define(eq=False)
class FaultyS3:
    """The relay; :meth:`turn` switches it at any time."""

    server_port: int
    port: int = field(factory=free_port)
    fault: Fault = PASS
    where: Callable[[S3Request], bool] = field(default=lambda request: True)
    asked: list[S3Request] = field(factory=list)
    _listener: socket.socket | None = None
    _links: set[Link] = field(factory=set)
    _lock: threading.Lock = field(factory=threading.Lock)

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}"

    def turn(self, fault: Fault, where: Callable[[S3Request], bool] = lambda request: True) -> None:
        """From the next request on this is what happens, to those that are meant; the others pass."""
        self.fault, self.where = fault, where
        if fault.refuses:
            self.close()
        elif self._listener is None:
            self.listen()

    def news(self) -> list[S3Request]:
        """Return the requests since the last call."""
        with self._lock:
            news, self.asked = self.asked, []
        return news

    def listen(self) -> None:
        """Take connections."""
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.port))
        listener.listen(256)
        self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def close(self) -> None:
        """Take no more connections, and reset those that there are."""
        listener, self._listener = self._listener, None
        if listener is not None:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        with self._lock:
            links, self._links = self._links, set()
        for link in links:
            link.reset()

    def _accept(self, listener: socket.socket) -> None:
        """Give each connection a thread of its own."""
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            link = Link(self, client)
            with self._lock:
                self._links.add(link)
            threading.Thread(target=link.run, daemon=True).start()

    def judge(self, request: S3Request) -> Fault:
        """Note a request and say what becomes of it."""
        with self._lock:
            self.asked.append(request)
        return self.fault if self.where(request) else PASS

    def forget(self, link: Link) -> None:
        """A connection is over."""
        with self._lock:
            self._links.discard(link)


@define(eq=False)
class Link:
    """One connection of a client, and the one to the server that belongs to it."""

    relay: FaultyS3
    client: socket.socket
    server: socket.socket | None = None
    fault: Fault = PASS
    _answered_bytes: int = 0

    def run(self) -> None:
        """Pass requests until either side ends or a fault does."""
        try:
            while True:
                self._pass_request()
        except (Over, OSError):
            self.reset()
        finally:
            self.relay.forget(self)

    def reset(self) -> None:
        """End both connections at once, by RST; threads that read them wake up."""
        for sock in (self.client, self.server):
            if sock is not None:
                with contextlib.suppress(OSError):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    sock.shutdown(socket.SHUT_RD)
                sock.close()

    def _pass_request(self) -> None:
        """Read one head, judge it, and pass it on with its body."""
        head, rest = self._read_head()
        line, _, fields = head.partition(b"\r\n")
        method, target, _ = line.decode("latin-1").split(" ")
        length = _LENGTH.search(head)
        missing_bytes = (int(length[1]) if length else 0) - len(rest)
        self.fault, self._answered_bytes = self.relay.judge(S3Request(method, target, fields)), 0
        if self.fault.hangs:
            self._wait_for_the_end()
        if self.fault.status is not None:
            self._answer(self.fault, 0 if b"100-continue" in head.lower() else missing_bytes)
        server = self._connected()
        server.sendall(head + rest)
        while missing_bytes > 0:
            data = self._received(self.client, min(missing_bytes, self._piece_bytes()))
            missing_bytes -= len(data)
            server.sendall(data)

    def _read_head(self) -> tuple[bytes, bytes]:
        """Return the head of the next request, and what came with it."""
        data = b""
        while b"\r\n\r\n" not in data:
            data += self._received(self.client, PIECE_BYTES)
            if len(data) > MAX_HEAD_BYTES:
                raise Over
        end = data.index(b"\r\n\r\n") + 4
        return data[:end], data[end:]

    def _received(self, sock: socket.socket, max_bytes: int) -> bytes:
        """Return the next bytes."""
        data = sock.recv(max_bytes)
        if not data:
            raise Over
        if self.fault.bytes_per_s:
            time.sleep(len(data) / self.fault.bytes_per_s)
        return data

    def _piece_bytes(self) -> int:
        """How much moves at once."""
        return max(1, int(self.fault.bytes_per_s * TICK_S)) if self.fault.bytes_per_s else PIECE_BYTES

    def _wait_for_the_end(self) -> None:
        """Take everything and say nothing."""
        while True:
            self._received(self.client, PIECE_BYTES)

    def _answer(self, fault: Fault, missing_bytes: int) -> None:
        """Take the body and answer in the server's place."""
        while missing_bytes > 0:
            missing_bytes -= len(self._received(self.client, PIECE_BYTES))
        body = _BUSY % fault.code
        head = f"HTTP/1.1 {fault.status} Fault\r\nContent-Type: application/xml\r\nConnection: close\r\n"
        self.client.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        self.client.shutdown(socket.SHUT_WR)
        self._wait_for_the_end()

    def _connected(self) -> socket.socket:
        """Return the connection to the server."""
        if self.server is None:
            self.server = socket.create_connection(("127.0.0.1", self.relay.server_port), 10)
            self.server.settimeout(None)
            threading.Thread(target=self._pass_answers, args=(self.server,), daemon=True).start()
        return self.server

    def _pass_answers(self, server: socket.socket) -> None:
        """Pass what the server says, until a fault or the end."""
        try:
            while True:
                data = self._received(server, self._piece_bytes())
                last_at = self.fault.cut_at if self.fault.stall_at is None else self.fault.stall_at
                if last_at is not None and self._answered_bytes + len(data) > last_at:
                    self.client.sendall(data[: last_at - self._answered_bytes])
                    return self._end_answer()
                self._answered_bytes += len(data)
                self.client.sendall(data)
        except (Over, OSError):
            self.reset()

    def _end_answer(self) -> None:
        """Say nothing more: the connection ends with its client, or here."""
        if self.fault.stall_at is None:
            time.sleep(TICK_S)  # a reset throws away what the other side has not read yet
            self.reset()
