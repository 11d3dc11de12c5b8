"""Where to listen, from the words of an option to an endpoint (RULES A7)."""

from __future__ import annotations

import errno
import os
import re
import socket
import stat
from typing import Any, Final, Literal, cast

from attrs import frozen
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.endpoints import (
    TCP4ServerEndpoint,
    TCP6ServerEndpoint,
    UNIXServerEndpoint,
    serverFromString,
)
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IAddress, IListeningPort, IProtocolFactory, IStreamServerEndpoint
from zope.interface import implementer

from txociproxy.web.ports import FileEndpoint, send_files

BACKLOG: Final = 1024

_HELP: Final = 'say ":8080", "127.0.0.1:8080", "[::1]:8080", "unix:/run/ociproxy.sock" or a Twisted endpoint'
_PORT_ONLY: Final = re.compile(r":([0-9]+)")
_ADDRESS: Final = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+)):([0-9]+)")


def door(reactor: Any, text: str) -> IStreamServerEndpoint:
    """Return the endpoint that an option's words mean, able to send from files.

    :raises ValueError: the words mean nothing; the text says what would.
    """
    return FileEndpoint(_endpoint(reactor, parted(text)[1]))


def parted(text: str) -> tuple[Literal["http", "https"] | None, str]:
    """Return whether an option's words say that TLS is spoken there, and the place itself."""
    place = text.strip()
    if place.startswith("https://"):
        return "https", place.removeprefix("https://")
    if place.startswith("http://"):
        return "http", place.removeprefix("http://")
    return None, place


def check_listen(text: str) -> None:
    """Judge the words before there is a reactor.

    :raises ValueError: as :func:`door`.
    """
    _endpoint(None, parted(text)[1])


def _endpoint(reactor: Any, text: str) -> IStreamServerEndpoint:
    anywhere = _PORT_ONLY.fullmatch(text)
    if anywhere is not None:
        return AnywhereEndpoint(reactor, _port(text, anywhere[1]))
    address = _ADDRESS.fullmatch(text)
    if address is not None:
        return _at(reactor, text, address)
    if text.startswith("unix:/") and ":" not in text[len("unix:") :]:
        path = text[len("unix:") :]
        return SocketEndpoint(path, UNIXServerEndpoint(reactor, path, backlog=BACKLOG))
    try:
        return serverFromString(reactor, text)  # type: ignore[no-any-return, unused-ignore]
    except Exception as error:  # a parser of any plugin may raise anything
        raise ValueError(f'cannot listen on "{text}" ({error}); {_HELP}') from error


def _at(reactor: Any, text: str, address: re.Match[str]) -> IStreamServerEndpoint:
    """Return the endpoint of an address and a port."""
    port = _port(text, address[3])
    if address[1] is not None and isIPv6Address(address[1]):
        return TCP6ServerEndpoint(reactor, port, backlog=BACKLOG, interface=address[1])
    if address[2] is not None and isIPAddress(address[2]):
        return TCP4ServerEndpoint(reactor, port, backlog=BACKLOG, interface=address[2])
    raise ValueError(f'cannot listen on "{text}": this is no IP address; {_HELP}')


def _port(text: str, digits: str) -> int:
    """Return a port's number."""
    port = int(digits[:6])
    if len(digits) > 5 or port > 65535:
        raise ValueError(f'cannot listen on "{text}": a port is at most 65535')
    return port


def place_of(port: IListeningPort) -> str:
    """Return where a port listens, in an option's words; port 0 has become a real one."""
    address = port.getHost()
    if isinstance(address, UNIXAddress):
        return f"unix:{os.fsdecode(address.name or b'')}"
    if isinstance(address, IPv6Address):
        return f"[{address.host}]:{address.port}"
    return f"{address.host}:{address.port}" if isinstance(address, IPv4Address) else str(address)


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
        other = self._listen(factory, cast(IPv6Address, port.getHost()).port, "0.0.0.0")
        return PortPair(send_files(port), send_files(other))

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

    _path: str
    _endpoint: IStreamServerEndpoint

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        """Listen, in place of nobody."""
        if _is_orphan(self._path):
            os.unlink(self._path)
        return self._endpoint.listen(protocolFactory)


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


@implementer(IListeningPort)
@frozen
class PortPair:
    """Two ports that are opened and closed together."""

    first: Any
    second: Any

    def startListening(self) -> None:
        """Open both."""
        self.first.startListening()
        self.second.startListening()

    def stopListening(self) -> Deferred[Any]:
        """Close both."""
        stopping = [maybeDeferred(port.stopListening) for port in (self.first, self.second)]
        return gatherResults(stopping, consumeErrors=True)

    def getHost(self) -> IAddress:
        """Return the first one's address."""
        return self.first.getHost()  # type: ignore[no-any-return]
