"""Frames by their heads: what comes in is counted before it costs anything, and bodies go out without copies."""

from __future__ import annotations

import struct
from typing import Final

from attrs import define, field

DATA: Final = 0
HEADERS: Final = 1
RST_STREAM: Final = 3
GOAWAY: Final = 7
CONTINUATION: Final = 9

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEAD_BYTES: Final = 9

_END_HEADERS: Final = 0x4


@define(eq=False)
class FrameMeter:
    """Follows what a client sends, frame by frame, without keeping more than a frame's head (RFC 9113 §4.1).

    :ivar _skip_bytes: what still belongs to the connection's preface or to the payload of the latest frame.
    :ivar _in_block: the latest frame's field section is continued in the next one.
    :ivar frames: how many have begun since the connection was made.
    """

    _skip_bytes: int = len(PREFACE)
    _head: bytes = b""
    _in_block: bool = False
    frames: int = field(default=0, init=False)

    @property
    def is_between(self) -> bool:
        """Whether nothing has been begun that is not whole."""
        return not (self._skip_bytes or self._head or self._in_block)

    def feed(self, data: bytes) -> list[int]:
        """Return the types of the frames whose heads end in this data."""
        kinds: list[int] = []
        position, end = 0, len(data)
        while position < end:
            if self._skip_bytes:
                step = min(self._skip_bytes, end - position)
                self._skip_bytes -= step
                position += step
                continue
            wanted = HEAD_BYTES - len(self._head)
            self._head += data[position : position + wanted]
            position += wanted
            if len(self._head) == HEAD_BYTES:
                kinds.append(self._begin(self._head))
                self._head = b""
        self.frames += len(kinds)
        return kinds

    def _begin(self, head: bytes) -> int:
        """Note a frame's length, and whether it leaves a field section open; return its type."""
        high, low, kind, flags = struct.unpack_from(">BHBB", head)
        self._skip_bytes = (high << 16) + low
        if kind in (HEADERS, CONTINUATION):
            self._in_block = not flags & _END_HEADERS
        return int(kind)


def data_head(stream_id: int, size_bytes: int) -> bytes:
    """Return the head of a DATA frame."""
    return struct.pack(">BHBBL", size_bytes >> 16, size_bytes & 0xFFFF, DATA, 0, stream_id)


def goaway(last_stream_id: int, code: int) -> bytes:
    """Return a whole GOAWAY frame; h2 would send nothing more after one that it makes (RFC 9113 §6.8)."""
    return struct.pack(">BHBBLLL", 0, 8, GOAWAY, 0, 0, last_stream_id, code)
