"""One request and its answer: a place among the open connections, a deadline, and errors that say what happened."""

from __future__ import annotations

from typing import Literal

from attrs import define, evolve, field, frozen
from twisted.internet.defer import CancelledError, Deferred, DeferredSemaphore
from twisted.internet.interfaces import IReactorTime
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IResponse

from txociproxy.collect import discard
from txociproxy.oci.errors import UpstreamUnreachable
from txociproxy.upstreams.connecting.breakers import Attempt, Breakers
from txociproxy.upstreams.connecting.failures import Nonsense, explained, has_hung_up, reason
from txociproxy.upstreams.connecting.leases import LeasedResponse
from txociproxy.upstreams.connecting.telling import Telling
from txociproxy.upstreams.origins import Origin


@frozen
class Outgoing:
    """A request to an upstream.

    :ivar headers: what this request has beyond the fields that every one has.
    :ivar bulk: its answer may be long (blobs), so it counts among the bodies.
    :ivar shows_client: a client has chosen its Authorization.
    """

    method: Literal["GET", "HEAD"]
    url: str
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    bulk: bool = False
    shows_client: bool = False

    def with_client(self, authorization: str) -> Outgoing:
        """Return the same request with what a client brought."""
        return evolve(self.with_token(authorization), shows_client=True)

    def with_token(self, authorization: str | None) -> Outgoing:
        """Return the same request with an Authorization, or without."""
        if authorization is None:
            return self
        return evolve(self, headers=(*self.headers, ("Authorization", authorization)))


@define(eq=False)
class Budget:
    """What is left of a deadline; only time spent waiting for an upstream counts (RULES D7)."""

    left_s: float

    def spend(self, seconds_s: float) -> None:
        """Take away what was waited."""
        self.left_s -= seconds_s


@define(eq=False)
class Slots:
    """Places among the open connections: those of long bodies and those of short asks."""

    bodies: DeferredSemaphore
    asks: DeferredSemaphore

    @classmethod
    def of(cls, bodies: int, asks: int | None = None) -> Slots:
        """Return so many; short asks have as many of their own unless said otherwise."""
        return cls(DeferredSemaphore(bodies), DeferredSemaphore(bodies if asks is None else asks))


@define(eq=False)
class _Sending:
    """A request from its first wait to its answer, and why it ended before.

    :ivar number: as it is told of; 0 before it is sent.
    :ivar began_s: when it was sent, or when it began to wait for that.
    """

    shows_client: bool
    began_s: float
    number: int = 0
    expired_s: float | None = None
    has_left: bool = False
    attempt: Attempt | None = None
    exchange: Deferred[IResponse] = field(init=False)

    def leave(self, _: object) -> None:
        """The client does not want it any more."""
        self.has_left = True
        self.exchange.cancel()

    def expire(self, deadline_s: float) -> None:
        """Its time is over."""
        self.expired_s = deadline_s
        self.exchange.cancel()

    def failed(self, error: Exception, url: str) -> Exception:
        """Tell the breaker, and return what the error means."""
        # It shows in many forms, also as a name without address; none of them is the upstream's fault.
        meant = CancelledError() if self.has_left else explained(error, url, self.expired_s)
        if self.attempt is not None:
            # Whoever hangs up on one client's Authorization must not be out of reach for all others (law 7).
            is_personal = self.shows_client and self.expired_s is None and has_hung_up(error)
            if isinstance(meant, UpstreamUnreachable) and not is_personal:
                self.attempt.failed(has_expired=self.expired_s is not None)
            else:
                self.attempt.left()
        return meant


@define(eq=False)
class Wire:
    """Sends the requests of one entry.

    A slot is held until the *body* has ended, since a kept-alive connection does not end: whoever gets an answer
    delivers or discards it.  Bodies of blobs and short asks have slots of their own (``Entry.max_connections``).
    """

    _agent: IAgent
    _clock: IReactorTime
    _user_agent: str
    _slots: Slots
    telling: Telling
    _breakers: Breakers = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._breakers = Breakers(self._clock)

    def is_down(self, url: str) -> bool:
        """Whether the origin of a URL has not answered lately, and nothing is sent there now (RULES D8)."""
        return self._breakers.is_down(Origin.of(url))

    def is_doubtful(self, url: str) -> bool:
        """Whether the origin of a URL has just failed to answer, so that another one is the better choice."""
        return self._breakers.is_doubtful(Origin.of(url))

    async def send(self, outgoing: Outgoing, budget: Budget) -> IResponse:
        """Return the answer with its headers in.

        :raises UpstreamUnreachable: none came, not in time, or none is to be expected (RULES D8).
        :raises OCIError: the guard refused.
        """
        deadline_s = max(budget.left_s, 0.0)
        started_s = self._clock.seconds()
        sending = _Sending(outgoing.shows_client, started_s)
        try:
            response = await self._sent(outgoing, deadline_s, sending)
        except Exception as error:
            self._tell_failure(outgoing, sending, error)
            raise sending.failed(error, outgoing.url) from None
        finally:
            budget.spend(self._clock.seconds() - started_s)
        after_s = self._clock.seconds() - sending.began_s
        self.telling.answered(sending.number, outgoing.method, outgoing.url, response, after_s)
        return response

    async def _sent(self, outgoing: Outgoing, deadline_s: float, sending: _Sending) -> IResponse:
        self._breakers.check(Origin.of(outgoing.url), deadline_s)  # at once, not after a wait for a slot
        exchange = sending.exchange = Deferred.fromCoroutine(self._exchange(outgoing, deadline_s, sending))
        timer = self._clock.callLater(deadline_s, sending.expire, deadline_s)
        waiter: Deferred[IResponse] = Deferred(sending.leave)
        exchange.addBoth(waiter.callback)
        try:
            return _sane(await waiter, outgoing.url)
        finally:
            if timer.active():
                timer.cancel()

    async def _exchange(self, outgoing: Outgoing, deadline_s: float, sending: _Sending) -> IResponse:
        slots = self._slots.bodies if outgoing.bulk else self._slots.asks
        await slots.acquire()
        try:
            sending.attempt = self._breakers.begin(Origin.of(outgoing.url), deadline_s)
            headers = self._headers(outgoing)
            sending.began_s = self._clock.seconds()
            sending.number = self.telling.asked(outgoing.method, outgoing.url, headers)
            response = await self._agent.request(
                outgoing.method.encode("ascii"), outgoing.url.encode("ascii"), headers, None
            )
        except BaseException:
            slots.release()
            raise
        sending.attempt.answered()
        sending.attempt = None
        if response.length == 0:  # also every answer to HEAD
            slots.release()
            return response
        return LeasedResponse(response, slots)

    def _tell_failure(self, outgoing: Outgoing, sending: _Sending, error: Exception) -> None:
        about = (sending.number, outgoing.method, outgoing.url)
        after_s = self._clock.seconds() - sending.began_s
        if sending.has_left or (isinstance(error, CancelledError) and sending.expired_s is None):
            self.telling.left(*about, after_s)
        else:
            has_expired = sending.expired_s is not None
            self.telling.failed(*about, reason(error, has_expired, sending.number > 0), after_s)

    def _headers(self, outgoing: Outgoing) -> Headers:
        headers = Headers()
        # A body in another coding would not match its digest (RULES E6).
        for name, value in (("User-Agent", self._user_agent), ("Accept-Encoding", "identity"), *outgoing.headers):
            headers.addRawHeader(name, value)
        return headers


def _sane(response: IResponse, url: str) -> IResponse:
    """Return an answer that may be passed on.

    Clients take 1xx for the announcement of another answer, and 304 for news about what *they* have: we never ask
    with a condition (RULES E6).

    :raises UpstreamUnreachable: it is none.
    """
    if not 200 <= response.code <= 599 or response.code == 304:
        discard(response)
        raise Nonsense(f"{Origin.of(url)} answered with status {response.code}, which makes no sense here")
    return response
