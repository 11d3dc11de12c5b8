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
  ``laggard_s`` together; then what they still need is let go and they are cut.
* Memory stays bounded: a chunk leaves the window once it is both flushed and ``window_bytes`` behind the tip.

What was rejected: a queue per reader (memory grows with readers), the slowest client setting the pace (law 3),
telling the kinds of goodbye apart (a connection that ends well may have lied, one that ends badly may have been
whole: only promised length and digest decide).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from attrs import define, field, frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.iweb import IResponse
from zope.interface import implementer

from txociproxy.bodies import Lent
from txociproxy.ingest.arrival import Arrival, refuse
from txociproxy.ingest.resume import GoOn, Judgement, judge
from txociproxy.ingest.verdict import Verdict
from txociproxy.ingest.window import Window
from txociproxy.interfaces import HeaderList, IBody, IFollower, ISpool, IWorkers
from txociproxy.oci.errors import BodyLost, UpstreamUnreachable
from txociproxy.oci.names import Descriptor

TAIL_BYTES = 32 * 1024


@frozen
class IngestLimits:
    """The bounds of an ingest.

    :ivar tries: attempts in a row that bring no byte, before the body is given up.
    """

    window_bytes: int = 1024 * 1024
    tail_bytes: int = TAIL_BYTES
    outstanding_bytes: int = 8 * 1024 * 1024
    silence_s: float = 30.0
    spool_stall_s: float = 5.0
    laggard_s: float = 2.0
    commit_s: float = 60.0
    tries: int = 4
    backoff_s: float = 0.2


@frozen
class Origin:
    """Where an arriving body comes from.

    :ivar first_bytes: the offset of its first byte in the content; more than 0 for a relayed range.
    :ivar end_bytes: the offset of its end; None if upstream did not say.
    :ivar total_bytes: the length of the whole content, if upstream said.
    :ivar etag: the entity tag that came with it.
    :ivar reopen: asks upstream for everything from an offset on.
    """

    first_bytes: int
    end_bytes: int | None
    total_bytes: int | None
    etag: str | None
    reopen: Callable[[int], Awaitable[IResponse]]


@implementer(IBody)
@define(eq=False)
class Ingest(Lent):
    """One arriving body.

    :ivar descriptor: what it shall be; its size is the upstream's promise.
    :ivar _proof: where the bytes are hashed; None for a relayed range, which cannot be proven.
    :ivar spool: where it is kept; None or dead means that this pull goes on unkept.
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
    spool: ISpool | None
    ended: Callable[[Ingest], None]
    over_budget: Callable[[], bool] = field(default=lambda: False)
    deserted: Callable[[Ingest], None] = field(default=lambda _: None)
    fate: str = "arriving"
    kept: bool = False
    resumes: int = 0
    received_bytes: int = field(init=False)
    verdict: Verdict | None = field(default=None, init=False)
    _end_bytes: int | None = field(init=False)
    _window: Window = field(init=False)
    _arrival: Arrival | None = field(default=None, init=False)
    _resuming: Deferred[None] | None = field(default=None, init=False)
    _fruitless: int = field(default=0, init=False)
    _stall: IDelayedCall | None = field(default=None, init=False)
    _laggards: IDelayedCall | None = field(default=None, init=False)
    _commit_timer: IDelayedCall | None = field(default=None, init=False)
    _flushed_before: int = field(default=0, init=False)
    _waiting: list[Deferred[None]] = field(factory=list, init=False)
    _dead_spool: ISpool | None = field(default=None, init=False)
    _told_ended: bool = field(default=False, init=False)

    log = Logger()

    def __attrs_post_init__(self) -> None:
        self.received_bytes = self._origin.first_bytes
        self._end_bytes = self._origin.end_bytes
        self._window = Window(self._origin.first_bytes)
        if self._proof is not None:
            self.verdict = Verdict(self.descriptor.digest, self._proof, self._pace)
        if self.spool is not None:
            self.spool.follow(self._spooled)

    # --- what readers see

    @property
    def size_bytes(self) -> int | None:
        """See :attr:`IBody.size_bytes`."""
        return self.received_bytes if self.fate == "proven" else self._end_bytes

    @property
    def released_bytes(self) -> int:
        """How far readers may go: all, or all but the tail while there is no verdict."""
        if self.fate == "proven" or self.verdict is None:
            return self.received_bytes
        end_bytes = self.received_bytes if self._end_bytes is None else self._end_bytes
        return max(self._origin.first_bytes, min(self.received_bytes, end_bytes - self._limits.tail_bytes))

    def can_serve(self, offset_bytes: int) -> bool:
        """Whether a reader that begins at ``offset_bytes`` will find everything from there on."""
        if self.fate not in ("arriving", "proven"):
            return False
        holder = self.spool or self._dead_spool
        flushed_bytes = holder.flushed_bytes if holder is not None else 0
        return offset_bytes >= self._window.start_bytes or flushed_bytes >= self._window.start_bytes

    def read_at(self, offset_bytes: int, max_bytes: int) -> bytes:
        """See :meth:`IBody.read_at`."""
        count = self._readable(offset_bytes, max_bytes)
        if count == 0:
            return b""
        data = self._window.read_at(offset_bytes, count)
        holder = self.spool or self._dead_spool
        if data or holder is None or offset_bytes >= holder.flushed_bytes:
            if not data and offset_bytes < self._window.start_bytes:
                raise BodyLost("these bytes were let go before this reader came to them")
            return data
        return holder.read_at(offset_bytes, count)

    def extent_at(self, offset_bytes: int, max_bytes: int) -> tuple[int, int] | None:
        """See :meth:`IBody.extent_at`."""
        count = self._readable(offset_bytes, max_bytes)
        holder = self.spool or self._dead_spool
        if count == 0 or holder is None or offset_bytes >= holder.flushed_bytes:
            return None
        return holder.extent_at(offset_bytes, count)

    def _readable(self, offset_bytes: int, max_bytes: int) -> int:
        if self.fate not in ("arriving", "proven"):
            raise BodyLost(f"the body is {self.fate}")
        return max(0, min(max_bytes, self.released_bytes - offset_bytes))

    def unfollow(self, follower: IFollower) -> None:
        """See :meth:`IBody.unfollow`; the pace may depend on who is left."""
        Lent.unfollow(self, follower)
        self._pace()

    @property
    def lonely(self) -> bool:
        """Whether it goes on for the storage alone."""
        return self.fate == "arriving" and not self._followers and not self._promised

    @property
    def held_bytes(self) -> int:
        """How much memory its window takes."""
        return self._window.size_bytes

    @property
    def left_bytes(self) -> float:
        """How much is still to come; endless if upstream did not say."""
        return float("inf") if self._end_bytes is None else self._end_bytes - self.received_bytes

    def _let_go(self) -> None:
        if self.fate == "arriving" and self.spool is None:
            self._give_up("abandoned")
        elif self._told_ended:
            self._close_spools()
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

    def begin(self, response: IResponse, skip_bytes: int = 0) -> None:
        """Receive from this response."""
        self._arrival = Arrival(self._clock, self._limits.silence_s, self._took, self._goodbye, skip_bytes)
        self._arrival.begin(response)
        self._pace()

    def _took(self, data: bytes) -> None:
        if self._end_bytes is not None:
            data = data[: self._end_bytes - self.received_bytes]
        if not data:
            return
        self._fruitless = 0
        self._window.append(data)
        self.received_bytes += len(data)
        if self.verdict is not None:
            self.verdict.feed(data)
        if self.spool is not None:
            self.spool.write(data)
        self._pace()
        if self.received_bytes == self._end_bytes:
            self._complete()
        if self.fate == "arriving":
            self._tell()

    def _goodbye(self, clean: bool) -> None:
        self._arrival = None
        if self.fate != "arriving":
            return
        nothing_promised = self._end_bytes == self._origin.first_bytes
        if nothing_promised or (clean and self._end_bytes is None):
            self._complete()
        if self.received_bytes == self._end_bytes:
            # Everything promised is here: however the connection ended, the digest decides.
            return
        resuming = Deferred.fromCoroutine(self._resume()).addErrback(self._resume_failed)
        if not resuming.called:
            self._resuming = resuming

    async def _resume(self) -> None:
        while self._fruitless < self._limits.tries:
            self._fruitless += 1
            self.resumes += 1
            if self._fruitless > 1:
                await deferLater(self._clock, self._limits.backoff_s * 2 ** (self._fruitless - 2))
            try:
                response = await self._origin.reopen(self.received_bytes)
            except UpstreamUnreachable:
                continue
            judgement = judge(response, self.received_bytes, self._origin.total_bytes, self._origin.etag)
            if isinstance(judgement, GoOn):
                self._resuming = None
                self.begin(response, judgement.skip_bytes)
                return
            refuse(response)
            if judgement is Judgement.COMPLETE:
                self._resuming = None
                self._complete()
                return
            if judgement is Judgement.DIFFERENT:
                break
        self._resuming = None
        self._give_up("lost")

    def _resume_failed(self, failure: Failure) -> None:
        self._resuming = None
        if self.fate == "arriving":
            if not failure.check(CancelledError, UpstreamUnreachable):
                self.log.failure("could not resume {digest}", failure, digest=str(self.descriptor.digest))
            self._give_up("lost")

    # --- how it ends

    def _complete(self) -> None:
        self._end_bytes = self.received_bytes
        if self.verdict is None:
            self._judged(True)
        else:
            self.verdict.when_known(self._judged)

    def _judged(self, good: bool) -> None:
        if self.fate != "arriving":
            return
        if not good:
            self.log.warn(
                "wrong digest from {namespace}: {size_bytes} bytes are not {digest}; nothing is kept",
                namespace=self.namespace,
                size_bytes=self.received_bytes,
                digest=str(self.descriptor.digest),
            )
            self._give_up("wrong")
            return
        self.fate = "proven"
        self._quiet()
        self._hang_up()
        self._commit()
        self._tell()

    def _commit(self) -> None:
        spool = self.spool
        if spool is None:
            self._over()
            return
        descriptor = Descriptor(self.descriptor.digest, self.received_bytes, self.descriptor.media_type)
        self._pace()
        d = Deferred.fromCoroutine(_await(spool.commit(descriptor, self.headers, self.namespace)))
        self._commit_timer = self._clock.callLater(self._limits.commit_s, self._commit_stalled)
        d.addCallbacks(self._committed, self._uncommitted)

    def _commit_stalled(self) -> None:
        self._commit_timer = None
        self._drop_spool(f"publishing took more than {self._limits.commit_s} s")
        self._over()

    def _committed(self, _: None) -> None:
        self.kept = True
        self._over()

    def _uncommitted(self, failure: Failure) -> None:
        self._drop_spool(failure.getErrorMessage())
        self._over()

    def _give_up(self, fate: str) -> None:
        self.fate = fate
        self._quiet()
        self._hang_up()
        for spool in (self.spool, self._dead_spool):
            if spool is not None:
                spool.abandon()
        self._over()
        self._tell()

    def abandon(self) -> None:
        """Stop, whoever still reads."""
        if self.fate == "arriving":
            self._give_up("abandoned")

    def _over(self) -> None:
        if not self._told_ended:
            self._told_ended = True
            self._quiet()
            self._commit_timer = _stop(self._commit_timer)
            self.ended(self)
        self._settle()

    def _close_spools(self) -> None:
        for spool in (self.spool, self._dead_spool):
            if spool is not None:
                spool.close()

    def _hang_up(self) -> None:
        arrival, self._arrival = self._arrival, None
        if arrival is not None and self.received_bytes == self._end_bytes:
            # Its own goodbye comes in this turn, and leaves a connection that can be used again.
            self._clock.callLater(0, arrival.stop)
        elif arrival is not None:
            arrival.stop()
        resuming, self._resuming = self._resuming, None
        if resuming is not None:
            resuming.cancel()

    # --- the spool, and the pace

    def _spooled(self) -> None:
        """The spool has flushed something, has read pages in, or has died."""
        spool = self.spool
        if spool is not None and spool.failure is not None:
            self._drop_spool(str(spool.failure))
        self._pace()
        Lent._tell(self)

    def _drop_spool(self, why: str) -> None:
        spool, self.spool = self.spool, None
        if spool is None:
            return
        self._dead_spool = spool
        spool.abandon()
        self.log.warn(
            "storage lost {digest} after {flushed_bytes} of {size_bytes} bytes, the pull goes on unkept: {reason}",
            digest=str(self.descriptor.digest),
            flushed_bytes=spool.flushed_bytes,
            size_bytes=self._end_bytes,
            reason=why,
        )
        if self.fate == "arriving" and not self._followers and not self._promised:
            self._give_up("abandoned")

    def _spool_stalled(self) -> None:
        self._stall = None
        if self.spool is not None:
            if self.spool.flushed_bytes == self._flushed_before:
                self._drop_spool(f"no progress for {self._limits.spool_stall_s} s")
            self._pace()
            Lent._tell(self)

    def _pace(self) -> None:
        """Decide whether upstream is to wait, and what the window may let go."""
        self._watch_spool()
        hold = self.verdict is not None and self.verdict.pending_bytes > self._limits.outstanding_bytes
        if self.spool is not None:
            waiting_bytes = self.received_bytes - self.spool.flushed_bytes
            over = waiting_bytes > self._limits.window_bytes and self.over_budget()
            hold = hold or over or waiting_bytes > self._limits.outstanding_bytes
            self._window.trim(min(self.spool.flushed_bytes, self.received_bytes - self._limits.window_bytes))
        else:
            hold = self._pace_by_readers() or hold
        if self._arrival is not None:
            self._arrival.pause() if hold else self._arrival.resume()

    def _pace_by_readers(self) -> bool:
        dead_bytes = self._dead_spool.flushed_bytes if self._dead_spool is not None else 0
        needs = [self._origin.first_bytes] if self._promised else []
        needs += [max(follower.offset_bytes, dead_bytes) for follower in self._followers]
        needs = [need for need in needs if need >= self._window.start_bytes]
        slowest, fastest = (min(needs), max(needs)) if needs else (self.received_bytes, self.received_bytes)
        self._window.trim(min(slowest, self.received_bytes - self._limits.window_bytes))
        hold = self.received_bytes - slowest > self._limits.window_bytes
        only_laggards = hold and fastest >= self.released_bytes - self._limits.window_bytes // 2
        self._watch_laggards(only_laggards)
        return hold

    def _watch_spool(self) -> None:
        spool = self.spool
        waits = spool is not None and spool.flushed_bytes < self.received_bytes and not self._told_ended
        if spool is not None and waits and self._stall is None:
            self._flushed_before = spool.flushed_bytes
            self._stall = self._clock.callLater(self._limits.spool_stall_s, self._spool_stalled)
        elif not waits:
            self._stall = _stop(self._stall)

    def _watch_laggards(self, needed: bool) -> None:
        if needed and self._laggards is None and self.fate == "arriving":
            self._laggards = self._clock.callLater(self._limits.laggard_s, self._leave_laggards)
        elif not needed:
            self._laggards = _stop(self._laggards)

    def _leave_laggards(self) -> None:
        self._laggards = None
        self.log.info("readers too slow for memory are cut: {digest}", digest=str(self.descriptor.digest))
        self._window.trim(self.received_bytes - self._limits.window_bytes // 2)
        self._pace()
        Lent._tell(self)

    def _quiet(self) -> None:
        self._stall, self._laggards = _stop(self._stall), _stop(self._laggards)


async def _await(awaitable: Awaitable[None]) -> None:
    await awaitable


def _stop(call: IDelayedCall | None) -> IDelayedCall | None:
    """Cancel a timer that may have run already; what is left is no timer."""
    if call is not None and call.active():
        call.cancel()
    return None
