"""Log lines as logfmt: one event, one line, whatever bytes a client sent.

An event is ``log.info("pull", method="GET", status=200, client="192.0.2.1")`` and becomes::

    ts=2026-11-22T02:14:12.345Z level=info msg=pull method=GET status=200 client=192.0.2.1
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import PurePath
from traceback import extract_tb

from attrs import define
from twisted.logger import ILogObserver, LogEvent, Logger, LogLevel, formatEvent
from twisted.python.failure import Failure
from zope.interface import implementer

MAX_VALUE_CHARS = 256
LEVELS = ("trace", "debug", "info", "warn", "error", "critical")
_BARE = re.compile(r"[A-Za-z0-9._:/@+,;*%?&#()\[\]{}<>|~!$^-]+")
_ODD = re.compile(r"[^ !#-\[\]-~]")  # all but printable ASCII without quote and backslash
_SHORT = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
# What Twisted itself adds to an event, old style and new.
_RESERVED = frozenset(
    {"debug", "failure", "format", "isError", "logLevel", "message", "system", "time", "why", "printed"}
)


def safe(value: object) -> str:
    r"""Write a value so that it stays one word of one line (RULES A6).

    Bytes count as UTF-8; one that is none becomes ``\xNN``.  Everything odd is escaped inside quotes, and what is
    beyond 256 characters is cut.
    """
    text = cut(value)
    if _BARE.fullmatch(text):
        return text
    return '"' + _ODD.sub(_escape, text) + '"'


def cut(value: object) -> str:
    """Return the value as text of at most 256 characters."""
    if isinstance(value, bytes):
        # Four bytes make at least one character, so that no more than this is worth decoding.
        text = value[: 4 * MAX_VALUE_CHARS].decode("utf-8", "surrogateescape")
    elif isinstance(value, bool):
        text = "true" if value else "false"
    else:
        text = str(value)
    return text[:MAX_VALUE_CHARS]


def _escape(found: re.Match[str]) -> str:
    """Spell one character in ASCII."""
    char = found.group()
    code = ord(char)
    if char in _SHORT:
        return _SHORT[char]
    if 0xDC80 <= code <= 0xDCFF:  # surrogateescape: a byte that was no UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def logfmt(fields: Mapping[str, object]) -> str:
    """Write fields as one line, without its end; a field that is None is left out."""
    return " ".join(f"{_key(name)}={safe(value)}" for name, value in fields.items() if value is not None)


def _key(name: str) -> str:
    """Keep a field's name one word."""
    return re.sub(r"[^A-Za-z0-9_.]", "_", name)[:64] or "_"


@implementer(ILogObserver)
@define(eq=False)
class LogfmtObserver:
    """Writes events as logfmt lines.

    :ivar write: takes one whole line with its end.
    :ivar threshold: events below this level are left out.
    """

    write: Callable[[str], object]
    threshold: str = "info"

    def __call__(self, event: LogEvent) -> None:
        """Write one event; an event that cannot be written is not worth the process."""
        level: str = "trace" if event.get("log_trace") else event.get("log_level", LogLevel.info).name
        if LEVELS.index(level) < LEVELS.index(self.threshold):
            return
        with suppress(OSError, ValueError):  # a full disk or a closed pipe: nobody is left to be told
            self.write(logfmt(_fields(event, level)) + "\n")


def trace(log: Logger, text: str, **fields: object) -> None:
    """Log what is worth a line only to somebody who follows single requests to upstreams."""
    log.debug(text, log_trace=True, **fields)


def _fields(event: LogEvent, level: str) -> dict[str, object]:
    """Return the fields of an event's line in order."""
    moment = datetime.fromtimestamp(float(event.get("log_time", 0.0)), UTC)
    fields: dict[str, object] = {
        "ts": moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z",
        "level": level,
        "msg": formatEvent(event),
    }
    for name, value in event.items():
        if not name.startswith("log_") and name not in _RESERVED and name not in fields:
            fields[name] = value
    failure = event.get("log_failure")
    if isinstance(failure, Failure):
        fields["error"] = f"{failure.type.__name__ if failure.type else 'Failure'}: {failure.getErrorMessage()}"
        fields["trace"] = _trace(failure)
    return fields


def _trace(failure: Failure) -> str | None:
    """Say in one word where a failure comes from, innermost frame first."""
    frames = extract_tb(failure.getTracebackObject())
    return "<".join(f"{PurePath(frame.filename).name}:{frame.lineno}" for frame in reversed(frames)) or None
