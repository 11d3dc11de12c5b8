"""The real ``twistd``, killed by its own file operations: ``python -m tests.e2e.durability_child ORDERS ARGS...``.

ORDERS is a file that appears when the process is to be killed, and says at which step.  The product knows nothing of
this: only the file operations that its service makes for its storage are others.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from twisted.scripts import twistd

from txociproxy import building
from txociproxy.storage.files import Files

# What is killed in the making of content, in the order of RULES G1.
STEPS = (
    "spool open",
    "mid write",
    "before fsync",
    "before the sidecar",
    "after the sidecar",
    "after the rename",
    "after the end",
)
# From here on the content is a hit.
PUBLISHED = STEPS[5:]


class DyingFiles(Files):
    """File operations of a process that is killed at one of them, or whose disk stops to answer."""

    def __init__(self, orders: Path) -> None:
        self._orders = orders

    def _reached(self, *steps: str) -> bool:
        return self._orders.exists() and self._orders.read_text() in steps

    def _die_at(self, *steps: str) -> None:
        if self._reached(*steps):
            os.kill(os.getpid(), signal.SIGKILL)

    def create(self, path: Path) -> int:
        """The spool is made by this, and the sidecar begun."""
        if path.suffix == ".meta":
            self._die_at("before the sidecar")
        fd = super().create(path)
        if path.suffix == ".spool":
            self._die_at("spool open")
        return fd

    def write(self, fd: int, chunks: Sequence[bytes], offset_bytes: int) -> int:
        """Half of this is done."""
        if self._reached("hang"):
            threading.Event().wait()
        if offset_bytes and self._reached("mid write"):
            data = b"".join(chunks)
            super().write(fd, [data[: len(data) // 2]], offset_bytes)
            self._die_at("mid write")
        return super().write(fd, chunks, offset_bytes)

    def space(self, path: Path) -> tuple[int, int]:
        """Some disks never answer."""
        if self._reached("hang"):
            threading.Event().wait()
        return super().space(path)

    def fsync(self, fd: int) -> None:
        """The first one of a commit is that of the content."""
        self._die_at("before fsync")
        super().fsync(fd)

    def rename(self, old: Path, new: Path) -> None:
        """First the sidecar gets its name, then the content."""
        super().rename(old, new)
        self._die_at("after the sidecar" if new.suffix == ".json" else "after the rename")

    def fsync_directory(self, path: Path) -> None:
        """The last thing a commit does; before, it makes directories with it."""
        super().fsync_directory(path)
        if any(path.glob("*.meta.json")):
            self._die_at("after the end")


def main(orders: Path, argv: list[str]) -> None:
    """Be ``twistd``."""
    vars(building)["Files"] = lambda: DyingFiles(orders)
    sys.argv = ["twistd", *argv]
    twistd.run()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
