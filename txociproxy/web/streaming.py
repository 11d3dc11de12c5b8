"""Content on its way to a client: head, Reader, end."""

from __future__ import annotations

import sys
from functools import partial

from attrs import define, evolve, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from twisted.web.server import Request
from zope.interface import implementer

from txociproxy.bodies.reader import Reader
from txociproxy.interfaces import IBody, IFollower, Serve
from txociproxy.metrics import Metrics
from txociproxy.oci.errors import BodyLost
from txociproxy.web.access import REQUEST_ID_FIELD, Visit
from txociproxy.web.cache_status import ERROR
from txociproxy.web.replies import Circumstances, Plan, content_lost, error_reply
from txociproxy.web.sending import Reply, RequestSink, channel_of, put_head, send_reply

_BEYOND_ALL = sys.maxsize // 2


@define(eq=False)
class Streams:
    """Sends content.

    :ivar _stall_s: how long a client may take nothing.
    """

    _clock: IReactorTime
    _stall_s: float
    _metrics: Metrics

    async def send(
        self, request: Request, visit: Visit, serve: Serve, plan: Plan | Reply, around: Circumstances
    ) -> None:
        """Send what is planned; the body is closed or given to a Reader, whatever happens."""
        body = serve.body
        if body is None or isinstance(plan, Reply) or request.method == b"HEAD":
            if body is not None:
                body.close()
            send_reply(request, plan if isinstance(plan, Reply) else _head_only(plan))
            return
        if plan.length_bytes is None and request.clientproto == b"HTTP/1.0":
            # It knows no chunks, and a close is its good end: so nothing is said before the verdict (RULES E2).
            plan = evolve(plan, length_bytes=await self._whole_size(body))
        self._start(request, visit, body, plan, around)

    async def _whole_size(self, body: IBody) -> int:
        """Wait until the length is known."""
        follower = _UntilKnown(body)
        # The promise that was made to us stays with the Reader that follows later.
        body.promise()
        body.follow(follower)
        try:
            follower.advanced()
            follower.known.addTimeout(self._stall_s, self._clock, _took_too_long)
            return await follower.known
        except BaseException:
            body.close()
            raise
        finally:
            body.unfollow(follower)

    def _start(self, request: Request, visit: Visit, body: IBody, plan: Plan, around: Circumstances) -> None:
        """Let a Reader carry the body."""
        if channel_of(request) is None:
            body.close()
            return
        try:
            put_head(request, plan.status, plan.headers)
        except BaseException:
            body.close()
            raise
        if plan.length_bytes is not None:
            request.responseHeaders.setRawHeaders(b"Content-Length", [b"%d" % plan.length_bytes])
        sink = RequestSink(request, partial(_sorry, visit=visit, around=around))
        reader = Reader(body, plan.start, plan.stop, sink, self._clock, self._stall_s)
        # Its transport tells the Reader too; not every transport does.
        request.notifyFinish().addErrback(lambda _: reader.stopProducing())
        self._metrics.readers.inc()
        reader.done.addCallback(self._over).addCallback(visit.end)
        reader.start()

    def _over(self, how: str) -> str:
        """Count a body less."""
        self._metrics.readers.dec()
        return how


@implementer(IFollower)
@define(eq=False)
class _UntilKnown:
    """Waits for a body's length or its loss."""

    _body: IBody
    offset_bytes: int = 0
    known: Deferred[int] = field(factory=Deferred, init=False)

    def advanced(self) -> None:
        """Look whether it is known now; bytes beyond all others tell whether more can come."""
        if self.known.called:
            return
        try:
            size_bytes = self._body.size_bytes
            if size_bytes is None:
                self._body.read_at(_BEYOND_ALL, 1)
            else:
                self.known.callback(size_bytes)
        except BodyLost:
            self.known.errback(Failure())


def _took_too_long(_result: object, _timeout_s: float) -> int:
    """Say that the body's length did not come."""
    raise BodyLost("the upstream did not say how long the content is")


def _head_only(plan: Plan) -> Reply:
    """Answer a HEAD."""
    return Reply(plan.status, plan.headers, b"", plan.length_bytes)


def _sorry(request: Request, visit: Visit, around: Circumstances) -> None:
    """Answer in place of a body of which nothing has been sent yet."""
    for name, _ in list(request.responseHeaders.getAllRawHeaders()):
        if name not in (b"Date", b"Connection", REQUEST_ID_FIELD):
            request.responseHeaders.removeHeader(name)
    lost = content_lost()
    visit.fails(str(lost))
    send_reply(request, error_reply(lost, evolve(around, cache_status=ERROR)))
