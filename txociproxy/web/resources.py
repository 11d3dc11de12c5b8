"""The root resource: one request in, one answer out, whatever goes wrong between."""

# Twisted leaves these base classes untyped, and mypy takes their methods for ours.
# mypy: allow-untyped-calls

from __future__ import annotations

from collections.abc import Awaitable
from typing import cast

from attrs import define, evolve
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from txociproxy.oci.errors import OCIError
from txociproxy.oci.requests import Health, Ping, Target, TokenAsk, parse
from txociproxy.web.access import Visit
from txociproxy.web.asking import listener_of
from txociproxy.web.pings import Pings
from txociproxy.web.pulls import Pulls
from txociproxy.web.replies import as_oci_error, error_reply
from txociproxy.web.sending import Reply, channel_of, cut, send_reply
from txociproxy.web.tokens import TokenEndpoint

_HEALTHY = Reply(200, (("Content-Type", "text/plain"),), b"ok", 2)


@define(eq=False)
class Desks:
    """Who answers which kind of request."""

    pings: Pings
    pulls: Pulls
    tokens: TokenEndpoint

    async def answer(self, request: Request, visit: Visit, target: Target) -> None:
        """Answer one request.

        :raises OCIError: and what else :class:`~txociproxy.cache.Cache` raises.
        """
        if isinstance(target, Health):
            send_reply(request, _HEALTHY)
        elif isinstance(target, Ping):
            send_reply(request, await self.pings.answer(request, visit, target))
        elif isinstance(target, TokenAsk):
            send_reply(request, self.tokens.answer(request, target, visit.client, listener_of(request)))
        else:
            await self.pulls.answer(request, visit, target)


class Root(Resource):
    """Answers every path; each answer is a coroutine that ends when its client leaves.

    :ivar running: how many answers are not over yet.
    """

    isLeaf = True

    def __init__(self, clock: IReactorTime, desks: Desks, log: Logger) -> None:
        super().__init__()
        self._clock = clock
        self._desks = desks
        self._log = log
        self.running = 0

    def render(self, request: Request) -> int:
        """Begin to answer."""
        visit = Visit(request, self._clock, self._log)
        over = request.notifyFinish()
        self.running += 1
        answering = Deferred.fromCoroutine(self._answer(request, visit))
        answering.addErrback(self._swallow_cancel)
        over.addCallbacks(lambda _: visit.end("finished"), lambda _: _leave(visit, answering))
        over.addBoth(self._ended)
        return NOT_DONE_YET

    def _ended(self, _: object) -> None:
        self.running -= 1

    async def _answer(self, request: Request, visit: Visit) -> None:
        """Answer, and turn what goes wrong into an answer."""
        try:
            target = _target(request)
            visit.asks(target)
            await self._desks.answer(request, visit, target)
        except CancelledError:
            raise
        except Exception as error:
            self._refuse(request, visit, error)

    def _refuse(self, request: Request, visit: Visit, error: Exception) -> None:
        """Send an error; if a body has begun, end it visibly."""
        told = as_oci_error(error)
        if told is None:
            self._log.failure("an answer failed", Failure(error))
            told = OCIError("UNAVAILABLE", "something went wrong here; the log says what", status=500)
        visit.reason = str(told)
        if channel_of(request) is None:
            return
        if request.startedWriting:
            cut(request)
        else:
            # What could not be read in one way only ends the connection (RULES A1).
            send_reply(request, evolve(error_reply(told), closes=told.status == 400))

    def _swallow_cancel(self, failure: Failure) -> None:
        """The client has left; nobody is told."""
        if not failure.check(CancelledError):
            self._log.failure("an answer failed", failure)


def _target(request: Request) -> Target:
    """Read the request line."""
    path, _, query = request.uri.partition(b"?")
    return parse(request.method.decode("ascii", "replace"), path, query)


def _leave(visit: Visit, answering: Awaitable[None]) -> None:
    """The client has gone before its answer was over."""
    cast("Deferred[None]", answering).cancel()
    visit.end("left")
