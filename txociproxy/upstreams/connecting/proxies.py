"""Outbound proxies: which of them, if any, stands between us and an origin (HTTPS_PROXY, HTTP_PROXY, NO_PROXY)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Literal
from urllib.parse import SplitResult, unquote, urlsplit

from attrs import field, frozen

from txociproxy.oci.challenges import basic
from txociproxy.upstreams.connecting.reach import is_local_name, literal_reach
from txociproxy.upstreams.origins import Origin

_DEFAULT_PORT = 3128
_VISIBLE = re.compile(r"[!-~]+")
_HOST = re.compile(r"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]+")


@frozen
class Proxy:
    """A proxy that is spoken to in plain HTTP and asked for tunnels (RFC 9110 §9.3.6).

    :ivar authorization: the value of a Proxy-Authorization field, or None; never printed.
    """

    host: str
    port: int
    authorization: str | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @classmethod
    def parse(cls, text: str) -> Proxy:
        """Read ``http://user:password@host:port``; scheme, user and port may be left out.

        :raises ValueError: it cannot be used; nothing of the value is in the text, since it may be a password.
        """
        if not _VISIBLE.fullmatch(text):
            raise ValueError("has characters that a URL cannot have")
        parts = _split(text if "://" in text else f"http://{text}")
        if parts.scheme == "https":
            raise ValueError("is an https:// proxy, which is not offered; write http://host:3128")
        if parts.scheme != "http" or parts.path not in ("", "/") or parts.query or parts.fragment:
            raise ValueError("is not a proxy; write for example http://proxy.example.com:3128")
        try:
            host, port = parts.hostname or "", parts.port
        except ValueError:
            raise ValueError("has a port that is none") from None
        if not _HOST.fullmatch(host) or port == 0:
            raise ValueError("has no usable host and port; write for example http://proxy.example.com:3128")
        return cls(host, port or _DEFAULT_PORT, _authorization(parts.username, parts.password))


def _split(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError:  # its text repeats what stands in brackets, which may be a piece of a password
        raise ValueError("has brackets that hold no IPv6 address") from None


def _authorization(username: str | None, password: str | None) -> str | None:
    if not username and not password:
        return None
    pair = f"{unquote(username or '')}:{unquote(password or '')}"
    return basic(pair.encode("utf-8"))


@frozen
class _Exception:
    """One item of NO_PROXY; as in Go's ``httpproxy``, since that is what the clients beside us understand.

    ``example.com`` and all below it; ``.example.com`` and ``*.example.com`` what is below it; an address; a
    network; ``*`` everything; each with ``:port`` for that port alone.
    """

    host: str
    port: int | None = None
    network: IPv4Network | IPv6Network | None = None

    @classmethod
    def parse(cls, text: str) -> _Exception:
        """Read an item; what cannot be a host matches nothing."""
        try:
            return cls("", None, ip_network(text.strip("[]"), strict=False))
        except ValueError:
            pass
        host, colon, digits = text.rpartition(":")
        if not colon or not digits.isdigit() or not digits.isascii():
            host, digits = text, ""
        port = int(digits) if digits else None
        try:
            return cls("", port, ip_network(host.strip("[]"), strict=False))
        except ValueError:
            return cls(host.lower().removeprefix("*").removesuffix(".") if host != "*" else host, port)

    def covers(self, origin: Origin, address: IPv4Address | IPv6Address | None) -> bool:
        """Whether an origin is to be reached without a proxy."""
        if self.port is not None and self.port != origin.port:
            return False
        if self.network is not None:
            return address is not None and address in self.network
        if self.host == "*":
            return True
        if not self.host or address is not None:
            return False
        return origin.host.endswith(self.host if self.host[0] == "." else f".{self.host}") or origin.host == self.host


@frozen
class OutboundProxies:
    """The proxies that the environment names; none is the default."""

    https: Proxy | None = None
    http: Proxy | None = None
    exceptions: tuple[_Exception, ...] = ()

    @property
    def is_set(self) -> bool:
        """Whether any origin may be reached through a proxy."""
        return self.https is not None or self.http is not None

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> OutboundProxies:
        """Read the variables; lower case wins, also where it is empty, which means none.

        :raises ValueError: one line that names the variable and holds nothing of its value.
        """
        exceptions = re.split(r"[,\s]+", _said(environ, "no_proxy")[1])
        return cls(
            _proxy(*_said(environ, "https_proxy")),
            _proxy(*_said(environ, "http_proxy")),
            tuple(_Exception.parse(text) for text in exceptions if text),
        )

    def proxy_for(self, origin: Origin) -> Proxy | None:
        """Return the proxy between us and an origin; this machine is always reached without one."""
        proxy = self.https if origin.scheme == "https" else self.http
        if proxy is None or is_local_name(origin.host) or literal_reach(origin.host) == "loopback":
            return None
        try:
            address = ip_address(origin.host)
        except ValueError:
            address = None
        return None if any(item.covers(origin, address) for item in self.exceptions) else proxy


_Variable = Literal["https_proxy", "http_proxy", "no_proxy"]


def _said(environ: Mapping[str, str], name: _Variable) -> tuple[str, str]:
    """Return the variable that counts, and its value."""
    found = name if name in environ else name.upper()
    return found, environ.get(found, "").strip()


def _proxy(variable: str, text: str) -> Proxy | None:
    try:
        return Proxy.parse(text) if text else None
    except ValueError as error:
        raise ValueError(f"{variable}: the value {error}") from None
