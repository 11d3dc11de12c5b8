"""The verdict on an arriving body: its digest, computed while it streams."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import define, field
from twisted.python.failure import Failure

from txociproxy.interfaces import IWorkers
from txociproxy.oci.names import Digest
from txociproxy.workers import Batches

# 16 KiB hash in 12 us; the way to a thread and back takes ten times as long.
INLINE_BYTES = 16 * 1024


@define(eq=False)
class Verdict:
    """Hashes chunks in order, on the pool for work of the processor.

    :ivar _progressed: called when hashing has caught up a little.
    """

    _digest: Digest
    _workers: IWorkers
    _progressed: Callable[[], None]
    _hasher: Any = field(init=False)
    _batches: Batches[None] = field(init=False)
    _failed: bool = False

    def __attrs_post_init__(self) -> None:
        self._hasher = self._digest.hasher()
        self._batches = Batches(self._workers, self._hash, self._hashed, self._broke)

    @property
    def pending_bytes(self) -> int:
        """What has been fed and is not hashed yet."""
        return self._batches.pending_bytes

    def feed(self, data: bytes) -> None:
        """Take the next chunk."""
        if not self._batches.busy and not self._batches.pending_bytes and len(data) <= INLINE_BYTES:
            self._hasher.update(data)
        else:
            self._batches.add(data)

    def when_known(self, callback: Callable[[bool], None]) -> None:
        """Tell whether everything that was fed is the content, once it is all hashed."""
        self._batches.when_idle(lambda: callback(not self._failed and self._hasher.hexdigest() == self._digest.hex))

    def _hash(self, chunks: list[bytes]) -> None:
        for chunk in chunks:
            self._hasher.update(chunk)

    def _hashed(self, _: None, size_bytes: int) -> None:
        self._progressed()

    def _broke(self, failure: Failure) -> None:
        self._failed = True
        self._progressed()
