"""File operations that are remembered in order, and that fail, or end the process, where a test says so."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from tests.doubles import ManualWorkers
from txociproxy.storage.files import Files

T = TypeVar("T")
Moment = Literal["before", "during", "after"]
MOMENTS: tuple[Moment, ...] = ("before", "during", "after")


class Killed(BaseException):
    """The process has just been killed: nothing more happens in it."""


@define(eq=False)
class RecordingFiles(Files):
    """Plain files, watched.

    :ivar operations: what was done, as ``write spool`` or ``rename content``.
    :ivar faults: the error of every operation of this name from now on; a write does half of its work first.
    :ivar death: at which operation, counted from 0, and when, the process is killed.
    :ivar space_bytes: what the file system is said to have (free, in all); None is the truth.
    :ivar foreign: uses of descriptors that were closed already, or never ours.
    :ivar watches_power: whether :meth:`bury` can lose what was not synced.
    :ivar reaches_medium: whether syncs are done; thousands of them take their time, and :meth:`bury` knows of them.
    :ivar _unsynced: descriptors of our own on files whose bytes may not survive a loss of power.
    """

    operations: list[str] = field(factory=list)
    faults: dict[str, OSError] = field(factory=dict)
    death: tuple[int, Moment] | None = None
    space_bytes: tuple[int, int] | None = None
    foreign: list[str] = field(factory=list)
    is_dead: bool = False
    watches_power: bool = False
    reaches_medium: bool = True
    _open: dict[int, Path] = field(factory=dict)
    _inodes: dict[int, int] = field(factory=dict)
    _unsynced: dict[int, int] = field(factory=dict)

    def bury(self, power_is_lost: bool = False) -> None:
        """Do what the kernel does with a dead process' descriptors.

        :param power_is_lost: bytes that were never synced are gone as well.
        """
        self.is_dead = True
        for spare in self._unsynced.values():
            if power_is_lost:
                os.ftruncate(spare, 0)
            os.close(spare)
        for fd, inode in self._inodes.items():
            # A body that was found closes its descriptor itself, and the number may mean another file by now.
            with contextlib.suppress(OSError):
                if os.fstat(fd).st_ino == inode:
                    os.close(fd)
        self._open.clear()
        self._inodes.clear()
        self._unsynced.clear()

    # --- the operations

    def create(self, path: Path) -> int:
        """See :meth:`Files.create`."""
        create = super().create
        return self._do(f"create {about(path)}", lambda: self._opened(create(path), path))

    def lock(self, fd: int) -> bool:
        """See :meth:`Files.lock`."""
        return self._do(f"lock {self._name(fd)}", super().lock, fd)

    def lock_directory(self, path: Path) -> int:
        """See :meth:`Files.lock_directory`."""
        lock_directory = super().lock_directory
        return self._do("lock directory", lambda: self._opened(lock_directory(path), path))

    def write(self, fd: int, chunks: Sequence[bytes], offset_bytes: int) -> int:
        """See :meth:`Files.write`."""
        name, write = f"write {self._name(fd)}", super().write
        if self.watches_power and fd in self._open and fd not in self._unsynced:
            self._unsynced[fd] = os.dup(fd)

        def half() -> None:
            data = b"".join(chunks)
            write(fd, [data[: len(data) // 2]], offset_bytes)

        return self._do(name, write, fd, chunks, offset_bytes, half=half)

    def fsync(self, fd: int) -> None:
        """See :meth:`Files.fsync`."""
        self._do(f"fsync {self._name(fd)}", super().fsync if self.reaches_medium else _nothing, fd)
        if fd in self._unsynced:
            os.close(self._unsynced.pop(fd))

    def rename(self, old: Path, new: Path) -> None:
        """See :meth:`Files.rename`."""
        self._do(f"rename {about(new)}", super().rename, old, new)

    def fsync_directory(self, path: Path) -> None:
        """See :meth:`Files.fsync_directory`."""
        self._do("fsync directory", super().fsync_directory if self.reaches_medium else _nothing, path)

    def make_directory(self, path: Path) -> None:
        """See :meth:`Files.make_directory`."""
        if not path.is_dir():
            self._do("make directory", super().make_directory, path)

    def unlink(self, path: Path) -> bool:
        """See :meth:`Files.unlink`."""
        return self._do(f"unlink {about(path)}", super().unlink, path)

    def open(self, path: Path) -> int | None:
        """See :meth:`Files.open`."""
        open_ = super().open

        def opened() -> int | None:
            fd = open_(path)
            return None if fd is None else self._opened(fd, path)

        return self._do(f"open {about(path)}", opened)

    def read(self, path: Path, max_bytes: int) -> bytes | None:
        """See :meth:`Files.read`; its own open and close are not remembered."""
        return self._do(f"read {about(path)}", Files().read, path, max_bytes)

    def is_there(self, path: Path) -> bool:
        """See :meth:`Files.is_there`."""
        return self._do(f"look for {about(path)}", super().is_there, path)

    def measure(self, fd: int) -> tuple[int, float]:
        """See :meth:`Files.measure`."""
        return self._do(f"measure {self._name(fd)}", super().measure, fd)

    def touch(self, fd: int) -> None:
        """See :meth:`Files.touch`."""
        self._do(f"touch {self._name(fd)}", super().touch, fd)

    def close(self, fd: int) -> None:
        """See :meth:`Files.close`."""
        self._do(f"close {self._name(fd)}", super().close, fd)
        self._open.pop(fd, None)
        self._inodes.pop(fd, None)
        if fd in self._unsynced:
            # Closing syncs nothing: keep the file in sight under a number that cannot be taken again.
            self._unsynced[-1 - self._unsynced[fd]] = self._unsynced.pop(fd)

    def space(self, path: Path) -> tuple[int, int]:
        """See :meth:`Files.space`."""
        return self._do("space", lambda: self.space_bytes or Files().space(path))

    # --- what happens to each of them

    def _do(self, name: str, function: Callable[..., T], *args: object, half: Callable[[], None] | None = None) -> T:
        if self.is_dead:
            raise Killed
        number = len(self.operations)
        self.operations.append(name)
        self._die_at(number, "before")
        error = self.faults.get(name)
        if half is not None and (error is not None or self.death == (number, "during")):
            half()
        self._die_at(number, "during")
        if error is not None:
            raise error
        result = function(*args)
        self._die_at(number, "after")
        return result

    def _die_at(self, number: int, moment: Moment) -> None:
        if self.death == (number, moment):
            self.is_dead = True
            raise Killed

    def _opened(self, fd: int, path: Path) -> int:
        self._open[fd] = path
        self._inodes[fd] = os.fstat(fd).st_ino
        return fd

    def _name(self, fd: int) -> str:
        path = self._open.get(fd)
        if path is None:
            self.foreign.append(f"descriptor {fd} after {self.operations[-1:]}")
            return "foreign"
        return about(path)


def _nothing(_: object) -> None:
    """Do nothing."""


def about(path: Path) -> str:
    """Return what a path is, in a word."""
    ends = {".spool": "spool", ".meta": "new sidecar", ".json": "sidecar", ".held": "held content"}
    if path.name.endswith(".held.meta.json"):
        return "held sidecar"
    if path.parent.name == "_tags":
        return "tag"
    if path.name in ("writable", ".txociproxy.json"):
        return path.name
    if path.name in ("ingest", "_tags") or len(path.name) == 2 or path.is_dir():
        return "directory"
    return ends.get(path.suffix, "content")


@define(eq=False)
class MortalWorkers(ManualWorkers):
    """Workers of a process that may be killed: then no job ends any more, and nobody hears of one."""

    is_dead: bool = False

    def run(self, function: Callable[..., Any], *args: Any) -> Deferred[Any]:
        """Take a job, or nothing."""
        return Deferred() if self.is_dead else super().run(function, *args)

    def do(self, d: Deferred[Any], function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        """Do one job, unless the process is killed by it."""
        try:
            result = function(*args)
        except Killed:
            self.is_dead = True
            self.jobs.clear()
        except Exception:
            d.errback(Failure())
        else:
            d.callback(result)
