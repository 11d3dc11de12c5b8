"""What is decided about tags, and what is found out about one (RULES E8)."""

from __future__ import annotations

from typing import Literal

from attrs import frozen

from txociproxy.interfaces import TagRecord
from txociproxy.manifests import Manifest


@frozen
class TagRules:
    """What is decided about tags.

    :ivar keep_tags: whether tags are believed at all (``CACHE_TAG_MANIFESTS``).
    :ivar keep_latest: whether ``latest`` is, too (``CACHE_LATEST_TAG``).
    :ivar fresh_s: how long without contact.
    :ivar swr_s: how long after that an answer is given at once, and upstream asked behind it.
    :ivar stale_if_error_s: how old a stale answer may be; None is unlimited, 0 is never.
    :ivar quiet_s: how long a lost upstream is not asked again for the same tag.
    :ivar on_upstream_404: whether a tag that is gone upstream is kept or dropped here.
    """

    keep_tags: bool = True
    keep_latest: bool = False
    fresh_s: float = 3600.0
    swr_s: float = 0.0
    stale_if_error_s: float | None = None
    quiet_s: float = 30.0
    on_upstream_404: Literal["keep", "drop"] = "keep"

    def keeps(self, tag: str) -> bool:
        """Whether this tag may be believed without asking."""
        return self.keep_tags and (tag != "latest" or self.keep_latest) and self.fresh_s > 0


@frozen
class Resolved:
    """What a tag means for this request.

    :ivar state: believed without contact, just said by upstream, or unconfirmed.
    :ivar manifest: what the answer has brought along.
    :ivar own: whether this client's own ask brought it.
    """

    record: TagRecord
    state: Literal["fresh", "confirmed", "stale"]
    manifest: Manifest | None = None
    own: bool = False


@frozen
class Found:
    """What upstream said that a tag means."""

    record: TagRecord
    manifest: Manifest | None = None
