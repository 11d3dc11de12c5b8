"""The configuration: options, environment and file become one frozen value, or one clear sentence."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.util import find_spec
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Any, Literal

from attrs import frozen

from txociproxy.buckets import chosen_bucket
from txociproxy.doorways import chosen_doors
from txociproxy.namespaces import chosen_upstreams
from txociproxy.settings import SETTINGS, Setting
from txociproxy.sources import Said, Written, said_in_environment, said_in_file, said_in_options, shown
from txociproxy.storage.s3.settings import S3Settings
from txociproxy.upstreams.connecting.proxies import OutboundProxies
from txociproxy.upstreams.entries.table import Entry
from txociproxy.upstreams.logins.secret_files import read_regular
from txociproxy.web.passwords import read_users
from txociproxy.yamlfile import ConfigError

__all__ = ["Config", "ConfigError", "load", "unused_credentials"]

MIN_KEY_BYTES = 32


@frozen
class Config:
    """All that can be configured, checked; docs/configuration.md says what each one means.

    :ivar listen: in the words of an option; :func:`txociproxy.web.doors.parted` reads them.
    :ivar tls_cert, tls_key: both or none; none with ``generate_self_signed_tls``.
    :ivar trusted_proxies: whose word about clients is believed.
    :ivar admin_listen: None leaves metrics on the doors of clients.
    :ivar stale_if_error_s: None is unlimited.
    :ivar fs_root: absolute, as all paths here.
    :ivar s3: what is configured about the bucket; None where content is kept in ``fs_root``.
    :ivar spool_dir: where content waits for its upload; unused without a bucket.
    :ivar redirect_above_bytes: from which size on clients fetch blobs from the bucket; 0 is all, None is none.
    :ivar no_redirect: networks of clients that never do.
    :ivar upstreams: the table of namespaces, without duplicates.
    :ivar default_namespace: the namespace of one of the upstreams.
    :ivar unlisted: what becomes of all other namespaces.
    :ivar auth_cache_s: 0 in transparent mode.
    :ivar journal_stream: what systemd says about our standard output (systemd.exec(5), ``JOURNAL_STREAM``).
    :ivar outbound: the proxies of the environment, through which upstreams are reached.
    """

    mode: Literal["transparent", "authenticated"]
    config: str | None
    listen: tuple[str, ...]
    tls_cert: str | None
    tls_key: str | None
    tls_client_ca: str | None
    generate_self_signed_tls: bool
    tls_san: tuple[str, ...]
    htpasswd_file: str | None
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...]
    admin_listen: str | None
    public_url: str | None
    token_key_file: str | None
    storage_backend: str
    fs_root: str
    s3: S3Settings | None
    spool_dir: str
    redirect_above_bytes: int | None
    no_redirect: tuple[IPv4Network | IPv6Network, ...]
    adopt_store: bool
    min_free_fraction: float
    min_free_bytes: int
    upstreams: tuple[Entry, ...]
    default_namespace: str
    unlisted: Literal["public", "deny"]
    cache_tag_manifests: bool
    cache_latest_tag: bool
    tag_fresh_s: float
    tag_swr_s: float
    stale_if_error_s: float | None
    on_upstream_404: Literal["keep", "drop"]
    range_miss: Literal["auto", "fill", "relay"]
    auth_cache_s: float
    connect_timeout_s: float
    silence_timeout_s: float
    client_stall_s: float
    spool_stall_s: float
    header_timeout_s: float
    idle_timeout_s: float
    drain_timeout_s: float
    max_connections: int
    max_connections_per_client: int
    max_ingests: int
    max_ingests_per_namespace: int
    max_ingests_per_client: int
    max_lonely_ingests: int
    max_ingest_memory_bytes: int
    max_carried: int
    max_range_relays: int
    max_range_relays_per_digest: int
    log_level: str
    log_format: Literal["logfmt", "json"]
    outbound: OutboundProxies
    journal_stream: str | None = None


def load(
    options: Mapping[str, Any],
    environ: Mapping[str, str] | None = None,
    is_root: bool | None = None,
    default_mode: str | None = None,
) -> Config:
    """Make the configuration; an option wins over the environment, that over the file, that over the default.

    It reads files and changes nothing, so that a reload is the same call again.

    :param options: parsed options by name; None or empty where not given.
    :param environ: None is the process's own environment.
    :param is_root: for the default of fs_root; None asks the system.
    :param default_mode: the mode if nothing says one; None is an error then.
    :raises ConfigError: something is wrong.
    """
    environ = os.environ if environ is None else environ
    in_options, in_environment = said_in_options(options), said_in_environment(environ)
    file = in_options.get("config") or in_environment.get("config")
    in_file, written = said_in_file(_path_of(file)) if file else ({}, Written())
    said = {**in_file, **in_environment, **in_options}
    if default_mode is not None:
        said.setdefault("mode", Said("mode", (default_mode,)))
    _check_modes(said, in_options.get("mode"), in_environment.get("mode"))

    values: dict[str, Any] = {setting.name: _value(setting, said.get(setting.name)) for setting in SETTINGS}
    _check_key_file(values["token_key_file"], said)
    _check_users(values["htpasswd_file"], said)
    values.update(chosen_doors(values, said))
    values["outbound"] = _outbound(environ)
    values["journal_stream"] = environ.get("JOURNAL_STREAM")
    _check_access(values, said)
    if values["fs_root"] is None:
        values["fs_root"] = _default_root(environ, os.geteuid() == 0 if is_root is None else is_root)
    values.update(chosen_bucket(values, said, {**in_file, **in_options}, environ))
    upstreams, default_namespace = chosen_upstreams(said, written, values, environ)
    free = values.pop("min_free")
    values["max_ingest_memory_bytes"] = values.pop("max_ingest_memory")
    values["drain_timeout_s"] = values.pop("drain_timeout")
    for name in ("shipped_upstreams", "upstream_registry", "default_namespace"):
        values.pop(name)  # they are in the table now
    return Config(
        **values,
        upstreams=upstreams,
        default_namespace=default_namespace,
        min_free_fraction=free.fraction,
        min_free_bytes=free.at_least_bytes,
    )


def unused_credentials(config: Config) -> list[str]:
    """Return the namespaces whose own logins are not used: authenticated mode asks with the client's only."""
    if config.mode != "authenticated":
        return []
    return [entry.namespace for entry in config.upstreams if entry.account is not None]


def _path_of(file: Said) -> str:
    """Return where the file is, in the words of whoever named it.

    :raises ConfigError: it cannot be the name of a file.
    """
    file.read(next(setting for setting in SETTINGS if setting.name == "config"))
    return str(Path(file.texts[-1]).expanduser())


def _value(setting: Setting, said: Said | None) -> Any:
    """Return what was said, or the default; both are read alike."""
    if said is not None:
        return said.read(setting)
    return None if setting.default is None else Said("default", (setting.default,)).read(setting)


def _check_modes(said: Mapping[str, Said], option: Said | None, variable: Said | None) -> None:
    """Refuse two modes and none (RULES D6): the mode decides who may read, so nothing is guessed."""
    if "mode" not in said:
        raise ConfigError("--mode: not given; write --mode transparent, PROXY_MODE=transparent, or mode: transparent")
    if option and variable and option.texts[-1].lower() != variable.texts[-1].lower():
        raise ConfigError(
            f"--mode: {shown(option.texts[-1])}, but PROXY_MODE is {shown(variable.texts[-1])}; give one of them"
        )


def _outbound(environ: Mapping[str, str]) -> OutboundProxies:
    """Read the proxies through which upstreams are reached."""
    try:
        return OutboundProxies.from_environ(environ)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def _check_access(values: dict[str, Any], said: Mapping[str, Said]) -> None:
    """Settle what hangs on the mode and on outbound proxies.

    A proxy looks names up itself, so that nobody could check the address that it connects to (RULES F1).
    """
    is_authenticated, has_proxy = values["mode"] == "authenticated", values["outbound"].is_set
    if values["auth_cache_s"] > 0 and not is_authenticated:
        raise ConfigError(
            f"{said['auth_cache_s'].where}: counts in authenticated mode only; remove it, or use mode authenticated"
        )
    if values["unlisted"] is None:
        values["unlisted"] = "deny" if is_authenticated or has_proxy else "public"
    elif values["unlisted"] == "public" and has_proxy:
        raise ConfigError(
            f"{said['unlisted'].where}: 'public' is not possible with an outbound proxy (HTTPS_PROXY, HTTP_PROXY), "
            "behind which addresses cannot be checked; use deny and list the upstreams"
        )


def _check_key_file(name: str | None, said: Mapping[str, Said]) -> None:
    """Refuse a key that cannot be read or is too short; it is read again when it is needed."""
    if name is None:
        return
    where = said["token_key_file"].where
    try:
        length_bytes = len(read_regular(name, MIN_KEY_BYTES))
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "not a path"
        raise ConfigError(f"{where}: {name!r} cannot be read ({why}); name a file") from error
    if length_bytes < MIN_KEY_BYTES:
        raise ConfigError(f"{where}: {name!r} is too short; put {MIN_KEY_BYTES} random bytes into it")


def _check_users(name: str | None, said: Mapping[str, Said]) -> None:
    """Refuse a file of users that nobody could log in with."""
    if name is None:
        return
    where = said["htpasswd_file"].where
    if find_spec("bcrypt") is None:
        raise ConfigError(f"{where}: needs the package bcrypt; pip install 'txociproxy[htpasswd]'")
    try:
        read_users(name)
    except ValueError as error:
        raise ConfigError(f"{where}: {name!r} {error}") from None


def _default_root(environ: Mapping[str, str], is_root: bool) -> str:
    """Return where content is kept unless said (RULES G3)."""
    systemd = environ.get("CACHE_DIRECTORY", "").partition(":")[0]
    if systemd:
        return systemd
    if is_root:
        return "/var/cache/txociproxy"
    home = environ.get("XDG_CACHE_HOME") or str(Path(environ.get("HOME") or "~").expanduser() / ".cache")
    return str(Path(home).absolute() / "txociproxy")
