"""The URLs of one upstream: one after the other until one answers, and none that wants a pause (RULES D7, D8)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

from attrs import define, evolve
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.web.iweb import IResponse

from txociproxy.collect import discard
from txociproxy.interfaces import Credentials
from txociproxy.oci.errors import UpstreamUnreachable
from txociproxy.oci.names import Repository
from txociproxy.upstreams.challenged import Challenged
from txociproxy.upstreams.connecting.wire import Budget, Outgoing, Wire
from txociproxy.upstreams.entries.entry import Entry
from txociproxy.upstreams.logins.accounts import LoginUnavailable
from txociproxy.upstreams.pauses import Pauses, paused
from txociproxy.upstreams.quota import Quota
from txociproxy.upstreams.redirects import Followed, follow, without_page
from txociproxy.upstreams.tokens import Place

# Asks one URL, redirects followed.
Send = Callable[[Outgoing], Awaitable[Followed]]
Converse = Callable[[Send, Outgoing], Awaitable[Followed]]


async def once(send: Send, ask: Outgoing) -> Followed:
    """Have the shortest conversation there is.

    :raises UpstreamUnreachable: the server that the registry redirects to refuses us.  No credential goes there, so
        that is about nobody's credential: nobody else's would be better, and no client can log in to it.
    """
    found = await send(ask)
    if found.foreign and found.response.code in (401, 403):
        discard(found.response)
        raise UpstreamUnreachable(f"the server that it redirects to answered {found.response.code}")
    return found


@define(eq=False)
class Urls:
    """Asks the URLs of one entry, and hears what they say about pace."""

    _entry: Entry
    _wire: Wire
    _clock: IReactorTime
    _challenged: Challenged
    _pauses: Pauses
    _quota: Quota

    log = Logger()

    def in_order(self) -> list[str]:
        """Return all of them, first choice first, but those that have just failed to answer last."""
        return sorted(self._entry.urls, key=self._wire.is_doubtful)

    async def ask(
        self,
        ask: Outgoing,
        repository: Repository | None,
        who: Credentials,
        deadline_s: float | None,
        converse: Converse = once,
    ) -> IResponse:
        """Ask until one answers with less than 500; those that have not just failed share the time evenly.

        :param ask: its ``url`` is still without the upstream's own.
        :param repository: None leaves a challenge unanswered.
        :param converse: what is done at one URL.
        """
        urls = [url for url in self.in_order() if not self._pause_left_s(url, who)]
        if not urls:
            return paused(self._entry.namespace, min(self._pause_left_s(url, who) for url in self._entry.urls))
        left_s = self._entry.deadline_s if deadline_s is None else deadline_s
        parts = sum(not self._wire.is_doubtful(url) for url in urls) or len(urls)
        for position, url in enumerate(urls):
            share_s = left_s / max(parts - position, 1)
            budget = Budget(share_s)
            send = partial(self._send, url, repository, who, budget)
            is_last = position == len(urls) - 1
            try:
                response = without_page(await converse(send, evolve(ask, url=url + ask.url)))
            except LoginUnavailable:
                raise  # our own login is the same for every URL
            except UpstreamUnreachable as error:
                left_s -= share_s - budget.left_s
                if is_last or left_s <= 0:
                    raise
                self.go_on(error)
                continue
            if is_last or (response.code < 500 and not self._pause_left_s(url, who)):
                return response
            discard(response)
            left_s -= share_s - budget.left_s
        raise AssertionError("an entry has at least one URL")

    def go_on(self, error: UpstreamUnreachable) -> None:
        """Say why the next one is asked."""
        namespace = self._entry.namespace
        self.log.warn("{namespace}: {reason}; trying the next URL", namespace=namespace, reason=str(error))

    async def _send(
        self, url: str, repository: Repository | None, who: Credentials, budget: Budget, ask: Outgoing
    ) -> Followed:
        """Ask one: in the client's own word, without any, or as its challenge says."""
        if who.authorization is not None:
            return await follow(self._wire, ask.with_client(who.authorization), budget, self._clock)
        if repository is None:
            found = await follow(self._wire, ask, budget, self._clock)
        else:
            found = await self._challenged.ask(Place(url, str(repository)), ask, who.own, budget)
        if not found.foreign:
            self._quota.note(found.response)
            self._quota.pause(self._pauses.note(url, who.own, found.response))
        return found

    def _pause_left_s(self, url: str, who: Credentials) -> float:
        return 0.0 if who.authorization is not None else self._pauses.left_s(url, who.own)
