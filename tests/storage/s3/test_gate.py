"""The gate: who finds S3 out of reach pays for it once, and a probe opens it again."""

from __future__ import annotations

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from tests.storage.s3.scripted import FAILING, REFUSED, UNREACHABLE
from txociproxy.oci.errors import StorageUnavailable
from txociproxy.storage.s3.gate import Gate
from txociproxy.storage.s3.trouble import S3Trouble


class GateTests(SynchronousTestCase):
    """Open, closed, and the way between."""

    def setUp(self) -> None:
        """A gate whose probe the test answers."""
        self.clock = Clock()
        self.gate = Gate(self.clock, "the bucket")
        self.answer: Exception | None = FAILING
        self.probed_s: list[float] = []
        self.gate.probe = self.probe
        self.told: list[str] = []
        self.gate.on_open.append(lambda: self.told.append("open"))
        self.gate.on_close.append(lambda: self.told.append("close"))

    def probe(self) -> Deferred[None]:
        """Note when it comes."""
        self.probed_s.append(self.clock.seconds())
        return succeed(None) if self.answer is None else fail(self.answer)

    def end_outage(self, after_s: float = 30.0) -> None:
        """Let the next probe find S3 well."""
        self.answer = None
        self.clock.advance(after_s)
        self.assertTrue(self.gate.is_open)
        self.answer = FAILING

    def test_it_is_open_until_somebody_complains(self) -> None:
        """And nothing is probed."""
        self.gate.check()
        self.clock.advance(100)
        self.assertTrue(self.gate.is_open)
        self.assertEqual((self.probed_s, self.gate.outages), ([], 0))

    def test_a_lost_answer_closes_it_at_once(self) -> None:
        """Nobody else shall wait for the same."""
        self.gate.failed(UNREACHABLE)
        error = self.assertRaises(S3Trouble, self.gate.check)
        self.assertEqual((error.kind, error.code), ("unreachable", "Timeout"))
        self.assertEqual((self.gate.is_open, self.gate.outages, self.told), (False, 1, ["close"]))

    def test_a_refusal_closes_it_at_once(self) -> None:
        """It will be the same for everybody."""
        self.gate.failed(REFUSED)
        self.assertEqual(self.assertRaises(S3Trouble, self.gate.check).code, "AccessDenied")

    def test_three_failures_in_a_row_close_it(self) -> None:
        """One that works begins the count anew."""
        for works in (False, False, True, False, False):
            if works:
                self.gate.worked()
            else:
                self.gate.failed(FAILING)
        self.gate.check()
        self.gate.failed(FAILING)
        self.assertRaises(S3Trouble, self.gate.check)

    def test_failures_before_an_outage_do_not_count_after_it(self) -> None:
        """The count begins anew."""
        for _ in range(3):
            self.gate.failed(FAILING)
        self.end_outage()
        for _ in range(2):
            self.gate.failed(FAILING)
        self.assertTrue(self.gate.is_open)

    def test_it_is_probed_after_a_second_and_then_ever_more_rarely(self) -> None:
        """Up to half a minute."""
        self.gate.failed(UNREACHABLE)
        self.clock.pump([0.25] * 484)
        self.assertEqual(self.probed_s, [1, 3, 7, 15, 31, 61, 91, 121])
        self.assertEqual(self.told, ["close"])

    def test_a_probe_that_works_opens_it(self) -> None:
        """Nothing else does."""
        self.gate.failed(UNREACHABLE)
        self.gate.worked()
        self.assertFalse(self.gate.is_open)
        self.end_outage(1)
        self.gate.check()
        self.assertEqual((self.told, self.gate.trouble), (["close", "open"], None))
        self.clock.advance(100)
        self.assertEqual(self.probed_s, [1])

    def test_what_fails_during_an_outage_belongs_to_it(self) -> None:
        """It is neither another outage nor another probe."""
        for trouble in (UNREACHABLE, UNREACHABLE, REFUSED):
            self.gate.failed(trouble)
        self.clock.advance(1)
        self.assertEqual((self.gate.outages, self.told, self.probed_s), (1, ["close"], [1]))

    def test_an_outage_is_logged_at_its_start_and_at_its_end(self) -> None:
        """However many requests and probes fail meanwhile."""
        with capturedLogs() as events:
            for _ in range(5):
                self.gate.failed(UNREACHABLE)
            self.clock.pump([1, 2, 4])
            self.end_outage(8)
        texts = [event["log_format"].format(**event) for event in events]
        self.assertEqual([event["log_level"] for event in events], [LogLevel.warn, LogLevel.info])
        self.assertEqual(texts[0], "the bucket is out, pulls go on from the upstream: a request: Timeout")
        self.assertEqual(texts[1], "the bucket is back after 15.0 seconds")

    def test_a_probe_that_hangs_is_given_up(self) -> None:
        """And another one comes."""
        cancelled: list[object] = []
        self.gate.probe = lambda: Deferred(cancelled.append)
        self.gate.failed(REFUSED)
        self.clock.pump([1, 29.9])
        self.assertEqual(cancelled, [])
        self.clock.advance(0.1)
        self.assertEqual(len(cancelled), 1)
        self.assertEqual(self.assertRaises(S3Trouble, self.gate.check).code, "Timeout")
        self.answer, self.gate.probe = None, self.probe
        self.clock.advance(2)
        self.gate.check()

    def test_whatever_a_probe_raises_the_gate_stays_closed(self) -> None:
        """Also what nobody has foreseen."""
        self.gate.failed(UNREACHABLE)
        for answer, code in ((StorageUnavailable("another mode"), "StorageUnavailable"), (KeyError("x"), "KeyError")):
            self.answer = answer
            self.clock.advance(2)
            self.assertEqual(self.assertRaises(S3Trouble, self.gate.check).code, code)
        self.end_outage(4)

    def test_the_last_thing_heard_is_what_is_told(self) -> None:
        """An S3 that is back with other rights is no longer unreachable."""
        self.gate.failed(UNREACHABLE)
        self.answer = REFUSED
        self.clock.advance(1)
        self.assertEqual(self.assertRaises(S3Trouble, self.gate.check).kind, "refused")

    def test_an_outage_that_follows_at_once_is_probed_as_the_same_one(self) -> None:
        """What the probe can do and others cannot is not found out every second."""
        self.gate.failed(UNREACHABLE)
        self.end_outage(1)
        self.gate.failed(UNREACHABLE)
        self.clock.pump([1.9])
        self.assertEqual(self.probed_s, [1])
        self.clock.advance(0.1)
        self.assertEqual(self.probed_s, [1, 3])

    def test_an_outage_long_after_the_last_is_probed_soon(self) -> None:
        """It has nothing to do with the other."""
        self.gate.failed(UNREACHABLE)
        self.end_outage(1)
        self.clock.advance(10.1)
        self.gate.failed(UNREACHABLE)
        self.clock.advance(1)
        self.assertEqual(len(self.probed_s), 2)
        self.assertEqual(self.gate.outages, 2)

    def test_without_a_probe_time_opens_it(self) -> None:
        """Then the next request is one."""
        gate = Gate(self.clock, "the bucket")
        gate.failed(UNREACHABLE)
        self.clock.advance(1)
        gate.check()

    def test_stop_ends_what_waits(self) -> None:
        """Nothing is left on the clock."""
        self.gate.failed(UNREACHABLE)
        self.gate.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.gate.stop()

    def test_stop_ends_a_probe(self) -> None:
        """And no other one begins, nor does a late outage make one."""
        for gate in (Gate(self.clock, "the bucket"), Gate(self.clock, "another")):
            cancelled: list[object] = []
            gate.probe = lambda: Deferred(cancelled.append)  # noqa: B023
            gate.failed(UNREACHABLE)
            self.clock.advance(1)
            gate.stop()
            self.assertEqual((len(cancelled), self.clock.getDelayedCalls(), gate.is_open), (1, [], False))
        stopped = Gate(self.clock, "the bucket")
        stopped.stop()
        stopped.failed(UNREACHABLE)
        self.assertEqual(self.clock.getDelayedCalls(), [])
