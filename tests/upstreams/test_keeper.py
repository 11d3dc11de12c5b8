"""A login is kept as long as it may be, and read once for all who ask."""

from __future__ import annotations

from attrs import define, field
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.doubles import InlineWorkers, ManualWorkers
from txociproxy.upstreams.logins.accounts import Login, LoginUnavailable
from txociproxy.upstreams.logins.keeper import FAILURE_S, READING_S, REFUSED_S, Keeper, Reader, Reading, in_thread

LIFETIME_S = 60.0


@define(eq=False)
class ScriptedReader(Reader):
    """Each reading waits for the test; what the keeper tells it is on record."""

    readings: list[Deferred[Reading]] = field(factory=list)
    cancelled: int = 0
    told: list[Login | str] = field(factory=list)

    async def read(self) -> Reading:
        """Wait for :meth:`finds` or :meth:`fails`."""

        def cancelled(_: Deferred[Reading]) -> None:
            self.cancelled += 1

        d: Deferred[Reading] = Deferred(cancelled)
        self.readings.append(d)
        return await d

    def finds(self, password: str, lifetime_s: float = LIFETIME_S) -> Login:
        """End the reading that runs."""
        login = Login("user", password)
        self.readings[-1].callback(Reading(login, lifetime_s))
        return login

    def fails(self, error: Exception) -> None:
        """End the reading that runs."""
        self.readings[-1].errback(error)

    def refused(self, login: Login) -> None:
        """Note it."""
        self.told.append(login)

    def stop(self) -> None:
        """Note it."""
        self.told.append("stop")


class KeeperTests(SynchronousTestCase):
    """One keeper over a reader that the test drives."""

    def setUp(self) -> None:
        """Begin late, so that a time of zero is none of the good ones."""
        self.clock, self.reader = Clock(), ScriptedReader()
        self.clock.advance(1000)
        self.keeper = Keeper(self.reader, self.clock)

    def ask(self) -> Deferred[Login]:
        """Ask for the login."""
        return Deferred.fromCoroutine(self.keeper.login())

    def read(self, password: str, lifetime_s: float = LIFETIME_S) -> Login:
        """Ask, and let the reading end well."""
        d = self.ask()
        self.assertNoResult(d)
        self.reader.finds(password, lifetime_s)
        return self.successResultOf(d)

    def count(self) -> int:
        """Return how many readings there were."""
        return len(self.reader.readings)

    def test_nothing_is_read_before_the_first_ask(self) -> None:
        """A start does not wait for helpers."""
        self.assertEqual(self.count(), 0)

    def test_one_reading_is_for_all_who_ask_meanwhile(self) -> None:
        """Each on a Deferred of his own."""
        asks = [self.ask() for _ in range(5)]
        login = self.reader.finds("one")
        self.assertEqual([self.successResultOf(d) for d in asks], [login] * 5)
        self.assertEqual(self.count(), 1)

    def test_it_is_kept_for_its_lifetime_and_no_longer(self) -> None:
        """To the second."""
        login = self.read("one")
        self.clock.advance(LIFETIME_S - 0.1)
        self.assertEqual(self.successResultOf(self.ask()), login)
        self.clock.advance(0.1)
        self.assertEqual(self.read("two").password, "two")
        self.assertEqual(self.count(), 2)

    def test_one_who_leaves_does_not_stop_the_reading_for_others(self) -> None:
        """Not even the one for whom it began."""
        first, second = self.ask(), self.ask()
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.assertEqual(self.reader.cancelled, 0)
        login = self.reader.finds("one")
        self.assertEqual(self.successResultOf(second), login)

    def test_when_all_have_left_the_reading_goes_on_and_is_kept(self) -> None:
        """The next pull wants it."""
        d = self.ask()
        d.cancel()
        self.failureResultOf(d, CancelledError)
        login = self.reader.finds("one")
        self.assertEqual((self.successResultOf(self.ask()), self.count()), (login, 1))

    def test_one_who_is_told_may_cancel_another(self) -> None:
        """Who then hears nothing but that."""
        first = self.ask()
        second = self.ask()
        first.addCallback(lambda _: second.cancel())
        self.reader.finds("one")
        self.successResultOf(first)
        self.failureResultOf(second, CancelledError)

    def test_one_who_is_told_of_a_failure_may_ask_again(self) -> None:
        """And hears the same, without a reading."""
        again: list[Deferred[Login]] = []
        d = self.ask()
        d.addErrback(lambda _: again.append(self.ask()))
        self.reader.fails(LoginUnavailable("gone"))
        self.assertEqual(str(self.failureResultOf(again[0], LoginUnavailable).value), "gone")
        self.assertEqual(self.count(), 1)

    def test_a_failure_is_told_to_all_and_kept_for_five_seconds(self) -> None:
        """A helper that is broken is not started for every pull; each has an error of his own to raise."""
        asks = [self.ask(), self.ask()]
        self.reader.fails(LoginUnavailable("gone", timed_out=True))
        self.clock.advance(FAILURE_S - 0.1)
        asks += [self.ask(), self.ask()]
        errors = [self.failureResultOf(d, LoginUnavailable).value for d in asks]
        self.assertEqual([(str(e), e.timed_out) for e in errors], [("gone", True)] * 4)
        self.assertEqual(len({id(e) for e in errors}), 4)
        self.clock.advance(0.1)
        self.read("two")
        self.assertEqual((FAILURE_S, self.count()), (5.0, 2))

    def test_an_error_that_is_nobody_s_plan_is_told_and_not_kept(self) -> None:
        """It is ours, and must not look like the account's."""
        asks = [self.ask(), self.ask()]
        self.reader.fails(ZeroDivisionError())
        for d in asks:
            self.failureResultOf(d, ZeroDivisionError)
        self.read("one")

    def test_a_refused_login_is_read_afresh(self) -> None:
        """At once, if it was read long enough ago."""
        login = self.read("one")
        self.clock.advance(REFUSED_S)
        self.keeper.refused(login)
        self.assertEqual(self.read("two").password, "two")

    def test_a_refused_login_is_not_read_more_often_than_every_ten_seconds(self) -> None:
        """A wrong password must not start a helper for every pull."""
        for _ in range(3):
            login = self.read("wrong")
            before = self.count()
            for _ in range(10):
                self.keeper.refused(login)
                self.assertEqual(self.successResultOf(self.ask()), login)
                self.clock.advance(REFUSED_S / 10)
            self.assertEqual(self.count(), before)
        self.assertEqual(REFUSED_S, 10.0)

    def test_the_refusal_of_another_login_changes_nothing(self) -> None:
        """It was replaced while that request was on its way."""
        old = self.read("old")
        self.clock.advance(LIFETIME_S)
        new = self.read("new")
        self.clock.advance(REFUSED_S)
        self.keeper.refused(old)
        self.assertEqual((self.successResultOf(self.ask()), self.count()), (new, 2))

    def test_a_refusal_does_not_lengthen_a_short_life(self) -> None:
        """Ten seconds are the least between two readings, not the life of a login."""
        login = self.read("one", lifetime_s=3)
        self.keeper.refused(login)
        self.clock.advance(3)
        self.read("two")

    def test_the_reader_hears_of_refusals_and_of_the_stop(self) -> None:
        """It may ask somebody who keeps, too."""
        login = self.read("one")
        self.keeper.refused(login)
        self.keeper.stop()
        self.assertEqual(self.reader.told, [login, "stop"])

    def test_stopping_ends_the_reading_and_who_asks_later_starts_anew(self) -> None:
        """Whoever waits is told that there is no login, which is not his own cancelling."""
        asks = [self.ask(), self.ask()]
        self.keeper.stop()
        self.assertEqual(self.reader.cancelled, 1)
        for d in asks:
            self.assertFalse(self.failureResultOf(d, LoginUnavailable).value.timed_out)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.read("one")

    def test_a_reading_that_hangs_is_given_up(self) -> None:
        """The wait has an end, whatever the reader does."""
        d = self.ask()
        self.clock.advance(READING_S - 0.1)
        self.assertNoResult(d)
        self.clock.advance(0.1)
        self.assertTrue(self.failureResultOf(d, LoginUnavailable).value.timed_out)
        self.assertEqual(self.reader.cancelled, 1)

    def test_nothing_is_left_on_the_clock(self) -> None:
        """Neither after a login nor after a failure."""
        self.read("one")
        self.clock.advance(LIFETIME_S)
        d = self.ask()
        self.reader.fails(LoginUnavailable("gone"))
        self.failureResultOf(d, LoginUnavailable)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    @settings(deadline=None)
    @given(st.lists(st.sampled_from(["ask", "leave", "find", "fail", "refuse", "wait"]), max_size=60))
    def test_whatever_happens_one_reading_runs_and_everybody_hears_once(self, steps: list[str]) -> None:
        """And two readings after a refusal are ten seconds apart, after a failure five."""
        self.setUp()
        waiting: list[Deferred[Login]] = []
        heard: list[object] = []
        asked, next_at_s = 0, 0.0
        for step in steps:
            count, running = self.count(), [d for d in self.reader.readings if not d.called]
            self.assertLessEqual(len(running), 1)
            if step == "ask":
                asked += 1
                waiting.append(self.ask().addBoth(heard.append))
            elif step == "leave" and waiting:
                waiting.pop().cancel()
            elif step == "find" and running:
                self.reader.finds("same")
                next_at_s = self.clock.seconds() + REFUSED_S
            elif step == "fail" and running:
                self.reader.fails(LoginUnavailable("gone"))
                next_at_s = self.clock.seconds() + FAILURE_S
            elif step == "refuse":
                self.keeper.refused(Login("user", "same"))
            elif step == "wait":
                self.clock.advance(1)
            if self.count() > count:
                self.assertGreaterEqual(self.clock.seconds(), next_at_s)
        self.keeper.stop()
        self.assertEqual(len(heard), asked)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class InThreadTests(SynchronousTestCase):
    """Reading is a thread's work."""

    def test_it_is_done_by_the_workers(self) -> None:
        """And waited for."""
        workers = ManualWorkers()
        d = Deferred.fromCoroutine(in_thread(workers, int, "7"))
        self.assertNoResult(d)
        workers.work()
        self.assertEqual(self.successResultOf(d), 7)

    def test_it_is_not_queued_behind_threads_that_hang(self) -> None:
        """The queue would grow for as long as the disk is away."""
        workers = InlineWorkers(is_stuck=True)
        d = Deferred.fromCoroutine(in_thread(workers, self.fail, "it was called"))
        self.assertTrue(self.failureResultOf(d, LoginUnavailable).value.timed_out)
