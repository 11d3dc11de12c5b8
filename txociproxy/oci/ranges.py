"""Parts of content: the Range field that asks, the Content-Range field that answers (RFC 9110 §14)."""

from __future__ import annotations

import re

from attrs import frozen

# 18 digits are an exabyte; what is longer is not a range, and never reaches int().
_NUMBER = "[0-9]{1,18}"
_RANGE = re.compile(rf"bytes=[ \t]*({_NUMBER})?-({_NUMBER})?[ \t]*", re.IGNORECASE | re.ASCII)
_CONTENT_RANGE = re.compile(rf"bytes[ \t]+(?:({_NUMBER})-({_NUMBER})|\*)/({_NUMBER}|\*)", re.IGNORECASE | re.ASCII)


@frozen
class ByteRange:
    """A part of content whose whole length is known.

    :ivar start: offset of the first byte.
    :ivar stop: offset behind the last byte.
    :ivar total: length of the whole in bytes.
    """

    start: int
    stop: int
    total: int

    @property
    def length_bytes(self) -> int:
        """How many bytes it has."""
        return self.stop - self.start

    def content_range(self) -> str:
        """Return the value of the Content-Range field of its 206."""
        return f"bytes {self.start}-{self.stop - 1}/{self.total}"


@frozen
class RangeSpec:
    """What a client asked for, before the length is known.

    :ivar first: offset of the first byte; None makes it a suffix.
    :ivar last: offset of the last byte, None for all that follows; for a suffix the number of bytes.
    """

    first: int | None
    last: int | None

    def resolve(self, total: int) -> ByteRange | None:
        """Return the part of so many bytes, or None when no byte of it exists (416).

        :param total: length of the whole in bytes.
        """
        start, stop = self._bounds(total)
        return ByteRange(start, stop, total) if start < stop else None

    def _bounds(self, total: int) -> tuple[int, int]:
        """Return start and stop, cut to what exists; empty when start is not below stop."""
        if self.first is None:
            return max(0, total - (self.last or 0)), total
        return self.first, total if self.last is None else min(self.last + 1, total)

    def __str__(self) -> str:
        first = "" if self.first is None else str(self.first)
        last = "" if self.last is None else str(self.last)
        return f"bytes={first}-{last}"


@frozen
class ContentRange:
    """What an upstream says it sends.

    :ivar start: None for ``bytes */N``, the field of a 416.
    :ivar stop: offset behind the last byte.
    :ivar total: None when the upstream does not know.
    """

    start: int | None
    stop: int | None
    total: int | None


def parse_range(text: str | None) -> RangeSpec | None:
    """Read a Range field; None says to ignore it and answer with the whole.

    That is right for no field, another unit, a malformed one and several ranges (RFC 9110 §14.2).
    """
    match = _RANGE.fullmatch(text or "")
    if match is None:
        return None
    first, last = (None if number is None else int(number) for number in match.groups())
    if first is None and last is None:
        return None
    if first is not None and last is not None and last < first:
        return None
    return RangeSpec(first, last)


def parse_content_range(text: str) -> ContentRange | None:
    """Read a Content-Range field; None says that it makes no sense."""
    match = _CONTENT_RANGE.fullmatch(text)
    if match is None:
        return None
    total = None if match[3] == "*" else int(match[3])
    if match[1] is None:
        return None if total is None else ContentRange(None, None, total)
    start, stop = int(match[1]), int(match[2]) + 1
    if stop <= start or (total is not None and stop > total):
        return None
    return ContentRange(start, stop, total)
