"""Open connections to one upstream: long header fields, bodies that close at once, a pool that can stop (RULES A3).

This room leans on private parts of ``twisted.web`` here and in ``failures``; each place says which and why.
Twisted leaves much of that untyped, hence the ignores.
"""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime
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
from twisted.web.client import HTTPConnectionPool
from twisted.web.client import _HTTP11ClientFactory as HTTP11ClientFactory
from twisted.web.iweb import IResponse

# RULES A3, the same reach as at the door.  Signed Locations pass Twisted's 16 KiB.
MAX_HEADER_LINE_BYTES = 128 * 1024
# Counted in whole reads, so that the last one may go over it.
MAX_HEADER_BYTES = 256 * 1024
# Shorter than most servers keep an idle connection, else the next request meets a closed one.
IDLE_CONNECTION_S = 45
CLOSING_S = 5.0


class _HangUp(TransportProxyProducer):
    """What a body protocol gets as its transport: closing it ends the connection at once.

    ``loseConnection`` under TLS waits for the peer, which may go on sending a body that nobody wants.
    """

    def loseConnection(self) -> None:
        """Abort; nothing that comes after reaches the connection."""
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.abortConnection()


class UpstreamProtocol(HTTP11ClientProtocol):
    """A connection that takes long header fields, and is known to its pool as long as it is open."""

    def __init__(self, quiescentCallback: Any, pool: UpstreamPool) -> None:
        super().__init__(quiescentCallback)  # type: ignore[no-untyped-call]
        self._pool = pool
        self._head_bytes = 0
        self._abort: IDelayedCall | None = None

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
                self._giveUp(Failure(ParseError("more header fields than anybody needs", b"")))

    def _giveUp(self, reason: Failure) -> None:
        """Close; under TLS Twisted waits for a peer that need not answer, and here not for long."""
        super()._giveUp(reason)  # type: ignore[no-untyped-call]
        self.end_soon()

    def end_soon(self) -> None:
        """Abort a connection that is being closed, if its peer does not let go of it."""
        if self in self._pool.open and self._abort is None:
            self._abort = self._pool.clock.callLater(CLOSING_S, cast(Any, self.transport).abortConnection)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Be forgotten by the pool."""
        super().connectionLost(reason)  # type: ignore[no-untyped-call]
        if self._abort is not None and self._abort.active():
            self._abort.cancel()
        self._pool.closed(self)


class _ProtocolFactory(HTTP11ClientFactory):
    """Makes :class:`UpstreamProtocol` for one pool."""

    noisy = False  # connections come and go; the pulls are what is told

    def __init__(self, quiescentCallback: Any, metadata: str, pool: UpstreamPool) -> None:
        super().__init__(quiescentCallback, metadata)  # type: ignore[no-untyped-call]
        self._pool = pool

    def buildProtocol(self, addr: IAddress | None) -> UpstreamProtocol:
        """Make a protocol for a new connection."""
        return UpstreamProtocol(self._quiescentCallback, self._pool)


class UpstreamPool(HTTPConnectionPool):
    """The connections of one entry, or of all that are not listed: idle ones to be used again, and all that are open.

    :param max_idle: in all, not per host: redirects lead to many.
    """

    def __init__(self, reactor: Any, max_idle: int) -> None:
        super().__init__(reactor, persistent=True)  # type: ignore[no-untyped-call]
        self.maxPersistentPerHost = max_idle + 1  # Twisted's own cap waits for the peer to let go
        self.cachedConnectionTimeout = IDLE_CONNECTION_S
        self.clock: IReactorTime = reactor
        self.open: set[UpstreamProtocol] = set()
        self._leaving: list[Deferred[None]] = []
        self._stopped = False
        self._max_idle = max_idle

    # Private in Twisted: a class attribute that is called with exactly these two.
    def _factory(self, quiescentCallback: Any, metadata: str) -> _ProtocolFactory:  # type: ignore[override]
        return _ProtocolFactory(quiescentCallback, metadata, self)

    # Private in Twisted: closes a connection that has been idle for too long.
    def _removeConnection(self, key: tuple[bytes, bytes, int], connection: UpstreamProtocol) -> None:
        super()._removeConnection(key, connection)  # type: ignore[no-untyped-call]
        connection.end_soon()

    # Private in Twisted: called when an answer has ended and its connection can be used again.
    def _putConnection(self, key: tuple[bytes, bytes, int], connection: UpstreamProtocol) -> None:
        super()._putConnection(key, connection)  # type: ignore[no-untyped-call]
        while len(self._timeouts) > self._max_idle:
            oldest = next(iter(self._timeouts))  # they stand in the order in which they became idle
            self._timeouts[oldest].cancel()
            self._removeConnection(next(key for key, idle in self._connections.items() if oldest in idle), oldest)
        if len(self._connections) > self._max_idle + 1:  # Twisted remembers each host for ever
            self._connections = {key: idle for key, idle in self._connections.items() if idle}

    def retire(self) -> None:
        """Close what is idle, and keep nothing any more; bodies that run go on."""
        self._max_idle = 0
        self.closeCachedConnections()  # type: ignore[no-untyped-call]

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
