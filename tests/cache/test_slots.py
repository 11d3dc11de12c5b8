"""Slots: the caps of RULES A5 and the wait before a 503."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from txociproxy.oci.errors import OCIError
from txociproxy.slots import Slots


class SlotsTests(SynchronousTestCase):
    """Three in all, two per name."""

    def setUp(self) -> None:
        """Nobody is in."""
        self.clock = Clock()
        self.slots = Slots("downloads", (3, 2), self.clock)

    def enter(self, name: str, until_s: float | None = None) -> Deferred[None]:
        """Want a place."""
        return Deferred.fromCoroutine(self.slots.enter("all", name, until_s=until_s))

    def leave(self, _: None, name: str) -> None:
        """Give a place back as soon as it is had."""
        self.slots.leave("all", name)

    def test_there_are_places_up_to_each_cap(self) -> None:
        """Per name and in all."""
        self.successResultOf(self.enter("a"))
        self.successResultOf(self.enter("a"))
        self.assertNoResult(third_a := self.enter("a"))
        self.successResultOf(self.enter("b"))
        self.assertNoResult(second_b := self.enter("b"))
        for d in (third_a, second_b):
            d.cancel()
            self.failureResultOf(d, CancelledError)

    def test_who_waits_too_long_is_told_to_come_again(self) -> None:
        """503 TOOMANYREQUESTS with Retry-After, after five seconds."""
        for name in "abc":
            self.successResultOf(self.enter(name))
        late = self.enter("d")
        self.clock.advance(4.9)
        self.assertNoResult(late)
        self.clock.advance(0.2)
        error = self.failureResultOf(late, OCIError).value
        self.assertEqual((error.code, error.status, error.headers), ("TOOMANYREQUESTS", 503, (("Retry-After", "1"),)))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_the_longest_waiting_that_fits_gets_the_place(self) -> None:
        """One whose own cap is reached does not hold up the others."""
        for name in "aab":
            self.successResultOf(self.enter(name))
        blocked, second, third = self.enter("a"), self.enter("c"), self.enter("d")
        self.slots.leave("all", "b")
        self.assertNoResult(blocked)
        self.successResultOf(second)
        self.assertNoResult(third)
        self.slots.leave("all", "a")
        self.successResultOf(blocked)
        self.clock.advance(5)
        self.failureResultOf(third, OCIError)

    def test_whoever_leaves_the_queue_takes_no_place(self) -> None:
        """A client that went away while it waited."""
        for name in "abc":
            self.successResultOf(self.enter(name))
        gone, patient = self.enter("d"), self.enter("d")
        gone.cancel()
        self.failureResultOf(gone, CancelledError)
        self.slots.leave("all", "a")
        self.successResultOf(patient)
        for name in "bcd":
            self.slots.leave("all", name)
        self.assertEqual((dict(self.slots.taken), self.clock.getDelayedCalls()), ({}, []))

    def test_those_that_give_their_places_back_at_once_are_told_once(self) -> None:
        """Their upstream refuses on the spot, so that the next ones are told while the first is still being told."""
        for name in "abc":
            self.successResultOf(self.enter(name))
        hasty = {name: self.enter(name) for name in "def"}
        for name, d in hasty.items():
            d.addCallback(self.leave, name)
        self.slots.leave("all", "a")
        for d in hasty.values():
            self.successResultOf(d)
        self.assertEqual(self.slots.taken[(0, "all")], 2)

    def test_somebody_who_has_waited_already_waits_no_longer(self) -> None:
        """The patience of one pull is counted from its beginning."""
        until_s = self.slots.patience_ends_s()
        for name in "abc":
            self.successResultOf(self.enter(name))
        self.clock.advance(3)
        late = self.enter("d", until_s)
        self.clock.advance(2)
        self.failureResultOf(late, OCIError)
        self.failureResultOf(self.enter("d", until_s), OCIError)
