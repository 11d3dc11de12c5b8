"""Which upstreams there are: the shipped table, what the file says, and ``UPSTREAM_REGISTRY`` (RULES B6)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from attrs import evolve

from txociproxy.oci.errors import OCIError
from txociproxy.oci.names import canonical_namespace
from txociproxy.sources import ConfigError, Said, shown
from txociproxy.upstreams.table import Entry, UpstreamTable, entry_from_mapping, entry_from_url, shipped_entries
from txociproxy.web.doors import check_listen

_TIMEOUTS = ("connect_timeout_s", "silence_timeout_s")


def chosen_upstreams(
    said: Mapping[str, Said], mappings: Iterable[Any], values: Mapping[str, Any]
) -> tuple[tuple[Entry, ...], str]:
    """Return the table and its default namespace.

    :param said: where each setting was said, for messages.
    :param mappings: the ``upstreams`` of the file; each one takes the place of the shipped one of its namespace.
    :param values: what the settings say.
    :raises ConfigError: something is wrong.
    """
    timeouts: dict[str, Any] = {name: values[name] for name in _TIMEOUTS}
    configured = [_configured(mapping, timeouts) for mapping in mappings]
    if configured:
        _check(configured, configured[0].namespace)  # before they override: two of the same would hide one
    shipped = [evolve(entry, **timeouts) for entry in shipped_entries()] if values["shipped_upstreams"] else []
    table = {entry.namespace: entry for entry in [*shipped, *configured]}
    default = _default(said, values, table, timeouts)
    entries = tuple(table.values())
    _check(entries, default)
    return entries, default


def _configured(mapping: Any, timeouts: Mapping[str, Any]) -> Entry:
    """Read one item of the file; the timeouts of all upstreams count where it names none."""
    try:
        entry = entry_from_mapping({**timeouts, **mapping} if isinstance(mapping, Mapping) else mapping)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if entry.listen is not None:
        try:
            check_listen(entry.listen)
        except ValueError as error:
            raise ConfigError(f"upstreams[{entry.namespace}].listen: {error}") from error
    return entry


def _default(
    said: Mapping[str, Said], values: Mapping[str, Any], table: dict[str, Entry], timeouts: Mapping[str, Any]
) -> str:
    """Return the namespace of names that say none; a URL is added to the table if it is not there."""
    registry = values["upstream_registry"]
    if registry is None:
        if "default_namespace" in said:
            return _canonical(said["default_namespace"].where, values["default_namespace"])
        return next(iter(table)) if len(table) == 1 else str(values["default_namespace"])
    where = said["upstream_registry"].where
    if "default_namespace" in said:
        raise ConfigError(
            f"{where}: it names the default namespace, and so does {said['default_namespace'].where}; give one"
        )
    if "://" not in registry:
        return _canonical(where, registry)
    try:
        entry = evolve(entry_from_url(registry), **timeouts)
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from error
    same = [known for known in table.values() if entry.urls[0] in known.urls]
    if not same:
        table[entry.namespace] = entry
    return (same or [entry])[0].namespace


def _canonical(where: str, text: str) -> str:
    try:
        return canonical_namespace(text)
    except OCIError as error:
        raise ConfigError(f"{where}: {shown(text)} is not a namespace; write for example docker.io") from error


def _check(entries: Iterable[Entry], default: str) -> None:
    """Refuse two claims to the same name, and a default that is not there."""
    try:
        UpstreamTable(tuple(entries), default)
    except ValueError as error:
        raise ConfigError(f"upstreams: {error}") from error
