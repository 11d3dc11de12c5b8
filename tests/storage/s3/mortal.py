"""A bucket that remembers what was asked of it, fails where a test says so, and dies with the process that asks.

Everything is really done on the test's server.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from attrs import define, field

from tests.storage.recording import RecordingFiles
from tests.storage.s3.server import Fresh
from txociproxy.oci.names import Digest
from txociproxy.storage.layout import HELD_END, SIDECAR_END
from txociproxy.storage.s3.bucket import Bucket

T = TypeVar("T")


@define(eq=False, init=False)
class MortalBucket(Bucket):
    """Requests stand in one row with the operations on files, as ``put sidecar`` or ``head held content``.

    :ivar _files: whose death is this one's too, and whose ``faults`` are.
    :ivar before: called before the operation of this name, once: what others do at the same time.
    """

    _fresh: Fresh = field(init=False)
    _files: RecordingFiles = field(init=False)
    before: dict[str, Callable[[], None]] = field(init=False)

    def __init__(self, fresh: Fresh, files: RecordingFiles) -> None:
        self.__attrs_init__(fresh.client, fresh.settings.bucket)
        self._fresh, self._files, self.before = fresh, files, {}

    def put(self, key: str, data: bytes, media_type: str, if_absent: bool = False) -> bool:
        """See :meth:`Bucket.put`."""
        put = super().put
        return self._do("put", key, lambda: put(key, data, media_type, if_absent))

    def put_content(self, key: str, fd: int, size_bytes: int, digest: Digest, is_cancelled: Callable[[], bool]) -> bool:
        """See :meth:`Bucket.put_content`; killed during it, it leaves a multipart upload behind."""
        put_content = super().put_content

        def half() -> None:
            begun = self._fresh.client.create_multipart_upload(Bucket=self.name, Key=key)
            about = {"UploadId": begun["UploadId"], "PartNumber": 1}
            self._fresh.client.upload_part(Bucket=self.name, Key=key, Body=b"half", **about)

        return self._do("put", key, lambda: put_content(key, fd, size_bytes, digest, is_cancelled), half)

    def head(self, key: str) -> tuple[int, float] | None:
        """See :meth:`Bucket.head`."""
        head = super().head
        return self._do("head", key, lambda: head(key))

    def read(self, key: str, max_bytes: int) -> bytes | None:
        """See :meth:`Bucket.read`."""
        read = super().read
        return self._do("get", key, lambda: read(key, max_bytes))

    def delete(self, *keys: str) -> None:
        """See :meth:`Bucket.delete`."""
        (key,) = keys  # the order of several is the server's
        delete = super().delete
        self._do("delete", key, lambda: delete(key))

    def _do(self, verb: str, key: str, work: Callable[[], T], half: Callable[[], None] | None = None) -> T:
        name = f"{verb} s3 {about(key)}"
        if not self._files.is_dead:
            self.before.pop(name, lambda: None)()
        return self._files._do(name, work, half=half)


def about(key: str) -> str:
    """Return what a key is, in a word."""
    kind = "sidecar" if key.endswith(SIDECAR_END) else "content"
    return f"held {kind}" if key.removesuffix(SIDECAR_END).endswith(HELD_END) else kind
