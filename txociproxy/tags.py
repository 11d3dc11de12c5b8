"""Tags: when a pointer may still be believed, and who is asked when not (RULES E7, E8).

A pointer says which digest a tag meant for clients of one Accept class.  It is *fresh* for a while: no contact.
After that one HEAD is awaited by all who want the tag; the same digest refreshes the pointer, another one moves it,
and an upstream that is lost, overloaded or forgetful leaves it *stale*: still good for an answer.  A tag that may not
be kept is asked for every time; its pointer is remembered for outages all the same.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable

from attrs import define, evolve, field
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.web.iweb import IResponse

from txociproxy.answers import field_of, fields_of, promised_length
from txociproxy.asking import Asking
from txociproxy.flights import Flights, Landed
from txociproxy.interfaces import Ask, IStorage, Pull, Relay, TagName, TagRecord
from txociproxy.manifests import Manifest, Manifests, promised_digest
from txociproxy.meanings import Found, Resolved, TagRules
from txociproxy.oci.accept import AcceptClass, answers
from txociproxy.oci.errors import OCIError, UpstreamUnreachable
from txociproxy.oci.manifests import bare_media_type, is_schema1
from txociproxy.oci.names import Tag
from txociproxy.remembering import remember

MAX_REMEMBERED = 10_000
MAX_BEFORE = 4  # as many classes as a tag has pointers (RULES A5)


class UpstreamLost(UpstreamUnreachable):
    """An answer that counts as none where a stale one is at hand: 5xx and 429."""


@define(eq=False)
class Tags:
    """Finds out what a tag means.

    :ivar _now: seconds since the epoch.
    :ivar _survives: whether the mode serves stale answers.
    :ivar _before: what tags meant that a HEAD has moved to content which nobody has fetched yet.
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
    _before: OrderedDict[TagName, dict[AcceptClass, TagRecord]] = field(factory=OrderedDict)

    async def resolve(self, ask: Ask, tag: Tag, believe: bool = True) -> Resolved | Relay:
        """Return what the tag means, or the upstream's refusal.

        :param believe: False where a fresh pointer has led to nothing that is here.
        :raises UpstreamUnreachable: upstream is lost and nothing is known.
        :raises OCIError: upstream sent something that is no manifest.
        """
        pull, rules = ask.pull, self.rules(ask.pull, tag)
        name = _name_of(pull, tag)
        records = self._fitting(await self._storage.recall_tag(name), pull)
        if believe and records and rules.keeps(tag.name):
            known, age_s = records[0], self._age_s(records[0])
            if age_s <= rules.fresh_s:
                return Resolved(known, "fresh")
            if age_s <= rules.fresh_s + rules.swr_s:
                self._ask_behind(ask, name, known)
                return Resolved(known, "fresh")
        # What leads to nothing that is here is no answer, however old it may be.
        kept = await self._first_kept(pull, records + self._fitting(self._before.get(name, {}).values(), pull))
        stale = kept if kept is not None and self._may_be_stale(kept, rules) else None
        if stale is not None and self._is_quiet(name):
            return Resolved(stale, "stale")
        return await self._ask(ask, name, kept, stale)

    def rules(self, pull: Pull, tag: Tag) -> TagRules:
        """Return what is decided about this tag."""
        return self._rules.of(self._asking.entry(pull.namespace), pull.repository, tag.name)

    async def _ask(self, ask: Ask, name: TagName, known: TagRecord | None, stale: TagRecord | None) -> Resolved | Relay:
        # A GET brings the manifest along when there is nothing yet; otherwise a HEAD costs no quota.
        brings = ask.method == "GET" and known is None
        # HEAD and GET do not share one: only a GET makes sure that what the tag has moved to does come.
        key = ("tag", name, ask.pull.accept_class, ask.method, brings, stale is not None)
        asked = self._flights.join(key, lambda: self._ask_upstream(ask, name, brings, stale))
        try:
            outcome, own = await (asked if stale is None else self._asking.in_time(name.namespace, asked))
        except (UpstreamUnreachable, OCIError):
            if stale is None:
                raise
            self._be_quiet(name)
            return Resolved(stale, "stale")
        if isinstance(outcome, Landed):
            return Resolved(outcome.value.record, "confirmed", outcome.value.manifest, own)
        if stale is not None and self._leaves_stale(ask.pull, name, outcome):
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
                return await self._refused(ask, name, Relay(response.code, fields_of(response), b""), stale)
            if record is not None:
                return await self._told(ask, name, record, stale)
            if ask.method == "HEAD":
                # A registry that does not say the digest: its own answer is all there is, and a HEAD costs no GET.
                return Relay(200, fields_of(response), b"", content_length=promised_length(response))
        manifest = await self._manifests.get(ask, pull, stale=has_stale)
        if isinstance(manifest, Relay):
            return manifest if manifest.status == 200 else await self._refused(ask, name, manifest, stale)
        record = self._record_for(pull, manifest)
        await self._storage.record_tag(name, record)
        return Landed(Found(record, manifest))

    async def _told(self, ask: Ask, name: TagName, record: TagRecord, stale: TagRecord | None) -> Landed[Found]:
        """Upstream has said what the tag means; a stale answer is not given up for one that does not come."""
        manifest = None
        if stale is not None and not await self._manifests.has(name.namespace, record.digest):
            if ask.method == "GET":
                outcome, _ = await self._manifests.fetch(ask, evolve(ask.pull, reference=record.digest), stale=True)
                if isinstance(outcome, Relay):
                    raise UpstreamLost(f"the upstream does not give what {name.tag} means: status {outcome.status}")
                manifest = outcome
            else:
                before = {**self._before.get(name, {}), stale.accept_class: stale}
                remember(self._before, name, dict(list(before.items())[-MAX_BEFORE:]), MAX_REMEMBERED)
        await self._storage.record_tag(name, record)
        return Landed(Found(record, manifest))

    async def _refused(self, ask: Ask, name: TagName, relay: Relay, stale: TagRecord | None) -> Relay:
        # Some registries say 404 to who may not see it: one client's word about himself drops nobody else's (law 7).
        is_gone = relay.status == 404 and ask.credentials.is_anonymous
        if is_gone and self.rules(ask.pull, Tag(name.tag)).on_upstream_404 == "drop":
            self._before.pop(name, None)
            await self._storage.forget_tag(name)
        if stale is not None and (relay.status == 429 or relay.status >= 500):
            raise UpstreamLost(f"the upstream answers with status {relay.status}")
        return relay

    def _leaves_stale(self, pull: Pull, name: TagName, relay: Relay) -> bool:
        """Whether the tag is good for a stale answer after this one."""
        if relay.status == 404:
            return self.rules(pull, Tag(name.tag)).on_upstream_404 == "keep"
        return relay.status in (401, 403)

    def _be_quiet(self, name: TagName) -> None:
        """Do not ask for this tag again for a while."""
        remember(self._quiet_until, name, self._clock.seconds() + self._rules.quiet_s, MAX_REMEMBERED)

    def _ask_behind(self, ask: Ask, name: TagName, known: TagRecord) -> None:
        # A quota that runs low is left to those who wait for an answer.
        if not self._is_quiet(name) and self._asking.upstream(name.namespace).can_spare:
            d = Deferred.fromCoroutine(self._ask(ask, name, known, known))
            d.addErrback(lambda failure: failure.trap(UpstreamUnreachable, OCIError, CancelledError) and None)

    # --- small questions

    def _fitting(self, records: Iterable[TagRecord], pull: Pull) -> list[TagRecord]:
        """Return the records that may answer this pull, in their order: the latest first."""
        return [r for r in records if answers(r.accept_class, r.media_type, pull.accept_class)]

    async def _first_kept(self, pull: Pull, records: list[TagRecord]) -> TagRecord | None:
        for record in records:
            if await self._manifests.has(pull.namespace, record.digest):
                return record
        return None

    def _age_s(self, record: TagRecord) -> float:
        # A clock that was set back makes a record old, not young for ever.
        age_s = self._now() - record.checked_at_s
        return age_s if age_s >= 0 else float("inf")

    def _may_be_stale(self, record: TagRecord, rules: TagRules) -> bool:
        limit_s = rules.stale_if_error_s
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
