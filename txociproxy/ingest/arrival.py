"""One attempt to receive a body: the protocol that an upstream's response is delivered to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from attrs import define, field
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.iweb import IResponse


@define(eq=False)
class Arrival(Protocol):
    """Gives chunks and one goodbye to its owner; watches for silence.

    :ivar _skip_bytes: how many bytes at the start the owner has already (a whole 200 where a 206 was asked).
    :ivar _took: called with each chunk.
    :ivar _received: called with the length of each chunk as it came.
    :ivar _ended: called once: True when the connection said goodbye as one does after a whole body.
    """

    _clock: IReactorTime
    _silence_s: float
    _took: Callable[[bytes], None]
    _ended: Callable[[bool], None]
    _received: Callable[[int], object]
    _skip_bytes: int = 0
    paused: bool = False
    _over: bool = False
    _timer: IDelayedCall | None = field(default=None, init=False)

    def begin(self, response: IResponse) -> None:
        """Take the body of this response."""
        self._listen()
        cast(Any, response).deliverBody(self)
        if self.paused and not self._over:
            # deliverBody resumes the transport at its end, also when the first chunks made us pause.
            self._transport().pauseProducing()

    def dataReceived(self, data: bytes) -> None:
        """Pass on what the owner does not have yet."""
        if self._over:
            return
        self._listen()
        self._received(len(data))
        skip = min(self._skip_bytes, len(data))
        self._skip_bytes -= skip
        if skip < len(data):
            self._took(data[skip:] if skip else data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The body is over, one way or another."""
        self._finish(bool(reason.check(ResponseDone, PotentialDataLoss)))

    def pause(self) -> None:
        """Let nothing more come; silence is then our own."""
        if not self.paused and not self._over:
            self.paused = True
            self._quiet()
            if self.transport is not None:
                self._transport().pauseProducing()

    def resume(self) -> None:
        """Go on."""
        if self.paused and not self._over:
            self.paused = False
            self._listen()
            if self.transport is not None:
                self._transport().resumeProducing()

    def stop(self) -> None:
        """Close the connection; the owner is told nothing any more."""
        if not self._over:
            self._over = True
            self._quiet()
            self._hang_up()

    def _finish(self, clean: bool) -> None:
        if not self._over:
            self._over = True
            self._quiet()
            self._ended(clean)

    def _silence(self) -> None:
        self._timer = None
        if not self._over:
            self._over = True
            self._hang_up()
            self._ended(False)

    def _listen(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.reset(self._silence_s)
        elif not self.paused:
            self._timer = self._clock.callLater(self._silence_s, self._silence)

    def _quiet(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None

    def _hang_up(self) -> None:
        if self.transport is not None:
            # Under TLS a polite goodbye may wait for the peer; the owner does not wait with it.
            self._transport().resumeProducing()
            self._transport().loseConnection()

    def _transport(self) -> Any:
        return self.transport


class _Refusal(Protocol):
    def connectionMade(self) -> None:
        cast(Any, self.transport).loseConnection()


def refuse(response: IResponse) -> None:
    """Close an answer whose body nobody wants; left alone it would hold its connection open for ever."""
    cast(Any, response).deliverBody(_Refusal())
