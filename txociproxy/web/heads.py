"""What a request's head must look like before anything believes it (RULES A1, A2).

Twisted by itself takes absolute-form targets, two Host lines and bodies of any size.  A request that two
machines could read differently is refused here, and its connection is closed.
"""

from __future__ import annotations

import re
from typing import Final

from twisted.web.http_headers import Headers

from txociproxy.oci.errors import OCIError, reason_phrase
from txociproxy.oci.requests import TokenAsk, parse

MAX_FORM_BYTES: Final = 64 * 1024

_READS: Final = (b"GET", b"HEAD")
# A registered name or IPv4 address, or an IPv6 literal; both with or without a port (RFC 3986, section 3.2.2).
_HOST: Final = re.compile(rb"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
_CONTROLS: Final = bytes(range(0x20)).replace(b"\t", b"") + b"\x7f"
_MAX_LENGTH_DIGITS: Final = 15


def malformed(message: str) -> OCIError:
    """Return the error for a request that cannot be read in one way only."""
    return OCIError("UNSUPPORTED", message, status=400)


def check_field(line: bytes) -> OCIError | None:
    """Judge one header line as it came, without its CRLF."""
    name, colon, value = line.partition(b":")
    if not colon or line.translate(None, _CONTROLS) != line:
        return malformed("a header field is malformed")
    name, value = name.lower(), value.strip(b" \t")
    if name == b"content-length" and not (value.isdigit() and len(value) <= _MAX_LENGTH_DIGITS):
        return malformed("Content-Length is not a number")
    # "identity" is obsolete and ends the body where another machine may not (RFC 9112, section 7).
    if name == b"transfer-encoding" and value.lower() != b"chunked":
        return malformed("the Transfer-Encoding is not known")
    return None


def check_head(method: bytes, target: bytes, version: bytes, headers: Headers) -> OCIError | None:
    """Judge a whole head; None says that the request may be answered."""
    return _check_target(target) or _check_host(version, headers) or _check_body(method, target, version, headers)


def _check_target(target: bytes) -> OCIError | None:
    """Take the origin form only (RFC 9112, section 3.2.1)."""
    if not target.startswith(b"/"):
        return malformed("the request target must be a path")
    if b"#" in target or not all(0x20 < byte < 0x7F for byte in target):
        return malformed("the request target has characters that must be encoded")
    return None


def _check_host(version: bytes, headers: Headers) -> OCIError | None:
    """Take exactly one valid Host; HTTP/1.0 may do without."""
    hosts = headers.getRawHeaders(b"Host", [])
    if not hosts and version == b"HTTP/1.0":
        return None
    if len(hosts) != 1 or not is_host(hosts[0]):
        return malformed("exactly one valid Host is required")
    return None


def is_host(value: bytes) -> bool:
    """Say whether this can stand in a Host field."""
    return _HOST.fullmatch(value) is not None


def _check_body(method: bytes, target: bytes, version: bytes, headers: Headers) -> OCIError | None:
    """Refuse every body but a small form for the token endpoint."""
    lengths = headers.getRawHeaders(b"Content-Length", [])
    chunked = headers.hasHeader(b"Transfer-Encoding")
    if chunked and (lengths or version != b"HTTP/1.1"):
        return malformed("the end of the body is ambiguous")
    announced = int(lengths[0]) if lengths else 0
    if not announced and not chunked:
        return None
    refused = check_bringing(method, target)
    if refused is None and announced > MAX_FORM_BYTES:
        return form_too_large()
    return refused


def check_bringing(method: bytes, target: bytes) -> OCIError | None:
    """Say what is wrong with a request that brings a body, from its first line alone."""
    if method in _READS:
        return OCIError("SIZE_INVALID", f"{method.decode('ascii')} takes no body", status=413)
    path, _, query = target.partition(b"?")
    try:
        asked = parse(method.decode("ascii", "replace"), path, query)
    except OCIError as error:
        return error
    if isinstance(asked, TokenAsk):
        return None
    return OCIError("UNSUPPORTED", "this registry is read-only", headers=(("Allow", "GET, HEAD"),))


def refusal_fields(error: OCIError) -> list[tuple[str, str]]:
    """Return the header fields of the answer to a request that is never handed on."""
    return [
        ("Content-Type", "application/json"),
        ("Content-Length", str(len(error.to_json()))),
        ("Connection", "close"),
        ("Cache-Control", "no-store"),
        ("Docker-Distribution-Api-Version", "registry/2.0"),
        *error.headers,
    ]


def refusal(error: OCIError, with_body: bool) -> bytes:
    """Print that answer whole, for HTTP/1.1."""
    head = "".join(f"{name}: {value}\r\n" for name, value in refusal_fields(error))
    line = f"HTTP/1.1 {error.status} {reason_phrase(error.status)}\r\n"
    return f"{line}{head}\r\n".encode("ascii") + (error.to_json() if with_body else b"")


def form_too_large() -> OCIError:
    """Return the error for a form beyond its limit."""
    return OCIError("SIZE_INVALID", f"a form may have {MAX_FORM_BYTES} bytes", status=413)
