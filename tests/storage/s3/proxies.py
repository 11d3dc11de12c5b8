"""One proxy of a fleet, as far as its storage is concerned, with everything under it in the test's hands."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from functools import cache
from pathlib import Path
from typing import Any

from attrs import define, field
from twisted.internet.task import Clock
from twisted.web.iweb import IAgent

from tests.doubles import ManualWorkers
from tests.storage.disks import PATIENCE_S, Outcome
from tests.storage.recording import RecordingFiles
from tests.storage.s3.server import BlockingAgent, Fresh, make_session
from txociproxy.bodies.lending import MemoryBody
from txociproxy.collect import collect
from txociproxy.interfaces import Elsewhere, Local
from txociproxy.oci.names import Descriptor, Digest
from txociproxy.storage.disk import DiskStorage
from txociproxy.storage.files import Files
from txociproxy.storage.layout import Layout
from txociproxy.storage.s3.connecting import Connection, connect
from txociproxy.storage.s3.settings import S3Settings
from txociproxy.storage.s3.storage import S3Storage
from txociproxy.storage.space import Space

BLOB_TYPE = "application/octet-stream"
MANY_BYTES = 1 << 24


@cache
def one_session() -> Any:
    """Return the session of all tests; it takes long to make one."""
    return make_session()


def connect_to_tests(settings: S3Settings) -> Connection:
    """Find the way to the server in this process."""
    return connect(settings, one_session)


@define(eq=False)
class Proxy:
    """One process' storage over a bucket that others may use too.

    :ivar root: of its local disk.
    :ivar uploads_wait: whether uploads do not begin with the rest; :meth:`upload` begins them.
    :ivar now: the wall clock, which servers that prove signatures compare with theirs.
    """

    root: Path
    settings: S3Settings
    connect: Callable[[S3Settings], Connection] = connect_to_tests
    agent: IAgent = field(factory=BlockingAgent)
    uploads_wait: bool = False
    mode: str = "transparent"
    workers: Any = field(factory=ManualWorkers)
    files: Files = field(factory=RecordingFiles)
    clock: Clock = field(factory=Clock)
    now: Callable[[], float] = time.time
    start_patience_s: float = 6.0
    layout: Layout = field(init=False)
    local: DiskStorage = field(init=False)
    storage: S3Storage = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.layout = Layout(self.root)
        space = Space(self.root, self.files, self.clock, 0.0, 0)
        disk = (self.layout, self.files, self.workers, self.workers, self.clock, space, self.now, PATIENCE_S)
        self.local = DiskStorage(*disk)
        self.storage = S3Storage(
            self.settings,
            self.local,
            self.files,
            self.layout,
            self.workers,
            self.clock,
            self.now,
            self.connect,
            lambda *_: self.agent,
            start_patience_s=self.start_patience_s,
        )

    def begin(self, adopt: bool = False) -> Proxy:
        """Prepare and start it."""
        self.storage.prepare(self.mode, adopt)
        self.start()
        return self

    def start(self) -> None:
        """Start what goes on behind."""
        self.storage.far.start()
        self.storage.leases.start()
        if not self.uploads_wait:
            self.upload()
        self.work()

    def upload(self) -> None:
        """Let the uploads begin, and do all there is to do."""
        self.storage.near.start()
        self.work()

    def stop(self) -> None:
        """End what goes on behind; jobs that nobody did are not done any more."""
        self.storage.stop()
        self.workers.jobs.clear()

    def work(self) -> None:
        """Let the threads do all there is to do."""
        self.workers.work()

    def pass_time(self, seconds: float, step_s: float = 0.5) -> None:
        """Let time pass and the threads work."""
        while seconds > 0:
            self.clock.advance(min(step_s, seconds))
            seconds -= step_s
            self.work()

    def ask(self, awaitable: Awaitable[Any]) -> Any:
        """Return what was awaited, after the threads have worked."""
        outcome = Outcome(awaitable)
        self.work()
        assert outcome.ended, "nothing came"
        if outcome.error is not None:
            raise outcome.error
        return outcome.value

    def keep(self, data: bytes, namespace: str = "docker.io", held: bool = False) -> Digest:
        """Keep content from its first byte to its commit, and upload it unless uploads wait."""
        digest = Digest.of(data)
        spool = self.storage.open_spool(digest, len(data))
        spool.write(data)
        self.ask(spool.commit(Descriptor(digest, len(data), BLOB_TYPE), (), namespace, held))
        spool.close()
        self.work()
        return digest

    def find(self, digest: Digest, namespace: str = "docker.io") -> Local | Elsewhere | None:
        """Look for content."""
        found: Local | Elsewhere | None = self.ask(self.storage.find(digest, namespace))
        return found

    def read(self, digest: Digest, namespace: str = "docker.io") -> bytes | None:
        """Return kept content, wherever it lies; None is a miss."""
        found = self.find(digest, namespace)
        local = self.here(found) if isinstance(found, Elsewhere) else found
        if local is None:
            return None
        data = b""
        while piece := local.body.read_at(len(data), MANY_BYTES):
            data += piece
        local.body.close()
        self.work()
        return data

    def here(self, found: Elsewhere) -> Local:
        """Bring content here, by its place."""

        async def fetch() -> bytes:
            response = await found.place.read(None)
            return await collect(response, MANY_BYTES, self.clock, 10.0)

        body = MemoryBody(self.ask(fetch()), promised=1)
        return Local(found.descriptor, found.headers, found.namespace, body, found.kept_at_s)

    def walked(self) -> list[Descriptor]:
        """Return all that a walk meets."""

        async def walk() -> list[Descriptor]:
            return [descriptor async for descriptor in self.storage.walk()]

        found: list[Descriptor] = self.ask(walk())
        return found


def proxy_of(fresh: Fresh, root: str, **more: Any) -> Proxy:
    """Make a proxy that uses this bucket."""
    return Proxy(Path(root), more.pop("settings", fresh.settings), **more)
