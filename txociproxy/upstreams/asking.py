"""One ask at a token server, as the distribution token specification has it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from urllib.parse import urlencode

from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IReactorTime
from twisted.web.iweb import IResponse

from txociproxy.answers import field_of
from txociproxy.collect import BodyTooLong, collect, discard
from txociproxy.oci.challenges import parse_challenges
from txociproxy.oci.errors import UpstreamUnreachable
from txociproxy.upstreams.connecting.wire import Budget, Outgoing, Wire
from txociproxy.upstreams.entries.entry import Entry
from txociproxy.upstreams.origins import Origin
from txociproxy.upstreams.pauses import slow_down
from txociproxy.upstreams.redirects import follow
from txociproxy.upstreams.tokens import Token, TokenRefused, Wanted

# RULES C7.
MAX_ANSWER_BYTES = 64 * 1024
# The specification's own default, "Token Response Fields".
DEFAULT_LIFE_S = 60.0
# Longer ones exist (12 h at ECR); none is believed for longer than this.
MAX_LIFE_S = 24 * 3600.0
# A token that ends on its way to the registry costs a 401 and a fresh ask.
_EARLY_PART = 0.1
_MAX_EARLY_S = 30.0
# RFC 6750 §2.1 (b64token) is narrower; what must not be is anything that ends a header line.
_VALUE = re.compile(r"[!-~]+")


def wanted_by(response: IResponse) -> Wanted | None:
    """Return what a 401 asks for: a token if there is a way to one, else Basic; None is what we do not speak."""
    if response.code != 401:
        return None
    lines: Iterable[bytes] = response.headers.getRawHeaders(b"www-authenticate", [])
    challenges = parse_challenges(line.decode("latin-1") for line in lines)
    for challenge in challenges:
        realm = challenge.get("realm")
        if challenge.scheme == "bearer" and realm and _is_url(realm):
            return Wanted("bearer", realm, challenge.get("service"))
    return Wanted("basic") if any(challenge.scheme == "basic" for challenge in challenges) else None


def _is_url(text: str) -> bool:
    try:
        Origin.of(text)
    except ValueError:
        return False
    return True


async def ask_token(
    wire: Wire,
    entry: Entry,
    clock: IReactorTime,
    wanted: Wanted,
    scopes: tuple[str, ...],
    authorization: str | None = None,
) -> Token:
    """Ask for a token.

    :param authorization: whose token; the caller has made sure that the realm may see it (RULES C8).  Without it the
        realm may be anywhere that the guard lets us.
    :raises TokenRefused: the server said no, or sends a credential elsewhere.
    :raises UpstreamUnreachable: it said nothing, or nonsense.
    :raises OCIError: the guard refused the realm.
    """
    try:
        token = await _ask(wire, entry, clock, wanted, scopes, authorization)
    except CancelledError:
        raise  # it ends with us, which says nothing about the server
    except Exception as error:
        wire.telling.token("refused" if isinstance(error, TokenRefused) else "failed")
        raise
    wire.telling.token("fetched")
    return token


async def _ask(
    wire: Wire, entry: Entry, clock: IReactorTime, wanted: Wanted, scopes: tuple[str, ...], authorization: str | None
) -> Token:
    budget = Budget(entry.token_deadline_s)
    ask = Outgoing("GET", _url(wanted, scopes), (("Accept", "application/json"),)).with_token(authorization)
    response, foreign = await follow(wire, ask, budget, clock)
    server = Origin.of(wanted.realm)
    if authorization is not None and foreign:
        # What is asked there was asked as nobody: its token would say nothing about the credential.
        discard(response)
        raise TokenRefused(f"the token server {server} sends credentials to another place, where they may not go")
    if response.code != 200:
        discard(response)
        raise _refusal(response, server)
    try:
        data = await collect(response, MAX_ANSWER_BYTES, clock, entry.silence_timeout_s, entry.token_deadline_s)
    except BodyTooLong:
        raise UpstreamUnreachable(f"the token server {server} sent more than a token") from None
    return parse_token(data, clock.seconds(), server)


def _url(wanted: Wanted, scopes: tuple[str, ...]) -> str:
    """Return the address of an ask; several scopes are several parameters."""
    service = () if wanted.service is None else (("service", wanted.service),)
    query = urlencode((*service, *(("scope", scope) for scope in scopes)), encoding="latin-1")
    base = wanted.realm.partition("#")[0]
    return f"{base}{'&' if '?' in base else '?'}{query}" if query else base


def _refusal(response: IResponse, server: Origin) -> Exception:
    """Return what an answer other than 200 means: a dead server is an outage, a plain no is the client's affair."""
    text = f"the token server {server} answered {response.code}"
    if response.code == 429:
        return TokenRefused(text, 429, slow_down(text, field_of(response, "Retry-After")))
    if 400 <= response.code < 500:
        return TokenRefused(text, response.code)
    return UpstreamUnreachable(text)


def parse_token(data: bytes, now_s: float, server: object = "") -> Token:
    """Read a token answer; ``token`` and ``access_token`` mean the same, and one of them is there.

    :raises UpstreamUnreachable: it is not one.
    """
    try:
        answer = json.loads(data)
    except (ValueError, RecursionError):
        answer = None
    fields = answer if isinstance(answer, dict) else {}
    value = fields.get("token") or fields.get("access_token")
    if not isinstance(value, str) or not _VALUE.fullmatch(value):
        raise UpstreamUnreachable(f"the token server {server} sent something that is not a token")
    life_s = _life_s(fields.get("expires_in"))
    return Token(value, now_s + life_s - min(life_s * _EARLY_PART, _MAX_EARLY_S))


def _life_s(expires_in: object) -> float:
    """Return the seconds that a token lives; ``issued_at`` is another machine's clock and does not count."""
    if isinstance(expires_in, bool) or not isinstance(expires_in, int | float) or not expires_in > 0:
        return DEFAULT_LIFE_S
    return float(min(expires_in, MAX_LIFE_S))
