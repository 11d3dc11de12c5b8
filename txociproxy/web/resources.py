"""The root resource: one request in, one answer out, whatever goes wrong between."""

# Twisted leaves these base classes untyped, and mypy takes their methods for ours.
# mypy: allow-untyped-calls

from __future__ import annotations

from collections.abc import Awaitable
from typing import Protocol, cast

from attrs import define, evolve, field
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from txociproxy.logs import RequestName, named
from txociproxy.metrics import Metrics
from txociproxy.oci.errors import OCIError
from txociproxy.oci.requests import Page, Ping, Target, TokenAsk, parse
from txociproxy.web.access import REQUEST_ID_FIELD, Visit, name_of
from txociproxy.web.asking import about_error
from txociproxy.web.forwarded import client_of
from txociproxy.web.lock import Lock
from txociproxy.web.pages import Pages
from txociproxy.web.pings import Pings
from txociproxy.web.pulls import Pulls
from txociproxy.web.replies import as_oci_error, error_reply
from txociproxy.web.sending import channel_of, cut, send_reply
from txociproxy.web.settings import WebSettings
from txociproxy.web.tokens import TokenEndpoint


class Desk(Protocol):
    """Answers requests."""

    async def answer(self, request: Request, visit: Visit, target: Target) -> None:
        """Answer one request.

        :raises OCIError: and what else :class:`~txociproxy.cache.Cache` raises.
        """


@define(eq=False)
class Desks:
    """Who answers which kind of request.

    :ivar lock: lets nobody pass without a password; None lets everybody.
    """

    pings: Pings
    pulls: Pulls
    tokens: TokenEndpoint
    pages: Pages = field(factory=Pages)
    lock: Lock | None = None

    async def answer(self, request: Request, visit: Visit, target: Target) -> None:
        """Answer one request.

        :raises OCIError: and what else :class:`~txociproxy.cache.Cache` raises.
        """
        if self.lock is not None:
            await self.lock.check(request, target, visit.client)
        if isinstance(target, Page):
            send_reply(request, self.pages.answer(target))
        elif isinstance(target, Ping):
            send_reply(request, await self.pings.answer(request, visit, target))
        elif isinstance(target, TokenAsk):
            send_reply(request, await self.tokens.answer(request, visit, target))
        else:
            await self.pulls.answer(request, visit, target)


class Root(Resource):
    """Answers every path; each answer is a coroutine that ends when its client leaves.

    :param metrics: what is told about each request.
    """

    isLeaf = True

    def __init__(
        self,
        clock: IReactorTime,
        desks: Desk,
        log: Logger,
        settings: WebSettings,
        metrics: Metrics | None = None,
    ) -> None:
        super().__init__()
        self._metrics = metrics or Metrics()
        self._settings = settings
        self._clock = clock
        self._desks = desks
        self._log = log
        self._open: dict[Request, tuple[Visit, Deferred[None]]] = {}

    @property
    def running(self) -> int:
        """How many answers are not over yet."""
        return len(self._open)

    def render(self, request: Request) -> int:
        """Begin to answer."""
        client = client_of(request, self._settings.trusted_proxies)
        visit = Visit(request, self._clock, self._log, self._metrics, client, RequestName(name_of(request)))
        request.responseHeaders.setRawHeaders(REQUEST_ID_FIELD, [visit.name.id.encode("ascii")])
        over = request.notifyFinish()
        with named(visit.name):
            answering = Deferred.fromCoroutine(self._answer(request, visit))
        answering.addErrback(self._swallow_cancel, request)
        self._open[request] = visit, answering
        over.addCallbacks(lambda _: visit.end("finished"), lambda _: _leave(visit, answering))
        over.addBoth(self._ended, request)
        return NOT_DONE_YET

    def _ended(self, _: object, request: Request) -> None:
        del self._open[request]

    def refuse_waiting(self) -> None:
        """Refuse, at the end of the process, whoever still waits for an answer to begin; another proxy may have it."""
        for request, (visit, answering) in list(self._open.items()):
            if not answering.called:
                answering.cancel()
                error = OCIError("UNAVAILABLE", "this proxy is being stopped; try again", status=503)
                self._refuse(request, visit, error)

    def cut_all(self) -> None:
        """End every answer that has begun, so that nobody takes it for whole."""
        for request, (visit, _) in list(self._open.items()):
            if not visit.is_over:
                visit.end("cut")
                cut(request)

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
            self._log.failure("an answer failed", printable(request, Failure(error)))
            told = OCIError("UNAVAILABLE", "something went wrong here; the log says what", status=500)
        if request.startedWriting:
            visit.reason = str(told)
        else:
            visit.fails(str(told))
        if channel_of(request) is None:
            return
        if request.startedWriting:
            cut(request)
        else:
            # What could not be read in one way only ends the connection (RULES A1).
            reply = error_reply(told, about_error(request, self._settings, visit.target))
            send_reply(request, evolve(reply, closes=told.status == 400))

    def _swallow_cancel(self, failure: Failure, request: Request) -> None:
        """The client has left; nobody is told."""
        if not failure.check(CancelledError):
            self._log.failure("an answer failed", printable(request, failure))


class Undisclosed(Exception):
    """Stands for an error whose text might repeat what a client has confided."""


def printable(request: Request, failure: Failure) -> Failure:
    """Return what may be logged of an error that nobody expected: where it happened, and its text if no secret came."""
    if request.method != b"POST" and not request.requestHeaders.hasHeader(b"Authorization"):
        return failure
    kind = failure.type.__name__ if failure.type else "Failure"
    hidden = Undisclosed(f"{kind}; its text is left out, since the request held a credential")
    return Failure(hidden, Undisclosed, failure.getTracebackObject())


def _target(request: Request) -> Target:
    """Read the request line."""
    path, _, query = request.uri.partition(b"?")
    return parse(request.method.decode("ascii", "replace"), path, query)


def _leave(visit: Visit, answering: Awaitable[None]) -> None:
    """The client has gone before its answer was over."""
    cast("Deferred[None]", answering).cancel()
    visit.end("left")
