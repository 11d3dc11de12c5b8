"""Who the client is behind a load balancer or TLS proxy, and which address it believes to speak to (RULES A5).

``X-Forwarded-For``, ``-Proto`` and ``-Host`` are believed from trusted peers only: anybody else may write there what
he likes.  Each proxy appends the address that it saw, so that the addresses are read from the right, as long as they
are those of trusted proxies; the first that is not is the client.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final, Literal, cast

from twisted.internet.address import UNIXAddress
from twisted.web.http import Request

from txociproxy.web.access import client_address
from txociproxy.web.heads import is_host

Networks = tuple[IPv4Network | IPv6Network, ...]
Address = IPv4Address | IPv6Address
# Nobody has so many proxies in a row; what is further left is not read.
MAX_HOPS: Final = 16
_MAX_HOP_CHARS: Final = 64
# An address, with a port if there must be one; IPv6 in brackets or bare (RFC 7239, section 6, without its quotes).
_HOP: Final = re.compile(r"\[([0-9A-Fa-f:.]+)\](?::[0-9]{1,5})?|([0-9.]+)(?::[0-9]{1,5})?|([0-9A-Fa-f:.]+)")


def client_of(request: Request, trusted: Networks) -> str:
    """Return the client's IP address, ``-`` for one behind a Unix socket of whom nobody says more."""
    peer = client_address(request.getClientAddress())
    if not believes(request, trusted):
        return peer
    client = peer
    for hop in _hops(request):
        address = _address(hop)
        if address is None:
            break  # what is left of it cannot be told from what a client has made up
        client = str(address)
        if not _is_in(address, trusted):
            break
    return client


def scheme_of(request: Request, trusted: Networks) -> Literal["http", "https"]:
    """Return how the client speaks to us, or to the proxy in front."""
    said = _only(request, b"X-Forwarded-Proto").lower() if believes(request, trusted) else b""
    if said in (b"http", b"https"):
        return cast('Literal["http", "https"]', said.decode("ascii"))
    return "https" if request.isSecure() else "http"


def forwarded_host(request: Request, trusted: Networks) -> str | None:
    """Return the host, with its port, that the client asked a trusted proxy for; None where no valid one is said."""
    said = _only(request, b"X-Forwarded-Host") if believes(request, trusted) else b""
    return said.decode("ascii") if is_host(said) else None


def believes(request: Request, trusted: Networks) -> bool:
    """Say whether a request comes from a trusted proxy.

    Behind a Unix socket there is no address to judge by: whoever may open it is believed as soon as there are trusted
    proxies at all.  Its permissions say who that is, and without a word from there its clients have no caps at all.
    """
    if not trusted:
        return False
    peer = request.getClientAddress()
    if isinstance(peer, UNIXAddress):
        return True
    address = _address(client_address(peer).partition("%")[0])
    return address is not None and _is_in(address, trusted)


def _hops(request: Request) -> list[str]:
    """Return the last addresses of X-Forwarded-For, the nearest one first."""
    lines = request.requestHeaders.getRawHeaders(b"X-Forwarded-For", [])
    whole = b",".join(lines).decode("latin-1")
    return [hop.strip(" \t") for hop in reversed(whole.rsplit(",", MAX_HOPS)[-MAX_HOPS:])]


def _address(text: str) -> Address | None:
    """Read an address; IPv4 in the clothes of IPv6 is IPv4."""
    found = _HOP.fullmatch(text) if len(text) <= _MAX_HOP_CHARS else None
    if found is None:
        return None
    try:
        address = ip_address(found[1] or found[2] or found[3])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _is_in(address: Address, networks: Networks) -> bool:
    return any(address in network for network in networks)


def _only(request: Request, name: bytes) -> bytes:
    """Return the value of a field that stands there once; several leave open which of them is meant."""
    lines = request.requestHeaders.getRawHeaders(name, [])
    return lines[0].strip(b" \t") if len(lines) == 1 else b""
