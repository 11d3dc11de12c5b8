"""The end of an ingest: content gets its name, open to all or held for some (RULES D3, G1).

Content only ever goes from held to open: the open name is made, durably, before the held one is removed, so that there
is no moment, and no death of the process, without the content for those who could see it, and none at which others see
it before it was fetched as anybody may.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from attrs import evolve

from txociproxy.oci.names import Digest
from txociproxy.storage.files import Files, put
from txociproxy.storage.layout import Layout, Sidecar
from txociproxy.storage.shelf import read_sidecar


def publish(files: Files, layout: Layout, spool: Path, digest: Digest, sidecar: Sidecar, held_for: str | None) -> None:
    """Give a spool whose bytes are synced its final name; blocks.

    :param held_for: the namespace that it is held for, if it came with the proxy's own credentials.
    """
    directory = layout.content(digest).parent
    files.make_directory(directory)
    lock = files.lock_directory(directory)
    try:
        holders = None if held_for is None else _holders(files, layout, digest, held_for)
        held = holders is not None
        data = evolve(sidecar, held=holders).to_json(digest)
        put(files, spool.with_suffix(".meta"), layout.sidecar(digest, held), data)
        files.rename(spool, layout.content(digest, held))
        files.fsync_directory(directory)
        if not held:
            _drop_held(files, layout, digest)
    finally:
        files.close(lock)


def _holders(files: Files, layout: Layout, digest: Digest, namespace: str) -> tuple[str, ...] | None:
    """Return who will see it: all (None) if it is open already, else this namespace and those who see it now."""
    if files.is_there(layout.content(digest)):
        return None
    known: tuple[str, ...] = ()
    if files.is_there(layout.content(digest, held=True)):  # a sidecar alone, left by a death, counts for nothing
        known = read_sidecar(files, layout, digest, held=True).held or ()
    return tuple(sorted({*known, namespace}))


def _drop_held(files: Files, layout: Layout, digest: Digest) -> None:
    """Remove the held name of what is open now; one that stays does no harm, the open name is looked at first."""
    with contextlib.suppress(OSError):
        if files.unlink(layout.content(digest, held=True)):
            files.unlink(layout.sidecar(digest, held=True))
