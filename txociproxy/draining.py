"""Draining: what clients are getting may end in time; what has not ended then is cut, visibly.

The doors are closed before this.  Bodies that arrive for the storage alone go on while clients are served, and are
given up after that; content that is whole already is published, within bounds.  Then everything else in a house ends.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from attrs import define
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import deferLater
from twisted.logger import Logger

from txociproxy.building import House
from txociproxy.ingests import Ingests
from txociproxy.web.site import DoorSite
from txociproxy.workers import stop_all

POLL_S: Final = 0.1
TELL_EVERY_S: Final = 5.0
# For the last bytes, and the news that a body is cut; a client that takes neither is reset.
CUT_S: Final = 1.0
# A server that does not let go of a connection, or a bucket that does not answer, does not hold up the end.
CLOSE_S: Final = 3.0
# Syncing a large file takes its time; one that a hung disk keeps is not worth more.
PUBLISH_S: Final = 10.0
# From the drain timeout on, all of these together, and the threads.
ENDS_WITHIN_S: Final = 30.0

_log = Logger()


@define(eq=False)
class Draining:
    """Lets a house come to rest.

    :ivar _reactor: IReactorTime.
    """

    _site: DoorSite
    _ingests: Ingests
    _reactor: Any

    log = Logger()

    @property
    def answers(self) -> int:
        """How many answers are not over."""
        return int(self._site.resource.running)

    @property
    def connections(self) -> int:
        """How many connections of clients are open; an answer that is over may still be on its way there."""
        return self._site.census.connections

    async def run(self, timeout_s: float) -> None:
        """Return when nobody is served and nothing arrives.

        :param timeout_s: how long clients have; 0 cuts them at once.
        """
        self.log.info("draining", answers=self.answers, connections=self.connections, timeout=f"{timeout_s:g}")
        self._site.census.drain()
        if not await self._until(lambda: not (self.answers or self.connections), timeout_s):
            await self._cut()
        self._ingests.abandon_all()
        if not await self._until(lambda: not self._ingests.alive, PUBLISH_S):
            self.log.warn("content that was not published in time is given up", contents=len(self._ingests.alive))

    async def _cut(self) -> None:
        """Tell whoever is still here that there is no more, then hang up."""
        if self.answers:
            self.log.warn("cut {answers} at the drain timeout", answers=self.answers, connections=self.connections)
        self._site.resource.refuse_waiting()
        self._ingests.abandon_all()
        self._site.resource.cut_all()
        if not await self._until(lambda: not self.connections, CUT_S):
            self._site.census.reset_all()
            await self._until(lambda: not self.connections, CUT_S)

    async def _until(self, fact: Callable[[], bool], within_s: float) -> bool:
        """Wait for a fact, and say now and then what is still being waited for; returns whether it has come true."""
        began_s = told_s = self._reactor.seconds()
        while not fact():
            now_s = self._reactor.seconds()
            if now_s - began_s >= within_s:
                return False
            if now_s - told_s >= TELL_EVERY_S:
                told_s = now_s
                self.log.info(
                    "still draining",
                    answers=self.answers,
                    connections=self.connections,
                    ingests=len(self._ingests.alive),
                    left=f"{began_s + within_s - now_s:.0f}",
                )
            await deferLater(self._reactor, min(POLL_S, began_s + within_s - now_s))
        return True


async def end_house(house: House, reactor: Any, timeout_s: float, close_admin: Callable[[], object]) -> None:
    """End everything that a house holds, in order: answers, ingests, uploads, connections, threads.

    :param timeout_s: how long clients have.
    :param close_admin: closes the door of whoever runs the proxy, who could see until then how the end goes on.
    """
    await Draining(house.site, house.ingests, reactor).run(timeout_s)
    if house.measuring is not None:
        house.measuring.stop()
    await soon(reactor, house.storage.stop)
    if house.ways is not None:
        await soon(reactor, house.ways.stop)
    await soon(reactor, house.upstreams.stop)
    await soon(reactor, close_admin)
    if house.admin is not None:
        house.admin.census.drain()
    if not stop_all(house.pools):
        _log.warn("threads that hang are left behind")


async def soon(reactor: Any, end: Callable[[], object]) -> None:
    """Wait for an end, within bounds; whatever comes of it, the rest has to end too."""
    ending: Deferred[object] = maybeDeferred(end)
    ending.addTimeout(CLOSE_S, reactor, lambda *_: None)
    await ending.addErrback(lambda failure: _log.failure("something did not end well", failure))
