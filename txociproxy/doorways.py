"""What is configured about the doors, and what of it cannot be together."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from txociproxy.interfaces import IWorkers
from txociproxy.sources import Said
from txociproxy.web.doors import parted
from txociproxy.web.tls.certificates import DoorTls
from txociproxy.web.tls.files import TlsPaths, TlsTrouble
from txociproxy.web.tls.selfmade import self_made
from txociproxy.yamlfile import ConfigError

if TYPE_CHECKING:  # it is made with the help of this room
    from txociproxy.config import Config

SELF_SIGNED_LISTEN = (":8443",)


def chosen_doors(values: Mapping[str, Any], said: Mapping[str, Said]) -> dict[str, Any]:
    """Return what changes of the values: where to listen, and lists that may be absent.

    :param values: all settings by name.
    :param said: where each one was said that was.
    :raises ConfigError: something is wrong or missing.
    """
    _check_certificate(values, said)
    _check_others(values, said)
    _check_files(values, said)
    listen = chosen_listen(values, said)
    for place in (*listen, *filter(None, [values["admin_listen"]])):
        try:
            check_tls(place, values)
        except ValueError as error:
            raise ConfigError(f"listen: {error}") from None
    return {
        "listen": listen,
        "tls_san": tuple(values["tls_san"] or ()),
        "trusted_proxies": tuple(values["trusted_proxies"] or ()),
    }


def chosen_listen(values: Mapping[str, Any], said: Mapping[str, Said]) -> tuple[str, ...]:
    """Return where clients connect: what was said, else what suits a certificate that is made at the start."""
    is_made = values["generate_self_signed_tls"] and "listen" not in said
    return SELF_SIGNED_LISTEN if is_made else tuple(values["listen"])


def has_tls(values: Mapping[str, Any]) -> bool:
    """Say whether there is a certificate."""
    return bool(values["tls_cert"] or values["generate_self_signed_tls"])


def check_tls(place: str, values: Mapping[str, Any]) -> None:
    """Judge what a door says of TLS, also one of a single upstream.

    :raises ValueError: it needs a certificate that is not there, or would let in clients without one of theirs.
    """
    scheme, bare = parted(place)
    if scheme == "https" and not has_tls(values):
        raise ValueError(
            f"{place!r} needs a certificate; give --tls-cert and --tls-key, or GENERATE_SELF_SIGNED_TLS=true for "
            "development"
        )
    if values["tls_client_ca"] and bare.removeprefix("haproxy:").startswith("ssl:"):
        raise ValueError(f"{place!r} is Twisted's own TLS, which knows nothing of tls_client_ca; say https://HOST:PORT")


def _check_certificate(values: Mapping[str, Any], said: Mapping[str, Said]) -> None:
    """Take a certificate with its key, or one that is made, not both and no half."""
    for one, other in (("tls_cert", "tls_key"), ("tls_key", "tls_cert")):
        if values[one] and not values[other]:
            raise ConfigError(f"{said[one].where}: needs {other} beside it")
    if values["tls_cert"] and values["generate_self_signed_tls"]:
        raise ConfigError(f"{said['generate_self_signed_tls'].where}: there is a tls_cert already; remove one of them")
    if values["tls_client_ca"] and not has_tls(values):
        raise ConfigError(f"{said['tls_client_ca'].where}: counts where TLS is spoken only; give tls_cert and tls_key")
    if values["tls_san"] and not values["generate_self_signed_tls"]:
        raise ConfigError(f"{said['tls_san'].where}: counts with generate_self_signed_tls only; remove it")


def _check_files(values: Mapping[str, Any], said: Mapping[str, Said]) -> None:
    """Refuse files that no door could use; they are read again when the doors open, and from then on."""
    paths = TlsPaths(values["tls_cert"], values["tls_key"], values["tls_client_ca"])
    try:
        contents = paths.read()
        if paths.cert is None:
            contents.authorities()
        else:
            contents.identity()
    except TlsTrouble as trouble:
        raise ConfigError(f"{said[trouble.setting].where}: {trouble}") from None


def door_tls(config: Config, clock: Any, workers: IWorkers) -> DoorTls | None:
    """Return the TLS of the doors; None if they speak none.  Blocks.

    :param workers: threads in which files are read again.
    :raises ValueError: a file has changed since it was checked.
    """
    made = self_made(config.tls_san, datetime.now(UTC)) if config.generate_self_signed_tls else None
    if made is None and config.tls_cert is None:
        return None
    paths = TlsPaths(config.tls_cert, config.tls_key, config.tls_client_ca)
    try:
        return DoorTls(paths, made, workers, clock, time.time, config.header_timeout_s)
    except TlsTrouble as trouble:
        raise ValueError(f"--{trouble.setting.replace('_', '-')}: {trouble}") from None


def _check_others(values: Mapping[str, Any], said: Mapping[str, Said]) -> None:
    """Refuse what takes the client's Authorization away from a mode that lives on it (RULES C6)."""
    for name in ("htpasswd_file", "tls_client_ca"):
        if values[name] and values["mode"] == "authenticated":
            raise ConfigError(
                f"{said[name].where}: cannot be in authenticated mode, which asks upstreams with what clients send as "
                "Authorization; use mode transparent, or put this check into a proxy in front"
            )
