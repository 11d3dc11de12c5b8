"""Keeping content on a disk within bounds: what was used longest ago goes first.  Everything here blocks."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from attrs import frozen

from txociproxy.oci.errors import OCIError
from txociproxy.oci.names import Digest
from txociproxy.storage.files import Files
from txociproxy.storage.layout import HELD_END, SIDECAR_END, Layout


@frozen
class Piece:
    """One file of content.

    :ivar used_s: when it was used last, in seconds since the epoch, to an hour.
    :ivar held: whether this is what is held for some namespaces, or open to all (RULES D3).
    """

    used_s: float
    size_bytes: int
    held: bool
    digest: Digest


def pieces(files: Files, layout: Layout) -> Iterator[Piece]:
    """Iterate over all files of content; what is no content is passed over, and what cannot be opened."""
    for algorithm in ("sha256", "sha512"):
        top = layout.root / "blobs" / algorithm
        for prefix in files.names(top):
            for name in files.names(top / prefix):
                with contextlib.suppress(OCIError, OSError):
                    piece = None if name.endswith(SIDECAR_END) else _piece(files, layout, algorithm, name)
                    if piece is not None:
                        yield piece


def trim(
    files: Files, layout: Layout, max_bytes: int, target_bytes: int, is_wanted: Callable[[Digest], bool]
) -> tuple[int, int]:
    """Remove what was used longest ago until no more than ``target_bytes`` are left, if there are over ``max_bytes``.

    Content that is wanted is neither removed nor counted.  Holds one :class:`Piece` per file in memory.

    :param is_wanted: asked once more with the directory's lock held, which whoever publishes takes too.

    :returns: (bytes that are left, files that were removed).
    :raises OSError: something could not be removed.
    """
    found = sorted((piece for piece in pieces(files, layout) if not is_wanted(piece.digest)), key=_age_first)
    total_bytes, removed = sum(piece.size_bytes for piece in found), 0
    if total_bytes <= max_bytes:
        return total_bytes, 0
    for piece in found:
        if total_bytes <= target_bytes:
            break
        removed += remove_unless(files, layout, piece.digest, piece.held, is_wanted)
        total_bytes -= piece.size_bytes  # one that is wanted by now does not count any more either
    return total_bytes, removed


def remove_unless(
    files: Files, layout: Layout, digest: Digest, held: bool, is_wanted: Callable[[Digest], bool]
) -> bool:
    """Remove one file of content and, after it, what is said of it, unless it is wanted; says whether it did."""
    try:
        lock = files.lock_directory(layout.content(digest).parent)
    except FileNotFoundError:
        return False
    try:
        if is_wanted(digest):
            return False
        there = files.unlink(layout.content(digest, held))
        files.unlink(layout.sidecar(digest, held))
        return there
    finally:
        files.close(lock)


def size_of(files: Files, layout: Layout, digest: Digest) -> int:
    """Return how many bytes lie under a digest, open and held."""
    names = (layout.content(digest, held).name for held in (False, True))
    found = (_piece(files, layout, digest.algorithm, name) for name in names)
    return sum(piece.size_bytes for piece in found if piece is not None)


def _piece(files: Files, layout: Layout, algorithm: str, name: str) -> Piece | None:
    digest, held = Digest.parse(f"{algorithm}:{name.removesuffix(HELD_END)}"), name.endswith(HELD_END)
    fd = files.open(layout.content(digest, held))
    if fd is None:
        return None
    try:
        size_bytes, used_s = files.measure(fd)
    finally:
        files.close(fd)
    return Piece(used_s, size_bytes, held, digest)


def _age_first(piece: Piece) -> tuple[float, str]:
    return piece.used_s, str(piece.digest)
