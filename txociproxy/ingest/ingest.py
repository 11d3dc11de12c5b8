"""Ingest: one arriving body.  Upstream sends it once; window and spool hold it; readers follow at their own pace.

What may happen
---------------
Chunks of any size come from the upstream, which may fall silent, break off at any byte, be resumed, lie about the
length or the content.  Readers join at any time while the start is still held, read at any speed, stop, leave.  The
spool may lag, hang or die.  Hashing runs behind.

What must not
-------------
* A client must not get the last ``tail_bytes`` before the verdict: no client ever completes a corrupt whole body.
* No reader waits for another reader, and with a living spool upstream waits for no reader.  Upstream is paused only
  when the hash or the spool is ``outstanding_bytes`` behind; a spool that makes no progress for ``spool_stall_s``
  while bytes wait for it is dropped, and the readers live on from the window.
* Without a spool the window is all there is: it follows the fastest reader.  Slower ones may hold upstream back for
  ``laggard_s`` together; then what they still need is let go and they are cut.  What a dead spool holds stays readable.
* Memory stays bounded: a chunk leaves the window once it is both flushed and ``window_bytes`` behind the tip.

What was rejected: a queue per reader (memory grows with readers), the slowest client setting the pace (law 3),
telling the kinds of goodbye apart (a connection that ends well may have lied, one that ends badly may have been
whole: only promised length and digest decide).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.iweb import IResponse
from zope.interface import implementer

from txociproxy.bodies.lending import Lent
from txociproxy.ingest.holding import Holding, stopped
from txociproxy.ingest.limits import IngestLimits, Origin
from txociproxy.ingest.pace import Pace
from txociproxy.ingest.source import Source
from txociproxy.ingest.verdict import Verdict
from txociproxy.ingest.window import Window
from txociproxy.interfaces import HeaderList, IBody, IFollower, ISpool, IWorkers
from txociproxy.oci.errors import BodyLost
from txociproxy.oci.names import Descriptor


@implementer(IBody)
@define(eq=False)
class Ingest(Lent):
    """One arriving body.

    :ivar descriptor: what it shall be; its size is the upstream's promise.
    :ivar _proof: where the bytes are hashed; None for a relayed range, which cannot be proven.
    :ivar _first_spool: where it is kept; None or dead means that this pull goes on unkept.
    :ivar held: came with credentials that others do not have (RULES D3).
    :ivar deserted: called when it goes on for the storage alone.
    :ivar ended: called once, when there is nothing more to do: after the commit, or when it was given up.
    :ivar fate: ``arriving``, ``proven``, ``wrong``, ``lost`` or ``abandoned``.
    """

    descriptor: Descriptor
    headers: HeaderList
    namespace: str
    _origin: Origin
    _clock: IReactorTime
    _limits: IngestLimits
    _proof: IWorkers | None
    _first_spool: ISpool | None
    ended: Callable[[Ingest], None]
    over_budget: Callable[[], bool] = field(default=lambda: False)
    deserted: Callable[[Ingest], None] = field(default=lambda _: None)
    held: bool = False
    fate: str = "arriving"
    kept: bool = False
    verdict: Verdict | None = field(default=None, init=False)
    _source: Source = field(init=False)
    _holding: Holding = field(init=False)
    _pace: Pace = field(init=False)
    _glance: IDelayedCall | None = field(default=None, init=False)
    _commit_timer: IDelayedCall | None = field(default=None, init=False)
    _waiting: list[Deferred[None]] = field(factory=list, init=False)
    _told_ended: bool = field(default=False, init=False)

    log = Logger()

    def __attrs_post_init__(self) -> None:
        window, clock, limits = Window(self._origin.first_bytes), self._clock, self._limits
        self._source = Source(
            self._origin, clock, limits, lambda: window.end_bytes, self._look, self._took, self._complete, self._lose
        )
        self._holding = Holding(
            window, self._first_spool, clock, limits.spool_stall_s, self._spool_dropped, self._look_and_tell
        )
        self._pace = Pace(self._holding, limits, clock, self.over_budget, self._leave_laggards)
        if self._proof is not None:
            self.verdict = Verdict(self.descriptor.digest, self._proof, self._look)

    # --- what readers see

    @property
    def spool(self) -> ISpool | None:
        """Where it is kept; None means that this pull goes on unkept."""
        return self._holding.spool

    @property
    def received_bytes(self) -> int:
        """How far it has come."""
        return self._holding.received_bytes

    @property
    def resumes(self) -> int:
        """How often upstream was asked for the rest."""
        return self._source.resumes

    @property
    def size_bytes(self) -> int | None:
        """See :attr:`IBody.size_bytes`."""
        # No bytes have no tail to hold back: that there are none is told with the verdict.
        return self.received_bytes if self.fate == "proven" else self._source.end_bytes or None

    @property
    def released_bytes(self) -> int:
        """How far readers may go: all, or all but the tail while there is no verdict."""
        if self.fate == "proven" or self.verdict is None:
            return self.received_bytes
        end_bytes = self.received_bytes if self._source.end_bytes is None else self._source.end_bytes
        return max(self._origin.first_bytes, min(self.received_bytes, end_bytes - self._limits.tail_bytes))

    def can_serve(self, offset_bytes: int) -> bool:
        """Whether a reader that begins at ``offset_bytes`` will find everything from there on."""
        return self.fate in ("arriving", "proven") and self._holding.can_serve(offset_bytes)

    def read_at(self, offset_bytes: int, max_bytes: int) -> bytes:
        """See :meth:`IBody.read_at`."""
        count = self._readable(offset_bytes, max_bytes)
        return self._holding.read_at(offset_bytes, count) if count else b""

    def extent_at(self, offset_bytes: int, max_bytes: int) -> tuple[int, int] | None:
        """See :meth:`IBody.extent_at`."""
        count = self._readable(offset_bytes, max_bytes)
        return self._holding.extent_at(offset_bytes, count) if count else None

    def _readable(self, offset_bytes: int, max_bytes: int) -> int:
        if self.fate not in ("arriving", "proven"):
            raise BodyLost(f"the body is {self.fate}")
        self._look_soon()
        return max(0, min(max_bytes, self.released_bytes - offset_bytes))

    def follow(self, follower: IFollower) -> None:
        """See :meth:`IBody.follow`; it may begin further on than was promised."""
        Lent.follow(self, follower)
        self._look_soon()

    def unfollow(self, follower: IFollower) -> None:
        """See :meth:`IBody.unfollow`; the pace may depend on who is left."""
        Lent.unfollow(self, follower)
        self._look()

    def close(self) -> None:
        """See :meth:`IBody.close`; the pace may depend on who is left."""
        Lent.close(self)
        self._look()

    @property
    def lonely(self) -> bool:
        """Whether it goes on for the storage alone."""
        return self.fate == "arriving" and not self._followers and not self._promised

    @property
    def held_bytes(self) -> int:
        """How much memory it takes: its window, or what is not hashed yet, both the latest bytes."""
        return max(self._holding.memory_bytes, self._unhashed_bytes)

    @property
    def _unhashed_bytes(self) -> int:
        return self.verdict.pending_bytes if self.verdict is not None else 0

    @property
    def left_bytes(self) -> float:
        """How much is still to come; endless if upstream did not say."""
        return float("inf") if self._source.end_bytes is None else self._source.end_bytes - self.received_bytes

    def _let_go(self) -> None:
        if self._told_ended:
            self._holding.close()
        elif self.fate == "arriving" and self.spool is None:
            self._give_up("abandoned")
        elif self.fate == "arriving":
            self.deserted(self)

    async def settled(self, more_than_bytes: int | None = None) -> None:
        """Wait for the verdict, or until more than ``more_than_bytes`` have come."""
        while self.fate == "arriving":
            if more_than_bytes is not None and self.received_bytes > more_than_bytes:
                return
            waiter: Deferred[None] = Deferred()
            self._waiting.append(waiter)
            await waiter

    def _tell(self) -> None:
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            # Somebody who stopped waiting has cancelled his own Deferred; that swallows this.
            waiter.callback(None)
        Lent._tell(self)

    # --- what comes from upstream

    def begin(self, response: IResponse) -> None:
        """Receive from this response."""
        self._source.begin(response)

    def _took(self, data: bytes) -> None:
        self._holding.remember(data)
        if self.verdict is not None:
            self.verdict.feed(data)
        self._holding.keep(data)
        self._look()
        if self.received_bytes == self._source.end_bytes:
            self._complete()
        if self.fate == "arriving":
            self._tell()

    # --- how it ends

    def _lose(self) -> None:
        if self.fate == "arriving":
            self._give_up("lost")

    def _complete(self) -> None:
        self._source.end_bytes = self.received_bytes
        if self.verdict is None:
            self._judged(True)
        else:
            self.verdict.when_known(self._judged)

    def _judged(self, good: bool) -> None:
        if self.fate != "arriving":
            return
        if not good:
            self.log.warn(
                "wrong digest from {source}: {size_bytes} bytes are not {digest}; nothing is kept",
                source=self.namespace if self._origin.source is None else self._origin.source(),
                size_bytes=self.received_bytes,
                digest=str(self.descriptor.digest),
            )
            self._origin.tally.wrong()
            self._give_up("wrong")
            return
        self.fate = "proven"
        self._hang_up()
        self._tell()
        self._commit()

    def _commit(self) -> None:
        spool = self.spool
        if spool is None:
            self._over()
            return
        descriptor = Descriptor(self.descriptor.digest, self.received_bytes, self.descriptor.media_type)
        d = Deferred.fromCoroutine(_await(spool.commit(descriptor, self.headers, self.namespace, self.held)))
        self._commit_timer = self._clock.callLater(self._limits.commit_s, self._commit_stalled)
        d.addCallbacks(self._committed, self._uncommitted)

    def _commit_stalled(self) -> None:
        self._commit_timer = None
        self._holding.drop(f"publishing took more than {self._limits.commit_s} s")
        self._over()

    def _committed(self, _: None) -> None:
        self.kept = True
        self._holding.trim(self.received_bytes)  # from now on it is like a hit
        self._over()

    def _uncommitted(self, failure: Failure) -> None:
        self._holding.drop(failure.getErrorMessage())
        self._over()

    def _give_up(self, fate: str) -> None:
        self.fate = fate
        self._hang_up()
        self._holding.abandon()
        self._over()
        self._tell()

    def abandon(self) -> None:
        """Stop, whoever still reads."""
        if self.fate == "arriving":
            self._give_up("abandoned")

    def _over(self) -> None:
        if not self._told_ended:
            self._told_ended = True
            self._holding.watch(False)
            self._commit_timer = stopped(self._commit_timer)
            self.ended(self)
        self._settle()

    def _hang_up(self) -> None:
        self._glance = stopped(self._glance)
        self._source.stop()
        self._look()

    # --- the spool, and the pace

    def _look(self) -> None:
        """See what memory may let go, and whether upstream has to wait."""
        self._holding.watch(not self._told_ended)
        needs = [follower.offset_bytes for follower in self._followers]
        if self._promised:
            needs.append(self._origin.first_bytes)
        if not self._source.is_open:
            self._pace.rest(needs)
            return
        waits, waited = self._pace.must_wait(needs, self.released_bytes, self._unhashed_bytes), self._source.is_paused
        if self._pace.is_short and not waited:
            self._origin.tally.paused()
        self._source.pause(waits)

    def _look_soon(self) -> None:
        """Look when a reader that goes on has told its new place, if it is a reader that upstream waits for."""
        if self._source.is_paused and self.spool is None and self._glance is None:
            self._glance = self._clock.callLater(0, self._glanced)

    def _glanced(self) -> None:
        self._glance = None
        self._look()

    def _look_and_tell(self) -> None:
        self._look()
        Lent._tell(self)

    def _leave_laggards(self) -> None:
        self.log.info("readers too slow for memory are cut: {digest}", digest=str(self.descriptor.digest))
        self._look_and_tell()

    def _spool_dropped(self, spool: ISpool, why: str) -> None:
        self._origin.tally.dropped()
        self.log.warn(
            "storage lost {digest} after {flushed_bytes} of {size_bytes} bytes, the pull goes on unkept: {reason}",
            digest=str(self.descriptor.digest),
            flushed_bytes=spool.flushed_bytes,
            size_bytes=self._source.end_bytes,
            reason=why,
        )
        if self.lonely:
            self._give_up("abandoned")


async def _await(awaitable: Awaitable[None]) -> None:
    await awaitable
