"""One upstream as the cache sees it: several URLs tried in order, tokens fetched, redirects followed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from attrs import define, evolve, field
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.web.iweb import IResponse
from zope.interface import implementer

from txociproxy.interfaces import Credentials, Exchanged, IUpstream, Pull, Relay
from txociproxy.oci.accept import accept_field
from txociproxy.oci.challenges import Scope
from txociproxy.oci.errors import UpstreamUnreachable
from txociproxy.oci.names import Repository
from txociproxy.upstreams.asking import ask_token, wanted_token
from txociproxy.upstreams.collect import discard, kept
from txociproxy.upstreams.entry import Entry
from txociproxy.upstreams.redirects import Followed, follow
from txociproxy.upstreams.tokens import Place, Token, TokenRefused, Tokens
from txociproxy.upstreams.wire import Budget, Outgoing, Wire

# A URL that was down is tried last for this long, so that not every pull waits for its time-out (RULES D8).
DOWN_S = 10.0
# The page of a 401 is kept, to be given to the client if no token can be had.
_MAX_REFUSAL_BYTES = 64 * 1024
_REFUSAL_S = 5.0


@implementer(IUpstream)
@define(eq=False)
class Upstream:
    """See :class:`IUpstream`; what is said there about errors holds."""

    _entry: Entry
    _wire: Wire
    _tokens: Tokens
    _clock: IReactorTime
    _down_until_s: dict[str, float] = field(init=False, factory=dict)
    log = Logger()

    @property
    def namespace(self) -> str:
        """The canonical name."""
        return self._entry.namespace

    @property
    def has_own_credentials(self) -> bool:
        """See :class:`IUpstream`."""
        return self._entry.account is not None

    @property
    def can_spare(self) -> bool:
        """See :class:`IUpstream`."""
        return True

    async def probe(self, pull: Pull, credentials: Credentials, deadline_s: float | None) -> IResponse:
        """See :meth:`IUpstream.probe`."""
        raise NotImplementedError

    async def exchange(self, repositories: tuple[Repository, ...], authorization: str) -> Exchanged | Relay:
        """See :meth:`IUpstream.exchange`."""
        raise NotImplementedError

    async def get(
        self, pull: Pull, credentials: Credentials, byte_range: str | None, deadline_s: float | None
    ) -> IResponse:
        """GET a manifest or blob."""
        fields = () if byte_range is None else (("Range", byte_range),)
        ask = Outgoing("GET", _path(pull), (("Accept", _accept(pull)), *fields), bulk=pull.kind == "blob")
        return await self._ask(ask, pull.repository, credentials, deadline_s)

    async def head(self, pull: Pull, credentials: Credentials, deadline_s: float | None) -> IResponse:
        """HEAD a manifest or blob."""
        ask = Outgoing("HEAD", _path(pull), (("Accept", _accept(pull)),))
        return await self._ask(ask, pull.repository, credentials, deadline_s)

    async def listing(
        self, repository: Repository, path: str, query: str, credentials: Credentials, accept: str
    ) -> IResponse:
        """GET a tag list or referrers."""
        target = f"/v2/{repository}/{path}" + (f"?{query}" if query else "")
        return await self._ask(Outgoing("GET", target, (("Accept", accept or "*/*"),)), repository, credentials, None)

    async def ping(self, credentials: Credentials) -> IResponse:
        """GET ``/v2/``; a challenge is returned, not answered."""
        return await self._ask(Outgoing("GET", "/v2/"), None, credentials, self._entry.head_deadline_s)

    async def _ask(
        self, ask: Outgoing, repository: Repository | None, credentials: Credentials, deadline_s: float | None
    ) -> IResponse:
        """Ask one URL after the other until one answers with less than 500; each has an even part of the time.

        :param ask: its ``url`` is still without the upstream's own.
        """
        left_s = self._entry.deadline_s if deadline_s is None else deadline_s
        urls = self._urls()
        for position, url in enumerate(urls):
            last = position == len(urls) - 1
            budget = Budget(left_s / (len(urls) - position))
            share_s = budget.left_s
            try:
                response = await self._converse(url, ask, repository, credentials, budget)
            except UpstreamUnreachable as error:
                self._down_until_s[url] = self._clock.seconds() + DOWN_S
                if last:
                    raise
                self.log.warn("{namespace}: {reason}; trying the next URL", namespace=self.namespace, reason=str(error))
            else:
                if response.code < 500 or last:
                    return response
                discard(response)
            left_s -= share_s - budget.left_s
        raise AssertionError("an entry has at least one URL")

    def _urls(self) -> list[str]:
        """Return the URLs, first choice first, but those that were down a moment ago last."""
        now_s = self._clock.seconds()
        return sorted(self._entry.urls, key=lambda url: self._down_until_s.get(url, 0.0) > now_s)

    async def _converse(
        self, url: str, ask: Outgoing, repository: Repository | None, credentials: Credentials, budget: Budget
    ) -> IResponse:
        """Ask one URL: with the client's own word, without any, or with a token."""
        ask = evolve(ask, url=url + ask.url)
        if credentials.authorization is not None and self._entry.client_credentials == "forward":
            return (await self._send(ask, credentials.authorization, budget)).response
        if repository is None:
            return (await self._send(ask, None, budget)).response
        return await self._with_token(Place(url, str(repository)), ask, budget)

    async def _with_token(self, place: Place, ask: Outgoing, budget: Budget) -> IResponse:
        """Ask as anybody may: with the token that this place is known to want, or else as its challenge says.

        A 401 with a token that was kept leads to one fresh token; the 401 after that is the answer.
        """
        token, fresh = await self._known_token(place)
        # The second round may meet a token that somebody else has fetched meanwhile; the third is the last.
        for last in (False, False, True):
            response, foreign = await self._send(ask, None if token is None else token.authorization, budget)
            scope = str(Scope("repository", place.repository, ("pull",)))
            key = None if last or foreign or fresh else wanted_token(response, self.namespace, scope)
            if key is None:
                break
            refusal = await kept(response, self._clock, _MAX_REFUSAL_BYTES, _REFUSAL_S)
            self._tokens.learn(place, key)
            try:
                token, fresh = await self._tokens.token(key, self._ask_token, rejected=token)
            except TokenRefused as refused:
                self._tokens.forget(place)
                return refused.response or refusal
        return response

    async def _known_token(self, place: Place) -> tuple[Token | None, bool]:
        """Return the token for a place whose challenge was met before, and whether it is fresh."""
        key = self._tokens.learned(place)
        if key is None:
            return None, False
        try:
            return await self._tokens.token(key, self._ask_token)
        except TokenRefused:
            # The registry may have changed its mind since; without a token it will say.
            self._tokens.forget(place)
            return None, False

    async def _send(self, ask: Outgoing, authorization: str | None, budget: Budget) -> Followed:
        return await follow(self._wire, ask.with_token(authorization), budget, self._clock)

    @property
    def _ask_token(self) -> Callable[..., Any]:
        return partial(ask_token, self._wire, self._entry, self._clock)


def _path(pull: Pull) -> str:
    return f"/v2/{pull.repository}/{pull.kind}s/{pull.reference}"


def _accept(pull: Pull) -> str:
    return accept_field(pull.accept_class) if pull.kind == "manifest" else "*/*"
