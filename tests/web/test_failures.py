"""How often somebody may fail at the token endpoint (RULES C4)."""

from __future__ import annotations

import base64

from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.web.doubles import Line, Registry, client
from txociproxy.interfaces import Exchanged, Relay
from txociproxy.oci.errors import OCIError, UpstreamUnreachable
from txociproxy.web.failures import Failures
from txociproxy.web.site import Census, DoorLimits, DoorSite

ASK = "/v2/_token?scope=repository:library/alpine:pull"
BASIC = "Basic " + base64.b64encode(b"user:pass").decode()
LOGIN = ("Authorization", BASIC)
REFUSED = Relay(401, (), b"")
GOOD = Exchanged("Bearer theirs")
BEHIND_A_SOCKET = UNIXAddress("/run/x.sock")


class Door:
    """A door with clients of several addresses."""

    def __init__(self) -> None:
        self.registry = Registry()
        self.site = DoorSite(self.registry.root, self.registry.clock, Census(DoorLimits()))

    def status(self, path: str = ASK, login: str | None = BASIC, peer: IAddress | None = None) -> int:
        """Ask once, on a connection of its own."""
        line = Line(site=self.site, peer=peer)
        field = "" if login is None else f"Authorization: {login}\r\n"
        line.send(f"GET {path} HTTP/1.1\r\nHost: cache.example\r\n{field}Connection: close\r\n\r\n".encode())
        line.hang_up()
        return line.status


class TableTests(SynchronousTestCase):
    """The table by itself."""

    def setUp(self) -> None:
        """Two failures a minute, three names."""
        self.clock = Clock()
        self.failures = Failures(self.clock, 2, 3)

    def assert_waits(self, key: str, retry_after: str) -> None:
        """Somebody has to wait, and is told how long."""
        error = self.assertRaises(OCIError, self.failures.check, key)
        self.assertEqual((error.status, error.headers), (429, (("Retry-After", retry_after),)))

    def test_it_is_the_last_minute_that_counts(self) -> None:
        """The oldest of those that fill it says when to come again."""
        self.failures.count("a")
        self.clock.advance(30)
        self.failures.check("a")
        self.failures.count("a")
        self.assert_waits("a", "30")
        self.clock.advance(29.5)
        self.assert_waits("a", "1")
        self.clock.advance(0.5)
        self.failures.check("a")
        self.failures.count("a")
        self.assert_waits("a", "30")

    def test_others_are_not_concerned(self) -> None:
        """Each has its own."""
        self.failures.count("a")
        self.failures.count("a")
        self.failures.check("b")

    def test_the_table_is_bounded(self) -> None:
        """Whoever failed last is remembered longest."""
        for key in ("a", "a", "b", "b", "c", "c", "a", "d"):
            self.failures.count(key)
        self.failures.check("b")
        self.assert_waits("a", "60")
        self.assert_waits("c", "60")


class ClientTests(SynchronousTestCase):
    """Ten a minute for each address."""

    def setUp(self) -> None:
        """A door whose upstream refuses."""
        self.door = Door()
        self.cache = self.door.registry.cache
        self.cache.granted = REFUSED

    def test_the_eleventh_failure_of_a_minute_waits(self) -> None:
        """Nobody is asked any more; a minute later the client may ask again."""
        self.assertEqual([self.door.status() for _ in range(11)], [401] * 10 + [429])
        self.assertEqual(len(self.cache.exchanges), 10)
        self.door.registry.clock.advance(60)
        self.assertEqual(self.door.status(), 401)

    def test_it_is_told_when_to_come_again(self) -> None:
        """In seconds."""
        registry = self.door.registry
        for _ in range(10):
            registry.get(ASK, LOGIN)
        registry.clock.advance(20)
        answer = registry.get(ASK, LOGIN)
        self.assertEqual((answer.status, answer.error(), answer.get("Retry-After")), (429, "TOOMANYREQUESTS", "40"))
        self.assertEqual(answer.get("Cache-Control"), "no-store")

    def test_asks_that_make_no_sense_count(self) -> None:
        """A namespace that is not served, a credential that is none."""
        for path, login, status in (("/v2/_token/evil.example", None, 403), (ASK, "Basic !", 400)):
            door = Door()
            self.assertEqual([door.status(path, login) for _ in range(10)], [status] * 10)
            self.assertEqual(door.status("/v2/_token", None), 429)

    def test_good_ones_and_lost_servers_do_not_count(self) -> None:
        """Nor a token server that has enough: that says nothing of the credential."""
        for granted, status in (
            (GOOD, 200),
            (Relay(429, (), b""), 429),
            (UpstreamUnreachable("gone"), 502),
            (OCIError("DENIED", "see token_realm"), 403),
        ):
            self.cache.granted = granted
            self.assertEqual({self.door.status() for _ in range(70)}, {status})
        self.cache.granted = GOOD
        self.assertEqual(self.door.status(), 200)

    def test_other_addresses_are_not_concerned(self) -> None:
        """Each has its own ten."""
        for _ in range(10):
            self.door.status()
        self.cache.granted = GOOD
        self.assertEqual(self.door.status(), 429)
        self.assertEqual(self.door.status(peer=client("192.0.2.2")), 200)

    def test_behind_a_unix_socket_there_may_be_anybody(self) -> None:
        """They have no address to count, but the upstream's limit holds for them."""
        statuses = [self.door.status(peer=BEHIND_A_SOCKET) for _ in range(61)]
        self.assertEqual(statuses, [401] * 60 + [429])

    def test_guesses_side_by_side_learn_no_more_than_one_after_another(self) -> None:
        """The right password among twenty is not told once ten were wrong."""
        registry = self.door.registry
        answers: list[Deferred[Exchanged | Relay]] = []
        asked = []
        for _ in range(20):
            answers.append(Deferred())
            self.cache.granted = answers[-1]
            asked.append(registry.begin("GET", ASK, LOGIN))
        for answer in answers[:-1]:
            answer.callback(REFUSED)
        answers[-1].callback(GOOD)
        self.assertEqual([registry.answer_of(one).status for one in asked], [401] * 10 + [429] * 10)


class EntryTests(SynchronousTestCase):
    """Sixty a minute for each upstream, whoever it is."""

    def setUp(self) -> None:
        """An upstream that has refused sixty, of many addresses."""
        self.door = Door()
        self.door.registry.cache.granted = REFUSED
        statuses = {self.door.status(peer=IPv4Address("TCP", f"192.0.2.{number // 6}", 1)) for number in range(60)}
        self.assertEqual(statuses, {401})
        self.door.registry.cache.granted = GOOD

    def test_the_next_waits_wherever_it_comes_from(self) -> None:
        """The token server is not asked; a minute later it is."""
        asked = len(self.door.registry.cache.exchanges)
        self.assertEqual(self.door.status(peer=client("198.51.100.1")), 429)
        self.assertEqual(len(self.door.registry.cache.exchanges), asked)
        self.door.registry.clock.advance(60)
        self.assertEqual(self.door.status(peer=client("198.51.100.1")), 200)

    def test_who_shows_nothing_is_not_locked_out(self) -> None:
        """Nobody is asked for them; nor are other upstreams concerned, nor logins without scope."""
        newcomer = client("198.51.100.1")
        self.assertEqual(self.door.status(login=None, peer=newcomer), 200)
        self.assertEqual(self.door.status("/v2/_token/docker.io", peer=newcomer), 200)
        self.assertEqual(self.door.status("/v2/_token?scope=repository:ghcr.io/a/b:pull", peer=newcomer), 200)
