"""One request to a bucket after the other, by the SDK, and what its answers mean.  Everything here blocks."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from email.utils import parsedate_to_datetime
from typing import Any

from attrs import define, field

from txociproxy.storage.s3.connecting import Answered, trouble_of
from txociproxy.storage.s3.trouble import S3Trouble

_PRECONDITION = (409, 412)  # RFC 9110 section 13.1.2; 409 is S3's own word for a race that is not decided yet
_UNKNOWN = (400, 501)
LOOKS = 12
LOOK_EVERY_S = 5.0


@define(eq=False)
class Asking:
    """Asks for one bucket, and raises S3Trouble only.

    :ivar _client: the SDK's.
    :ivar _plain: the operations for which this server has been seen not to know ``If-None-Match``.
    """

    _client: Any
    name: str
    _plain: set[str] = field(factory=set, init=False)
    _pause: Callable[[float], None] = field(default=time.sleep, kw_only=True)

    def ask(self, operation: str, **parameters: Any) -> Any:
        """Return the answer to one request.

        :raises Answered: the server said no.
        :raises S3Trouble: it said nothing that can be understood.
        """
        try:
            return getattr(self._client, operation)(Bucket=self.name, **parameters)
        except Exception as error:  # the SDK's own
            raise trouble_of(error, self._what(operation)) from None

    def part_of(self, answer: Any, name: str) -> Any:
        """Return a part of an answer that makes no sense without it."""
        if name not in answer:
            raise S3Trouble("failing", f"Missing{name}", self._what("an answer"))
        return answer[name]

    def _what(self, operation: str) -> str:
        return f"{operation} for the S3 bucket {self.name} at {self._client.meta.endpoint_url}"

    def find(self, key: str) -> Any:
        """Return what the server says about an object; None if there is none."""
        try:
            return self.ask("head_object", Key=key)
        except Answered as no:
            if no.status != 404:
                raise
            return None

    def has(self, key: str, size_bytes: int | None) -> bool:
        """Say whether an object is there and has this size; None is any."""
        found = self.find(key)
        return found is not None and size_bytes in (None, self.part_of(found, "ContentLength"))

    def publish(self, operation: str, key: str, size_bytes: int | None, **parameters: Any) -> bool:
        """Ask for what makes an object appear, unless it is there already; False says that somebody was first.

        Two who do so at once both end right: their bytes are the same.  A server that knows no condition is asked
        without it, from the second time on at once.

        :param size_bytes: what is there with another size is replaced; None lets anything stay.
        """
        is_known = operation not in self._plain
        if is_known:
            try:
                self.ask(operation, Key=key, IfNoneMatch="*", **parameters)
            except Answered as no:
                if no.status not in _PRECONDITION + _UNKNOWN:
                    raise
                if no.status in _PRECONDITION and size_bytes is None:
                    return False
                is_known = no.status in _PRECONDITION
            else:
                return True
        if self.has(key, size_bytes):
            return False
        self.ask(operation, Key=key, **parameters)
        if not is_known:
            self._plain.add(operation)  # it was the condition that the server did not like
        return True

    def appears(self, key: str, size_bytes: int, is_wanted: Callable[[], bool]) -> bool:
        """Wait for an object that may be on its way, for a bounded time; says whether it has come.

        :param is_wanted: asked before each look.
        :raises S3Trouble: it cannot be told.
        """
        for _ in range(LOOKS):
            if not is_wanted():
                return False
            if self.has(key, size_bytes):
                return True
            self._pause(LOOK_EVERY_S)
        return False

    @contextlib.contextmanager
    def upload(self, key: str, media_type: str) -> Iterator[str]:
        """Begin a multipart upload and give its name; an error within ends it."""
        upload_id = self.part_of(self.ask("create_multipart_upload", Key=key, ContentType=media_type), "UploadId")
        try:
            yield upload_id
        except BaseException:
            self.abort(key, upload_id)
            raise

    def abort(self, key: str, upload_id: str) -> bool:
        """End a multipart upload, if that is possible; what stays is removed when it is old."""
        try:
            self.ask("abort_multipart_upload", Key=key, UploadId=upload_id)
        except S3Trouble:
            return False
        return True


def server_time_s(answer: Any) -> float | None:
    """Return the server's own time of an answer, in seconds since the epoch; None if it does not say."""
    try:
        return parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"]).timestamp()
    except (KeyError, TypeError, ValueError):
        return None
