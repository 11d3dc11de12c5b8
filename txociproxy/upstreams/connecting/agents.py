"""The way to one upstream: guarded addresses, TLS, big reads, connections of its own (RULES F)."""

from __future__ import annotations

from typing import Any

from attrs import define, frozen
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.error import DNSLookupError
from twisted.internet.interfaces import (
    IOpenSSLClientConnectionCreator,
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    IStreamClientEndpoint,
)
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from twisted.web.client import URI, Agent
from twisted.web.iweb import IAgent, IAgentEndpointFactory, IPolicyForHTTPS
from zope.interface import implementer

from txociproxy.upstreams.connecting.connections import UpstreamPool
from txociproxy.upstreams.connecting.guard import Guard, GuardedReactor
from txociproxy.upstreams.connecting.proxies import OutboundProxies, Proxy
from txociproxy.upstreams.connecting.tunnels import Tunnel
from txociproxy.upstreams.entries.entry import Entry
from txociproxy.upstreams.origins import Origin

# Twisted reads 64 KiB at a time unless told; each chunk of a body passes through Python several times.
READ_BYTES = 2**18
# RFC 8305 §5: the shortest that is recommended between attempts.  The endpoint also waits this long before it
# believes that a refused last address was the last one, and a stale answer waits with it.
NEXT_ADDRESS_S = 0.1


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


@implementer(IStreamClientEndpoint)
@define(eq=False)
class _Judged:
    """An endpoint that is not even tried if the URL alone tells that it is forbidden."""

    _endpoint: IStreamClientEndpoint
    _guard: Guard
    _origin: Origin
    _reason: str | None

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Connect, or fail with an OCIError that says DENIED."""
        if self._reason is not None:
            return fail(self._guard.refusal(self._origin, self._reason))
        connecting: Deferred[IProtocol] = self._endpoint.connect(protocolFactory)
        return connecting


@implementer(IStreamClientEndpoint)
@define(eq=False)
class _TlsEndpoint:
    """TLS over another endpoint, by our own clock: Twisted's function for it takes none."""

    _endpoint: IStreamClientEndpoint
    _creator: IOpenSSLClientConnectionCreator
    _clock: IReactorTime

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Connect; the handshake goes on after that."""
        factory = TLSMemoryBIOFactory(self._creator, True, protocolFactory, self._clock)
        connecting: Deferred[Any] = self._endpoint.connect(factory)
        return connecting.addCallback(_unwrapped)


def _unwrapped(protocol: TLSMemoryBIOProtocol) -> IProtocol:
    wrapped: IProtocol = protocol.wrappedProtocol
    return wrapped


@implementer(IAgentEndpointFactory)
@define(eq=False)
class EndpointFactory:
    """Where the requests of one entry connect to."""

    _reactor: Any
    _entry: Entry
    _guard: Guard
    _trust: IPolicyForHTTPS
    _proxies: OutboundProxies

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        """Return TCP or TLS to this origin, guarded; through a proxy if there is one for it."""
        host = uri.host.decode("ascii")
        origin = Origin(uri.scheme.decode("ascii"), host.lower().removesuffix("."), uri.port)
        proxy = self._proxies.proxy_for(origin)
        endpoint: IStreamClientEndpoint
        if proxy is None:
            reason = self._guard.forbids(origin)
            endpoint = self._direct(host, origin)
        else:
            reason = self._guard.forbids(origin) or self._guard.literal_reason(origin)
            endpoint = self._through(proxy, origin)
        endpoint = _Judged(endpoint, self._guard, origin, reason)
        if origin.scheme == "http":
            return endpoint
        return _TlsEndpoint(endpoint, self._trust.creatorForNetloc(uri.host, uri.port), self._reactor)

    def _direct(self, host: str, origin: Origin) -> IStreamClientEndpoint:
        reactor = GuardedReactor(self._reactor, lambda address: self._guard.reason(origin, address))
        return _GuardedEndpoint(self._endpoint(reactor, host, origin.port), reactor, self._guard, origin)

    def _through(self, proxy: Proxy, origin: Origin) -> IStreamClientEndpoint:
        # The owner has named the proxy, so that its address is not judged.
        way = self._endpoint(self._reactor, proxy.host, proxy.port)
        return Tunnel(way, proxy, origin, self._reactor, self._entry.connect_timeout_s, READ_BYTES)

    def _endpoint(self, reactor: Any, host: str, port: int) -> HostnameEndpoint:
        return HostnameEndpoint(reactor, host, port, self._entry.connect_timeout_s, attemptDelay=NEXT_ADDRESS_S)


@frozen
class Line:
    """An agent with its own pool, and how to end it."""

    agent: IAgent
    pool: UpstreamPool | None = None

    def retire(self) -> None:
        """Close what is idle, now and later; what runs goes on."""
        if self.pool is not None:
            self.pool.retire()

    def stop(self) -> Deferred[None]:
        """End all its connections."""
        if self.pool is None:
            return succeed(None)
        return self.pool.stop()


def open_line(
    reactor: Any,
    entry: Entry,
    trust: IPolicyForHTTPS,
    proxies: OutboundProxies | None = None,
    pool: UpstreamPool | None = None,
) -> Line:
    """Return the way to one upstream; nothing is connected yet.

    :param reactor: IReactorTCP, IReactorTime and IReactorPluggableNameResolver.
    :param pool: that of others with the same trust and the same guard; None makes one.
    """
    pool = UpstreamPool(reactor, entry.max_connections) if pool is None else pool
    factory = EndpointFactory(reactor, entry, Guard(entry), trust, proxies or OutboundProxies())
    return Line(Agent.usingEndpointFactory(reactor, factory, pool), pool)
