"""HTTP/1.x answers read from a bare socket, so that a test sees what no client library lets it see."""

from __future__ import annotations

import hashlib
import json
import socket
import struct
import time
from collections.abc import Iterable
from typing import Literal

from attrs import define, field

CONNECT_S = 10
# How long a connection may bring nothing before it counts as hanging; upstream's silence is given up much earlier.
SILENT_S = 25

Ending = Literal["whole", "closed", "reset", "hung", "left"]


@define
class Answer:
    """One answer, as far as it came.

    :ivar ended: ``whole`` when everything that was announced came; ``closed`` and ``reset`` when the connection ended
        before; ``hung`` when neither happened; ``left`` when the test itself stopped to read.
    :ivar framed: whether the head says where the body ends; without that only the close does.
    """

    status: int = 0
    fields: dict[str, str] = field(factory=dict)
    body: bytes = b""
    ended: Ending = "closed"
    framed: bool = True

    @property
    def digest(self) -> str:
        """The sha256 digest of the body."""
        return f"sha256:{hashlib.sha256(self.body).hexdigest()}"

    @property
    def is_oci_error(self) -> bool:
        """Whether the body is an error as the spec has it (distribution-spec, "Error Codes")."""
        try:
            first = json.loads(self.body)["errors"][0]
        except (ValueError, KeyError, IndexError, TypeError):
            return False
        return bool(first.get("code")) and self.fields.get("content-type") == "application/json"

    def __str__(self) -> str:
        return f"{self.status} {self.ended} after {len(self.body)} bytes {self.fields}"


@define(eq=False)
class Wire:
    """One connection to the proxy.

    :ivar whole_s: how long ``whole_bytes`` take at least, for a client that reads slowly.
    """

    sock: socket.socket
    piece_bytes: int = 256 * 1024
    whole_s: float = 0
    whole_bytes: int = 1
    _buffer: bytes = b""
    _over: Ending | None = None

    def send(self, data: bytes) -> None:
        """Send as it is."""
        self.sock.sendall(data)

    def read_answer(self, method: str = "GET", leave_after_bytes: int | None = None) -> Answer:
        """Read the next answer, or what there is of it.

        :param leave_after_bytes: stop after so many bytes of the body.
        """
        answer = Answer()
        while b"\r\n\r\n" not in self._buffer:
            if not self._more():
                return self._short(answer)
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        answer.status = int(lines[0].split()[1])
        answer.fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        if method == "HEAD" or answer.status in (204, 304):
            answer.ended = "whole"
        elif answer.fields.get("transfer-encoding") == "chunked":
            self._read_chunks(answer, leave_after_bytes)
        else:
            self._read_body(answer, leave_after_bytes)
        return answer

    def read_rest(self, limit_bytes: int = 1 << 20) -> bytes:
        """Return everything until the connection ends."""
        while len(self._buffer) < limit_bytes and self._more():
            pass
        rest, self._buffer = self._buffer, b""
        return rest

    @property
    def over(self) -> Ending | None:
        """How the connection ended, if it did."""
        return self._over

    def close(self, by_reset: bool = False) -> None:
        """Close, by RST when that is wanted."""
        if by_reset:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def _read_body(self, answer: Answer, leave_after_bytes: int | None) -> None:
        """Read a body with a length, or one that ends with the connection."""
        text = answer.fields.get("content-length")
        length = int(text) if text is not None else None
        answer.framed = length is not None
        limits = [count for count in (length, leave_after_bytes) if count is not None]
        limit = min(limits, default=None)
        pieces = [self._buffer]
        got_bytes = len(self._buffer)
        self._buffer = b""
        while (limit is None or got_bytes < limit) and self._more():
            pieces.append(self._buffer)
            got_bytes += len(self._buffer)
            self._buffer = b""
        body = b"".join(pieces)
        answer.body = body if length is None else body[:length]
        self._buffer = b"" if length is None else body[length:]
        if length is not None and got_bytes >= length:
            answer.ended = "whole"
        elif leave_after_bytes is not None and got_bytes >= leave_after_bytes:
            answer.ended = "left"
        elif length is None and self._over == "closed":
            answer.ended = "whole"
        else:
            self._short(answer)

    def _read_chunks(self, answer: Answer, leave_after_bytes: int | None) -> None:
        """Read a chunked body (RFC 9112, section 7.1)."""
        pieces: list[bytes] = []
        got_bytes = 0
        while leave_after_bytes is None or got_bytes < leave_after_bytes:
            line = self._line()
            size = int(line, 16) if line else -1
            if size < 0 or not self._has(size + 2):
                pieces.append(self._buffer[: max(size, 0)])
                self._short(answer)
                break
            pieces.append(self._buffer[:size])
            self._buffer = self._buffer[size + 2 :]
            got_bytes += size
            if size == 0:
                answer.ended = "whole"
                break
        else:
            answer.ended = "left"
        answer.body = b"".join(pieces)

    def _line(self) -> bytes:
        """Return the next line, empty when there is none."""
        while b"\r\n" not in self._buffer:
            if not self._more():
                return b""
        line, _, self._buffer = self._buffer.partition(b"\r\n")
        return line

    def _has(self, count: int) -> bool:
        """Wait until so many bytes are here."""
        while len(self._buffer) < count:
            if not self._more():
                return False
        return True

    def _short(self, answer: Answer) -> Answer:
        """Say how an answer ended that is not whole."""
        answer.ended = self._over or "closed"
        return answer

    def _more(self) -> bool:
        """Wait for more bytes; False says that there are none."""
        if self._over is not None:
            return False
        try:
            data = self.sock.recv(self.piece_bytes)
        except TimeoutError:
            self._over = "hung"
        except ConnectionError:
            self._over = "reset"
        else:
            time.sleep(self.whole_s * len(data) / self.whole_bytes)
            self._buffer += data
            self._over = None if data else "closed"
        return self._over is None


def connect(port: int, receive_buffer_bytes: int | None = None, silent_s: float = SILENT_S) -> Wire:
    """Connect to the proxy."""
    sock = socket.socket()
    if receive_buffer_bytes is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
    sock.settimeout(CONNECT_S)
    sock.connect(("127.0.0.1", port))
    sock.settimeout(silent_s)
    return Wire(sock)


def request(
    target: str, *fields: str, method: str = "GET", version: str = "1.1", host: Iterable[str] = ("cache.example",)
) -> bytes:
    """Write the head of a request; fields are whole lines."""
    lines = [f"{method} {target} HTTP/{version}", *(f"Host: {name}" for name in host), *fields]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def get(port: int, target: str, *fields: str, version: str = "1.1") -> Answer:
    """Send one GET on a connection of its own and read its answer."""
    wire = connect(port)
    try:
        wire.send(request(target, *fields, version=version))
        return wire.read_answer()
    finally:
        wire.close()
