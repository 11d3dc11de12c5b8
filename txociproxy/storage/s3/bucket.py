"""One bucket: what is written, listed, copied and removed there.  Everything here blocks."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import Any

from attrs import define, field
from twisted.logger import Logger

from txociproxy.oci.errors import StorageUnavailable
from txociproxy.oci.names import Digest
from txociproxy.storage.layout import BLOB_TYPE
from txociproxy.storage.s3.asking import Asking, server_time_s
from txociproxy.storage.s3.connecting import REGION, Answered, trouble_of
from txociproxy.storage.s3.copying import COPIED_PART_BYTES, MOST_COPIED_BYTES, copy_onto_itself
from txociproxy.storage.s3.trouble import S3Trouble

PART_BYTES = 16 * 2**20
MOST_PARTS = 10_000
MOST_LISTED = 1000


class WrongDigest(StorageUnavailable):
    """What was to be uploaded is not what its name says; nothing was published."""


class UploadCancelled(StorageUnavailable):
    """Whoever wanted the upload wants it no more; nothing was published."""


@define(eq=False)
class Bucket(Asking):
    """One bucket.

    :ivar _part_bytes: what is longer goes up in parts of this size.
    :ivar _most_copied_bytes: the longest object that the server copies at once (S3: 5 GiB).
    :ivar _copied_part_bytes: of longer ones.
    """

    _part_bytes: int = field(default=PART_BYTES, kw_only=True)
    _most_copied_bytes: int = field(default=MOST_COPIED_BYTES, kw_only=True)
    _copied_part_bytes: int = field(default=COPIED_PART_BYTES, kw_only=True)

    log = Logger()

    def ensure(self) -> None:
        """Make the bucket if it is missing.

        :raises S3Trouble: also for a right that is missing; the text says which.
        """
        try:
            # HeadBucket asks for the same right, but its answer has no body that says what is wrong.
            self.ask("list_objects_v2", MaxKeys=1)
        except Answered as no:
            if no.code == "AccessDenied":
                raise self._lacks("s3:ListBucket", no) from None
            if no.status != 404:
                raise
            self._make()

    def _make(self) -> None:
        region = self._client.meta.region_name
        where = {} if region == REGION else {"CreateBucketConfiguration": {"LocationConstraint": region}}
        try:
            self.ask("create_bucket", **where)
        except Answered as no:
            if no.code == "AccessDenied":
                raise self._lacks("s3:CreateBucket, and the bucket is missing", no) from None
            if no.status != 409:
                raise
            self.ask("list_objects_v2", MaxKeys=1)  # another proxy has made it meanwhile, or it is somebody else's
        else:
            # Whoever has misspelt its name sees it here, and nowhere else.
            self.log.info("the S3 bucket {name} was missing and has been made", name=self.name)

    def _lacks(self, right: str, no: Answered) -> S3Trouble:
        return Answered(no.kind, no.code, f"{self._what('credentials')} lack the right {right}", no.status)

    def put(self, key: str, data: bytes, media_type: str, if_absent: bool = False) -> bool:
        """Put a small object; False says that one was there already, which only ``if_absent`` minds."""
        if if_absent:
            return self.publish("put_object", key, None, Body=data, ContentType=media_type)
        self.ask("put_object", Key=key, Body=data, ContentType=media_type)
        return True

    def put_content(self, key: str, fd: int, size_bytes: int, digest: Digest, is_cancelled: Callable[[], bool]) -> bool:
        """Put an open file's content; False says that somebody was first, with as many bytes.

        It is proven before it appears.  Whatever goes wrong, nothing of it stays.

        :param is_cancelled: asked now and then, from this thread.
        :raises WrongDigest: the file has other bytes than its name says.
        :raises UploadCancelled: ``is_cancelled`` said so.
        """
        if size_bytes > self._part_bytes:
            return self._put_in_parts(key, fd, size_bytes, digest, is_cancelled)
        data = _read(fd, 0, size_bytes)
        _prove(digest, Digest.of(data, digest.algorithm).hex)
        _go_on(is_cancelled)
        return self.publish("put_object", key, size_bytes, Body=data, ContentType=BLOB_TYPE)

    def _put_in_parts(
        self, key: str, fd: int, size_bytes: int, digest: Digest, is_cancelled: Callable[[], bool]
    ) -> bool:
        if self.has(key, size_bytes):
            return False  # the condition would say so only after the last part
        part_bytes = max(self._part_bytes, -(-size_bytes // MOST_PARTS))
        hasher, parts = digest.hasher(), []
        with self.upload(key, BLOB_TYPE) as upload_id:
            for number, offset_bytes in enumerate(range(0, size_bytes, part_bytes), 1):
                _go_on(is_cancelled)
                data = _read(fd, offset_bytes, min(part_bytes, size_bytes - offset_bytes))
                hasher.update(data)
                sent = self.ask("upload_part", Key=key, UploadId=upload_id, PartNumber=number, Body=data)
                parts.append({"PartNumber": number, "ETag": self.part_of(sent, "ETag")})
            _prove(digest, hasher.hexdigest())
            _go_on(is_cancelled)
            whole = {"UploadId": upload_id, "MultipartUpload": {"Parts": parts}}
            is_first = self._complete(key, size_bytes, whole, is_cancelled)
        if not is_first:
            self.abort(key, upload_id)
        return is_first

    def _complete(self, key: str, size_bytes: int, whole: dict[str, Any], is_cancelled: Callable[[], bool]) -> bool:
        try:
            return self.publish("complete_multipart_upload", key, size_bytes, **whole)
        except Answered:
            raise
        except S3Trouble:
            # Some servers take longer to put many gigabytes together than an answer is waited for.  Whoever ended the
            # upload now would take it from under their hands, and begin it anew for ever.
            if self.appears(key, size_bytes, lambda: not is_cancelled()):
                return True
            raise

    def head(self, key: str) -> tuple[int, float] | None:
        """Return (size in bytes, age in seconds by the server's own clock); None if there is no such object.

        A server that does not tell its time has young objects only.
        """
        found = self.find(key)
        if found is None:
            return None
        changed_s = self.part_of(found, "LastModified").timestamp()
        return self.part_of(found, "ContentLength"), max(0.0, (server_time_s(found) or changed_s) - changed_s)

    def read(self, key: str, max_bytes: int) -> bytes | None:
        """Return the first bytes of an object; None if there is none."""
        try:
            body = self.part_of(self.ask("get_object", Key=key), "Body")
        except Answered as no:
            if no.status != 404 or no.code == "NoSuchBucket":
                raise
            return None
        with contextlib.closing(body):
            try:
                data = body.read(max_bytes)
            except Exception as error:  # the SDK's own
                raise trouble_of(error, self._what("get_object")) from None
        return bytes(data)

    def delete(self, *keys: str) -> None:
        """Remove objects one after the other; those that are not there are fine."""
        for key in keys:
            try:
                self.ask("delete_object", Key=key)
            except Answered as no:
                if no.code != "NoSuchKey":
                    raise

    def page(self, prefix: str, after: str | None) -> tuple[list[tuple[str, int]], str | None]:
        """Return up to 1000 keys with their sizes, and what to ask for the next page with; None ends."""
        more = {} if after is None else {"ContinuationToken": after}
        found = self.ask("list_objects_v2", Prefix=prefix, MaxKeys=MOST_LISTED, **more)
        rows = [(row["Key"], row["Size"]) for row in found.get("Contents", ())]
        return rows, found.get("NextContinuationToken") if found.get("IsTruncated") else None

    def renew(self, key: str) -> None:
        """Copy an object onto itself, so that its age begins anew (RULES G4); one that is not there is fine."""
        copy_onto_itself(self, key, self._most_copied_bytes, self._copied_part_bytes)

    def abort_old_uploads(self, prefix: str, older_than_s: float) -> int:
        """End multipart uploads that are older than this by the server's clock, and return how many (RULES G4).

        Younger ones may be another proxy's that is still at work.
        """
        after: dict[str, Any] = {}
        count = 0
        while True:
            found = self.ask("list_multipart_uploads", Prefix=prefix, **after)
            now_s = server_time_s(found) or 0.0
            for upload in found.get("Uploads", ()):
                is_ours = upload["Key"].startswith(prefix)
                if is_ours and now_s - upload["Initiated"].timestamp() > older_than_s:
                    count += self.abort(upload["Key"], upload["UploadId"])
            before, after = after, {to: found.get(f"Next{to}") for to in ("KeyMarker", "UploadIdMarker")}
            if not found.get("IsTruncated") or after == before or None in after.values():
                return count


def _read(fd: int, offset_bytes: int, count: int) -> bytes:
    """Return these bytes of a file.

    :raises WrongDigest: it ends before.
    :raises StorageUnavailable: the disk does not give them.
    """
    chunks = []
    try:
        while count and (data := os.pread(fd, count, offset_bytes)):
            chunks.append(data)
            offset_bytes, count = offset_bytes + len(data), count - len(data)
    except OSError as error:
        raise StorageUnavailable(f"what is to be uploaded cannot be read: {error.strerror}") from None
    if count:
        raise WrongDigest("what is to be uploaded is shorter than was said")
    return b"".join(chunks)


def _prove(digest: Digest, found: str) -> None:
    if found != digest.hex:
        raise WrongDigest(f"what lies under {digest} is something else")


def _go_on(is_cancelled: Callable[[], bool]) -> None:
    if is_cancelled():
        raise UploadCancelled("the upload was cancelled")
