"""Endpoints beside those of Twisted: all addresses of a machine, and Unix sockets that others may have left behind."""

from __future__ import annotations

import errno
import os
import socket
import stat
from typing import Any, cast

from attrs import frozen
from twisted.internet.address import IPv6Address
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import UNIXServerEndpoint
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamServerEndpoint
from zope.interface import implementer

from txociproxy.web.ports import BACKLOG, Ports


@implementer(IStreamServerEndpoint)
@frozen
class AnywhereEndpoint:
    """Listens on a port of all addresses, IPv6 and IPv4."""

    _reactor: Any
    _port: int

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        """Listen on ``::``, which takes IPv4 too unless the machine says otherwise; without IPv6 on ``0.0.0.0``."""
        return maybeDeferred(self._listen_on_all, protocolFactory)

    def _listen_on_all(self, factory: IProtocolFactory) -> IListeningPort:
        try:
            port: IListeningPort = self._listen(factory, self._port, "::")
        except CannotListenError as error:
            if _has_no_ipv6(error):
                return self._listen(factory, self._port, "0.0.0.0")  # type: ignore[no-any-return]
            raise
        if not _only_ipv6(port):
            return port
        try:
            other = self._listen(factory, cast(IPv6Address, port.getHost()).port, "0.0.0.0")
        except CannotListenError:
            port.stopListening()
            raise
        return Ports((port, other))

    def _listen(self, factory: IProtocolFactory, port: int, interface: str) -> Any:
        return self._reactor.listenTCP(port, factory, backlog=BACKLOG, interface=interface)


def _has_no_ipv6(error: CannotListenError) -> bool:
    """Say whether this machine cannot do IPv6, rather than that the port is taken or forbidden."""
    return getattr(error.socketError, "errno", None) in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)


def _only_ipv6(port: Any) -> bool:
    """Say whether this socket refuses IPv4 (``net.ipv6.bindv6only``)."""
    listening = getattr(port, "socket", None)
    return listening is not None and bool(listening.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY))


@implementer(IStreamServerEndpoint)
@frozen
class SocketEndpoint:
    """Listens on a Unix socket; one that a killed process has left behind is no obstacle.

    Twisted can guard a socket by a lock file with a process id in it, but ids repeat in containers.
    """

    _reactor: Any
    _path: str
    _mode: int

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        """Listen, in place of nobody."""
        if _is_orphan(self._path):
            os.unlink(self._path)
        # Between its making and its listening, when its rights are set, every connection is refused.
        made = UNIXServerEndpoint(self._reactor, self._path, backlog=BACKLOG, mode=self._mode)
        return made.listen(protocolFactory)  # type: ignore[no-any-return]


def _is_orphan(path: str) -> bool:
    """Say whether this is a socket on which nobody listens; a local connect is answered at once."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return stat.S_ISSOCK(os.lstat(path).st_mode)
        except OSError:
            pass  # nothing there, not ours, or busy: whoever listens will say
    return False
