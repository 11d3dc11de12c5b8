"""One value of a log line: any bytes in, a word of printable ASCII out, which reads back the same (RULES A6)."""

from __future__ import annotations

import json
import re
from math import isfinite
from typing import Final

MAX_VALUE_CHARS: Final = 256
_BARE = re.compile(r"[A-Za-z0-9._:/@+,;*%?&#()\[\]{}<>|~!$^-]+")
_ODD = re.compile(r"[^ !#-\[\]-~]")  # all but printable ASCII without quote and backslash
_SHORT = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_LONE = re.compile(r"[\ud800-\udfff]")
# Beyond this many readers of JSON round, or refuse.
_MAX_NUMBER: Final = 2**63


class Seconds(float):
    """A duration, written with three decimals."""

    def __str__(self) -> str:
        return f"{float(self):.3f}"


def safe(value: object) -> str:
    r"""Write a value so that it stays one word of one line of logfmt.

    Bytes count as UTF-8; one that is none becomes ``\xNN``.  Everything odd is escaped inside quotes, and what is
    beyond 256 characters is cut.
    """
    text = cut(value)
    return text if _BARE.fullmatch(text) else f'"{spell(text)}"'


def json_value(value: object) -> str:
    r"""Write a value as JSON (RFC 8259): numbers and booleans as such, all else as text of at most 256 characters.

    A byte that is no UTF-8 becomes the text ``\xNN``: lone surrogates are no JSON to many readers.
    """
    if isinstance(value, bool) or (isinstance(value, float) and isfinite(value)):
        return cut(value)
    if isinstance(value, int) and abs(value) < _MAX_NUMBER:
        return int.__repr__(value)
    return f'"{spell_json(plain(value))}"'


def cut(value: object) -> str:
    """Return the value as text of at most 256 characters."""
    if type(value) is str:
        text = value
    elif isinstance(value, bytes):
        # Four bytes make at least one character, so that no more than this is worth decoding.
        text = value[: 4 * MAX_VALUE_CHARS].decode("utf-8", "surrogateescape")
    elif isinstance(value, bool):
        text = "true" if value else "false"
    else:
        text = _text(value)
    return text[:MAX_VALUE_CHARS]


def plain(value: object) -> str:
    """Return the value as text that is whole Unicode."""
    return _LONE.sub(_named, cut(value))[:MAX_VALUE_CHARS]


def spell(text: str) -> str:
    """Escape what cannot stand in quotes of logfmt."""
    return _ODD.sub(_escape, text)


def spell_json(text: str) -> str:
    """Escape what cannot stand in a string of JSON, all but printable ASCII with it."""
    return json.dumps(text)[1:-1]


def _text(value: object) -> str:
    """Return the value in its own words; one that has none must not cost the line."""
    try:
        return str(value)
    except Exception:
        return f"<{type(value).__name__}>"


def _named(found: re.Match[str]) -> str:
    """Spell half a character, which stands for a byte that was no UTF-8."""
    code = ord(found.group())
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"\\u{code:04x}"


def _escape(found: re.Match[str]) -> str:
    """Spell one character in ASCII."""
    char = found.group()
    code = ord(char)
    if char in _SHORT:
        return _SHORT[char]
    if 0xDC80 <= code <= 0xDCFF:  # surrogateescape: a byte that was no UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
