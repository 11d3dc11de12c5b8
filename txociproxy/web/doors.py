"""Where to listen, from the words of an option to an endpoint (RULES A7)."""

from __future__ import annotations

import os
import re
from typing import Any, Final, Literal

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.endpoints import TCP4ServerEndpoint, TCP6ServerEndpoint, serverFromString
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamServerEndpoint

from txociproxy.web.endpoints import AnywhereEndpoint, SocketEndpoint
from txociproxy.web.inherited import Inherited, InheritedEndpoint, Wanted
from txociproxy.web.ports import BACKLOG, FileEndpoint, each_port, is_secure
from txociproxy.web.tls.certificates import DoorTls, TlsEndpoint

_HELP: Final = (
    'say ":8080", "127.0.0.1:8080", "[::1]:8080", "unix:/run/ociproxy.sock", "systemd:" or a Twisted endpoint'
)
# Whoever may enter the directory; it is there that access to a socket is decided.
DEFAULT_MODE: Final = 0o666
_PORT_ONLY: Final = re.compile(r":([0-9]+)")
_ADDRESS: Final = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+)):([0-9]+)")


def door(
    reactor: Any,
    text: str,
    tls: DoorTls | None = None,
    inherited: Inherited | None = None,
    mode: int | None = None,
) -> IStreamServerEndpoint:
    """Return the endpoint that an option's words mean; it sends from files where it speaks no TLS.

    :param tls: the certificate of doors; None if there is none.
    :param inherited: the sockets that systemd has handed over.
    :param mode: who may connect to a Unix socket that is made here; set before anybody can.  None is everybody.
    :raises ValueError: the words mean nothing, or need a certificate; the text says what would do.
    """
    scheme, place = parted(text)
    if scheme == "https" and tls is None:
        raise ValueError(f"{text!r} needs a certificate; give --tls-cert and --tls-key, or write http://")
    endpoint: IStreamServerEndpoint
    wanted = Wanted.read(place)
    if wanted is not None:

        def dressed(factory: IProtocolFactory, is_unix: bool) -> IProtocolFactory:
            is_plain = tls is None or scheme == "http" or (is_unix and scheme is None)
            return factory if is_plain or tls is None else tls.wrapped(factory)

        endpoint = InheritedEndpoint(reactor, inherited or Inherited(), wanted, dressed)
    else:
        endpoint = _endpoint(reactor, _with_mode(place, mode), DEFAULT_MODE if mode is None else mode)
        if tls is not None and speaks_tls(text, True):
            return TlsEndpoint(endpoint, tls)
    return FileEndpoint(endpoint)


def speaks_tls(text: str, has_certificate: bool) -> bool:
    """Say whether a door speaks our TLS; for sockets of systemd, whether one for TCP does.

    Unless it is said, TLS is spoken if there is a certificate, but not on Unix sockets, nor below Twisted's own TLS.
    """
    scheme, place = parted(text)
    if scheme is not None:
        return scheme == "https"
    return has_certificate and not place.removeprefix("haproxy:").startswith(("unix:", "ssl:"))


def parted(text: str) -> tuple[Literal["http", "https"] | None, str]:
    """Return whether an option's words say that TLS is spoken there, and the place itself."""
    place = text.strip()
    if place.startswith("https://"):
        return "https", place.removeprefix("https://")
    if place.startswith("http://"):
        return "http", place.removeprefix("http://")
    return None, place


def _with_mode(place: str, mode: int | None) -> str:
    """Say who may connect to a Unix socket in Twisted's words too, unless these say it; theirs is everybody."""
    is_own = place.startswith("unix:/") and ":" not in place[len("unix:") :]
    if mode is None or is_own or not place.removeprefix("haproxy:").startswith("unix:") or ":mode=" in place:
        return place
    return f"{place}:mode={mode:o}"


def check_listen(text: str) -> None:
    """Judge the words before there is a reactor.

    :raises ValueError: as :func:`door`.
    """
    scheme, place = parted(text)
    if Wanted.read(place) is not None:
        return
    if scheme == "https" and place.removeprefix("haproxy:").startswith("ssl:"):
        raise ValueError(f'cannot listen on "{text}": ssl: is TLS already; {_HELP}')
    _endpoint(None, place, DEFAULT_MODE)


def _endpoint(reactor: Any, text: str, mode: int) -> IStreamServerEndpoint:
    anywhere = _PORT_ONLY.fullmatch(text)
    if anywhere is not None:
        return AnywhereEndpoint(reactor, _port(text, anywhere[1]))
    address = _ADDRESS.fullmatch(text)
    if address is not None:
        return _at(reactor, text, address)
    if text.startswith("unix:/") and ":" not in text[len("unix:") :]:
        path = text[len("unix:") :]
        return SocketEndpoint(reactor, path, mode)
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
    """Return where a door listens, in an option's words; port 0 has become a real one."""
    return ",".join(_place(each) for each in each_port(port))


def _place(port: IListeningPort) -> str:
    address = port.getHost()
    if isinstance(address, UNIXAddress):
        place = f"unix:{os.fsdecode(address.name or b'')}"
    elif isinstance(address, IPv6Address):
        place = f"[{address.host}]:{address.port}"
    else:
        place = f"{address.host}:{address.port}" if isinstance(address, IPv4Address) else str(address)
    return f"https://{place}" if is_secure(port) else place
