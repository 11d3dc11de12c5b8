"""A reactor in memory with names, addresses and servers: every attempt to connect is listed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from ipaddress import ip_address
from socket import inet_aton, inet_ntoa
from typing import Any

from attrs import define, field
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost, ConnectionRefusedError
from twisted.internet.interfaces import (
    IAddress,
    IConnector,
    IHostnameResolver,
    IHostResolution,
    IProtocol,
    IProtocolFactory,
    IResolutionReceiver,
)
from twisted.internet.protocol import ClientFactory, Factory, Protocol
from twisted.internet.ssl import CertificateOptions
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from zope.interface import implementer

Handler = Callable[["Seen"], bytes]


@implementer(IHostnameResolver, IHostResolution)
@define(eq=False)
class Names:
    """A resolver that knows what the test says: each look-up takes the next answer, the last one stays."""

    known: dict[str, list[list[str]]]
    asked: list[str] = field(factory=list)
    name = ""

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Sequence[type[IAddress]] | None = None,
        transportSemantics: str = "TCP",
    ) -> IHostResolution:
        """Resolve at once; literals are their own address, in every form that the C library takes."""
        self.asked.append(hostName)
        resolutionReceiver.resolutionBegan(self)
        answers = self.known.get(hostName) or [_literal(hostName)]
        for address in answers.pop(0) if len(answers) > 1 else answers[0]:
            kind = IPv6Address if ":" in address else IPv4Address
            resolutionReceiver.addressResolved(kind("TCP", address, portNumber))
        resolutionReceiver.resolutionComplete()
        return self

    def cancel(self) -> None:
        """It is over already."""


def _literal(host: str) -> list[str]:
    """Return the address that a host is, if it is one."""
    try:
        return [str(ip_address(host))]
    except ValueError:
        pass
    try:
        return [inet_ntoa(inet_aton(host))]
    except OSError:
        return []


class Pipe(StringTransport):
    """One end of a connection; what is written arrives at the other in the next turn."""

    bufferSize = 2**16
    protocol: IProtocol
    other: Pipe

    def __init__(self, reactor: Sockets, address: IAddress) -> None:
        super().__init__(peerAddress=address)
        self.reactor = reactor
        self.is_open = True

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Nothing is delayed here."""

    def write(self, data: bytes) -> None:
        """Send."""
        if self.is_open:
            self.reactor.callLater(0, self.other.arrive, bytes(data))

    def writeSequence(self, data: Iterable[bytes]) -> None:
        """Send, in one piece."""
        self.write(b"".join(data))

    def arrive(self, data: bytes) -> None:
        """Receive."""
        if self.is_open:
            self.protocol.dataReceived(data)

    def loseConnection(self) -> None:
        """End both ends after what was written."""
        self.reactor.callLater(0, self.end, ConnectionDone())
        self.reactor.callLater(0, self.other.end, ConnectionDone())

    def abortConnection(self) -> None:
        """End both ends."""
        self.reactor.callLater(0, self.end, ConnectionLost())
        self.reactor.callLater(0, self.other.end, ConnectionLost())

    def end(self, reason: Exception) -> None:
        """Tell the protocol, once."""
        if self.is_open:
            self.is_open = False
            self.reactor.pipes.discard(self)
            self.protocol.connectionLost(Failure(reason))


class Sockets(MemoryReactorClock):
    """A reactor whose connections lead to servers in memory.

    :ivar attempts: every address that was connected to.
    :ivar servers: who listens where; anywhere else connections are refused.
    :ivar silent: addresses at which nothing happens, not even a refusal.
    :ivar pipes: client ends that are open.
    """

    def __init__(self, names: dict[str, list[list[str]]] | None = None) -> None:
        super().__init__()
        self.attempts: list[tuple[str, int]] = []
        self.servers: dict[tuple[str, int], IProtocolFactory] = {}
        self.pipes: set[Pipe] = set()
        self.silent: set[tuple[str, int]] = set()
        self.names = Names(names or {})
        self.installNameResolver(self.names)

    def connectTCP(
        self,
        host: str,
        port: int,
        factory: ClientFactory[Any],
        timeout: float = 30,
        bindAddress: tuple[str, int] | None = None,
    ) -> IConnector:
        """Connect in the next turn."""
        self.attempts.append((host, port))
        connector: IConnector = super().connectTCP(host, port, factory, timeout, bindAddress)
        self.callLater(0, self._connected, connector, factory, (host, port))
        return connector

    def _connected(self, connector: IConnector, factory: ClientFactory[Any], place: tuple[str, int]) -> None:
        if place in self.silent:
            return
        server = self.servers.get(place)
        if server is None:
            factory.clientConnectionFailed(connector, Failure(ConnectionRefusedError()))
            return
        address = IPv4Address("TCP", *place)
        here, there = Pipe(self, address), Pipe(self, address)
        here.other, there.other = there, here
        for pipe, maker in ((there, server), (here, factory)):
            protocol = maker.buildProtocol(address)
            assert protocol is not None
            pipe.protocol = protocol
        self.pipes.add(here)
        there.protocol.makeConnection(there)
        here.protocol.makeConnection(here)

    def rest(self, turns: int = 200) -> None:
        """Let everything happen that needs no time."""
        for _ in range(turns):
            if not any(call.getTime() <= self.seconds() for call in self.getDelayedCalls()):
                return
            self.advance(0)
        raise AssertionError("it does not come to rest")


@define(eq=False)
class Seen:
    """What a server saw of one request.

    :ivar line: ``GET /path``.
    :ivar server_name: SNI, or None.
    :ivar client: the name in the client's certificate, or None.
    """

    line: str
    fields: dict[str, str]
    server_name: str | None = None
    client: str | None = None


class _Speaker(Protocol):
    """Answers one request after the other."""

    server: WebServer

    def __init__(self) -> None:
        self._data = b""

    def dataReceived(self, data: bytes) -> None:
        """Wait for whole heads; requests have no bodies here."""
        self._data += data
        while b"\r\n\r\n" in self._data:
            head, _, self._data = self._data.partition(b"\r\n\r\n")
            line, *lines = head.decode("latin-1").split("\r\n")
            fields = {name.lower(): value.strip() for name, _, value in (text.partition(":") for text in lines)}
            seen = Seen(line.rpartition(" ")[0], fields, *self._handshake())
            self.server.seen.append(seen)
            assert self.transport is not None
            self.transport.write(self.server.handler(seen))

    def _handshake(self) -> tuple[str | None, str | None]:
        transport: Any = self.transport
        if not hasattr(transport, "getHandle"):
            return None, None
        handle, certificate = transport.getHandle(), transport.getPeerCertificate()
        name = handle.get_servername()
        client = None if certificate is None else certificate.to_cryptography().subject.rfc4514_string()
        return None if name is None else name.decode(), client


@define(eq=False)
class WebServer:
    """A server that answers by a function, and lists the requests that it saw."""

    handler: Handler
    seen: list[Seen] = field(factory=list)

    def plain(self) -> IProtocolFactory:
        """Speak HTTP."""
        return quiet(type("Speaker", (_Speaker,), {"server": self}))

    def over_tls(self, options: CertificateOptions, clock: Clock) -> IProtocolFactory:
        """Speak HTTP over TLS."""
        return TLSMemoryBIOFactory(options, False, self.plain(), clock)


def quiet(protocol: type[Protocol]) -> IProtocolFactory:
    """Return what makes these protocols and says nothing in the log."""
    factory: Any = Factory()
    factory.protocol, factory.noisy = protocol, False
    made: IProtocolFactory = factory
    return made


def reply(code: int, body: bytes = b"", /, **fields: str) -> bytes:
    """Return an answer as it goes over the wire; ``www_authenticate="..."`` becomes a header field."""
    named = {"content-length": str(len(body)), **{name.replace("_", "-"): value for name, value in fields.items()}}
    head = "".join(f"{name}: {value}\r\n" for name, value in named.items())
    return f"HTTP/1.1 {code} X\r\n{head}\r\n".encode("latin-1") + body


def settled(reactor: Sockets, awaited: Any) -> Deferred[Any]:
    """Begin a coroutine, and let everything happen that needs no time."""
    deferred: Deferred[Any] = Deferred.fromCoroutine(awaited)
    reactor.rest()
    return deferred
