"""Looks: shared by all who ask at once, and no longer than their patience."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred

from tests.storage.s3.finding_case import OTHER, FindingCase
from tests.storage.s3.scripted import PATIENCE_S, refused
from txociproxy.oci.errors import StorageUnavailable
from txociproxy.storage.s3.trouble import S3Trouble


class SharingTests(FindingCase):
    """Many who look for the same at once."""

    def setUp(self) -> None:
        """Nothing is answered unless the test says so."""
        super().setUp()
        self.s3.is_manual = True

    def test_all_who_ask_at_once_share_one_look(self) -> None:
        """And what is believed afterwards."""
        self.reading.publish()
        asks = [self.begin(namespace) for namespace in ("docker.io", "ghcr.io", "quay.io")]
        self.assertEqual(len(self.s3.asked), 3)
        self.s3.answer_all()
        for ask in asks:
            self.assertIsNotNone(self.successResultOf(ask))
        self.assertEqual(len(self.s3.asked), 3)

    def test_digests_do_not_share(self) -> None:
        """Each has its own."""
        self.reading.publish()
        first, second = self.begin(), self.begin(digest=OTHER)
        self.s3.answer_all()
        self.assertIsNotNone(self.successResultOf(first))
        self.assertIsNone(self.successResultOf(second))

    def test_a_shared_look_tells_nobody_of_what_is_held_for_others(self) -> None:
        """Whoever of them came first (RULES D3)."""
        for order in (("docker.io", "ghcr.io"), ("ghcr.io", "docker.io")):
            self.setUp()
            self.reading.publish(held=("docker.io",))
            asks = {namespace: self.begin(namespace) for namespace in order}
            self.s3.answer_all()
            self.assertEqual(len(self.s3.asked), 4)
            self.assertIsNotNone(self.successResultOf(asks["docker.io"]))
            self.assertIsNone(self.successResultOf(asks["ghcr.io"]))

    def test_one_who_leaves_takes_nothing_from_the_others(self) -> None:
        """Also the one who came first."""
        self.reading.publish()
        first, second = self.begin(), self.begin()
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.assertEqual(self.s3.cancelled, [])
        self.s3.answer_all()
        self.assertIsNotNone(self.successResultOf(second))

    def test_one_may_leave_while_the_others_are_told(self) -> None:
        """By what the answer leads to."""
        self.reading.publish()
        first, second = self.begin(), self.begin()
        first.addCallback(lambda _: second.cancel())
        self.s3.answer_all()
        self.assertIsNone(self.successResultOf(first))
        self.failureResultOf(second, CancelledError)

    def test_the_last_one_who_leaves_ends_the_look(self) -> None:
        """All its requests are closed, whichever it waits for, and the next one looks anew."""
        for answered in ((), (self.content,), (self.content, self.sidecar), (self.content, self.sidecar, self.held)):
            self.setUp()
            self.reading.publish(held=("docker.io",))
            asks = [self.begin(), self.begin()]
            for key in answered:
                self.s3.answer(
                    f"{'HEAD' if key == self.content else 'GET'} {self.held_sidecar if key == self.held else key}"
                )
            waits = self.s3.open
            for ask in asks:
                self.assertEqual(self.s3.cancelled, [])
                ask.cancel()
                self.failureResultOf(ask, CancelledError)
            self.assertEqual((sorted(self.s3.cancelled), self.s3.waiting), (sorted(waits), []))
            self.assertTrue(waits)
            again = self.begin()
            self.s3.answer_all()
            self.assertIsNotNone(self.successResultOf(again))
            self.assertTrue(self.gate.is_open)

    def test_failures_are_shared(self) -> None:
        """Nobody asks a second time for what has just failed."""
        self.script(f"HEAD {self.content}", refused(503, "", "HEAD"))
        asks = [self.begin(), self.begin("ghcr.io")]
        self.s3.answer_all()
        for ask in asks:
            self.assertEqual(self.failureResultOf(ask, S3Trouble).value.code, "HTTP503")
        self.assertEqual(self.s3.seen.count(f"HEAD {self.content}"), 1)

    def test_a_hit_does_not_wait_for_what_is_held(self) -> None:
        """There is nothing in it that could matter."""
        self.reading.publish()
        d = self.begin()
        self.s3.answer(f"HEAD {self.content}")
        self.s3.answer(f"GET {self.sidecar}")
        self.assertIsNotNone(self.successResultOf(d))
        self.s3.answer_all()


class PatienceTests(FindingCase):
    """However S3 hangs."""

    def setUp(self) -> None:
        """Nothing is answered unless the test says so."""
        super().setUp()
        self.s3.is_manual = True

    def test_whatever_hangs_a_find_ends_with_its_patience(self) -> None:
        """All its requests together; the first callers pay for it, and nobody after them."""
        for hangs in ("content", "sidecar", "held_sidecar", "held", "all"):
            self.setUp()
            self.reading.publish(held=("docker.io",))
            if hangs == "sidecar":
                self.reading.publish()
            d = self.begin()
            late: Deferred[Any] | None = None
            for _ in range(39):
                self.clock.advance(PATIENCE_S / 40)
                self.answer_but(hangs)
                late = late or self.begin("ghcr.io")
            self.assertEqual(bool(d.called), hangs not in ("content", "sidecar", "held_sidecar", "held", "all"), hangs)
            self.clock.advance(PATIENCE_S / 40)
            self.assertTrue(d.called, hangs)
            assert late is not None
            self.assertTrue(late.called, hangs)
            for ask in (d, late):
                ask.addErrback(lambda failure: failure.trap(StorageUnavailable))
            self.assertFalse(self.gate.is_open)
            asked = len(self.s3.asked)
            self.failureResultOf(self.begin(), S3Trouble)
            self.assertEqual((len(self.s3.asked), self.s3.waiting), (asked, []))
            self.gate.stop()

    def answer_but(self, hangs: str) -> None:
        """Answer what waits, but for one key."""
        for what in self.s3.open:
            if hangs != "all" and what.partition(" ")[2] != getattr(self, hangs):
                self.s3.answer(what)

    def test_a_slow_s3_is_waited_for_no_longer_in_steps(self) -> None:
        """The second request of a look has what the first one left."""
        self.reading.publish(held=("docker.io",))
        d = self.begin()
        self.clock.advance(1.5)
        for what in self.s3.open:
            self.s3.answer(what)
        self.assertEqual(self.s3.open, [f"HEAD {self.held}"])
        self.clock.advance(0.49)
        self.assertNoResult(d)
        self.clock.advance(0.01)
        self.assertIsNone(self.successResultOf(d))
        self.assertFalse(self.gate.is_open)

    def test_what_is_asked_one_after_the_other_has_one_patience(self) -> None:
        """What is said of held content too, where open content was there a moment ago."""
        self.reading.publish()
        first = self.begin()
        self.s3.answer_all()
        self.assertIsNotNone(self.successResultOf(first))
        self.s3.objects.clear()
        self.clock.advance(1.5)
        d = self.begin()
        self.clock.advance(1.5)
        self.s3.answer(f"HEAD {self.content}")
        self.assertEqual(self.s3.open, [f"GET {self.held_sidecar}"])
        self.clock.advance(0.5)
        self.assertIsNone(self.successResultOf(d))

    def test_those_who_join_wait_no_longer_than_the_first(self) -> None:
        """Their look has begun before them."""
        first = self.begin()
        self.clock.advance(1.9)
        second = self.begin()
        self.clock.advance(0.1)
        for ask in (first, second):
            self.failureResultOf(ask, S3Trouble)

    def test_a_sidecar_that_hangs_is_trouble(self) -> None:
        """Clients are not sent to an S3 that hangs, whatever it said two seconds ago."""
        self.reading.publish()
        d = self.begin()
        self.s3.answer(f"HEAD {self.content}")
        self.s3.answer(f"GET {self.held_sidecar}")
        self.clock.advance(PATIENCE_S)
        self.failureResultOf(d, S3Trouble)
        self.assertFalse(self.gate.is_open)
