"""Renewals: what is asked for outlives the lifecycle, and nobody waits for that (RULES G4)."""

from __future__ import annotations

from attrs import define, field
from twisted.internet.defer import fail, succeed
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from tests.doubles import ManualWorkers
from txociproxy.oci.names import Digest
from txociproxy.storage.s3.gate import Gate
from txociproxy.storage.s3.keys import Keys
from txociproxy.storage.s3.renewals import AT_ONCE, DAY_S, MAX_REMEMBERED, MAX_WAITING, RETRY_S, Renewals
from txociproxy.storage.s3.trouble import S3Trouble

KEYS = Keys("")
DAYS = 28


def digest(number: int) -> Digest:
    """Return one of many digests."""
    return Digest.of(str(number).encode())


@define(eq=False)
class FakeBucket:
    """Remembers what was renewed."""

    renewed: list[str] = field(factory=list)
    trouble: Exception | None = None

    def renew(self, key: str) -> None:
        """Remember it, or fail."""
        if self.trouble is not None:
            raise self.trouble
        self.renewed.append(key)


class RenewalTests(SynchronousTestCase):
    """Hits on old objects."""

    def setUp(self) -> None:
        """A bucket that is well."""
        self.clock, self.workers, self.bucket = Clock(), ManualWorkers(), FakeBucket()
        self.gate = Gate(self.clock, "the bucket")
        self.gate.probe = lambda: fail(S3Trouble("unreachable", "Refused", "the probe"))
        self.renewals = self.make(DAYS)

    def make(self, days: int) -> Renewals:
        """Make them for a lifecycle."""
        return Renewals(lambda: self.bucket, KEYS, self.workers, self.gate, self.clock, days)

    def test_the_sidecar_is_renewed_before_its_content(self) -> None:
        """Open content and held content, each under its own names."""
        for held in (False, True):
            self.renewals.add(digest(1), held)
            self.workers.work()
            self.assertEqual(self.bucket.renewed, [KEYS.sidecar(digest(1), held), KEYS.content(digest(1), held)])
            self.bucket.renewed.clear()
        self.assertEqual(self.renewals.done, 2)

    def test_nothing_happens_in_the_reactor(self) -> None:
        """Copies block."""
        self.renewals.add(digest(1), False)
        self.assertEqual(self.bucket.renewed, [])

    def test_an_object_is_renewed_once_until_it_can_be_old_again(self) -> None:
        """However often it is hit: while it waits, while it runs, and after it."""
        self.renewals.add(digest(1), False)
        self.renewals.add(digest(1), False)
        self.workers.work()
        self.clock.advance(DAYS * DAY_S / 2 - 1)
        self.renewals.add(digest(1), False)
        self.assertEqual((self.workers.work(), self.renewals.done), (0, 1))
        self.clock.advance(1)
        self.renewals.add(digest(1), False)
        self.assertEqual((self.workers.work(), self.renewals.done), (1, 2))

    def test_two_run_at_once_and_the_others_wait_for_them(self) -> None:
        """In the order in which they came."""
        for number in range(5):
            self.renewals.add(digest(number), False)
        self.assertEqual(len(self.workers.jobs), AT_ONCE)
        self.workers.work(1)
        self.assertEqual(len(self.workers.jobs), AT_ONCE)
        self.workers.work()
        self.assertEqual(self.bucket.renewed[1::2], [KEYS.content(digest(number)) for number in range(5)])

    def test_only_so_many_wait(self) -> None:
        """The others are hit again some day."""
        for number in range(MAX_WAITING + AT_ONCE + 5):
            self.renewals.add(digest(number), False)
        self.assertEqual(self.workers.work(), MAX_WAITING + AT_ONCE)
        self.renewals.add(digest(MAX_WAITING + AT_ONCE), False)
        self.assertEqual(self.workers.work(), 1)

    def test_what_is_remembered_is_bounded(self) -> None:
        """What was put in first makes room."""
        for number in range(MAX_REMEMBERED + 5):
            self.renewals.add(digest(number), False)
            self.workers.work()
        self.assertEqual(len(self.renewals._settled_until_s), MAX_REMEMBERED)

    def test_an_outage_drops_what_waits(self) -> None:
        """What runs ends by itself; after the outage a hit asks again."""
        for number in range(4):
            self.renewals.add(digest(number), False)
        self.gate.failed(S3Trouble("unreachable", "Refused", "HEAD"))
        self.renewals.add(digest(9), False)
        self.assertEqual(self.workers.work(), AT_ONCE)
        self.gate.probe = lambda: succeed(None)
        self.clock.advance(1)
        self.renewals.add(digest(3), False)
        self.assertEqual(self.workers.work(), 1)

    def test_one_that_failed_is_tried_again_after_an_hour(self) -> None:
        """One line says so; the gate stays open: that a copy takes too long is no outage."""
        self.bucket.trouble = S3Trouble("unreachable", "ReadTimeout", "copy_object")
        with capturedLogs() as lines:
            for number in range(3):
                self.renewals.add(digest(number), False)
            self.workers.work()
        self.assertEqual((len(lines), self.gate.is_open, self.renewals.done), (1, True, 0))
        self.assertIn("ReadTimeout", str(lines[0]["reason"]))
        self.bucket.trouble = None
        self.clock.advance(RETRY_S - 1)
        self.renewals.add(digest(0), False)
        self.assertEqual(self.workers.work(), 0)
        self.clock.advance(1)
        self.renewals.add(digest(0), False)
        self.workers.work()
        self.assertEqual(self.renewals.done, 1)

    def test_a_bucket_that_is_not_open_is_trouble_like_any_other(self) -> None:
        """It is not asked."""
        self.renewals = Renewals(lambda: None, KEYS, self.workers, self.gate, self.clock, DAYS)
        self.renewals.add(digest(0), False)
        self.workers.work()
        self.assertEqual((self.bucket.renewed, self.renewals.done), ([], 0))

    def test_without_a_lifecycle_nothing_is_renewed(self) -> None:
        """It never ends."""
        self.make(0).add(digest(1), False)
        self.assertEqual(self.workers.jobs, [])

    def test_after_its_end_nothing_begins(self) -> None:
        """What waits is forgotten."""
        for number in range(4):
            self.renewals.add(digest(number), False)
        self.renewals.stop()
        self.assertEqual(self.workers.work(), AT_ONCE)
