"""Where log lines go: standard output, a file, syslog."""

# Twisted's log file is untyped.
# mypy: allow-untyped-calls

from __future__ import annotations

import os
import sys
import syslog
from collections.abc import Callable
from contextlib import suppress
from typing import IO

from attrs import define, field
from twisted.python.logfile import LogFile


def write_line(line: str) -> None:
    """Write to the real standard output, in one piece; ``sys.stdout`` is the log itself by then.

    Past its buffer: what a closed pipe has not taken would spoil the end of the process.
    """
    stdout = sys.__stdout__
    if stdout is not None:  # a closed one is none: its number may be anybody's by now
        os.write(stdout.fileno(), line.encode("ascii", "backslashreplace"))


def _absolute(path: str) -> str:
    return os.path.abspath(path)


@define(eq=False)
class FileWriter:
    """Writes to a log file; whoever wants to know that it can be opens it before the first line.

    It is rotated as ``twistd`` does it; and when somebody else has moved it away, a new one is begun.  A device is
    never rotated: it would be moved away from all others.

    :ivar _name: made absolute at once, since ``twistd`` may change the directory later.
    """

    _name: str = field(converter=_absolute)
    _file: LogFile | None = None

    def __call__(self, line: str) -> None:
        """Write one line.

        :raises OSError: it cannot be written; the next line tries again.
        """
        if self._file is not None and self._is_gone(self._file._file):
            self.close()
        self.open().write(line)

    def open(self) -> LogFile:
        """Open the file, unless it is open.

        :raises OSError: it cannot be.
        """
        if self._file is None:
            is_device = os.path.exists(self._name) and not os.path.isfile(self._name)
            self._file = LogFile.fromFullPath(self._name, **({"rotateLength": None} if is_device else {}))
        return self._file

    def _is_gone(self, file: IO[bytes]) -> bool:
        """Say whether the name means another file by now, or none, or the file was closed by an error."""
        try:
            return not os.path.samestat(os.stat(self._name), os.fstat(file.fileno()))
        except (OSError, ValueError):
            return True

    def close(self) -> None:
        """Close the file; the end of the process does so too."""
        file, self._file = self._file, None
        if file is not None:
            with suppress(OSError, ValueError):
                file.close()


@define(eq=False)
class SyslogWriter:
    """Gives lines to syslog, each one as a message with the priority of its level.

    :ivar _ident: what every message is from.
    """

    _ident: str
    _begin: Callable[[str, int, int], object] = syslog.openlog
    _send: Callable[[int, str], object] = syslog.syslog
    _is_open: bool = False

    def __call__(self, line: str) -> None:
        """Send a line, which begins with ``<N>``."""
        if not self._is_open:
            self._is_open = True
            self._begin(self._ident, syslog.LOG_PID, syslog.LOG_DAEMON)
        self._send(int(line[1]), line[3:].rstrip("\n"))


def is_journal(stream: str | None, fd: int = 1) -> bool:
    """Say whether a descriptor leads to journald.

    :param stream: what systemd says about it: device and inode, as ``9:12345`` (systemd.exec(5), JOURNAL_STREAM).
        It stays in the environment when output goes elsewhere, so only the descriptor tells.
    """
    try:
        found = os.fstat(fd)
    except OSError:
        return False
    return stream == f"{found.st_dev}:{found.st_ino}"
