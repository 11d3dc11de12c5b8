"""Reads: what is asked, what is believed of the answers, and how each ask ends."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from attrs import evolve
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost, ConnectionRefusedError
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import ResponseNeverReceived
from twisted.web.http_headers import Headers
from twisted.web.iweb import UNKNOWN_LENGTH, IResponse

from tests.doubles import FakeResponse
from tests.storage.s3.scripted import FAILING, PATIENCE_S, REFUSED, UNREACHABLE, Answer, Reading, refused
from txociproxy import __version__
from txociproxy.collect import collect
from txociproxy.storage.s3.reading import MAX_ASKS, SIGNED_S, Head, Reads, Small
from txociproxy.storage.s3.trouble import S3Trouble

T = TypeVar("T")
DATA = bytes(range(200))


class ReadsCase(SynchronousTestCase):
    """A bucket in memory with one object."""

    def setUp(self) -> None:
        """Put it there."""
        self.reading = Reading()
        self.s3, self.reads, self.gate = self.reading.s3, self.reading.reads, self.reading.gate
        self.clock = self.reading.clock
        self.s3.put("k", DATA, age_s=50)

    def tearDown(self) -> None:
        """No timer outlives its ask."""
        self.gate.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def begin(self, ask: Coroutine[Deferred[Any], Any, T]) -> Deferred[T]:
        """Begin an ask."""
        return Deferred.fromCoroutine(ask)

    def result(self, ask: Coroutine[Deferred[Any], Any, T]) -> T:
        """Return what comes at once."""
        result: T = self.successResultOf(self.begin(ask))
        return result

    def trouble(self, ask: Coroutine[Deferred[Any], Any, object] | Deferred[Any]) -> S3Trouble:
        """Return what went wrong; it names no address."""
        d = ask if isinstance(ask, Deferred) else self.begin(ask)
        trouble = self.failureResultOf(d, S3Trouble).value
        assert isinstance(trouble, S3Trouble)
        self.assertNotIn("X-Amz", f"{trouble} {trouble!r}")
        self.assertNotIn("s3.test", f"{trouble} {trouble!r}")
        self.assertIn("k", str(trouble))
        return trouble

    def script(self, what: str, answer: Answer) -> None:
        """Answer this in place of the truth."""
        self.s3.scripts[what] = lambda _: answer

    def whole(self, response: IResponse) -> bytes:
        """Read a body."""
        data = self.successResultOf(collect(response, 1 << 20, self.clock, 5))
        assert isinstance(data, bytes)
        return data


class AnswerTests(ReadsCase):
    """What answers mean."""

    def test_head_tells_size_age_and_etag(self) -> None:
        """All of one object."""
        self.assertEqual(self.result(self.reads.head("k")), Head(200, 50.0, '"etag"'))
        self.assertEqual(self.s3.seen, ["HEAD k"])

    def test_an_age_is_the_servers_own(self) -> None:
        """Our clock may be wrong by years."""
        self.s3.server_ahead_s = -1e8
        self.s3.put("k", DATA, age_s=7)
        head = self.result(self.reads.head("k"))
        assert head is not None
        self.assertEqual(head.age_s, 7.0)

    def test_an_age_that_makes_no_sense_is_none(self) -> None:
        """Without a date there is none to tell, and nothing is younger than now."""
        fields = {"Content-Length": "1", "Date": "Thu, 01 Jan 2026 00:00:00 GMT"}
        cases: tuple[tuple[dict[str, str], float | None], ...] = (
            ({}, None),
            ({"Last-Modified": "yesterday"}, None),
            ({"Last-Modified": "Thu, 01 Jan 99999 00:00:00 GMT"}, None),
            ({"Last-Modified": "Thu, 01 Jan 2026 00:00:09 GMT"}, 0.0),
        )
        for more, age_s in cases:
            self.script("HEAD k", FakeResponse(200, {**fields, **more}, b"", 0))
            self.assertEqual(self.result(self.reads.head("k")), Head(1, age_s, None))
        self.script("HEAD k", FakeResponse(200, {"Content-Length": "1", "Last-Modified": fields["Date"]}, b"", 0))
        self.assertEqual(self.result(self.reads.head("k")), Head(1, None, None))

    def test_small_brings_all_of_it(self) -> None:
        """With its age."""
        self.assertEqual(self.result(self.reads.small("k", 200)), Small(DATA, 50.0, '"etag"'))
        self.assertNotIn("x01", repr(self.result(self.reads.small("k", 200))))

    def test_what_is_not_there_is_none(self) -> None:
        """It is an answer like any other, that is, S3 works."""
        self.assertIsNone(self.result(self.reads.head("none")))
        self.assertIsNone(self.result(self.reads.small("none", 200)))
        self.assertTrue(self.gate.is_open)

    def test_trouble_that_was_told_already_is_told_as_it_is(self) -> None:
        """A server that cannot be used, or none yet: the words say why."""
        self.s3.scripts["HEAD k"] = lambda _: S3Trouble("refused", "no such file", "the S3 server of k cannot be used")
        trouble = self.trouble(self.reads.head("k"))
        self.assertEqual((trouble.kind, str(trouble)), ("refused", "the S3 server of k cannot be used: no such file"))

    def test_what_is_asked_carries_no_more_than_it_must(self) -> None:
        """No coding, no credential but the signature, which is short-lived and signs for one key and method."""
        self.result(self.reads.head("k"))
        self.result(self.reads.open("k", "bytes=0-"))
        head, get = self.s3.asked
        names = {name.decode(): values for name, values in head.headers.getAllRawHeaders()}
        self.assertEqual(
            names, {"Accept-Encoding": [b"identity"], "User-Agent": [f"txociproxy/{__version__}".encode()]}
        )
        self.assertEqual(get.headers.getRawHeaders("Range"), ["bytes=0-"])
        self.assertTrue(head.url.startswith("http://s3.test/bucket/k?"))
        self.assertIn("X-Amz-Signature=", head.url)
        signer, now_s = self.reading.signer, self.reading.now_s()
        self.assertEqual(head.url, signer.presign("HEAD", "k", SIGNED_S, now_s)[0])
        self.assertEqual(get.url, signer.presign("GET", "k", SIGNED_S, now_s)[0])

    def test_a_small_object_that_is_long_is_trouble_of_its_own(self) -> None:
        """S3 works all the same."""
        for _ in range(4):
            self.assertEqual(self.trouble(self.reads.small("k", 199)).code, "TooLong")
        self.assertTrue(self.gate.is_open)

    def test_a_cut_answer_is_a_failure(self) -> None:
        """Three of them are no accident."""
        for count in range(3):
            self.assertTrue(self.gate.is_open)
            response = FakeResponse(200, body=b"x", length=2, ends=False)
            self.script("GET k", response)
            d = self.begin(self.reads.small("k", 200))
            response.break_off()
            self.assertEqual((self.trouble(d).code, count), ("BrokenOff", count))
        self.assertFalse(self.gate.is_open)

    def test_a_coding_is_trouble(self) -> None:
        """No digest would match; and nobody asked for it."""
        self.s3.put("k", DATA, fields={"Content-Encoding": "gzip"})
        for ask in (self.reads.head("k"), self.reads.small("k", 200), self.reads.open("k", None, 200)):
            self.assertEqual(self.trouble(ask).code, "ContentEncoding")
        self.assertTrue(all(answer.transport.lost for answer in self.s3.answers[1:]))
        self.assertTrue(self.gate.is_open)
        self.s3.put("k", DATA, fields={"Content-Encoding": "Identity"})
        self.assertIsNotNone(self.result(self.reads.head("k")))

    def test_a_head_without_a_length_is_trouble(self) -> None:
        """A hit needs one."""
        for fields in ({}, {"Content-Length": "-1"}, {"Content-Length": "1e3"}):
            self.script("HEAD k", FakeResponse(200, fields, b"", 0))
            self.assertEqual(self.trouble(self.reads.head("k")).code, "NoLength")

    def test_an_answer_of_no_use_is_a_failure(self) -> None:
        """Only 200 brings an object whole."""
        for status in (204, 206):
            self.script("HEAD k", FakeResponse(status, {"Content-Length": "1"}, b"", 0))
            self.script("GET k", FakeResponse(status, {}, b"", 0))
            self.assertEqual(self.trouble(self.reads.head("k")).kind, "failing")
            self.gate.worked()
            self.assertEqual(self.trouble(self.reads.small("k", 9)).kind, "failing")
            self.gate.worked()


class RefusalTests(ReadsCase):
    """What S3 has against it."""

    kinds: tuple[Callable[[Reads], Coroutine[Deferred[Any], Any, object]], ...] = (
        lambda reads: reads.head("k"),
        lambda reads: reads.small("k", 9),
        lambda reads: reads.open("k", None),
    )

    def refuse(self, status: int, code: str) -> None:
        """Answer everything so, on a bucket that knows nothing of before."""
        self.gate.stop()
        self.setUp()
        self.script("HEAD", refused(status, "", "HEAD"))
        self.script("GET", refused(status, code))

    def test_a_403_closes_the_gate_and_names_the_right_that_may_be_missing(self) -> None:
        """Without s3:ListBucket it is also said of what is not there."""
        for begin, code in zip(self.kinds, ("HTTP403", "AccessDenied", "AccessDenied"), strict=True):
            self.refuse(403, "AccessDenied")
            trouble = self.trouble(begin(self.reads))
            self.assertEqual((trouble.kind, trouble.code, self.gate.is_open), ("refused", code, False))
            self.assertIn("s3:ListBucket", str(trouble))

    def test_refusals_close_the_gate(self) -> None:
        """They will be the same for everybody, until somebody changes something."""
        for status in (301, 307, 400, 401, 405):
            for begin in self.kinds:
                self.refuse(status, "AccessDenied")
                self.assertEqual(self.trouble(begin(self.reads)).kind, "refused")
                self.assertFalse(self.gate.is_open, status)

    def test_failures_close_the_gate_when_there_are_three(self) -> None:
        """They may pass."""
        for status in (408, 429, 500, 503):
            for begin in self.kinds:
                self.refuse(status, "SlowDown")
                for _ in range(3):
                    self.assertTrue(self.gate.is_open, status)
                    self.assertEqual(self.trouble(begin(self.reads)).kind, "failing")
                self.assertFalse(self.gate.is_open, status)

    def test_a_redirect_is_not_followed(self) -> None:
        """It says that the region is wrong, and leads nobody anywhere."""
        self.script("GET k", FakeResponse(307, {"Location": "http://evil.test/"}, b"", 0))
        self.assertIn("region", str(self.trouble(self.reads.open("k", None))))
        self.assertEqual(len(self.s3.asked), 1)

    def test_a_missing_bucket_is_a_refusal_where_it_can_be_told(self) -> None:
        """A GET says it, a HEAD looks as if the key were missing."""
        self.script("HEAD", refused(404, "", "HEAD"))
        self.script("GET", refused(404, "NoSuchBucket"))
        self.assertIsNone(self.result(self.reads.head("k")))
        trouble = self.trouble(self.reads.small("k", 9))
        self.assertEqual((trouble.kind, trouble.code, self.gate.is_open), ("refused", "NoSuchBucket", False))

    def test_what_a_refusal_says_is_read_to_its_end_and_within_bounds(self) -> None:
        """So that its connection can be used again; a long one is closed."""
        self.script("GET k", refused(503, "SlowDown"))
        self.assertEqual(self.trouble(self.reads.small("k", 9)).code, "SlowDown")
        self.assertFalse(self.s3.answers[0].transport.lost)
        self.script("GET k", FakeResponse(503, {}, b"x" * 20_000, UNKNOWN_LENGTH, ends=False))
        self.assertEqual(self.trouble(self.reads.small("k", 9)).code, "HTTP503")
        self.assertTrue(self.s3.answers[1].transport.lost)

    def test_a_code_is_a_word(self) -> None:
        """Whatever a server sends goes into the log."""
        for body in (b"<Code>a b\n</Code>", b"<Code>" + b"x" * 65 + b"</Code>", b"<Code></Code>", b"\xff"):
            self.gate.worked()
            self.script("GET k", FakeResponse(500, {}, body, len(body)))
            self.assertEqual(self.trouble(self.reads.small("k", 9)).code, "HTTP500")

    def test_an_object_that_is_away_concerns_no_other(self) -> None:
        """An owner's rules may have moved it to where it cannot be read at once."""
        for status, code in ((403, "InvalidObjectState"), (400, "KeyTooLongError")):
            self.refuse(status, code)
            for _ in range(4):
                self.assertEqual(self.trouble(self.reads.open("k", None)).code, code)
            self.assertTrue(self.gate.is_open)

    def test_a_connection_that_is_lost_once_is_an_accident(self) -> None:
        """A server before S3 that begins anew must not end the reads of all others; three in a row are no chance."""
        for error in (ConnectionLost("http://s3.test/?X-Amz"), ConnectionDone(), ConnectionAborted()):
            for begin in self.kinds:
                self.refuse(200, "")
                answer = ResponseNeverReceived([Failure(error)])
                self.script("HEAD", answer)
                self.script("GET", answer)
                for _ in range(3):
                    self.assertTrue(self.gate.is_open)
                    trouble = self.trouble(begin(self.reads))
                    self.assertEqual((trouble.kind, trouble.code), ("failing", type(error).__name__))
                self.assertFalse(self.gate.is_open)

    def test_no_connection_is_told_by_its_name_only(self) -> None:
        """The words of an error might repeat the address."""
        for error, code in (
            (ConnectionRefusedError("http://s3.test/?X-Amz-Signature=1"), "ConnectionRefusedError"),
            (ResponseNeverReceived([Failure(KeyError("X-Amz"))]), "KeyError"),
            (ResponseNeverReceived([]), "ResponseNeverReceived"),
        ):
            self.setUp()
            self.script("HEAD k", error)
            trouble = self.trouble(self.reads.head("k"))
            self.assertEqual((trouble.kind, trouble.code, self.gate.is_open), ("unreachable", code, False))
            self.assertIsNone(trouble.__cause__)
            self.gate.stop()


class OpenTests(ReadsCase):
    """Bodies: exactly what was asked, or trouble."""

    def open(self, byte_range: str | None, size_bytes: int | None = 200) -> bytes:
        """Read content."""
        return self.whole(self.result(self.reads.open("k", byte_range, size_bytes)))

    def wrong(self, byte_range: str | None, response: FakeResponse, size_bytes: int | None = 200) -> None:
        """An answer is none; it is closed, and S3 works all the same."""
        self.script("GET k", response)
        for _ in range(4):
            self.assertIn(
                self.trouble(self.reads.open("k", byte_range, size_bytes)).code, ("WrongRange", "WrongLength")
            )
        self.assertTrue(response.transport.lost)
        self.assertTrue(self.gate.is_open)

    def test_whole_and_in_parts(self) -> None:
        """With 200 and 206."""
        self.assertEqual(self.open(None), DATA)
        self.assertEqual(self.open(None, None), DATA)
        for text, part in (("0-", DATA), ("10-", DATA[10:]), ("10-19", DATA[10:20]), ("-5", DATA[-5:])):
            self.assertEqual(self.open(f"bytes={text}"), part)
        self.assertEqual(self.open("bytes=190-999"), DATA[190:])
        self.assertEqual(self.open("bytes=190-999", None), DATA[190:])

    def test_the_answer_is_handed_over_with_its_body_not_delivered(self) -> None:
        """Whoever reads sets the pace."""
        response = self.result(self.reads.open("k", "bytes=5-", 200))
        assert isinstance(response, FakeResponse)
        self.assertEqual((response.code, response.protocol), (206, None))

    def test_another_length_is_trouble(self) -> None:
        """For a whole one, also where it is not told."""
        for length in (199, 201, UNKNOWN_LENGTH):
            self.wrong(None, FakeResponse(200, {}, b"", length))
        self.wrong(None, FakeResponse(200, {}, b"", UNKNOWN_LENGTH), None)

    def test_a_range_that_is_ignored_is_trouble(self) -> None:
        """Its first byte would be another one."""
        self.wrong("bytes=10-", FakeResponse(200, {}, b"", 200))
        self.wrong("bytes=10-", FakeResponse(200, {"Content-Range": "bytes 10-199/200"}, b"", 190))

    def test_a_range_that_nobody_asked_for_is_trouble(self) -> None:
        """It is not all of it."""
        self.wrong(None, FakeResponse(206, {"Content-Range": "bytes 0-199/200"}, b"", 200))

    def test_another_range_is_trouble(self) -> None:
        """Each of its three numbers counts, and the length of what comes."""
        for text in ("9-199/200", "10-198/200", "10-199/201", "10-199/*", "*/200", "", "x"):
            fields = {"Content-Range": f"bytes {text}"} if text else {}
            self.wrong("bytes=10-", FakeResponse(206, fields, b"", 190))
        for length in (189, 191, UNKNOWN_LENGTH):
            self.wrong("bytes=10-", FakeResponse(206, {"Content-Range": "bytes 10-199/200"}, b"", length))
        self.wrong("bytes=10-19", FakeResponse(206, {"Content-Range": "bytes 10-19/201"}, b"", 10))
        self.wrong("bytes=10-19", FakeResponse(206, {"Content-Range": "bytes 10-199/200"}, b"", 190))
        self.wrong("bytes=-5", FakeResponse(206, {"Content-Range": "bytes 0-4/200"}, b"", 5), None)

    def test_a_range_beyond_the_end_is_trouble_of_its_own(self) -> None:
        """The object is another one than we knew."""
        for _ in range(4):
            self.assertEqual(self.trouble(self.reads.open("k", "bytes=200-", 300)).code, "InvalidRange")
        self.assertTrue(self.gate.is_open)

    def test_a_range_that_makes_no_sense_is_not_asked_for(self) -> None:
        """It would be answered with the whole."""
        self.assertEqual(self.trouble(self.reads.open("k", "bytes=5-1")).code, "InvalidRange")
        self.assertEqual(self.s3.asked, [])

    def test_what_is_not_there_closes_no_gate(self) -> None:
        """Somebody has removed it."""
        del self.s3.objects["k"]
        for _ in range(4):
            trouble = self.trouble(self.reads.open("k", None, 200))
            self.assertEqual((trouble.kind, trouble.code), ("failing", "NoSuchKey"))
        self.assertTrue(self.gate.is_open)


class PatienceTests(ReadsCase):
    """Every ask ends."""

    def setUp(self) -> None:
        """Nothing is answered unless the test says so."""
        super().setUp()
        self.s3.is_manual = True

    def test_an_answer_that_does_not_come_closes_the_gate(self) -> None:
        """After the patience and no later; then nobody is asked any more."""
        for begin in (
            lambda: self.reads.head("k"),
            lambda: self.reads.small("k", 9),
            lambda: self.reads.open("k", None),
        ):
            self.setUp()
            d = self.begin(begin())
            self.clock.advance(PATIENCE_S - 0.01)
            self.assertNoResult(d)
            self.clock.advance(0.01)
            trouble = self.trouble(d)
            self.assertEqual((trouble.kind, trouble.code, self.gate.is_open), ("unreachable", "Timeout", False))
            self.assertEqual((len(self.s3.cancelled), self.s3.waiting), (1, []))
            asked = len(self.s3.asked)
            self.assertEqual(self.failureResultOf(self.begin(begin()), S3Trouble).value.kind, "unreachable")
            self.assertEqual(len(self.s3.asked), asked)
            self.gate.stop()

    def test_a_body_that_does_not_come_closes_the_gate(self) -> None:
        """Its time is that of the whole ask; a byte now and then buys no more."""
        response = FakeResponse(200, body=b"x", length=50, ends=False)
        self.script("GET k", response)
        d = self.begin(self.reads.small("k", 99))
        self.clock.advance(1)
        self.s3.answer("GET k")
        self.clock.advance(0.9)
        response.send(b"x")
        self.clock.advance(0.1)
        self.assertEqual(self.trouble(d).code, "Timeout")
        self.assertEqual((response.transport.lost, self.gate.is_open), (True, False))

    def test_a_body_of_content_may_take_its_time(self) -> None:
        """Only its beginning is waited for."""
        d = self.begin(self.reads.open("k", None))
        self.s3.answer("GET k")
        response = self.successResultOf(d)
        assert isinstance(response, FakeResponse)
        self.clock.advance(100)
        self.assertFalse(response.transport.lost)
        self.assertTrue(self.gate.is_open)

    def test_a_shorter_patience_counts(self) -> None:
        """That of a whole look is shared by its asks; a longer one does not."""
        d = self.begin(self.reads.head("k", until_s=0.5))
        self.clock.advance(0.5)
        self.assertEqual(self.trouble(d).code, "Timeout")
        self.setUp()
        longer = self.begin(self.reads.small("k", 9, until_s=50))
        self.clock.advance(PATIENCE_S)
        self.assertEqual(self.trouble(longer).code, "Timeout")

    def test_the_gate_ends_all_that_wait(self) -> None:
        """Those who came later do not wait for the same hang."""
        first = self.begin(self.reads.head("k"))
        self.clock.advance(1.5)
        others: list[Deferred[Any]] = [self.begin(self.reads.small("k", 9)), self.begin(self.reads.open("k", None))]
        self.clock.advance(0.5)
        self.assertEqual(self.trouble(first).code, "Timeout")
        for other in others:
            self.assertEqual(self.trouble(other).kind, "unreachable")
        self.assertEqual((self.s3.waiting, self.gate.outages), ([], 1))

    def test_the_gate_may_be_closed_by_others(self) -> None:
        """An upload that is refused, for one."""
        d = self.begin(self.reads.head("k"))
        self.gate.failed(REFUSED)
        self.assertEqual(self.trouble(d).kind, "refused")

    def test_only_so_many_run_at_once(self) -> None:
        """The next one waits for its turn, and takes it."""
        asks = [self.begin(self.reads.head("k")) for _ in range(MAX_ASKS + 1)]
        self.assertEqual(len(self.s3.asked), MAX_ASKS)
        self.s3.answer("HEAD k")
        self.assertEqual(len(self.s3.asked), MAX_ASKS + 1)
        self.s3.answer_all()
        for ask in asks:
            self.assertEqual(self.successResultOf(ask), Head(200, 50.0, '"etag"'))
        again = [self.begin(self.reads.small("k", 200)) for _ in range(2 * MAX_ASKS)]
        self.s3.answer_all()
        self.assertEqual({self.successResultOf(ask) for ask in again}, {Small(DATA, 50.0, '"etag"')})

    def test_bodies_do_not_keep_short_asks_waiting(self) -> None:
        """They last as long as clients read."""
        opened = [self.begin(self.reads.open("k", None)) for _ in range(MAX_ASKS + 1)]
        self.assertEqual(len(self.s3.asked), MAX_ASKS)
        head = self.begin(self.reads.head("k"))
        self.s3.answer_all()
        self.assertIsNotNone(self.successResultOf(head))
        for ask in opened:
            self.successResultOf(ask)

    def test_whoever_waited_for_a_place_says_nothing_about_s3(self) -> None:
        """It is we who ask so much."""
        for _ in range(MAX_ASKS):
            self.begin(self.reads.head("k"))
        late = self.begin(self.reads.head("late k"))
        self.clock.advance(1.5)
        for _ in range(MAX_ASKS):
            self.s3.answer("HEAD k")
        self.assertEqual(self.s3.open, ["HEAD late k"])
        self.clock.advance(0.5)
        trouble = self.trouble(late)
        self.assertEqual((trouble.code, self.gate.is_open, self.s3.waiting), ("Busy", True, []))

    def test_nor_does_it_end_a_row_of_failures(self) -> None:
        """Nothing was heard from S3."""
        for _ in range(2):
            self.gate.failed(FAILING)
        for _ in range(MAX_ASKS):
            self.begin(self.reads.head("k")).addErrback(lambda _: None)
        late = self.begin(self.reads.head("late k", until_s=1))
        self.clock.advance(1)
        self.assertEqual(self.trouble(late).code, "Busy")
        self.gate.failed(FAILING)
        self.assertFalse(self.gate.is_open)

    def test_a_turn_that_never_comes_is_not_s3s_fault_either(self) -> None:
        """The others are about to tell."""
        for _ in range(MAX_ASKS):
            self.begin(self.reads.head("k")).addErrback(lambda _: None)
        self.clock.advance(0.5)
        late = self.begin(self.reads.head("late k", until_s=1.5))
        self.clock.advance(1)
        self.assertEqual((self.trouble(late).code, self.gate.is_open), ("Busy", True))
        self.s3.answer_all()
        self.assertEqual(self.s3.seen.count("HEAD late k"), 0)

    def test_cancelling_closes_the_request(self) -> None:
        """Whether it waits for its place, its answer or its body; it says nothing about S3."""
        response = FakeResponse(200, body=b"x", length=50, ends=False)
        self.script("GET k", response)
        body = self.begin(self.reads.small("k", 99))
        self.s3.answer("GET k")
        others = [self.begin(self.reads.head("k")) for _ in range(MAX_ASKS)]
        leaving: list[Deferred[Any]] = [*reversed(others), body]
        for ask in leaving:
            ask.cancel()
            self.failureResultOf(ask, CancelledError)
        self.assertEqual((len(self.s3.cancelled), response.transport.lost), (MAX_ASKS - 1, True))
        self.assertTrue(self.gate.is_open)
        self.s3.is_manual = False
        self.assertIsNotNone(self.result(self.reads.head("k")))

    def test_a_probe_passes_a_closed_gate_and_tells_it_nothing(self) -> None:
        """What becomes of it is for whoever probes."""
        self.gate.failed(UNREACHABLE)
        d = self.begin(self.reads.probe("k"))
        self.s3.answer("HEAD k")
        self.assertEqual(self.successResultOf(d), Head(200, 50.0, '"etag"'))
        self.assertFalse(self.gate.is_open)
        self.gate.stop()
        self.setUp()
        self.script("HEAD k", refused(403, "", "HEAD"))
        d = self.begin(self.reads.probe("k"))
        self.s3.answer("HEAD k")
        self.assertEqual(self.trouble(d).kind, "refused")
        self.assertTrue(self.gate.is_open)

    def test_a_probe_outlives_the_closing_of_the_gate(self) -> None:
        """But not its patience."""
        d = self.begin(self.reads.probe("k"))
        self.gate.failed(UNREACHABLE)
        self.gate.stop()
        self.assertNoResult(d)
        self.clock.advance(PATIENCE_S)
        self.assertEqual(self.trouble(d).code, "Timeout")

    def test_an_answer_ends_a_row_of_failures(self) -> None:
        """Also one that says there is nothing."""
        self.s3.is_manual = False
        for _ in range(3):
            for _ in range(2):
                self.script("HEAD k", refused(500, "", "HEAD"))
                self.trouble(self.reads.head("k"))
            self.assertIsNone(self.result(self.reads.head("none")))
        self.assertTrue(self.gate.is_open)

    def test_the_signature_is_that_of_the_moment(self) -> None:
        """A request that is sent late is signed late."""
        self.reading.identity = evolve(self.reading.identity, access_key="OTHER")
        self.begin(self.reads.head("k")).addErrback(lambda _: None)
        self.reading.signer.refresh()
        self.begin(self.reads.head("k")).addErrback(lambda _: None)
        first, second = self.s3.asked
        self.assertIn("AKID", first.url)
        self.assertIn("OTHER", second.url)
        fields = {"Accept-Encoding": ["identity"], "User-Agent": [f"txociproxy/{__version__}"]}
        self.assertEqual(second.headers, Headers(fields))
        self.s3.answer_all()
