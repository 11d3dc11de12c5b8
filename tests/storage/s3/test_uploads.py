"""Uploads go on behind everybody's back: in order, for as long as it takes, and nothing that was committed is lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import define, field
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import LogEvent, LogLevel, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from tests.doubles import InlineWorkers, ManualWorkers
from tests.storage.s3.between import refusal
from txociproxy.oci.errors import StorageUnavailable
from txociproxy.oci.names import Digest
from txociproxy.storage.s3.bucket import UploadCancelled, WrongDigest
from txociproxy.storage.s3.connecting import trouble_of
from txociproxy.storage.s3.gate import Gate
from txociproxy.storage.s3.trouble import S3Trouble
from txociproxy.storage.s3.uploads import STOP_S, Uploads

DIGESTS = [Digest.of(bytes([n])) for n in range(20)]
ONE, TWO, THREE = DIGESTS[:3]
SLOW = S3Trouble("failing", "SlowDown", "put_object")
DENIED = S3Trouble("refused", "AccessDenied", "put_object")
BAD_KEY = S3Trouble("refused", "InvalidAccessKeyId", "put_object")
LOST = S3Trouble("unreachable", "Timeout", "put_object")


@define(eq=False)
class Bench:
    """Uploads with everything around them in the test's hands.

    :ivar tried: what was published, or tried to be, in order.
    :ivar errors: what the next tries of a digest raise, one after the other.
    :ivar letting_go: local copies that are being let go; the test says when that has ended.
    """

    at_once: int = 2
    workers: Any = field(factory=ManualWorkers)
    clock: Clock = field(factory=Clock)
    tried: list[Digest] = field(factory=list)
    errors: dict[Digest, list[Exception]] = field(factory=dict)
    given_up: list[Digest] = field(factory=list)
    done: list[Digest] = field(factory=list)
    letting_go: list[Deferred[None]] = field(factory=list)
    done_waits: bool = False
    on_publish: Callable[[], None] = lambda: None
    done_error: Exception | None = None
    gate: Gate = field(init=False)
    uploads: Uploads = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.gate = Gate(self.clock, "the bucket")
        self.uploads = Uploads(self.publish, self.let_go, self.workers, self.gate, self.clock, self.at_once)

    def publish(self, digest: Digest, is_cancelled: Callable[[], bool]) -> None:
        """Do what the test says."""
        self.tried.append(digest)
        if is_cancelled():
            self.given_up.append(digest)
            raise UploadCancelled("given up")
        if self.errors.get(digest):
            raise self.errors[digest].pop(0)
        self.on_publish()

    async def let_go(self, digest: Digest) -> None:
        """Remove the local copy, when the test lets it."""
        if self.done_error is not None:
            raise self.done_error
        if self.done_waits:
            self.letting_go.append(Deferred())
            await self.letting_go[-1]
        self.done.append(digest)

    def run(self, seconds: float = 0.0) -> None:
        """Let threads work, and time pass."""
        self.workers.work()
        if seconds:
            self.clock.advance(seconds)
            self.workers.work()


class UploadsCase(SynchronousTestCase):
    """Started uploads, and the log."""

    def setUp(self) -> None:
        """Start."""
        self.bench = Bench()
        self.uploads = self.bench.uploads
        self.uploads.start()
        self.logged: list[tuple[LogLevel, str]] = []

        def observe(event: LogEvent) -> None:
            is_ours = event.get("log_namespace", "").startswith("txociproxy.storage.s3")
            if is_ours and event["log_level"] > LogLevel.debug:
                self.logged.append((event["log_level"], event["log_format"].format(**event)))

        globalLogPublisher.addObserver(observe)  # type: ignore[arg-type]
        self.addCleanup(globalLogPublisher.removeObserver, observe)  # type: ignore[arg-type]

    def assert_nothing_left(self, bench: Bench | None = None) -> None:
        """Nothing waits, nothing is counted, no timer runs."""
        bench = bench or self.bench
        self.assertEqual((bench.uploads.waiting, bench.uploads.waiting_bytes), (0, 0))
        self.assertEqual(bench.clock.getDelayedCalls(), [])


class OrderTests(UploadsCase):
    """Which upload runs when."""

    def test_what_is_added_is_uploaded_and_then_let_go(self) -> None:
        """Until then it is held; all of it without a line in the log."""
        self.uploads.add(ONE, 100)
        self.assertEqual((self.uploads.holds(ONE), self.uploads.waiting_bytes), (True, 100))
        self.bench.done_waits = True
        self.bench.run()
        self.assertEqual((self.bench.tried, self.uploads.holds(ONE)), ([ONE], True))
        self.bench.letting_go[0].callback(None)
        self.assertEqual((self.bench.done, self.uploads.holds(ONE)), ([ONE], False))
        self.assert_nothing_left()
        self.assertEqual(self.logged, [])

    def test_nothing_begins_before_the_start(self) -> None:
        """It waits, and is counted."""
        bench = Bench()
        bench.uploads.add(ONE, 5)
        bench.run(1000)
        self.assertEqual((bench.tried, bench.uploads.waiting, bench.uploads.waiting_bytes), ([], 1, 5))
        bench.uploads.start()
        bench.run()
        self.assertEqual(bench.done, [ONE])

    def test_the_oldest_go_first_and_so_many_at_once(self) -> None:
        """The next begins when one has been let go."""
        for digest in DIGESTS:
            self.uploads.add(digest, 1)
        self.assertEqual(len(self.bench.workers.jobs), 2)
        while self.bench.workers.work(1):
            self.assertLessEqual(len(self.bench.workers.jobs), 2)
        self.assertEqual((self.bench.tried, self.bench.done), (DIGESTS, DIGESTS))
        self.assert_nothing_left()

    def test_threads_that_are_done_at_once_are_no_deep_recursion(self) -> None:
        """Thousands in one turn."""
        bench = Bench(workers=InlineWorkers())
        for n in range(3000):
            bench.uploads.add(Digest.of(str(n).encode()), 1)
        bench.uploads.start()
        self.assertEqual(len(bench.done), 3000)
        self.assert_nothing_left(bench)

    def test_what_is_added_again_while_it_waits_is_uploaded_once(self) -> None:
        """It is one local copy, and counts once."""
        for digest in (TWO, THREE, ONE, ONE):
            self.uploads.add(digest, 10)
        self.assertEqual(self.uploads.waiting_bytes, 30)
        self.bench.run()
        self.assertEqual(self.bench.done, [TWO, THREE, ONE])

    def test_what_is_added_while_its_upload_runs_is_uploaded_once_more_and_then_let_go(self) -> None:
        """The one that runs may not have seen it."""
        self.uploads.add(ONE, 10)
        self.uploads.add(ONE, 12)
        self.assertEqual((len(self.bench.workers.jobs), self.uploads.waiting_bytes), (1, 12))
        self.bench.run()
        self.assertEqual((self.bench.tried, self.bench.done), ([ONE, ONE], [ONE]))
        self.assert_nothing_left()

    def test_what_is_added_while_it_is_let_go_is_looked_at_once_more(self) -> None:
        """Nothing is forgotten."""
        self.bench.done_waits = True
        self.uploads.add(ONE, 10)
        self.bench.run()
        self.uploads.add(ONE, 10)
        self.bench.letting_go[0].callback(None)
        self.assertEqual(self.uploads.waiting_bytes, 10)
        self.bench.run()
        self.assertEqual(self.bench.tried, [ONE, ONE])
        self.bench.letting_go[1].callback(None)
        self.assert_nothing_left()


class CommitTests(UploadsCase):
    """Commits and removals keep out of each other's way."""

    def begin(self, digest: Digest = ONE) -> list[bool]:
        """Begin a commit; the list says whether it may go on."""
        begun: list[bool] = []
        self.uploads.committing(digest).addCallback(lambda _: begun.append(True))
        return begun

    def test_a_commit_begins_at_once_and_several_do(self) -> None:
        """What is being committed is held already."""
        self.assertEqual((self.begin(), self.begin()), ([True], [True]))
        self.assertTrue(self.uploads.holds(ONE))
        self.uploads.committed(ONE, 5)
        self.uploads.committed(ONE, 5)
        self.bench.run()
        self.assertEqual(self.bench.done, [ONE])
        self.assert_nothing_left()

    def test_what_left_nothing_has_nothing_worked_off(self) -> None:
        """Unless somebody else did."""
        self.begin()
        self.uploads.committed(ONE, None)
        self.bench.run()
        self.assertEqual(self.bench.tried, [])
        self.assert_nothing_left()
        self.begin()
        self.begin()
        self.uploads.committed(ONE, 5)
        self.uploads.committed(ONE, None)
        self.bench.run()
        self.assertEqual(self.bench.done, [ONE])
        self.assert_nothing_left()

    def test_an_upload_that_ends_in_the_middle_of_a_commit_lets_nothing_go(self) -> None:
        """The commit's end has another one begin, and that one does."""
        self.uploads.add(ONE, 5)
        self.begin()
        self.bench.run()
        self.assertEqual((self.bench.tried, self.bench.done), ([ONE], []))
        self.assertTrue(self.uploads.holds(ONE))
        self.uploads.committed(ONE, 5)
        self.bench.run()
        self.assertEqual((self.bench.tried, self.bench.done), ([ONE, ONE], [ONE]))

    def test_a_commit_waits_for_a_local_copy_that_is_being_let_go(self) -> None:
        """Else its content or its mark would go with the old one."""
        self.bench.done_waits = True
        self.uploads.add(ONE, 5)
        self.bench.run()
        begun = self.begin()
        self.assertEqual(begun, [])
        self.bench.letting_go[0].callback(None)
        self.assertEqual((begun, self.uploads.holds(ONE), self.uploads.waiting_bytes), ([True], True, 0))
        self.uploads.committed(ONE, 7)
        self.assertEqual(self.uploads.waiting_bytes, 7)
        self.bench.run()
        self.assertEqual(self.bench.tried, [ONE, ONE])

    def test_a_commit_that_failed_has_its_mark_worked_off(self) -> None:
        """It counts nothing."""
        self.begin()
        self.uploads.committed(ONE, 0)
        self.assertEqual(self.uploads.waiting_bytes, 0)
        self.bench.run()
        self.assertEqual((self.bench.tried, self.bench.done), ([ONE], [ONE]))
        self.assert_nothing_left()

    @given(st.lists(st.sampled_from(("begin", "end", "add", "work", "let go", "cancel", "remove")), max_size=40))
    @settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.differing_executors])
    def test_in_any_story_nobody_commits_while_it_is_let_go_and_all_is_seen_in_the_end(self, story: list[str]) -> None:
        """Whatever comes when, and nothing stays behind."""
        told = Story(self)
        for step in [*story, *("work", "let go", "end") * 50]:
            told.step(step)
        self.assertEqual((told.is_unseen, told.commits), (False, []))
        self.assert_nothing_left(told.bench)


class Story:
    """Commits, uploads and removals of one digest.

    :ivar commits: those under way; an empty list waits for its beginning.
    :ivar is_unseen: something was committed that no upload has looked at, and nobody removed.
    """

    def __init__(self, case: SynchronousTestCase) -> None:
        self.case, self.bench = case, Bench()
        self.bench.done_waits, self.bench.on_publish = True, self.see
        self.uploads = self.bench.uploads
        self.uploads.start()
        self.commits: list[list[bool]] = []
        self.is_unseen = False

    def see(self) -> None:
        """An upload has looked at what lies there."""
        self.is_unseen = False

    async def remove(self) -> None:
        """Remove what lies there."""
        self.assert_alone()
        self.is_unseen = False

    def assert_alone(self) -> None:
        """Whoever removes something is alone."""
        self.case.assertFalse(any(self.commits), "removed beside a commit")

    def step(self, step: str) -> None:
        """Go on with the story; what cannot be done now is passed over."""
        if step == "begin":
            begun: list[bool] = []
            self.commits.append(begun)
            self.uploads.committing(ONE).addCallback(lambda _: begun.append(True))
        elif step == "end" and any(self.commits):
            self.commits.remove([True])
            self.is_unseen = True
            self.uploads.committed(ONE, 3)
        elif step == "add":
            self.is_unseen = True
            self.uploads.add(ONE, 3)
        elif step == "work":
            self.bench.workers.work(1)
        elif step == "let go" and self.bench.letting_go:
            self.assert_alone()
            self.bench.letting_go.pop(0).callback(None)
        elif step in ("cancel", "remove"):
            self.is_unseen = self.is_unseen and step == "remove"
            self.uploads.cancel(ONE, self.remove if step == "remove" else None)
        self.case.assertTrue(self.uploads.holds(ONE) or not self.is_unseen)


class FailureTests(UploadsCase):
    """What goes wrong is tried again, for ever, and says so no more often than helps."""

    def fail_with(self, *errors: Exception, digest: Digest = ONE) -> None:
        """Let the next tries fail, and begin."""
        self.bench.errors[digest] = list(errors)
        self.uploads.add(digest, 1)
        self.bench.run()

    def times(self, digest: Digest = ONE) -> list[float]:
        """Return the seconds between tries, as long as there are errors left."""
        waits, waited = [], 0.0
        while self.bench.errors[digest] and waited < 5000:
            before = len(self.bench.tried)
            self.bench.run(0.5)
            waited += 0.5
            if len(self.bench.tried) > before:
                waits.append(waited)
                waited = 0.0
        return waits

    def test_a_failure_is_tried_again_later_and_later(self) -> None:
        """From a second to five minutes, for ever; and after it went well from the beginning again."""
        self.fail_with(*[OSError(5, "Input/output error")] * 13)
        self.assertEqual(self.times(), [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300])
        self.bench.run(300)
        self.assertEqual(self.bench.done, [ONE])
        self.fail_with(OSError(5, "Input/output error"), OSError(5, "Input/output error"))
        self.assertEqual(self.times(), [1])
        self.bench.run(2)
        self.assert_nothing_left()

    def test_another_does_not_wait_for_one_that_fails_on_its_own(self) -> None:
        """Only what concerns S3 concerns them all."""
        self.fail_with(*[OSError(5, "Input/output error")] * 9)
        self.uploads.add(TWO, 1)
        self.bench.run()
        self.assertEqual(self.bench.done, [TWO])

    def test_a_lost_answer_closes_the_gate_and_what_waits_goes_on_when_it_opens(self) -> None:
        """At once, the oldest first; meanwhile nothing is tried, and no timer runs but the gate's."""
        self.fail_with(LOST)
        self.assertFalse(self.bench.gate.is_open)
        for digest in (THREE, TWO):
            self.uploads.add(digest, 1)
        self.bench.run()
        self.assertEqual((self.bench.tried, len(self.bench.clock.getDelayedCalls())), ([ONE], 1))
        self.bench.run(1.5)
        self.assertTrue(self.bench.gate.is_open)
        self.assertEqual(self.bench.done, [ONE, THREE, TWO])
        self.assert_nothing_left()

    def test_while_the_gate_is_closed_nothing_is_tried(self) -> None:
        """Whoever closed it."""
        self.bench.gate.failed(LOST)
        self.uploads.add(ONE, 1)
        self.bench.run(0.9)
        self.assertEqual(self.bench.tried, [])
        self.bench.run(0.2)
        self.assertEqual(self.bench.done, [ONE])

    def test_when_the_gate_opens_there_is_no_rest_left(self) -> None:
        """The one that failed keeps its own time, the others begin at once."""
        self.fail_with(SLOW, SLOW, SLOW)
        for _ in range(6):
            self.bench.run(0.5)
        self.assertFalse(self.bench.gate.is_open)
        self.uploads.add(TWO, 1)
        self.bench.run(1)
        self.assertEqual((self.bench.gate.is_open, self.bench.done), (True, [TWO]))
        self.bench.run(3)
        self.assertEqual(self.bench.done, [TWO, ONE])

    def test_an_outage_has_one_line_of_the_gate(self) -> None:
        """Uploads add none."""
        self.fail_with(LOST)
        self.assertEqual([(level, "will be tried" in text) for level, text in self.logged], [(LogLevel.warn, False)])

    def test_one_that_went_well_and_goes_once_more_begins_from_the_beginning(self) -> None:
        """What failed before is forgotten."""
        error = OSError(5, "Input/output error")
        self.fail_with(error, error, error)
        self.times()
        self.bench.clock.advance(4)
        self.uploads.add(ONE, 1)
        self.bench.workers.work(1)
        self.bench.errors[ONE] = [error]
        self.bench.run()
        self.bench.run(1)
        self.assertEqual(self.bench.done, [ONE])

    def test_several_that_fail_together_close_no_gate_for_those_who_read(self) -> None:
        """A server that is too busy for many bytes at once, and answers all others between the rounds."""
        for digest in DIGESTS:
            self.bench.errors[digest] = [SLOW] * 1000
            self.uploads.add(digest, 1)
        for _ in range(600):
            self.bench.run(1)
            self.bench.gate.worked()
        self.assertEqual((self.bench.gate.outages, self.bench.done), (0, []))
        self.assertGreater(len(self.bench.tried), 10)

    def test_slow_down_closes_the_gate_when_it_is_said_again_and_again(self) -> None:
        """And each time all uploads rest longer."""
        self.fail_with(SLOW, SLOW, SLOW)
        self.bench.run(0.5)
        self.assertEqual(self.bench.tried, [ONE])
        self.assertEqual((self.times(), self.bench.gate.is_open), ([0.5, 2.0], False))

    def test_success_resets_the_gate_and_the_rest(self) -> None:
        """Failures with something good between them are no outage."""
        for _ in range(5):
            self.fail_with(SLOW)
            self.bench.run(1)
        self.assertEqual((self.bench.gate.outages, len(self.bench.done)), (0, 5))

    def test_a_refusal_of_writes_lets_reads_go_on(self) -> None:
        """No right to write, a full store: the gate stays open, and all uploads together ask less and less."""
        full = (refusal(403, "QuotaExceeded"), refusal(507, "XMinioStorageFull"), refusal(507))
        for refused in (DENIED, *(trouble_of(error, "put_object") for error in full)):
            self.setUp()
            for digest in DIGESTS:
                self.bench.errors[digest] = [refused] * 1000
                self.uploads.add(digest, 1)
            for _ in range(3600):
                self.bench.run(1)
            self.assertEqual((self.bench.gate.outages, self.bench.done), (0, []), refused.code)
            self.assertLess(len(self.bench.tried), 2 * 25)

    def test_what_fails_every_time_is_not_expected_any_more(self) -> None:
        """Nor is what waits behind it, until one goes well."""
        self.fail_with(*[OSError(5, "Input/output error")] * 3)
        self.uploads.add(TWO, 1)
        self.assertEqual([self.uploads.is_coming(each) for each in (ONE, TWO, THREE)], [True, True, False])
        self.bench.run(1)
        self.bench.run(2)
        self.assertFalse(self.uploads.is_coming(ONE))
        self.bench.run(4)
        self.assertEqual(self.bench.done, [TWO, ONE])
        self.fail_with(*[DENIED] * 3)
        self.bench.run(1)
        self.bench.run(2)
        self.uploads.add(TWO, 1)
        self.assertEqual([self.uploads.is_coming(each) for each in (ONE, TWO)], [False, False])
        self.bench.run(4)
        self.uploads.add(TWO, 1)
        self.assertTrue(self.uploads.is_coming(TWO))

    def test_a_refusal_of_all_closes_the_gate(self) -> None:
        """Reads would be refused as well."""
        self.fail_with(BAD_KEY)
        self.assertFalse(self.bench.gate.is_open)

    def test_refusals_warn_once_a_minute_with_their_code(self) -> None:
        """However many there were."""
        self.fail_with(*[DENIED] * 100)
        for _ in range(590):
            self.bench.run(0.1)
        self.assertEqual([(level, "AccessDenied" in text) for level, text in self.logged], [(LogLevel.warn, True)])
        for _ in range(66):  # they are at 63 and 127 seconds by now
            self.bench.run(1)
        self.assertEqual((len(self.logged), len(self.bench.tried)), (2, 7))

    def test_what_others_say_is_not_repeated(self) -> None:
        """Only our own errors have texts that are known to be harmless."""
        self.fail_with(ValueError("X-Amz-Signature=secret"))
        self.assertEqual([("ValueError" in text, "secret" in text) for _, text in self.logged], [(True, False)])
        self.bench.run(1)
        self.assertEqual(self.bench.done, [ONE])

    def test_wrong_bytes_are_an_error_and_are_not_tried_again(self) -> None:
        """What is left of them is let go, with its mark."""
        self.fail_with(WrongDigest("wrong"))
        self.assertEqual((self.bench.tried, self.bench.done), ([ONE], [ONE]))
        self.assertEqual([level for level, _ in self.logged], [LogLevel.error])
        self.assertIn(str(ONE), self.logged[0][1])
        self.assert_nothing_left()

    def test_a_copy_that_cannot_be_let_go_is_tried_again(self) -> None:
        """Its mark is still there, so is it here."""
        self.bench.done_error = OSError(5, "Input/output error")
        self.uploads.add(ONE, 4)
        self.bench.run()
        self.assertEqual((self.uploads.holds(ONE), self.uploads.waiting_bytes), (True, 4))
        self.bench.done_error = None
        self.bench.run(1)
        self.assertEqual((self.bench.tried, self.bench.done), ([ONE, ONE], [ONE]))
        self.assert_nothing_left()


class EndTests(UploadsCase):
    """Uploads that are not wanted any more."""

    def cancel(self, digest: Digest = ONE, work: Any = None) -> list[object]:
        """Cancel; the list says how that ended."""
        ended: list[object] = []
        self.uploads.cancel(digest, work).addCallbacks(ended.append, lambda failure: ended.append(failure.type))
        return ended

    def test_what_is_not_known_is_cancelled_at_once(self) -> None:
        """And nothing is remembered of it."""
        self.assertEqual(self.cancel(), [None])
        self.assert_nothing_left()

    def test_what_waits_is_cancelled_at_once(self) -> None:
        """The others are not."""
        for digest in DIGESTS[:6]:
            self.uploads.add(digest, 1)
        self.assertEqual(self.cancel(DIGESTS[4]), [None])
        self.assertEqual((self.uploads.holds(DIGESTS[4]), self.uploads.waiting_bytes), (False, 5))
        self.bench.run()
        self.assertEqual(self.bench.done, [*DIGESTS[:4], DIGESTS[5]])

    def test_what_runs_is_told_and_waited_for(self) -> None:
        """It is neither let go nor tried again."""
        self.uploads.add(ONE, 1)
        ended = self.cancel()
        self.assertEqual((ended, self.uploads.holds(ONE)), ([], True))
        self.bench.run(1000)
        self.assertEqual((ended, self.bench.tried, self.bench.done), ([None], [ONE], []))
        self.assertEqual(self.bench.given_up, [ONE])
        self.assert_nothing_left()

    def test_what_is_being_let_go_is_waited_for(self) -> None:
        """A thread works for it."""
        self.bench.done_waits = True
        self.uploads.add(ONE, 1)
        self.bench.run()
        ended = self.cancel()
        self.assertEqual(ended, [])
        self.bench.letting_go[0].callback(None)
        self.assertEqual(ended, [None])
        self.assert_nothing_left()

    def test_a_removal_waits_for_the_commits_that_have_begun_and_the_next_wait_for_it(self) -> None:
        """Nobody's content or mark goes with the old one."""
        removing: Deferred[None] = Deferred()
        self.uploads.committing(ONE)
        ended = self.cancel(work=lambda: removing)
        later = self.uploads.committing(ONE)
        self.uploads.committed(ONE, 5)
        self.assertEqual((ended, self.bench.workers.jobs), ([], []))
        self.assertNoResult(later)
        removing.callback(None)
        self.successResultOf(later)
        self.assertEqual((ended, self.uploads.waiting_bytes), ([None], 0))
        self.uploads.committed(ONE, 6)
        self.bench.run()
        self.assert_nothing_left()

    def test_what_could_not_be_removed_is_uploaded_after_all(self) -> None:
        """And who wanted it removed hears why it was not."""

        async def fail() -> None:
            raise StorageUnavailable("no")

        self.uploads.add(ONE, 5)
        ended = self.cancel(work=fail)
        self.bench.run()
        self.assertEqual((ended, self.bench.done), ([StorageUnavailable], [ONE]))
        self.assert_nothing_left()

    def test_stop_gives_up_what_runs_and_begins_nothing(self) -> None:
        """What is unfinished is still held: its local copy is needed by the next process."""
        for digest in DIGESTS[:4]:
            self.uploads.add(digest, 1)
        stopped = self.uploads.stop()
        self.assertNoResult(stopped)
        self.bench.run()
        self.successResultOf(stopped)
        self.assertEqual((self.bench.given_up, self.bench.done), ([ONE, TWO], []))
        self.assertEqual([self.uploads.holds(digest) for digest in DIGESTS[:4]], [True] * 4)
        self.uploads.add(THREE, 1)
        self.bench.run(1000)
        self.assertEqual((len(self.bench.tried), self.bench.clock.getDelayedCalls()), (2, []))
        self.assertEqual(self.bench.gate.on_open, [])

    def test_stop_waits_two_seconds_at_most(self) -> None:
        """A thread may be stuck; what it comes back with changes nothing."""
        self.uploads.add(ONE, 1)
        stopped = self.uploads.stop()
        self.bench.clock.advance(STOP_S - 0.1)
        self.assertNoResult(stopped)
        self.bench.clock.advance(0.2)
        self.successResultOf(stopped)
        self.bench.run()
        self.assertEqual((self.bench.done, self.bench.clock.getDelayedCalls()), ([], []))

    def test_stop_with_nothing_at_work_is_over_at_once(self) -> None:
        """Started or not, and with something that waits for its next try."""
        self.bench.errors[ONE] = [OSError(5, "Input/output error")]
        self.uploads.add(ONE, 1)
        self.bench.run()
        for uploads in (self.uploads, Bench().uploads):
            self.successResultOf(uploads.stop())
        self.assertEqual(self.bench.clock.getDelayedCalls(), [])

    def test_a_copy_that_is_being_let_go_at_the_stop_is_waited_for(self) -> None:
        """It is in the bucket."""
        self.bench.done_waits = True
        self.uploads.add(ONE, 1)
        self.bench.run()
        stopped = self.uploads.stop()
        self.assertNoResult(stopped)
        self.bench.letting_go[0].callback(None)
        self.successResultOf(stopped)
        self.assertFalse(self.uploads.holds(ONE))
