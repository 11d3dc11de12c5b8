"""Cache: the paths of a pull, told from top to bottom.

A request has been parsed and routed.  The mode may refuse it; the storage has the content, knows where it is or does
not have it; upstream is asked last.
"""

from __future__ import annotations

from typing import Literal, cast

from attrs import define, evolve, field, frozen
from twisted.internet.interfaces import IReactorTime
from twisted.web.iweb import IResponse

from txociproxy.asking import Asking, Registry, fields_of
from txociproxy.blobs import Blobs
from txociproxy.ingest.resume import field_of
from txociproxy.interfaces import (
    ANONYMOUS,
    Ask,
    Credentials,
    Elsewhere,
    IMode,
    IStorage,
    Local,
    Outcome,
    Pull,
    Redirect,
    Refused,
    Relay,
    Serve,
    TagRecord,
)
from txociproxy.manifests import Manifests
from txociproxy.oci.errors import StorageUnavailable, UpstreamUnreachable
from txociproxy.oci.headers import cache_control, kept
from txociproxy.oci.manifests import bare_media_type
from txociproxy.oci.names import Descriptor, Digest, Repository, Tag
from txociproxy.tags import Resolved, TagRules, Tags

Answer = Serve | Redirect | Relay
MAX_LISTING_BYTES = 4 * 1024 * 1024
PING_S = 60.0  # how long the answer to a ping is remembered (RULES C2)


@frozen
class _Ping:
    relay: Relay
    until_s: float


@define(eq=False)
class Cache:
    """Answers pulls."""

    _storage: IStorage
    _mode: IMode
    _registry: Registry
    _asking: Asking
    _manifests: Manifests
    _tags: Tags
    _blobs: Blobs
    _tag_rules: TagRules
    _clock: IReactorTime
    _pings: dict[str, _Ping] = field(factory=dict)

    async def pull(self, ask: Ask) -> Answer:
        """Answer a GET or HEAD of a manifest or blob.

        :raises OCIError: the client's fault, or an upstream that sends something else than it should.
        :raises UpstreamUnreachable: there was no answer, and none is kept.
        """
        admitted = await self._mode.admit(ask.pull, ask.credentials)
        if isinstance(admitted, Refused):
            return admitted.response
        reference = ask.pull.reference
        if isinstance(reference, Tag):
            return await self._pull_tag(ask, reference)
        if ask.pull.kind == "manifest":
            return await self._pull_manifest(ask, reference)
        return await self._pull_blob(ask, reference)

    # --- by digest

    async def _pull_blob(self, ask: Ask, digest: Digest) -> Answer:
        found = await self._find(ask, digest)
        if isinstance(found, Local):
            # A blob has no type of its own, whatever it was when it was fetched.
            found = evolve(found, descriptor=evolve(found.descriptor, media_type="application/octet-stream"))
            return self._serve(ask, found, "hit", self._control("digest"))
        if isinstance(found, Elsewhere):
            return self._elsewhere(ask, found)
        if ask.method == "HEAD":
            return await self._head(ask, digest)
        return await self._blobs.pull(ask, digest)

    async def _pull_manifest(self, ask: Ask, digest: Digest) -> Answer:
        found = await self._manifests.find(ask.pull.namespace, digest)
        if found is not None:
            return self._serve(ask, found, "hit", self._control("digest"))
        if ask.method == "HEAD":
            return await self._head(ask, digest)
        outcome, own = await self._manifests.fetch(ask, ask.pull)
        if isinstance(outcome, Relay):
            return outcome
        return self._serve(ask, outcome.to_local(), "miss" if own else "join", self._control("digest"))

    async def _head(self, ask: Ask, digest: Digest) -> Answer:
        """HEAD of what is not kept: HEAD upstream, never a GET (RULES D5)."""
        response = await self._asking.head(ask, ask.pull)
        if response.code != 200:
            return Relay(response.code, fields_of(response), b"")
        length = field_of(response, "Content-Length") or ""
        media_type = "application/octet-stream"
        if ask.pull.kind == "manifest":
            media_type = bare_media_type(field_of(response, "Content-Type") or media_type)
        descriptor = Descriptor(digest, int(length) if length.isdigit() else None, media_type)
        return Serve(descriptor, kept(fields_of(response)), None, "relay", self._control("digest"))

    # --- by tag

    async def _pull_tag(self, ask: Ask, tag: Tag) -> Answer:
        resolved = await self._tags.resolve(ask, tag)
        if isinstance(resolved, Relay):
            return resolved
        digest = resolved.record.digest
        control = self._tag_control(tag, resolved)
        found = await self._manifests.find(ask.pull.namespace, digest)
        if found is not None:
            outcome: Outcome = "stale" if resolved.state == "stale" else "miss" if resolved.brought else "hit"
            return self._serve(ask, found, outcome, control, vary=True)
        if resolved.state == "stale":
            if resolved.refusal is not None:
                return resolved.refusal
            raise UpstreamUnreachable("the upstream cannot be reached, and this tag's manifest is not kept")
        by_digest = evolve(ask.pull, reference=digest)
        if ask.method == "HEAD":
            return await self._head_of_tag(ask, by_digest, resolved, control)
        fetched, own = await self._manifests.fetch(ask, by_digest)
        if isinstance(fetched, Relay):
            return fetched
        return self._serve(ask, fetched.to_local(), "miss" if own else "join", control, vary=True)

    async def _head_of_tag(self, ask: Ask, by_digest: Pull, resolved: Resolved, control: str) -> Answer:
        record = resolved.record
        if resolved.state == "fresh":
            # Believed, but not kept: only upstream knows whether the manifest is still there.
            answer = await self._head(evolve(ask, pull=by_digest), record.digest)
            return evolve(answer, cache_control=control, vary_accept=True) if isinstance(answer, Serve) else answer
        return Serve(_described(record), (), None, "relay", control, vary_accept=True)

    def _tag_control(self, tag: Tag, resolved: Resolved) -> str:
        if resolved.state == "stale" or not self._tag_rules.keeps(tag.name):
            return self._control("revalidate")
        return self._control("latest" if tag.name == "latest" else "tag")

    # --- what is not pulled

    async def ping(self, namespace: str) -> Relay:
        """Answer ``GET /v2/`` for one upstream: its own answer, or 200 when it is gone (RULES C2)."""
        known = self._pings.get(namespace)
        if known is not None and known.until_s > self._clock.seconds():
            return known.relay
        upstream = self._registry.upstream(namespace)
        if upstream is None:
            return Relay(200, (), b"{}")
        try:
            relay = await self._asking.relay(await upstream.ping(ANONYMOUS))
        except UpstreamUnreachable:
            if not self._mode.survives_upstream_loss:
                raise
            return Relay(200, (), b"{}")
        self._pings[namespace] = _Ping(relay, self._clock.seconds() + PING_S)
        return relay

    async def listing(
        self, namespace: str, repository: Repository, path: str, query: str, credentials: Credentials, accept: str
    ) -> Relay:
        """Pass a tag list or referrers through, at most 4 MiB."""
        upstream = self._registry.upstream(namespace)
        if upstream is None:
            raise UpstreamUnreachable(f"no upstream is configured for {namespace}")
        response: IResponse = await upstream.listing(repository, path, query, credentials, accept)
        return await self._asking.relay(response, max_bytes=MAX_LISTING_BYTES)

    # --- small things

    async def _find(self, ask: Ask, digest: Digest) -> Local | Elsewhere | None:
        try:
            return await self._storage.find(digest, ask.pull.namespace)
        except StorageUnavailable:
            return None  # said by the storage; the pull goes on without it

    def _serve(self, ask: Ask, found: Local, outcome: Outcome, control: str, vary: bool = False) -> Serve:
        headers = found.headers if found.namespace == ask.pull.namespace else ()
        body = found.body
        if ask.method == "HEAD":
            body.close()
        return Serve(
            found.descriptor, headers, None if ask.method == "HEAD" else body, outcome, control, vary_accept=vary
        )

    def _elsewhere(self, ask: Ask, found: Elsewhere) -> Answer:
        if ask.method == "HEAD":
            return Serve(found.descriptor, found.headers, None, "hit", self._control("digest"))
        return Redirect(found.descriptor, found.url, found.expires_s, "hit")

    def _control(self, kind: Literal["digest", "tag", "latest", "revalidate"]) -> str:
        return cache_control(kind, cast(Literal["public", "private"], self._mode.visibility))


def _described(record: TagRecord) -> Descriptor:
    return Descriptor(record.digest, record.size_bytes, record.media_type)
