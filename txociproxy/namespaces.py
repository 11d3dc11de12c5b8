"""Which upstreams there are: the shipped table, what the file says, and ``UPSTREAM_REGISTRY`` (RULES B6)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from attrs import evolve

from txociproxy.doorways import check_tls
from txociproxy.oci.errors import OCIError
from txociproxy.oci.names import canonical_namespace
from txociproxy.sources import Said, Written, shown
from txociproxy.upstreams.entries.check import check_entry
from txociproxy.upstreams.entries.read_account import accounts_from_json
from txociproxy.upstreams.entries.reading import EntryError, without_userinfo
from txociproxy.upstreams.entries.table import Entry, UpstreamTable, entry_from_mapping, entry_from_url, shipped_entries
from txociproxy.upstreams.logins.accounts import Password
from txociproxy.web.doors import check_listen
from txociproxy.yamlfile import ConfigError

_TIMEOUTS = ("connect_timeout_s", "silence_timeout_s")
_CREDENTIALS = "UPSTREAM_CREDENTIALS"


def chosen_upstreams(
    said: Mapping[str, Said], written: Written, values: Mapping[str, Any], environ: Mapping[str, str]
) -> tuple[tuple[Entry, ...], str]:
    """Return the table and its default namespace.

    :param said: where each setting was said, for messages.
    :param written: the ``upstreams`` of the file; each one takes the place of the shipped one of its namespace.
    :param values: what the settings say.
    :param environ: what entries name of it, and ``UPSTREAM_CREDENTIALS``.
    :raises ConfigError: something is wrong.
    """
    timeouts: dict[str, Any] = {name: values[name] for name in _TIMEOUTS}
    configured = _configured(written, timeouts, values, environ)
    shipped = [evolve(entry, **timeouts) for entry in shipped_entries()] if values["shipped_upstreams"] else []
    table = {entry.namespace: entry for entry in [*shipped, *configured]}
    default = _default(said, values, table, timeouts)
    _apply_accounts(table, environ.get(_CREDENTIALS, "").strip(), written, configured)
    entries = tuple(table.values())
    here = f"{written.place() if written.path else ''}upstreams"
    where = next((said[name].where for name in ("upstream_registry", "default_namespace") if name in said), here)
    _check(where, entries, default)
    return entries, default


def _configured(
    written: Written, timeouts: Mapping[str, Any], values: Mapping[str, Any], environ: Mapping[str, str]
) -> list[Entry]:
    """Read the items of the file; the timeouts of all upstreams count where one names none."""
    entries: list[Entry] = []
    for place, mapping in enumerate(written.items):
        try:
            entry = entry_from_mapping({**timeouts, **mapping} if isinstance(mapping, Mapping) else mapping, environ)
            check_entry(entry)
        except EntryError as error:
            raise ConfigError(f"{written.place(place, *error.at)}{error}") from None
        if entry.listen is not None:
            try:
                check_listen(entry.listen)
                check_tls(entry.listen, values)
            except ValueError as error:
                where = f"{written.place(place, 'listen')}upstreams[{entry.namespace}].listen"
                raise ConfigError(f"{where}: {without_userinfo(error)}") from error
        entries.append(entry)
        # Before they override shipped ones: two of the same would hide one.
        _check(f"{written.place(place)}upstreams", entries, entries[0].namespace)
    return entries


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
    if same:
        return same[0].namespace
    if entry.namespace in table:
        # Taking its place would drop what is configured about it: who may pull what, and whose credentials it sees.
        raise ConfigError(
            f"{where}: {shown(registry)} would be the upstream {entry.namespace}, which is in the table with other "
            f"urls; write {entry.namespace}, or give its entry this URL"
        )
    table[entry.namespace] = entry
    return entry.namespace


def _apply_accounts(table: dict[str, Entry], content: str, written: Written, configured: list[Entry]) -> None:
    """Put the logins of ``UPSTREAM_CREDENTIALS`` into the table; no value of it is ever shown."""
    for namespace, account in _accounts(content).items():
        entry = table.get(namespace)
        if entry is None:
            raise ConfigError(
                f"{_CREDENTIALS}: {namespace} is not an upstream; add {{namespace: {namespace}}} to upstreams"
            )
        if entry.account is not None:
            place = written.place(configured.index(entry), "credentials")
            raise ConfigError(
                f"{_CREDENTIALS}: {namespace} has a login there, and at {place}upstreams[{namespace}].credentials "
                "too; keep one of them"
            )
        table[namespace] = evolve(entry, account=account)


def _accounts(content: str) -> dict[str, Password]:
    """Return the logins of ``UPSTREAM_CREDENTIALS``; empty is none."""
    try:
        return accounts_from_json(content) if content else {}
    except ValueError as error:
        raise ConfigError(f"{_CREDENTIALS}: {error}") from None


def _canonical(where: str, text: str) -> str:
    try:
        return canonical_namespace(text)
    except OCIError as error:
        raise ConfigError(f"{where}: {shown(text)} is not a namespace; write for example docker.io") from error


def _check(where: str, entries: Iterable[Entry], default: str) -> None:
    """Refuse two claims to the same name, and a default that is not there."""
    try:
        UpstreamTable(tuple(entries), default)
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from error
