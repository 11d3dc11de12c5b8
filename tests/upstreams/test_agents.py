"""Connections, byte by byte over a reactor in memory (RULES A3, F)."""

from __future__ import annotations

from collections.abc import Sequence

from OpenSSL import SSL
from twisted.internet.address import IPv4Address
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IAddress,
    IHostnameResolver,
    IHostResolution,
    IOpenSSLClientConnectionCreator,
    IResolutionReceiver,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import ResponseDone, ResponseFailed
from twisted.web.iweb import IPolicyForHTTPS, IResponse
from zope.interface import implementer

from txociproxy.collect import collect, discard
from txociproxy.oci.errors import OCIError, UpstreamUnreachable
from txociproxy.upstreams.connecting.agents import READ_BYTES, open_line
from txociproxy.upstreams.connecting.connections import CLOSING_S, IDLE_CONNECTION_S
from txociproxy.upstreams.connecting.telling import Telling
from txociproxy.upstreams.connecting.trust import SystemTrust
from txociproxy.upstreams.connecting.wire import Budget, Outgoing, Slots, Wire
from txociproxy.upstreams.entries.entry import Entry


@implementer(IHostnameResolver, IHostResolution)
class Names:
    """A resolver that knows what the test says."""

    name = ""

    def __init__(self, known: dict[str, list[str]]) -> None:
        self.known = known

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Sequence[type[IAddress]] | None = None,
        transportSemantics: str = "TCP",
    ) -> IHostResolution:
        """Resolve at once, or never."""
        resolutionReceiver.resolutionBegan(self)
        if hostName == "slow":
            return self
        for address in self.known.get(hostName, []):
            resolutionReceiver.addressResolved(IPv4Address("TCP", address, portNumber))
        resolutionReceiver.resolutionComplete()
        return self

    def cancel(self) -> None:
        """It is over already."""


class Transport(StringTransport):
    """A transport whose end reaches its protocol in the next turn, as that of a socket does."""

    protocol: Protocol
    clock: Clock
    bufferSize = 2**16

    def loseConnection(self) -> None:
        """End soon; aborting does the same."""
        if not self.disconnecting:
            self.clock.callLater(0, self.protocol.connectionLost, Failure(ConnectionDone()))
        super().loseConnection()


class Stubborn(Transport):
    """A transport whose peer does not let go of it."""

    def loseConnection(self) -> None:
        """Wait for the peer."""
        self.disconnecting = True

    def abortConnection(self) -> None:
        """End without the peer."""
        self.clock.callLater(0, self.protocol.connectionLost, Failure(ConnectionDone()))


class Body(Protocol):
    """Collects what comes, and how it ends."""

    def __init__(self) -> None:
        self.data = b""
        self.reason: Failure | None = None

    def dataReceived(self, data: bytes) -> None:
        """Take it."""
        self.data += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Note why."""
        self.reason = reason


class ConnectionTests(SynchronousTestCase):
    """One entry, its connections played by the test."""

    def setUp(self) -> None:
        """Nothing is connected."""
        self.reactor = MemoryReactorClock()
        self.reactor.installNameResolver(
            Names({"reg": ["1.1.1.1"], "cdn": ["10.0.0.1"], "two": ["10.0.0.1", "8.8.8.8"]})
        )
        self.entry = Entry("reg", ("http://reg:5000",))
        self.line = open_line(self.reactor, self.entry, SystemTrust(NoTrust()))
        assert self.line.pool is not None
        self.pool = self.line.pool
        self.wire = Wire(self.line.agent, self.reactor, "tests/1", Slots.of(4), Telling("reg"))

    def send(self, url: str = "http://reg:5000/v2/") -> Deferred[IResponse]:
        """GET a URL."""
        return Deferred.fromCoroutine(self.wire.send(Outgoing("GET", url, bulk=True), Budget(10)))

    def connect(self, transport: Transport | None = None) -> Transport:
        """Let the last attempt to connect succeed."""
        host, port, factory, *_ = self.reactor.tcpClients[-1]
        transport = transport or Transport()
        transport.clock = self.reactor
        protocol = factory.buildProtocol(IPv4Address("TCP", host, port))
        assert isinstance(protocol, Protocol)
        transport.protocol = protocol
        protocol.makeConnection(transport)
        return transport

    def answered(self, head: bytes) -> Deferred[IResponse]:
        """Send, connect if there is no idle connection, and answer with these bytes."""
        attempts = len(self.reactor.tcpClients)
        sent = self.send()
        if len(self.reactor.tcpClients) > attempts:
            self.transport = self.connect()
        self.transport.protocol.dataReceived(head)
        return sent

    def test_a_connection_reads_in_big_pieces_and_is_used_again(self) -> None:
        """One connect for two requests."""
        whole = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
        first = self.successResultOf(self.answered(whole))
        self.assertEqual(self.transport.bufferSize, READ_BYTES)
        self.assertEqual(self.successResultOf(collect(first, 9, self.reactor, 5)), b"ok")
        self.transport.clear()
        second = self.send()
        self.transport.protocol.dataReceived(whole)
        self.assertEqual(self.successResultOf(second).code, 200)
        self.assertTrue(self.transport.value().startswith(b"GET /v2/ HTTP/1.1\r\n"))
        self.assertIn(b"Host: reg:5000\r\n", self.transport.value())
        self.assertEqual([client[:2] for client in self.reactor.tcpClients], [("1.1.1.1", 5000)])

    def test_long_header_fields_pass_and_longer_ones_end_it(self) -> None:
        """A3: 128 KiB a line, 256 KiB in all, with interim answers counted."""
        long = b"HTTP/1.1 307 x\r\nContent-Length: 0\r\nLocation: /%s\r\n\r\n"
        found = self.successResultOf(self.answered(long % (b"x" * 120_000)))
        self.assertEqual(len(found.headers.getRawHeaders(b"location", [b""])[0]), 120_001)
        sent = self.answered(long % (b"x" * 140_000))
        self.reactor.advance(0)
        self.failureResultOf(sent, UpstreamUnreachable)
        sent = self.answered(b"HTTP/1.1 200 OK\r\n")
        for number in range(300):
            if not self.transport.disconnecting:
                self.transport.protocol.dataReceived(b"X-%d: %s\r\n" % (number, b"x" * 1000))
        self.reactor.advance(0)
        self.failureResultOf(sent, UpstreamUnreachable)
        sent = self.answered(b"")
        for _ in range(6000):
            if not self.transport.disconnecting:
                self.transport.protocol.dataReceived(b"HTTP/1.1 103 Early Hints\r\nLink: <x>; rel=preload\r\n\r\n")
        self.reactor.advance(0)
        self.failureResultOf(sent, UpstreamUnreachable)

    def test_discarding_a_body_ends_its_connection_at_once(self) -> None:
        """Not by waiting for the peer to agree."""
        response = self.successResultOf(self.answered(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nok"))
        discard(response)
        self.assertTrue(self.transport.disconnected)
        self.reactor.advance(0)
        self.assertEqual(len(self.pool.open), 0)

    def test_a_body_that_is_cut_says_so(self) -> None:
        """With what came."""
        response = self.successResultOf(self.answered(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok"))
        body = Body()
        response.deliverBody(body)
        self.transport.loseConnection()
        self.reactor.advance(0)
        assert body.reason is not None
        self.assertEqual((body.data, body.reason.check(ResponseFailed, ResponseDone)), (b"ok", ResponseFailed))

    def test_stopping_ends_idle_running_and_coming_connections(self) -> None:
        """And fires when none is open."""
        running = self.successResultOf(self.answered(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok"))
        body, transports = Body(), [self.transport]
        running.deliverBody(body)
        self.successResultOf(self.answered(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"))
        transports.append(self.transport)
        self.pool.getConnection((b"http", b"x", 80), HostnameEndpoint(self.reactor, "reg", 80))
        stopped = self.line.stop()
        self.assertNoResult(stopped)
        self.reactor.advance(0)
        self.successResultOf(stopped)
        self.assertEqual([transport.disconnecting for transport in transports], [True, True])
        self.assertIsNotNone(body.reason)
        self.assertTrue(self.connect().disconnecting)
        self.reactor.advance(0)
        self.assertEqual(len(self.pool.open), 0)

    def test_a_forbidden_hop_is_refused_and_not_connected_to(self) -> None:
        """403 with the remedy; a name that has a permitted address too is reached there."""
        error = self.failureResultOf(self.send("http://cdn/x"), OCIError).value
        self.assertEqual(error.code, "DENIED")
        self.assertIn("http://cdn", error.message)
        self.assertEqual(self.reactor.tcpClients, [])
        self.send("http://two/x").addErrback(lambda _: None)
        self.assertEqual([client[0] for client in self.reactor.tcpClients], ["8.8.8.8"])

    def test_who_leaves_before_there_is_a_connection_accuses_nobody(self) -> None:
        """Neither while a name is looked up nor while a connection is made."""
        for url in ("http://reg:5000/v2/", "http://slow/"):
            sent = self.send(url)
            sent.cancel()
            self.failureResultOf(sent, CancelledError)

    def test_a_peer_that_does_not_agree_to_the_end_is_not_waited_for(self) -> None:
        """Under TLS a close waits for the peer's own; a connection without a request would stay for ever."""
        for answer in (b"nonsense\r\n", b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"):
            sent = self.send()
            transport = self.connect(Stubborn())
            transport.protocol.dataReceived(answer)
            sent.addErrback(lambda failure: failure.trap(UpstreamUnreachable))
            self.successResultOf(sent)
            self.assertEqual((transport.disconnecting, len(self.pool.open)), (True, 1))
            self.reactor.advance(CLOSING_S)
            self.reactor.advance(0)
            self.assertEqual(len(self.pool.open), 0)

    def test_an_idle_connection_ends_with_or_without_its_peer(self) -> None:
        """Also one that could have been used again."""
        sent = self.send()
        transport = self.connect(Stubborn())
        transport.protocol.dataReceived(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        self.successResultOf(sent)
        self.reactor.advance(IDLE_CONNECTION_S)
        self.assertEqual((transport.disconnecting, len(self.pool.open)), (True, 1))
        self.reactor.advance(CLOSING_S)
        self.reactor.advance(0)
        self.assertEqual(len(self.pool.open), 0)

    def test_a_name_without_address_is_an_outage(self) -> None:
        """Not a refusal."""
        self.assertIn("no address", str(self.failureResultOf(self.send("http://nowhere/x"), UpstreamUnreachable).value))

    def test_contexts_are_made_once_per_host(self) -> None:
        """Reading the system's trust is not cheap; the table of hosts is bounded."""
        policy = NoTrust()
        trust = SystemTrust(policy)
        for host in (b"a", b"b", b"a", *(b"%d" % number for number in range(300)), b"a"):
            trust.creatorForNetloc(host, 443)
        self.assertEqual((policy.made[:2], policy.made.count(b"a"), len(policy.made)), ([b"a", b"b"], 2, 303))


@implementer(IOpenSSLClientConnectionCreator)
class NoConnections:
    """Makes no TLS."""

    def clientConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """There is none."""
        raise NotImplementedError


@implementer(IPolicyForHTTPS)
class NoTrust:
    """A policy that lists whom it was asked for."""

    def __init__(self) -> None:
        self.made: list[bytes] = []

    def creatorForNetloc(self, hostname: bytes, port: int) -> IOpenSSLClientConnectionCreator:
        """Make one for a host."""
        self.made.append(hostname)
        return NoConnections()
