"""A client's credentials become what the upstream wants to see, at the upstream's own token server (RULES C4)."""

from __future__ import annotations

from typing import NamedTuple

from attrs import define, field
from twisted.internet.interfaces import IReactorTime

from txociproxy.answers import field_of, fields_of
from txociproxy.collect import KeptResponse, collect, kept
from txociproxy.interfaces import Exchanged, Relay
from txociproxy.oci.challenges import Scope
from txociproxy.oci.errors import OCIError, UpstreamUnreachable
from txociproxy.oci.names import Repository
from txociproxy.upstreams.asking import ask_token, wanted_by
from txociproxy.upstreams.connecting.wire import Budget, Outgoing, Wire
from txociproxy.upstreams.entries.entry import Entry
from txociproxy.upstreams.origins import Origin
from txociproxy.upstreams.pauses import slow_down
from txociproxy.upstreams.realms import Realms, remedy
from txociproxy.upstreams.redirects import follow
from txociproxy.upstreams.tokens import Place, TokenRefused, Tokens, Wanted

KEEP_S = 60.0
_MAX_PAGE_BYTES = 64 * 1024
_PAGE_S = 5.0
_JSON = (("Content-Type", "application/json"),)


class _Met(NamedTuple):
    """What ``/v2/`` of a URL wanted; None is nothing."""

    wanted: Wanted | None
    until_s: float


@define(eq=False)
class Exchanging:
    """Exchanges credentials of one entry's clients.

    Only challenges are remembered: a password that was revoked must not live on here.
    """

    _entry: Entry
    _wire: Wire
    _tokens: Tokens
    _clock: IReactorTime
    _realms: Realms
    _met: dict[str, _Met] = field(init=False, factory=dict)

    async def exchange(self, url: str, repositories: tuple[Repository, ...], authorization: str) -> Exchanged | Relay:
        """Exchange at one URL of the upstream; see :meth:`IUpstream.exchange`.

        A registry that sends nobody to a token server sees the credentials as they are.
        """
        wanted = await self._wanted(url, repositories)
        if isinstance(wanted, Relay):
            return wanted
        if wanted is None or wanted.scheme == "basic":
            return Exchanged(authorization)
        if not self._realms.may_see_credentials(self._entry, url, wanted.realm):
            raise OCIError("DENIED", remedy(self._entry.namespace, wanted.realm))
        scopes = tuple(str(Scope("repository", str(repository), ("pull",))) for repository in repositories)
        try:
            token = await ask_token(self._wire, self._entry, self._clock, wanted, scopes, authorization)
        except TokenRefused as refused:
            # It may have moved; the registry will say, at once or, where it wants the same for all, in a minute.
            self._forget(url, repositories)
            return await self._refusal(refused)
        except UpstreamUnreachable:
            self._forget(url, repositories)
            self._met.pop(url, None)
            raise
        return Exchanged(token.authorization, token.good_until_s - self._clock.seconds())

    async def _wanted(self, url: str, repositories: tuple[Repository, ...]) -> Wanted | Relay | None:
        """Return what the registry wants to see; None is nothing, a Relay is its word that it will not say now."""
        for repository in repositories:
            learned = self._tokens.learned(Place(url, str(repository)))
            if learned is not None:
                return learned
        met = self._met.get(url)
        if met is None or met.until_s <= self._clock.seconds():
            wanted = await self._challenge(Outgoing("GET", f"{url}/v2/"))
            if isinstance(wanted, Relay):
                return wanted
            met = self._met[url] = _Met(wanted, self._clock.seconds() + KEEP_S)
        if met.wanted is not None or not repositories:
            return met.wanted
        return await self._wanted_for(url, str(repositories[0]))

    async def _wanted_for(self, url: str, repository: str) -> Wanted | Relay | None:
        """Return what a repository wants to see: some registries let everybody ping."""
        wanted = await self._challenge(Outgoing("HEAD", f"{url}/v2/{repository}/manifests/latest"))
        if isinstance(wanted, Wanted):
            self._tokens.learn(Place(url, repository), wanted)
        return wanted

    async def _challenge(self, ask: Outgoing) -> Wanted | Relay | None:
        """Ask as nobody, to be challenged.

        :raises UpstreamUnreachable: no answer, or 5xx.
        """
        budget = Budget(self._entry.head_deadline_s)
        found = await follow(self._wire, ask, budget, self._clock)
        response = await kept(found.response, self._clock, _MAX_PAGE_BYTES, _PAGE_S)
        if response.code >= 500:
            raise UpstreamUnreachable(f"{Origin.of(ask.url)} answered {response.code}")
        if response.code == 429:
            text = f"{self._entry.namespace} answered 429"
            return await self._relay(slow_down(text, field_of(response, "Retry-After")))
        return None if found.foreign else wanted_by(response)

    async def _refusal(self, refused: TokenRefused) -> Relay:
        """Return what a client is told; never the server's own challenge, for ours is another (RULES C3)."""
        if refused.response is not None:
            return await self._relay(refused.response)
        return Relay(401, _JSON, OCIError("UNAUTHORIZED", str(refused)).to_json())

    async def _relay(self, response: KeptResponse) -> Relay:
        body = await collect(response, _MAX_PAGE_BYTES, self._clock, _PAGE_S)
        return Relay(response.code, fields_of(response), body)

    def _forget(self, url: str, repositories: tuple[Repository, ...]) -> None:
        for repository in repositories:
            self._tokens.forget(Place(url, str(repository)))
