"""The contract of IStorage, over every storage and every pace of its workers."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests import contracts
from tests.doubles import InlineWorkers, ManualWorkers
from tests.storage.disks import Disk
from tests.storage.recording import RecordingFiles
from txociproxy.storage.memory import MemoryStorage


class MemoryStorageTests(contracts.StorageContract, SynchronousTestCase):
    """Content in memory."""

    def setUp(self) -> None:
        """An empty store."""
        self.memory = self.storage = MemoryStorage()

    def fill_up(self) -> None:
        """Make the store smaller than it is."""
        self.memory.max_bytes = 0

    def test_it_knows_when_it_kept_something_if_it_has_a_clock(self) -> None:
        """And says nothing else."""
        self.assertIsNone(self.found(self.keep()).kept_at_s)
        self.memory.now = lambda: 1_800_000_000.5
        self.assertEqual(self.found(self.keep()).kept_at_s, 1_800_000_000.5)


class DiskStorageTests(contracts.RootContract, SynchronousTestCase):
    """Content on disk, with threads that work when they are let."""

    make_workers = ManualWorkers

    def setUp(self) -> None:
        """A prepared root."""
        self.disk = Disk(Path(self.mktemp()), self.make_workers())
        self.storage = self.disk.storage
        self.disk.storage.prepare("transparent")
        self.addCleanup(self.disk.files.bury)
        self.addCleanup(self.check)

    @property
    def files(self) -> RecordingFiles:
        """Those of the disk."""
        return self.disk.files

    @property
    def root(self) -> Path:
        """That of the disk."""
        return self.disk.root

    def work(self) -> None:
        """Let the threads work."""
        self.disk.work()


class InlineDiskStorageTests(DiskStorageTests):
    """Content on disk, with threads that are done before anybody looks."""

    make_workers = InlineWorkers  # type: ignore[assignment]
