"""Ages: kept blobs that the owner wants to be confirmed after a while (``blob_invalidation_time``)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from attrs import define, field

from txociproxy.answers import fields_of
from txociproxy.asking import Asking
from txociproxy.flights import Flights, Landed
from txociproxy.interfaces import Ask, Elsewhere, Local, Relay
from txociproxy.oci.errors import OCIError, UpstreamUnreachable
from txociproxy.oci.names import Digest, Repository
from txociproxy.remembering import remember

MAX_CONFIRMED = 10_000
QUIET_S = 30.0  # how long a lost upstream is not asked again about the same blob

Key = tuple[str, Repository, Digest]


class Doubt(NamedTuple):
    """A kept blob that is older than the owner wants to believe."""

    ask: Ask
    key: Key
    limit_s: float


@define(eq=False)
class Ages:
    """Asks whether the upstream still has an old blob; the bytes are proven, so they are never fetched again.

    :ivar _now: seconds since the epoch.
    """

    _asking: Asking
    _now: Callable[[], float]
    _good_until_s: OrderedDict[Key, float] = field(init=False, factory=OrderedDict)
    _flights: Flights[None, Relay] = field(init=False, factory=Flights)

    def doubt(self, ask: Ask, digest: Digest, found: Local | Elsewhere) -> Doubt | None:
        """Return what is to be asked before a kept blob is served; nothing, as long as it is young enough."""
        entry = self._asking.entry(ask.pull.namespace)
        limit_s = None if entry is None else entry.blob_invalidation_time_s
        if limit_s is None:
            return None
        key = (ask.pull.namespace, ask.pull.repository, digest)
        return None if self._is_good(key, found, limit_s) else Doubt(ask, key, limit_s)

    async def gone(self, doubt: Doubt) -> Relay | None:
        """Return the upstream's own words when it has the blob no more; None lets the kept one be served.

        A lost upstream, or one that refuses this client, says nothing about the blob.
        """
        ask, key, limit_s = doubt
        asked = self._flights.join(key, lambda: self._ask(ask, key, limit_s))
        try:
            outcome, _ = await self._asking.in_time(ask.pull.namespace, asked)
        except (UpstreamUnreachable, OCIError):
            self._remember(key, self._now() + QUIET_S)
            return None
        return outcome if isinstance(outcome, Relay) and outcome.status == 404 else None

    async def _ask(self, ask: Ask, key: Key, limit_s: float) -> Landed[None] | Relay:
        """Ask once for all who want it now; a refusal is this client's own (law 7)."""
        response = await self._asking.head(ask, ask.pull, stale=True)
        if response.code != 404:
            self._remember(key, self._now() + (limit_s if response.code == 200 else QUIET_S))
        return Landed(None) if response.code == 200 else Relay(response.code, fields_of(response), b"")

    def _is_good(self, key: Key, found: Local | Elsewhere, limit_s: float) -> bool:
        now_s = self._now()
        if self._good_until_s.get(key, 0.0) > now_s:
            return True
        # A time that is not known, or lies ahead, is old.
        return found.kept_at_s is not None and 0 <= now_s - found.kept_at_s <= limit_s

    def _remember(self, key: Key, until_s: float) -> None:
        remember(self._good_until_s, key, until_s, MAX_CONFIRMED)
