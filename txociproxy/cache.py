"""Cache: the paths of a pull, told from top to bottom.

A request has been parsed and routed.  The mode may refuse it; the storage has the content, knows where it is or does
not have it; upstream is asked last.
"""

from __future__ import annotations

from attrs import define, evolve
from twisted.web.iweb import IResponse

from txociproxy.ages import Ages, Doubt
from txociproxy.answers import field_of, fields_of, promised_length
from txociproxy.asking import Asking
from txociproxy.blobs import Blobs
from txociproxy.elsewhere import Elsewheres
from txociproxy.exchanges import Exchanges
from txociproxy.ingests import BLOB_TYPE
from txociproxy.interfaces import (
    ANONYMOUS,
    Admitted,
    Ask,
    Credentials,
    Elsewhere,
    Exchanged,
    IMode,
    IStorage,
    Local,
    Redirect,
    Refused,
    Relay,
    Serve,
)
from txociproxy.listings import Listings
from txociproxy.manifests import Manifests
from txociproxy.oci.errors import StorageUnavailable, UpstreamUnreachable
from txociproxy.oci.headers import kept
from txociproxy.oci.manifests import bare_media_type
from txociproxy.oci.names import Descriptor, Digest, Repository, Tag
from txociproxy.pings import Pings
from txociproxy.serving import Serving
from txociproxy.tagged import TagPulls
from txociproxy.turns import Turns

Answer = Serve | Redirect | Relay


@define(eq=False)
class Cache:
    """Answers pulls."""

    _storage: IStorage
    _mode: IMode
    _asking: Asking
    _manifests: Manifests
    _tagged: TagPulls
    _blobs: Blobs
    _listings: Listings
    _pings: Pings
    _exchanges: Exchanges
    _ages: Ages
    _serving: Serving
    _elsewheres: Elsewheres
    _turns: Turns

    async def pull(self, ask: Ask) -> Answer:
        """Answer a GET or HEAD of a manifest or blob.

        :raises OCIError: the client's fault, or an upstream that sends something else than it should.
        :raises UpstreamUnreachable: there was no answer, and none is kept.
        """
        admitted = await self._mode.admit(ask)
        if isinstance(admitted, Refused):
            return admitted.response
        reference = ask.pull.reference
        if ask.method == "HEAD" and not self._mode.answers_head_from_cache:
            return self._described(ask, admitted)
        if isinstance(reference, Tag):
            if self._mode.answers_head_from_cache:
                return await self._tagged.pull(ask, reference)
            return await self._tagged.pull_admitted(ask, reference, admitted.digest)
        if ask.pull.kind == "manifest":
            return await self._pull_manifest(ask, reference)
        return await self._pull_blob(ask, reference)

    # --- by digest

    async def _pull_blob(self, ask: Ask, digest: Digest) -> Answer:
        arriving = self._blobs.arriving(ask.pull.namespace, digest)
        found = await self._find(ask, digest)
        if found is None and arriving is not None and arriving.kept:
            # It was published after we had looked and before we were told: nobody is here to be joined any more.
            found = await self._find(ask, digest)
        if found is None and ask.method == "GET" and self._blobs.begins_whole(ask, digest):
            # Another process may be fetching it for the same storage.
            found = await self._find(ask, digest) if await self._turns.await_turn(digest) else None
        if found is not None:
            # A blob has no type of its own, whatever it was when it was fetched.
            found = evolve(found, descriptor=evolve(found.descriptor, media_type=BLOB_TYPE))
            # Where the mode has not asked the upstream already.
            doubt = self._ages.doubt(ask, digest, found) if self._mode.survives_upstream_loss else None
            gone = None if doubt is None else await self._gone(doubt, found)
            if gone is not None:
                return gone
            if isinstance(found, Local):
                return self._serving.serve(ask, found, "hit", self._serving.control("digest"))
            return await self._elsewheres.answer(ask, found) or await self._instead(ask, digest, found)
        if ask.method == "HEAD":
            return await self._head(ask, digest)
        try:
            return await self._blobs.pull(ask, digest)
        finally:
            if self._blobs.begins_whole(ask, digest):  # what came of it keeps nobody from fetching it any more
                self._turns.leave(digest)

    async def _instead(self, ask: Ask, digest: Digest, found: Elsewhere) -> Answer:
        """Pull from the upstream what lies elsewhere and could not be had there just now.

        Should the upstream have nothing, that place is asked once more: it may only have been busy, and what is kept is
        served whatever the upstream says.  Where the mode asks the upstream about each client, its refusal stands.
        """
        try:
            answer = await self._blobs.pull(ask, digest)
        except UpstreamUnreachable:
            again = await self._elsewheres.answer(ask, found)
            if again is None:
                raise
            return again
        if isinstance(answer, Relay) and (
            self._mode.survives_upstream_loss or answer.status == 429 or answer.status >= 500
        ):
            return await self._elsewheres.answer(ask, found) or answer
        return answer

    async def _pull_manifest(self, ask: Ask, digest: Digest) -> Answer:
        found = await self._manifests.find(ask.pull.namespace, digest)
        if found is not None:
            return self._serving.serve(ask, found, "hit", self._serving.control("digest"))
        if ask.method == "HEAD":
            return await self._head(ask, digest)
        outcome, own = await self._manifests.fetch(ask, ask.pull)
        if isinstance(outcome, Relay):
            return outcome
        return self._serving.manifest(ask, outcome, own, self._serving.control("digest"))

    async def _head(self, ask: Ask, digest: Digest) -> Answer:
        """HEAD of what is not kept: HEAD upstream, never a GET (RULES D5)."""
        response = await self._asking.head(ask, ask.pull)
        if response.code != 200:
            return Relay(response.code, fields_of(response), b"")
        media_type = BLOB_TYPE
        if ask.pull.kind == "manifest":
            media_type = bare_media_type(field_of(response, "Content-Type") or media_type)
        descriptor = Descriptor(digest, promised_length(response), media_type)
        return Serve(descriptor, kept(fields_of(response)), None, "relay", self._serving.control("digest"))

    async def _gone(self, doubt: Doubt, found: Local | Elsewhere) -> Relay | None:
        """Let the upstream say that an old blob is no more."""
        gone: Relay | None = None
        is_told = False
        try:
            gone = await self._ages.gone(doubt)
            is_told = True
        finally:
            if isinstance(found, Local) and (gone is not None or not is_told):
                found.body.close()  # nobody reads it: it is gone, or the client is
        return gone

    def _described(self, ask: Ask, admitted: Admitted) -> Answer:
        """Answer a HEAD with what the upstream has just said."""
        reference = ask.pull.reference
        if admitted.digest is None:
            return Relay(200, admitted.headers, b"", content_length=admitted.size_bytes)
        media_type = BLOB_TYPE if ask.pull.kind == "blob" else admitted.media_type or BLOB_TYPE
        descriptor = Descriptor(admitted.digest, admitted.size_bytes, media_type)
        if isinstance(reference, Tag):
            control, vary = self._tagged.control(ask, reference), True
        else:
            control, vary = self._serving.control("digest"), False
        return Serve(descriptor, kept(admitted.headers), None, "relay", control, vary_accept=vary)

    # --- what is not pulled

    async def ping(self, namespace: str, credentials: Credentials = ANONYMOUS) -> Relay:
        """Answer ``GET /v2/`` for one upstream: its own answer, or 200 when it is lost (RULES C2).

        :raises UpstreamUnreachable: it is lost, and the mode does not survive that.
        """
        return await self._pings.get(namespace, credentials)

    async def exchange(
        self, namespace: str, repositories: tuple[Repository, ...], authorization: str
    ) -> Exchanged | Relay:
        """See :meth:`Exchanges.exchange`."""
        return await self._exchanges.exchange(namespace, repositories, authorization)

    async def listing(
        self, namespace: str, repository: Repository, path: str, query: str, credentials: Credentials, accept: str
    ) -> Relay:
        """Pass a tag list or referrers through; remembered for a short while."""
        upstream = self._asking.upstream(namespace)

        async def send() -> IResponse:
            got = await self._asking.as_allowed(
                upstream, (credentials,), lambda who: upstream.listing(repository, path, query, who, accept)
            )
            return got.response

        return await self._listings.get((namespace, repository, path, query), send)

    # --- small things

    async def _find(self, ask: Ask, digest: Digest) -> Local | Elsewhere | None:
        try:
            return await self._storage.find(digest, ask.pull.namespace)
        except StorageUnavailable:
            return None  # said by the storage; the pull goes on without it
