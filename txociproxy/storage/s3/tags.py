"""Tags in a bucket: believed from memory for a moment, at any age while S3 is out, and written behind everybody's back.

What many proxies write at once is merged by each with what it reads just before; of two that do so in the same moment
one may lose a record, which costs one question to the upstream.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Protocol as Shape
from typing import cast

from attrs import define, evolve, field, frozen
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from txociproxy.interfaces import IWorkers, TagName, TagRecord
from txociproxy.oci.errors import StorageUnavailable
from txociproxy.remembering import remember
from txociproxy.storage.layout import tags_from_json, tags_to_json, with_record
from txociproxy.storage.s3.gate import Gate
from txociproxy.storage.s3.keys import Keys
from txociproxy.storage.s3.reading import Reads
from txociproxy.storage.s3.setbacks import concerns_all
from txociproxy.storage.s3.shared import Shared
from txociproxy.storage.s3.trouble import S3Trouble

BELIEVED_S = 10.0
MAX_REMEMBERED = 10_000
MAX_WAITING = 256
MAX_BYTES = 256 * 1024
TRIES = 3
Records = tuple[TagRecord, ...]


class TagBucket(Shape):
    """What is needed of a bucket; everything blocks and raises S3Trouble only."""

    def read(self, key: str, max_bytes: int) -> bytes | None:
        """Return an object whole; None if there is none."""

    def put(self, key: str, data: bytes, media_type: str, if_absent: bool = False) -> bool:
        """Write an object."""

    def delete(self, *keys: str) -> None:
        """Remove objects."""


@frozen
class Change:
    """What is to be written of one tag.

    :ivar wipes: forget what the bucket has.
    :ivar records: latest first; each takes the place of the one with its Accept class, unless that is younger.
    :ivar tries: how often it was tried while S3 was in reach.
    """

    wipes: bool = False
    records: Records = ()
    tries: int = 0

    def on(self, there: Records) -> Records:
        """Return what there is when this has been written over what was there."""
        merged = () if self.wipes else there
        for record in reversed(self.records):
            if not any(_is_younger(other, record) for other in merged):
                merged = with_record(merged, record)
        return merged

    def then(self, later: Change) -> Change:
        """Return both as one."""
        return later if later.wipes else Change(self.wipes, later.on(self.records))


def _is_younger(other: TagRecord, record: TagRecord) -> bool:
    return other.accept_class == record.accept_class and other.checked_at_s > record.checked_at_s


@define(eq=False, repr=False)
class S3Tags:
    """What tags meant to clients when upstream was last asked, for all proxies of a bucket.  Trouble is ignored.

    :ivar _bucket: None while there is none.
    :ivar _known: what was learnt last, and when, by the clock.
    :ivar _waiting: what is to be written, the next one first; ``_writing`` is being written.
    """

    _reads: Reads
    _keys: Keys
    _bucket: Callable[[], TagBucket | None]
    _workers: IWorkers
    _gate: Gate
    _clock: IReactorTime
    _known: OrderedDict[TagName, tuple[Records, float]] = field(init=False, factory=OrderedDict)
    _waiting: OrderedDict[TagName, Change] = field(init=False, factory=OrderedDict)
    _writing: tuple[TagName, Change] | None = field(init=False, default=None)
    _asks: Shared[TagName, Records] = field(init=False)

    log = Logger()

    def __attrs_post_init__(self) -> None:
        self._asks = Shared(self._learnt)
        self._gate.on_open.append(self._write)

    async def recall(self, name: TagName) -> Records:
        """See :meth:`IStorage.recall_tag`; takes no longer than the patience of a read."""
        records, learnt_s = self._known.get(name, ((), float("-inf")))
        if self._clock.seconds() - learnt_s > BELIEVED_S:
            try:
                return await self._asks.join(name, lambda: self._ask(name))
            except StorageUnavailable:
                records, _ = self._known.get(name, ((), 0.0))
        return self._with_unwritten(name, records)

    def record(self, name: TagName, record: TagRecord) -> Deferred[None]:
        """See :meth:`IStorage.record_tag`; it is known at once and written behind."""
        records, _ = self._known.get(name, ((), 0.0))
        self._learnt(name, with_record(self._with_unwritten(name, records), record))
        self._change(name, Change(records=(record,)))
        return succeed(None)

    def forget(self, name: TagName) -> Deferred[None]:
        """See :meth:`IStorage.forget_tag`; it is forgotten at once and removed behind."""
        self._learnt(name, ())
        self._change(name, Change(wipes=True))
        return succeed(None)

    # --- what is known

    async def _ask(self, name: TagName) -> Records:
        small = await self._reads.small(self._keys.tag(name), MAX_BYTES)
        return self._with_unwritten(name, tags_from_json(None if small is None else small.data))

    def _learnt(self, name: TagName, records: Records) -> None:
        self._asks.part(name)
        if records or name in self._known:  # what nobody knows needs no place
            remember(self._known, name, (records, self._clock.seconds()), MAX_REMEMBERED)

    def _with_unwritten(self, name: TagName, records: Records) -> Records:
        for change in self._unwritten(name):
            records = change.on(records)
        return records

    def _unwritten(self, name: TagName) -> Iterable[Change]:
        if self._writing is not None and self._writing[0] == name:
            yield self._writing[1]
        if name in self._waiting:
            yield self._waiting[name]

    # --- what is written

    def _change(self, name: TagName, change: Change) -> None:
        before = self._waiting.get(name)
        self._waiting[name] = change if before is None else before.then(change)  # keeps its place
        while len(self._waiting) > MAX_WAITING:
            self._waiting.popitem(last=False)
        self._write()

    def _write(self) -> None:
        bucket = self._bucket()
        if self._writing is not None or not self._waiting or not self._gate.is_open or bucket is None:
            return
        name, change = self._writing = self._waiting.popitem(last=False)
        work = cast("Deferred[None]", self._workers.run(_write, bucket, self._keys.tag(name), change))
        work.addCallbacks(self._written, self._unwell).addErrback(self._lost)

    def _written(self, _: object) -> None:
        self._gate.worked()
        self._writing = None
        self._write()

    def _unwell(self, failure: Failure) -> None:
        """Try again later, a few times; what S3 does not hear while it is out is no try."""
        failure.trap(StorageUnavailable)
        assert self._writing is not None
        (name, change), self._writing = self._writing, None
        if isinstance(failure.value, S3Trouble) and concerns_all(failure.value):
            self._gate.failed(failure.value)
        change = evolve(change, tries=change.tries + self._gate.is_open)
        if change.tries < TRIES:
            later = self._waiting.get(name)
            again = change if later is None else evolve(change.then(later), tries=change.tries)
            remember(self._waiting, name, again, MAX_WAITING)
        self._write()

    def _lost(self, failure: Failure) -> None:
        """Whatever else happens, the next ones are written."""
        self._writing = None
        self.log.failure("a tag was not written", failure)
        self._write()


def _write(bucket: TagBucket, key: str, change: Change) -> None:
    """Merge a change into what the bucket has; blocks."""
    there = () if change.wipes else tags_from_json(bucket.read(key, MAX_BYTES))
    records = change.on(there)
    if not records:
        bucket.delete(key)
    elif records != there:
        bucket.put(key, tags_to_json(records), "application/json")
