"""What belongs to the whole process when ``twistd`` runs us: signals, limits, and where log lines go."""

# Twisted's log file is untyped.
# mypy: allow-untyped-calls

from __future__ import annotations

import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any

from attrs import define
from twisted.python.logfile import LogFile

from txociproxy.logs import LogfmtObserver

# Connections of clients and upstreams, open files and spools; a usual soft limit is 1024.
WANTED_FILES = 65536


def raise_file_limit() -> None:
    """Allow ourselves as many descriptors as the system lets us, up to what we can use."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = WANTED_FILES if hard == resource.RLIM_INFINITY else min(hard, WANTED_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def keep_even_time(
    reactor: Any, wall: Callable[[], float] = time.time, even: Callable[[], float] = time.monotonic
) -> None:
    """Let timers go by a clock that nobody sets.

    Twisted's go by the wall clock: one that is put back by an hour would make every deadline an hour late.  Before the
    first timer only, since those that wait already were timed by the other clock.
    """
    if not reactor.getDelayedCalls():
        began_s = wall() - even()
        reactor.seconds = lambda: began_s + even()


def take_signals(reactor: Any, leave: Callable[[int], object] = os._exit) -> None:
    """End well at the first SIGTERM or SIGINT, and at once at the second.

    Twisted's own handlers let the process die by the signal after a clean end, and a second signal does nothing.
    They are set when the reactor starts, so this has to be called after that.
    """

    def at_once(number: int, _: FrameType | None) -> None:
        leave(128 + number)

    def first(number: int, _: FrameType | None) -> None:
        for each in (signal.SIGTERM, signal.SIGINT):
            signal.signal(each, at_once)
        reactor.callFromThread(reactor.stop)

    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, first)


def take_reloads(reactor: Any, reload: Callable[[], object]) -> None:
    """Reload at SIGHUP, which ends a process that says nothing about it; what comes early waits for the reactor."""
    signal.signal(signal.SIGHUP, lambda number, frame: reactor.callFromThread(reload))


def observer_for(twistd: Mapping[str, Any] | None, threshold: str) -> LogfmtObserver | None:
    """Return what writes our log lines to where ``twistd`` would; None where its user has chosen another log.

    :param twistd: the options of ``twistd`` itself; None when there is none.
    """
    if twistd is None or twistd.get("logger") or twistd.get("syslog"):
        return None
    name = twistd.get("logfile") or ("-" if twistd.get("nodaemon") else "twistd.log")
    return LogfmtObserver(write_line if name == "-" else FileWriter(name), threshold)


@define(eq=False)
class FileWriter:
    """Writes to a log file, which is opened by the first line: nothing is touched while options are read."""

    _name: str
    _file: LogFile | None = None

    def __call__(self, line: str) -> None:
        """Write one line."""
        if self._file is None:
            self._file = LogFile.fromFullPath(self._name)
        self._file.write(line)

    def close(self) -> None:
        """Close the file; the end of the process does so too."""
        if self._file is not None:
            self._file.close()


def write_line(line: str) -> None:
    """Write to the real standard output; ``sys.stdout`` is the log itself by then."""
    stdout = sys.__stdout__
    if stdout is not None:
        stdout.write(line)
        stdout.flush()
