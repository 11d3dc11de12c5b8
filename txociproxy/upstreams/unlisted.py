"""The upstreams that nobody has configured: made when they are asked, with connections and places of all together."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from txociproxy.metrics import Metrics
from txociproxy.remembering import remember
from txociproxy.upstreams.connecting.agents import Line
from txociproxy.upstreams.connecting.connections import UpstreamPool
from txociproxy.upstreams.connecting.telling import Telling
from txociproxy.upstreams.connecting.wire import Slots, Wire
from txociproxy.upstreams.entries.entry import Entry
from txociproxy.upstreams.entries.unlisted import MAX_ASKS, MAX_BODIES, MAX_UNLISTED, MAX_UNLISTED_TOKENS
from txociproxy.upstreams.tokens import Tokens
from txociproxy.upstreams.upstream import Upstream


class Unlisted:
    """The upstreams that nobody has configured: they share connections and places (RULES F1).

    :ivar tokens: apart from those of configured ones, which nobody can push out by inventing names.
    """

    def __init__(
        self,
        reactor: Any,
        open_one: Callable[[Entry, None, UpstreamPool], Line],
        telling_of: Callable[[str], Telling],
        metrics: Metrics,
    ) -> None:
        self._reactor = reactor
        self._open = open_one
        self._telling_of = telling_of
        self._metrics = metrics
        self._slots = Slots.of(MAX_BODIES, MAX_ASKS)
        self.tokens = Tokens(reactor, MAX_UNLISTED_TOKENS, metrics)
        self._pool = UpstreamPool(reactor, MAX_BODIES + MAX_ASKS)
        self._upstreams: OrderedDict[str, Upstream] = OrderedDict()

    def namespaces(self) -> tuple[str, ...]:
        """Return who has been asked lately."""
        return tuple(self._upstreams)

    def upstream(self, entry: Entry) -> Upstream:
        """Return the upstream of an entry.

        The one that was asked longest ago is forgotten for it; it has nothing of its own that would have to end.
        """
        upstream = self._upstreams.get(entry.namespace)
        if upstream is None:
            line = self._open(entry, None, self._pool)
            telling = self._telling_of(entry.namespace)
            wire = Wire(line.agent, self._reactor, entry.user_agent, self._slots, telling)
            upstream = Upstream(entry, wire, self.tokens, self._reactor, None)
        if remember(self._upstreams, entry.namespace, upstream, MAX_UNLISTED):
            self._metrics.cap_reached("unlisted_namespaces")
        return upstream

    def forget(self, namespaces: set[str]) -> None:
        """Forget some; the idle connections of all are closed, since they are nobody's in particular."""
        for namespace in namespaces:
            del self._upstreams[namespace]
        if namespaces:
            self._pool.closeCachedConnections()  # type: ignore[no-untyped-call]
