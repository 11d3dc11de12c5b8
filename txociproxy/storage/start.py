"""What is done to a root before the first listen: is it ours, what did dead processes leave, can we write."""

from __future__ import annotations

import errno
import json
import secrets

from txociproxy.oci.errors import StorageUnavailable
from txociproxy.storage.files import Files, put
from txociproxy.storage.layout import VERSION, Layout

MAX_MARKER_BYTES = 64 * 1024
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


def prepare(files: Files, layout: Layout, mode: str) -> None:
    """Make the root ready; blocks.

    :raises StorageUnavailable: the root cannot be written, or belongs to another mode or version.
    """
    try:
        files.make_directory(layout.ingest)
        _check_marker(files, layout, mode)
        _remove_orphans(files, layout)
        _check_writable(files, layout)
    except OSError as error:
        raise StorageUnavailable(f"cannot write to {layout.root}: {error.strerror or error}") from error


def _check_marker(files: Files, layout: Layout, mode: str) -> None:
    """Refuse a store of another mode (RULES D4) or layout; an unmarked one becomes ours."""
    data = files.read(layout.marker, MAX_MARKER_BYTES)
    if data is None:
        marker = json.dumps({"layout": VERSION, "mode": mode}).encode("ascii")
        put(files, layout.spool(secrets.token_hex(16)), layout.marker, marker)
        files.fsync_directory(layout.root)
        return
    try:
        found = json.loads(data)
        version, owner = found["layout"], found["mode"]
    except (ValueError, KeyError, TypeError) as error:
        raise StorageUnavailable(f"{layout.marker} cannot be read; remove it if the store is ours") from error
    if version != VERSION:
        raise StorageUnavailable(f"{layout.root} has layout {version}; this version knows {VERSION}")
    if owner != mode:
        raise StorageUnavailable(f"{layout.root} belongs to {owner} mode; use another --fs-root")


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
