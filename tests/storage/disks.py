"""A disk storage of a test, with everything under it in the test's hands."""

from __future__ import annotations

from collections.abc import Awaitable
from pathlib import Path
from typing import Any

from attrs import Factory, define, field
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from tests.doubles import ManualWorkers
from tests.storage.recording import RecordingFiles
from txociproxy.interfaces import HeaderList, ISpool
from txociproxy.oci.names import Descriptor, Digest
from txociproxy.storage.disk import DiskStorage
from txociproxy.storage.layout import Layout
from txociproxy.storage.space import Space

BLOB_TYPE = "application/octet-stream"
PATIENCE_S = 5.0


@define(eq=False)
class Outcome:
    """How something ended that a test does not wait for."""

    _awaitable: Awaitable[Any]
    ended: bool = False
    value: Any = None
    error: Exception | None = None

    def __attrs_post_init__(self) -> None:
        async def wait() -> Any:
            return await self._awaitable

        Deferred.fromCoroutine(wait()).addCallbacks(self._succeeded, self._failed)

    def _succeeded(self, value: Any) -> None:
        self.ended, self.value = True, value

    def _failed(self, failure: Failure) -> None:
        failure.trap(Exception)
        assert isinstance(failure.value, Exception)
        self.ended, self.error = True, failure.value


@define(eq=False)
class Disk:
    """One process' view of a root.

    :ivar now_s: what the wall clock says.
    """

    root: Path
    workers: Any = field(factory=ManualWorkers)
    readers: Any = field(default=Factory(lambda self: self.workers, takes_self=True))
    files: RecordingFiles = field(factory=RecordingFiles)
    clock: Clock = field(factory=Clock)
    min_free_fraction: float = 0.0
    min_free_bytes: int = 0
    now_s: float = 1_800_000_000.0
    layout: Layout = field(init=False)
    space: Space = field(init=False)
    storage: DiskStorage = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.layout = Layout(self.root)
        self.space = Space(self.root, self.files, self.clock, self.min_free_fraction, self.min_free_bytes)
        self.storage = DiskStorage(
            self.layout,
            self.files,
            self.readers,
            self.workers,
            self.clock,
            self.space,
            lambda: self.now_s,
            PATIENCE_S,
        )

    def work(self) -> None:
        """Let the threads do all there is to do; a pool of its own for reads is left to the test."""
        if isinstance(self.workers, ManualWorkers):
            self.workers.work()

    def begin(self, data: bytes, chunk_bytes: int = 1000, size_bytes: int | None = None) -> ISpool:
        """Open a spool and write content into it; each chunk is a write of its own."""
        spool = self.storage.open_spool(Digest.of(data), size_bytes)
        for start in range(0, len(data), chunk_bytes):
            spool.write(data[start : start + chunk_bytes])
            self.work()
        return spool

    def commit(
        self, spool: ISpool, data: bytes, headers: HeaderList = (), namespace: str = "docker.io", held: bool = False
    ) -> Outcome:
        """Commit what was written; the threads have not worked yet."""
        return Outcome(spool.commit(Descriptor(Digest.of(data), len(data), BLOB_TYPE), headers, namespace, held))

    def keep(self, data: bytes, namespace: str = "docker.io", held: bool = False) -> Digest:
        """Keep content from its first byte to its commit."""
        spool = self.begin(data)
        outcome = self.commit(spool, data, namespace=namespace, held=held)
        self.work()
        spool.close()
        self.work()
        assert outcome.ended and outcome.error is None, f"not kept: {outcome.error}"
        return Digest.of(data)

    def read(self, digest: Digest, namespace: str = "docker.io") -> bytes | None:
        """Return kept content; None is a miss."""
        outcome = Outcome(self.storage.find(digest, namespace))
        self.work()
        if outcome.error is not None:
            raise outcome.error
        assert outcome.ended
        local = outcome.value
        if local is None:
            return None
        data = b""
        while piece := local.body.read_at(len(data), 1 << 20):
            data += piece
        local.body.close()
        return data
