"""Leases: of many proxies that miss the same content at once, one fetches it and the others wait, for a bounded time.

A lease is an object that only one of them can make.  It says nothing about what is right: two that fetch the same end
both right, so whatever goes wrong with a lease ends the waiting and nothing else.  Its age is told by the server's own
clock, so that the clocks of the proxies need not agree.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Protocol as Shape
from typing import cast

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from txociproxy.interfaces import IWorkers
from txociproxy.oci.errors import StorageUnavailable
from txociproxy.oci.names import Digest
from txociproxy.storage.s3.gate import Gate
from txociproxy.storage.s3.keys import Keys
from txociproxy.storage.s3.reading import Head
from txociproxy.storage.s3.trouble import S3Trouble

LIFE_S = 60.0
RENEW_EVERY_S = 20.0
LOOK_EVERY_S = 0.5
MAX_LEASES = 10_000
LEASE = b"{}\n"
LEASE_TYPE = "application/json"


class Leasehold(Shape):
    """What is needed of a bucket; everything blocks and raises S3Trouble only."""

    def put(self, key: str, data: bytes, media_type: str, if_absent: bool = False) -> bool:
        """Write an object; False: it was there already."""

    def delete(self, *keys: str) -> None:
        """Remove objects."""


@define(eq=False)
class Turn:
    """The waiting for one lease, which all who ask meanwhile join."""

    waiters: list[Deferred[bool]] = field(factory=list)
    running: Deferred[bool] | None = None


@define(eq=False)
class Leases:
    """The leases of this process, and its waiting for those of others.

    :ivar _bucket: None while there is none.
    :ivar _head: looks for an object, without a thread.
    :ivar _is_uploading: whether content of ours can be expected in the bucket: nobody waits for what fails for ever.
    :ivar _wait_s: how long another process is waited for; 0 is no leases at all.
    :ivar _until_s: our leases, and when each ends by itself if nobody renews it.
    """

    _bucket: Callable[[], Leasehold | None]
    _head: Callable[[str], Awaitable[Head | None]]
    _keys: Keys
    _workers: IWorkers
    _gate: Gate
    _clock: IReactorTime
    _is_uploading: Callable[[Digest], bool]
    _wait_s: float
    _until_s: dict[Digest, float] = field(factory=dict, init=False)
    _spools: Counter[Digest] = field(factory=Counter, init=False)
    _turns: dict[Digest, Turn] = field(factory=dict, init=False)
    _renewing: LoopingCall = field(init=False)

    log = Logger()

    def __attrs_post_init__(self) -> None:
        self._renewing = LoopingCall(self._renew_all)
        self._renewing.clock = self._clock

    def start(self) -> None:
        """Begin to renew."""
        if self._wait_s > 0:
            self._renewing.start(RENEW_EVERY_S, now=False)

    def stop(self) -> None:
        """Renew nothing more and wait for nobody; what is still ours ends by its age."""
        if self._renewing.running:
            self._renewing.stop()
        for turn in list(self._turns.values()):
            if turn.running is not None:
                turn.running.cancel()

    # --- waiting

    def await_turn(self, digest: Digest) -> Deferred[bool]:
        """See :meth:`IStorage.await_turn`."""
        if self._wait_s <= 0 or not self._gate.is_open or self._is_ours(digest) or len(self._until_s) >= MAX_LEASES:
            return succeed(False)
        turn = self._turns.get(digest)
        begins = turn is None
        turn = turn or self._turns.setdefault(digest, Turn())
        waiter: Deferred[bool] = Deferred(turn.waiters.remove)
        turn.waiters.append(waiter)
        if begins:
            turn.running = running = Deferred.fromCoroutine(self._compete(digest))
            timer = self._clock.callLater(self._wait_s, running.cancel)
            running.addBoth(self._ended, digest, timer)
        return waiter

    async def _compete(self, digest: Digest) -> bool:
        """Take the lease, or wait until whoever has it is done; says whether somebody was waited for."""
        if await self._take(digest, if_absent=True):
            return False
        while True:
            if await self._head(self._keys.content(digest)) is not None:
                return True
            lease = await self._head(self._keys.lease(digest))
            if lease is None:
                return True
            if lease.age_s is not None and lease.age_s > LIFE_S:  # whoever had it is dead
                await self._take(digest, if_absent=False)
                return False
            await deferLater(self._clock, LOOK_EVERY_S)

    def _ended(self, result: bool | Failure, digest: Digest, timer: IDelayedCall) -> None:
        if timer.active():
            timer.cancel()
        if isinstance(result, Failure) and not result.check(CancelledError, StorageUnavailable):
            self.log.failure("a lease could not be waited for", result)
        waiters = self._turns.pop(digest).waiters
        if not waiters:
            self.release(digest)  # it was taken for clients who have left
        while waiters:
            waiters.pop().callback(result is True)

    # --- having

    def opened(self, digest: Digest) -> None:
        """A spool of ours has begun to take this content."""
        if self._wait_s > 0:
            self._spools[digest] += 1

    def closed(self, digest: Digest) -> None:
        """A spool of ours has ended, whatever came of it; call once for each that was opened."""
        if digest in self._spools:
            self._spools[digest] -= 1
        if self._spools[digest] <= 0:
            del self._spools[digest]
        self.release(digest)

    def release(self, digest: Digest, is_done: bool = False) -> None:
        """Let others have it, unless it is still on its way: through a spool, or into the bucket.

        :param is_done: it has come into the bucket.
        """
        is_needed = digest in self._spools if is_done else self._is_busy(digest)
        if digest in self._until_s and not is_needed:
            # One that may have ended already may be another's by now.
            if self._is_ours(digest) and self._gate.is_open:
                self._workers.run(self._remove, digest).addErrback(_ignore)
            del self._until_s[digest]

    def _is_ours(self, digest: Digest) -> bool:
        return self._clock.seconds() < self._until_s.get(digest, float("-inf"))

    def _is_busy(self, digest: Digest) -> bool:
        return digest in self._spools or self._is_uploading(digest)

    def _take(self, digest: Digest, if_absent: bool) -> Deferred[bool]:
        """Put the lease in a thread; what comes after nobody waits any more is ours all the same."""
        taken: Deferred[bool] = Deferred(lambda _: None)
        until_s = self._clock.seconds() + LIFE_S

        def arrived(result: bool | Failure) -> None:
            if result is True:
                self._until_s[digest] = until_s
            if not taken.called:
                taken.callback(result)

        self._workers.run(self._put, digest, if_absent).addBoth(arrived)
        return taken

    async def _renew_all(self) -> None:
        """Put those again that are still needed, and forget those that have ended."""
        now_s = self._clock.seconds()
        for digest in [digest for digest, until_s in self._until_s.items() if until_s <= now_s]:
            del self._until_s[digest]
        busy = [digest for digest in self._until_s if self._is_busy(digest)]
        if busy and self._gate.is_open:
            for digest in await cast("Deferred[list[Digest]]", self._workers.run(self._put_all, busy)):
                if digest in self._until_s:
                    self._until_s[digest] = now_s + LIFE_S

    # --- in a thread

    def _put(self, digest: Digest, if_absent: bool) -> bool:
        self._gate.check()  # it may have waited for its thread for as long as S3 hangs
        bucket = self._bucket()
        if bucket is None:
            raise S3Trouble("unreachable", "NotOpen", "the bucket cannot be asked yet")
        return bucket.put(self._keys.lease(digest), LEASE, LEASE_TYPE, if_absent)

    def _put_all(self, digests: list[Digest]) -> list[Digest]:
        done: list[Digest] = []
        with contextlib.suppress(S3Trouble):  # those that are left end by their age, and the next round tries again
            for digest in digests:
                self._put(digest, False)
                done.append(digest)
        return done

    def _remove(self, digest: Digest) -> None:
        bucket = self._bucket()
        if bucket is not None:
            bucket.delete(self._keys.lease(digest))


def _ignore(failure: Failure) -> None:
    failure.trap(StorageUnavailable)
