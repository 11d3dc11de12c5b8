"""Caps: the bounds that all ingests share (RULES A5)."""

from __future__ import annotations

from collections.abc import Callable

from attrs import frozen
from twisted.internet.interfaces import IReactorTime

from txociproxy.slots import Slots


@frozen
class IngestCaps:
    """The bounds that all ingests share.

    :ivar lonely: how many may go on without a reader.
    :ivar memory_bytes: windows and outstanding bytes of all together.
    :ivar carried: how many of what lies elsewhere come through us; those of :attr:`total` are not among them.
    :ivar carried_per_client: None is half of them.
    :ivar carried_wait_s: how long one of these waits for its place: there is nobody else to ask.
    """

    total: int = 256
    per_namespace: int = 64
    per_client: int = 32
    lonely: int = 16
    memory_bytes: int = 256 * 1024 * 1024
    wait_s: float = 5.0
    carried: int = 512
    carried_per_client: int | None = None
    carried_wait_s: float = 20.0


def slots_of(caps: IngestCaps, clock: IReactorTime, reached: Callable[[str], object]) -> Slots:
    """Return the places of what is fetched from upstreams: in all, per namespace, per client.

    :param reached: called with the name of a cap that has its effect.
    """
    limits = (caps.total, caps.per_namespace, caps.per_client)
    names = ("max_ingests", "max_ingests_per_namespace", "max_ingests_per_client")
    return Slots("downloads", limits, clock, caps.wait_s, names, reached)


def carried_slots_of(caps: IngestCaps, clock: IReactorTime, reached: Callable[[str], object]) -> Slots:
    """Return the places of what lies elsewhere and comes through us: in all, per client.

    :param reached: as in :func:`slots_of`.
    """
    half = max(1, caps.carried // 2)
    limits = (caps.carried, half if caps.carried_per_client is None else caps.carried_per_client)
    # A client's share follows from the cap, and is no cap of its own.
    return Slots("downloads", limits, clock, caps.carried_wait_s, ("max_carried", "max_carried"), reached)
