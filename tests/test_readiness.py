"""What makes /readyz red, and what does not."""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.python.threadpool import ThreadPool
from twisted.trial.unittest import SynchronousTestCase

from tests.doubles import InlineWorkers
from txociproxy.building import build
from txociproxy.config import load
from txociproxy.oci.requests import Page
from txociproxy.readiness import HASHING_S, Readiness
from txociproxy.web.pages import Pages
from txociproxy.workers import Workers


class IdlePool(ThreadPool):
    """A pool whose threads never take anything."""

    def __init__(self, threads: int) -> None:
        super().__init__(1, threads)

    def callInThreadWithCallback(self, *_: object, **__: object) -> None:
        """Take it and do nothing."""


class ReadinessTests(SynchronousTestCase):
    """Ready unless pulls would fail."""

    def test_ready(self) -> None:
        """With threads for digests that work, and with none at all."""
        self.assertIsNone(Readiness().trouble())
        self.assertIsNone(Readiness(InlineWorkers()).trouble())

    def test_a_process_that_ends_is_not(self) -> None:
        """Draining comes first: whoever asks needs no other reason."""
        workers = InlineWorkers(is_stuck=True)
        readiness = Readiness(workers)
        readiness.draining = True
        self.assertEqual(readiness.trouble(), "draining")

    def test_hanging_digests(self) -> None:
        """Nothing that is fetched could be served; it is over as soon as one thread works again."""
        workers = InlineWorkers()
        readiness = Readiness(workers)
        workers.is_stuck = True
        self.assertIn("digests hang", str(readiness.trouble()))
        workers.is_stuck = False
        self.assertIsNone(readiness.trouble())

    def test_busy_is_not_hanging(self) -> None:
        """All threads at work are trouble only after none has finished anything for long."""
        clock = Clock()
        workers = Workers(clock, IdlePool(2))
        readiness = Readiness(workers)
        jobs: list[Deferred[None]] = [workers.run(lambda: None), workers.run(lambda: None)]
        clock.advance(HASHING_S)
        self.assertIsNone(readiness.trouble())
        clock.advance(0.1)
        self.assertIsNotNone(readiness.trouble())
        self.assertEqual([job.called for job in jobs], [False, False])

    def test_a_house_is_red_for_the_threads_of_its_digests_only(self) -> None:
        """All others may hang: reads, writes and logins have a way round."""
        environ = {"PROXY_MODE": "transparent", "FS_ROOT": self.mktemp()}
        reactor = MemoryReactorClock()
        house = build(load({}, environ), reactor)
        reactor.advance(HASHING_S + 1)
        red = []
        for pool in cast(list[Any], house.pools):
            self.addCleanup(pool.stop)
            pool.running = pool._pool.max
            if house.readiness.trouble() is not None:
                red.append(pool._pool.name)
            pool.running = 0
        self.assertEqual(red, ["hash"])

    def test_the_page_says_why(self) -> None:
        """503 with the reason; 200 before that."""
        readiness = Readiness()
        pages = Pages(readiness.trouble)
        reply = pages.answer(Page("readyz"))
        self.assertEqual((reply.status, reply.body), (200, b"ready"))
        readiness.draining = True
        reply = pages.answer(Page("readyz"))
        self.assertEqual((reply.status, reply.body), (503, b"draining"))
        self.assertEqual(pages.answer(Page("healthz")).status, 200)
