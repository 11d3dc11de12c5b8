"""Whether a credential reaches a content: HEAD, and where HEAD cannot tell, the first byte (RULES D1)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from attrs import evolve
from twisted.internet.interfaces import IReactorTime
from twisted.web.iweb import IResponse

from txociproxy.collect import KeptResponse, discard, kept
from txociproxy.oci.errors import UpstreamUnreachable
from txociproxy.upstreams.connecting.wire import Outgoing
from txociproxy.upstreams.redirects import Followed, without_page

_FIRST_BYTE = ("Range", "bytes=0-0")
# Not implemented here; and from elsewhere also: the address was signed for GET.
_UNCLEAR = frozenset({405, 501})
_UNCLEAR_ELSEWHERE = _UNCLEAR | {403}
_MAX_REFUSAL_BYTES = 64 * 1024
_REFUSAL_S = 5.0


async def probe(
    send: Callable[[Outgoing], Awaitable[Followed]], head: Outgoing, namespace: str, clock: IReactorTime
) -> Followed:
    """Send a HEAD and, if it does not tell, one GET of the first byte; nothing is left to deliver.

    :param send: asks one URL of the upstream, redirects followed.
    :raises UpstreamUnreachable: no answer, or the server it redirects to has failed.
    """
    found = await send(head)
    if found.response.code in (_UNCLEAR_ELSEWHERE if found.foreign else _UNCLEAR):
        discard(found.response)
        found = await send(evolve(head, method="GET", headers=(*head.headers, _FIRST_BYTE)))
    if found.foreign and found.response.code >= 500:
        discard(found.response)
        raise UpstreamUnreachable(f"the server that {namespace} redirects to answered {found.response.code}")
    return Followed(await _closed(found, clock), found.foreign)


async def _closed(found: Followed, clock: IReactorTime) -> IResponse:
    """Return an answer without its content; what a refusal of the registry itself says is kept, if it is short."""
    response = without_page(found)
    if response.code >= 400:
        return await kept(response, clock, _MAX_REFUSAL_BYTES, _REFUSAL_S)
    discard(response)
    return KeptResponse(response.code, response.headers, b"")
