"""Where an arriving body comes from: one answer of the upstream after the other, until all of it is here."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, evolve, field
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.iweb import IResponse

from txociproxy.ingest.arrival import Arrival, refuse
from txociproxy.ingest.limits import IngestLimits, Origin
from txociproxy.ingest.resume import GoOn, Judgement, judge
from txociproxy.oci.errors import OCIError, UpstreamUnreachable

GAIN_BYTES = 64 * 1024  # an answer that brings less than this is not worth asking for again at once


@define(eq=False)
class Source:
    """Receives from an upstream, and asks it for the rest when it breaks off (RULES E5).

    :ivar _received_bytes: tells how far the body has come.
    :ivar _begun: called after each beginning, to see whether upstream has to wait.
    :ivar _took: called with each new chunk.
    :ivar _completed: called when upstream has sent all it promised, or has ended well without a promise; perhaps twice.
    :ivar _lost: called when the rest cannot be had.
    :ivar end_bytes: where the body ends; None if upstream has not said.
    :ivar resumes: how often it was asked for the rest.
    """

    _origin: Origin
    _clock: IReactorTime
    _limits: IngestLimits
    _received_bytes: Callable[[], int]
    _begun: Callable[[], None]
    _took: Callable[[bytes], None]
    _completed: Callable[[], None]
    _lost: Callable[[], None]
    end_bytes: int | None = field(init=False)
    resumes: int = field(default=0, init=False)
    _arrival: Arrival | None = field(default=None, init=False)
    _resuming: Deferred[None] | None = field(default=None, init=False)
    _fruitless: int = field(default=0, init=False)
    _asked_bytes: int = field(default=-GAIN_BYTES, init=False)
    _stopped: bool = field(default=False, init=False)

    log = Logger()

    def __attrs_post_init__(self) -> None:
        self.end_bytes = self._origin.end_bytes

    @property
    def is_open(self) -> bool:
        """Whether something may come now, or may when it is let."""
        return self._arrival is not None

    @property
    def is_paused(self) -> bool:
        """Whether upstream has to wait."""
        return self._arrival is not None and self._arrival.paused

    def begin(self, response: IResponse, skip_bytes: int = 0) -> None:
        """Receive from this response."""
        received, silence_s = self._origin.tally.received, self._limits.silence_s
        self._arrival = Arrival(self._clock, silence_s, self._deliver, self._goodbye, received, skip_bytes)
        self._arrival.begin(response)
        self._begun()

    def pause(self, waits: bool) -> None:
        """Let upstream wait, or not."""
        if self._arrival is not None and waits:
            self._arrival.pause()
        elif self._arrival is not None:
            self._arrival.resume()

    def stop(self) -> None:
        """Take nothing more, and ask for nothing more."""
        self._stopped = True
        arrival, self._arrival = self._arrival, None
        if arrival is not None and self._received_bytes() == self.end_bytes:
            # Its own goodbye comes in this turn, and leaves a connection that can be used again.
            self._clock.callLater(0, arrival.stop)
        elif arrival is not None:
            arrival.stop()
        resuming, self._resuming = self._resuming, None
        if resuming is not None:
            resuming.cancel()

    def _deliver(self, data: bytes) -> None:
        if self.end_bytes is not None:
            data = data[: self.end_bytes - self._received_bytes()]
        if data and not self._stopped:
            self._fruitless = 0
            self._took(data)

    def _goodbye(self, clean: bool) -> None:
        self._arrival = None
        if self._stopped:
            return
        if self._received_bytes() == self.end_bytes or (clean and self.end_bytes is None):
            # Everything promised is here: however the connection ended, the digest decides.
            self._completed()
            return
        resuming = Deferred.fromCoroutine(self._resume()).addErrback(self._resume_failed)
        if not resuming.called:
            self._resuming = resuming

    async def _resume(self) -> None:
        while not self._stopped and self._fruitless < self._limits.tries:
            self._fruitless += 1
            self.resumes += 1
            # One that gives a little each time is asked as often as it takes, but not without a pause.
            gain_bytes, self._asked_bytes = self._received_bytes() - self._asked_bytes, self._received_bytes()
            if self._fruitless > 1 or gain_bytes < GAIN_BYTES:
                await deferLater(self._clock, self._limits.backoff_s * 2 ** max(0, self._fruitless - 2))
            try:
                response = await self._origin.reopen(self._received_bytes())
            except (UpstreamUnreachable, OCIError):
                continue
            if self._is_settled_by(response):
                return
        self._resuming = None
        if not self._stopped:
            self._lost()

    def _is_settled_by(self, response: IResponse) -> bool:
        judgement = judge(response, self._received_bytes(), self._origin.total_bytes, self._origin.etag)
        if isinstance(judgement, GoOn) and not self._stopped:
            self._resuming = None
            self._learn(judgement.total_bytes)
            self.begin(response, judgement.skip_bytes)
            return True
        refuse(response)
        if judgement is Judgement.AGAIN or self._stopped:
            return False
        self._resuming = None
        self._completed() if judgement is Judgement.COMPLETE else self._lost()
        return True

    def _learn(self, total_bytes: int | None) -> None:
        """Take the length from an answer, where the first one did not say."""
        if self.end_bytes is None and total_bytes is not None and total_bytes >= self._received_bytes():
            self.end_bytes = total_bytes
            self._origin = evolve(self._origin, total_bytes=total_bytes)

    def _resume_failed(self, failure: Failure) -> None:
        self._resuming = None
        if not self._stopped:
            if not failure.check(CancelledError):
                self.log.failure("could not ask for the rest of a body", failure)
            self._lost()
