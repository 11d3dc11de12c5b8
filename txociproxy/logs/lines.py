"""A whole log line: fields in order, and never longer than what a pipe takes in one piece."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

from attrs import frozen

from txociproxy.logs.values import cut, json_value, plain, safe, spell, spell_json

# PIPE_BUF of Linux: a write of so much is never mixed with another process's (POSIX, write).
MAX_LINE_BYTES: Final = 4096
# A mark of the level in front, and the line's end.
_BESIDE_BYTES: Final = 4
_CAPS: Final = (2048, 1024, 512, 256, 128, 64)
_KEY_CHARS: Final = 64
_NO_KEY = re.compile(r"[^A-Za-z0-9_.]")


@frozen
class _Form:
    """How fields become a line.

    :ivar pattern: of one field; ``between`` stands between two, ``around`` around all.
    :ivar text: a value as text, before it is spelt.
    """

    pattern: str
    between: str
    around: tuple[str, str]
    value: Callable[[object], str]
    text: Callable[[object], str]
    spell: Callable[[str], str]

    def line(self, fields: Mapping[str, object]) -> str:
        """Write a line; a field that is None is left out."""
        values: dict[str, object] = {}
        for name, value in fields.items():
            if value is not None:
                values.setdefault(_key(name), value)
        words = {key: self.value(value) for key, value in values.items()}
        line = self._joined(words)
        for cap in _CAPS:
            if _fits(line):
                return line
            words = {key: self._shortened(values[key], word, cap) for key, word in words.items()}
            line = self._joined(words)
        while not _fits(line):
            words.popitem()
            line = self._joined(words)
        return line

    def _joined(self, words: Mapping[str, str]) -> str:
        begin, end = self.around
        return begin + self.between.join([self.pattern % pair for pair in words.items()]) + end

    def _shortened(self, value: object, word: str, cap_chars: int) -> str:
        """Cut a value, not what it is written in."""
        if len(word) <= cap_chars:
            return word
        spelt, left_chars = "", cap_chars - 2
        for char in self.text(value):
            piece = self.spell(char)
            left_chars -= len(piece)
            if left_chars < 0:
                break
            spelt += piece
        return f'"{spelt}"'


_LOGFMT = _Form("%s=%s", " ", ("", ""), safe, cut, spell)
_JSON = _Form('"%s":%s', ",", ("{", "}"), json_value, plain, spell_json)


def logfmt(fields: Mapping[str, object]) -> str:
    """Write fields as one line of logfmt, without its end; a field that is None is left out."""
    return _LOGFMT.line(fields)


def as_json(fields: Mapping[str, object]) -> str:
    """Write fields as one line with an object of JSON, without its end; a field that is None is left out."""
    return _JSON.line(fields)


def _fits(line: str) -> bool:
    return len(line) <= MAX_LINE_BYTES - _BESIDE_BYTES


def _key(name: str) -> str:
    """Keep a field's name one word."""
    if len(name) <= _KEY_CHARS and name.isascii() and name.isidentifier():
        return name  # as nearly all are
    return _NO_KEY.sub("_", name)[:_KEY_CHARS] or "_"
