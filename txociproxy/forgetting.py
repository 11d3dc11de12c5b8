"""Forgetting: content that turned out not to be what its digest says is taken out of the storage."""

from __future__ import annotations

from attrs import define, field
from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from txociproxy.flights import Flights, Landed
from txociproxy.interfaces import IStorage
from txociproxy.oci.errors import StorageUnavailable
from txociproxy.oci.names import Digest

PATIENCE_S = 5.0  # for a storage that does not forget; the pull goes on without


@define(eq=False)
class Forgetting:
    """Forgets, once for all who have seen the same wrong bytes."""

    _storage: IStorage
    _clock: IReactorTime
    _flights: Flights[None, None] = field(init=False, factory=Flights)

    log = Logger()

    def begin(self, digest: Digest) -> None:
        """Begin to forget this content; nobody has to wait for it."""
        Deferred.fromCoroutine(self._flights.join(digest, lambda: self._forget(digest))).addErrback(self._failed)

    async def over(self, digest: Digest) -> None:
        """Wait until what was begun has ended, so that good content which comes now is not forgotten with the bad."""
        if self._flights.is_flying(digest):
            await self._flights.join(digest, lambda: self._forget(digest))

    async def _forget(self, digest: Digest) -> Landed[None]:
        self.log.warn(
            "the storage has other bytes under {digest}; they are forgotten, and fetched again", digest=str(digest)
        )
        try:
            removing = Deferred.fromCoroutine(self._remove(digest)).addTimeout(PATIENCE_S, self._clock)
            await removing
        except (StorageUnavailable, TimeoutError) as error:
            self.log.warn(
                "the storage does not forget {digest}: {reason}",
                digest=str(digest),
                reason=str(error) or type(error).__name__,
            )
        return Landed(None)

    async def _remove(self, digest: Digest) -> None:
        await self._storage.remove(digest)

    def _failed(self, failure: Failure) -> None:
        self.log.failure("content could not be forgotten", failure)
