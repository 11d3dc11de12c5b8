"""``/v2/``: is this a registry, and must one bring a token (RULES C1, C2)?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define
from twisted.web.server import Request

from txociproxy.interfaces import ANONYMOUS, Relay
from txociproxy.oci.errors import OCIError, UpstreamUnreachable
from txociproxy.oci.requests import Ping
from txociproxy.upstreams.entries.table import Entry, LiveTable
from txociproxy.web.access import Visit
from txociproxy.web.asking import about_ping, host_of, listener_of
from txociproxy.web.authorization import Reception, Shown, expired, forwards
from txociproxy.web.replies import Circumstances, as_gateway, relay_reply
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
        """Ask the upstream only when no other can be meant.

        :raises OCIError: a token must be fetched first.
        :raises UpstreamUnreachable: the mode does not survive that there is no answer.
        """
        table = self._table.current
        entry = table.bound(target.namespace, host_of(request), listener_of(request))
        shown = self._reception.shown(request)
        named = entry.namespace if entry is not None and target.namespace else None
        around = about_ping(request, self._settings, named)
        if self._settings.owns_authorization:
            return welcome(around)  # whoever got here has shown us what we want to see
        if entry is not None:
            visit.namespace = entry.namespace
            return await self._bound(entry, shown, around)
        if shown.envelope is None and any(map(forwards, table.entries)):
            raise expired() if shown.is_bad else OCIError("UNAUTHORIZED", "fetch a token first")
        return welcome(around)

    async def _bound(self, entry: Entry, shown: Shown, around: Circumstances) -> Reply:
        """Say what the upstream says; who has a token of ours only wants to know whether there is an upstream."""
        has_token = shown.envelope is not None
        if has_token and self._settings.is_transparent:
            return welcome(around)
        credentials = ANONYMOUS if has_token else self._reception.without_envelope(shown, entry)
        try:
            relay = await self._cache.ping(entry.namespace, credentials)
        except UpstreamUnreachable:
            if not self._settings.is_transparent:
                raise
            return welcome(around)
        if relay.status == 200 or (has_token and relay.status < 500) or self._survives(relay):
            return welcome(around)
        return relay_reply(as_gateway(relay), around)

    def _survives(self, relay: Relay) -> bool:
        """Say whether the upstream is as good as lost, which is no reason to turn away who pulls what is kept."""
        return self._settings.is_transparent and (relay.status == 429 or relay.status >= 500)


def welcome(around: Circumstances) -> Reply:
    """Say yes."""
    return Reply(200, (("Content-Type", "application/json"), *around.made), _EMPTY_JSON, len(_EMPTY_JSON))
