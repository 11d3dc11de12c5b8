"""Flights: one ask for all who want the same (laws 7 and 9)."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from txociproxy.flights import Flights, Landed
from txociproxy.oci.errors import UpstreamUnreachable

Outcome = Landed[str] | int


class FlightTests(SynchronousTestCase):
    """Asks whose end the test decides."""

    def setUp(self) -> None:
        """No ask yet."""
        self.claimed: list[str] = []
        self.settled: list[tuple[str, int]] = []
        self.flights: Flights[str, int] = Flights(self.claimed.append, self.settle)
        self.asks: list[Deferred[Outcome]] = []
        self.cancelled = 0

    def settle(self, value: str) -> None:
        """Remember the value, and how many had been told."""
        self.settled.append((value, len(self.claimed)))

    def join(self, key: str = "key") -> Deferred[tuple[Outcome, bool]]:
        """Want something."""

        async def joining() -> tuple[Outcome, bool]:
            return await self.flights.join(key, self.ask)

        return Deferred.fromCoroutine(joining())

    def ask(self) -> Deferred[Outcome]:
        """Begin an ask."""

        def cancel(_: Deferred[Outcome]) -> None:
            self.cancelled += 1

        d: Deferred[Outcome] = Deferred(cancel)
        self.asks.append(d)
        return d

    def test_a_hundred_share_one_success(self) -> None:
        """One ask; one of them is told that it was his."""
        waiting = [self.join() for _ in range(100)]
        self.assertEqual(len(self.asks), 1)
        self.asks[0].callback(Landed("value"))
        got = [self.successResultOf(d) for d in waiting]
        self.assertEqual(got, [(Landed("value"), True)] + [(Landed("value"), False)] * 99)
        self.assertEqual((self.claimed, self.settled), (["value"] * 100, [("value", 100)]))
        self.assertFalse(self.flights.is_flying("key"))

    def test_a_refusal_is_told_to_the_one_who_asked(self) -> None:
        """The others ask for themselves, one after the other."""
        first, second, third = (self.join() for _ in range(3))
        self.asks[0].callback(401)
        self.assertEqual(self.successResultOf(first), (401, True))
        self.assertNoResult(second)
        self.assertEqual(len(self.asks), 2)
        self.asks[1].callback(Landed("value"))
        self.assertEqual(self.successResultOf(second), (Landed("value"), True))
        self.assertEqual(self.successResultOf(third), (Landed("value"), False))

    def test_no_answer_is_told_to_everybody(self) -> None:
        """A lost upstream is nobody's own refusal."""
        waiting = [self.join() for _ in range(3)]
        self.asks[0].errback(UpstreamUnreachable("refused"))
        for d in waiting:
            self.failureResultOf(d, UpstreamUnreachable)
        self.assertEqual((len(self.asks), self.settled), (1, []))

    def test_the_ask_goes_on_when_its_leader_leaves(self) -> None:
        """It belongs to the flight (law 9)."""
        leader, other = self.join(), self.join()
        leader.cancel()
        self.failureResultOf(leader, CancelledError)
        self.assertEqual(self.cancelled, 0)
        self.asks[0].callback(Landed("value"))
        self.assertEqual(self.successResultOf(other), (Landed("value"), False))
        self.assertEqual(self.claimed, ["value"])

    def test_the_ask_is_cancelled_when_nobody_waits(self) -> None:
        """And the next one starts a fresh one at once."""
        leader, other = self.join(), self.join()
        other.cancel()
        leader.cancel()
        self.failureResultOf(leader, CancelledError)
        self.failureResultOf(other, CancelledError)
        self.assertEqual(self.cancelled, 1)
        self.assertFalse(self.flights.is_flying("key"))
        later = self.join()
        self.assertEqual(len(self.asks), 2)
        self.asks[1].callback(Landed("value"))
        self.successResultOf(later)

    def test_leaving_after_the_landing_changes_nothing(self) -> None:
        """Everybody has a Deferred of his own."""
        leader, other = self.join(), self.join()
        self.asks[0].callback(Landed("value"))
        leader.cancel()
        other.cancel()
        self.assertEqual(self.successResultOf(leader)[0], Landed("value"))
        self.assertEqual(self.successResultOf(other)[0], Landed("value"))

    def test_one_who_leaves_while_others_are_told_claims_nothing(self) -> None:
        """Whoever is told first may send the next one away."""
        first, second = self.join(), self.join()
        first.addCallback(lambda _: second.cancel())
        self.asks[0].callback(Landed("value"))
        self.failureResultOf(second, CancelledError)
        self.assertEqual((self.claimed, self.settled), (["value"], [("value", 1)]))

    def test_an_ask_that_ends_at_once_is_claimed_before_it_is_settled(self) -> None:
        """Its leader has not even begun to wait."""

        async def at_once() -> Outcome:
            return Landed("value")

        async def joining() -> tuple[Outcome, bool]:
            return await self.flights.join("key", at_once)

        self.assertEqual(self.successResultOf(Deferred.fromCoroutine(joining())), (Landed("value"), True))
        self.assertEqual((self.claimed, self.settled), (["value"], [("value", 1)]))

    def test_other_keys_are_other_flights(self) -> None:
        """Each has its own ask."""
        self.join("one"), self.join("two")
        self.assertEqual(len(self.asks), 2)

    def test_a_waiter_may_join_again_from_its_callback(self) -> None:
        """The key is free when the first is told."""
        again: list[Deferred[tuple[Outcome, bool]]] = []
        self.join().addCallback(lambda _: again.append(self.join()))
        self.asks[0].callback(Landed("value"))
        self.assertNoResult(again[0])
        self.assertEqual(len(self.asks), 2)
        self.asks[1].callback(Landed("more"))
        self.assertEqual(self.successResultOf(again[0]), (Landed("more"), True))
