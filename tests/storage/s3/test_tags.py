"""Tags in a bucket: known at once, written behind, merged with what others have written."""

from __future__ import annotations

from attrs import define, field
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.contracts import TAG, record
from tests.doubles import FakeResponse, ManualWorkers
from tests.storage.s3.scripted import FAILING, PATIENCE_S, REFUSED, UNREACHABLE, Reading, ScriptedS3, refused
from txociproxy.interfaces import TagName, TagRecord
from txociproxy.oci.names import Repository
from txociproxy.storage.layout import tags_from_json, tags_to_json
from txociproxy.storage.s3.tags import MAX_BYTES, MAX_WAITING, Change, S3Tags
from txociproxy.storage.s3.trouble import S3Trouble

A, B, C, D, E = (record(f"application/{letter}") for letter in "abcde")
A2 = record("application/a", 2.0, b"two")
BAD_KEY = S3Trouble("refused", "InvalidAccessKeyId", "a request")


@define(eq=False)
class FakeBucket:
    """The blocking way into a bucket in memory.

    :ivar trouble: raised by everything.
    """

    s3: ScriptedS3
    trouble: Exception | None = None
    done: list[str] = field(factory=list)

    def read(self, key: str, max_bytes: int) -> bytes | None:
        """Read."""
        self._note("read")
        stored = self.s3.objects.get(key)
        return None if stored is None else stored.data[:max_bytes]

    def put(self, key: str, data: bytes, media_type: str, if_absent: bool = False) -> bool:
        """Write."""
        self._note("put")
        assert media_type == "application/json" and not if_absent
        self.s3.put(key, data)
        return True

    def delete(self, *keys: str) -> None:
        """Remove."""
        self._note("delete")
        for key in keys:
            self.s3.objects.pop(key, None)

    def _note(self, what: str) -> None:
        self.done.append(what)
        if self.trouble is not None:
            raise self.trouble


class TagsCase(SynchronousTestCase):
    """A bucket in memory and workers whose jobs the test runs."""

    def setUp(self) -> None:
        """Nothing is in it."""
        self.reading = Reading()
        self.s3, self.gate, self.clock = self.reading.s3, self.reading.gate, self.reading.clock
        self.bucket: FakeBucket | None = FakeBucket(self.s3)
        self.workers = ManualWorkers()
        self.tags = self.proxy()
        self.key = self.reading.keys.tag(TAG)

    def tearDown(self) -> None:
        """No timer outlives its ask."""
        self.gate.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def proxy(self) -> S3Tags:
        """Return the tags as one more proxy on the same bucket sees them."""
        reading = self.reading
        return S3Tags(reading.reads, reading.keys, lambda: self.bucket, self.workers, self.gate, self.clock)

    def recall(self, tags: S3Tags | None = None, name: TagName = TAG) -> tuple[TagRecord, ...]:
        """Return what is known."""
        records = self.successResultOf(Deferred.fromCoroutine((tags or self.tags).recall(name)))
        assert isinstance(records, tuple)
        return records

    def there(self, key: str | None = None) -> tuple[TagRecord, ...]:
        """Return what is in the bucket."""
        stored = self.s3.objects.get(key or self.key)
        return () if stored is None else tags_from_json(stored.data)

    def plant(self, *records: TagRecord) -> None:
        """Let another proxy have written this."""
        self.s3.put(self.key, tags_to_json(records))

    def begin(self) -> Deferred[tuple[TagRecord, ...]]:
        """Begin to recall."""
        return Deferred.fromCoroutine(self.tags.recall(TAG))


class RecallTests(TagsCase):
    """What is known of a tag."""

    def test_what_nobody_knows_is_empty(self) -> None:
        """And asked again each time: another proxy may learn it."""
        self.assertEqual(self.recall(), ())
        self.plant(A)
        self.assertEqual(self.recall(), (A,))

    def test_what_another_proxy_has_written_is_known(self) -> None:
        """All of it."""
        self.plant(A, B)
        self.assertEqual(self.recall(), (A, B))

    def test_of_a_file_with_many_records_four_are_known(self) -> None:
        """Each may cost a pull a look at S3, whoever wrote the file."""
        self.s3.put(self.key, tags_to_json((A, B, C, D, E)))
        self.assertEqual(self.recall(), (A, B, C, D))

    def test_what_was_learnt_is_believed_for_ten_seconds(self) -> None:
        """Without a request."""
        self.plant(A)
        self.recall()
        self.plant(B)
        self.clock.advance(10)
        self.assertEqual((self.recall(), len(self.s3.asked)), ((A,), 1))
        self.clock.advance(0.1)
        self.assertEqual((self.recall(), len(self.s3.asked)), ((B,), 2))

    def test_what_was_removed_is_no_longer_known(self) -> None:
        """As soon as it is asked again."""
        self.plant(A)
        self.recall()
        self.s3.objects.clear()
        self.clock.advance(10.1)
        self.assertEqual(self.recall(), ())

    def test_while_s3_is_out_memory_answers_at_any_age(self) -> None:
        """At once, and without a request."""
        self.plant(A)
        self.recall()
        self.reading.gate.probe = lambda: Deferred(lambda d: d.errback(CancelledError()))
        self.gate.failed(UNREACHABLE)
        self.clock.advance(10_000)
        self.assertEqual((self.recall(), len(self.s3.asked)), ((A,), 1))
        self.assertEqual(self.recall(name=TagName("ghcr.io", Repository("x"), "1")), ())

    def test_trouble_is_answered_from_memory(self) -> None:
        """Or with nothing; a broken file is nothing, too."""
        for answer in (
            refused(500, "X"),
            FakeResponse(200, {}, b"x" * (MAX_BYTES + 1), MAX_BYTES + 1),
            refused(403, "X"),
        ):
            self.s3.scripts = {f"GET {self.key}": lambda _, answer=answer: answer}  # type: ignore[misc]
            self.assertEqual(self.recall(), ())
        self.setUp()
        self.plant(A)
        self.recall()
        self.clock.advance(11)
        self.s3.scripts = {f"GET {self.key}": lambda _: refused(500, "X")}
        self.assertEqual(self.recall(), (A,))
        self.s3.scripts = {}
        self.s3.put(self.key, b"{broken")
        self.assertEqual(self.recall(), ())

    def test_a_hang_is_answered_from_memory(self) -> None:
        """After the patience of one read; then nobody waits any more."""
        self.plant(A)
        self.recall()
        self.clock.advance(11)
        self.s3.is_manual = True
        d = self.begin()
        self.clock.advance(PATIENCE_S)
        self.assertEqual(self.successResultOf(d), (A,))
        self.assertFalse(self.gate.is_open)

    def test_all_who_ask_at_once_share_one_read(self) -> None:
        """One who leaves takes nothing from the others; the last one ends it."""
        self.plant(A)
        self.s3.is_manual = True
        asks = [self.begin(), self.begin()]
        asks[0].cancel()
        self.failureResultOf(asks[0], CancelledError)
        self.s3.answer_all()
        self.assertEqual((self.successResultOf(asks[1]), len(self.s3.asked)), ((A,), 1))
        self.clock.advance(11)
        last = self.begin()
        last.cancel()
        self.failureResultOf(last, CancelledError)
        self.assertEqual(self.s3.cancelled, [f"GET {self.key}"])

    def test_memory_is_bounded(self) -> None:
        """Ten thousand names and no more."""
        self.bucket = None
        names = [TagName("docker.io", Repository("x"), str(number)) for number in range(10_050)]
        for name in names:
            self.tags.record(name, A)
        self.assertEqual(len(self.tags._known), 10_000)
        self.assertEqual(self.recall(name=names[-1]), (A,))
        for name in names[:50]:
            self.recall(name=name)
        self.assertEqual(len(self.tags._known), 10_000)


class RecordTests(TagsCase):
    """What is written."""

    def test_a_record_is_known_at_once_and_written_behind(self) -> None:
        """Nobody waits for S3."""
        self.successResultOf(self.tags.record(TAG, A))
        self.assertEqual((self.recall(), self.there(), self.s3.asked), ((A,), (), []))
        self.workers.work()
        self.assertEqual(self.there(), (A,))
        self.assertEqual(self.recall(self.proxy()), (A,))

    def test_a_record_takes_the_place_of_the_one_with_its_class(self) -> None:
        """In memory as in the bucket; the latest comes first, and there are four at most."""
        for one in (A, B, A2):
            self.tags.record(TAG, one)
            self.workers.work()
        self.assertEqual((self.recall(), self.there()), ((A2, B), (A2, B)))
        for one in (C, D, E):
            self.tags.record(TAG, one)
        self.workers.work()
        self.assertEqual((self.recall(), self.there()), ((E, D, C, A2), (E, D, C, A2)))

    def test_what_others_have_written_stays(self) -> None:
        """It is read just before."""
        self.plant(A, B)
        self.tags.record(TAG, C)
        self.workers.work()
        self.assertEqual(self.there(), (C, A, B))

    def test_what_others_have_learnt_later_stays(self) -> None:
        """What has waited for an outage to end is old."""
        self.tags.record(TAG, A)
        self.tags.record(TAG, B)
        self.plant(A2)
        self.workers.work()
        self.assertEqual(self.there(), (B, A2))

    def test_what_is_there_already_is_not_written_again(self) -> None:
        """A read is all it costs."""
        self.plant(A)
        self.tags.record(TAG, A)
        self.workers.work()
        assert self.bucket is not None
        self.assertEqual(self.bucket.done, ["read"])

    def test_many_records_of_a_tag_are_written_together(self) -> None:
        """And one tag at a time."""
        other = TagName("ghcr.io", Repository("x"), "1")
        for one in (A, B, C):
            self.tags.record(TAG, one)
            self.tags.record(other, one)
        self.assertEqual(len(self.workers.jobs), 1)
        self.assertEqual(self.workers.work(), 3)  # the first one was on its way already
        self.assertEqual(self.there(), (C, B, A))
        self.assertEqual(self.there(self.reading.keys.tag(other)), (C, B, A))

    def test_what_is_not_written_yet_is_known_beside_what_others_write(self) -> None:
        """However long it waits, and while it is being written."""
        self.tags.record(TAG, A)
        self.tags.record(TAG, B)
        self.plant(C)
        self.clock.advance(11)
        self.assertEqual(self.recall(), (B, A, C))
        self.assertEqual(len(self.s3.asked), 1)

    def test_what_is_being_written_of_another_tag_is_not_known_of_this_one(self) -> None:
        """Each has its own."""
        self.tags.record(TagName("ghcr.io", Repository("x"), "1"), A)
        self.assertEqual(self.recall(), ())

    def test_a_read_that_began_before_a_record_does_not_undo_it(self) -> None:
        """Whether it ends before the record is written, or after it."""
        for works_first in (True, False):
            self.setUp()
            self.plant(B)
            self.s3.is_manual = True
            d = self.begin()
            stale = FakeResponse(200, {}, self.s3.objects[self.key].data, len(self.s3.objects[self.key].data))
            self.s3.scripts = {f"GET {self.key}": lambda _, stale=stale: stale}  # type: ignore[misc]
            self.tags.record(TAG, A)
            if works_first:
                self.workers.work()
            self.s3.answer_all()
            self.successResultOf(d)
            self.workers.work()
            self.assertEqual(self.recall()[0], A)

    def test_so_many_wait_and_no_more(self) -> None:
        """The oldest make room: trouble is ignored."""
        names = [TagName("docker.io", Repository("x"), str(number)) for number in range(MAX_WAITING + 3)]
        for name in names:
            self.tags.record(name, A)
        self.workers.work()
        there = [name for name in names if self.there(self.reading.keys.tag(name))]
        self.assertEqual(there, [names[0], *names[3:]])  # the first one was on its way already

    def test_nothing_is_written_while_s3_is_out(self) -> None:
        """It is as soon as S3 is back."""
        self.gate.failed(UNREACHABLE)
        self.tags.record(TAG, A)
        self.assertEqual((self.workers.jobs, self.recall()), ([], (A,)))
        self.clock.advance(1)
        self.workers.work()
        self.assertEqual(self.there(), (A,))

    def test_nothing_is_written_before_there_is_a_bucket(self) -> None:
        """It is when the gate opens for the first time."""
        bucket, self.bucket = self.bucket, None
        self.tags.record(TAG, A)
        self.assertEqual(self.workers.jobs, [])
        self.bucket = bucket
        self.gate.failed(UNREACHABLE)
        self.clock.advance(1)
        self.workers.work()
        self.assertEqual(self.there(), (A,))


class TroubleTests(TagsCase):
    """Writing when S3 is not well."""

    def let_it_raise(self, trouble: Exception | None) -> None:
        """Let the bucket do this from now on."""
        assert self.bucket is not None
        self.bucket.trouble = trouble

    def test_an_outage_is_told_to_the_gate_and_costs_no_record(self) -> None:
        """However long it is."""
        for trouble in (UNREACHABLE, BAD_KEY):
            self.setUp()
            self.let_it_raise(trouble)
            self.tags.record(TAG, A)
            for _ in range(5):
                self.workers.work()
                self.assertFalse(self.gate.is_open)
                self.clock.advance(30)
            self.let_it_raise(None)
            self.workers.work()
            self.clock.advance(30)
            self.workers.work()
            self.assertEqual(self.there(), (A,))

    def test_a_right_to_write_that_is_missing_takes_nothing_from_those_who_read(self) -> None:
        """The gate stays open, and the record is given up."""
        self.let_it_raise(REFUSED)
        self.tags.record(TAG, A)
        self.workers.work()
        self.assertEqual((self.workers.jobs, self.gate.is_open), ([], True))

    def test_what_fails_again_and_again_is_given_up(self) -> None:
        """Where the others succeed between, the gate stays open."""
        self.let_it_raise(FAILING)
        self.tags.record(TAG, A)
        for _ in range(2):
            self.workers.work(1)
            self.gate.worked()
        self.assertEqual(len(self.workers.jobs), 1)
        self.workers.work(1)
        self.assertEqual((self.workers.jobs, self.gate.is_open), ([], True))
        self.let_it_raise(None)
        self.tags.record(TAG, B)
        self.workers.work()
        self.assertEqual(self.there(), (B,))

    def test_three_failures_in_a_row_close_the_gate(self) -> None:
        """A write that works ends the row."""
        self.let_it_raise(FAILING)
        self.tags.record(TAG, A)
        self.workers.work(2)
        self.let_it_raise(None)
        self.workers.work()
        self.assertEqual(self.there(), (A,))
        for _ in range(2):
            self.gate.failed(FAILING)
        self.assertTrue(self.gate.is_open)

    def test_what_comes_while_a_failing_one_is_written_goes_after_it(self) -> None:
        """Together with it."""
        self.let_it_raise(UNREACHABLE)
        self.tags.record(TAG, A)
        self.tags.record(TAG, A2)
        self.tags.record(TAG, B)
        self.workers.work()
        self.let_it_raise(None)
        self.clock.advance(1)
        self.assertEqual(self.workers.work(), 1)
        self.assertEqual((self.there(), self.recall()), ((B, A2), (B, A2)))

    def test_what_nobody_has_foreseen_is_logged_and_ends_nothing(self) -> None:
        """The next one is written."""
        self.let_it_raise(KeyError("x"))
        self.tags.record(TAG, A)
        self.workers.work()
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)
        self.let_it_raise(None)
        self.tags.record(TAG, B)
        self.workers.work()
        self.assertEqual(self.there(), (B,))


class ForgetTests(TagsCase):
    """What is forgotten."""

    def test_a_tag_is_forgotten_at_once_and_removed_behind(self) -> None:
        """Also what another proxy has written."""
        self.plant(A)
        self.recall()
        self.successResultOf(self.tags.forget(TAG))
        self.assertEqual((self.recall(), self.there()), ((), (A,)))
        self.clock.advance(11)
        self.assertEqual(self.recall(), ())
        self.workers.work()
        self.assertEqual((self.recall(), self.s3.objects), ((), {}))
        assert self.bucket is not None
        self.assertEqual(self.bucket.done, ["delete"])

    def test_a_tag_that_nobody_has_recalled_is_forgotten(self) -> None:
        """It may be known to others."""
        self.plant(A)
        self.tags.forget(TAG)
        self.assertEqual(self.recall(), ())
        self.workers.work()
        self.assertEqual(self.recall(), ())

    def test_what_is_recorded_after_it_was_forgotten_stays(self) -> None:
        """And nothing of before."""
        for works in (0, 1):
            self.setUp()
            self.plant(A, B)
            self.tags.forget(TAG)
            self.tags.record(TAG, C)
            self.workers.work(works)
            self.assertEqual(self.recall(), (C,))
            self.workers.work()
            self.assertEqual((self.recall(), self.there()), ((C,), (C,)))

    def test_what_was_recorded_before_it_was_forgotten_goes(self) -> None:
        """Also what is being written, and what could not be written."""
        for trouble in (None, UNREACHABLE):
            self.setUp()
            assert self.bucket is not None
            self.bucket.trouble = trouble
            self.tags.record(TAG, A)
            self.tags.record(TAG, B)
            self.tags.forget(TAG)
            self.workers.work()
            self.bucket.trouble = None
            self.clock.advance(2)
            self.workers.work()
            self.assertEqual((self.recall(), self.s3.objects), ((), {}))

    def test_a_read_that_began_before_does_not_undo_it(self) -> None:
        """Even if it ends when all is done."""
        self.plant(A)
        self.s3.is_manual = True
        d = self.begin()
        data = self.s3.objects[self.key].data
        self.s3.scripts = {f"GET {self.key}": lambda _: FakeResponse(200, {}, data, len(data))}
        self.tags.forget(TAG)
        self.workers.work()
        self.s3.answer_all()
        self.successResultOf(d)
        self.s3.scripts, self.s3.is_manual = {}, False
        self.assertEqual(self.recall(), ())


RECORDS = st.builds(
    lambda letter, at_s: record(f"application/{letter}", float(at_s), bytes([at_s])),
    st.sampled_from("ab"),
    st.integers(0, 5),
)
CHANGES = st.builds(
    lambda wipes, records: Change(wipes, tuple({one.accept_class: one for one in records}.values())),
    st.booleans(),
    st.lists(RECORDS, max_size=3),
)


class LawTests(TagsCase):
    """Changes as values, and proxies side by side."""

    @settings(deadline=None)
    @given(CHANGES, CHANGES, CHANGES.map(lambda change: change.records))
    def test_two_changes_as_one_do_what_both_do(self, one: Change, two: Change, there: tuple[TagRecord, ...]) -> None:
        """Class by class."""
        self.assertEqual(set(one.then(two).on(there)), set(two.on(one.on(there))))

    @settings(deadline=None)
    @given(st.lists(st.tuples(st.sampled_from(("record", "work", "fail", "advance", "recall")), RECORDS), max_size=30))
    def test_whatever_fails_what_was_recorded_is_known(self, steps: list[tuple[str, TagRecord]]) -> None:
        """By the one who did it at once, and by all when everything is written."""
        self.setUp()
        assert self.bucket is not None
        latest: dict[frozenset[str], TagRecord] = {}
        for name, one in steps:
            self.bucket.trouble = UNREACHABLE if name == "fail" else None
            if name == "record" and one.checked_at_s >= latest.get(one.accept_class, one).checked_at_s:
                self.tags.record(TAG, one)
                latest[one.accept_class] = one
            elif name in ("work", "fail"):
                self.workers.work(1)
            elif name == "advance":
                self.clock.advance(6)
            self.assertEqual(set(self.recall()), set(latest.values()))
        self.bucket.trouble = None
        for _ in range(3):
            self.workers.work()
            self.clock.advance(31)
        self.assertEqual(set(self.there()), set(latest.values()))
        self.assertEqual(set(self.recall(self.proxy())), set(latest.values()))
        self.gate.stop()
