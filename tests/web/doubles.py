"""Connections in memory for the tests of this room."""

from __future__ import annotations

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IAddress, ITCPTransport
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import Request
from zope.interface import implementer

from txociproxy.web.channel import Channel
from txociproxy.web.site import Census, DoorLimits, DoorSite


@implementer(ITCPTransport)
class Wire(StringTransport):  # type: ignore[misc]
    """A TCP connection in memory that remembers how it was closed."""

    half_closed = False

    def loseWriteConnection(self) -> None:
        """Half close."""
        self.half_closed = True

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Nothing waits here."""


class Echo(Resource):
    """Answers every request with its method and target, and remembers them."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[bytes, bytes]] = []
        self.bodies: list[bytes] = []

    def render(self, request: Request) -> bytes:
        """Answer at once."""
        self.seen.append((request.method, request.uri))
        assert request.content is not None
        self.bodies.append(request.content.read())
        return b"ok"


class Line:
    """One client's connection to a site in memory."""

    def __init__(self, limits: DoorLimits | None = None, site: DoorSite | None = None) -> None:
        self.clock = Clock()
        self.root = Echo()
        self.site = site or DoorSite(self.root, self.clock, Census(limits or DoorLimits()))
        self.wire = Wire(peerAddress=IPv4Address("TCP", "192.0.2.1", 5000))
        channel = self.site.buildProtocol(self.wire.getPeer())
        assert isinstance(channel, Channel)
        self.channel = channel
        self.channel.makeConnection(self.wire)

    def send(self, data: bytes) -> bytes:
        """Send bytes in one piece and return all that was answered so far."""
        self.channel.dataReceived(data)
        return bytes(self.wire.value())

    def hang_up(self) -> None:
        """The client closes."""
        self.channel.connectionLost(Failure(ConnectionDone()))

    @property
    def status(self) -> int:
        """The status of the first answer."""
        return int(self.wire.value().split(b" ", 2)[1])


def client(host: str) -> IAddress:
    """Return a client's address."""
    return IPv4Address("TCP", host, 5000)
