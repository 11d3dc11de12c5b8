"""Log lines: one event, one line, whatever bytes a client sent (RULES A6).

An event is ``log.info("pull", method="GET", status=200, client="192.0.2.1")`` and becomes::

    ts=2026-11-22T02:14:12.345Z level=info msg=pull method=GET status=200 client=192.0.2.1

or, as JSON, an object with the same fields in the same order.
"""

from __future__ import annotations

from txociproxy.logs.lines import MAX_LINE_BYTES, as_json, logfmt
from txociproxy.logs.naming import RequestName, named
from txociproxy.logs.observer import LEVELS, LineObserver, trace
from txociproxy.logs.values import MAX_VALUE_CHARS, Seconds, cut, safe

# What is written unless another form is asked for.
LogfmtObserver = LineObserver

__all__ = [
    "LEVELS",
    "MAX_LINE_BYTES",
    "MAX_VALUE_CHARS",
    "LineObserver",
    "LogfmtObserver",
    "RequestName",
    "Seconds",
    "as_json",
    "cut",
    "logfmt",
    "named",
    "safe",
    "trace",
]
