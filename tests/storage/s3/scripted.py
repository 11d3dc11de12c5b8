"""An S3 in memory behind an agent: its answers come at once, when the test says so, or never."""

from __future__ import annotations

from collections.abc import Callable
from email.utils import formatdate
from urllib.parse import unquote, urlsplit

from attrs import define, field, frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.web.client import ResponseFailed
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IResponse
from zope.interface import implementer

from tests.doubles import FakeResponse
from txociproxy.interfaces import HeaderList
from txociproxy.oci.names import Digest
from txociproxy.oci.ranges import parse_range
from txociproxy.storage.layout import Sidecar
from txociproxy.storage.s3.finding import Objects
from txociproxy.storage.s3.gate import Gate
from txociproxy.storage.s3.keys import Keys
from txociproxy.storage.s3.reading import Reads
from txociproxy.storage.s3.settings import S3Settings
from txociproxy.storage.s3.signing import Base, Identity, Signer
from txociproxy.storage.s3.trouble import S3Trouble

NOW_S = 1_800_000_000.0
PATIENCE_S = 2.0
DIGEST = Digest.of(b"content")
UNREACHABLE = S3Trouble("unreachable", "Timeout", "a request")
REFUSED = S3Trouble("refused", "AccessDenied", "a request")
FAILING = S3Trouble("failing", "SlowDown", "a request")


@frozen
class Stored:
    """An object.

    :ivar written_s: by the server's clock.
    """

    data: bytes
    written_s: float
    fields: dict[str, str] = field(factory=dict)


@frozen
class Asked:
    """A request."""

    method: str
    key: str
    url: str = field(repr=False)
    headers: Headers

    def __str__(self) -> str:
        return f"{self.method} {self.key}"


Answer = FakeResponse | Exception | None
Script = Callable[[Asked], Answer]


@implementer(IAgent)
@define(eq=False, repr=False)
class ScriptedS3:
    """A bucket and the agent that leads to it.

    :ivar server_ahead_s: by how much its clock differs from ours.
    :ivar scripts: what is answered in place of the truth, by ``"METHOD key"`` or by ``"METHOD"``; None hangs.
    :ivar is_manual: answers wait for :meth:`answer`; they tell what is true when they come.
    :ivar asked: all requests in order.
    :ivar cancelled: those that were given up, as text.
    """

    clock: Clock
    server_ahead_s: float = 0.0
    objects: dict[str, Stored] = field(factory=dict)
    scripts: dict[str, Script] = field(factory=dict)
    is_manual: bool = False
    asked: list[Asked] = field(factory=list)
    cancelled: list[str] = field(factory=list)
    waiting: list[tuple[Asked, Deferred[IResponse]]] = field(factory=list)
    answers: list[FakeResponse] = field(factory=list)

    def request(
        self, method: bytes, uri: bytes, headers: Headers | None = None, bodyProducer: IBodyProducer | None = None
    ) -> Deferred[IResponse]:
        """Take a request."""
        assert bodyProducer is None
        url = uri.decode("ascii")
        key = unquote(urlsplit(url).path).removeprefix("/bucket/")
        asked = Asked(method.decode("ascii"), key, url, headers or Headers())
        self.asked.append(asked)
        waiter: Deferred[IResponse] = Deferred(lambda waiter: self._cancel(asked, waiter))
        self.waiting.append((asked, waiter))
        if not self.is_manual:
            self.answer(str(asked))
        return waiter

    @property
    def seen(self) -> list[str]:
        """The requests as text."""
        return [str(asked) for asked in self.asked]

    @property
    def open(self) -> list[str]:
        """The requests that wait for their answer, as text."""
        return [str(asked) for asked, _ in self.waiting]

    def answer(self, what: str) -> None:
        """Answer the last request of that text that waits, as things are now."""
        index = max(index for index, (asked, _) in enumerate(self.waiting) if str(asked) == what)
        asked, waiter = self.waiting[index]
        script = self.scripts.get(str(asked), self.scripts.get(asked.method, self._truth))
        answer = script(asked)
        if answer is None:
            return
        del self.waiting[index]
        if isinstance(answer, Exception):
            waiter.errback(answer)
            return
        self.answers.append(answer)
        waiter.callback(answer)

    def answer_all(self) -> None:
        """Answer all that wait, and what they lead to."""
        while self.waiting:
            self.answer(self.open[0])

    def put(self, key: str, data: bytes, age_s: float = 0.0, fields: dict[str, str] | None = None) -> None:
        """Write an object; these fields come with it."""
        self.objects[key] = Stored(data, self._server_s() - age_s, fields or {})

    def _server_s(self) -> float:
        return NOW_S + self.clock.seconds() + self.server_ahead_s

    def _cancel(self, asked: Asked, waiter: Deferred[IResponse]) -> None:
        self.cancelled.append(str(asked))
        self.waiting = [(one, other) for one, other in self.waiting if other is not waiter]
        waiter.errback(ResponseFailed([Failure(CancelledError())]))  # as the real one does

    def _truth(self, asked: Asked) -> FakeResponse:
        stored = self.objects.get(asked.key)
        if stored is None:
            return refused(404, "NoSuchKey", asked.method)
        fields = {
            "Date": formatdate(self._server_s(), usegmt=True),
            "Last-Modified": formatdate(stored.written_s, usegmt=True),
            "ETag": '"etag"',
            **stored.fields,
        }
        if asked.method == "HEAD":
            return FakeResponse(200, {**fields, "Content-Length": str(len(stored.data))}, b"", 0)
        spec = parse_range(next(iter(asked.headers.getRawHeaders("Range") or ()), None))
        if spec is None:
            return FakeResponse(200, fields, stored.data, len(stored.data))
        part = spec.resolve(len(stored.data))
        if part is None:
            return refused(416, "InvalidRange")
        data = stored.data[part.start : part.stop]
        return FakeResponse(206, {**fields, "Content-Range": part.content_range()}, data, len(data))


def refused(status: int, code: str = "", method: str = "GET") -> FakeResponse:
    """Return S3's way to say no; HEAD says it without words."""
    body = b"" if method == "HEAD" else f"<?xml?><Error><Code>{code}</Code><Resource/></Error>".encode()
    return FakeResponse(status, {"Content-Type": "application/xml"}, body, len(body))


@define(eq=False, repr=False)
class Reading:
    """All that reads from a bucket in memory."""

    settings: S3Settings = field(factory=lambda: S3Settings(prefix="p", patience_s=PATIENCE_S))
    clock: Clock = field(factory=Clock)
    s3: ScriptedS3 = field(init=False)
    gate: Gate = field(init=False)
    signer: Signer = field(init=False)
    reads: Reads = field(init=False)
    objects: Objects = field(init=False)
    keys: Keys = field(init=False)
    renewals: list[tuple[Digest, bool]] = field(init=False, factory=list)
    identity: Identity = field(factory=lambda: Identity("AKID", "secret", "token"))

    def __attrs_post_init__(self) -> None:
        self.s3 = ScriptedS3(self.clock)
        self.gate = Gate(self.clock, "the bucket")
        bases = Base.of("http://s3.test/bucket"), Base.of("https://public.test/bucket")
        self.signer = Signer(lambda: self.identity, "us-east-1", *bases)
        self.reads = Reads(self.s3, self.signer, self.gate, self.clock, self.now_s, self.settings.patience_s)
        self.keys = Keys(self.settings.prefix)
        self.objects = Objects(
            self.reads,
            self.keys,
            self.signer,
            self.settings,
            self.clock,
            self.now_s,
            lambda digest, held: self.renewals.append((digest, held)),
        )

    def now_s(self) -> float:
        """Seconds since the epoch."""
        return NOW_S + self.clock.seconds()

    def publish(
        self,
        data: bytes = b"content",
        held: tuple[str, ...] | None = None,
        headers: HeaderList = (("X-Origin", "west"),),
        digest: Digest = DIGEST,
        age_s: float = 0.0,
    ) -> None:
        """Write content with what is said of it."""
        sidecar = Sidecar("text/plain", len(data), "docker.io", headers, held, 5.0)
        self.s3.put(self.keys.sidecar(digest, held is not None), sidecar.to_json(digest), age_s)
        self.s3.put(self.keys.content(digest, held is not None), data, age_s)
