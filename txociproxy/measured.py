"""A storage whose failures are counted: what it could not do, and tags that clients want in too many ways.

Nothing else changes: every result, every error and every turn of the reactor is that of the storage behind it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

from attrs import define, evolve, field, frozen
from twisted.internet.defer import Deferred
from twisted.python.components import proxyForInterface
from twisted.python.failure import Failure
from twisted.web.iweb import IResponse
from zope.interface import implementer

from txociproxy.interfaces import (
    Address,
    Elsewhere,
    HeaderList,
    IBody,
    IPlace,
    ISpool,
    IStorage,
    Local,
    TagName,
    TagRecord,
)
from txociproxy.metrics import Metrics
from txociproxy.oci.accept import AcceptClass
from txociproxy.oci.errors import BodyLost, StorageUnavailable
from txociproxy.oci.names import Descriptor, Digest
from txociproxy.remembering import remember

T = TypeVar("T")
# RULES A5; what a storage keeps of one tag.
MAX_ACCEPT_CLASSES = 4
MAX_TAGS = 1000


@implementer(IStorage)
@define(eq=False)
class MeasuredStorage:
    """Counts what the storage behind it could not do.

    Trouble with tags is none of it: storages ignore it themselves.

    :ivar _classes: the Accept classes that tags have had lately; whoever records a tag has recalled it before.
    """

    _inner: IStorage
    _metrics: Metrics
    _classes: OrderedDict[TagName, frozenset[AcceptClass]] = field(init=False, factory=OrderedDict)

    def uses(self) -> dict[str, tuple[float, float]]:
        """Return how full the fullest tag is, of those that were pulled lately."""
        return {"accept_classes": (max(map(len, self._classes.values()), default=0), MAX_ACCEPT_CLASSES)}

    def find(self, digest: Digest, namespace: str) -> Deferred[Local | Elsewhere | None]:
        """See :meth:`IStorage.find`."""
        return self._counted("find", self._inner.find(digest, namespace)).addCallback(self._measured)

    def open_spool(self, digest: Digest, size_bytes: int | None) -> ISpool:
        """See :meth:`IStorage.open_spool`; no room counts as well, for nothing is kept then."""
        return self._opened(lambda: self._inner.open_spool(digest, size_bytes))

    def await_turn(self, digest: Digest) -> Awaitable[bool]:
        """See :meth:`IStorage.await_turn`."""
        return self._inner.await_turn(digest)

    def leave_turn(self, digest: Digest) -> None:
        """See :meth:`IStorage.leave_turn`."""
        self._inner.leave_turn(digest)

    def remove(self, digest: Digest) -> Deferred[bool]:
        """See :meth:`IStorage.remove`."""
        return self._counted("remove", self._inner.remove(digest))

    def recall_tag(self, name: TagName) -> Deferred[tuple[TagRecord, ...]]:
        """See :meth:`IStorage.recall_tag`."""
        return self._counted("tag", self._inner.recall_tag(name)).addCallback(self._recalled, name)

    def record_tag(self, name: TagName, record: TagRecord) -> Deferred[None]:
        """See :meth:`IStorage.record_tag`."""
        known = self._classes.get(name, frozenset())
        if record.accept_class not in known:
            if len(known) >= MAX_ACCEPT_CLASSES:
                self._metrics.cap_reached("accept_classes")  # one of them is pushed out, which one the storage knows
            else:
                remember(self._classes, name, known | {record.accept_class}, MAX_TAGS)
        return self._counted("tag", self._inner.record_tag(name, record))

    def forget_tag(self, name: TagName) -> Deferred[None]:
        """See :meth:`IStorage.forget_tag`."""
        self._classes.pop(name, None)
        return self._counted("tag", self._inner.forget_tag(name))

    def walk(self) -> AsyncIterator[Descriptor]:
        """See :meth:`IStorage.walk`."""
        return self._inner.walk()

    def _measured(self, found: Local | Elsewhere | None) -> Local | Elsewhere | None:
        """Go on measuring where content is read."""
        if isinstance(found, Local):
            return evolve(found, body=_MeasuredBody(found.body, self._metrics))
        if found is None:
            return None
        fill = found.fill
        return evolve(
            found,
            place=_MeasuredPlace(found.place, self._counted),
            fill=None if fill is None else lambda: self._opened(fill),
        )

    def _opened(self, open_one: Callable[[], ISpool]) -> ISpool:
        try:
            inner = open_one()
        except StorageUnavailable:
            self._metrics.storage_failed("spool")
            raise
        spool: ISpool = _MeasuredSpool(inner, self._metrics)
        return spool

    def _recalled(self, records: tuple[TagRecord, ...], name: TagName) -> tuple[TagRecord, ...]:
        classes = frozenset(record.accept_class for record in records)
        if classes:
            remember(self._classes, name, classes, MAX_TAGS)
        else:
            self._classes.pop(name, None)
        return records

    def _counted(self, operation: str, asked: Awaitable[T]) -> Deferred[T]:
        return _deferred(asked).addErrback(self._failed, operation)

    def _failed(self, failure: Failure, operation: str) -> Failure:
        if failure.check(StorageUnavailable) is not None:
            self._metrics.storage_failed(operation)
        return failure


@implementer(IPlace)
@frozen
class _MeasuredPlace:
    """A place that counts what it did not give."""

    _inner: IPlace
    _counted: Callable[[str, Awaitable[IResponse]], Deferred[IResponse]]

    def address(self) -> Address:
        """See :meth:`IPlace.address`."""
        return self._inner.address()

    def read(self, byte_range: str | None) -> Deferred[IResponse]:
        """See :meth:`IPlace.read`."""
        return self._counted("read", self._inner.read(byte_range))


class _MeasuredSpool(proxyForInterface(ISpool, "_inner")):  # type: ignore[misc]  # made while this runs
    """A spool that counts a commit that failed; one that was abandoned meanwhile is no failure of the storage."""

    _inner: ISpool

    def __init__(self, inner: ISpool, metrics: Metrics) -> None:
        super().__init__(inner)
        self._metrics = metrics
        self._is_left = False

    def commit(self, descriptor: Descriptor, headers: HeaderList, namespace: str, held: bool) -> Deferred[None]:
        """See :meth:`ISpool.commit`."""
        return _deferred(self._inner.commit(descriptor, headers, namespace, held)).addErrback(self._failed)

    def abandon(self) -> None:
        """See :meth:`ISpool.abandon`."""
        self._is_left = True
        self._inner.abandon()

    def close(self) -> None:
        """See :meth:`ISpool.close`."""
        self._is_left = True
        self._inner.close()

    def _failed(self, failure: Failure) -> Failure:
        if not self._is_left and failure.check(StorageUnavailable) is not None:
            self._metrics.storage_failed("commit")
        return failure


class _MeasuredBody(proxyForInterface(IBody, "_inner")):  # type: ignore[misc]  # made while this runs
    """Kept content that counts, once, that its bytes are not to be had."""

    _inner: IBody

    def __init__(self, inner: IBody, metrics: Metrics) -> None:
        super().__init__(inner)
        self._metrics: Metrics | None = metrics

    def read_at(self, offset_bytes: int, max_bytes: int) -> bytes:
        """See :meth:`IBody.read_at`."""
        try:
            return self._inner.read_at(offset_bytes, max_bytes)
        except BodyLost:
            self._lost()
            raise

    def extent_at(self, offset_bytes: int, max_bytes: int) -> tuple[int, int] | None:
        """See :meth:`IBody.extent_at`."""
        try:
            return self._inner.extent_at(offset_bytes, max_bytes)
        except BodyLost:
            self._lost()
            raise

    def _lost(self) -> None:
        metrics, self._metrics = self._metrics, None
        if metrics is not None:
            metrics.storage_failed("read")


def _deferred(asked: Awaitable[T]) -> Deferred[T]:
    """Return the very Deferred, which begins at once and can be cancelled; make one of anything else."""
    return asked if isinstance(asked, Deferred) else Deferred.fromCoroutine(_awaited(asked))


async def _awaited(asked: Awaitable[T]) -> T:
    return await asked
