"""Every upstream of a table, each with connections of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.defer import Deferred, DeferredList

from txociproxy.interfaces import IWorkers
from txociproxy.upstreams.agents import Line, SystemTrust, open_line
from txociproxy.upstreams.entry import Entry
from txociproxy.upstreams.table import LiveTable
from txociproxy.upstreams.tokens import Tokens
from txociproxy.upstreams.upstream import Upstream
from txociproxy.upstreams.wire import Wire


class Upstreams:
    """Every upstream of a table, with its connections; nothing is connected before it is asked.

    :param reactor: IReactorTCP, IReactorTime, IReactorProcess and IReactorPluggableNameResolver.
    :param workers: for what blocks while credentials are read: files and SDKs.
    :param connect: how to make the way to an upstream, for tests.
    """

    def __init__(
        self, reactor: Any, table: LiveTable, workers: IWorkers, connect: Callable[[Entry], Line] | None = None
    ) -> None:
        self._table = table
        trust = SystemTrust()
        self._tokens = Tokens(reactor)
        self._lines: dict[str, Line] = {}
        upstreams: dict[str, Upstream] = {}
        for entry in table.current.entries:
            line = open_line(reactor, entry, trust) if connect is None else connect(entry)
            wire = Wire(line.agent, reactor, entry.user_agent, entry.max_connections)
            self._lines[entry.namespace] = line
            upstreams[entry.namespace] = Upstream(entry, wire, self._tokens, reactor)
        self._upstreams: Mapping[str, Upstream] = upstreams

    def upstream(self, namespace: str) -> Upstream | None:
        """Return the upstream of a canonical namespace, or None if it is not in the table."""
        return self._upstreams.get(namespace)

    def entry(self, namespace: str) -> Entry | None:
        """Return what is configured about a canonical namespace."""
        return self._table.current.entry(namespace)

    def stop(self) -> Deferred[None]:
        """End all asks for tokens and all connections; fires when none is open."""
        self._tokens.stop()
        return DeferredList([line.stop() for line in self._lines.values()]).addCallback(lambda _: None)
