"""A disk that refuses, fills up or never answers (law 4, law 10): the spool dies, everything else lives on."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from twisted.internet.defer import CancelledError
from twisted.trial.unittest import SynchronousTestCase

from tests.contracts import TAG, record
from tests.doubles import InlineWorkers
from tests.soundness import assert_nothing_open, assert_store_sound
from tests.storage.disks import PATIENCE_S, Disk, Outcome
from txociproxy.interfaces import ISpool
from txociproxy.oci.errors import StorageUnavailable
from txociproxy.oci.names import Digest

DATA = bytes(range(256)) * 40
DIGEST = Digest.of(DATA)
HALF = len(DATA) // 2
ERRORS = (errno.EROFS, errno.EACCES, errno.ENOSPC, errno.EIO)
STEPS = ("create spool", "lock spool", "write spool")
COMMIT_STEPS = (
    "fsync spool",
    "make directory",
    "lock directory",
    "create new sidecar",
    "write new sidecar",
    "fsync new sidecar",
    "rename sidecar",
    "rename content",
)


class DiskCase(SynchronousTestCase):
    """A prepared root."""

    def setUp(self) -> None:
        """Let the threads work when they are told to."""
        self.disk = self.fresh()

    def fresh(self) -> Disk:
        """Return another root."""
        disk = Disk(Path(self.mktemp()))
        disk.storage.prepare("transparent")
        self.addCleanup(disk.files.bury)
        return disk

    def assert_dead(self, disk: Disk, spool: ISpool) -> None:
        """It says why, publishes nothing, and leaves neither file nor descriptor behind when it is closed."""
        self.assertIsInstance(spool.failure, StorageUnavailable)
        outcome = disk.commit(spool, DATA)
        disk.work()
        self.assertIsInstance(outcome.error, StorageUnavailable)
        disk.files.faults.clear()
        spool.close()
        disk.work()
        self.assertIsNone(disk.read(DIGEST))
        self.assert_clean(disk)

    def assert_clean(self, disk: Disk) -> None:
        """Nothing is left, and nobody touched a descriptor that was not his."""
        assert_nothing_open(disk.root)
        assert_store_sound(disk.root, is_at_rest=True)
        self.assertEqual(disk.files.foreign, [])


class RefusalTests(DiskCase):
    """Every operation that may fail, with every error."""

    def test_a_spool_that_fails_at_its_first_byte_is_dead(self) -> None:
        """What comes later is swallowed in silence."""
        for step in STEPS:
            for number in ERRORS:
                disk = self.fresh()
                disk.files.faults[step] = OSError(number, os.strerror(number))
                spool = disk.begin(DATA)
                self.assertEqual(spool.flushed_bytes, 0)
                self.assertIn(os.strerror(number), str(spool.failure))
                self.assert_dead(disk, spool)

    def test_a_spool_that_fails_in_the_middle_is_dead_and_what_it_holds_stays_readable(self) -> None:
        """A write that did half of its work counts as nothing."""
        for number in ERRORS:
            disk = self.fresh()
            spool = disk.storage.open_spool(DIGEST, len(DATA))
            spool.write(DATA[:HALF])
            disk.work()
            disk.files.faults["write spool"] = OSError(number, os.strerror(number))
            spool.write(DATA[HALF:])
            disk.work()
            self.assertEqual((spool.flushed_bytes, spool.read_at(0, 1 << 20)), (HALF, DATA[:HALF]))
            spool.abandon()
            disk.work()
            self.assertEqual(spool.read_at(100, 50), DATA[100:150])
            self.assert_dead(disk, spool)

    def test_a_commit_that_fails_at_any_step_publishes_nothing(self) -> None:
        """The commit says so, the spool is dead, and its bytes stay readable until it is closed."""
        for step in COMMIT_STEPS:
            for number in ERRORS:
                disk = self.fresh()
                spool = disk.begin(DATA)
                disk.files.faults[step] = OSError(number, os.strerror(number))
                outcome = disk.commit(spool, DATA)
                disk.work()
                self.assertIsInstance(outcome.error, StorageUnavailable, step)
                self.assertEqual(spool.read_at(0, 1 << 20), DATA)
                self.assert_dead(disk, spool)

    def test_a_directory_that_cannot_be_synced_hides_no_right_content(self) -> None:
        """The rename has happened: the caller is told of the trouble, and what is found is right."""
        spool = self.disk.begin(DATA)
        self.disk.files.make_directory(self.disk.layout.content(DIGEST).parent)
        self.disk.files.faults["fsync directory"] = OSError(errno.EIO, "Input/output error")
        outcome = self.disk.commit(spool, DATA)
        self.disk.work()
        self.assertIsInstance(outcome.error, StorageUnavailable)
        spool.close()
        self.disk.work()
        self.assertEqual(self.disk.read(DIGEST), DATA)
        self.assert_clean(self.disk)

    def test_a_dead_spool_stops_its_producer_and_tells_its_followers(self) -> None:
        """Once each."""
        told: list[str] = []

        class Producer:
            """Remembers that it was stopped."""

            def stopProducing(self) -> None:
                """Remember it."""
                told.append("stopped")

        self.disk.files.faults["write spool"] = OSError(errno.EIO, "Input/output error")
        spool = self.disk.storage.open_spool(DIGEST, None)
        spool.registerProducer(Producer(), True)  # type: ignore[arg-type]
        spool.follow(lambda: told.append("told"))
        for _ in range(2):
            spool.write(DATA)
            self.disk.work()
        self.assertEqual(told, ["stopped", "told"])
        spool.close()

    def test_a_root_that_was_emptied_under_us_is_used_again(self) -> None:
        """Somebody clears the cache while the process runs."""
        for path in (self.disk.layout.ingest, self.disk.layout.marker):
            path.rmdir() if path.is_dir() else path.unlink()
        self.assertEqual(self.disk.read(self.disk.keep(DATA)), DATA)

    def test_trouble_with_tags_is_no_trouble(self) -> None:
        """Unreadable is unknown, unwritable is forgotten."""
        for step in ("read tag", "make directory", "create spool", "fsync spool", "rename tag", "lock directory"):
            disk = self.fresh()
            disk.files.faults[step] = OSError(errno.EROFS, "Read-only file system")
            outcomes = [Outcome(disk.storage.record_tag(TAG, record("a/a")))]
            disk.work()
            outcomes += [Outcome(disk.storage.recall_tag(TAG)), Outcome(disk.storage.forget_tag(TAG))]
            disk.work()
            self.assertEqual([(each.ended, each.error) for each in outcomes], [(True, None)] * 3, step)
            self.assertEqual(outcomes[1].value, (), step)
            self.assert_clean(disk)

    def test_a_find_that_fails_is_unavailable_and_not_a_miss(self) -> None:
        """Nobody can tell; and nothing leaks."""
        self.disk.keep(DATA)
        for step in ("open content", "measure content"):
            self.disk.files.faults = {step: OSError(errno.EIO, "Input/output error")}
            self.assertRaises(StorageUnavailable, self.disk.read, DIGEST)
            self.assert_clean(self.disk)


class HangTests(DiskCase):
    """An operation that never returns, or very late."""

    def hang(self, count: int) -> None:
        """Let the threads do so many jobs; the next one hangs, while other threads go on with the rest."""
        self.disk.workers.work(count)
        self.late = self.disk.workers.jobs.pop(0)
        self.disk.work()

    def come_back(self) -> None:
        """Let the job that hung go on and end, and the threads work off what waited for it."""
        d, function, args = self.late
        d.callback(function(*args))
        self.disk.work()

    def test_a_write_that_hangs_keeps_its_descriptor_until_it_returns(self) -> None:
        """At 0 % and at 50 %: abandoned and closed meanwhile, and still no descriptor and no file is touched."""
        for done in (0, 1):
            self.disk = self.fresh()
            self.disk.files.operations.clear()
            spool = self.disk.storage.open_spool(DIGEST, len(DATA))
            spool.write(DATA[:HALF])
            if done:
                self.disk.work()
                spool.write(DATA[HALF:])
            self.hang(0)
            spool.abandon()
            spool.close()
            self.disk.work()
            self.assertEqual(set(self.disk.files.operations) & {"close spool", "unlink spool"}, set())
            self.come_back()
            self.assertEqual(self.disk.files.operations[-2:], ["unlink spool", "close spool"])
            self.assertEqual(spool.flushed_bytes, HALF if done else 0)
            self.assert_clean(self.disk)

    def test_what_was_flushed_before_the_hang_stays_readable(self) -> None:
        """Abandoned, but not closed."""
        spool = self.disk.begin(DATA[:HALF], chunk_bytes=HALF)
        spool.write(DATA[HALF:])
        self.hang(0)
        spool.abandon()
        self.assertEqual(spool.read_at(0, 1 << 20), DATA[:HALF])
        self.come_back()
        self.assertEqual((spool.flushed_bytes, spool.read_at(0, 1 << 20)), (HALF, DATA[:HALF]))

    def test_a_commit_that_hangs_is_given_up_and_may_still_come_true(self) -> None:
        """In fsync or rename: the caller abandons and closes; what comes late is right content or nothing."""
        spool = self.disk.begin(DATA)
        outcome = self.disk.commit(spool, DATA)
        self.hang(0)
        self.assertFalse(outcome.ended)
        spool.abandon()
        self.assertIsInstance(outcome.error, StorageUnavailable)
        spool.close()
        self.disk.work()
        self.assertNotIn("close spool", self.disk.files.operations[-2:])
        self.come_back()
        self.assertIn(self.disk.read(DIGEST), (None, DATA))
        self.assert_clean(self.disk)

    def test_a_commit_waits_for_the_writes_before_it(self) -> None:
        """And is not begun at all if it was abandoned meanwhile."""
        spool = self.disk.storage.open_spool(DIGEST, len(DATA))
        spool.write(DATA)
        outcome = self.disk.commit(spool, DATA)
        self.hang(0)
        self.assertFalse(outcome.ended)
        spool.close()
        self.assertIsInstance(outcome.error, StorageUnavailable)
        self.come_back()
        self.assertNotIn("fsync spool", self.disk.files.operations[-4:])
        self.assertIsNone(self.disk.read(DIGEST))
        self.assert_clean(self.disk)

    def test_a_find_that_hangs_is_unavailable_in_time_and_closes_what_it_opened_late(self) -> None:
        """The patience is the bound."""
        self.disk.keep(DATA)
        outcome = Outcome(self.disk.storage.find(DIGEST, "docker.io"))
        self.hang(0)
        self.disk.clock.advance(PATIENCE_S - 0.1)
        self.assertFalse(outcome.ended)
        self.disk.clock.advance(0.2)
        self.assertIsInstance(outcome.error, StorageUnavailable)
        self.come_back()
        self.assert_clean(self.disk)
        self.assertEqual(self.disk.clock.getDelayedCalls(), [])

    def test_a_find_that_nobody_waits_for_any_more_closes_what_it_opened(self) -> None:
        """The client left."""
        self.disk.keep(DATA)
        d = self.disk.storage.find(DIGEST, "docker.io")
        d.addErrback(lambda failure: failure.trap(CancelledError) and None)
        d.cancel()
        self.disk.work()
        self.assert_clean(self.disk)
        self.assertEqual(self.disk.clock.getDelayedCalls(), [])

    def test_with_every_thread_stuck_nothing_is_asked_of_them(self) -> None:
        """Finds and spools are unavailable at once, tags unknown."""
        self.disk.workers.is_stuck = True
        find, recall = Outcome(self.disk.storage.find(DIGEST, "x")), Outcome(self.disk.storage.recall_tag(TAG))
        self.assertIsInstance(find.error, StorageUnavailable)
        self.assertEqual((recall.ended, recall.value), (True, ()))
        self.assertRaises(StorageUnavailable, self.disk.storage.open_spool, DIGEST, 1)
        self.assertEqual(self.disk.workers.jobs, [])

    def test_writes_that_hang_make_no_hit_a_miss(self) -> None:
        """Reads have threads of their own."""
        self.disk.keep(DATA)
        disk = Disk(self.disk.root, readers=InlineWorkers())
        self.addCleanup(disk.files.bury)
        disk.workers.is_stuck = True
        found = self.successResultOf(disk.storage.find(DIGEST, "docker.io"))
        assert found is not None
        self.assertEqual(DATA, found.body.read_at(0, len(DATA)))
        found.body.close()

    def test_tags_on_a_disk_that_hangs_are_unknown_in_time(self) -> None:
        """Recall, record and forget end within the patience."""
        storage = self.disk.storage
        outcomes = [
            Outcome(awaitable)
            for awaitable in (
                storage.recall_tag(TAG),
                storage.record_tag(TAG, record("a/a")),
                storage.forget_tag(TAG),
            )
        ]
        self.disk.clock.advance(PATIENCE_S + 0.1)
        self.assertEqual([(each.ended, each.error) for each in outcomes], [(True, None)] * 3)
        self.disk.work()
