"""The contract of IStorage, over every storage and every pace of its workers."""

from __future__ import annotations

import errno
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests import contracts
from tests.doubles import InlineWorkers, ManualWorkers
from tests.soundness import assert_nothing_open, assert_store_sound
from tests.storage.disks import Disk
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


class DiskStorageTests(contracts.StorageContract, SynchronousTestCase):
    """Content on disk, with threads that work when they are let."""

    make_workers = ManualWorkers

    def setUp(self) -> None:
        """A prepared root."""
        self.disk = Disk(Path(self.mktemp()), self.make_workers())
        self.storage = self.disk.storage
        self.disk.storage.prepare("transparent")
        self.addCleanup(self.disk.files.bury)
        self.addCleanup(self.check)

    def check(self) -> None:
        """Whatever a test did, the store is sound, and no descriptor was used by somebody it did not belong to."""
        assert_store_sound(self.disk.root)
        self.assertEqual(self.disk.files.foreign, [])

    def work(self) -> None:
        """Let the threads work."""
        self.disk.work()

    def fill_up(self) -> None:
        """Let the file system be full."""
        self.disk.files.faults["write spool"] = OSError(errno.ENOSPC, "No space left on device")

    def test_nothing_stays_open(self) -> None:
        """Committed, abandoned, found: every descriptor goes with its owner."""
        digest = self.keep()
        for spool in (self.begin(), self.storage.open_spool(digest, 5)):
            self.work()
            spool.close()
            self.work()
        local = self.find(digest)
        assert local is not None
        local.body.close()
        self.work()
        assert_nothing_open(self.disk.root)
        assert_store_sound(self.disk.root, is_at_rest=True)


class InlineDiskStorageTests(DiskStorageTests):
    """Content on disk, with threads that are done before anybody looks."""

    make_workers = InlineWorkers  # type: ignore[assignment]
