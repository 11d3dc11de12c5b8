"""Manifests, blobs and lists: route, ask the cache, answer (RULES B7)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define, evolve
from twisted.web.server import Request

from txociproxy.interfaces import Ask, Kind, Pull, Redirect, Relay, Serve
from txociproxy.oci.accept import EVERYTHING
from txociproxy.oci.errors import TxOCIProxyError
from txociproxy.oci.names import Digest, Reference
from txociproxy.oci.requests import BlobPull, ManifestPull, Referrers, TagList
from txociproxy.upstreams.entries.table import LiveTable, Route
from txociproxy.web.access import Visit
from txociproxy.web.asking import (
    about_repository,
    accepted,
    has_already,
    host_of,
    listener_of,
    method_of,
    wanted_range,
)
from txociproxy.web.authorization import Reception
from txociproxy.web.cache_status import cache_status
from txociproxy.web.replies import (
    Circumstances,
    as_gateway,
    as_oci_error,
    error_reply,
    in_words,
    listing_reply,
    redirect_reply,
    relay_reply,
    serve_plan,
)
from txociproxy.web.sending import Reply, send_reply
from txociproxy.web.settings import WebSettings
from txociproxy.web.streaming import Streams

if TYPE_CHECKING:
    from txociproxy.cache import Cache

_REFERRERS_TYPE = "application/vnd.oci.image.index.v1+json"


@define(eq=False)
class Pulls:
    """Answers what concerns a repository."""

    _cache: Cache
    _table: LiveTable
    _reception: Reception
    _streams: Streams
    _settings: WebSettings

    async def answer(
        self, request: Request, visit: Visit, target: ManifestPull | BlobPull | TagList | Referrers
    ) -> None:
        """Answer one request; its errors name the repository in their challenge."""
        route = self._table.current.route(target.name, target.namespace, host_of(request), listener_of(request))
        visit.namespace, visit.repository = route.namespace, str(route.repository)
        around = about_repository(request, self._settings, route, target)
        try:
            if isinstance(target, TagList | Referrers):
                send_reply(request, await self._listing(request, visit, target, route, around))
            else:
                await self._pull(request, visit, target, route, around)
        except TxOCIProxyError as error:
            told = as_oci_error(error)
            if told is None:
                raise
            visit.fails(str(told))
            send_reply(request, error_reply(told, around))

    async def _listing(
        self, request: Request, visit: Visit, target: TagList | Referrers, route: Route, around: Circumstances
    ) -> Reply:
        """Pass on a tag list or what refers to a manifest.

        What is accepted is fixed: lists are kept by repository and query alone.
        """
        credentials = self._reception.credentials(request, route)
        if isinstance(target, TagList):
            path, accept = "tags/list", "application/json"
        else:
            path, accept = f"referrers/{target.digest}", _REFERRERS_TYPE
        relay = await self._cache.listing(route.namespace, route.repository, path, target.query, credentials, accept)
        visit.outcome = relay.outcome
        around = evolve(around, cache_status=cache_status(relay.outcome, False, relay.status))
        relay = as_gateway(relay)
        if request.method == b"GET":
            relay = in_words(relay, "NAME_UNKNOWN")
        return listing_reply(relay, around, f"/v2/{target.name}/{path}")

    async def _pull(
        self, request: Request, visit: Visit, target: ManifestPull | BlobPull, route: Route, around: Circumstances
    ) -> None:
        """Give a manifest or a blob."""
        ask = self._ask(request, visit, target, route)
        verdict = await self._cache.pull(ask)
        visit.outcome = verdict.outcome
        around = evolve(around, range_spec=ask.range_spec, cache_status=_status(ask, verdict))
        if isinstance(verdict, Redirect):
            send_reply(request, redirect_reply(verdict, around))
        elif isinstance(verdict, Serve):
            plan = serve_plan(verdict, around, ask.pull.kind == "blob")
            await self._streams.send(request, visit, verdict, plan, around)
        else:
            send_reply(request, _unless_known(verdict, request, ask, around))

    def _ask(self, request: Request, visit: Visit, target: ManifestPull | BlobPull, route: Route) -> Ask:
        """Put a pull into the words of the cache."""
        reference: Reference
        kind: Kind
        if isinstance(target, BlobPull):
            reference, kind, accept_class = target.digest, "blob", EVERYTHING
            range_spec = wanted_range(request, target.digest)
        else:
            reference, kind, accept_class = target.reference, "manifest", accepted(request)
            range_spec = None
        # A client that has the content needs no body, so none is fetched for it.
        known = isinstance(reference, Digest) and has_already(request, reference)
        return Ask(
            method="HEAD" if known else method_of(request),
            pull=Pull(route.namespace, route.repository, reference, kind, accept_class),
            credentials=self._reception.credentials(request, route),
            range_spec=None if known else range_spec,
            client=visit.client,
            has_fallback=route.bound,
        )


def _status(ask: Ask, verdict: Serve | Relay | Redirect) -> str:
    """Say what the cache did (RFC 9211)."""
    fwd_status = verdict.status if isinstance(verdict, Relay) else None
    by_digest = isinstance(ask.pull.reference, Digest)
    return cache_status(verdict.outcome, by_digest, fwd_status, isinstance(verdict, Redirect))


def _unless_known(relay: Relay, request: Request, ask: Ask, around: Circumstances) -> Reply:
    """Pass on an answer; one that was asked as a HEAD in place of a GET has no body to pass on."""
    if relay.status == 200 and ask.method == "HEAD" and request.method == b"GET":
        return Reply(304, (*around.made, ("ETag", f'"{ask.pull.reference}"')))
    relay = as_gateway(relay)
    if request.method == b"GET":
        relay = in_words(relay, "BLOB_UNKNOWN" if ask.pull.kind == "blob" else "MANIFEST_UNKNOWN")
    return relay_reply(relay, around)
