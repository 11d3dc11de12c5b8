"""A request's head as HTTP/2 brings it, judged like any other (RULES A1, A3)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from attrs import field, frozen
from twisted.web.http_headers import Headers

from txociproxy.oci.errors import OCIError
from txociproxy.web.heads import check_field, check_head, malformed
from txociproxy.web.http2.limits import MAX_FIELD_BYTES, MAX_FIELDS

_TOKEN: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_PSEUDO: Final = frozenset({b":method", b":path", b":scheme", b":authority"})


@frozen
class Head:
    """What a request says before its body; :authority has become Host (RFC 9113 §8.3.1)."""

    method: bytes
    target: bytes
    headers: Headers = field(repr=False)

    @property
    def length_bytes(self) -> int | None:
        """What Content-Length says."""
        lines = self.headers.getRawHeaders(b"Content-Length", [])
        return int(lines[0]) if lines else None

    @property
    def wants_continue(self) -> bool:
        """Whether the client waits for a word before it sends its body."""
        lines = self.headers.getRawHeaders(b"Expect", [])
        return bool(lines) and lines[0].lower() == b"100-continue"


def read_head(fields: Iterable[tuple[bytes, bytes]]) -> tuple[Head, OCIError | None]:
    """Put a field list into the words of HTTP/1.1, and judge it; h2 has refused what no client may send."""
    pseudo: dict[bytes, bytes] = {}
    plain: list[tuple[bytes, bytes]] = []
    for name, value in fields:
        if name.startswith(b":"):
            pseudo[name] = value
        else:
            plain.append((name, value))
    error = _check_pseudo(pseudo) or _check_sizes(pseudo, plain) or _check_fields(plain)
    headers = Headers()
    for name, value in plain if error is None else ():
        headers.addRawHeader(name, value)
    head = Head(pseudo.get(b":method", b""), pseudo.get(b":path", b""), headers)
    return head, error or _check_authority(pseudo, headers) or _check_whole(head)


def _check_pseudo(pseudo: dict[bytes, bytes]) -> OCIError | None:
    """Refuse words of protocols that we have not offered (RFC 9113 §8.3; h2 knows ``:protocol`` of RFC 8441)."""
    return None if pseudo.keys() <= _PSEUDO else malformed("a pseudo-header field is not known")


def _check_sizes(pseudo: dict[bytes, bytes], plain: list[tuple[bytes, bytes]]) -> OCIError | None:
    """Refuse what is too long for a line of HTTP/1.1."""
    if len(pseudo.get(b":path", b"")) > MAX_FIELD_BYTES:
        return OCIError("SIZE_INVALID", "the request target is too long", status=414)
    if len(plain) > MAX_FIELDS:
        return OCIError("SIZE_INVALID", "the request's head is too large", status=431)
    if any(len(name) + len(value) + 2 > MAX_FIELD_BYTES for name, value in (*pseudo.items(), *plain)):
        return OCIError("SIZE_INVALID", "a header field is too long", status=431)
    return None


def _check_fields(plain: list[tuple[bytes, bytes]]) -> OCIError | None:
    """Refuse names that are none, and values as HTTP/1.1 does."""
    for name, value in plain:
        if not _TOKEN.fullmatch(name):
            return malformed("a header field is malformed")
        error = check_field(name + b":" + value)
        if error is not None:
            return error
    return None


def _check_authority(pseudo: dict[bytes, bytes], headers: Headers) -> OCIError | None:
    """Let :authority be the one Host; a Host beside it must say the same."""
    authority = pseudo.get(b":authority")
    if authority is None:
        return None
    if headers.getRawHeaders(b"Host", [authority]) != [authority]:
        return malformed("exactly one valid Host is required")
    headers.setRawHeaders(b"Host", [authority])
    return None


def _check_whole(head: Head) -> OCIError | None:
    if not _TOKEN.fullmatch(head.method):
        return malformed("the method is malformed")
    lines = head.headers.getRawHeaders(b"Content-Length", [])
    if len(lines) > 1:
        return malformed("the end of the body is ambiguous")
    return check_head(head.method, head.target, b"HTTP/2", head.headers)
