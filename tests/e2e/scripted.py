"""An upstream that does what it is told, faults included: ``python -m tests.e2e.scripted PORT``.

One thread per connection, plain HTTP/1.1; :mod:`tests.e2e.scripts` says what can be asked of it.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import socket
import struct
import sys
import termios
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.e2e.book import Book
from tests.e2e.scripts import CONTROL, Served, Step

_RANGE = re.compile(r"bytes=(\d+)-(\d*)$")
_PAGE = b"<html><body>Please log in to the network of this hotel.</body></html>"


class Broken(Exception):
    """The script says that the connection ends here."""


class ScriptedHandler(BaseHTTPRequestHandler):
    """Answers one connection."""

    protocol_version = "HTTP/1.1"
    book: Book
    entry: dict[str, Any]

    def do_POST(self) -> None:
        """Take targets through the control door."""
        self.book.serve(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self._answer(200, b"{}")

    def do_HEAD(self) -> None:
        """Answer HEAD, which uses up no step."""
        self.do_GET()

    def do_GET(self) -> None:
        """Answer by the script."""
        if self.path == f"{CONTROL}log":
            with self.book.lock:
                log = json.dumps(self.book.log).encode()
            return self._answer(200, log)
        self._begin_entry()
        try:
            self._scripted()
        except Broken:
            self.entry["ended"] = "broken"
            self.close_connection = True
        except OSError:
            self.entry["ended"] = "left"
            self.close_connection = True
        else:
            self.entry["ended"] = "whole"

    def _begin_entry(self) -> None:
        """Note the request, before anything is sent."""
        fields = {name.lower(): self.headers.get(name) for name in ("Range", "Authorization", "Accept")}
        self.entry = {"method": self.command, "target": self.path, "status": 0, "body_bytes": 0, "ended": "open"}
        self.entry.update(fields)
        with self.book.lock:
            self.book.log.append(self.entry)

    def _scripted(self) -> None:
        """Find the target and take its step."""
        path = self.path.partition("?")[0]
        served = self.book.served.get(self.path) or self.book.served.get(path)
        if path == "/token":
            self._answer(200, json.dumps({"token": f"t{self.book.token}", "expires_in": 300}).encode())
        elif served is None:
            self._refuse(200 if path == "/v2/" else 404)
        elif served.needs_token and self.headers.get("Authorization") != f"Bearer t{self.book.token}":
            self._refuse(401)
        else:
            step = served.head if self.command == "HEAD" else self.book.next_step(served)
            time.sleep(step.delay_s)
            self._take(served, step)

    def _take(self, served: Served, step: Step) -> None:
        """Answer by one step."""
        if step.page:
            self._answer(step.status or 200, _PAGE, (("Content-Type", "text/html"), *step.headers))
        elif step.status is not None and step.status >= 300:
            if step.status == 401:
                self.book.token += 1
            self._refuse(step.status, step.headers)
        else:
            self._send_content(served, step)

    def _refuse(self, status: int, headers: tuple[tuple[str, str], ...] = ()) -> None:
        """Answer with an OCI error, a redirect or an empty yes."""
        if status == 401:
            realm = f"http://127.0.0.1:{self.book.port}/token"
            headers = (("WWW-Authenticate", f'Bearer realm="{realm}",service="scripted"'), *headers)
        error = {"errors": [{"code": "UNKNOWN", "message": f"scripted {status}"}]}
        self._answer(status, b"{}" if status < 300 else json.dumps(error).encode(), headers)

    def _answer(self, status: int, body: bytes, headers: tuple[tuple[str, str], ...] = ()) -> None:
        """Send a small whole answer."""
        names = {name.lower() for name, _ in headers}
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        if "content-type" not in names:
            self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if hasattr(self, "entry"):
            self.entry["status"] = status
        if self.command != "HEAD":
            self.wfile.write(body)

    def _send_content(self, served: Served, step: Step) -> None:
        """Send the content or a part of it, with the faults of the step."""
        data = served.content.data()
        start, stop, status = self._part(len(data), step)
        if status == 416:
            return self._refuse(416, (("Content-Range", f"bytes */{len(data)}"),))
        self.send_response(step.status or status)
        self.send_header("Content-Type", served.media_type)
        self.send_header("Docker-Content-Digest", served.content.digest)
        self.send_header("ETag", step.etag or f'"{served.content.digest}"')
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(data)}")
        if step.chunked:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(stop - start + step.declared_extra))
        for name, value in step.headers:
            self.send_header(name, value)
        self.end_headers()
        self.entry["status"] = step.status or status
        if self.command != "HEAD":
            self._send_body(_with_faults(data, step)[: stop + step.sent_extra], start, step)

    def _part(self, total: int, step: Step) -> tuple[int, int, int]:
        """Return start, stop and status for the Range that was asked."""
        asked = _RANGE.match(self.headers.get("Range") or "")
        if asked is None or step.on_range == "whole":
            return 0, total, 200
        start = int(asked[1]) + (7 if step.on_range == "wrong_start" else 0)
        stop = min(int(asked[2]) + 1, total) if asked[2] else total
        return start, stop, 206 if start < stop else 416

    def _send_body(self, data: memoryview, start: int, step: Step) -> None:
        """Send from ``start`` to the end of ``data``, piece by piece."""
        stops = {step.break_at, step.stall_at, len(data)}
        offset = start
        while True:
            if offset == step.break_at:
                self._break(step)
            if offset == step.stall_at:
                time.sleep(step.stall_s)
            if offset >= len(data):
                break
            ahead = [place for place in stops if place is not None and place > offset]
            piece = data[offset : min([offset + step.chunk_bytes, *ahead])]
            self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), bytes(piece)) if step.chunked else piece)
            self.entry["body_bytes"] += len(piece)
            offset += len(piece)
            time.sleep(step.pause_s)
        if step.chunked:
            self.wfile.write(b"0\r\n\r\n")
        elif step.declared_extra != step.sent_extra:
            self.close_connection = True

    def _break(self, step: Step) -> None:
        """End the connection as the step says, when the other side has everything that was sent."""
        if step.break_by == "rst":
            while struct.unpack("i", fcntl.ioctl(self.connection, termios.TIOCOUTQ, b"\0\0\0\0"))[0]:
                time.sleep(0.01)
            time.sleep(0.1)  # a reset throws away what the other side has not read yet
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            os.close(self.connection.detach())
        raise Broken

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing: the log is asked for through the control door."""


def _with_faults(data: bytes, step: Step) -> memoryview:
    """Return the content with its wrong byte and its surplus."""
    if step.flip_at is None and step.sent_extra <= 0:
        return memoryview(data)
    changed = bytearray(data) + bytes(max(step.sent_extra, 0))
    if step.flip_at is not None:
        changed[step.flip_at] ^= 0xFF
    return memoryview(bytes(changed))


def main(port: int) -> None:
    """Serve until the process is ended."""
    ScriptedHandler.book = Book(port)
    ThreadingHTTPServer.request_queue_size = 256
    server = ThreadingHTTPServer(("127.0.0.1", port), ScriptedHandler)
    server.daemon_threads = True
    server.serve_forever()


if __name__ == "__main__":
    main(int(sys.argv[1]))
