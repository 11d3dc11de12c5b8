"""Origins: scheme, host and port, the unit in which trust is counted (RFC 6454 §4)."""

from __future__ import annotations

from urllib.parse import SplitResult, urlsplit

from attrs import frozen

_DEFAULT_PORTS = (("http", 80), ("https", 443))
# RFC 3986 §2: what can stand in a URL at all; everything else is a slip or an attack.
_VISIBLE = frozenset(map(chr, range(0x21, 0x7F)))


@frozen
class Origin:
    """Where a URL leads: two URLs of one origin may see each other's credentials.

    :ivar host: lower case, without brackets and trailing dot.
    """

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> Origin:
        """Return the origin of an absolute http or https URL.

        :raises ValueError: it is none, or it carries a user or password.
        """
        if not url or not _VISIBLE.issuperset(url):
            raise ValueError("not a URL: it is empty or has characters that a URL cannot have")
        parts = _split(url)
        default_port = dict(_DEFAULT_PORTS).get(parts.scheme)
        if default_port is None:
            raise ValueError("not an http:// or https:// URL")
        if "@" in parts.netloc:
            raise ValueError("a URL with a user or password in it, which is not taken")
        host = (parts.hostname or "").removesuffix(".")
        if not host:
            raise ValueError("a URL without a host")
        return cls(parts.scheme, host, _port(parts) or default_port)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}" + ("" if (self.scheme, self.port) in _DEFAULT_PORTS else f":{self.port}")


def _split(url: str) -> SplitResult:
    """Take a URL apart."""
    try:
        return urlsplit(url)
    except ValueError:  # its text repeats what stands in brackets, which may be a piece of a password
        raise ValueError("not a URL: it has brackets that hold no IPv6 address") from None


def _port(parts: SplitResult) -> int | None:
    """Return the port that stands in a URL."""
    try:
        port = parts.port
    except ValueError:  # its text repeats what stands there, which may be a piece of a password
        port = 0
    if port == 0:
        raise ValueError("a URL with a port that is none")
    return port


def base_url(url: str) -> str:
    """Return the URL under which ``/v2/`` lies, without a slash at its end.

    :raises ValueError: it is not an http or https URL, or it has a query or a fragment.
    """
    Origin.of(url)
    parts = urlsplit(url)
    if "@" in url:
        raise ValueError("a URL with an @, which looks like a password")
    if parts.query or parts.fragment or url.endswith(("?", "#")):
        raise ValueError("a URL with a query or a fragment cannot be a registry")
    return url.rstrip("/").removesuffix("/v2")
