"""What an upstream's answer says, as text and numbers: its header fields and its length."""

from __future__ import annotations

from typing import cast

from twisted.web.iweb import UNKNOWN_LENGTH, IResponse

from txociproxy.interfaces import HeaderList


def field_of(response: IResponse, name: str) -> str | None:
    """Return one header field of an upstream's answer as text."""
    values = cast(list[bytes], response.headers.getRawHeaders(name.encode("ascii")) or [])
    return values[0].decode("latin-1") if values else None


def fields_of(response: IResponse) -> HeaderList:
    """Return an answer's header fields as text."""
    raw = cast("list[tuple[bytes, list[bytes]]]", list(response.headers.getAllRawHeaders()))
    return tuple((name.decode("latin-1"), value.decode("latin-1")) for name, values in raw for value in values)


def length_of(response: IResponse) -> int | None:
    """Return the length that an upstream promised for its body."""
    return None if response.length is UNKNOWN_LENGTH else int(cast(int, response.length))


def promised_length(response: IResponse) -> int | None:
    """Return the length that the fields of an answer tell, also of a HEAD; what is no sane number is none."""
    text = field_of(response, "Content-Length") or ""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else None
