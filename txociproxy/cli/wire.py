"""One connection of a command: over TCP or a Unix socket, with or without TLS, and over at a moment that is set."""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from attrs import define, field

from txociproxy.cli.places import Place
from txociproxy.cli.waiting import Deadline, WantsCertificate, WireError, resolve

READ_BYTES: Final = 256 * 1024


@define(eq=False)
class Wire(http.client.HTTPConnection):
    """A connection; a watch cuts it when its time is over, so that no server can hold it up byte by byte.

    :ivar _context: what TLS believes; None where none is spoken.
    """

    _place: Place
    _deadline: Deadline
    _context: ssl.SSLContext | None = None
    _watch: threading.Timer | None = field(default=None, init=False)
    _live: socket.socket | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        # The Host field is that of the place; a Unix socket has none.
        super().__init__(self._place.hosts[0] if self._place.hosts else "localhost", self._place.port or 80)
        self.default_port = 443 if self._place.tls else 80

    def connect(self) -> None:
        """Connect, to the first address that takes us.

        :raises WireError: none does.
        :raises OSError: as well.
        """
        self._unwatch()
        plain = self._connected()
        # A handshake keeps the time-out of its socket as a whole; requests would begin it anew with each byte.
        self.sock = self._live = plain if self._context is None else self._secured(plain, self._context)
        self._watch = threading.Timer(max(0.0, self._deadline.end_s - time.monotonic()), self._cut)
        self._watch.daemon = True
        self._watch.start()

    def end(self) -> None:
        """Let go of everything; may be called twice.

        ``close`` is called by http.client too, while the last body is still being read.
        """
        self._unwatch()
        self.close()

    def _unwatch(self) -> None:
        if self._watch is not None:
            self._watch.cancel()

    def _cut(self) -> None:
        """End the connection under whoever waits for it; the method of a TLS socket would do more than that."""
        try:
            if self._live is not None:
                socket.socket.shutdown(self._live, socket.SHUT_RDWR)
        except OSError:
            pass  # it is over already

    def _connected(self) -> socket.socket:
        if self._place.path is not None:
            return self._connected_to(socket.AF_UNIX, self._place.path)
        failures: list[str] = []
        for host in self._place.hosts:
            for family, address in resolve(host, self._place.port, self._deadline):
                try:
                    return self._connected_to(family, address)
                except OSError as error:
                    failures.append(error.strerror or "no answer in time")
        raise WireError(failures[0])

    def _connected_to(self, family: int, address: Any) -> socket.socket:
        made = socket.socket(family, socket.SOCK_STREAM)
        try:
            made.settimeout(self._deadline.left_s())
            made.connect(address)
        except BaseException:
            made.close()
            raise
        return made

    def _secured(self, plain: socket.socket, context: ssl.SSLContext) -> socket.socket:
        """Speak TLS.

        :raises WantsCertificate: the other side says so in the handshake (before TLS 1.3).
        """
        try:
            return context.wrap_socket(plain, server_hostname=self.host)
        except ssl.SSLCertVerificationError as error:
            plain.close()
            raise WireError(f"the certificate is not good: {error.verify_message}") from None
        except ssl.SSLError as error:
            plain.close()
            if self._place.wants_certificate and "ALERT" in (error.reason or ""):
                raise WantsCertificate("a client certificate is needed") from None
            raise
        except BaseException:
            plain.close()
            raise


@define(eq=False)
class Reply:
    """An answer whose body has not been read yet.

    :ivar fields: by lower-case name; several lines of one name are one value, with commas.
    :ivar read: gives the next piece of the body, empty at its end.
    """

    status: int
    fields: dict[str, str]
    read: Callable[[], bytes]

    def whole(self, limit_bytes: int) -> bytes:
        """Read a body that has to be small.

        :raises WireError: it is not, or it breaks off.
        """
        body = b""
        while piece := self.read():
            body += piece
            if len(body) > limit_bytes:
                raise WireError(f"more than {limit_bytes} bytes where little was expected")
        return body


def ask(wire: Wire, target: str, headers: dict[str, str], deadline: Deadline) -> Reply:
    """Send a GET and return the answer's head; the wire is for whoever called to end.

    :raises WireError: nothing came in time, or it is no HTTP.
    """
    try:
        wire.request("GET", target, headers=headers)
        response = wire.getresponse()
        deadline.left_s()  # what the watch has cut within the head looks like a head that is whole
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise WireError(_why(error, deadline)) from None
    fields: dict[str, str] = {}
    for name, value in response.getheaders():
        fields[name.lower()] = f"{fields[name.lower()]}, {value}" if name.lower() in fields else value

    def read() -> bytes:
        try:
            piece = response.read(READ_BYTES)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise WireError(_why(error, deadline)) from None
        # With a length said, Python gives what has come of a body that is cut, as if it were all.
        if not piece and response.length:
            raise WireError(_why(http.client.IncompleteRead(b"", response.length), deadline))
        if not piece:
            deadline.left_s()  # without one, the end is what the watch has made as well
        return piece

    return Reply(response.status, fields, read)


def _why(error: Exception, deadline: Deadline) -> str:
    """Say in one line why nothing more comes; what the watch has cut looks like many things."""
    if time.monotonic() >= deadline.end_s or isinstance(error, TimeoutError):
        return f"not within {deadline.wait_s:g} s"
    if isinstance(error, http.client.IncompleteRead):
        return "the answer broke off"
    if isinstance(error, http.client.RemoteDisconnected):
        return "closed without an answer"
    if isinstance(error, http.client.HTTPException):
        return "the answer is no HTTP"
    reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or type(error).__name__
    return str(reason)
