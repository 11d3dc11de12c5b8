"""Every upstream of a table, each with connections of its own; those that are not listed share theirs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakSet

from attrs import field, frozen
from twisted.internet.defer import Deferred, DeferredList
from twisted.web.iweb import IPolicyForHTTPS

from txociproxy.interfaces import IWorkers
from txociproxy.metrics import Metrics
from txociproxy.upstreams.connecting.agents import Line, open_line
from txociproxy.upstreams.connecting.connections import UpstreamPool
from txociproxy.upstreams.connecting.proxies import OutboundProxies
from txociproxy.upstreams.connecting.telling import Telling
from txociproxy.upstreams.connecting.tls_files import TlsFiles
from txociproxy.upstreams.connecting.trust import SystemTrust, trust_of
from txociproxy.upstreams.connecting.wire import Slots, Wire
from txociproxy.upstreams.entries.entry import Entry
from txociproxy.upstreams.entries.table import LiveTable, UpstreamTable
from txociproxy.upstreams.entries.unlisted import MAX_UNLISTED
from txociproxy.upstreams.logins.accounts import Account, LoginSource
from txociproxy.upstreams.logins.sources import source_of
from txociproxy.upstreams.tokens import Tokens
from txociproxy.upstreams.unlisted import Unlisted
from txociproxy.upstreams.upstream import Upstream

Connect = Callable[[Entry], Line]
SourceOf = Callable[[Account, str, Any, IWorkers], LoginSource]


@frozen
class _Running:
    """A configured upstream, and what ends with it.

    :ivar files: what stood in its TLS files when it was made.
    """

    entry: Entry
    files: TlsFiles | None
    upstream: Upstream
    line: Line
    logins: LoginSource | None = field(repr=False)

    def end(self) -> None:
        """Close what is idle, and end what reads its login; bodies that run go on."""
        self.line.retire()
        if self.logins is not None:
            self.logins.stop()


class Upstreams:
    """Every upstream of a table, with its connections; nothing is connected before it is asked.

    :param reactor: IReactorTCP, IReactorTime, IReactorProcess and IReactorPluggableNameResolver.
    :param workers: for what blocks while credentials are read: files and SDKs.
    :param connect: how to make the way to an upstream, for tests.
    :param proxies: the outbound proxies, if any.
    :param logins: how to make the source of an account's logins, for tests.
    :param metrics: what is told about each request.
    :param traces: whether there is a log line, at level trace, for each request and each answer.
    :raises ValueError: the TLS files of an entry cannot be used.
    """

    def __init__(
        self,
        reactor: Any,
        table: LiveTable,
        workers: IWorkers,
        connect: Connect | None = None,
        proxies: OutboundProxies | None = None,
        logins: SourceOf = source_of,
        metrics: Metrics | None = None,
        traces: bool = False,
    ) -> None:
        self._metrics = metrics or Metrics()
        self._traces = traces
        self._reactor = reactor
        self._table = table
        self._workers = workers
        self._connect = connect
        self._source_of = logins
        self._proxies = proxies or OutboundProxies()
        self._trust: IPolicyForHTTPS = SystemTrust()
        # Also of upstreams that are gone, as long as a body of theirs runs.
        self._pools: WeakSet[UpstreamPool] = WeakSet()
        self._tokens = Tokens(reactor, metrics=self._metrics)
        self._unlisted = Unlisted(reactor, self._open, self._telling, self._metrics)
        self._running = {entry.namespace: self._made(entry) for entry in table.current.entries}

    def upstream(self, namespace: str) -> Upstream | None:
        """Return the upstream of a canonical namespace, or None if it is not served.

        One that is not listed is made when it is first asked, and may be forgotten for others (RULES A5).
        """
        running = self._running.get(namespace)
        if running is not None:
            return running.upstream
        entry = self._table.current.served(namespace)
        return None if entry is None else self._unlisted.upstream(entry)

    def entry(self, namespace: str) -> Entry | None:
        """Return what is configured about a canonical namespace, or holds for it without; None is not served."""
        return self._table.current.served(namespace)

    def turn_to(self, table: UpstreamTable) -> None:
        """Put another table in place of the one that holds.

        Entries that are the same, with the same TLS files, keep their upstream, connections and tokens; all others
        are made anew.  Bodies that run go on.

        :raises ValueError: the TLS files of an entry cannot be used; then nothing has changed.
        """
        running = {entry.namespace: self._kept(entry) or self._made(entry) for entry in table.entries}
        gone = [old for name, old in self._running.items() if running.get(name) is not old]
        self._running = running
        self._table.current = table
        self._unlisted.forget({name for name in self._unlisted.namespaces() if not self._is_unlisted(name)})
        for old in gone:
            old.end()

    def uses(self) -> dict[str, tuple[float, float]]:
        """Return how much of each cap is taken, and how much it allows (RULES A5): the fuller of the two of tokens."""
        tokens = max((self._tokens.use, self._unlisted.tokens.use), key=lambda use: use[0] / use[1])
        return {"tokens": tokens, "unlisted_namespaces": (len(self._unlisted.namespaces()), MAX_UNLISTED)}

    def stop(self) -> Deferred[None]:
        """End all asks for tokens and logins, and all connections; fires when none is open."""
        for tokens in (self._tokens, self._unlisted.tokens):
            tokens.stop()
        for running in self._running.values():
            running.end()
        return DeferredList([pool.stop() for pool in tuple(self._pools)]).addCallback(lambda _: None)

    def _is_unlisted(self, namespace: str) -> bool:
        entry = self._table.current.served(namespace)
        return entry is not None and not entry.is_listed

    def _kept(self, entry: Entry) -> _Running | None:
        """Return the upstream that this entry has already, if nothing about it has changed."""
        old = self._running.get(entry.namespace)
        if old is None or old.entry != entry or old.files != _files(entry):
            return None
        return old

    def _made(self, entry: Entry) -> _Running:
        files = _files(entry)
        line = self._open(entry, trust_of(entry, files, self._trust), None)
        account = entry.account
        logins = None if account is None else self._source_of(account, entry.urls[0], self._reactor, self._workers)
        slots = Slots.of(entry.max_connections)
        wire = Wire(line.agent, self._reactor, entry.user_agent, slots, self._telling(entry.namespace))
        upstream = Upstream(entry, wire, self._tokens, self._reactor, logins)
        return _Running(entry, files, upstream, line, logins)

    def _telling(self, namespace: str) -> Telling:
        return Telling(namespace, self._metrics, self._traces)

    def _open(self, entry: Entry, trust: IPolicyForHTTPS | None, pool: UpstreamPool | None) -> Line:
        if self._connect is not None:
            line = self._connect(entry)
        else:
            line = open_line(self._reactor, entry, trust or self._trust, self._proxies, pool)
        if line.pool is not None:
            self._pools.add(line.pool)
        return line


def _files(entry: Entry) -> TlsFiles | None:
    """Read the TLS files of an entry.

    :raises ValueError: they cannot be used.
    """
    if entry.tls is None:
        return None
    try:
        return TlsFiles.read(entry.tls)
    except ValueError as error:
        raise ValueError(f"upstreams[{entry.namespace}].{error}") from None
