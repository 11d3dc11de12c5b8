"""Puts the doors together."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from txociproxy.envelopes import Envelopes
from txociproxy.metrics import Metrics
from txociproxy.upstreams.entries.table import LiveTable
from txociproxy.web.authorization import Reception
from txociproxy.web.lock import Lock
from txociproxy.web.pages import PageDesk, Pages
from txociproxy.web.pings import Pings
from txociproxy.web.pulls import Pulls
from txociproxy.web.resources import Desks, Root
from txociproxy.web.settings import WebSettings
from txociproxy.web.site import Census, DoorLimits, DoorSite
from txociproxy.web.streaming import Streams
from txociproxy.web.tokens import TokenEndpoint

if TYPE_CHECKING:
    from txociproxy.cache import Cache

# A few programs that look now and then.
ADMIN_LIMITS = DoorLimits(max_connections=64, max_connections_per_client=32)


def make_root(
    clock: IReactorTime,
    cache: Cache,
    table: LiveTable,
    envelopes: Envelopes,
    settings: WebSettings,
    metrics: Metrics | None = None,
    pages: Pages | None = None,
    lock: Lock | None = None,
) -> Root:
    """Return the root resource, which needs no particular site."""
    metrics = metrics or Metrics()
    reception = Reception(envelopes, settings.is_transparent, settings.owns_authorization)
    desks = Desks(
        Pings(cache, table, reception, settings),
        Pulls(cache, table, reception, Streams(clock, settings.client_stall_s, metrics), settings),
        TokenEndpoint(clock, cache, table, envelopes, settings),
        pages or Pages(),
        lock,
    )
    return Root(clock, desks, Logger(namespace="txociproxy.access"), settings, metrics)


def make_site(
    clock: IReactorTime,
    cache: Cache,
    table: LiveTable,
    envelopes: Envelopes,
    settings: WebSettings,
    now: Callable[[], float] | None = None,
    metrics: Metrics | None = None,
    pages: Pages | None = None,
    lock: Lock | None = None,
) -> DoorSite:
    """Return the factory to listen with; ``beside`` gives more of it for listeners that upstreams claim.

    :param now: seconds since the epoch, for the Date field; without it the clock tells them.
    """
    root = make_root(clock, cache, table, envelopes, settings, metrics, pages, lock)
    reached = (metrics or Metrics()).cap_reached
    census = Census(settings.limits, reached, settings.trusted_proxies)
    return DoorSite(root, clock, census, now=now, times=settings.times)


def make_admin(
    clock: IReactorTime, settings: WebSettings, now: Callable[[], float], metrics: Metrics, pages: Pages
) -> DoorSite:
    """Return the factory for the door of whoever runs the proxy, with few places, and no clients among them (RULES G5).

    :param now: seconds since the epoch, for the Date field.
    """
    root = Root(clock, PageDesk(pages), Logger(namespace="txociproxy.access"), settings, metrics)
    return DoorSite(root, clock, Census(ADMIN_LIMITS), now=now, times=settings.times)
