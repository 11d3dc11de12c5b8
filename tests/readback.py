"""A reader of logfmt that knows nothing of our writer."""

from __future__ import annotations

import re

_PAIR = re.compile(r'([A-Za-z0-9_.]+)=("(?:[^"\\]|\\.)*"|[^ "\\=]+)(?: |$)')
_ESCAPE = re.compile(r"\\(?:x([0-9a-f]{2})|u([0-9a-f]{4})|U([0-9a-f]{8})|(.))")


def _unescape(found: re.Match[str]) -> str:
    """Read one escape."""
    byte, short, long, plain = found.groups()
    if byte is not None:
        return chr(0xDC00 + int(byte, 16))
    if plain is not None:
        return {"n": "\n", "r": "\r", "t": "\t"}.get(plain, plain)
    return chr(int(short or long, 16))


def parse_logfmt(line: str) -> dict[str, str]:
    """Read a line back; anything that is not exactly a list of pairs, each name once, is an error."""
    fields: dict[str, str] = {}
    at = 0
    while at < len(line):
        found = _PAIR.match(line, at)
        if found is None or found.group(1) in fields:
            raise ValueError(f"not logfmt at {at}: {line!r}")
        value = found.group(2)
        fields[found.group(1)] = _ESCAPE.sub(_unescape, value[1:-1]) if value.startswith('"') else value
        at = found.end()
    return fields
