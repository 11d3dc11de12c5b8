"""S3Spool: content on its way to the local disk, from where it is brought into the bucket.

A commit is a durable mark, then the commit on the disk; the upload comes behind everybody's back.  What arrives and
what waits for its upload share one budget: a bucket that is away does not fill the disk.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.interfaces import IProducer
from twisted.python.failure import Failure
from zope.interface import implementer

from txociproxy.interfaces import HeaderList, ISpool, IWorkers
from txociproxy.oci.errors import BodyLost, NoSpace, StorageUnavailable
from txociproxy.oci.names import Descriptor, Digest
from txociproxy.storage.s3.budget import Budget
from txociproxy.storage.s3.uploads import Uploads
from txociproxy.storage.s3.waiting import Waiting


@implementer(ISpool)
@define(eq=False)
class S3Spool:
    """A spool of the local disk with a place in the budget; made after :meth:`Budget.check`.

    :ivar _inner: of the local disk storage.
    :ivar _size_bytes: what the content will take, if upstream said.
    :ivar _workers: where marks are made.
    """

    _inner: ISpool
    _size_bytes: int | None
    _waiting: Waiting
    _uploads: Uploads
    _budget: Budget
    _workers: IWorkers
    _failure: Exception | None = None
    _state: str = "open"  # then: committing, committed, abandoned
    _closed: bool = False
    _busy: bool = False  # the inner commit runs, and what it does must be waited for
    _written_bytes: int = 0
    _claimed_bytes: int = 0
    _committed: Deferred[None] | None = None
    _followers: list[Callable[[], None]] = field(factory=list)
    _producer: IProducer | None = None

    def __attrs_post_init__(self) -> None:
        self._inner.follow(self._tell)
        self._claim(self._size_bytes or 0)

    @property
    def flushed_bytes(self) -> int:
        """See :attr:`ISpool.flushed_bytes`."""
        return self._inner.flushed_bytes

    @property
    def failure(self) -> Exception | None:
        """See :attr:`ISpool.failure`."""
        return self._failure or self._inner.failure

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        """Tell this producer when the spool dies; the pace is taken from ``flushed_bytes``, not from pauses."""
        self._producer = producer
        self._inner.registerProducer(producer, streaming)

    def unregisterProducer(self) -> None:
        """Forget the producer."""
        self._producer = None
        self._inner.unregisterProducer()

    def follow(self, progressed: Callable[[], None]) -> None:
        """See :meth:`ISpool.follow`."""
        self._followers.append(progressed)

    def write(self, data: bytes) -> None:
        """See :meth:`ISpool.write`."""
        if self.failure is not None or self._state != "open":
            return
        self._written_bytes += len(data)
        if self._claim(self._written_bytes):
            self._inner.write(data)

    def read_at(self, offset_bytes: int, max_bytes: int) -> bytes:
        """See :meth:`ISpool.read_at`."""
        self._check_open()
        return self._inner.read_at(offset_bytes, max_bytes)

    def extent_at(self, offset_bytes: int, max_bytes: int) -> tuple[int, int] | None:
        """See :meth:`ISpool.extent_at`."""
        self._check_open()
        return self._inner.extent_at(offset_bytes, max_bytes)

    def commit(self, descriptor: Descriptor, headers: HeaderList, namespace: str, held: bool) -> Deferred[None]:
        """See :meth:`ISpool.commit`."""
        if self._state != "open" or self.failure is not None:
            return fail(self.failure or StorageUnavailable(f"this spool is {self._state} already"))
        committed = self._committed = Deferred()
        self._state = "committing"
        Deferred.fromCoroutine(self._commit(descriptor, headers, namespace, held))
        return committed

    def abandon(self) -> None:
        """See :meth:`ISpool.abandon`; a commit that runs on the disk may still come true, and is uploaded then."""
        if self._state in ("committed", "abandoned"):
            return
        self._state = "abandoned"
        if not self._busy:
            self._budget.give_back(id(self))
            self._inner.abandon()
        self._tell_committed(Failure(self.failure or StorageUnavailable("this spool was abandoned")))

    def close(self) -> None:
        """See :meth:`ISpool.close`."""
        if self._closed:
            return
        self._closed = True
        self.abandon()
        if not self._busy:
            self._inner.close()

    # --- in the reactor

    def _check_open(self) -> None:
        if self._closed:
            raise BodyLost("this spool is closed")

    def _claim(self, size_bytes: int) -> bool:
        """Grow to this size, or die; says which."""
        if size_bytes > self._claimed_bytes:
            try:
                self._budget.claim(id(self), size_bytes)
            except NoSpace as error:
                self._die(error)
                return False
            self._claimed_bytes = size_bytes
        return True

    def _die(self, error: Exception) -> None:
        self._failure = error
        self._inner.abandon()
        if self._producer is not None:
            self._producer.stopProducing()
        self._tell()

    def _tell(self) -> None:
        if self.failure is not None:
            self._budget.give_back(id(self))
        for progressed in list(self._followers):
            progressed()

    def _tell_committed(self, result: Failure | None) -> None:
        committed, self._committed = self._committed, None
        if committed is not None:
            committed.callback(result)  # a Failure makes it an errback

    async def _commit(self, descriptor: Descriptor, headers: HeaderList, namespace: str, held: bool) -> None:
        """Mark and commit; meanwhile nobody removes what lies under the digest."""
        await self._uploads.committing(descriptor.digest)
        is_kept = False
        try:
            if self._state == "committing":
                await self._mark(descriptor.digest)
            if self._state == "committing" and self.failure is None:
                self._busy = True
                await self._inner.commit(descriptor, headers, namespace, held)
                is_kept = True
        except StorageUnavailable as error:
            self._failure = error
        except CancelledError:
            raise
        except Exception as error:  # whatever it is, others wait for the end of this
            self._failure = StorageUnavailable(type(error).__name__)
        self._over(descriptor.digest, is_kept)

    async def _mark(self, digest: Digest) -> None:
        try:
            await cast("Deferred[None]", self._workers.run(self._waiting.mark, digest))
        except OSError as error:
            self._die(StorageUnavailable(f"{type(error).__name__}: {error.strerror or error}"))

    def _over(self, digest: Digest, is_kept: bool) -> None:
        """No thread works for the commit any more: let the upload have what it left."""
        self._busy = False
        self._budget.give_back(id(self))
        self._uploads.committed(digest, self.flushed_bytes if is_kept else 0)
        if self._state == "abandoned":
            self._inner.abandon()
            if self._closed:
                self._inner.close()
        elif is_kept:
            self._state = "committed"
        self._tell_committed(None if is_kept else Failure(self.failure or StorageUnavailable("not committed")))
