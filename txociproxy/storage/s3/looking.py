"""One look at the bucket for a digest: is it there, what is said of it, and who may see it (RULES D3).

The asks run side by side.  Content decides: what is said beside open content may be missing or broken, but nobody sees
held content of which it is not said that it is for him.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

from attrs import define, field, frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from txociproxy.oci.errors import StorageUnavailable
from txociproxy.oci.names import Digest
from txociproxy.storage.layout import Sidecar
from txociproxy.storage.s3.keys import Keys
from txociproxy.storage.s3.reading import Head, Reads
from txociproxy.storage.shelf import MAX_SIDECAR_BYTES

T = TypeVar("T")

BELIEVED_S = 1.0
UNKNOWN = Sidecar.from_json(None)


@frozen
class Found:
    """Content that is there.

    :ivar age_s: when it was looked at, by the server's own clock; None is not known.
    :ivar holders: who may see it; None is all.
    :ivar seen_s: when S3 said that it is there, by our clock.
    """

    key: str
    size_bytes: int
    age_s: float | None
    sidecar: Sidecar
    holders: tuple[str, ...] | None
    seen_s: float

    def is_for(self, namespace: str) -> bool:
        """Whether this namespace may see it."""
        return self.holders is None or namespace in self.holders


@frozen
class Seen:
    """What came of a look.

    :ivar trouble: why it cannot be told whether there is open content.
    :ivar sidecar: of open content, if it was read just now.
    """

    found: Found | None = None
    trouble: StorageUnavailable | None = None
    sidecar: Sidecar | None = None


@define(eq=False)
class Look:
    """The asks of one look; trouble is an outcome like any other.

    :ivar _until_s: when the patience of all of them ends, by the clock.
    """

    _reads: Reads
    _keys: Keys
    _clock: IReactorTime
    _digest: Digest
    _until_s: float
    _begun: list[Deferred[Any]] = field(init=False, factory=list)

    async def see(self, known: Sidecar | None) -> Seen:
        """Look.

        :param known: what is believed to be said of the open content; it spares two asks where that is there.
        """
        try:
            return await self._see(known)
        except CancelledError:
            for ask in self._begun:
                ask.addErrback(lambda failure: failure.trap(CancelledError) and None)
                ask.cancel()
            raise

    async def _see(self, known: Sidecar | None) -> Seen:
        head = self._head(False)
        said, held = (None, None) if known is not None else (self._sidecar(False), self._sidecar(True))
        opened, seen_s = await head, self._clock.seconds()
        read = None
        if isinstance(opened, Head):
            sidecar = known
            if sidecar is None or not _fits(opened, sidecar):  # or there is another one meanwhile
                outcome = await (said or self._sidecar(False))
                sidecar = read = outcome if isinstance(outcome, Sidecar) else None
            if self._clock.seconds() - seen_s > BELIEVED_S:  # it was long ago that it was there
                opened, seen_s = await self._head(False), self._clock.seconds()
            if isinstance(opened, Head) and _fits(opened, sidecar or UNKNOWN):
                return Seen(self._found(opened, sidecar or UNKNOWN, None, seen_s), None, read)
        trouble = opened if isinstance(opened, StorageUnavailable) else None
        return await self._see_held(await (held or self._sidecar(True)), trouble)

    async def _see_held(self, sidecar: Sidecar | StorageUnavailable | None, trouble: StorageUnavailable | None) -> Seen:
        if not isinstance(sidecar, Sidecar) or not sidecar.held:
            return Seen(None, trouble)
        head = await self._head(True)
        if isinstance(head, Head):
            is_whole = _fits(head, sidecar)
            return Seen(self._found(head, sidecar, sidecar.held, self._clock.seconds()) if is_whole else None, trouble)
        if head is not None:
            return Seen(None, trouble)
        # What was held a moment ago may be open by now, under its other name.
        return await self._see_opened()

    async def _see_opened(self) -> Seen:
        outcome = await self._sidecar(False)
        sidecar = outcome if isinstance(outcome, Sidecar) else UNKNOWN
        opened = await self._head(False)
        if isinstance(opened, Head) and _fits(opened, sidecar):
            return Seen(self._found(opened, sidecar, None, self._clock.seconds()))
        return Seen(None, opened if isinstance(opened, StorageUnavailable) else None)

    def _found(self, head: Head, sidecar: Sidecar, holders: tuple[str, ...] | None, seen_s: float) -> Found:
        key = self._keys.content(self._digest, held=holders is not None)
        return Found(key, head.size_bytes, head.age_s, sidecar, holders, seen_s)

    # --- the asks

    def _head(self, held: bool) -> Deferred[Head | StorageUnavailable | None]:
        return self._begin(self._reads.head(self._keys.content(self._digest, held), self._until_s))

    def _sidecar(self, held: bool) -> Deferred[Sidecar | StorageUnavailable | None]:
        return self._begin(self._read_sidecar(held))

    async def _read_sidecar(self, held: bool) -> Sidecar | None:
        small = await self._reads.small(self._keys.sidecar(self._digest, held), MAX_SIDECAR_BYTES, self._until_s)
        return None if small is None else Sidecar.from_json(small.data)

    def _begin(self, ask: Coroutine[Deferred[Any], Any, T]) -> Deferred[T | StorageUnavailable]:
        begun: Deferred[T | StorageUnavailable] = Deferred.fromCoroutine(ask)
        begun.addErrback(_as_outcome)
        self._begun.append(begun)
        return begun


def _fits(head: Head, sidecar: Sidecar) -> bool:
    """Whether content is as long as is said of it; what is not was cut short, and will be published over."""
    return sidecar.size_bytes in (None, head.size_bytes)


def _as_outcome(failure: Failure) -> StorageUnavailable:
    failure.trap(StorageUnavailable)
    assert isinstance(failure.value, StorageUnavailable)
    return failure.value
