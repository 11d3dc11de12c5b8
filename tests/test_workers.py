"""Threads that the service owns, and work that is handed to them in order."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from queue import Queue
from typing import Any

from attrs import define, field
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from tests.doubles import InlineWorkers, ManualWorkers
from txociproxy.workers import Batches, Workers, stop_all

PATIENCE_S = 20.0  # for a thread to do next to nothing


@implementer(IReactorFromThreads)
class Reactor(Clock):
    """A reactor that does what threads ask for when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: Queue[Callable[[], Any]] = Queue()

    def callFromThread(self, callable: Callable[..., Any], *args: object, **kwargs: object) -> None:
        """Take a call from a thread."""
        self.asked.put(lambda: callable(*args, **kwargs))

    def turn(self) -> None:
        """Wait for one call from a thread, and make it."""
        self.asked.get(timeout=PATIENCE_S)()


@define(eq=False)
class Batched:
    """A Batches with everything it does on record."""

    workers: Any
    worked: list[bytes] = field(factory=list)
    told: list[int] = field(factory=list)
    failures: list[Failure] = field(factory=list)
    events: list[str] = field(factory=list)
    fails: bool = False
    batches: Batches[int] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.batches = Batches(self.workers, self._work, self._done, self._failed)

    def _work(self, chunks: list[bytes]) -> int:
        if self.fails:
            raise OSError(28, "No space left on device")
        self.worked += chunks
        return len(chunks)

    def _done(self, result: int, size_bytes: int) -> None:
        self.events.append("done")
        self.told.append(size_bytes)

    def _failed(self, failure: Failure) -> None:
        self.events.append("failed")
        self.failures.append(failure)


class BatchesTests(SynchronousTestCase):
    """One call at a time, with all that has come meanwhile."""

    def test_what_comes_during_a_call_makes_the_next_one(self) -> None:
        """In order, and nothing runs beside it."""
        workers = ManualWorkers()
        it = Batched(workers)
        for chunk in (b"a", b"bb", b"ccc"):
            it.batches.add(chunk)
        self.assertEqual((len(workers.jobs), it.batches.pending_bytes, it.batches.busy), (1, 6, True))
        workers.work(1)
        self.assertEqual((it.worked, it.told, it.batches.pending_bytes), ([b"a"], [1], 5))
        workers.work(1)
        self.assertEqual((it.worked, it.told, it.batches.pending_bytes), ([b"a", b"bb", b"ccc"], [1, 5], 0))
        self.assertEqual((workers.jobs, it.batches.busy), ([], False))

    @settings(deadline=None)
    @given(st.lists(st.one_of(st.binary(min_size=1, max_size=3), st.none()), max_size=40), st.booleans())
    def test_every_chunk_is_worked_on_once_and_in_order(self, steps: list[bytes | None], is_inline: bool) -> None:
        """Whenever threads get round to it (None)."""
        workers: Any = InlineWorkers() if is_inline else ManualWorkers()
        it, sent = Batched(workers), [step for step in steps if step is not None]
        for index, step in enumerate(steps):
            if step is not None:
                it.batches.add(step)
            elif not is_inline:
                workers.work(1)
            added = sum(len(chunk) for chunk in steps[: index + 1] if chunk is not None)
            self.assertEqual(it.batches.pending_bytes, added - sum(it.told))
        if not is_inline:
            workers.work()
        self.assertEqual((it.worked, sum(it.told), it.batches.busy), (sent, sum(map(len, sent)), False))

    def test_when_idle_waits_for_what_has_come(self) -> None:
        """And comes at once when nothing has."""
        workers = ManualWorkers()
        it = Batched(workers)
        it.batches.when_idle(lambda: it.events.append("idle at once"))
        it.batches.add(b"a")
        it.batches.add(b"b")
        it.batches.when_idle(lambda: it.events.append("idle"))
        workers.work()
        self.assertEqual(it.events, ["idle at once", "done", "done", "idle"])

    def test_when_idle_within_a_report_waits_for_the_next_batch(self) -> None:
        """Between two calls something waits, though nothing runs."""
        workers = ManualWorkers()
        it = Batched(workers)

        def done(result: int, size_bytes: int) -> None:
            it.events.append("done")
            if len(it.events) == 1:
                it.batches.when_idle(lambda: it.events.append("idle"))

        it.batches._done = done
        it.batches.add(b"a")
        it.batches.add(b"b")
        workers.work()
        self.assertEqual(it.events, ["done", "done", "idle"])

    def test_a_failure_is_told_once_and_ends_it(self) -> None:
        """What waited and what comes later is dropped; who waits for it to be idle is told."""
        workers = ManualWorkers()
        it = Batched(workers, fails=True)
        it.batches.add(b"a")
        it.batches.add(b"b")
        it.batches.when_idle(lambda: it.events.append("idle"))
        workers.work()
        it.batches.add(b"c")
        self.assertEqual((it.events, workers.jobs, it.batches.pending_bytes), (["failed", "idle"], [], 0))
        self.assertEqual((it.batches.dead, it.batches.busy, len(it.failures)), (True, False, 1))

    def test_killing_drops_what_waits_and_waits_for_what_runs(self) -> None:
        """A thread cannot be stopped; its result is nobody's any more."""
        for fails in (False, True):
            workers = ManualWorkers()
            it = Batched(workers, fails=fails)
            it.batches.add(b"a")
            it.batches.add(b"b")
            it.batches.kill()
            it.batches.add(b"c")
            it.batches.when_idle(lambda it=it: it.events.append("idle"))  # type: ignore[misc]
            self.assertEqual((it.events, it.batches.pending_bytes, it.batches.busy), ([], 0, True))
            workers.work()
            self.assertEqual((it.events, it.worked), (["idle"], [] if fails else [b"a"]))
            self.assertEqual((it.batches.pending_bytes, it.batches.busy, workers.jobs), (0, False, []))


class WorkersTests(SynchronousTestCase):
    """A pool of daemon threads that knows whether it gets anything done."""

    def setUp(self) -> None:
        """Begin with two threads."""
        self.reactor = Reactor()
        self.workers = Workers.make(self.reactor, 2, "test")
        self.gate = threading.Event()
        self.addCleanup(self.workers.stop)
        self.addCleanup(self.gate.set)

    def hang(self) -> bool:
        """Wait in a thread until the test lets it go."""
        return self.gate.wait(PATIENCE_S)

    def test_it_runs_in_a_daemon_thread_and_answers_in_the_reactor(self) -> None:
        """A daemon does not keep the process alive."""

        def where(extra: str) -> tuple[bool, bool, str]:
            thread = threading.current_thread()
            return thread.daemon, thread is threading.main_thread(), extra

        d = self.workers.run(where, "x")
        self.assertNoResult(d)
        self.reactor.turn()
        self.assertEqual(self.successResultOf(d), (True, False, "x"))
        self.assertEqual(self.workers.running, 0)

    def test_an_exception_is_a_failure(self) -> None:
        """And counts as something done."""
        d = self.workers.run(int, "x")
        self.reactor.turn()
        self.failureResultOf(d, ValueError)
        self.assertEqual(self.workers.running, 0)

    def test_one_who_stops_waiting_does_not_stop_the_counting(self) -> None:
        """The thread is taken until it is free."""
        d: Deferred[bool] = self.workers.run(self.hang)
        d.cancel()
        self.failureResultOf(d, CancelledError)
        self.assertEqual(self.workers.running, 1)
        self.gate.set()
        self.reactor.turn()
        self.assertEqual(self.workers.running, 0)

    def test_it_is_stuck_when_all_threads_are_and_nothing_gets_done(self) -> None:
        """For longer than the limit; a pool that was idle before begins to count with the first job."""
        self.reactor.advance(1000)
        waiting = [self.workers.run(self.hang)]
        self.reactor.advance(6)
        self.assertFalse(self.workers.stuck(5))
        waiting.append(self.workers.run(self.hang))
        self.assertTrue(self.workers.stuck(5))
        self.assertFalse(self.workers.stuck(7))
        self.gate.set()
        self.reactor.turn()
        self.reactor.turn()
        self.assertFalse(self.workers.stuck(0))
        self.assertEqual([self.successResultOf(d) for d in waiting], [True, True])

    def test_it_is_not_stuck_while_something_gets_done(self) -> None:
        """However long the queue is."""
        gates = [threading.Event() for _ in range(4)]
        for gate in gates:
            self.addCleanup(gate.set)
        for gate in gates:
            self.workers.run(gate.wait, PATIENCE_S)
        for gate in gates[:2]:
            self.reactor.advance(4)
            self.assertFalse(self.workers.stuck(5))
            gate.set()
            self.reactor.turn()
        self.reactor.advance(6)
        self.assertTrue(self.workers.stuck(5))
        for gate in gates[2:]:
            gate.set()
            self.reactor.turn()

    def test_pools_are_stopped_side_by_side(self) -> None:
        """Many that hang take no longer than one, and whether any does is told."""
        others = [Workers.make(self.reactor, 1, f"other {number}") for number in range(20)]
        self.assertTrue(stop_all(others))
        hanging = [Workers.make(self.reactor, 1, f"hanging {number}") for number in range(20)]
        for each in hanging:
            each.run(self.hang)
        began_s = time.monotonic()
        self.assertFalse(stop_all(hanging, 0.05))
        self.assertLess(time.monotonic() - began_s, 0.5)
        self.assertTrue(stop_all(others), "it may be said twice")
        self.gate.set()
        for _ in hanging:
            self.reactor.turn()

    def test_stopping_does_not_wait_for_a_thread_that_hangs(self) -> None:
        """Longer than its patience: else one dead disk keeps the process from ending."""
        d = self.workers.run(self.hang)
        self.workers.stop(0.01)
        self.workers.stop(0.01)
        self.gate.set()
        self.reactor.turn()
        self.assertEqual(self.successResultOf(d), True)
