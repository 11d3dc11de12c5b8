"""Server transports that send from files, so that kept bytes never pass through Python."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Final

from attrs import frozen
from twisted.internet import tcp, unix
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.interfaces import IAddress, IListeningPort, IProtocolFactory, IStreamServerEndpoint
from twisted.internet.main import CONNECTION_LOST
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from zope.interface import implementer

from txociproxy.bodies.reader import FILE_CHUNK_BYTES, IFileTransport

# Per turn of the reactor; more makes small answers wait behind large ones.
TURN_BYTES: Final = FILE_CHUNK_BYTES
# Connections that wait to be accepted, per port.
BACKLOG: Final = 1024


class _FileMixin:
    """Sends from files on the socket of a :class:`tcp.Server`.

    No file ever waits in here: whoever sends asks for a chunk now and may ask to be called when there is room.
    So ``loseConnection`` has nothing to wait for but bytes, as ever.
    """

    _roomy: Callable[[], None] | None = None
    _broken = False

    def send_file(self: Any, fd: int, offset: int, count: int) -> int:
        """See :meth:`IFileTransport.send_file`."""
        if self._broken or self._buffered() or not self.connected or self.disconnecting:
            return 0
        try:
            sent_bytes = os.sendfile(self.fileno(), fd, offset, min(count, TURN_BYTES))
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError:
            sent_bytes = 0
        if not sent_bytes:
            # A dead socket, a dead disk, or a file that became shorter: the client must see that the body ends here.
            self._broken = True
            self.startWriting()
        return int(sent_bytes)

    def when_writable(self: Any, callback: Callable[[], None] | None) -> None:
        """See :meth:`IFileTransport.when_writable`."""
        self._roomy = callback if self.connected and not self.disconnecting else None
        if self._roomy is not None:
            self.startWriting()

    def doWrite(self: Any) -> Any:
        """Send buffered bytes first, then tell who waits for room.

        The callback is called inside, and mostly asks to be called again; writing is stopped only if it does not, so
        that a long file costs no change of the reactor's sets.
        """
        if self._broken:
            return CONNECTION_LOST
        roomy = self._roomy
        if roomy is None or self._buffered() or self.disconnecting:
            result = super().doWrite()  # type: ignore[misc]
            if result is None and self._roomy is not None and self.connected:
                self.startWriting()
            return result
        self._roomy = None
        roomy()
        if self._roomy is None and self.connected and not (self._buffered() or self.disconnecting):
            self.stopWriting()
        return None

    def loseConnection(self: Any) -> None:
        """Close after what is buffered; a file has no say."""
        self._roomy = None
        super().loseConnection()  # type: ignore[misc]

    def abortConnection(self: Any) -> None:
        """Close now."""
        self._roomy = None
        super().abortConnection()  # type: ignore[misc]

    def connectionLost(self: Any, reason: Failure) -> None:
        """Forget who waits."""
        self._roomy = None
        super().connectionLost(reason)  # type: ignore[misc]

    def _buffered(self: Any) -> bool:
        """Say whether bytes wait that were written before."""
        return bool(self._tempDataLen > 0 or len(self.dataBuffer) > self.offset)


@implementer(IFileTransport)
class FileServer(_FileMixin, tcp.Server):
    """A TCP connection that can send from files."""


@implementer(IFileTransport)
class UnixFileServer(_FileMixin, unix.Server):
    """A connection of a Unix socket that can send from files."""


@implementer(IListeningPort)
@frozen
class Ports:
    """Several ports of one door; never none."""

    ports: tuple[IListeningPort, ...]

    def startListening(self) -> None:
        """Open all."""
        for port in self.ports:
            port.startListening()

    def stopListening(self) -> Deferred[Any]:
        """Close all."""
        stopping = [maybeDeferred(port.stopListening) for port in self.ports]
        return gatherResults(stopping, consumeErrors=True)

    def getHost(self) -> IAddress:
        """Return the first one's address."""
        return self.ports[0].getHost()


def each_port(port: IListeningPort) -> tuple[IListeningPort, ...]:
    """Return the ports of a door, each with one address."""
    return port.ports if isinstance(port, Ports) else (port,)


def is_secure(port: IListeningPort) -> bool:
    """Say whether the connections of this port speak TLS, whatever else lies around it (the PROXY protocol)."""
    factory = getattr(port, "factory", None)
    while factory is not None and not isinstance(factory, TLSMemoryBIOFactory):
        factory = getattr(factory, "wrappedFactory", None)
    return factory is not None


def send_files(port: IListeningPort) -> IListeningPort:
    """Give the connections of this port the means to send from files, where they carry plain HTTP.

    :class:`tcp.Port` documents ``transport`` as replaceable.  A port below TLS is left alone: a wrapper would pass
    on the interface, and a file would leave unencrypted.
    """
    for each in each_port(port):
        if is_secure(each):
            continue
        if isinstance(each, unix.Port):
            each.transport = UnixFileServer
        elif isinstance(each, tcp.Port):
            each.transport = FileServer
    return port


@implementer(IStreamServerEndpoint)
@frozen
class FileEndpoint:
    """Decorates an endpoint so that its connections can send from files."""

    _endpoint: IStreamServerEndpoint

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        """Listen as the decorated endpoint does."""
        return self._endpoint.listen(protocolFactory).addCallback(send_files)
