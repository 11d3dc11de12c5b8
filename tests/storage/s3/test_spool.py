"""Content arrives within a budget, is marked before it is committed, and is uploaded after that."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.task import Clock
from twisted.logger import LogEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from tests.doubles import ManualWorkers
from tests.soundness import assert_nothing_open, assert_store_sound
from tests.storage.disks import BLOB_TYPE, Disk, Outcome
from txociproxy.interfaces import ISpool
from txociproxy.oci.errors import BodyLost, NoSpace, StorageUnavailable
from txociproxy.oci.names import Descriptor, Digest
from txociproxy.storage.s3.budget import Budget
from txociproxy.storage.s3.gate import Gate
from txociproxy.storage.s3.spool import S3Spool
from txociproxy.storage.s3.uploads import Uploads
from txociproxy.storage.s3.waiting import Waiting

DATA = bytes(range(256)) * 40
DIGEST = Digest.of(DATA)
SIZE = len(DATA)


class Producer:
    """Remembers that it was stopped."""

    def __init__(self) -> None:
        self.stops = 0

    def stopProducing(self) -> None:
        """Count."""
        self.stops += 1


class SpoolCase(SynchronousTestCase):
    """A local disk with room for three contents; what was committed waits until the test uploads."""

    def setUp(self) -> None:
        """Nothing is there."""
        self.disk = Disk(Path(self.mktemp()))
        self.disk.storage.prepare("transparent")
        self.addCleanup(self.disk.files.bury)
        self.waiting = Waiting(self.disk.files, self.disk.layout)
        self.clock = Clock()
        self.published: list[Digest] = []
        self.s3_workers = ManualWorkers()
        self.uploads = Uploads(
            lambda digest, _: self.published.append(digest),
            self.done,
            self.s3_workers,
            Gate(self.clock, "the bucket"),
            self.clock,
        )
        self.uploads.start()
        self.budget = Budget(3 * SIZE, self.uploads, self.clock, 5)

    async def done(self, digest: Digest) -> None:
        """Remove the local copy."""
        await self.disk.workers.run(self.waiting.finish, digest)

    def upload(self) -> None:
        """Let everything be uploaded."""
        for _ in range(5):
            self.s3_workers.work()
            self.disk.work()

    def open(self, size_bytes: int | None = SIZE) -> S3Spool:
        """Open a spool."""
        self.budget.check(size_bytes or 0)
        inner = self.disk.storage.open_spool(DIGEST, size_bytes)
        spool = S3Spool(inner, size_bytes, self.waiting, self.uploads, self.budget, self.disk.workers)
        self.addCleanup(self.disk.work)
        self.addCleanup(spool.close)
        return spool

    def write(self, spool: S3Spool, data: bytes = DATA) -> S3Spool:
        """Write, and let it be written."""
        for start in range(0, len(data), 1000):
            spool.write(data[start : start + 1000])
            self.disk.work()
        return spool

    def commit(self, spool: S3Spool, data: bytes = DATA) -> Outcome:
        """Commit; the threads have not worked yet."""
        return Outcome(spool.commit(Descriptor(Digest.of(data), len(data), BLOB_TYPE), (), "docker.io", held=False))

    def keep(self, data: bytes = DATA) -> None:
        """Keep content locally."""
        spool = self.write(self.open(len(data)), data)
        outcome = self.commit(spool, data)
        self.disk.work()
        self.assertEqual((outcome.ended, outcome.error), (True, None))
        spool.close()
        self.disk.work()

    def assert_clean(self) -> None:
        """Nothing is promised, nothing lies about, nothing is open."""
        self.upload()
        self.assertEqual((self.budget.used_bytes, self.uploads.waiting, self.waiting.marks()), (0, 0, []))
        assert_nothing_open(self.disk.root)
        assert_store_sound(self.disk.root, is_at_rest=True)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class CommitTests(SpoolCase):
    """From the last byte to the upload."""

    def test_it_is_a_spool(self) -> None:
        """With all that its seam asks for."""
        verifyObject(ISpool, self.open())

    def test_the_mark_is_durable_before_the_commit_begins(self) -> None:
        """And the upload comes after it."""
        spool = self.write(self.open())
        self.disk.files.operations.clear()
        outcome = self.commit(spool)
        self.disk.workers.work(1)
        self.assertEqual(self.disk.files.operations[-1], "fsync directory")
        self.assertNotIn("fsync spool", self.disk.files.operations)
        self.assertEqual((self.waiting.marks(), self.s3_workers.jobs), ([DIGEST], []))
        self.disk.work()
        self.assertTrue(outcome.ended)
        self.assertEqual((self.disk.read(DIGEST), self.uploads.holds(DIGEST)), (DATA, True))
        spool.close()
        self.disk.work()
        self.upload()
        self.assertEqual((self.published, self.disk.read(DIGEST)), ([DIGEST], None))
        self.assert_clean()

    def test_the_digest_that_was_proven_is_the_one_that_waits(self) -> None:
        """Whatever the spool was opened for."""
        other = b"something else"
        spool = self.write(self.open(len(other)), other)
        self.commit(spool, other)
        self.disk.work()
        self.assertEqual(self.waiting.marks(), [Digest.of(other)])

    def let_go_slowly(self) -> Callable[[], None]:
        """Keep content, and let the removal of its copy after the upload hang; returns what lets it go on."""
        self.keep()
        self.s3_workers.work()
        d, function, args = self.disk.workers.jobs.pop(0)
        return lambda: d.callback(function(*args))

    def test_a_commit_waits_for_the_old_copy_to_be_let_go(self) -> None:
        """Else it would go with it, or its mark."""
        go_on = self.let_go_slowly()
        spool = self.write(self.open())
        self.disk.files.operations.clear()
        outcome = self.commit(spool)
        self.disk.work()
        self.assertEqual((outcome.ended, self.disk.files.operations), (False, []))
        go_on()
        self.disk.work()
        self.assertTrue(outcome.ended)
        self.assertEqual((self.waiting.marks(), self.disk.read(DIGEST)), ([DIGEST], DATA))
        self.upload()
        self.assertEqual(self.published, [DIGEST, DIGEST])

    def test_abandoned_while_it_waits_it_is_never_marked(self) -> None:
        """What waits for nothing does nothing."""
        go_on = self.let_go_slowly()
        spool = self.write(self.open())
        outcome = self.commit(spool)
        spool.close()
        self.assertIsInstance(outcome.error, StorageUnavailable)
        go_on()
        self.disk.files.operations.clear()
        self.upload()
        self.assertNotIn("create content", self.disk.files.operations)
        self.assert_clean()

    def test_a_mark_that_cannot_be_made_kills_the_spool(self) -> None:
        """Nothing is committed that a death could lose; it is told as every death."""
        producer, told = Producer(), list[bool]()
        spool = self.write(self.open())
        spool.registerProducer(producer, True)  # type: ignore[arg-type]
        spool.follow(lambda: told.append(True))
        self.disk.files.faults["fsync content"] = OSError(errno.EIO, "Input/output error")
        outcome = self.commit(spool)
        self.disk.work()
        self.assertIsInstance(outcome.error, StorageUnavailable)
        self.assertIs(outcome.error, spool.failure)
        self.assertEqual((producer.stops, told), (1, [True]))
        self.assertEqual((spool.read_at(0, SIZE), self.disk.read(DIGEST)), (DATA, None))
        self.disk.files.faults.clear()
        spool.close()
        self.disk.work()
        self.assert_clean()

    def test_a_commit_that_fails_takes_its_mark_with_it(self) -> None:
        """At every step; the budget has its bytes back at once."""
        for step in ("fsync spool", "lock directory", "rename sidecar", "rename content"):
            spool = self.write(self.open())
            self.disk.files.faults = {step: OSError(errno.EIO, "Input/output error")}
            outcome = self.commit(spool)
            self.disk.work()
            self.assertIsInstance(outcome.error, StorageUnavailable, step)
            self.assertEqual((self.budget.used_bytes, self.waiting.marks()), (0, [DIGEST]))
            self.disk.files.faults = {}
            spool.close()
            self.disk.work()
            self.assert_clean()

    def test_what_nobody_expects_ends_the_commit_and_leaves_the_digest_free(self) -> None:
        """Nobody waits for it for ever."""

        spool = self.write(self.open())
        spool._waiting = Waiting(self.disk.files, None)  # type: ignore[arg-type]
        outcome = Outcome(spool.commit(Descriptor(DIGEST, SIZE, BLOB_TYPE), (), "docker.io", False))
        self.disk.work()
        self.assertIsInstance(outcome.error, StorageUnavailable)
        again = self.write(self.open())
        outcome = Outcome(again.commit(Descriptor(DIGEST, SIZE, BLOB_TYPE), (), "docker.io", False))
        self.disk.work()
        self.assertEqual((outcome.ended, outcome.error), (True, None))

    def test_abandoned_before_its_mark_it_is_never_committed(self) -> None:
        """Nor marked."""
        spool = self.write(self.open())
        outcome = self.commit(spool)
        job = self.disk.workers.jobs.pop(0)
        spool.abandon()
        self.assertIsInstance(outcome.error, StorageUnavailable)
        self.disk.workers.jobs.insert(0, job)
        self.disk.work()
        self.assertEqual((self.disk.read(DIGEST), spool.read_at(0, 5)), (None, DATA[:5]))
        self.assertIsNone(spool.failure, "nothing failed")
        spool.close()
        self.disk.work()
        self.assert_clean()

    def test_a_commit_that_is_given_up_and_comes_true_all_the_same_is_uploaded(self) -> None:
        """The disk hangs: the caller has gone, and nothing that appears here late is forgotten."""
        spool = self.write(self.open())
        outcome = self.commit(spool)
        self.disk.workers.work(1)
        d, function, args = self.disk.workers.jobs.pop(0)
        for _ in range(2):
            spool.abandon()
            spool.close()
        self.assertIsInstance(outcome.error, StorageUnavailable)
        self.assertRaises(BodyLost, spool.read_at, 0, 5)
        self.upload()
        self.assertEqual(self.waiting.marks(), [DIGEST])
        d.callback(function(*args))
        self.disk.work()
        self.assertEqual((self.disk.read(DIGEST), self.budget.used_bytes), (DATA, SIZE))
        self.upload()
        self.assertEqual(self.published, [DIGEST])
        self.assert_clean()


class BudgetTests(SpoolCase):
    """What arrives and what waits share the disk."""

    def test_what_waits_leaves_less_for_what_arrives(self) -> None:
        """To the byte; after the upload there is room again."""
        self.keep()
        self.keep(DATA[::-1])
        self.assertEqual(self.budget.used_bytes, 2 * SIZE)
        self.assertRaises(NoSpace, self.open, SIZE + 1)
        spool = self.open(SIZE)
        self.assertRaises(NoSpace, self.open, 1)
        self.assertRaises(NoSpace, self.open, None)
        spool.abandon()
        self.upload()
        self.assertEqual(self.budget.used_bytes, 0)
        self.open(3 * SIZE)

    def test_every_end_gives_the_promise_back(self) -> None:
        """Abandoned, closed, dead; once, however often it ends."""
        for number in range(4):
            spool = self.write(self.open(3 * SIZE))
            self.assertEqual(self.budget.used_bytes, 3 * SIZE)
            if number == 1:
                self.disk.files.faults["write spool"] = OSError(errno.EIO, "Input/output error")
                self.write(spool)
                self.disk.files.faults.clear()
            if number % 2 == 0:
                spool.abandon()
                self.assertEqual(self.budget.used_bytes, 0)
            other = self.open(10) if number < 2 else None
            spool.close()
            self.disk.work()
            self.assertEqual(self.budget.used_bytes, 0 if other is None else 10)
            if other is not None:
                other.close()
        self.disk.work()
        self.assert_clean()

    def test_a_spool_of_unknown_size_dies_when_it_does_not_fit_any_more(self) -> None:
        """Told once, its producer stopped, and what was flushed stays readable."""
        self.keep()
        producer, told = Producer(), list[Any]()
        spool = self.open(None)
        spool.registerProducer(producer, True)  # type: ignore[arg-type]
        self.write(spool, bytes(2 * SIZE))
        self.assertIsNone(spool.failure)
        spool.follow(lambda: told.append(spool.failure))
        for _ in range(3):
            self.write(spool, b"x")
        self.assertIsInstance(spool.failure, NoSpace)
        self.assertEqual((producer.stops, told), (1, [spool.failure]))
        self.assertEqual((spool.flushed_bytes, spool.read_at(2 * SIZE - 2, 9)), (2 * SIZE, bytes(2)))
        self.assertEqual(self.budget.used_bytes, SIZE)
        self.assertIsInstance(self.commit(spool).error, NoSpace)
        spool.abandon()
        self.disk.work()
        self.assertEqual(spool.read_at(0, 3), bytes(3))
        spool.close()
        self.assertRaises(BodyLost, spool.read_at, 0, 3)
        self.assertRaises(BodyLost, spool.extent_at, 0, 3)
        self.disk.work()
        self.assert_clean()

    def test_one_that_lied_about_its_size_is_counted_as_it_is(self) -> None:
        """It may grow while there is room, and no further."""
        spool = self.write(self.open(10), bytes(3 * SIZE))
        self.assertEqual((self.budget.used_bytes, spool.failure), (3 * SIZE, None))
        self.write(spool, b"x")
        self.assertIsInstance(spool.failure, NoSpace)

    def test_a_producer_that_has_left_is_not_stopped(self) -> None:
        """Nobody calls it any more."""
        producer = Producer()
        spool = self.open(None)
        spool.registerProducer(producer, True)  # type: ignore[arg-type]
        spool.unregisterProducer()
        self.write(spool, bytes(3 * SIZE + 1))
        self.assertEqual((type(spool.failure), producer.stops), (NoSpace, 0))

    def test_a_disk_that_fails_stops_the_producer_once(self) -> None:
        """The inner spool tells of its own death."""
        producer, told = Producer(), list[bool]()
        self.disk.files.faults["write spool"] = OSError(errno.ENOSPC, "No space left on device")
        spool = self.open(None)
        spool.registerProducer(producer, True)  # type: ignore[arg-type]
        spool.follow(lambda: told.append(True))
        self.write(spool)
        self.assertEqual((producer.stops, told), (1, [True]))
        self.assertIsInstance(spool.failure, StorageUnavailable)
        self.assertEqual(self.budget.used_bytes, 0)

    def test_the_bytes_of_a_commit_are_counted_once(self) -> None:
        """They change from arriving to waiting in one turn; the same content twice is one copy."""
        for _ in range(2):
            self.keep()
            self.assertEqual(self.budget.used_bytes, SIZE)

    def test_a_commit_that_fails_beside_a_copy_that_waits_takes_nothing_from_its_bytes(self) -> None:
        """That copy is still there."""
        self.keep()
        spool = self.write(self.open())
        self.disk.files.faults = {"fsync spool": OSError(errno.EIO, "Input/output error")}
        self.commit(spool)
        self.disk.work()
        self.assertEqual(self.budget.used_bytes, SIZE)

    def test_only_so_many_may_wait(self) -> None:
        """However small they are."""
        for n in range(5):
            self.keep(bytes([n]))
        self.assertRaises(NoSpace, self.open, 1)
        self.upload()
        self.open(1)

    def test_one_warning_an_hour(self) -> None:
        """However many pulls go on unkept."""
        warnings: list[str] = []

        def observe(event: LogEvent) -> None:
            if event.get("log_namespace") == Budget.__module__ + ".Budget":
                warnings.append(event["log_format"].format(**event))

        globalLogPublisher.addObserver(observe)  # type: ignore[arg-type]
        self.addCleanup(globalLogPublisher.removeObserver, observe)  # type: ignore[arg-type]
        for hour in range(3):
            for _ in range(10):
                self.assertRaises(NoSpace, self.open, 4 * SIZE)
            self.assertEqual(len(warnings), hour + 1)
            self.clock.advance(3600)
        self.assertIn(str(3 * SIZE), warnings[0])
