"""The marker of a store, on disk or in a bucket: which layout it has, and for which mode it was made (RULES D4)."""

from __future__ import annotations

import json
from collections.abc import Callable

from twisted.logger import Logger

from txociproxy.oci.errors import StorageUnavailable
from txociproxy.storage.layout import VERSION

MAX_MARKER_BYTES = 64 * 1024
MODES = ("transparent", "authenticated")
log = Logger()


class NotOurs(StorageUnavailable):
    """The store belongs to the other mode or to another version, or its marker cannot be read."""


def marker_of(mode: str) -> bytes:
    """Return what a store of this mode is marked with."""
    return json.dumps({"layout": VERSION, "mode": mode}).encode("ascii")


def make_ours(
    data: bytes | None,
    mode: str,
    adopt: bool,
    put: Callable[[bytes], object],
    store: str,
    marker: str,
    remedy: str,
) -> None:
    """Mark a store as ours: one that is unmarked, or of the other mode and adopted; whatever ``put`` raises.

    :param data: its marker; None is that it has none.
    :param put: writes a marker.
    :param store, marker: their names for people.
    :param remedy: what to do with a store of the other mode.
    :raises NotOurs: it is another's.
    """
    owner = None if data is None else _owner(data, store, marker)
    if owner == mode:
        return
    if owner is not None and not adopt:
        raise NotOurs(f"{store} belongs to {owner} mode; {remedy}")
    put(marker_of(mode))
    if owner is not None:
        log.info(
            "{store} was a store of {owner} mode and belongs to {mode} mode now, with all that it keeps",
            store=store,
            owner=owner,
            mode=mode,
        )


def _owner(data: bytes, store: str, marker: str) -> str:
    """Return the mode that a marker names."""
    try:
        found = json.loads(data)
        version, owner = found["layout"], found["mode"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise NotOurs(f"{marker} cannot be read; remove it if the store is ours") from error
    if version != VERSION:
        raise NotOurs(f"{store} has layout {version!r}; this version knows {VERSION}")
    if owner not in MODES:
        raise NotOurs(f"{marker} names no mode that we know; remove it if the store is ours")
    return str(owner)
