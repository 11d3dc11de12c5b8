"""Proving: manifests that lie elsewhere are read, proven and remembered, so that no client is sent away for one.

They are small and asked for by every pull.  Where one lies, and who may see it, is the storage's to say each time; its
bytes are what its digest says, whoever asks.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import cast

from attrs import define, evolve, field
from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.interfaces import IReactorTime

from txociproxy.bodies.lending import MemoryBody
from txociproxy.collect import BodyTooLong, collect
from txociproxy.flights import Flights, Landed
from txociproxy.forgetting import Forgetting
from txociproxy.interfaces import Elsewhere, IWorkers, Local
from txociproxy.metrics import Metrics
from txociproxy.oci.errors import StorageUnavailable, UpstreamUnreachable
from txociproxy.oci.manifests import MAX_MANIFEST_BYTES
from txociproxy.oci.names import Digest
from txociproxy.places import read_whole
from txociproxy.remembering import remember

READ_S = 5.0  # how long the place is waited for; then the upstream is asked
AGAIN_S = 10.0  # how long one that was waited for in vain is left to the upstream
MAX_SLOW = 1024
MAX_PROVEN = 4096
MAX_PROVEN_BYTES = 64 * 1024 * 1024


@define(eq=False)
class Proven:
    """Small content in memory; what was used longest ago makes room (law 8)."""

    _max_count: int = MAX_PROVEN
    _max_bytes: int = MAX_PROVEN_BYTES
    used_bytes: int = 0
    _content: OrderedDict[Digest, bytes] = field(init=False, factory=OrderedDict)

    def recall(self, digest: Digest) -> bytes | None:
        """Return what is remembered."""
        data = self._content.get(digest)
        if data is not None:
            self._content.move_to_end(digest)
        return data

    def remember(self, digest: Digest, data: bytes) -> None:
        """Take content that is not here yet."""
        self.used_bytes += len(data) - len(self._content.pop(digest, b""))
        self._content[digest] = data
        while len(self._content) > self._max_count or self.used_bytes > self._max_bytes:
            self.used_bytes -= len(self._content.popitem(last=False)[1])


@define(eq=False)
class Proving:
    """Brings small content here.

    :ivar _slow_until_s: what was waited for in vain, and until when, by the clock, nobody waits for it again: one pull
        asks several times, and so do those that follow.
    """

    _forgetting: Forgetting
    _hashers: IWorkers
    _clock: IReactorTime
    _metrics: Metrics
    _proven: Proven = field(factory=Proven)
    _flights: Flights[bytes | None, None] = field(init=False, factory=Flights)
    _slow_until_s: OrderedDict[Digest, float] = field(init=False, factory=OrderedDict)

    async def bring(self, found: Elsewhere) -> Local | None:
        """Return it as content that is here; None says that it is too long for a manifest, or cannot be had."""
        size_bytes, digest = found.descriptor.size_bytes, found.descriptor.digest
        if size_bytes is not None and size_bytes > MAX_MANIFEST_BYTES:
            return None
        data = self._proven.recall(digest)
        if data is None and self._clock.seconds() >= self._slow_until_s.get(digest, 0.0):
            outcome, _ = await self._flights.join(digest, lambda: self._read(found))
            data = None if outcome is None else outcome.value
        if data is None:
            return None
        descriptor = evolve(found.descriptor, size_bytes=len(data))
        return Local(descriptor, found.headers, found.namespace, MemoryBody(data, promised=1), found.kept_at_s)

    async def _read(self, found: Elsewhere) -> Landed[bytes | None]:
        """Read for all who want it now; that it cannot be had is told to all as well."""
        try:
            data = await Deferred.fromCoroutine(self._collect(found)).addTimeout(READ_S, self._clock)
        except (StorageUnavailable, UpstreamUnreachable, BodyTooLong, TimeoutError) as error:
            if isinstance(error, TimeoutError) or (isinstance(error, UpstreamUnreachable) and error.timed_out):
                remember(self._slow_until_s, found.descriptor.digest, self._clock.seconds() + AGAIN_S, MAX_SLOW)
            return Landed(None)
        digest = found.descriptor.digest
        if data is None:
            return Landed(None)
        if await self._digest_of(data, digest.algorithm) != digest:
            self._metrics.storage_failed("read")
            self._forgetting.begin(digest)
            await self._forgetting.over(digest)
            return Landed(None)
        self._proven.remember(digest, data)
        return Landed(data)

    async def _collect(self, found: Elsewhere) -> bytes | None:
        response = await read_whole(found.place, found.descriptor.size_bytes)
        return None if response is None else await collect(response, MAX_MANIFEST_BYTES, self._clock, READ_S)

    async def _digest_of(self, data: bytes, algorithm: str) -> Digest:
        return cast(Digest, await self._hashers.run(Digest.of, data, algorithm))
