"""Events of Twisted's logger become lines."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import PurePath
from traceback import extract_tb
from typing import Final

from attrs import define
from twisted.logger import ILogObserver, LogEvent, Logger, LogLevel, formatEvent
from twisted.python.failure import Failure
from zope.interface import implementer

from txociproxy.logs.lines import logfmt
from txociproxy.logs.naming import current_id

LEVELS: Final = ("trace", "debug", "info", "warn", "error", "critical")
# As syslog numbers them (RFC 5424, section 6.2.1); journald reads them in front of a line (sd-daemon(3)).
PRIORITIES: Final = {"trace": 7, "debug": 7, "info": 6, "warn": 4, "error": 3, "critical": 2}
# What Twisted itself adds to an event, old style and new.
_RESERVED = frozenset(
    {"debug", "failure", "format", "isError", "logLevel", "message", "system", "time", "why", "printed"}
)


@implementer(ILogObserver)
@define(eq=False)
class LineObserver:
    """Writes events as lines.

    :ivar write: takes one whole line with its end.
    :ivar threshold: events below this level are left out.
    :ivar form: makes a line of fields, at most 4092 characters of ASCII.
    :ivar marks: whether a line begins with ``<N>``, the number of its level in syslog.
    """

    write: Callable[[str], object]
    threshold: str = "info"
    form: Callable[[Mapping[str, object]], str] = logfmt
    marks: bool = False

    def __call__(self, event: LogEvent) -> None:
        """Write one event; an event that cannot be written is not worth the process."""
        level: str = "trace" if event.get("log_is_trace") else event.get("log_level", LogLevel.info).name
        if LEVELS.index(level) < LEVELS.index(self.threshold):
            return
        mark = f"<{PRIORITIES[level]}>" if self.marks else ""
        with suppress(OSError, ValueError):  # a full disk or a closed pipe: nobody is left to be told
            self.write(f"{mark}{self.form(_fields(event, level))}\n")


def trace(log: Logger, text: str, **fields: object) -> None:
    """Log what is worth a line only to somebody who follows single requests to upstreams."""
    # Twisted has a log_trace of its own, which is a list.
    log.debug(text, log_is_trace=True, **fields)


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
    if "request_id" not in fields:  # a line that says None belongs to no request, whoever it was that led to it
        fields["request_id"] = current_id()
    return fields


def _trace(failure: Failure) -> str | None:
    """Say in one word where a failure comes from, innermost frame first."""
    frames = extract_tb(failure.getTracebackObject())
    return "<".join(f"{PurePath(frame.filename).name}:{frame.lineno}" for frame in reversed(frames)) or None
