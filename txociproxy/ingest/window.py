"""The recent bytes of an arriving body, in memory."""

from __future__ import annotations

from bisect import bisect_right

from attrs import define, field


@define(eq=False)
class Window:
    """A run of chunks, from ``start_bytes`` to ``end_bytes`` of the content.

    Chunks are kept as they came: nothing is copied until somebody reads a part of one.
    """

    start_bytes: int
    _starts: list[int] = field(factory=list, init=False)
    _chunks: list[bytes] = field(factory=list, init=False)

    @property
    def end_bytes(self) -> int:
        """Where the next chunk goes."""
        return self._starts[-1] + len(self._chunks[-1]) if self._chunks else self.start_bytes

    @property
    def size_bytes(self) -> int:
        """How much memory is held."""
        return self.end_bytes - self.start_bytes

    def append(self, data: bytes) -> None:
        """Take the next bytes; ``data`` is not empty."""
        self._starts.append(self.end_bytes)
        self._chunks.append(data)

    def read_at(self, offset_bytes: int, max_bytes: int) -> bytes:
        """Return bytes of one chunk, or ``b""`` for what is not held."""
        if not self.start_bytes <= offset_bytes < self.end_bytes:
            return b""
        index = bisect_right(self._starts, offset_bytes) - 1
        begin = offset_bytes - self._starts[index]
        chunk = self._chunks[index]
        return chunk if begin == 0 and len(chunk) <= max_bytes else chunk[begin : begin + max_bytes]

    def trim(self, before_bytes: int) -> None:
        """Drop the chunks that lie wholly before ``before_bytes``."""
        count = 0
        while count < len(self._chunks) and self._starts[count] + len(self._chunks[count]) <= before_bytes:
            count += 1
        if count:
            self.start_bytes = self._starts[count - 1] + len(self._chunks[count - 1])
            del self._starts[:count], self._chunks[:count]
