"""Leftovers: what is still held in the bucket beside content that has been opened to all (RULES D3).

Nobody is sent there any more, but a client may have been, by any proxy, and may ask for the rest of it for as long as
his address is good.  So it is removed after that time, and best effort: what stays does no harm.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from itertools import islice
from typing import Protocol as Shape
from typing import cast

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from txociproxy.interfaces import IWorkers
from txociproxy.oci.names import Digest
from txociproxy.remembering import remember
from txociproxy.storage.s3.gate import Gate
from txociproxy.storage.s3.keys import Keys
from txociproxy.storage.s3.trouble import S3Trouble

EVERY_S = 60.0
# Other proxies hand out addresses for a moment longer, clocks differ, and the last answer has to come to its end.
MARGIN_S = 300.0
MAX_LEFT = 10_000
AT_ONCE = 100
log = Logger()


class Shelves(Shape):
    """What is needed of a bucket; everything blocks and raises S3Trouble only."""

    def delete(self, *keys: str) -> None:
        """Remove objects."""

    def head(self, key: str) -> tuple[int, float] | None:
        """Return (size in bytes, age in seconds by the server's clock); None is not there."""


@define(eq=False)
class Leftovers:
    """What is to be removed later.

    :ivar _bucket: None while there is none.
    :ivar _life_s: how long an address is good that a client is given.
    :ivar _new: since the last round; threads put it here.
    :ivar _due_s: when each may be removed, by the clock; the next ones first.
    """

    _bucket: Callable[[], Shelves | None]
    _keys: Keys
    _workers: IWorkers
    _gate: Gate
    _clock: IReactorTime
    _life_s: float
    _new: deque[Digest] = field(factory=lambda: deque(maxlen=MAX_LEFT), init=False)
    _due_s: OrderedDict[Digest, float] = field(factory=OrderedDict, init=False)
    _loop: LoopingCall = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._loop = LoopingCall(self._round)
        self._loop.clock = self._clock

    def add(self, digest: Digest) -> None:
        """Remove what is held of this content when no address of it is good any more.  In any thread."""
        self._new.append(digest)

    def start(self) -> None:
        """Begin to look."""
        self._loop.start(EVERY_S, now=False)

    def stop(self) -> None:
        """Remove nothing more."""
        if self._loop.running:
            self._loop.stop()

    def _round(self) -> Deferred[None] | None:
        now_s, bucket = self._clock.seconds(), self._bucket()
        while self._new:
            remember(self._due_s, self._new.popleft(), now_s + self._life_s + MARGIN_S, MAX_LEFT)
        due = list(islice((digest for digest, due_s in self._due_s.items() if due_s <= now_s), AT_ONCE))
        if not due or bucket is None or not self._gate.is_open:
            return None
        work = cast("Deferred[list[Digest]]", self._workers.run(remove_leftovers, bucket, self._keys, due))
        # While it runs no other round begins.
        return work.addCallbacks(self._removed, lambda failure: log.failure("leftovers", failure))

    def _removed(self, settled: list[Digest]) -> None:
        for digest in settled:
            self._due_s.pop(digest, None)


def remove_leftovers(bucket: Shelves, keys: Keys, digests: list[Digest]) -> list[Digest]:
    """Remove what is held of content that is open; blocks; returns those that need no other try."""
    settled: list[Digest] = []
    for digest in digests:
        try:
            _remove(bucket, keys, digest)
        except S3Trouble as trouble:
            if trouble.kind != "refused":
                break
            log.debug("what was held of {digest} stays beside it: {code}", digest=str(digest), code=trouble.code)
        settled.append(digest)
    return settled


def _remove(bucket: Shelves, keys: Keys, digest: Digest) -> None:
    held = keys.content(digest, held=True)
    # What was opened may have gone again; then what is held is all there is.
    if bucket.head(held) is not None and bucket.head(keys.content(digest)) is not None:
        bucket.delete(held)
        bucket.delete(keys.sidecar(digest, held=True))
