"""Pulls by tag: what the tag means is believed, asked for, or was just said when the client was admitted (RULES E8)."""

from __future__ import annotations

from attrs import define, evolve

from txociproxy.interfaces import Ask, Local, Relay, Serve, TagRecord
from txociproxy.manifests import Manifests
from txociproxy.meanings import Resolved
from txociproxy.oci.errors import UpstreamUnreachable
from txociproxy.oci.names import Descriptor, Digest, Tag
from txociproxy.serving import Serving, outcome_of
from txociproxy.tags import Tags


@define(eq=False)
class TagPulls:
    """Answers pulls by tag."""

    _manifests: Manifests
    _tags: Tags
    _serving: Serving

    async def pull(self, ask: Ask, tag: Tag) -> Serve | Relay:
        """Answer with what the tag means, as far as it may be believed.

        :raises UpstreamUnreachable: there was no answer, and none is kept.
        :raises OCIError: what upstream sent is no manifest.
        """
        resolved = await self._tags.resolve(ask, tag)
        if isinstance(resolved, Resolved) and resolved.state == "fresh":
            kept_answer = await self._kept(ask, tag, resolved)
            if kept_answer is not None:
                return kept_answer
            resolved = await self._tags.resolve(ask, tag, believe=False)
        if isinstance(resolved, Relay):
            return resolved
        return await self._kept(ask, tag, resolved) or await self._unkept(ask, tag, resolved)

    async def pull_admitted(self, ask: Ask, tag: Tag, digest: Digest | None) -> Serve | Relay:
        """Answer with what upstream has just said that the tag means, for this client.

        :param digest: None where upstream does not say it; then the tag itself is fetched.
        :raises UpstreamUnreachable: and OCIError as :meth:`pull`.
        """
        control = self.control(ask, tag)
        if digest is None:
            manifest = await self._manifests.get(ask, ask.pull)
            if isinstance(manifest, Relay):
                return manifest
            return self._serving.manifest(ask, manifest, True, control, vary=True)
        found = await self._manifests.find(ask.pull.namespace, digest)
        if found is not None:
            return self._serving.serve(ask, found, "hit", control, vary=True)
        return await self._fetched(ask, digest, control)

    def control(self, ask: Ask, tag: Tag) -> str:
        """Return the value of Cache-Control for what a tag means now."""
        if not self._tags.rules(ask.pull, tag).keeps(tag.name):
            return self._serving.control("revalidate")
        return self._serving.control("latest" if tag.name == "latest" else "tag")

    async def _kept(self, ask: Ask, tag: Tag, resolved: Resolved) -> Serve | None:
        """Answer with what is here, or has just come."""
        if resolved.manifest is not None:
            found: Local | None = resolved.manifest.to_local()
            outcome = outcome_of(resolved.manifest, resolved.own)
        else:
            found = await self._manifests.find(ask.pull.namespace, resolved.record.digest)
            outcome = "stale" if resolved.state == "stale" else "hit"
        if found is None:
            return None
        return self._serving.serve(ask, found, outcome, self._resolved_control(ask, tag, resolved), vary=True)

    async def _unkept(self, ask: Ask, tag: Tag, resolved: Resolved) -> Serve | Relay:
        """Upstream has just said what the tag means; that content is not here."""
        if resolved.state == "stale":
            raise UpstreamUnreachable("the upstream cannot be reached, and this tag's manifest is not kept")
        control = self._resolved_control(ask, tag, resolved)
        if ask.method == "HEAD":
            return Serve(_described(resolved.record), (), None, "relay", control, vary_accept=True)
        return await self._fetched(ask, resolved.record.digest, control)

    async def _fetched(self, ask: Ask, digest: Digest, control: str) -> Serve | Relay:
        fetched, own = await self._manifests.fetch(ask, evolve(ask.pull, reference=digest))
        if isinstance(fetched, Relay):
            return fetched
        return self._serving.manifest(ask, fetched, own, control, vary=True)

    def _resolved_control(self, ask: Ask, tag: Tag, resolved: Resolved) -> str:
        return self._serving.control("revalidate") if resolved.state == "stale" else self.control(ask, tag)


def _described(record: TagRecord) -> Descriptor:
    return Descriptor(record.digest, record.size_bytes, record.media_type)
