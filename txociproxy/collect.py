"""Small bodies from upstream: gathered whole with a cap, kept as an answer that can be given again, or closed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol as Shape
from typing import cast

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IDelayedCall, IProtocol, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IResponse
from zope.interface import implementer

from txociproxy.oci.errors import TxOCIProxyError, UpstreamUnreachable


class BodyTooLong(TxOCIProxyError):
    """The body is longer than the caller wants to hold in memory; it was closed."""


class _Closable(Shape):
    def loseConnection(self) -> None: ...


class _Collector(Protocol):
    """Gathers a body, up to a number of bytes and seconds of silence."""

    def __init__(
        self,
        max_bytes: int,
        clock: IReactorTime,
        silence_s: float,
        total_s: float | None,
        received: Callable[[int], object] | None,
        done: Deferred[bytes],
    ) -> None:
        self._max_bytes = max_bytes
        self._received = received
        self._done: Deferred[bytes] | None = done
        self._chunks: list[bytes] = []
        self._received_bytes = 0
        self._silence_s = silence_s
        self._silence: IDelayedCall = clock.callLater(silence_s, self._silent)
        self._timers = [self._silence]
        if total_s is not None:
            self._timers.append(clock.callLater(total_s, self._silent))

    def dataReceived(self, data: bytes) -> None:
        """Take the next chunk."""
        self._received_bytes += len(data)
        if self._done is None:
            return
        if self._received is not None:
            self._received(len(data))
        if self._received_bytes > self._max_bytes:
            self._fail(BodyTooLong(f"the body is longer than {self._max_bytes} bytes"))
            return
        self._silence.reset(self._silence_s)
        self._chunks.append(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """End well or not; without a length the end of the connection is all the end there is."""
        if reason.check(ResponseDone, PotentialDataLoss) is None:
            self._fail(UpstreamUnreachable("the upstream broke off in the middle of an answer"))
        elif (done := self._finished()) is not None:
            done.callback(b"".join(self._chunks))

    def close(self) -> None:
        """Forget the body and its connection; the Deferred has been or will be fired by somebody else."""
        self._finished()
        _close(self.transport)

    def _silent(self) -> None:
        self._fail(UpstreamUnreachable("the upstream stopped in the middle of an answer", timed_out=True))

    def _fail(self, error: Exception) -> None:
        done = self._finished()
        if done is not None:
            _close(self.transport)
            done.errback(error)

    def _finished(self) -> Deferred[bytes] | None:
        done, self._done = self._done, None
        for timer in self._timers:
            if timer.active():
                timer.cancel()
        return done


class _Discarder(Protocol):
    """Closes a body as soon as it is connected to it."""

    def connectionMade(self) -> None:
        """Close."""
        _close(self.transport)


def _close(transport: object) -> None:
    # What a body protocol gets is a producer that can also be closed; Twisted has no interface for that.
    if transport is not None:
        cast(_Closable, transport).loseConnection()


def collect(
    response: IResponse,
    max_bytes: int,
    clock: IReactorTime,
    silence_s: float,
    total_s: float | None = None,
    received: Callable[[int], object] | None = None,
) -> Deferred[bytes]:
    """Return the whole body; the Deferred may be cancelled, which closes it.

    Used in place of ``twisted.web.client.readBody``, which has no bounds and warns with a real Agent.

    :param silence_s: the longest wait for the next bytes.
    :param total_s: the longest wait for the whole; without it one byte now and then holds it for ever.
    :param received: called with the length of each chunk.
    :raises BodyTooLong: more than ``max_bytes``.
    :raises UpstreamUnreachable: it broke off, or the time was over.
    """
    # Twisted's UNKNOWN_LENGTH is a text, which is why the type is asked.
    if isinstance(response.length, int) and response.length > max_bytes:
        discard(response)
        return fail(BodyTooLong(f"the body is longer than {max_bytes} bytes"))
    collector: _Collector
    done: Deferred[bytes] = Deferred(lambda _: collector.close())
    collector = _Collector(max_bytes, clock, silence_s, total_s, received, done)
    response.deliverBody(collector)
    return done


def discard(response: IResponse) -> None:
    """Close an answer whose body nobody wants; otherwise its connection stays open for ever."""
    response.deliverBody(_Discarder())


@implementer(IResponse)
class KeptResponse:
    """An answer with its body in memory, which is given to whoever asks for it, once."""

    def __init__(self, code: int, headers: Headers, body: bytes) -> None:
        self.version = (b"HTTP", 1, 1)
        self.code = code
        self.phrase = b""
        self.headers = headers
        self.length = len(body)
        self.request: object = None
        self.previousResponse: IResponse | None = None
        self._body = body

    def deliverBody(self, protocol: IProtocol) -> None:
        """Hand the body over at once."""
        protocol.makeConnection(_Nowhere())  # type: ignore[arg-type]  # bodies come from producers, not transports
        if self._body:
            protocol.dataReceived(self._body)
        protocol.connectionLost(Failure(ResponseDone()))

    def setPreviousResponse(self, response: IResponse) -> None:
        """Remember the answer that led here."""
        self.previousResponse = response


class _Nowhere:
    """The producer of a body that has been delivered."""

    disconnecting = False

    def pauseProducing(self) -> None:
        """Do nothing: it is all here."""

    def resumeProducing(self) -> None:
        """Do nothing: it is all here."""

    def stopProducing(self) -> None:
        """Do nothing: it is all here."""

    def loseConnection(self) -> None:
        """Do nothing: there is no connection."""


async def kept(response: IResponse, clock: IReactorTime, max_bytes: int, total_s: float) -> KeptResponse:
    """Return the answer with its body read; one that is too long or breaks off is kept without its body.

    Reading to the end, other than closing, lets the connection be used again.
    """
    try:
        body = await collect(response, max_bytes, clock, total_s, total_s)
    except (BodyTooLong, UpstreamUnreachable):
        body = b""
    return KeptResponse(response.code, response.headers, body)
