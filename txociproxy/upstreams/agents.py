"""Connections to one upstream: TLS, big reads, long header fields, a pool that can be closed (RULES A3, F).

This is the one module of the room that leans on private parts of ``twisted.web``; each place says which and why.
Twisted leaves much of that untyped, hence the ignores.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, cast

from attrs import define, field, frozen
from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.error import DNSLookupError
from twisted.internet.interfaces import (
    IAddress,
    IOpenSSLClientConnectionCreator,
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web._newclient import (  # private: the pool makes its protocols from here, and offers no other hook
    BODY,
    DONE,
    HTTP11ClientProtocol,
    ParseError,
    Request,
    TransportProxyProducer,
)
from twisted.web.client import URI, Agent, BrowserLikePolicyForHTTPS, HTTPConnectionPool
from twisted.web.client import _HTTP11ClientFactory as HTTP11ClientFactory
from twisted.web.iweb import IAgent, IAgentEndpointFactory, IPolicyForHTTPS, IResponse
from zope.interface import implementer

from txociproxy.upstreams.entry import Entry
from txociproxy.upstreams.guard import Guard, GuardedReactor
from txociproxy.upstreams.origins import Origin

# RULES A3, the same reach as at the door.  Signed Locations pass Twisted's 16 KiB.
MAX_HEADER_LINE_BYTES = 128 * 1024
# Counted in whole reads, so that the last one may go over it.
MAX_HEADER_BYTES = 256 * 1024
# Measured: reads of 64 KiB cost a third more per GiB.
READ_BYTES = 2**18
# Shorter than most servers keep an idle connection, else the next request meets a closed one.
IDLE_CONNECTION_S = 45
# RFC 8305 §5: the shortest that is recommended between attempts.  The endpoint also waits this long before it
# believes that a refused last address was the last one, and a stale answer waits with it.
NEXT_ADDRESS_S = 0.1
# Contexts are made once per host: reading the system's trust for every connection costs milliseconds each.
MAX_TLS_HOSTS = 256


class _HangUp(TransportProxyProducer):
    """What a body protocol gets as its transport: closing it ends the connection at once.

    ``loseConnection`` under TLS waits for the peer, which may go on sending a body that nobody wants.
    """

    def loseConnection(self) -> None:
        """Abort."""
        if self._producer is not None:
            self._producer.abortConnection()


class UpstreamProtocol(HTTP11ClientProtocol):
    """A connection that takes long header fields, and is known to its pool as long as it is open."""

    def __init__(self, quiescentCallback: Any, pool: UpstreamPool) -> None:
        super().__init__(quiescentCallback)  # type: ignore[no-untyped-call]
        self._pool = pool
        self._head_bytes = 0

    def connectionMade(self) -> None:
        """Be known to the pool."""
        super().connectionMade()
        self._pool.opened(self)

    def request(self, request: Request) -> Deferred[IResponse]:
        """Send a request, and let its answer have long header fields."""
        self._head_bytes = 0
        answer = super().request(request)
        # The class of the parser is a module's global in Twisted, so limits are set on the object.
        if self._parser is not None:
            transport: Any = _HangUp(self.transport)  # type: ignore[no-untyped-call]
            self._parser.MAX_LENGTH = MAX_HEADER_LINE_BYTES
            self._parser.transport = self._transportProxy = transport
        return answer

    def dataReceived(self, bytes: bytes) -> None:
        """Count until the header section is over: Twisted bounds a line, but not their number."""
        super().dataReceived(bytes)  # type: ignore[no-untyped-call]
        if self._parser is not None and self._parser.state not in (BODY, DONE):
            self._head_bytes += len(bytes)
            if self._head_bytes > MAX_HEADER_BYTES:
                self._giveUp(Failure(ParseError("more header fields than anybody needs", b"")))  # type: ignore[no-untyped-call]

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Be forgotten by the pool."""
        super().connectionLost(reason)  # type: ignore[no-untyped-call]
        self._pool.closed(self)


class _ProtocolFactory(HTTP11ClientFactory):
    """Makes :class:`UpstreamProtocol` for one pool."""

    def __init__(self, quiescentCallback: Any, metadata: str, pool: UpstreamPool) -> None:
        super().__init__(quiescentCallback, metadata)  # type: ignore[no-untyped-call]
        self._pool = pool

    def buildProtocol(self, addr: IAddress | None) -> UpstreamProtocol:
        """Make a protocol for a new connection."""
        return UpstreamProtocol(self._quiescentCallback, self._pool)


class UpstreamPool(HTTPConnectionPool):
    """The connections of one entry: idle ones to be used again, and all that are open."""

    def __init__(self, reactor: Any, max_idle: int) -> None:
        super().__init__(reactor, persistent=True)  # type: ignore[no-untyped-call]
        self.maxPersistentPerHost = max_idle
        self.cachedConnectionTimeout = IDLE_CONNECTION_S
        self.open: set[UpstreamProtocol] = set()
        self._leaving: list[Deferred[None]] = []
        self._stopped = False

    # Private in Twisted: a class attribute that is called with exactly these two.
    def _factory(self, quiescentCallback: Any, metadata: str) -> _ProtocolFactory:  # type: ignore[override]
        return _ProtocolFactory(quiescentCallback, metadata, self)

    def opened(self, connection: UpstreamProtocol) -> None:
        """Know a new connection; one that was on its way when all was stopped is ended."""
        self.open.add(connection)
        if self._stopped:
            cast(Any, connection.transport).abortConnection()

    def closed(self, connection: UpstreamProtocol) -> None:
        """Forget a connection that has ended."""
        self.open.discard(connection)
        if not self.open:
            leaving, self._leaving = self._leaving, []
            for deferred in leaving:
                deferred.callback(None)

    def stop(self) -> Deferred[None]:
        """End all connections, running bodies included; fires when none is open."""
        gone: Deferred[None] = Deferred()
        self._stopped = True
        self._leaving.append(gone)
        self.closeCachedConnections()  # type: ignore[no-untyped-call]
        for connection in tuple(self.open):
            cast(Any, connection.transport).abortConnection()
        if not self.open and not gone.called:
            self._leaving.remove(gone)
            gone.callback(None)
        return gone


@implementer(IStreamClientEndpoint)
@define(eq=False)
class _GuardedEndpoint:
    """TCP to an origin, if the guard lets it; reads are big."""

    _endpoint: HostnameEndpoint
    _reactor: GuardedReactor
    _guard: Guard
    _origin: Origin

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Connect; a refusal of the guard is an OCIError that says DENIED."""
        self._reactor.forbidden = None
        return self._endpoint.connect(protocolFactory).addCallbacks(self._connected, self._failed)

    def _connected(self, protocol: IProtocol) -> IProtocol:
        # The innermost transport, also under TLS, which wraps from outside.  Nothing has been read yet.
        transport: Any = getattr(protocol, "transport", None)
        if transport is not None:
            transport.bufferSize = READ_BYTES
        return protocol

    def _failed(self, failure: Failure) -> Failure:
        # When all addresses were hidden, the endpoint reports that there were none.
        if self._reactor.forbidden is not None and failure.check(DNSLookupError) is not None:
            return Failure(self._guard.refusal(self._origin, self._reactor.forbidden))
        return failure


@implementer(IPolicyForHTTPS)
@define(eq=False)
class SystemTrust:
    """TLS by the system's trust, with one context per host."""

    _policy: IPolicyForHTTPS = field(factory=BrowserLikePolicyForHTTPS)
    _creators: OrderedDict[bytes, IOpenSSLClientConnectionCreator] = field(init=False, factory=OrderedDict)

    def creatorForNetloc(self, hostname: bytes, port: int) -> IOpenSSLClientConnectionCreator:
        """Return what makes TLS connections to this host."""
        creator = self._creators.pop(hostname, None)
        if creator is None:
            creator = self._policy.creatorForNetloc(hostname, port)
        self._creators[hostname] = creator
        if len(self._creators) > MAX_TLS_HOSTS:
            self._creators.popitem(last=False)
        return creator


@implementer(IAgentEndpointFactory)
@define(eq=False)
class EndpointFactory:
    """Where the requests of one entry connect to."""

    _reactor: Any
    _entry: Entry
    _guard: Guard
    _trust: IPolicyForHTTPS

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        """Return TCP or TLS to this origin, guarded."""
        host = uri.host.decode("ascii")
        origin = Origin(uri.scheme.decode("ascii"), host.lower().removesuffix("."), uri.port)
        reactor = GuardedReactor(self._reactor, lambda address: self._guard.reason(origin, address))
        timeout_s = self._entry.connect_timeout_s
        inner = HostnameEndpoint(reactor, host, uri.port, timeout_s, attemptDelay=NEXT_ADDRESS_S)
        endpoint = _GuardedEndpoint(inner, reactor, self._guard, origin)
        if origin.scheme == "http":
            return endpoint
        tls: IStreamClientEndpoint = wrapClientTLS(self._trust.creatorForNetloc(uri.host, uri.port), endpoint)
        return tls


@frozen
class Line:
    """An agent with its own pool, and how to end it."""

    agent: IAgent
    pool: UpstreamPool | None = None

    def stop(self) -> Deferred[None]:
        """End all its connections."""
        if self.pool is None:
            return succeed(None)
        return self.pool.stop()


def open_line(reactor: Any, entry: Entry, trust: IPolicyForHTTPS) -> Line:
    """Return the way to one upstream; nothing is connected yet.

    :param reactor: IReactorTCP, IReactorTime and IReactorPluggableNameResolver.
    """
    pool = UpstreamPool(reactor, entry.max_connections)
    factory = EndpointFactory(reactor, entry, Guard(entry), trust)
    return Line(Agent.usingEndpointFactory(reactor, factory, pool), pool)
