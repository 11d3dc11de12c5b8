"""A store that lags or fails where the test says so."""

from __future__ import annotations

from attrs import define, field
from twisted.internet.defer import Deferred, fail

from txociproxy.interfaces import Local
from txociproxy.oci.errors import StorageUnavailable
from txociproxy.oci.names import Digest
from txociproxy.storage.memory import MemorySpool, MemoryStorage

SIZE = 200_000


@define(eq=False)
class LaggingSpool(MemorySpool):
    """A spool that flushes only when the test says so."""

    lag: bool = True
    flushed: int = 0

    @property
    def flushed_bytes(self) -> int:
        """How far the test let it go."""
        return self.flushed if self.lag else len(self._data)

    def flush(self) -> None:
        """Catch up."""
        self.flushed = len(self._data)
        for progressed in list(self._followers):
            progressed()


@define(eq=False)
class TroubledStorage(MemoryStorage):
    """A store that fails where the test says so."""

    find_fails: bool = False
    open_error: StorageUnavailable | None = None
    lags: bool = False
    spools: list[LaggingSpool] = field(factory=list)

    def find(self, digest: Digest, namespace: str) -> Deferred[Local | None]:
        """Fail, or find."""
        if self.find_fails:
            return fail(StorageUnavailable("the disk does not answer"))
        return super().find(digest, namespace)

    def open_spool(self, digest: Digest, size_bytes: int | None) -> MemorySpool:
        """Fail, or open."""
        if self.open_error is not None:
            raise self.open_error
        if not self.lags:
            return super().open_spool(digest, size_bytes)
        self.spools.append(LaggingSpool(self))
        return self.spools[-1]
