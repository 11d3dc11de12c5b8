"""What an answer to a request for the rest of a body is good for (RULES E5, RFC 9110 section 14)."""

from __future__ import annotations

from enum import Enum

from attrs import frozen
from twisted.web.iweb import IResponse

from txociproxy.answers import field_of, length_of
from txociproxy.oci.ranges import parse_content_range


class Judgement(Enum):
    """What to do with an answer that cannot simply be read on."""

    AGAIN = "ask again: this answer says nothing about the body"
    DIFFERENT = "the upstream has another body now: give up"
    COMPLETE = "the body ended where the connection broke"


@frozen
class GoOn:
    """Read on.

    :ivar skip_bytes: how many bytes of this answer are known already.
    :ivar total_bytes: the whole length, if this answer says it.
    """

    skip_bytes: int
    total_bytes: int | None


def etag_differs(before: str | None, now: str | None) -> bool:
    """Say whether two entity tags name different bodies; weak and missing ones say nothing."""
    if before is None or now is None or before.startswith("W/") or now.startswith("W/"):
        return False
    return before != now


def judge(response: IResponse, offset_bytes: int, total_bytes: int | None, etag: str | None) -> GoOn | Judgement:
    """Judge the answer to a request for everything from ``offset_bytes`` on.

    :param total_bytes: the length promised at first, if any.
    :param etag: the entity tag sent at first, if any.
    """
    if response.code == 416:
        found = parse_content_range(field_of(response, "Content-Range") or "")
        ends_here = total_bytes is None and found is not None and found.total == offset_bytes
        return Judgement.COMPLETE if ends_here else Judgement.AGAIN
    if response.code not in (200, 206):
        return Judgement.AGAIN
    if etag_differs(etag, field_of(response, "ETag")):
        return Judgement.DIFFERENT
    if response.code == 200:
        whole = length_of(response)
        if None not in (whole, total_bytes) and whole != total_bytes:
            return Judgement.DIFFERENT
        return GoOn(offset_bytes, whole)
    found = parse_content_range(field_of(response, "Content-Range") or "")
    if found is None or found.start != offset_bytes:
        return Judgement.AGAIN
    if None not in (found.total, total_bytes) and found.total != total_bytes:
        return Judgement.DIFFERENT
    return GoOn(0, found.total)
