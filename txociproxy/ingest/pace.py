"""How fast an arriving body may come: whether upstream has to wait, and what memory may let go (law 5).

With a living spool no reader counts: upstream waits only for the spool and the hash, and only when they are far behind.
Without one the window follows the fastest reader.  Slower ones share a patience of ``laggard_s``: while upstream waits
for them, and the fastest for upstream, it runs out; it is filled up again only when nobody is far behind any more, so
that a little progress now and then buys nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import define, field
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from txociproxy.ingest.holding import Holding, stopped
from txociproxy.ingest.limits import IngestLimits


@define(eq=False)
class Pace:
    """Sets the pace of one ingest.

    :ivar _over_budget: whether all ingests together hold too much memory.
    :ivar _lost_patience: called when laggards need not be waited for any longer.
    :ivar is_short: whether upstream has to wait now for what all ingests together hold, not for this one alone.
    """

    _holding: Holding
    _limits: IngestLimits
    _clock: IReactorTime
    _over_budget: Callable[[], bool]
    _lost_patience: Callable[[], None]
    is_short: bool = field(default=False, init=False)
    _patience_s: float = field(init=False)
    _since_s: float = field(default=0.0, init=False)
    _timer: IDelayedCall | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self._patience_s = self._limits.laggard_s

    def must_wait(self, needs: Sequence[int], released_bytes: int, unhashed_bytes: int) -> bool:
        """Say whether upstream has to wait, and let go of memory that nobody in time needs.

        :param needs: the offsets at which readers are.
        :param released_bytes: how far readers may come at all.
        """
        self.is_short = False
        alive = self._holding.spool is not None
        waits = self._waits_for_spool() if alive else self._waits_for_readers(needs, released_bytes)
        self._let_go(needs)
        return waits or self._too_much(unhashed_bytes)

    def rest(self, needs: Sequence[int]) -> None:
        """Nothing comes now: nobody is waited for, and nobody is in time or late."""
        self._be_patient(False)
        self._let_go(needs)

    def _let_go(self, needs: Sequence[int]) -> None:
        keep_from = self._holding.received_bytes - self._limits.window_bytes
        needed_from = self._reachable(needs) if self._holding.spool is None else [self._holding.flushed_bytes]
        self._holding.trim(min([keep_from, *needed_from]))

    def _waits_for_spool(self) -> bool:
        self._be_patient(False)
        return self._too_much(self._holding.received_bytes - self._holding.flushed_bytes)

    def _too_much(self, behind_bytes: int) -> bool:
        """Say whether so much may not be outstanding, with a look at what all ingests hold together."""
        if behind_bytes > self._limits.outstanding_bytes:
            return True
        self.is_short = behind_bytes > self._limits.window_bytes and self._over_budget()
        return self.is_short

    def _waits_for_readers(self, needs: Sequence[int], released_bytes: int) -> bool:
        tip, window_bytes = self._holding.received_bytes, self._limits.window_bytes
        reachable = self._reachable(needs)
        slowest, fastest = min(reachable, default=tip), max(reachable, default=tip)
        if tip - slowest <= window_bytes // 2:
            self._be_patient(False)
            self._patience_s = self._limits.laggard_s
        waits = tip - slowest > window_bytes
        delays_others = waits and fastest >= released_bytes - window_bytes // 2
        if delays_others and self._patience_s <= 0:
            self._holding.trim(tip - window_bytes // 2)
            return False
        self._be_patient(delays_others)
        return waits

    def _reachable(self, needs: Sequence[int]) -> list[int]:
        """Return from where readers need memory; what a dead spool holds they do not need."""
        flushed_bytes, start_bytes = self._holding.flushed_bytes, self._holding.start_bytes
        return [max(need, flushed_bytes) for need in needs if max(need, flushed_bytes) >= start_bytes]

    def _be_patient(self, needed: bool) -> None:
        if needed and self._timer is None:
            self._since_s = self._clock.seconds()
            self._timer = self._clock.callLater(self._patience_s, self._run_out)
        elif not needed and self._timer is not None:
            self._patience_s -= self._clock.seconds() - self._since_s
            self._timer = stopped(self._timer)

    def _run_out(self) -> None:
        self._timer = None
        self._patience_s = 0.0
        self._lost_patience()
