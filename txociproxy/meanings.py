"""What is decided about tags, and what is found out about one (RULES E8)."""

from __future__ import annotations

from typing import Literal

from attrs import evolve, frozen

from txociproxy.interfaces import TagRecord
from txociproxy.manifests import Manifest
from txociproxy.oci.names import Repository
from txociproxy.upstreams.entries.entry import Entry, TagRule


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

    def of(self, entry: Entry | None, repository: Repository, tag: str) -> TagRules:
        """Return what is decided about one tag of an upstream: the first rule of its own that matches, then these."""
        rules = () if entry is None else entry.tag_rules
        rule = next((rule for rule in rules if rule.matches(repository, tag)), None)
        return self if rule is None else self._with(rule)

    def _with(self, rule: TagRule) -> TagRules:
        stale_s = self.stale_if_error_s if rule.stale_if_error_s is None else rule.stale_if_error_s
        return evolve(
            self,
            keep_tags=self.keep_tags if rule.keep is None else rule.keep,
            keep_latest=self.keep_latest if rule.keep is None else rule.keep,
            fresh_s=self.fresh_s if rule.fresh_s is None else rule.fresh_s,
            swr_s=self.swr_s if rule.swr_s is None else rule.swr_s,
            stale_if_error_s=None if stale_s == float("inf") else stale_s,
            on_upstream_404=rule.on_upstream_404 or self.on_upstream_404,
        )

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
