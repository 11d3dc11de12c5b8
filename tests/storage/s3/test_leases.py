"""Leases: who fetches, who waits and how long (the bucket's clock is the test's)."""

from __future__ import annotations

from attrs import define, field
from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.doubles import ManualWorkers
from txociproxy.oci.names import Digest
from txociproxy.storage.s3.chores import OLD_LEASE_S, remove_old_leases
from txociproxy.storage.s3.gate import Gate
from txociproxy.storage.s3.keys import Keys
from txociproxy.storage.s3.leases import LIFE_S, LOOK_EVERY_S, RENEW_EVERY_S, Leases
from txociproxy.storage.s3.reading import Head
from txociproxy.storage.s3.trouble import S3Trouble

DIGEST = Digest.of(b"wanted by many")
KEYS = Keys("fleet")
WAIT_S = 10.0


@define(eq=False)
class FakeBucket:
    """Objects with the time at which they were put; conditional puts as S3 has them."""

    clock: Clock
    put_s: dict[str, float] = field(factory=dict)
    asked: list[str] = field(factory=list)
    trouble: Exception | None = None

    def put(self, key: str, data: bytes, media_type: str, if_absent: bool = False) -> bool:
        """Put, unless it is there and that matters."""
        self._ask(f"put {key}")
        if if_absent and key in self.put_s:
            return False
        self.put_s[key] = self.clock.seconds()
        return True

    def delete(self, *keys: str) -> None:
        """Remove."""
        for key in keys:
            self._ask(f"delete {key}")
            self.put_s.pop(key, None)

    def head(self, key: str) -> tuple[int, float] | None:
        """Look."""
        self._ask(f"head {key}")
        return (3, self.clock.seconds() - self.put_s[key]) if key in self.put_s else None

    def page(self, prefix: str, after: str | None) -> tuple[list[tuple[str, int]], str | None]:
        """List two keys at a time."""
        found = sorted(key for key in self.put_s if key.startswith(prefix) and key > (after or ""))
        return [(key, 3) for key in found[:2]], found[1] if len(found) > 2 else None

    async def look(self, key: str) -> Head | None:
        """Look without a thread."""
        found = self.head(key)
        return None if found is None else Head(found[0], found[1], None)

    def _ask(self, what: str) -> None:
        self.asked.append(what)
        if self.trouble is not None:
            raise self.trouble


@define(eq=False)
class Process:
    """The leases of one proxy."""

    bucket: FakeBucket
    wait_s: float = WAIT_S
    uploading: set[Digest] = field(factory=set)
    workers: ManualWorkers = field(factory=ManualWorkers)
    gate: Gate = field(init=False)
    leases: Leases = field(init=False)

    def __attrs_post_init__(self) -> None:
        clock = self.bucket.clock
        self.gate = Gate(clock, "the bucket")
        self.gate.probe = lambda: fail(S3Trouble("unreachable", "Refused", "the probe"))
        about = (lambda: self.bucket, self.bucket.look, KEYS, self.workers, self.gate, clock)
        self.leases = Leases(*about, self.uploading.__contains__, self.wait_s)
        self.leases.start()

    def ask(self, digest: Digest = DIGEST) -> Deferred[bool]:
        """Ask for the turn, and let the threads work."""
        turn = self.leases.await_turn(digest)
        self.workers.work()
        return turn


class LeaseCase(SynchronousTestCase):
    """Two proxies."""

    def setUp(self) -> None:
        """An empty bucket."""
        self.clock = Clock()
        self.bucket = FakeBucket(self.clock)
        self.one, self.other = Process(self.bucket), Process(self.bucket)
        self.lease = KEYS.lease(DIGEST)

    def pass_time(self, seconds: float) -> None:
        """Let time pass in small steps."""
        for _ in range(round(seconds / LOOK_EVERY_S)):
            self.clock.advance(LOOK_EVERY_S)
            self.one.workers.work()
            self.other.workers.work()

    def waiting(self) -> Deferred[bool]:
        """Let one proxy take the lease, and the other wait for it."""
        self.assertIs(self.successResultOf(self.one.ask()), False)
        turn = self.other.ask()
        self.assertNoResult(turn)
        return turn


class WaitingTests(LeaseCase):
    """Who waits."""

    def test_the_first_one_has_it_and_the_second_waits_until_it_has_gone(self) -> None:
        """Then it pays to look again."""
        turn = self.waiting()
        self.assertIn(self.lease, self.bucket.put_s)
        self.pass_time(WAIT_S - 2)
        self.assertNoResult(turn)
        self.one.leases.release(DIGEST)
        self.pass_time(1)
        self.assertIs(self.successResultOf(turn), True)
        self.assertNotIn(self.lease, self.bucket.put_s)

    def test_content_that_is_there_ends_the_waiting(self) -> None:
        """Whoever brought it may have died before it let the lease go."""
        turn = self.waiting()
        self.bucket.put_s[KEYS.content(DIGEST)] = 0.0
        self.pass_time(LOOK_EVERY_S)
        self.assertIs(self.successResultOf(turn), True)

    def test_nobody_waits_longer_than_he_was_told_to(self) -> None:
        """Then he goes ahead on his own, and the lease is still the other's."""
        turn = self.waiting()
        self.clock.advance(WAIT_S - 0.01)
        self.assertNoResult(turn)
        self.clock.advance(0.01)
        self.assertIs(self.successResultOf(turn), False)
        self.assertEqual(self.bucket.put_s, {self.lease: 0.0})
        self.assertEqual(self.other.leases._turns, {})

    def test_a_lease_that_is_too_old_is_taken_over_at_once(self) -> None:
        """Whoever had it is dead; by the server's clock."""
        self.successResultOf(self.one.ask())
        self.one.leases.stop()
        self.clock.advance(LIFE_S)
        still = self.other.ask()
        self.assertNoResult(still)
        self.clock.advance(LOOK_EVERY_S)
        self.other.workers.work()
        self.assertIs(self.successResultOf(still), False)
        self.assertEqual(self.bucket.put_s[self.lease], LIFE_S + LOOK_EVERY_S)

    def test_trouble_ends_the_waiting_at_once(self) -> None:
        """At the put, at a look, and while S3 is out: then nothing is asked."""
        turn = self.waiting()
        self.bucket.trouble = S3Trouble("failing", "SlowDown", "HEAD")
        self.pass_time(LOOK_EVERY_S)
        self.assertIs(self.successResultOf(turn), False)
        self.assertIs(self.successResultOf(self.other.ask()), False)
        self.other.gate.failed(S3Trouble("unreachable", "Refused", "HEAD"))
        self.bucket.asked.clear()
        self.assertIs(self.successResultOf(self.other.leases.await_turn(DIGEST)), False)
        self.assertEqual((self.bucket.asked, self.other.workers.jobs), ([], []))

    def test_a_server_that_hangs_is_not_waited_for(self) -> None:
        """The put ends after nobody waits any more; then the lease is ours all the same."""
        turn = self.one.leases.await_turn(DIGEST)
        self.clock.advance(WAIT_S)
        self.assertIs(self.successResultOf(turn), False)
        self.one.workers.work()
        self.bucket.asked.clear()
        self.assertIs(self.successResultOf(self.one.ask()), False)
        self.assertEqual(self.bucket.asked, [])

    def test_what_has_waited_for_its_thread_through_an_outage_is_not_asked_any_more(self) -> None:
        """Hundreds of them would keep the probe from its thread."""
        turn = self.one.leases.await_turn(DIGEST)
        self.one.gate.failed(S3Trouble("unreachable", "Timeout", "HEAD"))
        self.one.workers.work()
        self.assertIs(self.successResultOf(turn), False)
        self.assertEqual((self.bucket.asked, self.one.leases._until_s), ([], {}))

    def test_whoever_has_it_does_not_wait_for_himself(self) -> None:
        """No request: flights of the same process find each other."""
        self.successResultOf(self.one.ask())
        self.bucket.asked.clear()
        self.assertIs(self.successResultOf(self.one.leases.await_turn(DIGEST)), False)
        self.assertEqual(self.bucket.asked, [])

    def test_those_who_wait_in_one_process_wait_together(self) -> None:
        """One put for all; who leaves does not disturb the others."""
        first = self.waiting()
        self.bucket.asked.clear()
        second, third = self.other.ask(), self.other.ask()
        self.assertEqual(self.bucket.asked, [])
        first.cancel()
        self.failureResultOf(first)
        self.one.leases.release(DIGEST)
        self.pass_time(1)
        self.assertEqual([self.successResultOf(each) for each in (second, third)], [True, True])

    def test_what_was_taken_for_those_who_have_left_is_let_go(self) -> None:
        """Nobody here fetches it, so nobody elsewhere shall wait."""
        turn = self.one.leases.await_turn(DIGEST)
        turn.cancel()
        self.failureResultOf(turn)
        self.one.workers.work()
        self.assertEqual((self.bucket.put_s, self.one.leases._until_s), ({}, {}))
        self.assertIs(self.successResultOf(self.other.ask()), False)

    def test_other_content_is_another_lease(self) -> None:
        """Both are had at once."""
        self.waiting()
        self.assertIs(self.successResultOf(self.other.ask(Digest.of(b"else"))), False)

    def test_without_a_wait_there_are_no_leases(self) -> None:
        """Nothing is asked, whatever happens."""
        process = Process(self.bucket, wait_s=0.0)
        self.assertIs(self.successResultOf(process.ask()), False)
        process.leases.opened(DIGEST)
        process.leases.closed(DIGEST)
        self.clock.advance(RENEW_EVERY_S * 3)
        self.assertEqual((process.workers.work(), self.bucket.asked), (0, []))

    def test_the_end_of_the_process_ends_the_waiting(self) -> None:
        """With False, and nothing stays on the clock."""
        turn = self.waiting()
        self.one.leases.stop()
        self.other.leases.stop()
        self.assertIs(self.successResultOf(turn), False)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_what_nobody_expects_is_logged_and_ends_the_waiting(self) -> None:
        """It never raises."""
        self.bucket.trouble = ValueError("broken")
        self.assertIs(self.successResultOf(self.one.ask()), False)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)


class HavingTests(LeaseCase):
    """What becomes of a lease of ours."""

    def taken(self) -> None:
        """Take it, and open a spool."""
        self.successResultOf(self.one.ask())
        self.one.leases.opened(DIGEST)

    def is_there(self) -> bool:
        """Whether the lease is in the bucket, after all has been done."""
        self.one.workers.work()
        return self.lease in self.bucket.put_s

    def test_a_spool_that_came_to_nothing_lets_it_go(self) -> None:
        """The last of several; until then the others have to wait."""
        self.taken()
        self.one.leases.opened(DIGEST)
        self.one.leases.closed(DIGEST)
        self.assertTrue(self.is_there())
        self.one.leases.closed(DIGEST)
        self.assertFalse(self.is_there())

    def test_it_stays_until_the_upload_is_done(self) -> None:
        """Others would not find the content before."""
        self.taken()
        self.one.uploading.add(DIGEST)
        self.one.leases.closed(DIGEST)
        self.one.leases.release(DIGEST)
        self.assertTrue(self.is_there())
        self.one.leases.release(DIGEST, is_done=True)
        self.assertFalse(self.is_there())

    def test_an_upload_that_is_done_leaves_it_to_the_next_spool(self) -> None:
        """Which will let it go itself."""
        self.taken()
        self.one.leases.release(DIGEST, is_done=True)
        self.assertTrue(self.is_there())
        self.one.leases.closed(DIGEST)
        self.assertFalse(self.is_there())

    def test_it_is_renewed_while_it_is_needed(self) -> None:
        """Through a long download and its upload; then it ends by its age."""
        self.taken()
        for phase in ("spool", "upload"):
            for _ in range(10):
                self.clock.advance(RENEW_EVERY_S)
                self.one.workers.work()
                self.assertEqual(self.bucket.put_s[self.lease], self.clock.seconds(), phase)
            self.one.uploading.add(DIGEST)
            self.one.leases.closed(DIGEST)
        self.one.uploading.clear()
        put_s = self.bucket.put_s[self.lease]
        for _ in range(5):
            self.clock.advance(RENEW_EVERY_S)
            self.one.workers.work()
        self.assertEqual((self.bucket.put_s, self.one.leases._until_s), ({self.lease: put_s}, {}))

    def test_one_that_has_ended_is_not_removed(self) -> None:
        """It may be another's by now."""
        self.clock.advance(1)
        self.successResultOf(self.one.ask())
        self.clock.pump([RENEW_EVERY_S - 1, RENEW_EVERY_S, RENEW_EVERY_S, 1])
        self.assertIn(DIGEST, self.one.leases._until_s)  # the next round would forget it
        self.one.leases.release(DIGEST)
        self.assertTrue(self.is_there())

    def test_nothing_is_asked_while_s3_is_out(self) -> None:
        """It ends by its age; no round of renewals, no removal."""
        self.taken()
        self.one.gate.failed(S3Trouble("unreachable", "Refused", "HEAD"))
        self.bucket.asked.clear()
        self.clock.advance(RENEW_EVERY_S)
        self.one.leases.closed(DIGEST)
        self.one.workers.work()
        self.assertEqual(self.bucket.asked, [])

    def test_trouble_with_a_renewal_is_tried_again_in_the_next_round(self) -> None:
        """And is nobody's failure."""
        self.taken()
        self.bucket.trouble = S3Trouble("failing", "SlowDown", "PUT")
        self.clock.advance(RENEW_EVERY_S)
        self.one.workers.work()
        self.bucket.trouble = None
        self.clock.advance(RENEW_EVERY_S)
        self.one.workers.work()
        self.assertEqual(self.bucket.put_s[self.lease], 2 * RENEW_EVERY_S)

    def test_trouble_with_a_removal_is_ignored(self) -> None:
        """It ends by its age."""
        self.taken()
        self.bucket.trouble = S3Trouble("failing", "SlowDown", "DELETE")
        self.one.leases.closed(DIGEST)
        self.assertTrue(self.is_there())

    def test_what_dead_processes_have_left_is_removed_after_a_day(self) -> None:
        """Leases only, on every page."""
        leases = [KEYS.lease(Digest.of(bytes([number]))) for number in range(5)]
        self.bucket.put_s = dict.fromkeys((*leases, KEYS.marker, KEYS.content(DIGEST)), 0.0)
        self.clock.advance(OLD_LEASE_S)
        self.bucket.put_s[self.lease] = 1.0
        self.assertEqual(remove_old_leases(self.bucket, KEYS), 0)
        self.clock.advance(1)
        self.assertEqual(remove_old_leases(self.bucket, KEYS), 5)
        self.assertEqual(set(self.bucket.put_s), {KEYS.marker, KEYS.content(DIGEST), self.lease})
        self.assertEqual(remove_old_leases(self.bucket, Keys("")), 0)
