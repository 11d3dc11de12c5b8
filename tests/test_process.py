"""What belongs to the whole process."""

from __future__ import annotations

from twisted.internet.selectreactor import SelectReactor
from twisted.trial.unittest import SynchronousTestCase

from txociproxy.process import keep_even_time

BEGAN_S = 1_800_000_000.0


class EvenTimeTests(SynchronousTestCase):
    """A wall clock that is put moves no timer."""

    def setUp(self) -> None:
        """A reactor that never runs."""
        self.reactor = SelectReactor()
        self.addCleanup(self.reactor.removeAll)
        self.wall_s, self.even_s = BEGAN_S, 500.0

    def keep(self) -> None:
        """Let it keep the time of the test's clocks."""
        keep_even_time(self.reactor, lambda: self.wall_s, lambda: self.even_s)

    def test_a_timer_goes_by_the_clock_that_nobody_puts(self) -> None:
        """The wall clock is put back by three hours, and one second goes by."""
        self.keep()
        call = self.reactor.callLater(1, lambda: None)
        self.wall_s -= 3 * 3600
        self.assertEqual(self.reactor.timeout(), 1)
        self.even_s += 1
        self.assertEqual(self.reactor.timeout(), 0)
        self.assertEqual((self.reactor.seconds(), call.getTime()), (BEGAN_S + 1, BEGAN_S + 1))
        call.cancel()

    def test_timers_that_wait_already_keep_their_clock(self) -> None:
        """They would come at once, or never."""
        call = self.reactor.callLater(1000, lambda: None)
        self.keep()
        self.assertNotEqual(self.reactor.seconds(), BEGAN_S)
        call.cancel()
