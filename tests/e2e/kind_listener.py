"""The listeners of a played registry: plain or over TLS, each request printed as one line before it is answered."""

from __future__ import annotations

import json
import secrets
import ssl
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from tests.e2e.kind_house import House
from tests.e2e.kinds import Door, Server

_PIECE_BYTES = 64 * 1024
Fields = tuple[tuple[str, str], ...]


class Listener(ThreadingHTTPServer):
    """One of the servers."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, server: Server, house: House, handler: type[Answering]) -> None:
        """Listen."""
        super().__init__(("127.0.0.1", house.ports[server]), handler)
        self.role: Server = server
        self.house = house
        door = house.kind.doors.get(server)
        self._tls = None if door is None else _context(door)

    def get_request(self) -> tuple[Any, Any]:
        """Take a connection; its handshake is made by its own thread."""
        sock, address = super().get_request()
        if self._tls is not None:
            sock = self._tls.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        return sock, address

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print in one line what went wrong."""
        self.house.say({"error": repr(sys.exc_info()[1])})


def _context(door: Door) -> ssl.SSLContext:
    """Make the TLS of a door."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(door.cert, door.key)
    if door.client_ca is not None:
        context.load_verify_locations(door.client_ca)
    context.verify_mode = {
        "ignored": ssl.CERT_NONE,
        "asked": ssl.CERT_OPTIONAL,
        "required": ssl.CERT_REQUIRED,
    }[door.client]
    return context


class Answering(BaseHTTPRequestHandler):
    """One connection: who is there, and how answers are sent and printed."""

    protocol_version = "HTTP/1.1"
    server: Listener
    timeout = 60

    def setup(self) -> None:
        """Shake hands."""
        super().setup()
        if isinstance(self.request, ssl.SSLSocket):
            self.request.do_handshake()

    @property
    def house(self) -> House:
        """What is known."""
        return self.server.house

    # --- who is there

    def name(self) -> str | None:
        """Return who this is, as far as it is proven; None is somebody without any credential that is good."""
        shown = self.headers.get("Authorization")
        if self.house.kind.scheme == "basic":
            return self.house.name_of(shown)
        grant = self.house.grant(shown)
        return None if grant is None else grant[0]

    def _who(self) -> str:
        """Return what was shown, without any secret."""
        shown = self.headers.get("Authorization")
        if shown is None:
            return "nobody"
        if shown.startswith("Basic "):
            return f"basic {self.house.name_of(shown) or '?'}"
        grant = self.house.grant(shown)
        return "bearer ?" if grant is None else f"bearer {grant[0] or 'nobody'}"

    # --- answers

    def say(self, status: int, fields: Fields = (), code: str = "UNAUTHORIZED") -> None:
        """Answer with an OCI error, or an empty yes."""
        body = b"{}" if status < 300 else json.dumps({"errors": [{"code": code, "message": code}]}).encode()
        self.send(status, body, (("Content-Type", "application/json"), *fields))

    def send(self, status: int, body: bytes, fields: Fields, issued: str | None = None) -> None:
        """Print what was asked, then answer."""
        self._print(status, issued)
        if self.command == "HEAD":
            time.sleep(self.house.kind.head_delay_s)
        self.send_response(status)
        for name, value in fields:
            self.send_header(name, value)
        # Nobody has asked for it, and nobody may send it anywhere.
        self.send_header("Set-Cookie", f"session={secrets.token_hex(8)}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        for start in range(0, len(body), _PIECE_BYTES):
            self.wfile.write(body[start : start + _PIECE_BYTES])
            time.sleep(self.house.kind.pause_s)

    def _print(self, status: int, issued: str | None) -> None:
        seen = {
            "server": "tokens" if urlsplit(self.path).path == self.house.kind.realm else self.server.role,
            "method": self.command,
            "target": self.path,
            "host": self.headers.get("Host"),
            "who": self._who(),
            "status": status,
            "cookie": self.headers.get("Cookie"),
            "range": self.headers.get("Range"),
            "certificate": self._certificate(),
            "issued": issued,
        }
        self.house.say(seen)

    def _certificate(self) -> str | None:
        """Return the common name of the client's certificate."""
        found = self.request.getpeercert() if isinstance(self.request, ssl.SSLSocket) else None
        names: Any = found["subject"] if found else ()
        return next((value for ((kind, value),) in names if kind == "commonName"), None)

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing beside the lines of JSON."""
