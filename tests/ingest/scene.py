"""A stage for one Ingest: an upstream, a spool, hashers and clients that do what the test says."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable

from attrs import define, field
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IProducer
from twisted.internet.task import Clock
from twisted.web.iweb import UNKNOWN_LENGTH, IResponse
from zope.interface import implementer

from tests.doubles import FakeResponse, FakeSink, InlineWorkers
from txociproxy.bodies.reader import Reader
from txociproxy.ingest.ingest import Ingest
from txociproxy.ingest.limits import IngestLimits, Origin
from txociproxy.interfaces import HeaderList, ISpool, IWorkers
from txociproxy.oci.errors import BodyLost, StorageUnavailable, UpstreamUnreachable
from txociproxy.oci.names import Descriptor, Digest

KIB = 1024
TAIL = 8 * KIB
WINDOW = 64 * KIB
OUTSTANDING = 256 * KIB
LIMITS = IngestLimits(window_bytes=WINDOW, tail_bytes=TAIL, outstanding_bytes=OUTSTANDING)
STALL_S = 60.0


def content_of(size_bytes: int, seed: int = 1) -> bytes:
    """Return bytes that look like a layer."""
    return random.Random(seed).randbytes(size_bytes)


def digest_of(data: bytes) -> Digest:
    """Return the name of this content."""
    return Digest("sha256", hashlib.sha256(data).hexdigest())


def partial(data: bytes, start: int, total: int | None = None, stop: int | None = None, **rest: object) -> FakeResponse:
    """Return a 206 with everything from ``start`` on; only its body may be something else than it says."""
    stop = len(data) if stop is None else stop
    fields = {"Content-Range": f"bytes {start}-{stop - 1}/{len(data) if total is None else total}"}
    fields.update(rest.pop("fields", {}))  # type: ignore[call-overload]
    return FakeResponse(206, fields, data[start:stop], length=stop - start, **rest)  # type: ignore[arg-type]


@implementer(ISpool)
@define(eq=False)
class ScriptedSpool:
    """A spool whose medium does what the test says.

    :ivar prompt: flushes what is written, and commits, at once; else the test calls :meth:`flush` and :meth:`publish`.
    :ivar unreadable: what reading raises.
    """

    prompt: bool = True
    flushed_bytes: int = 0
    failure: Exception | None = None
    unreadable: Exception | None = None
    data: bytearray = field(factory=bytearray)
    committed: Descriptor | None = None
    abandoned: bool = False
    closed: bool = False
    commits: int = 0
    _committing: tuple[Deferred[None], Descriptor] | None = None
    _followers: list[Callable[[], None]] = field(factory=list)

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        """Not used."""

    def unregisterProducer(self) -> None:
        """Not used."""

    def write(self, data: bytes) -> None:
        """Take bytes."""
        if self.failure is None and not self.abandoned:
            self.data += data
            if self.prompt:
                self.flush()

    def flush(self, count: int | None = None) -> None:
        """Let the medium hold so many bytes more, or all."""
        if self.failure is None and not self.abandoned:
            room = len(self.data) - self.flushed_bytes
            self.flushed_bytes += room if count is None else min(room, count)
            self._tell()

    def die(self) -> None:
        """Fail as a full disk does."""
        if self.failure is None and self.committed is None:
            self.failure = StorageUnavailable("the test says so")
            self._fail_commit()
            self._tell()

    def read_at(self, offset_bytes: int, max_bytes: int) -> bytes:
        """Return flushed bytes."""
        if self.closed:
            raise BodyLost("closed")
        if self.unreadable is not None:
            raise self.unreadable
        return bytes(self.data[offset_bytes : min(self.flushed_bytes, offset_bytes + max_bytes)])

    def extent_at(self, offset_bytes: int, max_bytes: int) -> tuple[int, int] | None:
        """Be no file, but fail like one."""
        if self.unreadable is not None:
            raise self.unreadable
        return None

    def follow(self, progressed: Callable[[], None]) -> None:
        """Remember who wants to know."""
        self._followers.append(progressed)

    def commit(self, descriptor: Descriptor, headers: HeaderList, namespace: str, held: bool) -> Deferred[None]:
        """Publish, at once if prompt."""
        self.commits += 1
        if self.failure is not None or self.abandoned:
            return fail(StorageUnavailable("dead"))
        if self.prompt:
            self.committed = descriptor
            return succeed(None)
        committing: Deferred[None] = Deferred()
        self._committing = (committing, descriptor)
        return committing

    def publish(self) -> None:
        """Let the commit succeed, if there is one."""
        if self._committing is not None:
            (committing, self.committed), self._committing = self._committing, None
            committing.callback(None)

    def abandon(self) -> None:
        """Never publish."""
        if self.committed is None:
            self.abandoned = True
            self._fail_commit()

    def close(self) -> None:
        """Let go."""
        self.closed = True
        self.abandon()

    def _fail_commit(self) -> None:
        if self._committing is not None:
            (committing, _), self._committing = self._committing, None
            committing.errback(StorageUnavailable("dead"))

    def _tell(self) -> None:
        for progressed in list(self._followers):
            progressed()


@define(eq=False)
class Client:
    """A client with its Reader.

    :ivar how: how it ended, None while it has not.
    """

    sink: FakeSink
    reader: Reader
    how: str | None = None

    def _done(self, how: str) -> None:
        assert self.how is None
        self.how = how

    @property
    def got(self) -> bytes:
        """What it has received."""
        return bytes(self.sink.written)

    def drain_all(self) -> None:
        """Take whatever can be had now."""
        before = -1
        while before != len(self.sink.written) and self.how is None:
            before = len(self.sink.written)
            self.sink.drain()


@define(eq=False)
class Scene:
    """One Ingest and those around it.

    :ivar content: what the digest stands for.
    :ivar length: what upstream promises at first.
    :ivar answers: what upstream answers to requests for the rest, in order; then it is unreachable.
    :ivar resumed_at: the offsets of those requests.
    :ivar by_hand: such requests wait in :attr:`pending` for the test to answer them.
    :ivar disk: takes the place of a scripted spool.
    """

    content: bytes
    length: object = UNKNOWN_LENGTH
    spool: ScriptedSpool | None = None
    hashers: IWorkers = field(factory=InlineWorkers)
    limits: IngestLimits = LIMITS
    etag: str | None = None
    answers: list[FakeResponse | Exception | Deferred[IResponse]] = field(factory=list)
    over_budget: bool = False
    part: tuple[int, int] | None = None
    disk: ISpool | None = None
    by_hand: bool = False
    pending: Deferred[IResponse] | None = None
    clock: Clock = field(factory=Clock)
    resumed_at: list[int] = field(factory=list)
    ended: list[Ingest] = field(factory=list)
    deserted: list[Ingest] = field(factory=list)
    ingest: Ingest = field(init=False)
    response: FakeResponse = field(init=False)

    def __attrs_post_init__(self) -> None:
        size_bytes = self.length if isinstance(self.length, int) else None
        first, end = self.part if self.part is not None else (0, size_bytes)
        self.ingest = Ingest(
            Descriptor(digest_of(self.content), size_bytes, "application/octet-stream"),
            (("X-Kept", "1"),),
            "docker.io",
            Origin(first, end, size_bytes, self.etag, self._reopen),
            self.clock,
            self.limits,
            None if self.part is not None else self.hashers,
            self.disk or self.spool,
            self.ended.append,
            lambda: self.over_budget,
            self.deserted.append,
        )
        self.response = FakeResponse(length=self.length, ends=False)

    @classmethod
    def of(cls, size_bytes: int, **rest: object) -> Scene:
        """Make a scene whose upstream promises the right length, with a spool that works unless told otherwise."""
        rest.setdefault("spool", ScriptedSpool())
        return cls(content_of(size_bytes), size_bytes, **rest)  # type: ignore[arg-type]

    def _reopen(self, offset_bytes: int) -> Deferred[IResponse]:
        self.resumed_at.append(offset_bytes)
        if self.by_hand:
            self.pending = Deferred()
            return self.pending
        answer = self.answers.pop(0) if self.answers else UpstreamUnreachable("gone")
        if isinstance(answer, Deferred):
            return answer
        if isinstance(answer, Exception):
            return fail(answer)
        self.response = answer
        return succeed(answer)

    def client(self, start: int = 0, stop: int | None = None, capacity: int | None = None) -> Client:
        """Let a client begin."""
        sink = FakeSink(capacity)
        reader = Reader(self.ingest, start, stop, sink, self.clock, STALL_S)
        client = Client(sink, reader)
        reader.done.addCallback(client._done)
        reader.start()
        return client

    def begin(self) -> Scene:
        """Let the first answer in."""
        self.ingest.begin(self.response)
        return self

    def send(self, start: int = 0, stop: int | None = None, step: int = 4 * KIB) -> None:
        """Send a part of the content in chunks, as long as upstream is not paused and not closed."""
        stop = len(self.content) if stop is None else stop
        for begin in range(start, stop, step):
            if self.response.transport.paused or self.response.transport.lost:
                return
            self.response.send(self.content[begin : min(stop, begin + step)])

    def pour(self, stop: int | None = None, step: int = 4 * KIB) -> None:
        """Go on where the ingest stands."""
        self.send(self.ingest.received_bytes, stop, step)

    def end(self) -> None:
        """Say goodbye well."""
        self.response.end()

    def break_off(self) -> None:
        """Say goodbye badly."""
        self.response.break_off()

    @property
    def paused(self) -> bool:
        """Whether upstream has to wait."""
        return self.response.transport.paused and not self.response.transport.lost

    @property
    def timers(self) -> int:
        """How many delayed calls are left, after those of this turn."""
        self.clock.advance(0)
        return len(self.clock.getDelayedCalls())
