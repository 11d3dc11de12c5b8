"""How an answer gets into a request's connection, and how a body ends that must not look whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from attrs import define, frozen
from twisted.internet.interfaces import IPushProducer
from twisted.web.server import Request
from zope.interface import implementer

from txociproxy.bodies.reader import IFileTransport
from txociproxy.interfaces import HeaderList
from txociproxy.oci.errors import reason_phrase
from txociproxy.web.channel import Channel
from txociproxy.web.http2.stream import Stream


@frozen
class Reply:
    """A whole answer, its body in memory.

    :ivar length_bytes: what Content-Length says; None leaves the field out, which only a HEAD's answer may do.
    :ivar closes: the connection ends after it.
    """

    status: int
    headers: HeaderList
    body: bytes = b""
    length_bytes: int | None = None
    closes: bool = False


def put_head(request: Request, status: int, headers: HeaderList) -> None:
    """Set status and fields; they leave with the first byte of the body, or when it ends."""
    request.setResponseCode(status, reason_phrase(status).encode("ascii"))
    for name, value in headers:
        request.responseHeaders.addRawHeader(name.encode("latin-1"), value.encode("latin-1"))


def send_reply(request: Request, reply: Reply) -> None:
    """Send a whole answer, unless the client has gone."""
    if channel_of(request) is None:
        return
    put_head(request, reply.status, reply.headers)
    if reply.length_bytes is not None:
        request.responseHeaders.setRawHeaders(b"Content-Length", [b"%d" % reply.length_bytes])
    if reply.closes:
        close_after(request)
    if request.method != b"HEAD" and reply.body:
        request.write(reply.body)
    request.finish()


def close_after(request: Request) -> None:
    """Let no other request follow on this connection; one of HTTP/2 has requests side by side, and goes on."""
    request.responseHeaders.setRawHeaders(b"Connection", [b"close"])
    channel = channel_of(request)
    if hasattr(channel, "persistent"):
        channel.persistent = False


def channel_of(request: Request) -> Any:
    """Return the request's connection, or None when it is over; Twisted deletes the attribute."""
    return getattr(request, "channel", None)


def cut(request: Request) -> None:
    """End a body so that no client takes it for whole.

    HTTP/1.1: a close in the middle is an error, with a length and with chunks alike.  HTTP/1.0 without a length:
    a close is the *good* end, so that only a reset tells.  HTTP/2: a reset with an error's code, of this stream alone.
    """
    channel = channel_of(request)
    if channel is None:
        return
    if request.clientproto == b"HTTP/1.0" and not request.responseHeaders.hasHeader(b"Content-Length"):
        channel.transport.abortConnection()
    elif isinstance(channel, Channel | Stream):
        channel.cut_short()
    else:
        request.loseConnection()


@define(eq=False)
class RequestSink:
    """Where a Reader writes to: the response of one request.

    Status and fields wait for the first byte: a body whose verdict is bad before that is answered with an error.

    :ivar _instead: answers a request of which nothing has been sent yet.
    """

    _request: Request
    _instead: Callable[[Request], None]
    file_transport: IFileTransport | None = None

    def __attrs_post_init__(self) -> None:
        transport = getattr(channel_of(self._request), "transport", None)
        # A wrapper such as TLS may pass on the interface of what it wraps; no file goes past it.
        plain = IFileTransport.providedBy(transport) and not self._request.isSecure()
        if plain and self._request.responseHeaders.hasHeader(b"Content-Length"):
            self.file_transport = _CountingFiles(self._request, cast(IFileTransport, transport))

    def write(self, data: bytes) -> None:
        """Send bytes."""
        self._request.write(data)

    def registerProducer(self, producer: IPushProducer, streaming: bool) -> None:
        """Begin to pause and resume."""
        if channel_of(self._request) is not None:
            self._request.registerProducer(producer, streaming)

    def unregisterProducer(self) -> None:
        """Stop to pause and resume."""
        if channel_of(self._request) is not None:
            self._request.unregisterProducer()

    def finish(self) -> None:
        """The body is whole."""
        if channel_of(self._request) is not None:
            self._request.finish()

    def cut(self) -> None:
        """The body ends short, visibly."""
        if channel_of(self._request) is not None and not self._request.startedWriting:
            self._instead(self._request)
        else:
            cut(self._request)


@implementer(IFileTransport)
@define(eq=False)
class _CountingFiles:
    """Sends files behind the head of a response and counts their bytes as the response's."""

    _request: Request
    _transport: IFileTransport

    def send_file(self, fd: int, offset: int, count: int) -> int:
        """See :meth:`IFileTransport.send_file`."""
        if not self._request.startedWriting:
            self._request.write(b"")
        sent_bytes = self._transport.send_file(fd, offset, count)
        self._request.sentLength += sent_bytes
        return sent_bytes

    def when_writable(self, callback: Callable[[], None] | None) -> None:
        """See :meth:`IFileTransport.when_writable`."""
        self._transport.when_writable(callback)
