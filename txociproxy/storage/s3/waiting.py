"""Marks on the local disk that say which content is still to be brought into the bucket.

A mark is durable before the content it speaks of gets its name, and goes only after the content has gone.  So whatever
dies and when, the marks name all that still waits; one that names nothing is taken away by the next upload.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path

from attrs import define

from txociproxy.oci.errors import OCIError
from txociproxy.oci.names import Digest
from txociproxy.storage.files import Files
from txociproxy.storage.layout import Layout
from txociproxy.storage.shelf import Shelf
from txociproxy.storage.trimming import size_of


@define(eq=False)
class Waiting:
    """The marks below ``uploads/``.  Everything here blocks and belongs into a thread."""

    _files: Files
    _layout: Layout

    def mark(self, digest: Digest) -> None:
        """Say that this content is to be uploaded; durable when this returns.  Saying it twice is fine."""
        directory = self._directory
        self._files.make_directory(directory)
        try:
            fd = self._files.create(self._mark(digest))
        except FileExistsError:
            self._files.fsync_directory(directory)  # whoever made it may not have come to this yet
            return
        try:
            self._files.fsync(fd)
        finally:
            self._files.close(fd)
        self._files.fsync_directory(directory)

    def mark_the_unmarked(self, digests: Iterable[Digest]) -> None:
        """Mark what is here anyway; marks that a loss of power takes along are made again, so none is waited for."""
        self._files.make_directory(self._directory)
        for digest in digests:
            with contextlib.suppress(FileExistsError):
                self._files.close(self._files.create(self._mark(digest)))

    def unmark(self, digest: Digest) -> None:
        """Say that nothing of this content is to be uploaded any more."""
        self._files.unlink(self._mark(digest))

    def finish(self, digest: Digest) -> bool:
        """Remove the local copy, durably, and then its mark; says whether there was one."""
        there = Shelf(self._files, self._layout, lambda: 0.0).remove(digest)  # which looks at no clock
        if there:
            self._files.fsync_directory(self._layout.content(digest).parent)
        self.unmark(digest)
        return there

    def marks(self) -> list[Digest]:
        """Return what is marked, the oldest mark first; files that are no marks are left alone."""
        found = []
        for name in self._files.names(self._directory):
            digest = _digest_of(name)
            measured = None if digest is None else self._measure(self._directory / name)
            if digest is not None and measured is not None:
                found.append((measured[1], name, digest))
        return [digest for _, _, digest in sorted(found, key=lambda each: each[:2])]

    def sizes(self) -> list[tuple[Digest, int]]:
        """Return what is marked, the oldest mark first, with the size in bytes of the local copy, 0 if it is gone."""
        return [(digest, size_of(self._files, self._layout, digest)) for digest in self.marks()]

    @property
    def _directory(self) -> Path:
        return self._layout.root / "uploads"

    def _mark(self, digest: Digest) -> Path:
        return self._directory / f"{digest.algorithm}-{digest.hex}"

    def _measure(self, path: Path) -> tuple[int, float] | None:
        """Return (size in bytes, time of last change in seconds since the epoch); None if it is not there."""
        fd = self._files.open(path)
        if fd is None:
            return None
        try:
            return self._files.measure(fd)
        finally:
            self._files.close(fd)


def _digest_of(name: str) -> Digest | None:
    try:
        return Digest.parse(name.replace("-", ":", 1))
    except OCIError:
        return None
