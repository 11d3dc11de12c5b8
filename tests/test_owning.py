"""What the service takes of a process that is its own, and what it has given back or ended when it ends."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Callable
from typing import Any, cast

from attrs import define
from twisted.internet.defer import Deferred
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from tests.test_service import Stage, config
from txociproxy.building import House
from txociproxy.draining import ENDS_WITHIN_S
from txociproxy.oci.errors import StorageUnavailable
from txociproxy.service import LAST_S, OCIProxyService

SIGNALS = (signal.SIGHUP, signal.SIGUSR1, signal.SIGTERM, signal.SIGINT, signal.SIGALRM)


@define(eq=False)
class _Beside:
    """Something that goes on beside the answers, by a timer of its own."""

    name: str
    stage: Stage

    def start(self, *_: object) -> None:
        """Begin."""
        self.stage.done.append(f"{self.name} started")

    def stop(self) -> None:
        """End."""
        self.stage.done.append(f"{self.name} stopped")

    def wrapped(self, factory: object) -> object:
        """Speak nothing of our own."""
        return factory


@define(eq=False)
class _Slow:
    """A thread that has not answered yet."""

    answer: Deferred[Any]

    def run(self, _: Callable[..., Any]) -> Deferred[Any]:
        """Take work."""
        return self.answer


class _Reactor(MemoryReactorClock):
    """A reactor in memory that handlers of signals can call."""

    def callFromThread(self, function: Callable[..., Any]) -> None:
        """Call in the reactor's own turn."""
        self.callLater(0, function)


class OwningTests(SynchronousTestCase):
    """A service on a reactor in memory."""

    def setUp(self) -> None:
        """Everything of this very process is as before when the test is over."""
        for number in SIGNALS:
            self.addCleanup(signal.signal, number, signal.getsignal(number))
        self.addCleanup(signal.setitimer, signal.ITIMER_REAL, 0)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, resource.getrlimit(resource.RLIMIT_NOFILE))
        self.stage, self.reactor = Stage(), _Reactor()
        self.made = self.stage.house()

    def service(self, owns_process: bool) -> OCIProxyService:
        """Return a service that has opened its doors."""

        def make(*_: object) -> House:
            return self.made

        settings = config(OCIPROXY_DRAIN_TIMEOUT="200")
        service = OCIProxyService(settings, self.reactor, None, owns_process, make, lambda: settings)
        service.privilegedStartService()
        return service

    def test_the_end_has_time_for_the_drain_and_for_all_that_comes_after_it(self) -> None:
        """The alarm that ends what hangs waits for both; when all has ended well, little is left of it."""
        service = self.service(owns_process=True)
        service.startService()
        self.reactor.run()
        os.kill(os.getpid(), signal.SIGTERM)
        self.reactor.advance(0)
        self.assertTrue(self.reactor.hasStopped)
        self.assertApproximates(signal.getitimer(signal.ITIMER_REAL)[0], 200 + ENDS_WITHIN_S, 10)
        self.successResultOf(service.stopService())
        self.assertLessEqual(signal.getitimer(signal.ITIMER_REAL)[0], LAST_S)
        self.assertGreater(signal.getitimer(signal.ITIMER_REAL)[0], 0)

    def test_signals_are_heard_from_before_the_doors_are_open(self) -> None:
        """The first process of a container gets none that it has no handler for, and a hung disk would keep it."""
        before = [signal.getsignal(number) for number in SIGNALS[:4]]
        self.service(owns_process=True)
        for number, handler in zip(SIGNALS[:4], before, strict=True):
            self.assertNotIn(signal.getsignal(number), (handler, signal.SIG_DFL, signal.SIG_IGN))

    def test_after_the_start_nobody_waits_for_word_any_more(self) -> None:
        """What was the way to tell is closed then, and its number may be anybody's: other handlers have to be there."""
        service = self.service(owns_process=True)
        before = signal.getsignal(signal.SIGTERM)
        service.startService()
        self.assertIsNot(signal.getsignal(signal.SIGTERM), before)

    def test_a_sentence_at_the_start_is_told_to_who_waits_for_it(self) -> None:
        """``twistd`` tells of errors only, and its starter would wait for ever."""
        told: list[str] = []
        self.stage.refusal = StorageUnavailable("no disk")
        made = self.made
        service = OCIProxyService(config(), self.reactor, make=lambda *_: made, tell=told.append)
        service.privilegedStartService()
        self.assertRaises(SystemExit, service.startService)
        self.assertEqual([("no disk" in text) for text in told], [True])

    def test_a_process_of_somebody_else_is_left_alone(self) -> None:
        """Signals, alarm and limits are as they were."""
        before = [signal.getsignal(number) for number in SIGNALS]
        service = self.service(owns_process=False)
        service.startService()
        self.reactor.run()
        self.successResultOf(service.stopService())
        self.assertEqual([signal.getsignal(number) for number in SIGNALS], before)
        self.assertEqual(signal.getitimer(signal.ITIMER_REAL)[0], 0)

    def test_what_goes_by_timers_of_its_own_ends_too(self) -> None:
        """What measures goes on while clients are served, so that the end can be watched."""
        self.made.measuring = cast(Any, _Beside("measuring", self.stage))
        self.made.door_tls = cast(Any, _Beside("certificate", self.stage))
        service = self.service(owns_process=False)
        service.startService()
        self.reactor.run()
        self.assertEqual(self.stage.done[-2:], ["measuring started", "certificate started"])
        self.stage.running = 1
        ended = service.stopService()
        self.assertIn("certificate stopped", self.stage.done)
        self.assertNotIn("measuring stopped", self.stage.done)
        self.stage.running = 0
        self.reactor.advance(0.1)
        self.successResultOf(ended)
        self.assertIn("measuring stopped", self.stage.done)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_a_reload_that_has_begun_is_given_up(self) -> None:
        """What is read after the doors are closed changes nothing, and opens none."""
        slow: Deferred[Any] = Deferred()
        service = self.service(owns_process=False)
        service.startService()
        self.made.aside = cast(Any, _Slow(slow))
        service.reload()
        self.stage.running = 1
        ended = service.stopService()
        slow.callback(config())
        self.stage.running = 0
        self.reactor.advance(0.1)
        self.successResultOf(ended)
        self.assertEqual([done for done in self.stage.done if done.startswith("table")], [])
