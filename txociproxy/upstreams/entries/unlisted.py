"""Namespaces that nobody has configured: which names may be asked at all, and as whom (RULES B6, F1)."""

from __future__ import annotations

from txociproxy.oci.errors import OCIError
from txociproxy.oci.names import canonical_namespace
from txociproxy.upstreams.connecting.reach import ends_in_a_number, is_local_name
from txociproxy.upstreams.entries.entry import Entry
from txociproxy.upstreams.entries.reading import SHIPPED_URLS

# RULES F1: 16 connections together, and RULES A5.
MAX_BODIES = 12
MAX_ASKS = 4
MAX_UNLISTED = 256
MAX_UNLISTED_TOKENS = 1000


def denied(name: str, why: str = "") -> OCIError:
    """Return the answer for a namespace that is not served, with the remedy.

    :param name: canonical.
    """
    return OCIError(
        "DENIED",
        f"{name} is not an upstream of this proxy{why and ', and ' + why}; its owner can add "
        f"{{namespace: {name}, urls: [https://{name}]}} to `upstreams`",
    )


def plain_name(text: str) -> str:
    """Return the canonical name of a namespace as a client wrote it.

    :raises OCIError: NAME_INVALID, or DENIED for an IPv6 address, which no entry can have as its name.
    """
    if text.startswith("["):
        raise OCIError(
            "DENIED", "an address is not a namespace; the owner of this proxy can give it one in `upstreams`"
        )
    return canonical_namespace(text)


def public_name(text: str) -> str:
    """Return the canonical name of a namespace that may be asked without being configured.

    :raises OCIError: NAME_INVALID, or DENIED for an address, a port, and names of this machine or its network.
    """
    name = plain_name(text)
    if ":" in name:
        raise denied(name, "it has a port")
    if ends_in_a_number(name):
        raise denied(name, "it is an address")
    if "." not in name or is_local_name(name):
        raise denied(name, "it is not a public name")
    return name


def unlisted_entry(name: str) -> Entry:
    """Return how such a namespace is asked: by https, at public addresses, in nobody's name (RULES C6).

    :param name: what :func:`public_name` returned.
    """
    url = SHIPPED_URLS.get(name, f"https://{name}")
    return Entry(name, (url,), client_credentials="ignore", is_listed=False, max_connections=MAX_BODIES)
