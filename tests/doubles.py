"""Doubles that keep the contract of what they stand for, and give the test the say over time and order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from attrs import define, field
from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed
from twisted.internet.interfaces import IProtocol, IPushProducer
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone, ResponseFailed
from twisted.web.http_headers import Headers
from twisted.web.iweb import UNKNOWN_LENGTH, IResponse
from zope.interface import implementer

from txociproxy.interfaces import Credentials, Exchanged, IUpstream, IWorkers, Pull, Relay
from txociproxy.oci.errors import UpstreamUnreachable
from txociproxy.oci.names import Repository
from txociproxy.upstreams.entries.entry import Entry


@implementer(IWorkers)
@define(eq=False)
class InlineWorkers:
    """Workers that work at once."""

    is_stuck: bool = False

    def run(self, function: Callable[..., Any], *args: Any) -> Deferred[Any]:
        """Call now."""
        return maybeDeferred(function, *args)

    def stuck(self, limit_s: float) -> bool:
        """Whatever the test says."""
        return self.is_stuck


@implementer(IWorkers)
@define(eq=False)
class ManualWorkers:
    """Workers whose jobs wait until the test runs them, in order."""

    jobs: list[tuple[Deferred[Any], Callable[..., Any], tuple[Any, ...]]] = field(factory=list)
    is_stuck: bool = False

    def run(self, function: Callable[..., Any], *args: Any) -> Deferred[Any]:
        """Take a job."""
        d: Deferred[Any] = Deferred()
        self.jobs.append((d, function, args))
        return d

    def stuck(self, limit_s: float) -> bool:
        """Whatever the test says."""
        return self.is_stuck

    def work(self, count: int | None = None) -> int:
        """Run jobs, also those that come up meanwhile; returns how many."""
        done = 0
        while self.jobs and (count is None or done < count):
            done += 1
            self.do(*self.jobs.pop(0))
        return done

    def do(self, d: Deferred[Any], function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        """Do one job."""
        try:
            result = function(*args)
        except BaseException:
            d.errback(Failure())
        else:
            d.callback(result)


@define(eq=False)
class BodyTransport:
    """What an upstream's body sits on."""

    paused: bool = False
    lost: bool = False

    disconnecting = False

    def pauseProducing(self) -> None:
        """Remember it."""
        self.paused = True

    def resumeProducing(self) -> None:
        """Remember it."""
        self.paused = False

    def stopProducing(self) -> None:
        """Remember it."""
        self.lost = True

    def loseConnection(self) -> None:
        """Remember it."""
        self.lost = True


@implementer(IResponse)
@define(eq=False)
class FakeResponse:
    """An upstream's answer whose body the test sends.

    ``body`` given and ``ends`` true: it is delivered whole at once.  Otherwise the test calls :meth:`send` and
    :meth:`end`.
    """

    code: int = 200
    fields: dict[str, str] = field(factory=dict)
    body: bytes = b""
    length: Any = UNKNOWN_LENGTH
    ends: bool = True
    transport: BodyTransport = field(factory=BodyTransport)
    protocol: IProtocol | None = None
    version: Any = (b"HTTP", 1, 1)
    phrase: bytes = b""
    request: Any = None
    previousResponse: Any = None
    headers: Headers = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.headers = Headers({name: [value] for name, value in self.fields.items()})

    def deliverBody(self, protocol: IProtocol) -> None:
        """Connect the protocol, as Twisted does: the transport is resumed at the end."""
        self.protocol = protocol
        protocol.makeConnection(self.transport)  # type: ignore[arg-type]
        if self.body:
            protocol.dataReceived(self.body)
        self.transport.paused = False
        if self.ends:
            self.end()

    def setPreviousResponse(self, response: IResponse) -> None:
        """Not needed here."""

    def send(self, data: bytes) -> None:
        """Deliver bytes, unless the receiver has hung up."""
        if self.protocol is not None and not self.transport.lost:
            self.protocol.dataReceived(data)

    def end(self, reason: Exception | None = None) -> None:
        """Say goodbye: well, unless an error is given."""
        protocol, self.protocol = self.protocol, None
        if protocol is not None:
            protocol.connectionLost(Failure(reason or ResponseDone()))

    def break_off(self) -> None:
        """Say goodbye as a connection does that is cut in the middle."""
        self.end(ResponseFailed([Failure(ConnectionError("reset"))]))


Script = Callable[["Request"], "FakeResponse | Exception | Deferred[FakeResponse]"]


@define(frozen=True)
class Request:
    """One request that reached the upstream."""

    method: str
    repository: str
    reference: str
    byte_range: str | None = None
    authorization: str | None = None
    own: bool = False
    deadline_s: float | None = field(default=None, eq=False)

    def __str__(self) -> str:
        return f"{self.method} {self.repository} {self.reference}" + (f" {self.byte_range}" if self.byte_range else "")


@implementer(IUpstream)
@define(eq=False)
class FakeUpstream:
    """An upstream whose answers are a function of the test; remembers every request.

    :ivar granted: what an exchange gives, by what the client showed.
    :ivar exchanges: what clients showed, in order.
    """

    namespace: str
    script: Script
    requests: list[Request] = field(factory=list)
    has_own_credentials: bool = False
    can_spare: bool = True
    granted: dict[str, Exchanged | Relay | Exception] = field(factory=dict)
    exchanges: list[tuple[tuple[str, ...], str]] = field(factory=list)

    @property
    def seen(self) -> list[str]:
        """The requests as text."""
        return [str(request) for request in self.requests]

    def get(
        self, pull: Pull, credentials: Credentials, byte_range: str | None, deadline_s: float | None
    ) -> Deferred[IResponse]:
        """GET."""
        return self._answer("GET", pull, credentials, byte_range, deadline_s)

    def head(self, pull: Pull, credentials: Credentials, deadline_s: float | None) -> Deferred[IResponse]:
        """HEAD."""
        return self._answer("HEAD", pull, credentials, None, deadline_s)

    def probe(self, pull: Pull, credentials: Credentials, deadline_s: float | None) -> Deferred[IResponse]:
        """HEAD, as far as can be seen from here."""
        return self._answer("HEAD", pull, credentials, None, deadline_s)

    def exchange(self, repositories: tuple[Repository, ...], authorization: str) -> Deferred[Exchanged | Relay]:
        """Give what the test says; unknown credentials are refused."""
        self.exchanges.append((tuple(map(str, repositories)), authorization))
        answer = self.granted.get(authorization, Relay(401, (), b""))
        return fail(answer) if isinstance(answer, Exception) else succeed(answer)

    def listing(
        self, repository: Repository, path: str, query: str, credentials: Credentials, accept: str
    ) -> Deferred[IResponse]:
        """GET of a list."""
        return self._ask(Request("GET", str(repository), f"{path}?{query}"))

    def ping(self, credentials: Credentials) -> Deferred[IResponse]:
        """GET of the root."""
        return self._ask(Request("GET", "", ""))

    def _answer(
        self, method: str, pull: Pull, credentials: Credentials, byte_range: str | None, deadline_s: float | None
    ) -> Deferred[IResponse]:
        where = (str(pull.repository), str(pull.reference))
        return self._ask(Request(method, *where, byte_range, credentials.authorization, credentials.own, deadline_s))

    def _ask(self, request: Request) -> Deferred[IResponse]:
        self.requests.append(request)
        answer = self.script(request)
        if isinstance(answer, Exception):
            return fail(answer)
        return cast("Deferred[IResponse]", answer if isinstance(answer, Deferred) else succeed(answer))


@define(eq=False)
class FakeRegistry:
    """All upstreams of a test.

    :ivar entries: what is configured about them, where that matters.
    """

    upstreams: dict[str, FakeUpstream] = field(factory=dict)
    entries: dict[str, Entry] = field(factory=dict)

    def upstream(self, namespace: str) -> FakeUpstream | None:
        """Return one."""
        return self.upstreams.get(namespace)

    def entry(self, namespace: str) -> Entry | None:
        """Return what is configured about it."""
        if namespace not in self.upstreams:
            return None
        if namespace in self.entries:
            return self.entries[namespace]
        return Entry(namespace, ("http://upstream.test",), library=namespace == "docker.io")


@define(eq=False)
class FakeSink:
    """One response, as far as a Reader is concerned.

    :ivar capacity_bytes: pauses the producer whenever so much has been written since the last :meth:`drain`; None
        never does.
    """

    capacity_bytes: int | None = None
    written: bytearray = field(factory=bytearray)
    ending: str | None = None
    producer: IPushProducer | None = None
    file_transport: Any = None
    _buffered_bytes: int = 0

    def write(self, data: bytes) -> None:
        """Take bytes."""
        assert self.ending is None
        self.written += data
        self._buffered_bytes += len(data)
        if self.capacity_bytes is not None and self._buffered_bytes >= self.capacity_bytes and self.producer:
            self.producer.pauseProducing()

    def drain(self) -> None:
        """The client has read everything."""
        self._buffered_bytes = 0
        if self.producer is not None:
            self.producer.resumeProducing()

    def leave(self) -> None:
        """The client goes away."""
        producer, self.producer = self.producer, None
        if producer is not None:
            producer.stopProducing()

    def registerProducer(self, producer: IPushProducer, streaming: bool) -> None:
        """Remember the producer."""
        self.producer = producer

    def unregisterProducer(self) -> None:
        """Forget the producer."""
        self.producer = None

    def finish(self) -> None:
        """The body is whole."""
        self.ending = "finished"

    def cut(self) -> None:
        """The body ended short."""
        self.ending = "cut"


def unreachable(_: Request) -> Exception:
    """An upstream that is gone."""
    return UpstreamUnreachable("refused")
