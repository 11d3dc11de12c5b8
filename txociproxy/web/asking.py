"""What a request says beside its target: fields read once, in one way."""

from __future__ import annotations

from typing import Literal, cast

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.web.server import Request

from txociproxy.oci.accept import AcceptClass, accept_class
from txociproxy.oci.challenges import bearer
from txociproxy.oci.headers import etag_matches, if_range_holds
from txociproxy.oci.names import Digest
from txociproxy.oci.ranges import RangeSpec, parse_range
from txociproxy.oci.requests import BlobPull, ManifestPull, Referrers, TagList, Target, TokenAsk
from txociproxy.upstreams.entries.table import Route
from txociproxy.web.cache_status import ERROR
from txociproxy.web.forwarded import forwarded_host, scheme_of
from txociproxy.web.replies import Circumstances
from txociproxy.web.settings import WebSettings

SERVICE = "ociproxy"


def field_lines(request: Request, name: str) -> list[str]:
    """Return all lines of a field; any byte is one character."""
    return [line.decode("latin-1") for line in request.requestHeaders.getRawHeaders(name.encode("ascii"), [])]


def joined_field(request: Request, name: str) -> str | None:
    """Return all lines of a list field as one, None for none."""
    lines = field_lines(request, name)
    return ", ".join(lines) if lines else None


def only_field(request: Request, name: str) -> str | None:
    """Return the value of a field that makes sense only once; several count as none."""
    lines = field_lines(request, name)
    return lines[0] if len(lines) == 1 else None


def host_of(request: Request) -> str | None:
    """Return the one valid Host, as the client wrote it."""
    return only_field(request, "Host")


def accepted(request: Request) -> AcceptClass:
    """Return what the client takes; Docker spreads it over six lines (RULES E7)."""
    return accept_class(field_lines(request, "Accept"))


def wanted_range(request: Request, digest: Digest) -> RangeSpec | None:
    """Return the part of content that a GET wants; None is all of it (RFC 9110 §13.1.5, §14.2)."""
    if request.method != b"GET" or not if_range_holds(joined_field(request, "If-Range"), digest):
        return None
    return parse_range(only_field(request, "Range"))


def has_already(request: Request, digest: Digest) -> bool:
    """Say whether the client has this content (RFC 9110 §13.1.2)."""
    return etag_matches(joined_field(request, "If-None-Match"), digest)


def base_url(request: Request, settings: WebSettings) -> str:
    """Return the base of our own addresses, as the client sees them."""
    if settings.public_url is not None:
        return settings.public_url.rstrip("/")
    trusted = settings.trusted_proxies
    host = forwarded_host(request, trusted) or host_of(request) or _local_address(request)
    return f"{scheme_of(request, trusted)}://{host}"


def _local_address(request: Request) -> str:
    """Return the address that an HTTP/1.0 client without Host has connected to."""
    address = request.getHost()
    if isinstance(address, IPv6Address):
        return f"[{address.host}]:{address.port}"
    return f"{address.host}:{address.port}" if isinstance(address, IPv4Address) else "localhost"


def method_of(request: Request) -> Literal["GET", "HEAD"]:
    """Return the method of a request that pulls; the parser has let no other pass."""
    return "HEAD" if request.method == b"HEAD" else "GET"


def listener_of(request: Request) -> str | None:
    """Return the configured name of the listener, if an upstream claims it (RULES B2)."""
    return cast("str | None", getattr(getattr(request, "site", None), "listener", None))


def about_ping(request: Request, settings: WebSettings, namespace: str | None) -> Circumstances:
    """Return what shapes the answer to a request that concerns no repository."""
    return Circumstances(method_of(request), namespace, challenge(request, settings))


def about_error(request: Request, settings: WebSettings, target: Target | None) -> Circumstances:
    """Return what shapes the answer to a request that failed before its upstream was known.

    :param target: None when it could not be read.
    """
    # Whoever asked for a token asks again at the same place.
    realm = target.namespace if isinstance(target, TokenAsk) else None
    is_cached = isinstance(target, ManifestPull | BlobPull | TagList | Referrers)
    return Circumstances(
        method_of(request), None, challenge(request, settings, realm), cache_status=ERROR if is_cached else None
    )


def about_repository(
    request: Request, settings: WebSettings, route: Route, target: ManifestPull | BlobPull | TagList | Referrers
) -> Circumstances:
    """Return what shapes the answer to a request that concerns a repository."""
    return Circumstances(
        method_of(request),
        route.namespace if target.namespace else None,
        challenge(request, settings, route.namespace, target.name),
        joined_field(request, "If-None-Match"),
        is_private=not settings.is_transparent,
        cache_status=ERROR,
    )


def challenge(
    request: Request, settings: WebSettings, namespace: str | None = None, name: str | None = None
) -> str | None:
    """Return our challenge (RULES C3); None where no token would help (RULES C6).

    :param namespace: None for a ping, which concerns no upstream.
    :param name: the repository as the client named it; None where none is concerned.
    """
    if settings.owns_authorization:
        return None
    base = base_url(request, settings)
    realm = f"{base}/v2/_token" if namespace is None else f"{base}/v2/_token/{namespace}"
    return bearer(realm, SERVICE, None if name is None else f"repository:{name}:pull")
