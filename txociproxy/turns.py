"""Turns: before content is fetched, another process on the same storage that is at it may be first."""

from __future__ import annotations

from attrs import define, field

from txociproxy.flights import Flights, Landed
from txociproxy.interfaces import IStorage
from txociproxy.oci.names import Digest


@define(eq=False)
class Turns:
    """Waits once for all who want the same content; whoever leaves takes nobody along."""

    _storage: IStorage
    _flights: Flights[bool, None] = field(init=False, factory=Flights)

    async def await_turn(self, digest: Digest) -> bool:
        """Say whether somebody was waited for, so that it pays to look again; see :meth:`IStorage.await_turn`."""
        outcome, _ = await self._flights.join(digest, lambda: self._ask(digest))
        return outcome is not None and outcome.value

    def leave(self, digest: Digest) -> None:
        """Nobody here fetches it; see :meth:`IStorage.leave_turn`."""
        self._storage.leave_turn(digest)

    async def _ask(self, digest: Digest) -> Landed[bool]:
        return Landed(await self._storage.await_turn(digest))
