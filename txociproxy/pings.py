"""Pings: what ``GET /v2/`` of one upstream answers (RULES C2)."""

from __future__ import annotations

from collections import OrderedDict
from typing import Never

from attrs import define, evolve, field, frozen
from twisted.internet.interfaces import IReactorTime

from txociproxy.asking import Asking
from txociproxy.flights import Flights, Landed
from txociproxy.interfaces import ANONYMOUS, Credentials, Relay
from txociproxy.oci.errors import OCIError, UpstreamUnreachable
from txociproxy.oci.headers import relayed
from txociproxy.remembering import remember

KEEP_S = 60.0
# How long it is remembered that there was no answer: clients ping before everything, and each would wait for it.
LOST_S = 10.0
MAX_KEPT = 512  # there may be unlisted ones
MAX_KEPT_BODY_BYTES = 4096  # what says more than an error of the spec is not repeated
GOOD = Relay(200, (("Content-Type", "application/json"),), b"{}")


@frozen
class _Kept:
    relay: Relay
    until_s: float


@define(eq=False)
class Pings:
    """Remembers each upstream's answer; a lost upstream is as good as an open one.

    :ivar _survives: whether the mode goes on without upstream.
    """

    _asking: Asking
    _clock: IReactorTime
    _survives: bool
    _kept: OrderedDict[str, _Kept] = field(factory=OrderedDict)
    _flights: Flights[Relay, Never] = field(factory=Flights)

    async def get(self, namespace: str, credentials: Credentials) -> Relay:
        """Return the answer of a configured namespace; only what anybody is told is remembered.

        :raises UpstreamUnreachable: it is lost, and the mode does not survive that.
        """
        if not credentials.is_anonymous:
            return (await self._answer(namespace, credentials))[0]
        kept = self._kept.get(namespace)
        if kept is not None and kept.until_s > self._clock.seconds():
            return kept.relay
        outcome, _ = await self._flights.join(namespace, lambda: self._ask(namespace))
        return outcome.value

    async def _ask(self, namespace: str) -> Landed[Relay]:
        relay, is_lost = await self._answer(namespace, ANONYMOUS)
        kept = _Kept(_short(relay), self._clock.seconds() + (LOST_S if is_lost else KEEP_S))
        remember(self._kept, namespace, kept, MAX_KEPT)
        return Landed(relay)

    async def _answer(self, namespace: str, credentials: Credentials) -> tuple[Relay, bool]:
        """Return what upstream says, and whether it is lost."""
        try:
            relay = await self._asking.relay(await self._asking.upstream(namespace).ping(credentials))
            is_lost = relay.status == 429 or relay.status >= 500
        except (UpstreamUnreachable, OCIError):
            if not self._survives:
                raise
            relay, is_lost = GOOD, True
        return (GOOD if is_lost and self._survives else relay), is_lost


def _short(relay: Relay) -> Relay:
    """Return what is remembered of an answer."""
    body = relay.body if len(relay.body) <= MAX_KEPT_BODY_BYTES else b""
    return evolve(relay, headers=relayed(relay.headers), body=body)
