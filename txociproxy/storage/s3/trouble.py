"""What can go wrong with a bucket, told without the SDK's own words: those repeat what was signed."""

from __future__ import annotations

from typing import Literal

from txociproxy.oci.errors import StorageUnavailable

Kind = Literal["unreachable", "refused", "failing"]


class S3Trouble(StorageUnavailable):
    """The bucket did not do what it was asked to.

    :ivar kind: ``unreachable``: no answer came, or not in time.  ``refused``: it said no (401, 403, no such bucket),
        and will until somebody changes something.  ``failing``: 5xx, 429, an answer that makes no sense.
    :ivar code: a word for it, the server's own where it has one (``SlowDown``, ``AccessDenied``).
    """

    def __init__(self, kind: Kind, code: str, what: str) -> None:
        super().__init__(f"{what}: {code}")
        self.kind = kind
        self.code = code
