"""The way of committed content from the local disk into the bucket, open to all or held for some (RULES D3, G1).

The sidecar is put first, the content object is the one commit point: a sidecar alone is no hit.  As on the disk,
content only ever goes from held to open.  All of it may be done again after any death: what is in the bucket already is
left as it is.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from attrs import evolve, frozen

from txociproxy.oci.names import Digest
from txociproxy.storage.files import Files
from txociproxy.storage.layout import Layout, Sidecar
from txociproxy.storage.s3.bucket import Bucket, UploadCancelled, WrongDigest
from txociproxy.storage.s3.keys import Keys
from txociproxy.storage.s3.trouble import S3Trouble
from txociproxy.storage.shelf import MAX_SIDECAR_BYTES, read_sidecar

SIDECAR_TYPE = "application/json"
# Two proxies that hold the same content for different namespaces may write over each other's sidecar.
LOOKS_AFTER_HOLDING = 3


def publish(
    bucket: Bucket, keys: Keys, files: Files, layout: Layout, digest: Digest, is_cancelled: Callable[[], bool]
) -> bool:
    """Bring what lies locally under the digest into the bucket, open content before held; blocks.

    Nothing there is nothing to do.

    :param is_cancelled: asked in the thread; True gives it up.

    :returns: whether something held may lie in the bucket beside what is open there by now.

    :raises S3Trouble: the bucket did not take it; what it took may stay, and is no harm.
    :raises WrongDigest: local bytes were wrong: they were not published, and have been removed.
    :raises UploadCancelled: it was given up.
    :raises OSError: the local disk failed.
    """
    wrong: WrongDigest | None = None
    is_left = False
    for held in (False, True):
        fd = files.open(layout.content(digest, held))
        if fd is None:
            continue
        try:
            sidecar = read_sidecar(files, layout, digest, held)
            size_bytes, _ = files.measure(fd)
            is_left = _Journey(bucket, keys, digest, fd, size_bytes, sidecar, is_cancelled).go(held)
            break
        except WrongDigest as error:
            _remove(files, layout, digest, held, fd)
            wrong = error
        finally:
            files.close(fd)
    if wrong is not None:
        raise wrong
    return is_left


@frozen
class _Journey:
    """One local file on its way.

    :ivar _sidecar: as it lies beside the file; made up where that cannot be read.
    """

    _bucket: Bucket
    _keys: Keys
    _digest: Digest
    _fd: int
    _size_bytes: int
    _sidecar: Sidecar
    _is_cancelled: Callable[[], bool]

    def go(self, held: bool) -> bool:
        """Bring it where it belongs; says whether something held may lie beside it."""
        if held and not self._sidecar.held:
            return False  # nobody may see it
        if not held:
            self._put_sidecar(held=False)
            self._put_content(held=False)
        elif not self._join_open():
            self._hold()
            return False
        return self._has_held()

    def _join_open(self) -> bool:
        """Say what is known of content that others have opened; False: it is not open, or not any more.

        What is held opens nothing: bytes go up only in place of others that are open and cannot be right.
        """
        if self._open_bytes() is None:
            return False
        self._put_sidecar(held=False)
        there_bytes = self._open_bytes()
        if there_bytes not in (None, self._size_bytes):
            self._put_content(held=False)
        return there_bytes is not None

    def _open_bytes(self) -> int | None:
        found = self._bucket.head(self._keys.content(self._digest))
        return None if found is None else found[0]

    def _hold(self) -> None:
        for _ in range(LOOKS_AFTER_HOLDING):
            holders = {*(self._sidecar.held or ()), *self._holders()}
            self._put_sidecar(held=True, holders=tuple(sorted(holders)))
            self._put_content(held=True)
            if holders <= self._holders():
                return

    def _holders(self) -> set[str]:
        """Return for whom the bucket holds it; a sidecar without its content counts for nothing."""
        if self._bucket.head(self._keys.content(self._digest, held=True)) is None:
            return set()
        data = self._bucket.read(self._keys.sidecar(self._digest, held=True), MAX_SIDECAR_BYTES)
        return set(Sidecar.from_json(data).held or ())

    def _put_sidecar(self, held: bool, holders: tuple[str, ...] | None = None) -> None:
        """Say what is known.  One that cannot be right says nothing: it would hide what is in the bucket already."""
        if self._is_cancelled():
            raise UploadCancelled(f"the upload of {self._digest} was given up")
        if self._sidecar.size_bytes == self._size_bytes:
            data = evolve(self._sidecar, held=holders).to_json(self._digest)
            self._bucket.put(self._keys.sidecar(self._digest, held), data, SIDECAR_TYPE)

    def _put_content(self, held: bool) -> None:
        key = self._keys.content(self._digest, held)
        self._bucket.put_content(key, self._fd, self._size_bytes, self._digest, self._is_cancelled)

    def _has_held(self) -> bool:
        try:
            return self._bucket.head(self._keys.content(self._digest, held=True)) is not None
        except S3Trouble:  # the content is where it belongs
            return True


def _remove(files: Files, layout: Layout, digest: Digest, held: bool, fd: int) -> None:
    """Remove a local file whose bytes are wrong, unless another has come in its place."""
    path = layout.content(digest, held)
    lock = files.lock_directory(path.parent)
    try:
        found = files.open(path)
        if found is None:
            return
        try:
            is_same = os.path.sameopenfile(found, fd)
        finally:
            files.close(found)
        if is_same:
            files.unlink(path)
            files.unlink(layout.sidecar(digest, held))
    finally:
        files.close(lock)
