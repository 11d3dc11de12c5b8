"""Content by its digest, as a thread of the disk pool finds, lists and removes it.

Open content lies under its digest, held content beside it under a name of its own (see layout); whoever looks sees open
content first, then what is held for his namespace.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from attrs import define

from txociproxy.oci.errors import OCIError
from txociproxy.oci.names import Descriptor, Digest
from txociproxy.storage.files import Files
from txociproxy.storage.layout import HELD_END, SIDECAR_END, Layout, Sidecar, describe

TOUCH_EVERY_S = 3600.0
MAX_SIDECAR_BYTES = 256 * 1024
# Most manifests and image configurations: read in the thread that finds them, they need no descriptor, no look at the
# page cache and no turn of the reactor of their own.
SMALL_BYTES = 16 * 1024
Found = tuple[int, int, Sidecar]
Opened = tuple[int | bytes, int, Sidecar]  # a descriptor, or all of it


@define(eq=False)
class Shelf:
    """What lies under ``blobs/``.  Everything here blocks and belongs into a thread.

    :ivar _now: seconds since the epoch.
    """

    _files: Files
    _layout: Layout
    _now: Callable[[], float]

    def open(self, digest: Digest, namespace: str) -> Opened | None:
        """Open what this namespace may see; small content is read at once and closed again."""
        found = self._find(digest, namespace)
        if found is None or found[1] > SMALL_BYTES:
            return found
        fd, size_bytes, sidecar = found
        try:
            data = self._files.read_open(fd, size_bytes)
        finally:
            self._files.close(fd)
        return (data, size_bytes, sidecar) if len(data) == size_bytes else None

    def remove(self, digest: Digest) -> bool:
        """Remove content, open and held, before what was said of it; says whether any was there."""
        try:
            lock = self._files.lock_directory(self._layout.content(digest).parent)
        except FileNotFoundError:
            return False
        try:
            there = [self._files.unlink(self._layout.content(digest, held)) for held in (False, True)]
            for held in (False, True):
                self._files.unlink(self._layout.sidecar(digest, held))
            return any(there)
        finally:
            self._files.close(lock)

    def describe(self, algorithm: str, directory: Path) -> list[Descriptor]:
        """List what lies in a directory, whoever it is held for, each digest once."""
        names = [name for name in self._files.names(directory) if not name.endswith(SIDECAR_END)]
        hexes = dict.fromkeys(name.removesuffix(HELD_END) for name in names)
        return [found for found in (self._describe_one(f"{algorithm}:{each}") for each in hexes) if found is not None]

    def _describe_one(self, text: str) -> Descriptor | None:
        try:
            digest = Digest.parse(text)
            found = self._look(digest, False, None) or self._look(digest, True, None)
        except (OCIError, OSError):
            return None  # one bad entry must not hide the others
        if found is None:
            return None
        self._files.close(found[0])
        return describe(digest, found[1], found[2])

    def _find(self, digest: Digest, namespace: str) -> Found | None:
        # The last look is for what was held at the first one, and open, under its other name, before the second.
        for held in (False, True, False):
            found = self._look(digest, held, namespace)
            if found is not None:
                return found
        return None

    def _look(self, digest: Digest, held: bool, namespace: str | None) -> Found | None:
        """Open content of one kind.

        :param namespace: who wants to use it; None is nobody: only a look, whoever it is held for.
        """
        fd = self._files.open(self._layout.content(digest, held))
        if fd is None:
            return None
        try:
            sidecar = read_sidecar(self._files, self._layout, digest, held)
            size_bytes, used_s = self._files.measure(fd)
            is_cut = sidecar.size_bytes is not None and sidecar.size_bytes != size_bytes
            is_hidden = held and namespace is not None and namespace not in (sidecar.held or ())
            if namespace is not None and not is_cut and not is_hidden and self._now() - used_s > TOUCH_EVERY_S:
                self._touch(fd)
        except BaseException:
            self._files.close(fd)
            raise
        if is_cut or is_hidden:
            # Cut short behind our back, or not for them: a miss, which will be published over it.
            self._files.close(fd)
            return None
        return fd, size_bytes, sidecar

    def _touch(self, fd: int) -> None:
        try:
            self._files.touch(fd)
        except OSError:
            return  # a read-only store still serves


def read_sidecar(files: Files, layout: Layout, digest: Digest, held: bool) -> Sidecar:
    """Read what is said of content; what cannot be read is as good as missing, never an error (RULES G1)."""
    try:
        data = files.read(layout.sidecar(digest, held), MAX_SIDECAR_BYTES)
    except OSError:
        data = None
    return Sidecar.from_json(data)
