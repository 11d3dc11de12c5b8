"""Circuit breakers: an origin that has not answered for some time is left alone for a while (RULES D8)."""

from __future__ import annotations

from collections import OrderedDict
from math import ceil, inf

from attrs import define, field
from twisted.internet.interfaces import IReactorTime

from txociproxy.remembering import remember
from txociproxy.upstreams.connecting.failures import LeftAlone
from txociproxy.upstreams.origins import Origin

# RULES D8.
FAILURES = 5
OPEN_S = 10.0
MAX_ORIGINS = 256
# A slow origin is not a dead one: asks that gave up after 2 s must not fail those that can wait for 30 s.
_MORE_PATIENT = 2.0


@define(eq=False)
class _State:
    """What is known of an origin that has failed.

    :ivar failures: in a row, without an answer between.
    :ivar waited_s: the longest that one of them waited; infinite where the failure was plain.
    :ivar probe: the one request that is out to see whether it answers again.
    """

    failures: int = 0
    waited_s: float = 0.0
    failed_at_s: float = -inf
    open_until_s: float = 0.0
    probe: Attempt | None = None


@define(eq=False)
class Breakers:
    """The breakers of one entry, one per origin."""

    _clock: IReactorTime
    _states: OrderedDict[Origin, _State] = field(init=False, factory=OrderedDict)

    def is_down(self, origin: Origin) -> bool:
        """Whether a request would fail at once; False lets the next one find out."""
        return self._closed_for_s(origin) is not None

    def is_doubtful(self, origin: Origin) -> bool:
        """Whether the last request was in vain a short while ago, or the next one would be."""
        state = self._states.get(origin)
        if state is None:
            return False
        return self.is_down(origin) or self._clock.seconds() - state.failed_at_s < OPEN_S

    def check(self, origin: Origin, patience_s: float) -> None:
        """Let a request go on that may be sent.

        :param patience_s: how long it can wait for an answer.
        :raises UpstreamUnreachable: it would be in vain.
        """
        closed_for_s = self._closed_for_s(origin)
        if closed_for_s is not None and patience_s <= _MORE_PATIENT * self._states[origin].waited_s:
            raise LeftAlone(f"{origin} has not answered lately; it is asked again in {max(1, ceil(closed_for_s))} s")

    def begin(self, origin: Origin, patience_s: float) -> Attempt:
        """Count a request that is sent now; exactly one method of what is returned is called at its end.

        :raises UpstreamUnreachable: as :meth:`check`.
        """
        self.check(origin, patience_s)
        attempt = Attempt(self, origin, self._clock.seconds())
        state = self._states.get(origin)
        if state is not None and state.failures >= FAILURES and state.probe is None and not self.is_down(origin):
            state.probe = attempt
        return attempt

    def _closed_for_s(self, origin: Origin) -> float | None:
        """Return for how long nothing is sent; None if the next request may go."""
        state = self._states.get(origin)
        if state is None or state.failures < FAILURES:
            return None
        left_s = state.open_until_s - self._clock.seconds()
        return left_s if left_s > 0 or state.probe is not None else None

    def answered(self, attempt: Attempt) -> None:
        """Forget all failures of an origin."""
        self._states.pop(attempt.origin, None)

    def failed(self, attempt: Attempt, has_expired: bool) -> None:
        """Count a failure; the last of a row, and that of a probe, close the origin for a while."""
        state = self._states.get(attempt.origin) or _State()
        remember(self._states, attempt.origin, state, MAX_ORIGINS)
        now_s = self._clock.seconds()
        state.failures += 1
        state.failed_at_s = now_s
        state.waited_s = max(state.waited_s, now_s - attempt.began_s if has_expired else inf)
        if state.failures == FAILURES or state.probe is attempt:
            state.open_until_s = now_s + OPEN_S
        self.left(attempt)

    def left(self, attempt: Attempt) -> None:
        """Count nothing; if it was the probe, the next request takes its place."""
        state = self._states.get(attempt.origin)
        if state is not None and state.probe is attempt:
            state.probe = None


@define(eq=False)
class Attempt:
    """One request on its way."""

    _breakers: Breakers
    origin: Origin
    began_s: float

    def answered(self) -> None:
        """An answer came, whatever its status."""
        self._breakers.answered(self)

    def failed(self, has_expired: bool) -> None:
        """None came: no connection, no TLS, no first byte.

        :param has_expired: because nobody wanted to wait longer.
        """
        self._breakers.failed(self, has_expired)

    def left(self) -> None:
        """Nothing was learned: the client left, or the guard refused."""
        self._breakers.left(self)
