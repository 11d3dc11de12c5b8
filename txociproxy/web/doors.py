"""Where to listen, from the words of an option to an endpoint (RULES A7)."""

from __future__ import annotations

import re
import socket
from typing import Any, Final

from attrs import frozen
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.internet.endpoints import (
    TCP4ServerEndpoint,
    TCP6ServerEndpoint,
    UNIXServerEndpoint,
    serverFromString,
)
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IAddress, IListeningPort, IProtocolFactory, IStreamServerEndpoint
from zope.interface import implementer

from txociproxy.web.ports import FileEndpoint

BACKLOG: Final = 1024

_HELP: Final = 'say ":8080", "127.0.0.1:8080", "[::1]:8080", "unix:/run/ociproxy.sock" or a Twisted endpoint'
_PORT_ONLY: Final = re.compile(r":([0-9]+)")
_ADDRESS: Final = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+)):([0-9]+)")


def door(reactor: Any, text: str) -> IStreamServerEndpoint:
    """Return the endpoint that an option's words mean, able to send from files.

    :raises ValueError: the words mean nothing; the text says what would.
    """
    return FileEndpoint(_endpoint(reactor, text.strip()))


def check_listen(text: str) -> None:
    """Judge the words before there is a reactor.

    :raises ValueError: as :func:`door`.
    """
    _endpoint(None, text.strip())


def _endpoint(reactor: Any, text: str) -> IStreamServerEndpoint:
    anywhere = _PORT_ONLY.fullmatch(text)
    if anywhere is not None:
        return AnywhereEndpoint(reactor, _port(text, anywhere[1]))
    address = _ADDRESS.fullmatch(text)
    if address is not None:
        return _at(reactor, text, address)
    if text.startswith("unix:/") and ":" not in text[len("unix:") :]:
        return UNIXServerEndpoint(reactor, text[len("unix:") :], backlog=BACKLOG)
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


@implementer(IStreamServerEndpoint)
@frozen
class AnywhereEndpoint:
    """Listens on a port of all addresses, IPv6 and IPv4."""

    _reactor: Any
    _port: int

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        """Listen on ``::``, which takes IPv4 too unless the machine says otherwise; without IPv6 on ``0.0.0.0``."""
        try:
            port = self._listen(protocolFactory, self._port, "::")
        except CannotListenError as error:
            if isinstance(error.socketError, OSError) and _address_in_use(error.socketError):
                raise
            return succeed(self._listen(protocolFactory, self._port, "0.0.0.0"))
        if not _only_ipv6(port):
            return succeed(port)
        return succeed(PortPair(port, self._listen(protocolFactory, port.getHost().port, "0.0.0.0")))

    def _listen(self, factory: IProtocolFactory, port: int, interface: str) -> Any:
        return self._reactor.listenTCP(port, factory, backlog=BACKLOG, interface=interface)


def _address_in_use(error: OSError) -> bool:
    """Say whether somebody else has the port; anything else says that there is no IPv6 here."""
    import errno

    return error.errno in (errno.EADDRINUSE, errno.EACCES)


def _only_ipv6(port: Any) -> bool:
    """Say whether this socket refuses IPv4 (``net.ipv6.bindv6only``)."""
    listening = getattr(port, "socket", None)
    return listening is not None and bool(listening.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY))


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
        ports = (self.first, self.second)
        return gatherResults([Deferred.fromCoroutine(_stop(port)) for port in ports], consumeErrors=True)

    def getHost(self) -> IAddress:
        """Return the first one's address."""
        return self.first.getHost()  # type: ignore[no-any-return]


async def _stop(port: Any) -> None:
    """Close a port, whether it takes time or not."""
    stopped = port.stopListening()
    if isinstance(stopped, Deferred):
        await stopped
