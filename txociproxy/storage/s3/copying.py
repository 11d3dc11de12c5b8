"""A copy of an object onto itself, which makes it young again.  Everything here blocks."""

from __future__ import annotations

from typing import Any

from txociproxy.storage.layout import BLOB_TYPE
from txociproxy.storage.s3.asking import Asking
from txociproxy.storage.s3.connecting import Answered

# S3 copies no more at once (S3 API reference, CopyObject).
MOST_COPIED_BYTES = 5 * 2**30
COPIED_PART_BYTES = 2**30


def copy_onto_itself(bucket: Asking, key: str, most_bytes: int, part_bytes: int) -> None:
    """Copy an object onto itself, with its type; one that is not there is fine.

    :param most_bytes: what is longer is copied in parts of ``part_bytes``.
    :raises S3Trouble: it was not copied.
    """
    found = bucket.find(key)
    if found is None:
        return
    size_bytes, media_type = bucket.part_of(found, "ContentLength"), found.get("ContentType", BLOB_TYPE)
    source = {"CopySource": {"Bucket": bucket.name, "Key": key}}
    try:
        if size_bytes > most_bytes:
            _copy_in_parts(bucket, key, size_bytes, part_bytes, media_type, source)
        else:
            # Without a change of what is said about it S3 refuses to copy an object onto itself.
            bucket.ask("copy_object", Key=key, MetadataDirective="REPLACE", ContentType=media_type, **source)
    except Answered as no:
        if no.code != "NoSuchKey":
            raise


def _copy_in_parts(
    bucket: Asking, key: str, size_bytes: int, part_bytes: int, media_type: str, source: dict[str, Any]
) -> None:
    parts = []
    with bucket.upload(key, media_type) as upload_id:
        for number, start in enumerate(range(0, size_bytes, part_bytes), 1):
            part = {
                "UploadId": upload_id,
                "PartNumber": number,
                "CopySourceRange": f"bytes={start}-{min(start + part_bytes, size_bytes) - 1}",
            }
            done = bucket.ask("upload_part_copy", Key=key, **part, **source)
            tag = bucket.part_of(bucket.part_of(done, "CopyPartResult"), "ETag")
            parts.append({"PartNumber": number, "ETag": tag})
        whole = {"UploadId": upload_id, "MultipartUpload": {"Parts": parts}}
        bucket.ask("complete_multipart_upload", Key=key, **whole)
