"""A client that speaks TLS in memory, and the server's side of its connection."""

from __future__ import annotations

import ssl
from typing import Any

from attrs import define, field
from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import IProtocol, IProtocolFactory
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import StringTransport


class Line(StringTransport):
    """A transport that writes down how it ends."""

    half_closed = False
    aborted = False

    def __init__(self) -> None:
        super().__init__(peerAddress=IPv4Address("TCP", "192.0.2.7", 4711))

    def loseWriteConnection(self) -> None:
        """Nothing more will be written."""
        self.half_closed = True

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Nothing waits here."""

    def abortConnection(self) -> None:
        """End at once."""
        self.aborted = True


class Echo(Protocol):
    """Sends back what it gets."""

    def dataReceived(self, data: bytes) -> None:
        """Answer."""
        assert self.transport is not None
        self.transport.write(data)


class Echoes(Factory):
    """Makes them; quietly."""

    noisy = False
    protocol = Echo


@define(eq=False)
class Talk:
    """One connection: a client of the standard library at a server's factory.

    :ivar flush: lets the server write what it gathers until the reactor's next turn.
    """

    server: IProtocol
    flush: Any
    line: Line = field(factory=Line)
    _to_client: ssl.MemoryBIO = field(factory=ssl.MemoryBIO)
    _to_server: ssl.MemoryBIO = field(factory=ssl.MemoryBIO)
    client: Any = None

    @classmethod
    def begin(cls, factory: IProtocolFactory, flush: Any, context: ssl.SSLContext) -> Talk:
        """Connect, without a byte yet."""
        server = factory.buildProtocol(IPv4Address("TCP", "192.0.2.7", 4711))
        assert server is not None
        talk = cls(server, flush)
        talk.client = context.wrap_bio(talk._to_client, talk._to_server, server_hostname="cache.test")
        server.makeConnection(talk.line)
        return talk

    def pump(self) -> None:
        """Carry bytes until nobody has more."""
        while True:
            self.flush()
            there, back = self._to_server.read(), self.line.value()
            self.line.clear()
            if not there and not back:
                return
            if there:
                self.server.dataReceived(there)
            self._to_client.write(back)

    def shake_hands(self) -> None:
        """Do the handshake.

        :raises ssl.SSLError: the server refuses, or we do.
        """
        for _ in range(4):
            try:
                self.client.do_handshake()
                self.pump()
                return
            except ssl.SSLWantReadError:
                self.pump()
        raise AssertionError("no end of the handshake")

    def ask(self, text: bytes) -> bytes:
        """Send, and return what comes back.

        :raises ssl.SSLError: an alert came instead.
        """
        self.client.write(text)
        self.pump()
        return bytes(self.client.read(65536))

    def certificate(self) -> bytes:
        """Return what the server has shown (DER)."""
        return bytes(self.client.getpeercert(binary_form=True))


def trusting(authority: bytes, identity: tuple[str, str] | None = None, **more: object) -> ssl.SSLContext:
    """Return a client's TLS.

    :param authority: whom it believes (PEM).
    :param identity: files of its certificate and key.
    """
    context = ssl.create_default_context(cadata=authority.decode())
    for name, value in more.items():
        setattr(context, name, value)
    if identity is not None:
        context.load_cert_chain(*identity)
    return context
