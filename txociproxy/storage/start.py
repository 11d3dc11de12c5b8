"""What is done to a root before the first listen: is it ours, what did dead processes leave, can we write."""

from __future__ import annotations

import errno
import secrets

from txociproxy.oci.errors import StorageUnavailable
from txociproxy.storage.files import Files, put
from txociproxy.storage.layout import Layout
from txociproxy.storage.marker import MAX_MARKER_BYTES, make_ours

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


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
    remedy = "name another directory, or take this one over with all that it keeps: --adopt-store true"

    def mark(marker: bytes) -> None:
        put(files, layout.spool(secrets.token_hex(16)), layout.marker, marker)
        files.fsync_directory(layout.root)

    make_ours(data, mode, adopt, mark, str(layout.root), str(layout.marker), remedy)


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
