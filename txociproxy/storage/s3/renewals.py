"""Renewals: what is still asked for outlives the lifecycle of the bucket (RULES G4).

An object is copied onto itself, so that its age begins anew; behind everybody's back, and rarely enough that the hits
that ask for it need not know.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Protocol as Shape
from typing import cast

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from txociproxy.interfaces import IWorkers
from txociproxy.oci.names import Digest
from txociproxy.remembering import remember
from txociproxy.storage.s3.gate import Gate
from txociproxy.storage.s3.keys import Keys
from txociproxy.storage.s3.trouble import S3Trouble

AT_ONCE = 2
MAX_WAITING = 1000
MAX_REMEMBERED = 10_000
DAY_S = 24 * 3600.0
RETRY_S = 3600.0
WARN_EVERY_S = 3600.0
Wish = tuple[Digest, bool]


class Renewer(Shape):
    """What is needed of a bucket."""

    def renew(self, key: str) -> None:
        """Copy an object onto itself; blocks."""


@define(eq=False)
class Renewals:
    """Objects that are to be copied onto themselves, each once until it is old again.

    :ivar _bucket: None while there is none.
    :ivar _lifecycle_days: an object is old after half of it; 0 is never.
    :ivar done: how many were copied.
    :ivar _settled_until_s: until when an object needs no thought.
    """

    _bucket: Callable[[], Renewer | None]
    _keys: Keys
    _workers: IWorkers
    _gate: Gate
    _clock: IReactorTime
    _lifecycle_days: int
    done: int = 0
    _waiting: deque[Wish] = field(factory=deque, init=False)
    _running: int = field(default=0, init=False)
    _settled_until_s: OrderedDict[Wish, float] = field(factory=OrderedDict, init=False)
    _warned_s: float = field(default=float("-inf"), init=False)

    log = Logger()

    def add(self, digest: Digest, held: bool) -> None:
        """Ask for content, open or held, to be renewed; never waits and never raises."""
        wish = digest, held
        if self._lifecycle_days <= 0 or not self._gate.is_open or len(self._waiting) >= MAX_WAITING:
            return
        if self._clock.seconds() >= self._settled_until_s.get(wish, float("-inf")):
            # From now on, so that it is neither asked for twice nor asked for again before it can be old.
            self._settle(wish, self._lifecycle_days * DAY_S / 2)
            self._waiting.append(wish)
            self._next()

    def stop(self) -> None:
        """Begin nothing more; what runs ends by itself."""
        self._forget_waiting()

    def _settle(self, wish: Wish, for_s: float) -> None:
        remember(self._settled_until_s, wish, self._clock.seconds() + for_s, MAX_REMEMBERED)

    def _next(self) -> None:
        if not self._gate.is_open:
            self._forget_waiting()
        while self._waiting and self._running < AT_ONCE:
            wish = self._waiting.popleft()
            self._running += 1
            cast("Deferred[None]", self._workers.run(self._renew, wish)).addBoth(self._ended, wish)

    def _forget_waiting(self) -> None:
        """Those who find them later will ask again."""
        while self._waiting:
            self._settled_until_s.pop(self._waiting.popleft(), None)

    def _renew(self, wish: Wish) -> None:
        bucket = self._bucket()
        if bucket is None:
            raise S3Trouble("unreachable", "NotOpen", "the bucket cannot be asked yet")
        # The sidecar first, as when it was published.
        bucket.renew(self._keys.sidecar(*wish))
        bucket.renew(self._keys.content(*wish))

    def _ended(self, result: Failure | None, wish: Wish) -> None:
        self._running -= 1
        if isinstance(result, Failure):
            self._settle(wish, RETRY_S)
            self._warn(result)
        else:
            self.done += 1
        self._next()

    def _warn(self, failure: Failure) -> None:
        """Tell the owner, once an hour.

        The gate is not told: that the server takes too long to copy gigabytes is no reason to ask it for nothing.
        """
        if self._clock.seconds() - self._warned_s >= WARN_EVERY_S:
            self._warned_s = self._clock.seconds()
            self.log.warn("what is asked for could not be renewed in S3: {reason}", reason=failure.getErrorMessage())
