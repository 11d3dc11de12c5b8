"""Tags: when a pointer may still be believed, and who is asked when not (RULES E7, E8).

A pointer says which digest a tag meant for clients of one Accept class.  It is *fresh* for a while: no contact.
After that one HEAD is awaited by all who want the tag; the same digest refreshes the pointer, another one moves it,
and an upstream that is lost, overloaded or forgetful leaves it *stale*: still good for an answer.  A tag that may not
be kept is asked for every time; its pointer is remembered for outages all the same.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Literal

from attrs import define, field, frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.web.iweb import IResponse

from txociproxy.asking import Asking, fields_of, promised_length
from txociproxy.flights import Flights, Landed
from txociproxy.ingest.resume import field_of
from txociproxy.interfaces import Ask, IStorage, Pull, Relay, TagName, TagRecord
from txociproxy.manifests import Manifest, Manifests, promised_digest
from txociproxy.oci.accept import answers
from txociproxy.oci.errors import OCIError, UpstreamUnreachable
from txociproxy.oci.manifests import bare_media_type, is_schema1
from txociproxy.oci.names import Tag

MAX_QUIET = 10_000


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
    :ivar asked: whether upstream was asked for this request.
    :ivar manifest: what the answer has brought along.
    :ivar own: whether this client's own ask brought it.
    :ivar before: what the tag meant until now, if that is another digest and good for a stale answer.
    """

    record: TagRecord
    state: Literal["fresh", "confirmed", "stale"]
    asked: bool = True
    manifest: Manifest | None = None
    own: bool = False
    before: TagRecord | None = None


@frozen
class Found:
    """What upstream said that a tag means."""

    record: TagRecord
    manifest: Manifest | None = None


class UpstreamLost(UpstreamUnreachable):
    """An answer that counts as none where a stale one is at hand: 5xx and 429."""


@define(eq=False)
class Tags:
    """Finds out what a tag means.

    :ivar _now: seconds since the epoch.
    :ivar _survives: whether the mode serves stale answers.
    """

    _storage: IStorage
    _asking: Asking
    _manifests: Manifests
    _rules: TagRules
    _clock: IReactorTime
    _now: Callable[[], float]
    _survives: bool
    _flights: Flights[Found, Relay] = field(factory=Flights)
    _quiet_until: OrderedDict[TagName, float] = field(factory=OrderedDict)

    async def resolve(self, ask: Ask, tag: Tag) -> Resolved | Relay:
        """Return what the tag means, or the upstream's refusal.

        :raises UpstreamUnreachable: upstream is lost and nothing is known.
        :raises OCIError: upstream sent something that is no manifest.
        """
        pull = ask.pull
        name = _name_of(pull, tag)
        records = self._fitting(await self._storage.recall_tag(name), pull)
        if records and self._rules.keeps(tag.name):
            known, age_s = records[0], self._age_s(records[0])
            if age_s <= self._rules.fresh_s:
                return Resolved(known, "fresh", asked=False)
            if age_s <= self._rules.fresh_s + self._rules.swr_s:
                self._ask_behind(ask, name, known)
                return Resolved(known, "fresh", asked=False)
        # What leads to nothing that is here is no answer, however old it may be.
        kept = await self._first_kept(pull, records)
        stale = kept if kept is not None and self._may_be_stale(kept) else None
        if stale is not None and self._is_quiet(name):
            return Resolved(stale, "stale", asked=False)
        return await self._ask(ask, name, kept, stale)

    async def resolve_anew(self, ask: Ask, tag: Tag) -> Resolved | Relay:
        """Ask as if nothing were known: what the pointer leads to is not here, so it answers nothing."""
        return await self._ask(ask, _name_of(ask.pull, tag), None, None)

    async def go_back(self, ask: Ask, tag: Tag, before: TagRecord) -> None:
        """Let the tag mean again what it meant: what it has moved to does not come."""
        name = _name_of(ask.pull, tag)
        await self._storage.record_tag(name, before)
        self._be_quiet(name)

    async def _ask(self, ask: Ask, name: TagName, known: TagRecord | None, stale: TagRecord | None) -> Resolved | Relay:
        # A GET brings the manifest along when there is nothing yet; otherwise a HEAD costs no quota.
        brings = ask.method == "GET" and known is None
        key = ("tag", name, ask.pull.accept_class, brings, stale is not None)
        try:
            outcome, own = await self._flights.join(key, lambda: self._ask_upstream(ask, name, brings, stale))
        except (UpstreamUnreachable, OCIError):
            if stale is None:
                raise
            self._be_quiet(name)
            return Resolved(stale, "stale")
        if isinstance(outcome, Landed):
            found = outcome.value
            before = stale if stale is not None and stale.digest != found.record.digest else None
            return Resolved(found.record, "confirmed", manifest=found.manifest, own=own, before=before)
        if stale is not None and self._leaves_stale(outcome):
            # This client's own refusal, which says nothing to others: they may ask at once (law 7).
            return Resolved(stale, "stale")
        return outcome

    async def _ask_upstream(
        self, ask: Ask, name: TagName, brings: bool, stale: TagRecord | None
    ) -> Landed[Found] | Relay:
        pull, has_stale = ask.pull, stale is not None
        if not brings:
            response = await self._asking.head(ask, pull, stale=has_stale)
            record = self._record_of(pull, response) if response.code == 200 else None
            if response.code != 200:
                return await self._refused(name, Relay(response.code, fields_of(response), b""), stale)
            if record is not None:
                await self._storage.record_tag(name, record)
                return Landed(Found(record))
            if ask.method == "HEAD":
                # A registry that does not say the digest: its own answer is all there is, and a HEAD costs no GET.
                return Relay(200, fields_of(response), b"", content_length=promised_length(response))
        manifest = await self._manifests.get(ask, pull, stale=has_stale)
        if isinstance(manifest, Relay):
            return manifest if manifest.status == 200 else await self._refused(name, manifest, stale)
        record = self._record_for(pull, manifest)
        await self._storage.record_tag(name, record)
        return Landed(Found(record, manifest))

    async def _refused(self, name: TagName, relay: Relay, stale: TagRecord | None) -> Relay:
        if relay.status == 404 and self._rules.on_upstream_404 == "drop":
            await self._storage.forget_tag(name)
        if stale is not None and (relay.status == 429 or relay.status >= 500):
            raise UpstreamLost(f"the upstream answers with status {relay.status}")
        return relay

    def _leaves_stale(self, relay: Relay) -> bool:
        """Whether the tag is good for a stale answer after this one."""
        return relay.status in (401, 403) or (relay.status == 404 and self._rules.on_upstream_404 == "keep")

    def _be_quiet(self, name: TagName) -> None:
        """Do not ask for this tag again for a while."""
        self._quiet_until[name] = self._clock.seconds() + self._rules.quiet_s
        self._quiet_until.move_to_end(name)
        while len(self._quiet_until) > MAX_QUIET:
            self._quiet_until.popitem(last=False)

    def _ask_behind(self, ask: Ask, name: TagName, known: TagRecord) -> None:
        if not self._is_quiet(name):
            d = Deferred.fromCoroutine(self._ask(ask, name, known, known))
            d.addErrback(lambda failure: failure.trap(UpstreamUnreachable, OCIError, CancelledError) and None)

    # --- small questions

    def _fitting(self, records: tuple[TagRecord, ...], pull: Pull) -> list[TagRecord]:
        """Return the records that may answer this pull; the one of its own class first, then the latest."""
        fitting = [r for r in records if answers(r.accept_class, r.media_type, pull.accept_class)]
        return sorted(fitting, key=lambda record: record.accept_class != pull.accept_class)

    async def _first_kept(self, pull: Pull, records: list[TagRecord]) -> TagRecord | None:
        for record in records:
            if await self._manifests.has(pull.namespace, record.digest):
                return record
        return None

    def _age_s(self, record: TagRecord) -> float:
        # A clock that was set back makes a record old, not young for ever.
        age_s = self._now() - record.checked_at_s
        return age_s if age_s >= 0 else float("inf")

    def _may_be_stale(self, record: TagRecord) -> bool:
        limit_s = self._rules.stale_if_error_s
        return self._survives and (limit_s is None or (limit_s > 0 and self._age_s(record) <= limit_s))

    def _is_quiet(self, name: TagName) -> bool:
        return self._quiet_until.get(name, 0.0) > self._clock.seconds()

    def _record_of(self, pull: Pull, response: IResponse) -> TagRecord | None:
        digest, length = promised_digest(response), promised_length(response)
        media_type = bare_media_type(field_of(response, "Content-Type") or "")
        if digest is None or length is None or not media_type or is_schema1(media_type):
            return None
        return TagRecord(pull.accept_class, digest, media_type, length, self._now())

    def _record_for(self, pull: Pull, manifest: Manifest) -> TagRecord:
        descriptor = manifest.descriptor
        return TagRecord(pull.accept_class, descriptor.digest, descriptor.media_type, len(manifest.data), self._now())


def _name_of(pull: Pull, tag: Tag) -> TagName:
    return TagName(pull.namespace, pull.repository, tag.name)
