"""How many connections wait to be used again, and for whom (RULES A5, F1)."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import Agent
from twisted.web.iweb import IResponse

from tests.upstreams.sockets import Seen, Sockets, WebServer, reply
from txociproxy.collect import collect
from txociproxy.upstreams.connecting.connections import UpstreamPool

MAX_IDLE = 3


def whole(_: Seen) -> bytes:
    """Answer at once."""
    return reply(200, b"ok")


def begin(_: Seen) -> bytes:
    """Answer but for the last byte."""
    return reply(200, b"o", content_length="2")


class IdleTests(SynchronousTestCase):
    """A pool with few places, and hosts enough."""

    def setUp(self) -> None:
        """Every host listens at an address of its own."""
        self.reactor = Sockets({f"h{number}": [[f"1.1.1.{number}"]] for number in range(100)})
        self.server = WebServer(whole)
        for number in range(100):
            self.reactor.servers[f"1.1.1.{number}", 80] = self.server.plain()
        self.pool = UpstreamPool(self.reactor, MAX_IDLE)
        self.agent = Agent(self.reactor, pool=self.pool)

    def ask(self, number: int) -> Deferred[IResponse]:
        """GET something, to its headers."""
        got: Deferred[IResponse] = self.agent.request(b"GET", b"http://h%d/" % number)
        self.reactor.rest()
        return got

    def pull(self, number: int) -> None:
        """GET something, to its end."""
        body = collect(self.successResultOf(self.ask(number)), 99, self.reactor, 5)
        self.reactor.rest()
        self.successResultOf(body)

    def end(self) -> None:
        """End all answers that have begun."""
        for pipe in tuple(self.reactor.pipes):
            pipe.other.write(b"k")
        self.reactor.rest()

    def idle(self) -> list[str]:
        """Return the addresses to which there is a connection."""
        return sorted(pipe.getPeer().host for pipe in self.reactor.pipes)

    def test_idle_connections_are_counted_over_all_hosts(self) -> None:
        """Who redirects to a thousand hosts does not leave a thousand connections; the oldest go first."""
        for number in range(50):
            self.pull(number)
            self.assertLessEqual(len(self.reactor.pipes), MAX_IDLE)
        self.assertEqual(self.idle(), ["1.1.1.47", "1.1.1.48", "1.1.1.49"])
        self.pull(47)
        self.pull(50)
        self.assertEqual(self.idle(), ["1.1.1.47", "1.1.1.49", "1.1.1.50"])
        self.assertEqual(len(self.reactor.attempts), 51)

    def test_hosts_are_forgotten(self) -> None:
        """Twisted's own table would keep each for ever."""
        for number in range(50):
            self.pull(number)
        found: Any = self.pool._connections
        self.assertLessEqual(len(found), MAX_IDLE + 1)

    def test_several_to_one_host_may_wait(self) -> None:
        """As many as there are places."""
        self.server.handler = begin
        running = [self.successResultOf(self.ask(0)) for _ in range(5)]
        for response in running:
            collect(response, 99, self.reactor, 5)
        self.end()
        self.assertEqual(len(self.reactor.pipes), MAX_IDLE)
        for _ in range(3):
            self.ask(0)
        self.assertEqual(len(self.reactor.attempts), 5)

    def test_a_retired_pool_keeps_none(self) -> None:
        """Neither those that were idle nor those that end later; it can still be asked."""
        self.pull(1)
        self.server.handler = begin
        running = self.successResultOf(self.ask(2))
        self.pool.retire()
        self.reactor.rest()
        self.assertEqual(self.idle(), ["1.1.1.2"])
        collect(running, 99, self.reactor, 5)
        self.end()
        self.assertEqual(self.idle(), [])
        self.server.handler = whole
        self.pull(3)
        self.assertEqual((self.idle(), self.reactor.getDelayedCalls()), ([], []))
