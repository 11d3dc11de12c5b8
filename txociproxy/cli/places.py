"""Where a running proxy can be asked: the doors of its configuration, as a client on the same machine reaches them."""

from __future__ import annotations

import os.path
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from attrs import frozen

# Whoever listens on all addresses is there too.  IPv6 comes second: a machine may be without it.
LOOPBACK: Final = ("127.0.0.1", "::1")
_HOST_AND_PORT: Final = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]*)):([0-9]{1,5})")
_TWISTED: Final = re.compile(r"(tcp|tcp4|tcp6|ssl):(?:port=)?([0-9]{1,5})((?::[A-Za-z]+=(?:\\.|[^:\\])*)*)")
_UNIX: Final = re.compile(r"unix:(/[^:]*)(?::.*)?")
_INTERFACE: Final = re.compile(r":interface=((?:\\.|[^:\\])*)")
_SETTINGS: Final = ("listen", "admin_listen", "tls_cert", "tls_client_ca", "generate_self_signed_tls")


@frozen
class Place:
    """A place to connect to.

    :ivar text: as a person would write it.
    :ivar hosts: names or addresses, tried one after another; none for a Unix socket.
    :ivar path: of a Unix socket.
    :ivar tls: whether TLS is spoken there.
    :ivar wants_certificate: whether clients have to show one.
    """

    text: str
    hosts: tuple[str, ...] = ()
    port: int = 0
    path: str | None = None
    tls: bool = False
    wants_certificate: bool = False


def place_of_url(url: str) -> Place:
    """Read ``http(s)://HOST[:PORT]`` or ``unix:/PATH``; a path behind the host is left out.

    :raises ValueError: it is something else; the text says what would do.
    """
    if url.startswith("unix:/"):
        return Place(url, path=url.removeprefix("unix:"))
    try:
        parts = urlsplit(url)
        port, host = parts.port, parts.hostname
    except ValueError:  # a port that is no number, half an IPv6 address
        host = None
    if not host or parts.scheme not in ("http", "https") or "@" in parts.netloc or not url.isprintable():
        raise ValueError("--url: write http://HOST:PORT, https://HOST:PORT or unix:/PATH")
    tls = parts.scheme == "https"
    return Place(f"{parts.scheme}://{parts.netloc}", (host,), port or (443 if tls else 80), tls=tls)


def places_said(options: Mapping[str, Any], environ: Mapping[str, str]) -> tuple[tuple[Place, ...], str | None]:
    """Return where the proxy of this configuration can be asked, best first, and what of it could not be read.

    Only the doors are read.  A running proxy keeps what it has when its file is broken later; then it is looked for
    where environment and options say, so that a slip of a pen does not get it restarted.

    :param options: ``config``, ``listen``, ``admin-listen``.
    :raises ConfigError: options or environment cannot be read.
    """
    # These bring Twisted's endpoints, which --url does without.
    from txociproxy.doorways import chosen_listen
    from txociproxy.settings import SETTINGS
    from txociproxy.sources import Said, said_in_environment, said_in_file, said_in_options
    from txociproxy.yamlfile import ConfigError

    said = {**said_in_environment(environ), **said_in_options(options)}
    trouble = None
    if "config" in said:
        try:
            said = {**said_in_file(os.path.expanduser(said["config"].texts[-1]))[0], **said}
        except ConfigError as error:
            trouble = str(error)
    values: dict[str, Any] = {}
    for setting in SETTINGS:
        if setting.name in _SETTINGS:
            default = None if setting.default is None else Said("default", (setting.default,)).read(setting)
            values[setting.name] = said[setting.name].read(setting) if setting.name in said else default
    values["listen"] = chosen_listen(values, said)
    return places_of(values), trouble


def places_of(values: Mapping[str, Any]) -> tuple[Place, ...]:
    """Return the doors that can be asked: that of whoever runs the proxy first, those that want certificates last."""
    from txociproxy.doorways import has_tls

    has, wants = has_tls(values), bool(values["tls_client_ca"])
    admin = [values["admin_listen"]] if values["admin_listen"] else []
    doors = [_door(text, has_tls=False, wants=wants) for text in admin]
    doors += [_door(text, has, wants) for text in values["listen"]]
    return tuple(sorted(filter(None, doors), key=lambda place: place.wants_certificate))


def _door(text: str, has_tls: bool, wants: bool) -> Place | None:
    """Return a door as its neighbours reach it; None for what only the process itself knows, as ``systemd:``."""
    from txociproxy.web.doors import parted, speaks_tls  # the same rule as at the doors themselves

    tls, place = speaks_tls(text, has_tls), parted(text)[1]
    unix = _UNIX.fullmatch(place)
    if unix is not None:
        return Place(text, path=unix[1], tls=tls, wants_certificate=tls and wants)
    found = _HOST_AND_PORT.fullmatch(place)
    if found is not None:
        return _at(text, found[1] or found[2] or "", int(found[3]), tls, wants)
    twisted = _TWISTED.fullmatch(place)
    if twisted is None:
        return None
    interface = _INTERFACE.search(twisted[3])
    host = interface[1].replace("\\", "") if interface else ""
    if not host and twisted[1] == "tcp6":
        host = "::"
    return _at(text, host, int(twisted[2]), tls or twisted[1] == "ssl", wants)


def _at(text: str, host: str, port: int, tls: bool, wants: bool) -> Place | None:
    """Return the place of an address; port 0 has become one that nobody here knows."""
    if not 0 < port <= 65_535:
        return None
    hosts: Iterable[str] = {"": LOOPBACK, "0.0.0.0": LOOPBACK[:1], "::": tuple(reversed(LOOPBACK))}.get(host, (host,))
    return Place(text, tuple(hosts), port, tls=tls, wants_certificate=tls and wants)
