"""MemoryStorage: content in memory, for tests of everything above storage and for stores that may be forgotten."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

from attrs import define, field, frozen
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IProducer
from zope.interface import implementer

from txociproxy.bodies.lending import MemoryBody
from txociproxy.interfaces import HeaderList, ISpool, IStorage, Local, TagName, TagRecord
from txociproxy.oci.errors import NoSpace, StorageUnavailable
from txociproxy.oci.names import Descriptor, Digest
from txociproxy.storage.layout import with_record


@frozen
class Kept:
    """Content and what is known of it.

    :ivar held: the namespaces that may see it; None is all.
    """

    data: bytes
    descriptor: Descriptor
    headers: HeaderList
    namespace: str
    held: frozenset[str] | None
    kept_at_s: float | None


@implementer(IStorage)
@define(eq=False)
class MemoryStorage:
    """A bounded store in memory.

    :ivar max_bytes: content that does not fit beside what is kept is refused.
    :ivar now: seconds since the epoch; without it nobody knows when content was published.
    """

    max_bytes: int = 256 * 1024 * 1024
    content: dict[Digest, Kept] = field(factory=dict)
    tags: dict[TagName, tuple[TagRecord, ...]] = field(factory=dict)
    now: Callable[[], float] | None = None

    def find(self, digest: Digest, namespace: str) -> Deferred[Local | None]:
        """See :meth:`IStorage.find`."""
        kept = self.content.get(digest)
        if kept is None or (kept.held is not None and namespace not in kept.held):
            return succeed(None)
        body = MemoryBody(kept.data, promised=1)
        return succeed(Local(kept.descriptor, kept.headers, kept.namespace, body, kept.kept_at_s))

    def publish(self, data: bytes, descriptor: Descriptor, headers: HeaderList, namespace: str, held: bool) -> None:
        """Keep content; open stays open, and what was held for others is held for them too (RULES D3)."""
        old = self.content.get(descriptor.digest)
        holders: frozenset[str] | None = frozenset({namespace}) if held else None
        if old is not None:
            holders = None if holders is None or old.held is None else holders | old.held
        kept_at_s = None if self.now is None else self.now()
        self.content[descriptor.digest] = Kept(data, descriptor, headers, namespace, holders, kept_at_s)

    def open_spool(self, digest: Digest, size_bytes: int | None) -> MemorySpool:
        """See :meth:`IStorage.open_spool`."""
        if self.used_bytes + (size_bytes or 0) > self.max_bytes:
            raise NoSpace(f"{size_bytes} bytes do not fit beside {self.used_bytes} of {self.max_bytes}")
        return MemorySpool(self)

    @property
    def used_bytes(self) -> int:
        """How much is kept."""
        return sum(len(kept.data) for kept in self.content.values())

    def await_turn(self, digest: Digest) -> Deferred[bool]:
        """See :meth:`IStorage.await_turn`; two that fetch the same end both right, so nobody waits here."""
        return succeed(False)

    def leave_turn(self, digest: Digest) -> None:
        """See :meth:`IStorage.leave_turn`; nobody has waited."""

    def remove(self, digest: Digest) -> Deferred[bool]:
        """See :meth:`IStorage.remove`."""
        return succeed(self.content.pop(digest, None) is not None)

    def recall_tag(self, name: TagName) -> Deferred[tuple[TagRecord, ...]]:
        """See :meth:`IStorage.recall_tag`."""
        return succeed(self.tags.get(name, ()))

    def record_tag(self, name: TagName, record: TagRecord) -> Deferred[None]:
        """See :meth:`IStorage.record_tag`."""
        self.tags[name] = with_record(self.tags.get(name, ()), record)
        return succeed(None)

    def forget_tag(self, name: TagName) -> Deferred[None]:
        """See :meth:`IStorage.forget_tag`."""
        self.tags.pop(name, None)
        return succeed(None)

    async def walk(self) -> AsyncIterator[Descriptor]:
        """See :meth:`IStorage.walk`."""
        for kept in list(self.content.values()):
            yield kept.descriptor


@implementer(ISpool)
@define(eq=False)
class MemorySpool:
    """Unfinished content in memory."""

    _storage: MemoryStorage
    failure: Exception | None = None
    _data: bytearray = field(factory=bytearray)
    _state: str = "open"  # then: committed, abandoned
    _followers: list[Callable[[], None]] = field(factory=list)

    @property
    def flushed_bytes(self) -> int:
        """All that was written is held."""
        return len(self._data)

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        """Memory never asks for a pause."""

    def unregisterProducer(self) -> None:
        """Memory never asks for a pause."""

    def follow(self, progressed: Callable[[], None]) -> None:
        """See :meth:`ISpool.follow`."""
        self._followers.append(progressed)

    def write(self, data: bytes) -> None:
        """See :meth:`ISpool.write`."""
        if self.failure is not None or self._state != "open":
            return
        if self._storage.used_bytes + len(self._data) + len(data) > self._storage.max_bytes:
            self.failure = NoSpace("the memory store is full")
        else:
            self._data += data
        for progressed in list(self._followers):
            progressed()

    def read_at(self, offset_bytes: int, max_bytes: int) -> bytes:
        """See :meth:`ISpool.read_at`."""
        return bytes(self._data[offset_bytes : offset_bytes + max_bytes])

    def extent_at(self, offset_bytes: int, max_bytes: int) -> tuple[int, int] | None:
        """Memory is no file."""
        return None

    def commit(self, descriptor: Descriptor, headers: HeaderList, namespace: str, held: bool) -> Deferred[None]:
        """See :meth:`ISpool.commit`."""
        if self.failure is not None or self._state != "open":
            return fail(StorageUnavailable("this spool is dead"))
        self._state = "committed"
        self._storage.publish(bytes(self._data), descriptor, headers, namespace, held)
        return succeed(None)

    def abandon(self) -> None:
        """See :meth:`ISpool.abandon`."""
        if self._state == "open":
            self._state = "abandoned"

    def close(self) -> None:
        """See :meth:`ISpool.close`."""
        self.abandon()
