"""The table of upstreams, and which of them a request means (RULES B)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from attrs import define, field, frozen

from txociproxy.oci.errors import OCIError
from txociproxy.oci.names import Repository, canonical_namespace, looks_like_host
from txociproxy.upstreams.entries.entry import Entry
from txociproxy.upstreams.entries.reading import SHIPPED_URLS, entry_from_mapping, entry_from_url
from txociproxy.upstreams.entries.unlisted import denied, plain_name, public_name, unlisted_entry

__all__ = ["Entry", "Route", "UpstreamTable", "entry_from_mapping", "entry_from_url", "shipped_entries"]


def shipped_entries() -> tuple[Entry, ...]:
    """Return the registries that are known without configuration (RULES B6)."""
    return tuple(Entry(namespace, (url,)) for namespace, url in SHIPPED_URLS.items())


class Route(NamedTuple):
    """What a name in a request means.

    :ivar repository: as the upstream names it.
    :ivar bound: the namespace came from ``ns=``, the Host or the listener, not from the path: the client has
        another place to ask.
    """

    namespace: str
    repository: Repository
    entry: Entry
    bound: bool


@frozen
class UpstreamTable:
    """Every upstream that is served; anything else is DENIED, or asked as a stranger would.

    :ivar default: the namespace of names that say none.
    :ivar unlisted: what becomes of namespaces that are not in the table (RULES B6, F1).
    :raises ValueError: two entries claim the same, or the default is not in the table.
    """

    entries: tuple[Entry, ...]
    default: str = "docker.io"
    unlisted: Literal["public", "deny"] = "deny"
    _by_namespace: Mapping[str, Entry] = field(init=False, eq=False, repr=False)
    _by_host: Mapping[str, Entry] = field(init=False, eq=False, repr=False)

    @_by_namespace.default
    def _index_namespaces(self) -> Mapping[str, Entry]:
        return _unique("namespace", [(entry.namespace, entry) for entry in self.entries])

    @_by_host.default
    def _index_hosts(self) -> Mapping[str, Entry]:
        return _unique("hosts", [(host, entry) for entry in self.entries for host in entry.hosts])

    def __attrs_post_init__(self) -> None:
        if self.default not in self._by_namespace:
            raise ValueError(
                f"the default upstream {self.default!r} is not in the table: "
                f"add {{namespace: {self.default}}} to upstreams, or choose one of {', '.join(self._by_namespace)}"
            )
        _unique("listen", [(entry.listen, entry) for entry in self.entries if entry.listen is not None])

    def entry(self, namespace: str) -> Entry | None:
        """Return the entry of a canonical namespace."""
        return self._by_namespace.get(namespace)

    def by_host(self, host: str | None) -> Entry | None:
        """Return the entry that claims this Host, with or without its port."""
        if not host:
            return None
        name = host.lower()
        entry = self._by_host.get(name)
        return entry or self._by_host.get(name.rpartition(":")[0] if name[-1] != "]" else name)

    def by_listener(self, listener: str | None) -> Entry | None:
        """Return the entry that claims this listener."""
        return next((entry for entry in self.entries if listener and entry.listen == listener), None)

    def served(self, namespace: str) -> Entry | None:
        """Return the entry of a canonical namespace, also of one that is not in the table but may be asked."""
        try:
            return self.listed(namespace)
        except OCIError:
            return None

    def listed(self, namespace: str) -> Entry:
        """Return the entry of a namespace as a client wrote it; one that is not in the table has one if all may be.

        :raises OCIError: NAME_INVALID, or DENIED with the remedy.
        """
        entry = self._configured(namespace)
        if entry is not None:
            return entry
        if self.unlisted == "deny":
            raise denied(plain_name(namespace))
        return unlisted_entry(public_name(namespace))

    def bound(self, ns: str | None, host: str | None, listener: str | None = None) -> Entry | None:
        """Return the one upstream that a request without a name means (RULES C2), or None.

        :raises OCIError: as :meth:`listed`.
        """
        if ns:
            return self.listed(ns)
        return self._claimed(host, listener) or (self.entries[0] if len(self.entries) == 1 else None)

    def route(self, name: str, ns: str | None, host: str | None, listener: str | None = None) -> Route:
        """Say which repository of which upstream a name means (RULES B1 to B5, B7).

        :param name: everything between ``/v2/`` and the kind.
        :param ns: the raw value of ``ns=``; empty is absent.
        :param host: the one valid Host of the request.
        :raises OCIError: NAME_INVALID, or DENIED with the remedy.
        """
        claimed = None if ns else self._claimed(host, listener)
        if ns:
            entry = self.listed(ns)
            path = _without_namespace(name, entry.namespace)
        elif claimed is not None:
            entry, path = claimed, name
        else:
            entry, path = self._by_path(name)
        repository = entry.named(path)
        entry.check(repository)
        return Route(entry.namespace, repository, entry, bool(ns) or claimed is not None)

    def _claimed(self, host: str | None, listener: str | None) -> Entry | None:
        """Return the entry that the Host or the listener means; None if neither says anything (RULES B2).

        :raises OCIError: DENIED at the listener of an upstream that a reload has taken away: its connections are
            still open, and what clients show there is for nobody else.
        """
        entry = self.by_host(host) or self.by_listener(listener)
        if entry is None and listener:
            raise OCIError("DENIED", "no upstream has this listener any more; connect again")
        return entry

    def _by_path(self, name: str) -> tuple[Entry, str]:
        """Take the namespace from the first segment, if it is one (RULES B3, B4)."""
        first, _, rest = name.partition("/")
        default = self._by_namespace[self.default]
        if not rest:
            return default, name
        configured = self._configured(first)
        if configured is not None:
            return configured, rest
        if looks_like_host(first) and not default.dotted_repositories:
            return self.listed(first), rest
        return default, name

    def _configured(self, segment: str) -> Entry | None:
        try:
            return self.entry(canonical_namespace(segment))
        except OCIError:
            return None


@define(eq=False)
class LiveTable:
    """The table as it stands now; a reload puts another in its place."""

    current: UpstreamTable


def _without_namespace(name: str, namespace: str) -> str:
    """Drop a first segment that says the namespace again: containerd's ``override_path`` sends both (RULES B1)."""
    first, _, rest = name.partition("/")
    if not rest:
        return name
    try:
        return rest if canonical_namespace(first) == namespace else name
    except OCIError:
        return name


def _unique(key: str, pairs: list[tuple[str, Entry]]) -> Mapping[str, Entry]:
    found: dict[str, Entry] = {}
    for name, entry in pairs:
        if name in found:
            raise ValueError(f"{key} {name!r} is in two upstreams ({found[name].namespace} and {entry.namespace})")
        found[name] = entry
    return found
