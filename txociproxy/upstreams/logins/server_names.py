"""What ``docker login`` calls an upstream: the names under which it saves logins, and asks helpers for them."""

from __future__ import annotations

from txociproxy.oci.errors import OCIError
from txociproxy.oci.names import canonical_namespace
from txociproxy.upstreams.origins import Origin

# Docker saves logins of Docker Hub under the address of an index that is long gone.
HUB_KEY = "https://index.docker.io/v1/"
_HUB = "docker.io"
_DEFAULT_PORTS = (("http", 80), ("https", 443))


def server_name(url: str) -> str:
    """Return the one name that docker itself uses for the registry at this URL."""
    host = _hosts_of(url)[0]
    return HUB_KEY if _is_hub(host) else host


def rank(key: str, url: str) -> int | None:
    """Return how well a saved name means the registry at this URL: 0 is best, None not at all.

    Schemes do not count, since docker ignores them; a path below the host is a login for less than the registry.
    """
    if key == server_name(url):
        return 0
    host, _, path = key.lower().removeprefix("https://").removeprefix("http://").partition("/")
    if path.strip("/") not in ("", "v1", "v2"):
        return None
    hosts = _hosts_of(url)
    return 1 if host in hosts or (_is_hub(host) and _is_hub(hosts[0])) else None


def _is_hub(host: str) -> bool:
    try:
        return canonical_namespace(host) == _HUB
    except OCIError:  # an IPv6 address, or whatever somebody has written into his file
        return False


def _hosts_of(url: str) -> tuple[str, ...]:
    """Return the host with its port, and before that without, if it is the port that the scheme means."""
    origin = Origin.of(url)
    host = f"[{origin.host}]" if ":" in origin.host else origin.host
    with_port = f"{host}:{origin.port}"
    return (host, with_port) if (origin.scheme, origin.port) in _DEFAULT_PORTS else (with_port,)
