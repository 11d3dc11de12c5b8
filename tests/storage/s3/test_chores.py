"""What is done for a bucket now and then."""

from __future__ import annotations

from typing import Any, cast

from attrs import define, evolve, field
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from tests.doubles import ManualWorkers
from txociproxy.storage.s3.bucket import Bucket
from txociproxy.storage.s3.chores import Chores
from txociproxy.storage.s3.gate import Gate
from txociproxy.storage.s3.keys import Keys
from txociproxy.storage.s3.settings import S3Settings
from txociproxy.storage.s3.trouble import S3Trouble

HOUR_S = 3600.0
TROUBLE = S3Trouble("refused", "AccessDenied", "list_multipart_uploads")


@define(eq=False)
class Told:
    """A bucket that does nothing, and remembers what it was told.

    :ivar trouble: what comes of looking for old uploads.
    """

    done: list[tuple[object, ...]] = field(factory=list)
    trouble: S3Trouble | None = None

    def ask(self, operation: str, **parameters: Any) -> dict[str, Any]:
        """Have no rules, and take all."""
        self.done.append((operation,))
        return {}

    def abort_old_uploads(self, prefix: str, older_than_s: float) -> int:
        """Find none."""
        self.done.append(("abort_old_uploads", prefix, older_than_s))
        if self.trouble is not None:
            raise self.trouble
        return 0

    def page(self, prefix: str, after: str | None) -> tuple[list[tuple[str, int]], str | None]:
        """Have nothing."""
        self.done.append(("page", prefix))
        return [], None


class ChoreTests(SynchronousTestCase):
    """At the start, once a day, and after every outage; never a reason for one."""

    def setUp(self) -> None:
        """A bucket, and threads that work when they are let."""
        self.bucket, self.workers, self.clock = Told(), ManualWorkers(), Clock()
        self.gate = Gate(self.clock, "the bucket")
        self.settings = S3Settings(prefix="fleet")
        self.refreshed = 0
        self.addCleanup(self.gate.stop)

    def make(self, is_open: bool = True, **changes: Any) -> Chores:
        """Start the chores."""
        bucket = cast(Bucket, self.bucket) if is_open else None
        settings = evolve(self.settings, **changes)
        chores = Chores(lambda: bucket, self.refresh, Keys("fleet"), settings, self.workers, self.gate, self.clock)
        chores.start()
        self.addCleanup(chores.stop)
        return chores

    def refresh(self) -> None:
        """Take the credentials anew."""
        self.refreshed += 1

    def work(self) -> list[tuple[object, ...]]:
        """Let the threads work; return what the bucket was told since the last time."""
        self.workers.work()
        done, self.bucket.done = self.bucket.done, []
        return done

    def uploads(self) -> list[tuple[object, ...]]:
        """Return what was asked about old uploads since the last time."""
        return [each for each in self.work() if each[0] == "abort_old_uploads"]

    def test_the_lifecycle_is_set_and_uploads_that_are_a_day_old_are_ended(self) -> None:
        """Younger ones may be another proxy's (RULES G4); without leases nobody looks for old ones."""
        self.make()
        get, put, abort = self.work()
        self.assertEqual((get[0], put[0]), ("get_bucket_lifecycle_configuration", "put_bucket_lifecycle_configuration"))
        self.assertEqual(abort, ("abort_old_uploads", "fleet/blobs/", 24 * HOUR_S))

    def test_old_leases_are_looked_for_where_there_are_any(self) -> None:
        """Below our prefix."""
        self.make(lease_wait_s=5.0)
        self.assertEqual(self.work()[-1], ("page", "fleet/leases/"))

    def test_it_is_done_once_a_day(self) -> None:
        """And not again while it is being done."""
        self.make()
        self.clock.advance(24 * HOUR_S)
        self.assertEqual(len(self.uploads()), 1, "twice at once")
        self.clock.advance(23 * HOUR_S)
        self.assertEqual(len(self.uploads()), 0)
        self.clock.advance(HOUR_S)
        self.assertEqual(len(self.uploads()), 1)

    def test_after_an_outage_it_is_done_again(self) -> None:
        """Somebody may have made another bucket meanwhile; during one nothing is."""
        chores = self.make()
        self.work()
        self.gate.failed(S3Trouble("unreachable", "Timeout", "HEAD"))
        chores.begin()
        self.assertEqual(self.work(), [])
        self.clock.advance(1)
        self.assertEqual(len(self.uploads()), 1)

    def test_without_a_bucket_nothing_is_done(self) -> None:
        """It is tried again when there is one."""
        self.make(is_open=False)
        self.assertEqual(self.work(), [])

    def test_credentials_are_taken_anew_every_minute(self) -> None:
        """One that hangs is waited for."""
        self.make()
        self.work()
        for _ in range(2):
            self.clock.advance(60)
        self.work()
        self.assertEqual(self.refreshed, 1)
        self.clock.advance(60)
        self.work()
        self.assertEqual(self.refreshed, 2)

    def test_trouble_is_told_when_it_is_new_and_is_no_outage(self) -> None:
        """The same every day is told once; when it has gone and come back it is new."""
        self.bucket.trouble = TROUBLE
        told = []
        with capturedLogs() as lines:
            self.make()
            self.work()
            for trouble in (TROUBLE, None, TROUBLE):
                self.bucket.trouble = trouble
                self.clock.advance(24 * HOUR_S)
                self.work()
                told.append(sum("were not ended" in str(line.get("what")) for line in lines))
        self.assertEqual((told, self.gate.is_open), ([1, 1, 2], True))

    def test_nothing_goes_on_after_the_end(self) -> None:
        """No timer is left."""
        chores = self.make()
        self.work()
        chores.stop()
        self.assertEqual((self.clock.getDelayedCalls(), self.gate.on_open), ([], []))
