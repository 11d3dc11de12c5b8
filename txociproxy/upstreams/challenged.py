"""Asking a registry that answers with a challenge: as anybody, or with our own login (RULES C7, C8)."""

from __future__ import annotations

from functools import partial

from attrs import define, field, frozen
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from txociproxy.collect import kept
from txociproxy.oci.challenges import Scope
from txociproxy.upstreams.asking import ask_token, wanted_by
from txociproxy.upstreams.connecting.wire import Budget, Outgoing, Wire
from txociproxy.upstreams.entries.entry import Entry
from txociproxy.upstreams.logins.accounts import Login, LoginSource
from txociproxy.upstreams.origins import Origin
from txociproxy.upstreams.pauses import Pauses, paused
from txociproxy.upstreams.realms import Realms, remedy
from txociproxy.upstreams.redirects import Followed, follow
from txociproxy.upstreams.tokens import Place, Token, TokenKey, TokenRefused, Tokens, Wanted

# The page of a 401 is kept, to be given to the client if no token can be had.
_MAX_REFUSAL_BYTES = 64 * 1024
_REFUSAL_S = 5.0
# A realm is the upstream's word, and it could say another one every time.
_MAX_WARNINGS = 8


@frozen
class Shown:
    """What goes with a request.

    :ivar fresh: it is the best there is for its scheme: made just now, or the login itself.
    """

    authorization: str | None = field(default=None, repr=False)
    scheme: str | None = None
    token: Token | None = None
    fresh: bool = False

    def is_last_word(self, wanted: Wanted) -> bool:
        """Whether nothing better can be shown to who wants this."""
        return self.fresh and self.scheme == wanted.scheme


@define(eq=False)
class Challenged:
    """Asks the registry of one entry; a challenge is answered where it can be.

    :ivar _logins: where our own login comes from; None has none.
    """

    _entry: Entry
    _wire: Wire
    _tokens: Tokens
    _clock: IReactorTime
    _logins: LoginSource | None = field(repr=False)
    _realms: Realms
    _pauses: Pauses
    _warned: set[Origin] = field(init=False, factory=set)

    log = Logger()

    async def ask(self, place: Place, outgoing: Outgoing, own: bool, budget: Budget) -> Followed:
        """Ask with what this place is known to want, or else as its challenge says.

        A 401 with a token that was kept leads to one fresh token; the 401 after that is the answer.

        :param own: with our own login, which goes to the registry itself (Basic) or to its token server.
        :raises LoginUnavailable: there is no login now.
        :raises UpstreamUnreachable: no answer, of the registry or of its token server.
        """
        login = await self._logins.login() if own and self._logins is not None else None
        shown = await self._known(place, login)
        # The second round may meet a token that somebody else has fetched meanwhile; the third is the last.
        for last in (False, False, True):
            found = await follow(self._wire, outgoing.with_token(shown.authorization), budget, self._clock)
            wanted = None if last or found.foreign else wanted_by(found.response)
            if wanted is None or shown.is_last_word(wanted) or not self._may_answer(place, wanted, login):
                break
            refusal = await kept(found.response, self._clock, _MAX_REFUSAL_BYTES, _REFUSAL_S)
            self._tokens.learn(place, wanted)
            try:
                shown = await self._answer(place, wanted, login, shown.token)
            except TokenRefused as refused:
                self._tokens.forget(place)
                # A pause of the token server's is not the registry's.
                return Followed(refused.response or refusal, refused.response is not None)
        if found.response.code == 401 and not found.foreign and shown.fresh:
            self._refused(login)
        return found

    async def _known(self, place: Place, login: Login | None) -> Shown:
        """Return what to show to a place whose challenge was met before."""
        wanted = self._tokens.learned(place)
        if wanted is None or not self._may_answer(place, wanted, login):
            return Shown()
        try:
            return await self._answer(place, wanted, login, None)
        except TokenRefused:
            # The registry may have changed its mind since; without a token it will say.
            self._tokens.forget(place)
            return Shown()

    def _may_answer(self, place: Place, wanted: Wanted, login: Login | None) -> bool:
        """Say whether there is anything to show; our login goes to a realm of the same owner only (RULES C8)."""
        if wanted.scheme == "basic":
            return login is not None
        if login is None or self._realms.may_see_credentials(self._entry, place.url, wanted.realm):
            return True
        server = Origin.of(wanted.realm)
        if server not in self._warned and len(self._warned) < _MAX_WARNINGS:
            self._warned.add(server)
            self.log.warn("our login is not sent: {why}", why=remedy(self._entry.namespace, wanted.realm))
        return False

    async def _answer(self, place: Place, wanted: Wanted, login: Login | None, rejected: Token | None) -> Shown:
        """Return what a challenge asks for.

        :raises TokenRefused: the token server said no.
        """
        if wanted.scheme == "basic":
            assert login is not None, "nobody has nothing to show"
            return Shown(login.authorization, "basic", fresh=True)
        # Never the challenge's own scope: some registries send a placeholder (RULES C7).
        scope = str(Scope("repository", place.repository, ("pull",)))
        mark = "" if login is None else self._tokens.mark(login.authorization)
        key = TokenKey(self._entry.namespace, wanted.realm, wanted.service, scope, mark)
        token, fresh = await self._tokens.token(key, partial(self._ask_token, wanted, login), rejected)
        return Shown(token.authorization, "bearer", token, fresh)

    async def _ask_token(self, wanted: Wanted, login: Login | None, key: TokenKey) -> Token:
        """Ask the token server, unless it wants to be left alone."""
        server, own = Origin.of(wanted.realm), login is not None
        left_s = self._pauses.left_s(str(server), own)
        if left_s > 0:
            self._wire.telling.token("refused")
            raise TokenRefused(f"{server} wants a pause", 429, paused(f"the token server {server}", left_s))
        authorization = None if login is None else login.authorization
        try:
            return await ask_token(self._wire, self._entry, self._clock, wanted, (key.scope,), authorization)
        except TokenRefused as refused:
            if refused.status in (401, 403):
                self._refused(login)
            if refused.response is not None:
                self._pauses.note(str(server), own, refused.response)
            raise

    def _refused(self, login: Login | None) -> None:
        """Tell where the login came from that it is not good."""
        if login is not None and self._logins is not None:
            self._logins.refused(login)
