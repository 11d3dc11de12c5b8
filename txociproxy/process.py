"""What belongs to the whole process when ``twistd`` runs us: signals, limits, and where log lines go."""

from __future__ import annotations

import os
import resource
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, Literal

from twisted.logger import Logger

from txociproxy.config import Config
from txociproxy.logs import LineObserver, as_json, logfmt
from txociproxy.logs.writers import FileWriter, SyslogWriter, is_journal, write_line
from txociproxy.upstreams.entries.unlisted import MAX_ASKS, MAX_BODIES

Leave = Callable[[int], object]
TellStarter = Callable[[str], object]
PutLimit = Callable[[int, tuple[int, int]], object]
# Connections of clients and upstreams, open files and spools; a usual soft limit is 1024.
WANTED_FILES = 65536
# Doors, pools, libraries, names that are looked up, tags and sidecars that are read.
OTHER_FILES = 128
ENDING = (signal.SIGTERM, signal.SIGINT)
# About three years: alarm clocks do not take every time that a person may write who means "for ever".
LONGEST_S = 1e8
# As much as ``twistd`` reads there.
STARTER_BYTES = 100

_log = Logger()


def raise_file_limit(needed: int = WANTED_FILES, put: PutLimit = resource.setrlimit) -> float:
    """Allow ourselves as many descriptors as the system lets us, up to what we can use; returns how many that is.

    Not every system says how far that is: macOS names no hard limit, and refuses more than another figure of its own.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return float("inf")
    for wanted in (max(WANTED_FILES, needed), needed):
        most = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
        if soft < most:
            with suppress(OSError, ValueError):
                put(resource.RLIMIT_NOFILE, (most, hard))
                return most
    return soft


def files_needed(config: Config) -> int:
    """Return how many descriptors all caps together may take (RULES A5).

    A connection and the file that is sent on it; an ingest, its spool, and what it opens to publish that; a relayed
    range; content that is carried from a bucket and its copy; and what upstreams may have open beside all that.
    """
    clients = 2 * config.max_connections
    arriving = 3 * config.max_ingests + config.max_range_relays
    carried = 2 * config.max_carried if config.s3 is not None else 0
    upstreams = sum(entry.max_connections for entry in config.upstreams)
    unlisted = MAX_BODIES + MAX_ASKS if config.unlisted == "public" else 0
    return clients + arriving + carried + upstreams + unlisted + OTHER_FILES


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


def leave_at_signals(leave: Leave = os._exit) -> None:
    """End at once at SIGTERM or SIGINT.

    That is for the start, before anybody is served: the kernel keeps signals without a handler from a process that is
    the first of its container, and a disk that hangs would keep it there.
    """
    for each in ENDING:
        signal.signal(each, lambda number, frame: leave(128 + number))


def starter_of(twistd: Mapping[str, Any] | None) -> TellStarter:
    """Return what tells whoever has started a daemon that it ends before it has begun, and why.

    That one waits for word from us.  ``twistd`` sends it when all is well, and for exceptions that are errors; at a
    :exc:`SystemExit`, or when a signal ends us, it would wait for ever, since it holds our end of the pipe open too.
    Not to be called after the start: the descriptor is closed then, and its number may be anybody's.
    """

    def tell(why: str) -> None:
        pipe = twistd.get("statusPipe") if twistd is not None else None
        if twistd is not None and pipe is not None:
            with suppress(OSError):
                os.unlink(twistd["pidfile"])
            with suppress(OSError):
                os.write(pipe, f"1 {why}".encode("ascii", "replace")[:STARTER_BYTES])

    return tell


@contextmanager
def telling(tell: TellStarter) -> Iterator[None]:
    """Tell the starter when this ends in a sentence (:exc:`SystemExit`)."""
    try:
        yield
    except SystemExit as end:
        tell(str(end))
        raise


def take_signals(reactor: Any, within_s: float, leave: Leave = os._exit) -> None:
    """End well at the first SIGTERM or SIGINT, and at once at the second.

    Twisted's own handlers let the process die by the signal after a clean end, and a second signal does nothing.
    They are set when the reactor starts, so this has to be called after that.

    :param within_s: how long the end may take; then the process leaves, see :func:`leave_at_last`.
    """

    def first(number: int, _: FrameType | None) -> None:
        leave_at_signals(leave)
        reactor.callFromThread(reactor.stop)
        leave_at_last(within_s, leave)

    for each in ENDING:
        signal.signal(each, first)


def leave_at_last(within_s: float, leave: Leave = os._exit) -> None:
    """End the process after so many seconds, with status 0, whatever still hangs; a later call sets another time.

    The reactor waits for threads of its own, which ask for addresses, as long as they take.  An alarm needs no
    thread and interrupts also one that waits for others; the second one comes if the log hangs too.
    """
    told: list[int] = []

    def fired(number: int, _: FrameType | None) -> None:
        if not told:
            told.append(number)
            with suppress(Exception):
                _log.error("something hangs at the end; the process leaves without it")
        leave(0)

    signal.signal(signal.SIGALRM, fired)
    signal.setitimer(signal.ITIMER_REAL, min(within_s, LONGEST_S), 1.0)


def take_reloads(reactor: Any, reload: Callable[[], object]) -> None:
    """Reload at SIGHUP, which ends a process that says nothing about it; what comes early waits for the reactor.

    SIGUSR1 would end it too, and is how users of ``twistd`` rotate logs: our log file needs no word about that, see
    :class:`FileWriter`.  A handler that does nothing is not passed on to helper programs; to ignore it would be.
    """
    signal.signal(signal.SIGHUP, lambda number, frame: reactor.callFromThread(reload))
    signal.signal(signal.SIGUSR1, lambda number, frame: None)


def observer_for(
    twistd: Mapping[str, Any] | None,
    threshold: str,
    log_format: Literal["logfmt", "json"] = "logfmt",
    journal_stream: str | None = None,
) -> LineObserver | None:
    """Return what writes our log lines to where ``twistd`` would; None where its user has chosen another log.

    :param twistd: the options of ``twistd`` itself; None when there is none.
    :param journal_stream: what systemd says about our standard output (JOURNAL_STREAM); then lines say their level.
    :raises SystemExit: the log file cannot be written; nobody would ever read about that later.
    """
    if twistd is None or twistd.get("logger"):
        return None
    form = as_json if log_format == "json" else logfmt
    if twistd.get("syslog"):
        return LineObserver(SyslogWriter(str(twistd.get("prefix") or "ociproxy")), threshold, form, marks=True)
    name = twistd.get("logfile") or ("-" if twistd.get("nodaemon") else "twistd.log")
    if name == "-":
        return LineObserver(write_line, threshold, form, marks=is_journal(journal_stream))
    writer = FileWriter(name)
    try:
        writer.open()
    except OSError as error:
        raise SystemExit(f"--logfile: {name}: {error.strerror}; choose another, or - for standard output") from error
    return LineObserver(writer, threshold, form)
