"""What an S3 answer says: how old an object is, which part of it comes, what the server has against it."""

from __future__ import annotations

import re
from datetime import UTC
from email.utils import parsedate_to_datetime

from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.web.client import ResponseFailed
from twisted.web.iweb import IResponse

from txociproxy.answers import field_of, length_of
from txociproxy.oci.ranges import RangeSpec, parse_content_range
from txociproxy.storage.s3.trouble import S3Trouble

# S3 API reference, "Error Responses": the body of a refusal names it.
_CODE = re.compile(rb"<Code>([A-Za-z0-9._-]{1,64})</Code>")

# Archived by a rule of its owner's; a name that this server does not take.
_OF_ONE_OBJECT = frozenset({"InvalidObjectState", "KeyTooLongError"})


class Aside(S3Trouble):
    """A trouble that says nothing about S3 as a whole, so that it is no reason to leave it alone."""


def age_s(response: IResponse) -> float | None:
    """Return how long ago the object was written, by the server's own clock; None if it does not say."""
    written_s, sent_s = (_date_s(field_of(response, name)) for name in ("Last-Modified", "Date"))
    return None if written_s is None or sent_s is None else max(0.0, sent_s - written_s)


def _date_s(text: str | None) -> float | None:
    """Return an HTTP-date as seconds since the epoch."""
    try:
        date = parsedate_to_datetime(text or "")
        return (date if date.tzinfo is not None else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def refusal(status: int, body: bytes, what: str) -> S3Trouble | None:
    """Return what an answer other than 200 and 206 means; None is that there is no such object.

    :param what: what was asked, without any address.
    """
    found = _CODE.search(body)
    code = f"HTTP{status}" if found is None else found[1].decode("ascii")
    if status == 404:
        return S3Trouble("refused", code, what) if code == "NoSuchBucket" else None
    if code in _OF_ONE_OBJECT or status == 416:
        return Aside("failing", code, what)
    if status == 403:
        also = " was refused, which S3 also says of what is not there when the s3:ListBucket right is missing"
        return S3Trouble("refused", code, what + also)
    if 300 <= status < 400:
        return S3Trouble("refused", code, f"{what} was sent elsewhere: the region or the endpoint is another one")
    return S3Trouble("refused" if 400 <= status < 500 and status not in (408, 429) else "failing", code, what)


def unanswered(error: Exception, what: str) -> S3Trouble:
    """Return what it means that no answer came, in the error's name only: its words might repeat the address.

    A connection that was made and lost is ``failing``: it may be one server of many that begins anew.
    """
    while isinstance(error, ResponseFailed) and error.reasons:
        inner = getattr(error.reasons[0], "value", error.reasons[0])
        if not isinstance(inner, Exception):
            break
        error = inner
    name = "TLS" if type(error).__module__.startswith("OpenSSL") else type(error).__name__
    is_lost = isinstance(error, (ConnectionLost, ConnectionDone, ConnectionAborted))
    return S3Trouble("failing" if is_lost else "unreachable", name, what)


def check_coding(response: IResponse, what: str) -> None:
    """Return if the bytes come as they are.

    :raises Aside: they come in another coding, which no digest would match.
    """
    coding = field_of(response, "Content-Encoding")
    if coding is not None and coding.strip().lower() not in ("", "identity"):
        raise Aside("failing", "ContentEncoding", what)


def check_part(response: IResponse, spec: RangeSpec | None, size_bytes: int | None, what: str) -> None:
    """Return if the answer is exactly what was asked: never a byte of something else is passed on.

    :param size_bytes: how long the whole must be; None is not known.
    :raises Aside: it is not.
    """
    length_bytes = length_of(response)
    if spec is None:
        if response.code != 200 or length_bytes is None or size_bytes not in (None, length_bytes):
            raise Aside("failing", "WrongLength", what)
        return
    part = parse_content_range(field_of(response, "Content-Range") or "")
    if response.code != 206 or part is None or part.total is None or size_bytes not in (None, part.total):
        raise Aside("failing", "WrongRange", what)
    wanted = spec.resolve(part.total)
    if wanted is None or (part.start, part.stop) != (wanted.start, wanted.stop) or length_bytes != wanted.length_bytes:
        raise Aside("failing", "WrongRange", what)
