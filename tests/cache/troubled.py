"""A store that lags or fails where the test says so."""

from __future__ import annotations

from attrs import define, field
from twisted.internet.defer import Deferred, fail

from txociproxy.interfaces import HeaderList, Local
from txociproxy.oci.errors import StorageUnavailable
from txociproxy.oci.names import Descriptor, Digest
from txociproxy.storage.memory import MemorySpool, MemoryStorage

SIZE = 200_000


@define(eq=False)
class LaggingSpool(MemorySpool):
    """A spool that flushes only when the test says so."""

    lag: bool = True
    flushed: int = 0
    hangs: bool = False
    committing: Deferred[None] | None = None

    @property
    def flushed_bytes(self) -> int:
        """How far the test let it go."""
        return self.flushed if self.lag else len(self._data)

    def commit(self, descriptor: Descriptor, headers: HeaderList, namespace: str, held: bool) -> Deferred[None]:
        """Never end, or publish."""
        if not self.hangs:
            return super().commit(descriptor, headers, namespace, held)
        self.committing = Deferred()
        return self.committing

    def abandon(self) -> None:
        """Give up a commit that does not end."""
        super().abandon()
        if self.committing is not None and not self.committing.called:
            self.committing.errback(StorageUnavailable("this spool was abandoned"))

    def flush(self) -> None:
        """Catch up."""
        self.flushed = len(self._data)
        for progressed in list(self._followers):
            progressed()


@define(eq=False)
class TroubledStorage(MemoryStorage):
    """A store that fails where the test says so."""

    find_fails: bool = False
    slow: bool = False
    looking: list[tuple[Deferred[Local | None], Local | None]] = field(factory=list)
    open_error: StorageUnavailable | None = None
    lags: bool = False
    holds_commits: bool = False
    spools: list[LaggingSpool] = field(factory=list)

    def find(self, digest: Digest, namespace: str) -> Deferred[Local | None]:
        """Fail, or find."""
        if self.find_fails:
            return fail(StorageUnavailable("the disk does not answer"))
        if not self.slow:
            return super().find(digest, namespace)
        # It has looked already; what it saw is told later.
        d: Deferred[Local | None] = Deferred()
        super().find(digest, namespace).addCallback(lambda found: self.looking.append((d, found)))
        return d

    def tell(self) -> None:
        """Tell what was seen, to those who have looked until now."""
        looking, self.looking = self.looking, []
        for d, found in looking:
            d.callback(found)

    def open_spool(self, digest: Digest, size_bytes: int | None) -> MemorySpool:
        """Fail, or open."""
        if self.open_error is not None:
            raise self.open_error
        if not self.lags and not self.holds_commits:
            return super().open_spool(digest, size_bytes)
        self.spools.append(LaggingSpool(self, lag=self.lags, hangs=self.holds_commits))
        return self.spools[-1]
