"""A relay in front of an HTTP server on loopback: it passes every byte on as it is, and notes what was asked.

Host travels unchanged, since signatures cover it.  Of a query only the names of its parameters are noted, so that a
failing test prints no signature.  RFC 9112, as far as S3 and its clients use it.
"""

from __future__ import annotations

import contextlib
import datetime
import re
import socket
import sys
import threading
from collections import deque
from collections.abc import Callable
from email.utils import format_datetime, parsedate_to_datetime
from typing import BinaryIO
from urllib.parse import parse_qsl, unquote, urlsplit

from attrs import define, field

MAX_LINE_BYTES = 64 * 1024
PIECE_BYTES = 64 * 1024
IDLE_S = 120
_WITHOUT_BODY = (204, 304)


@define(eq=False)
class Seen:
    """One request that came through.

    :ivar path: without the query, decoded.
    :ivar parameters: the names of the query's parameters, in order.
    :ivar headers: by lower-case name; all values of a name that came more than once, with commas.
    :ivar status: of the answer; None while there is none.
    :ivar body_bytes: how much of the answer's body was passed on.
    """

    method: str
    path: str
    parameters: tuple[str, ...]
    headers: dict[str, str] = field(repr=lambda headers: str(sorted(headers)))
    status: int | None = None
    body_bytes: int = 0

    @property
    def is_presigned(self) -> bool:
        """Whether the address itself says who may."""
        return "X-Amz-Signature" in self.parameters


@define(eq=False)
class Relay:
    """A relay that runs until it is closed.

    :ivar date_shift_s: how far the Date of every answer is put forward: whoever computes an age by the server's own
        clock finds everything that much older.
    """

    target_port: int
    date_shift_s: int = 0
    seen: list[Seen] = field(factory=list, init=False)
    _listener: socket.socket = field(init=False, repr=False)
    _sockets: set[socket.socket] = field(factory=set, init=False, repr=False)
    _looked: int = field(default=0, init=False)

    @_listener.default
    def _listen(self) -> socket.socket:
        return socket.create_server(("127.0.0.1", 0), backlog=256)

    @property
    def port(self) -> int:
        """Where it listens."""
        port: int = self._listener.getsockname()[1]
        return port

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}"

    def news(self) -> list[Seen]:
        """Return the requests since the last call."""
        everything = list(self.seen)
        news, self._looked = everything[self._looked :], len(everything)
        return news

    def close(self) -> None:
        """Stop listening and cut every connection."""
        _shut(self._listener)
        for each in list(self._sockets):
            _shut(each)

    def run(self) -> None:
        """Accept until closed."""
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            _in_background(lambda client=client: self._serve(client))  # type: ignore[misc]

    def _serve(self, client: socket.socket) -> None:
        """Connect to the server and pass on what comes from both sides, each in a thread of its own."""
        try:
            server = socket.create_connection(("127.0.0.1", self.target_port), 10)
        except OSError:
            _shut(client)
            return
        both = {client, server}
        for each in both:
            each.settimeout(IDLE_S)
        self._sockets |= both
        waiting: deque[Seen] = deque()
        back = _in_background(lambda: _until_lost(lambda: self._answers(server, client, waiting), both))
        _until_lost(lambda: self._requests(client, server, waiting), {server})
        back.join()
        self._sockets -= both
        for each in both:
            _shut(each)

    def _requests(self, client: socket.socket, server: socket.socket, waiting: deque[Seen]) -> None:
        """Pass requests on; each is noted before the server has all of it."""
        source = client.makefile("rb")
        while head := _read_head(source):
            method, target, _ = head[0].decode("latin-1").split(" ", 2)
            parts = urlsplit(target)
            names = tuple(name for name, _ in parse_qsl(parts.query, keep_blank_values=True))
            one = Seen(method, unquote(parts.path), names, _fields(head))
            self.seen.append(one)
            waiting.append(one)
            server.sendall(b"".join(head))
            _pass_body(source, server, _fields(head), None)

    def _answers(self, server: socket.socket, client: socket.socket, waiting: deque[Seen]) -> None:
        """Pass answers on, each to the oldest request without one."""
        source = server.makefile("rb")
        while head := _read_head(source):
            status = int(head[0].split(b" ", 2)[1])
            if status < 200:
                client.sendall(b"".join(head))
                continue
            one = waiting.popleft()
            one.status = status
            client.sendall(b"".join(self._with_date(line) for line in head))
            if one.method != "HEAD" and status not in _WITHOUT_BODY:
                _pass_body(source, client, _fields(head), one)

    def _with_date(self, line: bytes) -> bytes:
        """Return a line of an answer's head, a Date put forward."""
        if not self.date_shift_s or not re.match(rb"date:", line, re.IGNORECASE):
            return line
        then = parsedate_to_datetime(line.partition(b":")[2].strip().decode("ascii"))
        then += datetime.timedelta(seconds=self.date_shift_s)
        return b"Date: %b\r\n" % format_datetime(then, usegmt=True).encode("ascii")


def start_relay(target_port: int) -> Relay:
    """Start a relay in front of a server on loopback."""
    relay = Relay(target_port)
    _in_background(relay.run)
    return relay


def _in_background(work: Callable[[], None]) -> threading.Thread:
    """Run it in a thread that keeps nobody from ending."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def _until_lost(work: Callable[[], None], to_end: set[socket.socket]) -> None:
    """Work until there is no more, or the connection is lost, and then let the others know."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        work()
    for each in to_end:
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)


def _shut(one: socket.socket) -> None:
    """Close a socket that others may be waiting at."""
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()


def _read_head(source: BinaryIO) -> list[bytes]:
    """Return the lines of a head with the empty one; nothing at the end of the stream."""
    lines: list[bytes] = []
    while line := source.readline(MAX_LINE_BYTES):
        lines.append(line)
        if line == b"\r\n":
            return lines
    return []


def _fields(head: list[bytes]) -> dict[str, str]:
    """Return the fields of a head by lower-case name."""
    fields: dict[str, str] = {}
    for line in head[1:-1]:
        name, _, value = line.decode("latin-1").partition(":")
        known = fields.get(name.lower())
        fields[name.lower()] = value.strip() if known is None else f"{known}, {value.strip()}"
    return fields


def _pass_body(source: BinaryIO, target: socket.socket, fields: dict[str, str], answer: Seen | None) -> None:
    """Pass one body on, however its length is told, and count what there is of an answer's."""
    if "chunked" in fields.get("transfer-encoding", "").lower():
        while size := _pass_size(source, target):
            _copy(source, target, size, answer)
            target.sendall(source.readline(MAX_LINE_BYTES))
        while (line := source.readline(MAX_LINE_BYTES)) not in (b"\r\n", b""):
            target.sendall(line)
        target.sendall(b"\r\n")
    elif "content-length" in fields:
        _copy(source, target, int(fields["content-length"]), answer)
    elif answer is not None:
        # To the end of the connection; a request without a length has no body (RFC 9112 §6.3).
        _copy(source, target, sys.maxsize, answer)


def _pass_size(source: BinaryIO, target: socket.socket) -> int:
    """Pass the line before a chunk on and return the chunk's size."""
    line = source.readline(MAX_LINE_BYTES)
    target.sendall(line)
    return int(line.partition(b";")[0], 16)


def _copy(source: BinaryIO, target: socket.socket, size_bytes: int, answer: Seen | None) -> None:
    """Pass so many bytes on, as they come."""
    while size_bytes > 0:
        data = source.read1(min(size_bytes, PIECE_BYTES))  # type: ignore[attr-defined]
        if not data:
            raise OSError("cut")
        target.sendall(data)
        size_bytes -= len(data)
        if answer is not None:
            answer.body_bytes += len(data)
