"""A way through an outbound proxy: CONNECT, and then whatever is spoken at its other end (RFC 9110 §9.3.6)."""

from __future__ import annotations

import re
from typing import Any, cast

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from txociproxy.oci.errors import UpstreamUnreachable
from txociproxy.upstreams.connecting.failures import words
from txociproxy.upstreams.connecting.proxies import Proxy
from txociproxy.upstreams.origins import Origin

MAX_HEAD_BYTES = 16 * 1024
_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})(?: [^\r\n]*)?\r?\n")
_END = re.compile(rb"\r?\n\r?\n")


class _Asking(Protocol):
    """Asks for a tunnel, and steps aside when there is one."""

    def __init__(self, request: bytes, done: Deferred[tuple[Any, bytes]]) -> None:
        self._request = request
        self._done: Deferred[tuple[Any, bytes]] | None = done
        self._head = b""

    def connectionMade(self) -> None:
        """Ask."""
        cast(Any, self.transport).write(self._request)

    def dataReceived(self, data: bytes) -> None:
        """Wait for the end of the answer's head; what comes after it is the tunnel's."""
        self._head += data
        end = _END.search(self._head, 0, MAX_HEAD_BYTES)
        if end is None:
            if len(self._head) >= MAX_HEAD_BYTES:
                self.refuse("sent more than an answer")
            return
        status = _STATUS.match(self._head)
        if status is None:
            self.refuse("sent something that is not HTTP")
        elif not status[1].startswith(b"2"):
            self.refuse(_refusal(int(status[1])))
        elif self._done is not None:
            done, self._done = self._done, None
            done.callback((self.transport, self._head[end.end() :]))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """It ended before there was a tunnel."""
        self.refuse("closed the connection before an answer")

    def refuse(self, text: str, timed_out: bool = False) -> None:
        """End without a tunnel."""
        if self._done is not None:
            done, self._done = self._done, None
            if self.transport is not None:
                cast(Any, self.transport).abortConnection()
            done.errback(UpstreamUnreachable(text, timed_out))


def _refusal(status: int) -> str:
    match status:
        case 407:
            return "wants other credentials (407)"
        case 403:
            return "does not allow it (403)"
        case _:
            return f"answered {status}"


class _AskingFactory(Factory):
    """Makes one :class:`_Asking`."""

    noisy = False

    def __init__(self, asking: _Asking) -> None:
        self._asking = asking

    def buildProtocol(self, addr: IAddress | None) -> _Asking:
        """Return it."""
        return self._asking


@implementer(IStreamClientEndpoint)
@define(eq=False)
class Tunnel:
    """TCP to an origin, through a proxy; who resolves its name is the proxy.

    :param way: to the proxy.
    :param timeout_s: for all of it: connection, question and answer.
    :param read_bytes: how much is read at a time.
    """

    _way: IStreamClientEndpoint
    _proxy: Proxy
    _origin: Origin
    _clock: IReactorTime
    _timeout_s: float
    _read_bytes: int

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Connect; every failure is an UpstreamUnreachable that names the proxy."""
        dialing = _Dialing(self, protocolFactory)
        return dialing.begin(self._way, _request(self._origin, self._proxy), self._clock, self._timeout_s)

    def failed(self, error: BaseException | None) -> UpstreamUnreachable:
        """Return what a failure means."""
        known = isinstance(error, UpstreamUnreachable)
        text = words(error) if error is not None and not known else str(error)
        timed_out = bool(getattr(error, "timed_out", False))
        return UpstreamUnreachable(f"{self._origin}: the outbound proxy {self._proxy}: {text}", timed_out)

    def opened(self, protocolFactory: IProtocolFactory, transport: Any, rest: bytes) -> IProtocol:
        """Give a tunnel to the protocol that will speak through it."""
        protocol = protocolFactory.buildProtocol(transport.getPeer())
        if protocol is None:
            transport.abortConnection()
            raise UpstreamUnreachable("nobody speaks through it")
        transport.bufferSize = self._read_bytes
        transport.protocol = protocol
        protocol.makeConnection(transport)
        if rest:
            protocol.dataReceived(rest)
        return protocol


@define(eq=False)
class _Dialing:
    """One tunnel on its way; who cancels it ends the connection."""

    _tunnel: Tunnel
    _factory: IProtocolFactory
    _asking: _Asking = field(init=False)
    _connecting: Deferred[IProtocol] = field(init=False)
    _timer: IDelayedCall = field(init=False)
    _result: Deferred[IProtocol] = field(init=False)
    _is_over: bool = field(init=False, default=False)

    def begin(
        self, way: IStreamClientEndpoint, request: bytes, clock: IReactorTime, timeout_s: float
    ) -> Deferred[IProtocol]:
        """Connect, ask, hand over."""
        answered: Deferred[tuple[Any, bytes]] = Deferred()
        answered.addCallbacks(self._succeed, self._fail)
        self._asking = _Asking(request, answered)
        self._result = Deferred(self._abandon)
        self._timer = clock.callLater(timeout_s, self._expire)
        self._connecting = way.connect(_AskingFactory(self._asking))
        self._connecting.addErrback(self._fail)
        return self._result

    def _succeed(self, opened: tuple[Any, bytes]) -> None:
        self._end()
        try:
            protocol = self._tunnel.opened(self._factory, *opened)
        except Exception as error:
            self._result.errback(self._tunnel.failed(error))
        else:
            self._result.callback(protocol)

    def _fail(self, failure: Failure) -> None:
        if not self._is_over:
            self._end()
            self._result.errback(self._tunnel.failed(failure.value))

    def _expire(self) -> None:
        self._abandon(None)
        self._result.errback(self._tunnel.failed(UpstreamUnreachable("did not answer in time", timed_out=True)))

    def _abandon(self, _: object) -> None:
        self._end()
        self._connecting.cancel()
        self._asking.refuse("is not waited for")

    def _end(self) -> None:
        self._is_over = True
        if self._timer.active():
            self._timer.cancel()


def _request(origin: Origin, proxy: Proxy) -> bytes:
    host = f"[{origin.host}]" if ":" in origin.host else origin.host
    lines = [f"CONNECT {host}:{origin.port} HTTP/1.1", f"Host: {host}:{origin.port}"]
    if proxy.authorization is not None:
        lines.append(f"Proxy-Authorization: {proxy.authorization}")
    return "\r\n".join([*lines, "", ""]).encode("ascii")
