"""What a request asks for: method and target in, one value or one OCIError out (distribution-spec, "Endpoints")."""

from __future__ import annotations

import re
from typing import Literal, NoReturn
from urllib.parse import unquote_to_bytes

from attrs import frozen

from txociproxy.oci.errors import OCIError
from txociproxy.oci.names import Digest, Reference, Repository, canonical_namespace, looks_like_host, parse_reference

PULL_METHODS = ("GET", "HEAD")
TOKEN_METHODS = (*PULL_METHODS, "POST")

_CONTROLS = re.compile(rb"[\x00-\x1f\x7f]")
# RFC 3986 §3.4, plus the few that clients leave bare; '<', '>' and '"' are out, for a query comes back in Link.
_QUERY = re.compile(rb"[A-Za-z0-9._~!$&'()*+,;=:@/?%\[\]|{}^-]*")


@frozen
class Ping:
    """``/v2/``: is this a registry, and who may pull (end-1)?"""

    namespace: str | None = None

    def __str__(self) -> str:
        return _target("/v2/", self.namespace)


@frozen
class TokenAsk:
    """Our own token endpoint (RULES C4); the namespace stands in the path, ``ns=`` is taken as well."""

    namespace: str | None = None

    def __str__(self) -> str:
        return "/v2/_token" if self.namespace is None else f"/v2/_token/{self.namespace}"


@frozen
class ManifestPull:
    """A manifest by tag or digest (end-3).

    :ivar name: the repository with whatever prefix the client wrote; its first segment may be a host.
    :ivar namespace: the value of ``ns=`` as the client wrote it.
    """

    name: str
    reference: Reference
    namespace: str | None = None

    def __str__(self) -> str:
        return _target(f"/v2/{self.name}/manifests/{self.reference}", self.namespace)


@frozen
class BlobPull:
    """A blob (end-2)."""

    name: str
    digest: Digest
    namespace: str | None = None

    def __str__(self) -> str:
        return _target(f"/v2/{self.name}/blobs/{self.digest}", self.namespace)


@frozen
class TagList:
    """The tags of a repository (end-8).

    :ivar query: all of the query but ``ns``, as the client wrote it.
    """

    name: str
    namespace: str | None = None
    query: str = ""

    def __str__(self) -> str:
        return _target(f"/v2/{self.name}/tags/list", self.namespace, self.query)


@frozen
class Referrers:
    """What refers to a manifest (end-12).

    :ivar query: all of the query but ``ns``, as the client wrote it.
    """

    name: str
    digest: Digest
    namespace: str | None = None
    query: str = ""

    def __str__(self) -> str:
        return _target(f"/v2/{self.name}/referrers/{self.digest}", self.namespace, self.query)


@frozen
class Page:
    """A page for whoever runs the proxy: ``/healthz`` (alive?), ``/readyz`` (would pulls be served?), ``/metrics``."""

    name: Literal["healthz", "readyz", "metrics"]

    def __str__(self) -> str:
        return f"/{self.name}"


Target = Ping | TokenAsk | ManifestPull | BlobPull | TagList | Referrers | Page


def parse(method: str, path: bytes, query: bytes) -> Target:
    """Read a request's method and target.

    ``str()`` of the value is the canonical target, which reads back as the same value.

    :param path: the target up to the first question mark, as it came; it is percent-decoded here, once.
    :param query: the target behind it; what a kind of request does not know is ignored.
    :raises OCIError: for everything else, and nothing but that.
    """
    text = _decoded_path(path)
    namespace, rest = _split_query(query)
    segments = text.split("/")
    is_token = segments[:3] == ["", "v2", "_token"]
    _check_method(method, TOKEN_METHODS if is_token else PULL_METHODS)
    match segments:
        case ["", ("healthz" | "readyz" | "metrics") as name]:
            return Page(name)
        case ["", "v2"] | ["", "v2", ""]:
            return Ping(namespace)
        case ["", "v2", "_token"] | ["", "v2", "_token", ""]:
            return TokenAsk(namespace)
        case ["", "v2", "_token", named]:
            canonical_namespace(named)
            return TokenAsk(named)
        case ["", "v2", *inner]:
            return _parse_inner(inner, namespace, rest)
    _unsupported()


def _parse_inner(segments: list[str], namespace: str | None, query: str) -> Target:
    """Read what follows ``/v2/``, from the right, so that a repository may have segments like ``manifests``."""
    match segments:
        case [*name, "manifests", reference]:
            return ManifestPull(_name(name), parse_reference(reference), namespace)
        case [*name, "blobs", digest]:
            return BlobPull(_name(name), Digest.parse(digest), namespace)
        case [*name, "tags", "list"]:
            return TagList(_name(name), namespace, query)
        case [*name, "referrers", digest]:
            return Referrers(_name(name), Digest.parse(digest), namespace, query)
    _unsupported()


def _decoded_path(path: bytes) -> str:
    """Return the path after one percent-decoding; whatever is odd about it is an error (RULES A1)."""
    decoded = unquote_to_bytes(path)
    # A '%' that is left was encoded twice, or wrongly: another server behind or before us may read it differently.
    if not path.startswith(b"/") or b"%" in decoded or _CONTROLS.search(decoded) or not decoded.isascii():
        raise OCIError("NAME_INVALID", "the request target is not a plain path", status=400)
    return decoded.decode("ascii")


def _split_query(query: bytes) -> tuple[str | None, str]:
    """Return the value of ``ns=`` and the rest of the query as it came."""
    if not _QUERY.fullmatch(query):
        raise OCIError("NAME_INVALID", "the query has characters that must be percent-encoded", status=400)
    named: list[bytes] = []
    rest: list[bytes] = []
    for pair in query.split(b"&"):
        key, _, value = pair.partition(b"=")
        if unquote_to_bytes(key) == b"ns":
            named.append(unquote_to_bytes(value))
        elif pair:
            rest.append(pair)
    return _one_namespace(named), b"&".join(rest).decode("ascii")


def _one_namespace(named: list[bytes]) -> str | None:
    """Return the only namespace, None for none or an empty one; two are an error (RULES A1, B1)."""
    if len(named) > 1:
        raise OCIError("NAME_INVALID", "ns= may stand in a query only once", status=400)
    # Latin-1 takes every byte; those beyond ASCII are no namespace.
    namespace = named[0].decode("latin-1") if named else ""
    if namespace:
        canonical_namespace(namespace)
    return namespace or None


def _check_method(method: str, allowed: tuple[str, ...]) -> None:
    """Let pulls pass and refuse writes (RULES A4)."""
    if method not in allowed:
        raise OCIError("UNSUPPORTED", "this registry can only be pulled from", headers=(("Allow", ", ".join(allowed)),))


def _name(segments: list[str]) -> str:
    """Return the joined name after a look at its grammar: a repository, or a host with a repository behind it."""
    name = "/".join(segments)
    host, _, rest = name.partition("/")
    try:
        Repository.parse(name)
    except OCIError:
        if not rest or not looks_like_host(host):
            raise
        canonical_namespace(host)
        Repository.parse(rest)
    return name


def _target(path: str, namespace: str | None, query: str = "") -> str:
    """Print a target; ``ns=`` comes last and needs no encoding, for a host and a port have only plain characters."""
    parts = [part for part in (query, f"ns={namespace}" if namespace else "") if part]
    return f"{path}?{'&'.join(parts)}" if parts else path


def _unsupported() -> NoReturn:
    raise OCIError("UNSUPPORTED", "there is no such endpoint", status=404)
