"""What is done to a root before the first listen: is it ours, what did dead processes leave, can we write."""

from __future__ import annotations

import errno
import json
import secrets

from twisted.logger import Logger

from txociproxy.oci.errors import StorageUnavailable
from txociproxy.storage.files import Files, put
from txociproxy.storage.layout import VERSION, Layout

MAX_MARKER_BYTES = 64 * 1024
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
MODES = ("transparent", "authenticated")
log = Logger()


def prepare(files: Files, layout: Layout, mode: str, adopt: bool = False) -> None:
    """Make the root ready; blocks.

    :param adopt: take over a store of the other mode, with all that it keeps (RULES D4).

    :raises StorageUnavailable: the root cannot be written, or belongs to another mode or version.
    """
    try:
        files.make_directory(layout.ingest)
        lock = files.lock_directory(layout.root)  # of two that begin on a fresh root, the second one sees the marker
        try:
            _check_marker(files, layout, mode, adopt)
        finally:
            files.close(lock)
        _remove_orphans(files, layout)
        _check_writable(files, layout)
    except OSError as error:
        why = error.strerror or error
        raise StorageUnavailable(f"cannot write to {layout.root}: {why}; name a directory we can write") from error


def _check_marker(files: Files, layout: Layout, mode: str, adopt: bool) -> None:
    """Refuse a store of another mode (RULES D4) or layout; an unmarked one becomes ours, and an adopted one too."""
    data = files.read(layout.marker, MAX_MARKER_BYTES)
    if data is None:
        _mark(files, layout, mode)
        return
    owner = _owner(layout, data)
    if owner == mode:
        return
    if not adopt:
        raise StorageUnavailable(
            f"{layout.root} belongs to {owner} mode; name another directory, or take this one over with all that it"
            " keeps: --adopt-store true"
        )
    _mark(files, layout, mode)
    log.info(
        "{root} was a store of {owner} mode and belongs to {mode} mode now, with all that it keeps",
        root=str(layout.root),
        owner=owner,
        mode=mode,
    )


def _owner(layout: Layout, data: bytes) -> str:
    """Return the mode that a marker names."""
    try:
        found = json.loads(data)
        version, owner = found["layout"], found["mode"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise StorageUnavailable(f"{layout.marker} cannot be read; remove it if the store is ours") from error
    if version != VERSION:
        raise StorageUnavailable(f"{layout.root} has layout {version!r}; this version knows {VERSION}")
    if owner not in MODES:
        raise StorageUnavailable(f"{layout.marker} names no mode that we know; remove it if the store is ours")
    return str(owner)


def _mark(files: Files, layout: Layout, mode: str) -> None:
    """Say whose the root is; durable when this returns."""
    marker = json.dumps({"layout": VERSION, "mode": mode}).encode("ascii")
    put(files, layout.spool(secrets.token_hex(16)), layout.marker, marker)
    files.fsync_directory(layout.root)


def _remove_orphans(files: Files, layout: Layout) -> None:
    """Remove what nobody alive is writing: whoever gets the lock may (pids repeat in containers; RULES G1)."""
    for name in list(files.names(layout.ingest)):
        path = layout.ingest / name
        fd = files.open(path)
        if fd is None:
            continue
        try:
            if files.lock(fd):
                files.unlink(path)
        except IsADirectoryError:
            continue  # not ours
        finally:
            files.close(fd)


def _check_writable(files: Files, layout: Layout) -> None:
    """Try to write; a full disk is no reason not to serve what is kept (RULES G2: pulls go on unkept)."""
    probe = layout.ingest / "writable"
    try:
        put(files, layout.spool(secrets.token_hex(16)), probe, b"yes\n")
    except OSError as error:
        if error.errno not in FULL:
            raise
    files.unlink(probe)
