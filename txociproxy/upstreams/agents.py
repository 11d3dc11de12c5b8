"""The way to one upstream: guarded addresses, TLS, big reads, connections of its own (RULES F)."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from attrs import define, field, frozen
from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.error import DNSLookupError
from twisted.internet.interfaces import (
    IOpenSSLClientConnectionCreator,
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
)
from twisted.python.failure import Failure
from twisted.web.client import URI, Agent, BrowserLikePolicyForHTTPS
from twisted.web.iweb import IAgent, IAgentEndpointFactory, IPolicyForHTTPS
from zope.interface import implementer

from txociproxy.upstreams.connections import UpstreamPool
from txociproxy.upstreams.entry import Entry
from txociproxy.upstreams.guard import Guard, GuardedReactor
from txociproxy.upstreams.origins import Origin

# Twisted reads 64 KiB at a time unless told; each chunk of a body passes through Python several times.
READ_BYTES = 2**18
# RFC 8305 §5: the shortest that is recommended between attempts.  The endpoint also waits this long before it
# believes that a refused last address was the last one, and a stale answer waits with it.
NEXT_ADDRESS_S = 0.1
# Contexts are made once per host: a connection that must make its own (measured) waits 3 ms for it, on the reactor.
MAX_TLS_HOSTS = 256


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
