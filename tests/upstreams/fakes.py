"""A network in memory: what is asked is listed, what is answered is scripted."""

from __future__ import annotations

import json
from collections.abc import Callable
from urllib.parse import parse_qs, urlsplit

from attrs import define, field
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IProtocol
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IResponse
from zope.interface import implementer

from tests.doubles import InlineWorkers
from txociproxy.interfaces import Pull
from txociproxy.oci.accept import EVERYTHING
from txociproxy.oci.names import Digest, Repository, Tag
from txociproxy.upstreams.connecting.agents import Line
from txociproxy.upstreams.connecting.telling import Telling
from txociproxy.upstreams.connecting.wire import Slots, Wire
from txociproxy.upstreams.entries.entry import Entry
from txociproxy.upstreams.entries.table import LiveTable, UpstreamTable
from txociproxy.upstreams.logins.accounts import Login, LoginSource
from txociproxy.upstreams.registry import Upstreams
from txociproxy.upstreams.tokens import Tokens
from txociproxy.upstreams.upstream import Upstream

URL = "https://registry.example.com"
NAMESPACE = "registry.example.com"
REALM = "https://auth.example.com/token"
BLOB = Digest("sha256", "a" * 64)
LOGIN = Login("robot", "our password")


@implementer(IResponse)
@define(eq=False, repr=False)
class FakeResponse:
    """An answer whose body comes when the test says so, or at once; prints nothing of itself, as a real one."""

    code: int
    body: bytes = b""
    headers: Headers = field(factory=Headers)
    open_ended: bool = False
    version: tuple[bytes, int, int] = (b"HTTP", 1, 1)
    phrase: bytes = b""
    length: int | str = field(init=False)
    request: object = None
    previousResponse: IResponse | None = None
    protocol: IProtocol | None = field(init=False, default=None)
    closed: bool = field(init=False, default=False)

    def __attrs_post_init__(self) -> None:
        self.length = "twisted.web.iweb.UNKNOWN_LENGTH" if self.open_ended else len(self.body)

    def deliverBody(self, protocol: IProtocol) -> None:
        """Deliver what is there, and end unless open."""
        self.protocol = protocol
        protocol.makeConnection(self)  # type: ignore[arg-type]  # as a real body, only a producer
        if self.body:
            protocol.dataReceived(self.body)
        if not self.open_ended:
            protocol.connectionLost(Failure(ResponseDone()))

    def setPreviousResponse(self, response: IResponse) -> None:
        """Not of interest."""

    def loseConnection(self) -> None:
        """Note that the body was closed."""
        self.closed = True


def answer(code: int, body: bytes = b"", /, *, open_ended: bool = False, **fields: str) -> FakeResponse:
    """Return an answer; ``www_authenticate="..."`` becomes a header field."""
    headers = Headers({name.replace("_", "-").encode(): [value.encode()] for name, value in fields.items()})
    return FakeResponse(code, body, headers, open_ended)


Answer = FakeResponse | Exception | Deferred[IResponse]
Handler = Callable[[str, str, Headers], Answer]


@implementer(IAgent)
@define(eq=False, repr=False)
class FakeNet:
    """An agent that asks a function, and lists what it was asked: (method, URL, Authorization or None)."""

    handler: Handler
    asked: list[tuple[str, str, str | None]] = field(init=False, factory=list)
    answered: list[FakeResponse] = field(init=False, factory=list)

    def request(
        self, method: bytes, uri: bytes, headers: Headers | None = None, bodyProducer: IBodyProducer | None = None
    ) -> Deferred[IResponse]:
        """Answer as the handler says."""
        headers = headers or Headers()
        authorization = headers.getRawHeaders("authorization", [None])[0]
        self.asked.append((method.decode(), uri.decode(), authorization))
        result = self.handler(method.decode(), uri.decode(), headers)
        if isinstance(result, Deferred):
            return result
        if isinstance(result, Exception):
            return fail(result)
        self.answered.append(result)
        if method == b"HEAD":
            result.body, result.length = b"", 0
        return succeed(result)


@define(eq=False)
class TokenRegistry:
    """A registry that wants a token for everything, and the token server beside it.

    :ivar good: tokens that the registry takes.
    """

    challenge: str = f'Bearer realm="{REALM}",service="reg",scope="repository:user/image:pull"'
    good: set[str] = field(factory=set)
    issued: int = 0
    token_answer: Callable[[str], Answer] | None = None
    content: Callable[[str, str, Headers], Answer] = lambda method, url, headers: answer(200, b"content")

    def __call__(self, method: str, url: str, headers: Headers) -> Answer:
        """Answer as one of the two."""
        if url.startswith(REALM):
            return self._token(url)
        authorization = headers.getRawHeaders("authorization", [""])[0]
        if authorization.removeprefix("Bearer ") not in self.good:
            return answer(401, b'{"errors":[]}', www_authenticate=self.challenge)
        return self.content(method, url, headers)

    def _token(self, url: str) -> Answer:
        if self.token_answer is not None:
            return self.token_answer(url)
        self.issued += 1
        scope = parse_qs(urlsplit(url).query)["scope"][0]
        token = f"{scope}#{self.issued}"
        self.good.add(token)
        return answer(200, json.dumps({"token": token}).encode())


def pull_of(reference: Digest | Tag = BLOB, repository: str = "team/app") -> Pull:
    """Return a wish for a blob, or for a manifest by tag."""
    kind = "manifest" if isinstance(reference, Tag) else "blob"
    return Pull(NAMESPACE, Repository(repository), reference, kind, EVERYTHING)  # type: ignore[arg-type]


def token_url(repository: str = "team/app") -> str:
    """Return the URL at which the token for a repository is asked."""
    return f"{REALM}?service=reg&scope=repository%3A{repository.replace('/', '%2F')}%3Apull"


def upstream_on(net: FakeNet, clock: Clock, entry: Entry | None = None, logins: LoginSource | None = None) -> Upstream:
    """Return an upstream over a network in memory.

    :param logins: where our own login for it comes from, if we have one.
    """
    entry = Entry(NAMESPACE, (URL,)) if entry is None else entry
    return Upstream(entry, wire_on(net, clock), Tokens(clock), clock, logins)


def upstreams_on(net: FakeNet, clock: Clock, entry: Entry | None = None) -> Upstreams:
    """Return a table of one upstream over a network in memory."""
    entry = Entry(NAMESPACE, (URL,)) if entry is None else entry
    return Upstreams(clock, LiveTable(UpstreamTable((entry,), NAMESPACE)), InlineWorkers(), lambda _: Line(net))


def wire_on(net: FakeNet, clock: Clock, max_connections: int = 4, telling: Telling | None = None) -> Wire:
    """Return a wire over a network in memory."""
    return Wire(net, clock, "tests/1", Slots.of(max_connections), telling or Telling(NAMESPACE))


@define(eq=False)
class FakeLogins:
    """Our own login, and what was said about it.

    :ivar failure: raised in place of giving it.
    """

    current: Login = LOGIN
    failure: Exception | None = None
    asked: int = field(init=False, default=0)
    refusals: list[Login] = field(init=False, factory=list)

    async def login(self) -> Login:
        """Give it."""
        self.asked += 1
        if self.failure is not None:
            raise self.failure
        return self.current

    def refused(self, login: Login) -> None:
        """Remember it."""
        self.refusals.append(login)

    def stop(self) -> None:
        """Nothing runs."""
