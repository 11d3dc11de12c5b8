"""Redirects are followed inside: clients see one answer, and no origin sees another's credentials (RULES F3)."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import quote, urljoin

from attrs import evolve
from twisted.internet.interfaces import IReactorTime
from twisted.web.http_headers import Headers
from twisted.web.iweb import IResponse

from txociproxy.collect import KeptResponse, discard, kept
from txociproxy.oci.errors import UpstreamUnreachable
from txociproxy.upstreams.connecting.wire import Budget, Outgoing, Wire
from txociproxy.upstreams.origins import Origin

MAX_HOPS = 5
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_SECRETS = frozenset({"authorization", "cookie"})
# A redirect's page is read, so that its connection can be used again; a longer or slower one is closed.
_MAX_PAGE_BYTES = 16 * 1024
_PAGE_S = 2.0


class Followed(NamedTuple):
    """The answer at the end of a chain.

    :ivar foreign: it comes from another origin than the one that was asked.
    """

    response: IResponse
    foreign: bool


async def follow(wire: Wire, outgoing: Outgoing, budget: Budget, clock: IReactorTime) -> Followed:
    """Send a request and follow where it leads; all hops share one deadline.

    :raises UpstreamUnreachable: a hop could not be reached, leads nowhere, or there are too many.
    :raises OCIError: the guard refused a hop.
    """
    first = Origin.of(outgoing.url)
    foreign = False
    for _ in range(MAX_HOPS + 1):
        response = await wire.send(outgoing, budget)
        location = _location(response)
        if location is None:
            return Followed(response, foreign)
        await _drop(response, clock)
        url = _target(outgoing.url, location)
        if not foreign and Origin.of(url) != first:
            # From here on for good: a chain that comes back was led by a stranger.
            foreign = True
            outgoing = _without_secrets(outgoing)
        outgoing = evolve(outgoing, url=url)
    raise UpstreamUnreachable(f"{first} redirects more than {MAX_HOPS} times")


def without_page(found: Followed) -> IResponse:
    """Return an answer that may be passed on: servers elsewhere repeat signed addresses in the pages of refusals.

    416 says with its fields how long the content is, and has no page worth hiding.
    """
    response = found.response
    if not found.foreign or response.code < 400 or isinstance(response, KeptResponse):
        return response  # what is kept was made here
    discard(response)
    headers = Headers()
    for name in (b"content-range", b"retry-after"):
        headers.setRawHeaders(name, response.headers.getRawHeaders(name, []))
    return KeptResponse(response.code, headers, b"")


def _location(response: IResponse) -> bytes | None:
    """Return where an answer sends us, or None if it is to be taken as it is."""
    if response.code not in _REDIRECTS:
        return None
    values: list[bytes] = response.headers.getRawHeaders(b"location", [])
    return values[0] if len(values) == 1 and values[0] else None


def _target(url: str, location: bytes) -> str:
    """Return the absolute URL of a hop.

    :raises UpstreamUnreachable: it cannot be followed.
    """
    # Bytes that cannot stand in a URL are sent by some all the same; signatures are in what can, and stay as they are.
    text = quote(location, safe="!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")
    here = Origin.of(url)
    try:
        target = urljoin(url, text).partition("#")[0]
        there = Origin.of(target)
    except ValueError:
        raise UpstreamUnreachable(f"{here} redirects to something that is not a usable URL") from None
    if (here.scheme, there.scheme) == ("https", "http"):
        raise UpstreamUnreachable(f"{here} redirects from https to http, which is not followed")
    return target


def _without_secrets(outgoing: Outgoing) -> Outgoing:
    plain = tuple(pair for pair in outgoing.headers if pair[0].lower() not in _SECRETS)
    return evolve(outgoing, headers=plain, shows_client=False)


async def _drop(response: IResponse, clock: IReactorTime) -> None:
    """Read a short page to its end, close any other."""
    if isinstance(response.length, int) and response.length <= _MAX_PAGE_BYTES:
        await kept(response, clock, _MAX_PAGE_BYTES, _PAGE_S)
    else:
        discard(response)
