"""Who has his hands on the local copy of content that waits for its upload.

Commits of one digest may run beside each other and beside its upload, which reads.  Whatever removes the copy or its
mark runs alone: commits wait for it, and it for those that have begun.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from itertools import count
from typing import Literal

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from txociproxy.oci.names import Digest

Work = Callable[[], Awaitable[object]]


@define(eq=False)
class Upload:
    """One digest, and what is done and to be done with it.

    :ivar number: how old it is; smaller is older.
    :ivar stage: ``publishing``: a thread brings it into the bucket.  ``removing``: what suffers nobody beside it.
    :ivar wanted: something may lie locally that no upload has seen yet.
    :ivar queued: it stands in the line.
    :ivar cancelled: the upload that runs is to be given up.
    :ivar commits: how many commits are under way.
    :ivar committers: who waits to begin a commit.
    :ivar removals: what is to be done alone (None is nothing), and who waits for that.
    :ivar failures: in a row.
    :ivar due_s: not before this time of the clock.
    """

    digest: Digest
    number: int
    size_bytes: int = 0
    stage: Literal["idle", "publishing", "removing"] = "idle"
    wanted: bool = False
    queued: bool = False
    cancelled: bool = False
    commits: int = 0
    failures: int = 0
    due_s: float = 0.0
    committers: list[Deferred[None]] = field(factory=list)
    removals: list[tuple[Work | None, Deferred[None]]] = field(factory=list)

    @property
    def is_asked_for(self) -> bool:
        """Whether anybody wants anything of it."""
        return bool(self.wanted or self.commits or self.committers or self.removals)


@define(eq=False)
class Hands:
    """All digests that wait, or are being committed, uploaded or removed.

    :ivar _ready: called with an upload that may begin; often, with the same one.
    :ivar known: by their digest; threads may look, and nothing else.
    :ivar waiting_bytes: the size of all local copies.
    """

    _ready: Callable[[Upload], None]
    known: dict[Digest, Upload] = field(factory=dict, init=False)
    waiting_bytes: int = field(default=0, init=False)
    _numbers: count[int] = field(factory=count, init=False)

    def add(self, digest: Digest, size_bytes: int) -> None:
        """See :meth:`Uploads.add`."""
        upload = self._know(digest)
        self.resize(upload, max(size_bytes, upload.size_bytes))
        upload.wanted = True
        self.settle(upload)

    def committing(self, digest: Digest) -> Deferred[None]:
        """See :meth:`Uploads.committing`."""
        upload = self._know(digest)
        waiting: Deferred[None] = Deferred()
        upload.committers.append(waiting)
        self.settle(upload)
        return waiting

    def committed(self, digest: Digest, size_bytes: int | None) -> None:
        """See :meth:`Uploads.committed`."""
        upload = self.known[digest]
        upload.commits -= 1
        if size_bytes is None:
            self.settle(upload)
        else:
            self.add(digest, size_bytes)

    def cancel(self, digest: Digest, work: Work | None) -> Deferred[None]:
        """See :meth:`Uploads.cancel`."""
        upload = self._know(digest)
        upload.wanted = upload.queued = False
        upload.cancelled = upload.stage == "publishing"
        removed: Deferred[None] = Deferred()
        upload.removals.append((work, removed))
        self.settle(upload)
        return removed

    def resize(self, upload: Upload, size_bytes: int) -> None:
        """Count a local copy, or one that has gone."""
        self.waiting_bytes += size_bytes - upload.size_bytes
        upload.size_bytes = size_bytes

    def settle(self, upload: Upload) -> None:
        """Do what comes next and can be done now: removals before commits, commits before uploads."""
        if upload.removals:
            if upload.stage == "idle":
                self._remove(upload)
            return
        if upload.stage != "removing":
            self._let_commit(upload)
        if upload.stage != "idle":
            return
        if upload.wanted:
            self._ready(upload)
        elif not upload.is_asked_for and self.known.get(upload.digest) is upload:
            self.resize(upload, 0)
            del self.known[upload.digest]

    def _know(self, digest: Digest) -> Upload:
        upload = self.known.get(digest)
        if upload is None:
            upload = self.known[digest] = Upload(digest, next(self._numbers))
        return upload

    def _let_commit(self, upload: Upload) -> None:
        committers, upload.committers = upload.committers, []
        upload.commits += len(committers)
        for committer in committers:
            committer.callback(None)

    def _remove(self, upload: Upload) -> None:
        work, removed = upload.removals[0]
        if work is not None and upload.commits:
            return  # the last commit settles this
        del upload.removals[0]
        upload.stage = "removing"
        awaited(work or _nothing).addBoth(self._removed, upload, removed, work is not None)

    def _removed(self, result: object, upload: Upload, removed: Deferred[None], is_gone: bool) -> None:
        upload.stage = "idle"
        if isinstance(result, Failure):
            upload.wanted = True
            removed.errback(result)
        else:
            self.resize(upload, 0 if is_gone else upload.size_bytes)
            removed.callback(None)
        self.settle(upload)


async def _nothing() -> None:
    """Do nothing."""


def awaited(work: Work) -> Deferred[object]:
    """Begin some work, and wait for it; what it raises at once fails as well."""

    async def wait() -> object:
        return await work()

    return Deferred.fromCoroutine(wait())
