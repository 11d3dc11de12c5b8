"""One upstream as the cache sees it: several URLs tried in order, challenges answered, redirects followed."""

from __future__ import annotations

from attrs import define, field
from twisted.internet.interfaces import IReactorTime
from twisted.web.iweb import IResponse
from zope.interface import implementer

from txociproxy.interfaces import ANONYMOUS, Credentials, Exchanged, IUpstream, Pull, Relay
from txociproxy.oci.accept import accept_field
from txociproxy.oci.errors import UpstreamUnreachable
from txociproxy.oci.names import Repository
from txociproxy.upstreams.challenged import Challenged
from txociproxy.upstreams.connecting.wire import Outgoing, Wire
from txociproxy.upstreams.entries.entry import Entry
from txociproxy.upstreams.exchanging import Exchanging
from txociproxy.upstreams.logins.accounts import LoginSource
from txociproxy.upstreams.pauses import Pauses
from txociproxy.upstreams.probing import probe
from txociproxy.upstreams.quota import Quota
from txociproxy.upstreams.realms import Realms
from txociproxy.upstreams.redirects import Followed
from txociproxy.upstreams.tokens import Tokens
from txociproxy.upstreams.urls import Converse, Send, Urls, once


@implementer(IUpstream)
@define(eq=False)
class Upstream:
    """See :class:`IUpstream`; what is said there about errors holds.

    :ivar _logins: where our own login for it comes from; None has none.
    """

    _entry: Entry
    _wire: Wire
    _tokens: Tokens
    _clock: IReactorTime
    _logins: LoginSource | None = field(default=None, repr=False)
    _realms: Realms = field(factory=Realms)
    _quota: Quota = field(init=False)
    _urls: Urls = field(init=False)
    _exchanging: Exchanging = field(init=False)

    def __attrs_post_init__(self) -> None:
        entry, wire, tokens, clock = self._entry, self._wire, self._tokens, self._clock
        pauses = Pauses(clock)
        challenged = Challenged(entry, wire, tokens, clock, self._logins, self._realms, pauses)
        self._quota = Quota(clock, entry.quota_low, wire.telling.quota)
        self._urls = Urls(entry, wire, clock, challenged, pauses, self._quota)
        self._exchanging = Exchanging(entry, wire, tokens, clock, self._realms)

    @property
    def namespace(self) -> str:
        """The canonical name."""
        return self._entry.namespace

    @property
    def has_own_credentials(self) -> bool:
        """See :class:`IUpstream`."""
        return self._logins is not None and self._entry.is_listed

    @property
    def can_spare(self) -> bool:
        """See :class:`IUpstream`."""
        return self._quota.can_spare

    async def get(
        self, pull: Pull, credentials: Credentials, byte_range: str | None, deadline_s: float | None
    ) -> IResponse:
        """GET a manifest or blob."""
        fields = () if byte_range is None else (("Range", byte_range),)
        ask = Outgoing("GET", _path(pull), (("Accept", _accept(pull)), *fields), bulk=pull.kind == "blob")
        return await self._ask(ask, pull.repository, credentials, deadline_s)

    async def head(self, pull: Pull, credentials: Credentials, deadline_s: float | None) -> IResponse:
        """HEAD a manifest or blob."""
        return await self._ask(_head(pull), pull.repository, credentials, deadline_s)

    async def probe(self, pull: Pull, credentials: Credentials, deadline_s: float | None) -> IResponse:
        """See :meth:`IUpstream.probe`."""

        async def probed(send: Send, ask: Outgoing) -> Followed:
            return await probe(send, ask, self.namespace, self._clock)

        return await self._ask(_head(pull), pull.repository, credentials, deadline_s, probed)

    async def exchange(self, repositories: tuple[Repository, ...], authorization: str) -> Exchanged | Relay:
        """See :meth:`IUpstream.exchange`; an upstream that takes no client's credentials wants to see nothing."""
        if not self._takes_clients:
            return Exchanged(None)
        *others, last = self._urls.in_order()
        for url in others:
            try:
                return await self._exchanging.exchange(url, repositories, authorization)
            except UpstreamUnreachable as error:
                self._urls.go_on(error)
        return await self._exchanging.exchange(last, repositories, authorization)

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
        self,
        ask: Outgoing,
        repository: Repository | None,
        credentials: Credentials,
        deadline_s: float | None,
        converse: Converse = once,
    ) -> IResponse:
        return await self._urls.ask(ask, repository, self._allowed(credentials), deadline_s, converse)

    def _allowed(self, credentials: Credentials) -> Credentials:
        """Return in whose name this entry may be asked (RULES C6)."""
        if credentials.own:
            return credentials if self.has_own_credentials else ANONYMOUS
        return credentials if self._takes_clients else ANONYMOUS

    @property
    def _takes_clients(self) -> bool:
        return self._entry.is_listed and self._entry.client_credentials == "forward"


def _head(pull: Pull) -> Outgoing:
    return Outgoing("HEAD", _path(pull), (("Accept", _accept(pull)),))


def _path(pull: Pull) -> str:
    return f"/v2/{pull.repository}/{pull.kind}s/{pull.reference}"


def _accept(pull: Pull) -> str:
    return accept_field(pull.accept_class) if pull.kind == "manifest" else "*/*"
