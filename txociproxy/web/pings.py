"""``/v2/``: is this a registry, and must one bring a token (RULES C1, C2)?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define
from twisted.web.server import Request

from txociproxy.oci.errors import OCIError, UpstreamUnreachable
from txociproxy.oci.requests import Ping
from txociproxy.upstreams.table import LiveTable
from txociproxy.web.access import Visit
from txociproxy.web.asking import about_ping, host_of, listener_of
from txociproxy.web.authorization import Reception
from txociproxy.web.replies import Circumstances, error_reply, relay_reply
from txociproxy.web.sending import Reply
from txociproxy.web.settings import WebSettings

if TYPE_CHECKING:
    from txociproxy.cache import Cache

_EMPTY_JSON = b"{}"


@define(eq=False)
class Pings:
    """Answers pings.

    docker, skopeo and podman learn here, and only here, that there is a token to fetch: 200 now and a 401 later is
    fatal to them.
    """

    _cache: Cache
    _table: LiveTable
    _reception: Reception
    _settings: WebSettings

    async def answer(self, request: Request, visit: Visit, target: Ping) -> Reply:
        """Ask the upstream only when no other can be meant."""
        entry = self._table.current.bound(target.namespace, host_of(request), listener_of(request))
        named = entry.namespace if entry is not None and target.namespace else None
        around = about_ping(request, self._settings.public_url, named)
        if self._reception.shows_ours(request):
            return welcome(around)
        if entry is not None:
            visit.namespace = entry.namespace
            return await self._relayed(entry.namespace, around)
        if any(entry.client_credentials == "forward" for entry in self._table.current.entries):
            return error_reply(OCIError("UNAUTHORIZED", "fetch a token first"), around)
        return welcome(around)

    async def _relayed(self, namespace: str, around: Circumstances) -> Reply:
        """Say what the upstream says; when it is lost, kept content can still be pulled."""
        try:
            relay = await self._cache.ping(namespace)
        except UpstreamUnreachable:
            if not self._settings.is_transparent:
                raise
            return welcome(around)
        is_lost = relay.status == 429 or relay.status >= 500
        if relay.status == 200 or (is_lost and self._settings.is_transparent):
            return welcome(around)
        return relay_reply(relay, around)


def welcome(around: Circumstances) -> Reply:
    """Say yes."""
    return Reply(200, (("Content-Type", "application/json"), *around.made), _EMPTY_JSON, len(_EMPTY_JSON))
