"""The file operations of the disk storage, each one a method, so that tests can record them and let them fail.

Everything here blocks and belongs into a thread.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from pathlib import Path


class Files:
    """Plain POSIX.  Every method raises OSError as the system does."""

    def create(self, path: Path) -> int:
        """Create a file that did not exist, open for writing and reading."""
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)

    def lock(self, fd: int) -> bool:
        """Take the lock that says that somebody alive owns this file; False if another has it."""
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def lock_directory(self, path: Path) -> int:
        """Wait for the lock of a directory; closing the descriptor gives it back."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def write(self, fd: int, chunks: Sequence[bytes], offset_bytes: int) -> int:
        """Write all chunks one after the other; returns how many bytes that was."""
        total_bytes = 0
        for chunk in chunks:
            view = memoryview(chunk)
            while view:
                written = os.pwrite(fd, view, offset_bytes + total_bytes)
                total_bytes += written
                view = view[written:]
        return total_bytes

    def fsync(self, fd: int) -> None:
        """Bring the file's bytes to the medium."""
        os.fsync(fd)

    def rename(self, old: Path, new: Path) -> None:
        """Give the file its final name, atomically."""
        os.rename(old, new)

    def fsync_directory(self, path: Path) -> None:
        """Bring the directory's names to the medium."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def make_directory(self, path: Path) -> None:
        """Make a directory and those above it, durably."""
        if path.is_dir():
            return
        self.make_directory(path.parent)
        path.mkdir(mode=0o750, exist_ok=True)
        self.fsync_directory(path.parent)

    def unlink(self, path: Path) -> bool:
        """Remove a name; False if it was not there."""
        try:
            os.unlink(path)
        except FileNotFoundError:
            return False
        return True

    def is_there(self, path: Path) -> bool:
        """Say whether the name exists."""
        try:
            os.lstat(path)
        except FileNotFoundError:
            return False
        return True

    def open(self, path: Path) -> int | None:
        """Open a file for reading; None if it does not exist."""
        try:
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None

    def read(self, path: Path, max_bytes: int) -> bytes | None:
        """Return a small file whole; None if it does not exist."""
        fd = self.open(path)
        if fd is None:
            return None
        try:
            return os.read(fd, max_bytes)
        finally:
            os.close(fd)

    def read_open(self, fd: int, count: int) -> bytes:
        """Return the first bytes of an open file; fewer if there are not so many."""
        return os.pread(fd, count, 0)

    def measure(self, fd: int) -> tuple[int, float]:
        """Return (size in bytes, time of last use in seconds since the epoch)."""
        stat = os.fstat(fd)
        return stat.st_size, stat.st_mtime

    def close(self, fd: int) -> None:
        """Let go of a descriptor."""
        os.close(fd)

    def touch(self, fd: int) -> None:
        """Set the time of last use to now."""
        os.utime(fd)

    def space(self, path: Path) -> tuple[int, int]:
        """Return (bytes free for us, bytes in all) of the file system."""
        stat = os.statvfs(path)
        return stat.f_bavail * stat.f_frsize, stat.f_blocks * stat.f_frsize

    def names(self, path: Path) -> Iterator[str]:
        """Iterate over the names in a directory; nothing if it does not exist or is none."""
        try:
            yield from sorted(os.listdir(path))
        except (FileNotFoundError, NotADirectoryError):
            return


def put(files: Files, temporary: Path, final: Path, data: bytes) -> None:
    """Write a small file whole and atomically; the new name is durable once its directory is.  Threads only."""
    fd = files.create(temporary)
    try:
        files.lock(fd)
        files.write(fd, [data], 0)
        files.fsync(fd)
        files.rename(temporary, final)
    except BaseException:
        files.unlink(temporary)
        raise
    finally:
        files.close(fd)
