"""A core on a memory store with scripted upstreams: what every test of this folder lives in."""

from __future__ import annotations

from collections.abc import Awaitable, Iterable
from typing import Literal, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.cache.place import AcceptingUpstream, Place
from tests.cache.place import content as content
from tests.cache.place import manifest as manifest
from tests.doubles import FakeRegistry, FakeSink, InlineWorkers
from txociproxy.assembly import Core, CoreRules, assemble
from txociproxy.bodies.reader import Reader
from txociproxy.cache import Answer
from txociproxy.interfaces import Ask, Credentials, IMode, IStorage, IWorkers, Pull, Relay, Serve
from txociproxy.metrics import Metrics
from txociproxy.modes import Transparent
from txociproxy.oci.accept import EVERYTHING, AcceptClass, accept_class
from txociproxy.oci.manifests import DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST
from txociproxy.oci.names import Digest, Reference, Repository, Tag
from txociproxy.oci.ranges import RangeSpec, parse_range
from txociproxy.storage.memory import MemoryStorage

T = TypeVar("T")
REPOSITORY = "library/alpine"
INDEX_CLASS = accept_class([OCI_INDEX])
MANIFEST_CLASS = accept_class([OCI_MANIFEST, DOCKER_MANIFEST])
WIDE_CLASS = accept_class([OCI_INDEX, OCI_MANIFEST, DOCKER_MANIFEST])


class CacheCase(SynchronousTestCase):
    """A core with docker.io, and another upstream that may be hostile."""

    rules = CoreRules()

    def setUp(self) -> None:
        """Put the core together, on an empty store."""
        self.clock = Clock()
        self.clock.advance(1_000_000)
        self.hub, self.other = Place(), Place()
        self.hub_asked = AcceptingUpstream("docker.io", self.hub.script, place=self.hub)
        self.other_asked = AcceptingUpstream("evil.example", self.other.script, place=self.other)
        self.registry = FakeRegistry({"docker.io": self.hub_asked, "evil.example": self.other_asked})
        self.storage = MemoryStorage()
        self.build(self.rules)

    def build(
        self,
        rules: CoreRules,
        storage: IStorage | None = None,
        mode: IMode | None = None,
        workers: IWorkers | None = None,
    ) -> Core:
        """Make the core (again) with these rules; the store stays unless another is given."""
        workers, clock = workers or InlineWorkers(), self.clock
        storage, mode = storage or self.storage, mode or Transparent()
        self.metrics = Metrics(known=frozenset({"docker.io"}))
        self.core = assemble(storage, mode, self.registry, workers, clock, clock.seconds, rules, self.metrics)
        return self.core

    # --- asking

    def ask(
        self,
        reference: Digest | str,
        method: Literal["GET", "HEAD"] = "GET",
        kind: Literal["manifest", "blob"] = "manifest",
        accept: AcceptClass = EVERYTHING,
        namespace: str = "docker.io",
        byte_range: str | None = None,
        client: str = "192.0.2.1",
        authorization: str | None = None,
    ) -> Ask:
        """Return an ask; a text is a tag."""
        named: Reference = Tag(reference) if isinstance(reference, str) else reference
        pull = Pull(namespace, Repository.parse(REPOSITORY), named, kind, accept)
        spec: RangeSpec | None = parse_range(byte_range)
        return Ask(method, pull, Credentials(authorization), spec, client=client)

    def begin(self, ask: Ask) -> Deferred[Answer]:
        """Begin to pull; the Deferred may be cancelled, as the web does when a client leaves."""
        return self.later(self.core.cache.pull(ask))

    def later(self, awaitable: Awaitable[T]) -> Deferred[T]:
        """Return a coroutine as the web runs it."""

        async def running() -> T:
            return await awaitable

        return Deferred.fromCoroutine(running())

    def pull(self, ask: Ask) -> Answer:
        """Pull what comes at once."""
        return self.successResultOf(self.begin(ask))

    def served(self, ask: Ask) -> Serve:
        """Pull something that is served."""
        return self.serve_of(self.begin(ask))

    def serve_of(self, d: Deferred[Answer]) -> Serve:
        """Return what came, which must be a Serve."""
        answer = self.successResultOf(d)
        assert isinstance(answer, Serve), answer
        return answer

    def relayed(self, ask: Ask) -> Relay:
        """Pull something that is relayed."""
        answer = self.pull(ask)
        assert isinstance(answer, Relay), answer
        return answer

    def follow(self, serve: Serve, capacity_bytes: int | None = None) -> tuple[Reader, FakeSink]:
        """Let a client read what is served."""
        assert serve.body is not None
        start, stop = (serve.partial.start, serve.partial.stop) if serve.partial is not None else (0, None)
        sink = FakeSink(capacity_bytes)
        reader = Reader(serve.body, start, stop, sink, self.clock, 60.0)
        reader.start()
        return reader, sink

    def bytes_of(self, serve: Serve) -> bytes:
        """Read what is served, whole."""
        _, sink = self.follow(serve)
        self.assertEqual(sink.ending, "finished")
        return bytes(sink.written)

    def get(self, ask: Ask) -> tuple[str, bytes]:
        """Pull and read; returns the outcome and the bytes."""
        serve = self.served(ask)
        return serve.outcome, self.bytes_of(serve)

    # --- looking

    def asked(self, *requests: str) -> None:
        """Assert which requests reached docker.io since the last time; the repository is understood."""
        seen = [text.replace(f"{REPOSITORY} ", "") for text in self.hub_asked.seen]
        self.hub_asked.requests.clear()
        self.assertEqual(seen, list(requests))

    def assert_at_rest(self) -> None:
        """Nothing runs, waits or is held any more."""
        self.clock.advance(0)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual((self.core.ingests.running, self.core.ingests.alive), ({}, []))
        self.assertEqual(dict(self.core.ingests.slots.taken), {})
        self.assertEqual(dict(self.core.ingests.carried.taken), {})


def outcomes(serves: Iterable[Serve]) -> list[str]:
    """Return the outcomes."""
    return [serve.outcome for serve in serves]
