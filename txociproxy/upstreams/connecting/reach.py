"""How far an address is: the pure part of the guard (RULES F1).

``ipaddress.is_global`` is not enough: it calls NAT64, 6to4 and multicast addresses global, and its tables differ
between patch releases of Python.  So the list is our own, after the IANA special-purpose registries (RFC 6890).
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from socket import inet_aton
from typing import Literal

Reach = Literal["global", "private", "loopback", "never"]

# First match counts.
_V4_TEXTS: tuple[tuple[str, Reach], ...] = (
    ("127.0.0.0/8", "loopback"),
    ("0.0.0.0/8", "loopback"),  # "this host": Linux connects 0.0.0.0 to itself
    ("169.254.0.0/16", "never"),  # link-local; clouds put their metadata, and with it credentials, here
    ("168.63.129.16/32", "never"),  # Azure's metadata, in a range that looks global
    ("100.100.100.200/32", "never"),  # Alibaba's metadata
    ("192.0.0.0/24", "never"),  # IETF protocol assignments; Oracle's metadata
    ("192.88.99.0/24", "never"),  # 6to4 relays (RFC 7526)
    ("224.0.0.0/4", "never"),  # multicast
    ("240.0.0.0/4", "never"),  # reserved, and broadcast
    ("10.0.0.0/8", "private"),
    ("172.16.0.0/12", "private"),
    ("192.168.0.0/16", "private"),
    ("100.64.0.0/10", "private"),  # carrier-grade NAT (RFC 6598), also overlay networks
    ("198.18.0.0/15", "private"),  # benchmarks
    ("192.0.2.0/24", "private"),  # documentation, as the next two
    ("198.51.100.0/24", "private"),
    ("203.0.113.0/24", "private"),
)
_V6_TEXTS: tuple[tuple[str, Reach], ...] = (
    ("::1/128", "loopback"),
    ("::/128", "loopback"),  # as 0.0.0.0
    ("fd00:ec2::254/128", "never"),  # AWS metadata
    ("fd20:ce::254/128", "never"),  # Google's metadata
    ("fd00:c1::a9fe:a9fe/128", "never"),  # Oracle's metadata
    ("fc00::/7", "private"),  # unique local addresses
    ("2001:db8::/32", "private"),  # documentation, as the next
    ("3fff::/20", "private"),
    ("2001::/23", "never"),  # Teredo, ORCHID and other protocol assignments
    ("2000::/3", "global"),  # the only range given out for use in the world (RFC 4291 §2.4)
)
_V4 = tuple((IPv4Network(network), reach) for network, reach in _V4_TEXTS)
_V6 = tuple((IPv6Network(network), reach) for network, reach in _V6_TEXTS)
# Forms that carry an IPv4 address, and the bit where it begins, counted from the right.
_CARRIERS = (
    (IPv6Network("::ffff:0:0/96"), 0),  # IPv4-mapped
    (IPv6Network("::ffff:0:0:0/96"), 0),  # IPv4-translated (RFC 2765)
    (IPv6Network("64:ff9b::/96"), 0),  # NAT64 (RFC 6052)
    (IPv6Network("2002::/16"), 80),  # 6to4 (RFC 3056)
    (IPv6Network("::/96"), 0),  # IPv4-compatible, deprecated (RFC 4291 §2.5.5.1)
)
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")


def literal_reach(host: str) -> Reach | None:
    """Say how far an address literal in a URL reaches; None for a name, which must be resolved first.

    Resolvers take more forms than the canonical ones (``127.1``, ``0x7f.1``, ``2130706433``), so these count too.
    """
    if (reach := _strict_reach(host)) is not None or not ends_in_a_number(host):
        return reach
    try:
        return _reach_of_v4(IPv4Address(inet_aton(host)))
    except OSError:
        return None


def reach_of(address: str) -> Reach:
    """Say how far a resolved address reaches; what is not one reaches nowhere ("never")."""
    return _strict_reach(address) or "never"


def ends_in_a_number(host: str) -> bool:
    """Say whether a host is meant as an IPv4 address in some form, by the rule of browsers (WHATWG URL §3.5)."""
    return _NUMBER.fullmatch(host.lower().rpartition(".")[2]) is not None


def is_local_name(host: str) -> bool:
    """Say whether a name means the machine of whoever resolves it (RFC 6761 §6.3)."""
    return host == "localhost" or host.endswith(".localhost")


def _strict_reach(text: str) -> Reach | None:
    try:
        parsed = ip_address(text)
    except ValueError:
        return None
    return _reach_of_v4(parsed) if isinstance(parsed, IPv4Address) else _reach_of_v6(parsed)


def _reach_of_v4(address: IPv4Address) -> Reach:
    return next((reach for network, reach in _V4 if address in network), "global")


def _reach_of_v6(address: IPv6Address) -> Reach:
    # A scope id belongs to link-local addresses only; networks do not contain addresses that have one.
    bits = int(address)
    plain = IPv6Address(bits)
    if bits > 1:
        for network, shift in _CARRIERS:
            if plain in network:
                return _reach_of_v4(IPv4Address(bits >> shift & 0xFFFFFFFF))
    return next((reach for network, reach in _V6 if plain in network), "never")


def forbidden_reason(reach: Reach, *, named: bool = False, private: bool = False, loopback: bool = False) -> str | None:
    """Say why an address that reaches this far must not be connected to; None allows it.

    :param named: the owner wrote down the very host or origin.
    :param private: addresses of private networks are fine.
    :param loopback: addresses of this machine are fine.
    """
    if named or reach == "global" or (reach == "private" and private) or (reach == "loopback" and loopback):
        return None
    match reach:
        case "private":
            return "an address of a private network"
        case "loopback":
            return "an address of the proxy's own machine"
        case _:
            return "a link-local or reserved address"
