"""Connections in memory for the tests of this room."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal, cast

import treq
from attrs import define, evolve, field, frozen
from treq.testing import RequestTraversalAgent, _SynchronousProducer
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IAddress, ITCPTransport
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.web.http_headers import Headers
from twisted.web.iweb import UNKNOWN_LENGTH, IResponse
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request
from zope.interface import implementer

from txociproxy.bodies.lending import MemoryBody
from txociproxy.envelopes import Envelopes
from txociproxy.interfaces import Ask, Credentials, Exchanged, Redirect, Relay, Serve
from txociproxy.oci.names import Descriptor, Digest, Repository
from txociproxy.upstreams.entries.table import Entry, LiveTable, UpstreamTable, shipped_entries
from txociproxy.web.channel import Channel
from txociproxy.web.making import make_root
from txociproxy.web.settings import WebSettings
from txociproxy.web.site import Census, DoorLimits, DoorSite, DoorTimes
from txociproxy.web.switch import Switch

if TYPE_CHECKING:
    from txociproxy.cache import Cache


@implementer(ITCPTransport)
class Wire(StringTransport):  # type: ignore[misc]
    """A TCP connection in memory that remembers how it was closed."""

    half_closed = False

    def loseWriteConnection(self) -> None:
        """Half close; a real one waits for ever while somebody promises more."""
        self.half_closed = self.producer is None

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Nothing waits here."""


class Echo(Resource):
    """Answers every request with its method and target, and remembers them."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[bytes, bytes]] = []
        self.bodies: list[bytes] = []
        self.waits = False

    def render(self, request: Request) -> bytes | int:
        """Answer at once, or leave it to the test."""
        self.seen.append((request.method, request.uri))
        assert request.content is not None
        self.bodies.append(request.content.read())
        return NOT_DONE_YET if self.waits else b"ok"


class Line:
    """One client's connection to a site in memory."""

    def __init__(
        self,
        limits: DoorLimits | None = None,
        site: DoorSite | None = None,
        peer: IAddress | None = None,
        times: DoorTimes | None = None,
    ) -> None:
        self.clock = Clock()
        self.root = Echo()
        self.site = site or DoorSite(self.root, self.clock, Census(limits or DoorLimits()), times=times)
        self.wire = Wire(peerAddress=peer or client("192.0.2.1"))
        door = self.site.buildProtocol(self.wire.getPeer())
        assert isinstance(door, Switch)
        self.door = door
        self.door.makeConnection(self.wire)

    def send(self, data: bytes) -> bytes:
        """Send bytes in one piece and return all that was answered so far."""
        self.door.dataReceived(data)
        return bytes(self.wire.value())

    def hang_up(self) -> None:
        """The client closes."""
        self.door.connectionLost(Failure(ConnectionDone()))

    @property
    def channel(self) -> Channel:
        """What speaks HTTP/1.1, once the first bytes have come."""
        assert isinstance(self.door.spoken, Channel)
        return self.door.spoken

    @property
    def status(self) -> int:
        """The status of the first answer."""
        return int(self.wire.value().split(b" ", 2)[1])


def client(host: str) -> IAddress:
    """Return a client's address."""
    return IPv4Address("TCP", host, 5000)


KEY = b"k" * 32


@define(eq=False)
class FakeCache:
    """Answers what it is told, and remembers what it was asked.

    :ivar pinged_as: in whose name, beside each of ``pings``.
    :ivar granted: what an exchange gives; a Deferred is waited for.
    :ivar exchanges: (namespace, repositories, what the client showed).
    """

    verdict: Serve | Relay | Redirect | Exception | None = None
    asked: list[Ask] = field(factory=list)
    pings: list[str] = field(factory=list)
    pinged_as: list[Credentials] = field(factory=list)
    granted: Exchanged | Relay | Exception | Deferred[Exchanged | Relay] = field(
        factory=lambda: Exchanged("Bearer upstream")
    )
    exchanges: list[tuple[str, tuple[str, ...], str]] = field(factory=list)
    listings: list[tuple[str, str, str, str, str]] = field(factory=list)
    listed_as: list[Credentials] = field(factory=list)
    waiting: Deferred[Serve | Relay | Redirect] | None = None

    async def pull(self, ask: Ask) -> Serve | Relay | Redirect:
        """Answer a pull."""
        self.asked.append(ask)
        if self.waiting is not None:
            return await self.waiting
        return self._verdict()

    async def ping(self, namespace: str, credentials: Credentials) -> Relay:
        """Answer a ping."""
        self.pings.append(namespace)
        self.pinged_as.append(credentials)
        return cast(Relay, self._verdict())

    async def exchange(
        self, namespace: str, repositories: tuple[Repository, ...], authorization: str
    ) -> Exchanged | Relay:
        """Answer at the token endpoint."""
        self.exchanges.append((namespace, tuple(map(str, repositories)), authorization))
        if isinstance(self.granted, Exception):
            raise self.granted
        return await self.granted if isinstance(self.granted, Deferred) else self.granted

    async def listing(
        self, namespace: str, repository: object, path: str, query: str, credentials: Credentials, accept: str
    ) -> Relay:
        """Answer a listing."""
        self.listings.append((namespace, str(repository), path, query, accept))
        self.listed_as.append(credentials)
        return cast(Relay, self._verdict())

    def _verdict(self) -> Serve | Relay | Redirect:
        if isinstance(self.verdict, Exception):
            raise self.verdict
        assert self.verdict is not None
        return self.verdict


@frozen
class Answer:
    """What a client got."""

    status: int
    headers: Headers
    body: bytes

    def get(self, name: str) -> str | None:
        """Return a field that stands there at most once."""
        lines = self.headers.getRawHeaders(name, [])
        assert len(lines) < 2, lines
        return lines[0] if lines else None

    def error(self) -> str:
        """Return the code of an error in the form of the spec."""
        assert self.get("Content-Type") == "application/json"
        return str(json.loads(self.body)["errors"][0]["code"])


class Registry:
    """The real resource tree over a cache that is told what to say, asked in memory."""

    def __init__(
        self,
        *entries: Entry,
        default: str = "docker.io",
        unlisted: Literal["public", "deny"] = "deny",
        **settings: Any,
    ) -> None:
        self.clock = Clock()
        self.clock.advance(1_800_000_000)
        self.cache = FakeCache()
        self.envelopes = Envelopes(KEY, self.clock.seconds)
        self.table = LiveTable(UpstreamTable(entries or shipped_entries(), default, unlisted))
        cache = cast("Cache", self.cache)
        self.root = make_root(self.clock, cache, self.table, self.envelopes, WebSettings(**settings))
        self.agent = RequestTraversalAgent(self.root)

    def ask(self, method: str, path: str, *fields: tuple[str, str], body: bytes | None = None) -> Answer:
        """Ask and return the whole answer."""
        return self.answer_of(self.begin(method, path, *fields, body=body), method)

    def begin(self, method: str, path: str, *fields: tuple[str, str], body: bytes | None = None) -> Deferred[IResponse]:
        """Ask, and wait for nothing."""
        headers = Headers()
        for name, value in fields:
            headers.addRawHeader(name, value)
        host = (headers.getRawHeaders("Host") or ["cache.example:8080"])[0]
        headers.removeHeader("Host")
        producer = None if body is None else _SynchronousProducer(body)
        asked = self.agent.request(method.encode(), f"http://{host}{path}".encode(), headers, producer)
        self.agent.flush()
        return cast("Deferred[IResponse]", asked)

    def answer_of(self, asked: Deferred[IResponse], method: str = "GET") -> Answer:
        """Return the whole answer to what was asked."""
        self.agent.flush()
        self.clock.advance(0)
        response = result_of(asked)
        # The client's parser takes it out of the fields.
        if response.length is not UNKNOWN_LENGTH and method != "HEAD":
            response.headers.setRawHeaders("Content-Length", [str(response.length)])
        content: Deferred[bytes] = treq.content(response)
        self.agent.flush()
        return Answer(response.code, response.headers, result_of(content))

    def get(self, path: str, *fields: tuple[str, str]) -> Answer:
        """GET."""
        return self.ask("GET", path, *fields)


def result_of(deferred: Deferred[Any]) -> Any:
    """Return what a Deferred has, or raise its failure."""
    results: list[Any] = []
    deferred.addBoth(results.append)
    assert results, "nothing came"
    if isinstance(results[0], Failure):
        results[0].raiseException()
    return results[0]


def serve(data: bytes, media_type: str = "application/octet-stream", **changes: Any) -> Serve:
    """Return content as the cache gives it, all of it here."""
    descriptor = Descriptor(Digest.of(data), len(data), media_type)
    whole = Serve(descriptor, (), MemoryBody(data, promised=1), "hit", "public, max-age=31536000, immutable")
    return evolve(whole, **changes)
