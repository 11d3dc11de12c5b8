"""Which header fields are kept, which are passed on, and those that are made here (RULES E10, E11)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import translate
from typing import Literal

from txociproxy.oci.names import Digest

HeaderList = tuple[tuple[str, str], ...]

MAX_FIELDS = 32
MAX_BYTES = 8 * 1024

_HOP = "belongs to one connection (RFC 9110 §7.6.1)"
_MADE = "always made here"
_AGE = "was true of one answer at one time"
_ASKER = "was meant for the one who asked"
_PLACE = "names a place as seen from one request"
_BROWSER = "tells browsers about the upstream's own site, not about ours"
_FRONT = "is an order to the server in front of us"

# Never stored, never replayed: (pattern of the lower-case name, reason).  Everything else is the upstream's own word
# on the content and is kept.
NEVER_KEPT: tuple[tuple[str, str], ...] = (
    ("connection", _HOP),
    ("keep-alive", _HOP),
    ("te", _HOP),
    ("trailer", "announces fields behind a body that is not sent this way again"),
    ("transfer-encoding", _HOP),
    ("upgrade", _HOP),
    ("proxy-*", _HOP),
    ("age", _AGE),
    ("date", _AGE),
    ("expires", _AGE),
    ("pragma", _AGE),
    ("retry-after", _AGE),
    ("warning", _AGE),
    ("*ratelimit*", "counts one client's requests"),
    ("*rate-limit*", "counts one client's requests"),
    ("vary", "depends on what was asked; ours is made here"),
    ("via", "names the way of one answer"),
    ("server", "names the upstream's software; we are another"),
    ("set-cookie*", _ASKER),
    ("www-authenticate", _ASKER),
    ("authentication-info", _ASKER),
    ("location", _PLACE),
    ("content-location", _PLACE),
    ("link", _PLACE),
    ("refresh", _PLACE),
    ("alt-svc", "offers the upstream's other doors in place of ours"),
    ("nel", _BROWSER),
    ("report-to", _BROWSER),
    ("strict-transport-security", _BROWSER),
    ("public-key-pins*", _BROWSER),
    ("clear-site-data", _BROWSER),
    ("content-security-policy*", _BROWSER),
    ("access-control-*", _BROWSER),
    ("content-disposition", _BROWSER),
    ("content-encoding", "content is kept as its digest has it"),
    ("content-range", "was true of one part"),
    ("x-amz-*", "request ids and server-side details of the upstream's store"),
    ("x-cache*", "tells about a cache that is not this one"),
    ("cache-status", "tells what the caches on one answer's way did (RFC 9211); ours is made here"),
    ("cf-*", "tells about a delivery network that is not in the way any more"),
    ("x-request-id", "names one request"),
    ("traceparent", "names one request"),
    ("x-accel-*", _FRONT),
    ("x-sendfile*", _FRONT),
    ("content-length", _MADE),
    ("content-type", _MADE),
    ("etag", _MADE),
    ("docker-content-digest", _MADE),
    ("accept-ranges", _MADE),
    ("docker-distribution-api-version", _MADE),
    ("oci-namespace", _MADE),
    ("cache-control", _MADE),
)

# Passed on with an answer that is not kept, such as a refusal: (pattern of the lower-case name, reason).  A challenge
# is never among them (RULES C3: it is ours), nor a cookie.
RELAYED: tuple[tuple[str, str], ...] = (
    ("content-type", "the body is the upstream's"),
    ("content-encoding", "the body is passed on as it came"),
    ("content-range", "of a 416: the length that the client should have known"),
    ("retry-after", "the upstream tells this very client when to come again"),
    ("ratelimit*", "the upstream tells this very client what is left"),
    ("x-ratelimit*", "the same before it had a standard name"),
    ("docker-ratelimit-source", "says whose allowance it is"),
    ("warning", 'words for the person at the client (distribution-spec, "Warnings")'),
    ("oci-*", "answers of the spec, as OCI-Filters-Applied"),
    ("docker-content-digest", "which content the answer is about"),
    ("docker-distribution-api-version", "old clients look for it in every answer"),
)

LISTED: tuple[tuple[str, str], ...] = (*RELAYED, ("link", "the next page; the caller rewrites it"))

# RFC 9110 §5.1 and §5.5: what can be a field without becoming two.
_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_ENTITY_TAG = re.compile(r'(W/)?(?:"([^"]*)"|([^\s,"]+))')
_LINK = re.compile(r"<([^<>]*)>([^,<>]*)")
_REL_NEXT = re.compile(r';[ \t]*rel[ \t]*=[ \t]*(?:"next"|next)[ \t]*(?:;|\Z)', re.IGNORECASE)
_LINK_QUERY = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:@/?%\[\]|{}^-]*")

_CACHE_CONTROL = {
    # A digest never means anything else.
    "digest": ("public, max-age=31536000, immutable", "private, max-age=31536000, immutable"),
    "tag": ("public, max-age=2419200", "private, max-age=2419200"),
    "latest": ("public, max-age=3600", "private, max-age=3600"),
    # Unkept tags and stale answers (RULES E8).
    "revalidate": ("no-cache", "private, no-cache"),
}


def _pattern(table: Iterable[tuple[str, str]]) -> re.Pattern[str]:
    """Return what matches the lower-case names of a table."""
    return re.compile("|".join(translate(name) for name, _ in table))


_NEVER_KEPT = _pattern(NEVER_KEPT)
# Made here for every answer; the upstream's own would be a second one.
_OCI_NAMESPACE = "oci-namespace"
_RELAYED = _pattern(RELAYED)
_LISTED = _pattern(LISTED)


def kept(headers: HeaderList) -> HeaderList:
    """Return the fields that are stored with content and replayed with it (RULES E10)."""
    return _bounded(field for field in _end_to_end(headers) if not _NEVER_KEPT.match(field[0].lower()))


def relayed(headers: HeaderList) -> HeaderList:
    """Return the fields that go on with an answer that is not kept (RULES E11)."""
    return _chosen(headers, _RELAYED)


def listed(headers: HeaderList) -> HeaderList:
    """Return the fields that go on with a tag list or referrers; Link among them, not yet rewritten."""
    return _chosen(headers, _LISTED)


def _chosen(headers: HeaderList, table: re.Pattern[str]) -> HeaderList:
    """Return the fields that a table includes, but for the one that is always made here."""
    fields = ((name, value) for name, value in _end_to_end(headers) if name.lower() != _OCI_NAMESPACE)
    return _bounded(field for field in fields if table.match(field[0].lower()))


def _end_to_end(headers: HeaderList) -> Iterable[tuple[str, str]]:
    """Give the well-formed fields that ``Connection`` does not name (RFC 9110 §7.6.1)."""
    named = {
        option.strip().lower() for name, value in headers if name.lower() == "connection" for option in value.split(",")
    }
    for name, value in headers:
        if name.lower() not in named and _NAME.fullmatch(name) and _VALUE.fullmatch(value):
            yield name, value


def _bounded(headers: Iterable[tuple[str, str]]) -> HeaderList:
    """Return the first fields, up to what a sidecar and an answer can bear."""
    fields: list[tuple[str, str]] = []
    left_bytes = MAX_BYTES
    for name, value in headers:
        size_bytes = len(name) + len(value)
        if len(fields) < MAX_FIELDS and size_bytes <= left_bytes:
            fields.append((name, value))
            left_bytes -= size_bytes
    return tuple(fields)


def etag(digest: Digest) -> str:
    """Return the entity tag of content: its digest, quoted (RFC 9110 §8.8.3)."""
    return f'"{digest}"'


def etag_matches(field: str | None, digest: Digest) -> bool:
    """Say whether an If-None-Match field names this content; the weak comparison of RFC 9110 §13.1.2.

    Tags without quotes count too: clients send back what other registries gave them.
    """
    if field is None:
        return False
    return field.strip() == "*" or any(str(digest) in match[1:] for match in _ENTITY_TAG.findall(field))


def if_range_holds(field: str | None, digest: Digest) -> bool:
    """Say whether a Range counts: no If-Range field, or one that names this content (RFC 9110 §13.1.5).

    The comparison is strong; a date never holds, for there is none here to compare it with.
    """
    if field is None:
        return True
    match = _ENTITY_TAG.fullmatch(field.strip())
    return match is not None and match[1] is None and str(digest) in match.groups()


def cache_control(
    kind: Literal["digest", "tag", "latest", "revalidate"], visibility: Literal["public", "private"]
) -> str:
    """Return the Cache-Control value for a reference of this kind (RULES D4, E8)."""
    public, private = _CACHE_CONTROL[kind]
    return public if visibility == "public" else private


def rewrite_link(value: str, path: str, extra_query: str) -> str | None:
    """Return a Link field that leads to the next page through here, or None if there is no next page.

    :param value: the upstream's field; its target may be absolute or relative, only its query is used.
    :param path: our own path of the listing.
    :param extra_query: what is appended to the query, for example ``ns=docker.io``; may be empty.
    """
    for target, parameters in _LINK.findall(value):
        query = target.partition("#")[0].partition("?")[2]
        if _REL_NEXT.search(parameters) and _LINK_QUERY.fullmatch(query):
            # The upstream might echo an ns of its own; two would be refused when the client comes back (RULES A1).
            pairs = [pair for pair in query.split("&") if pair and pair.partition("=")[0] != "ns"]
            joined = "&".join((*pairs, *filter(None, (extra_query,))))
            return f'<{path}?{joined}>; rel="next"' if joined else f'<{path}>; rel="next"'
    return None
