"""How the way to the bucket comes to be: at the start within bounds, else behind, as soon as S3 is well.

A bucket carries a marker as a root on disk does (RULES D4).  Until it has been seen nothing else is read or written.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Thread
from typing import Protocol as Shape

from attrs import define, field
from twisted.logger import Logger

from txociproxy.oci.errors import StorageUnavailable
from txociproxy.storage.marker import MAX_MARKER_BYTES, NotOurs, make_ours, marker_of
from txociproxy.storage.s3.bucket import Bucket
from txociproxy.storage.s3.connecting import Connection
from txociproxy.storage.s3.keys import Keys
from txociproxy.storage.s3.settings import S3Settings
from txociproxy.storage.s3.trouble import S3Trouble

START_PATIENCE_S = 6.0
MARKER_TYPE = "application/json"
log = Logger()


class Marked(Shape):
    """What the marker needs of a bucket; everything blocks and raises S3Trouble only."""

    name: str

    def ensure(self) -> None:
        """Make the bucket if it is missing."""

    def read(self, key: str, max_bytes: int) -> bytes | None:
        """Return a small object whole; None is not there."""

    def put(self, key: str, data: bytes, media_type: str, if_absent: bool = False) -> bool:
        """Write an object; False: it was there already."""


def claim(bucket: Marked, keys: Keys, mode: str, adopt: bool = False) -> None:
    """See whose the bucket is; an unmarked one becomes ours, and an adopted one too; blocks.

    :param adopt: take over a store of the other mode, with all that it keeps.

    :raises NotOurs: it is another's.
    :raises S3Trouble: it cannot be told.
    """
    place = place_of(bucket.name, keys)
    data = bucket.read(keys.marker, MAX_MARKER_BYTES)
    if data is None:
        if bucket.put(keys.marker, marker_of(mode), MARKER_TYPE, if_absent=True):
            return
        data = bucket.read(keys.marker, MAX_MARKER_BYTES)  # of two that begin at once, the second one sees the marker
        if data is None:  # somebody's is just being written: whose it is cannot be told yet
            raise S3Trouble("failing", "NoMarker", place)
    remedy = "S3_BUCKET or S3_PREFIX names another store, --adopt-store true takes this one over with all that it keeps"

    def mark(marker: bytes) -> None:
        bucket.put(keys.marker, marker, MARKER_TYPE)

    make_ours(data, mode, adopt, mark, place, f"{keys.marker} in {place}", remedy)


def place_of(bucket: str, keys: Keys) -> str:
    """Name a store for people."""
    return f"the S3 bucket {bucket}" + (f" under {keys.prefix}/" if keys.prefix else "")


@define(eq=False)
class Opening:
    """The way to the bucket, once there is one.

    :ivar _connect: makes the way; blocks.
    :ivar connection, bucket: None until the marker has been seen.
    :ivar not_ours: why the bucket is never asked for anything again by this process.
    """

    _settings: S3Settings
    _keys: Keys
    _connect: Callable[[S3Settings], Connection]
    _start_patience_s: float = START_PATIENCE_S
    connection: Connection | None = None
    bucket: Bucket | None = None
    not_ours: NotOurs | None = None
    _mode: str | None = None
    _adopt: bool = False
    _latest: Connection | None = field(default=None, init=False)

    @property
    def place(self) -> str:
        """The store's name for people."""
        return place_of(self._settings.bucket, self._keys)

    def prepare(self, mode: str, adopt: bool) -> S3Trouble | None:
        """Try to open before the reactor runs; blocks for a bounded time; returns why it is not open yet.

        :raises NotOurs: another mode or version has it.
        :raises S3Trouble: without the SDK it never will be open.
        """
        self._mode, self._adopt = mode, adopt
        ends: list[StorageUnavailable | None] = []
        # A thread of its own: the pool's answers come through the reactor, which does not run yet.
        thread = Thread(target=lambda: ends.append(self._tried()), daemon=True)
        thread.start()
        thread.join(self._start_patience_s)
        end = ends[0] if ends else S3Trouble("unreachable", "Timeout", f"{self.place} did not answer in time")
        if isinstance(end, S3Trouble):
            if end.code == "SdkMissing":
                raise end
            return end
        if end is not None:
            raise end
        self.entered()
        return None

    def open(self, anew: bool = False) -> None:
        """Find the way, make the bucket if it is missing, and see its marker; blocks.  Then call :meth:`entered`.

        :param anew: take credentials and addresses afresh: those we had were refused.

        :raises S3Trouble, NotOurs: it is not to be used now, or ever.
        """
        if self.not_ours is not None:
            raise self.not_ours
        if self._mode is None:
            raise S3Trouble("unreachable", "NotPrepared", self.place)
        connection = self.connection
        if connection is None or anew:
            connection = self._connect(self._settings)
        bucket = Bucket(connection.client, self._settings.bucket)
        bucket.ensure()
        claim(bucket, self._keys, self._mode, self._adopt)
        self._latest = connection

    def entered(self) -> None:
        """Use what was found.  Not in the thread that found it: what is used does not change in the middle."""
        if self._latest is not None and self._latest is not self.connection:
            if self.connection is None:  # the SDK may have found the server where our settings do not name it
                log.info("{place} is used at {endpoint}", place=self.place, endpoint=self._latest.endpoint_url)
            self.connection = self._latest
            self.bucket = Bucket(self._latest.client, self._settings.bucket)
        self._adopt = False  # once: two that take it from each other would never end

    def lost(self, error: NotOurs) -> None:
        """Never ask the bucket for anything again."""
        self.not_ours, self.connection, self.bucket = error, None, None

    def _tried(self) -> StorageUnavailable | None:
        """Open, and return what came of it."""
        try:
            self.open()
        except StorageUnavailable as error:
            return error
        except Exception as error:
            return S3Trouble("failing", type(error).__name__, self.place)
        return None
