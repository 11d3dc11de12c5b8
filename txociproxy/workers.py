"""Bounded pools of threads that the service owns, and work that is handed to them in order.

Hashing and writing run on different pools, so that a hanging disk delays no verdict (law 10).  Threads are daemons
and are stopped from a helper thread with a bound: one stuck in the kernel never keeps the process from ending.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from threading import Thread
from typing import Any, Generic, TypeVar, cast

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads, IReactorTime
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool
from zope.interface import implementer

from txociproxy.interfaces import IWorkers

T = TypeVar("T")
PATIENCE_S = 2.0


class DaemonThread(Thread):
    """A thread that does not keep the process alive."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.daemon = True


class DaemonThreadPool(ThreadPool):
    """A thread pool of daemon threads."""

    threadFactory = DaemonThread


@implementer(IWorkers)
@define(eq=False)
class Workers:
    """A pool that knows whether it still gets anything done."""

    _reactor: Any
    _pool: ThreadPool
    running: int = 0
    _progress_s: float = 0.0

    @classmethod
    def make(cls, reactor: Any, threads: int, name: str) -> Workers:
        """Start a pool of ``threads`` daemon threads."""
        pool = DaemonThreadPool(1, max(1, threads), name)
        pool.start()
        return cls(reactor, pool)

    def run(self, function: Callable[..., T], *args: Any) -> Deferred[T]:
        """Call ``function(*args)`` in a thread; the result arrives in the reactor."""
        if not self.running:
            self._progress_s = self._now()
        self.running += 1
        reactor = cast(IReactorFromThreads, self._reactor)
        # The inner Deferred stays ours: a caller that cancels his own must not stop the counting.
        outer: Deferred[T] = Deferred()
        inner: Deferred[T] = deferToThreadPool(reactor, self._pool, function, *args)
        inner.addBoth(self._ended).addBoth(outer.callback)
        return outer

    def _ended(self, result: T) -> T:
        self.running -= 1
        self._progress_s = self._now()
        return result

    def stuck(self, limit_s: float) -> bool:
        """Whether every thread is taken and none has finished anything for ``limit_s`` seconds."""
        return self.running >= self._pool.max and self._now() - self._progress_s > limit_s

    def _now(self) -> float:
        return cast(IReactorTime, self._reactor).seconds()

    def stop(self, patience_s: float = PATIENCE_S) -> None:
        """Stop the threads; those that are stuck are left behind after ``patience_s`` seconds.  Blocks that long."""
        stop_all([self], patience_s)

    def stopping(self) -> Thread:
        """Begin to stop the threads; the one that is returned ends when they have."""
        helper = Thread(target=self._stop, daemon=True)
        helper.start()
        return helper

    def _stop(self) -> None:
        if not self._pool.joined:
            self._pool.stop()


def stop_all(pools: Iterable[Workers], patience_s: float = PATIENCE_S) -> bool:
    """Stop several pools side by side; says whether no thread was left behind.  Blocks for the patience at most."""
    helpers = [pool.stopping() for pool in pools]
    end_s = time.monotonic() + patience_s
    for helper in helpers:
        helper.join(max(0.0, end_s - time.monotonic()))
    return not any(helper.is_alive() for helper in helpers)


@define(eq=False)
class Batches(Generic[T]):
    """Hands a growing list of chunks to one function, one call at a time, all that has come at once.

    :ivar _work: called in a thread with the chunks.
    :ivar _done: called in the reactor with the result and the number of bytes of the batch.
    :ivar _failed: called once, in the reactor; after that nothing is worked on any more.
    """

    _workers: IWorkers
    _work: Callable[[list[bytes]], T]
    _done: Callable[[T, int], None]
    _failed: Callable[[Failure], None]
    pending_bytes: int = 0
    _chunks: list[bytes] = field(factory=list)
    _afterwards: list[Callable[[], None]] = field(factory=list)
    busy: bool = False
    dead: bool = False

    def add(self, data: bytes) -> None:
        """Take a chunk."""
        if self.dead:
            return
        self._chunks.append(data)
        self.pending_bytes += len(data)
        if not self.busy:
            self._launch()

    def kill(self) -> None:
        """Work on nothing more; the call that is running ends by itself and its result is dropped."""
        self.dead = True
        self._chunks.clear()
        self.pending_bytes = 0

    def when_idle(self, callback: Callable[[], None]) -> None:
        """Call back once nothing runs and nothing waits; at once if that is so already."""
        if self.busy or self._chunks:
            self._afterwards.append(callback)
        else:
            callback()

    def _launch(self) -> None:
        self.busy = True
        chunks, self._chunks = self._chunks, []
        size_bytes = sum(map(len, chunks))
        d = cast("Deferred[T]", self._workers.run(self._work, chunks))
        d.addCallbacks(self._worked, self._broke, callbackArgs=(size_bytes,))

    def _worked(self, result: T, size_bytes: int) -> None:
        self.busy = False
        if not self.dead:
            self.pending_bytes -= size_bytes
            self._done(result, size_bytes)
        self._next()

    def _broke(self, failure: Failure) -> None:
        self.busy = False
        if not self.dead:
            self.kill()
            self._failed(failure)
        self._next()

    def _next(self) -> None:
        if self._chunks and not self.busy:
            self._launch()
        while self._afterwards and not self.busy:
            self._afterwards.pop(0)()
