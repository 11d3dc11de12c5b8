"""Asks that end: with their answer, with their time, or with the gate.

What an ask tells about S3 as a whole is told to the gate, and the gate's closing ends all others that wait for an
answer, so that a hang is paid for once.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime

from txociproxy.storage.s3.gate import Gate
from txociproxy.storage.s3.saying import Aside
from txociproxy.storage.s3.trouble import S3Trouble

T = TypeVar("T")
Work = Coroutine[Deferred[Any], Any, T]


@define(eq=False)
class Ask:
    """An ask from its first wait to its end.

    :ivar what: which, without any address.
    :ivar sent_s: when its turn came, by the clock.
    :ivar is_waiting: False while it runs itself, or has ended.
    :ivar why: set when we end it ourselves.
    """

    what: str
    began_s: float
    is_probe: bool
    sent_s: float | None = None
    is_waiting: bool = False
    why: S3Trouble | None = None
    has_left: bool = False
    work: Deferred[Any] | None = None

    async def wait(self, what: Deferred[T]) -> T:
        """Wait for something outside."""
        self.is_waiting = True
        try:
            return await what
        finally:
            self.is_waiting = False

    def end(self, why: S3Trouble) -> None:
        """Give it up."""
        self.why = self.why or why
        if self.work is not None:
            self.work.cancel()

    def leave(self, _: object) -> None:
        """Nobody wants it any more."""
        self.has_left = True
        if self.work is not None:
            self.work.cancel()


@define(eq=False)
class Asks:
    """The asks that run.

    :ivar _patience_s: how long one may take in all, with its wait for a place among the others.
    """

    _gate: Gate
    _clock: IReactorTime
    _patience_s: float
    _running: set[Ask] = field(init=False, factory=set)

    def __attrs_post_init__(self) -> None:
        self._gate.on_close.append(self._cut)

    async def run(self, what: str, until_s: float | None, begin: Callable[[Ask], Work[T]], is_probe: bool = False) -> T:
        """Ask, and wait for the answer.

        :param until_s: when patience ends, by the clock, if that is earlier than usual.
        :param is_probe: asks while the gate is closed, too, and tells it nothing.
        :raises S3Trouble: there is none.
        """
        if not is_probe:
            self._gate.check()
        now_s = self._clock.seconds()
        ends_s = now_s + self._patience_s if until_s is None else min(until_s, now_s + self._patience_s)
        ask = Ask(what, now_s, is_probe)
        timer = self._clock.callLater(max(0.0, ends_s - now_s), self._expire, ask)
        self._running.add(ask)
        try:
            result = await self._waiter(ask, begin)
        except S3Trouble as trouble:
            self._running.discard(ask)  # before the gate closes and ends all that run
            self._tell(ask, trouble)
            raise
        finally:
            self._running.discard(ask)
            if timer.active():
                timer.cancel()
        self._tell(ask, None)
        return result

    def _waiter(self, ask: Ask, begin: Callable[[Ask], Work[T]]) -> Deferred[T]:
        """Return what the ask comes to; cancelling it ends the ask."""

        def meant(failure: Any) -> Any:
            if ask.has_left:
                raise CancelledError
            if ask.why is not None:
                raise ask.why  # the agent has its own words for it
            return failure

        waiter: Deferred[T] = Deferred(ask.leave)
        work = Deferred.fromCoroutine(begin(ask))
        ask.work = work
        work.addErrback(meant).addBoth(waiter.callback)
        return waiter

    def _tell(self, ask: Ask, trouble: S3Trouble | None) -> None:
        if ask.is_probe or (isinstance(trouble, Aside) and ask.why is not None):
            return
        if trouble is None or isinstance(trouble, Aside):
            self._gate.worked()
        else:
            self._gate.failed(trouble)

    def _expire(self, ask: Ask) -> None:
        now_s = self._clock.seconds()
        waited_s = (now_s if ask.sent_s is None else ask.sent_s) - ask.began_s
        # Whoever has mostly waited for a place has not learnt anything about S3.
        is_ours = waited_s > (now_s - ask.began_s) / 2
        ask.end(Aside("failing", "Busy", ask.what) if is_ours else S3Trouble("unreachable", "Timeout", ask.what))

    def _cut(self) -> None:
        """The gate has closed: nobody waits any longer."""
        trouble = self._gate.trouble
        for ask in [ask for ask in self._running if not ask.is_probe]:
            # One that does not wait is the one that closes it, or is about to hear its own answer.
            if trouble is not None and ask.is_waiting:
                ask.end(S3Trouble(trouble.kind, trouble.code, f"{ask.what} was given up"))
