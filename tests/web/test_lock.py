"""The lock of the doors: names and passwords of our own (RULES C6)."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any, cast

from treq.testing import RequestTraversalAgent
from twisted.internet.address import IPv6Address
from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.iweb import IResponse

from tests.doubles import InlineWorkers, ManualWorkers
from tests.web.doubles import Answer, Line, Registry, serve
from tests.web.test_passwords import entry
from txociproxy.interfaces import ANONYMOUS, IWorkers, Relay
from txociproxy.metrics import Metrics
from txociproxy.web.lock import FAILURES_PER_CLIENT, FAILURES_PER_USER, KEPT_S, MAX_CHECKS, Lock, counted_as
from txociproxy.web.making import make_root
from txociproxy.web.passwords import UserFile
from txociproxy.web.settings import WebSettings
from txociproxy.web.site import Census, DoorLimits, DoorSite

MANIFEST = "/v2/library/alpine/manifests/latest"
CHALLENGE = 'Basic realm="txociproxy", charset="UTF-8"'


def basic(name: str, password: str) -> tuple[str, str]:
    """Return a login."""
    return "Authorization", "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


GOOD = basic("ann", "secret")
WRONG = basic("ann", "guess")


class Counting(InlineWorkers):
    """Workers that count what they do."""

    def __init__(self) -> None:
        super().__init__()
        self.done = 0

    def run(self, function: Any, *args: Any) -> Deferred[Any]:
        """Call now."""
        self.done += 1
        return super().run(function, *args)


class LockedTestCase(SynchronousTestCase):
    """A registry behind a lock."""

    def setUp(self) -> None:
        """One user."""
        self.path = Path(self.mktemp())
        self.path.write_bytes(entry(b"ann", b"secret"))
        self.workers = Counting()
        self.metrics = Metrics()
        self.registry = Registry()
        self.registry.cache.verdict = serve(b"{}", "application/vnd.oci.image.index.v1+json")
        self.use(self.workers)

    def use(self, workers: Any) -> None:
        """Build the doors with these workers."""
        registry = self.registry
        self.lock = Lock(registry.clock, UserFile(str(self.path)), cast(IWorkers, workers), self.metrics)
        settings = WebSettings(owns_authorization=True)
        cache = cast(Any, registry.cache)
        registry.root = make_root(
            registry.clock, cache, registry.table, registry.envelopes, settings, self.metrics, lock=self.lock
        )
        registry.agent = RequestTraversalAgent(registry.root)

    def get(self, *fields: tuple[str, str], path: str = MANIFEST) -> Answer:
        """Pull."""
        self.registry.cache.verdict = serve(b"{}", "application/vnd.oci.image.index.v1+json")
        return self.registry.get(path, *fields)

    def assert_locked(self, answer: Answer) -> None:
        """It says which login is wanted, in the spec's form."""
        self.assertEqual(answer.status, 401)
        self.assertEqual(answer.headers.getRawHeaders("WWW-Authenticate"), [CHALLENGE])
        self.assertEqual(answer.error(), "UNAUTHORIZED")


class LockTests(LockedTestCase):
    """Who gets in."""

    def test_nobody_passes_without_a_password_that_is_good(self) -> None:
        """No login, a wrong one, an empty one, a token of somebody's, nonsense."""
        bearer = ("Authorization", "Bearer abc")
        for fields in (
            (),
            (WRONG,),
            (basic("", ""),),
            (basic("eve", "secret"),),
            (bearer,),
            (("Authorization", "Basic !"),),
        ):
            self.assert_locked(self.get(*fields))
        self.assertEqual(self.registry.cache.asked, [])

    def test_who_has_one_pulls_and_nobody_upstream_hears_of_it(self) -> None:
        """Authorization is for us, also where an upstream takes clients' credentials."""
        self.assertEqual(self.get(GOOD).status, 200)
        self.assertEqual([ask.credentials for ask in self.registry.cache.asked], [ANONYMOUS])

    def test_everything_is_behind_it_but_the_question_whether_we_live(self) -> None:
        """Also metrics, which tell what is pulled."""
        for path in ("/v2/", "/metrics", "/v2/library/alpine/tags/list", "/v2/_token"):
            self.assert_locked(self.get(path=path))
        for path in ("/healthz", "/readyz"):
            self.assertEqual(self.get(path=path).status, 200)

    def test_a_ping_with_a_good_password_is_a_yes_without_network(self) -> None:
        """A challenge of ours would send clients to fetch a token that nobody needs."""
        self.assertEqual(self.get(GOOD, path="/v2/").status, 200)
        self.assertEqual(self.get(GOOD, path="/v2/?ns=docker.io").status, 200)
        self.assertEqual(self.registry.cache.pings, [])

    def test_there_are_no_tokens(self) -> None:
        """The endpoint is not there."""
        self.assertEqual(self.get(GOOD, path="/v2/_token?scope=repository:library/alpine:pull").status, 404)

    def test_an_upstream_that_wants_a_login_is_a_no_and_no_challenge(self) -> None:
        """Another login at our door would not help."""
        self.registry.cache.verdict = Relay(401, (("WWW-Authenticate", "Bearer x"),), b"")
        answer = self.registry.get(MANIFEST, GOOD)
        self.assertEqual(answer.status, 403)
        self.assertEqual(answer.headers.getRawHeaders("WWW-Authenticate"), None)
        self.assertEqual(answer.error(), "DENIED")

    def test_two_logins_are_malformed(self) -> None:
        """Two machines could read them differently."""
        self.assertEqual(self.get(GOOD, WRONG).status, 400)


class KeepingTests(LockedTestCase):
    """A check is slow on purpose."""

    def test_a_good_password_is_checked_once_a_minute(self) -> None:
        """A wrong one each time."""
        for _ in range(3):
            self.assertEqual(self.get(GOOD).status, 200)
        self.assertEqual(self.workers.done, 1)
        self.registry.clock.advance(KEPT_S)
        self.assertEqual(self.get(GOOD).status, 200)
        self.assertEqual(self.workers.done, 2)
        self.get(WRONG)
        self.get(WRONG)
        self.assertEqual(self.workers.done, 4)

    def test_a_user_who_is_taken_out_is_out_within_a_minute_or_at_once_after_a_reload(self) -> None:
        """The file is looked at with each check."""
        self.get(GOOD)
        self.path.write_bytes(entry(b"bob", b"new"))
        self.assertEqual(self.get(GOOD).status, 200)
        self.lock.forget()
        self.assert_locked(self.get(GOOD))
        self.assertEqual(self.get(basic("bob", "new")).status, 200)

    def test_a_check_that_began_before_a_reload_counts_no_longer_than_itself(self) -> None:
        """It may have looked at the file of before."""
        workers = ManualWorkers()
        self.use(workers)
        asked = self.registry.begin("GET", MANIFEST, GOOD)
        self.lock.forget()
        workers.work()
        self.assertEqual(self.registry.answer_of(asked).status, 200)
        self.registry.begin("GET", MANIFEST, GOOD)
        self.assertEqual(len(workers.jobs), 1)

    def test_a_broken_file_locks_nobody_out_and_is_told(self) -> None:
        """Once, and without what stands in it."""
        self.get(GOOD)
        self.path.write_bytes(b"ann:sesame\n")
        self.lock.forget()
        with capturedLogs() as events:
            self.assertEqual(self.get(GOOD).status, 200)
            self.lock.forget()
            self.assertEqual(self.get(GOOD).status, 200)
        told = [event for event in events if event["log_level"].name == "error"]
        self.assertEqual(len(told), 1)
        self.assertNotIn("sesame", str(told))

    def test_all_who_show_the_same_meanwhile_wait_for_one_check(self) -> None:
        """A runtime opens many connections at once."""
        workers = ManualWorkers()
        self.use(workers)
        asked = [self.registry.begin("GET", MANIFEST, GOOD) for _ in range(5)]
        self.assertEqual(len(workers.jobs), 1)
        workers.work()
        for _ in asked:
            self.registry.cache.verdict = serve(b"{}")
            self.registry.agent.flush()
        self.assertEqual([self.status_of(each) for each in asked], [200] * 5)

    def status_of(self, asked: Deferred[IResponse]) -> int:
        """Return the status of what was asked."""
        codes: list[int] = []
        asked.addCallback(lambda response: codes.append(response.code))
        self.registry.agent.flush()
        return codes[0]


class GuessingTests(LockedTestCase):
    """Somebody tries many passwords."""

    def test_a_user_has_so_many_guesses_a_minute_from_one_address(self) -> None:
        """Then 429; whoever was let in before still is, and other users are."""
        self.path.write_bytes(entry(b"ann", b"secret") + entry(b"bob", b"new"))
        self.get(GOOD)
        for _ in range(FAILURES_PER_USER):
            self.assertEqual(self.get(WRONG).status, 401)
        answer = self.get(WRONG)
        self.assertEqual(answer.status, 429)
        self.assertTrue(answer.headers.hasHeader("Retry-After"))
        self.assertEqual(self.get(GOOD).status, 200)
        self.assertEqual(self.get(basic("bob", "new")).status, 200)
        self.registry.clock.advance(61)
        self.assertEqual(self.get(WRONG).status, 401)

    def test_guesses_side_by_side_learn_no_more_than_one_after_another(self) -> None:
        """All are begun before the first is found wrong; the right one among them is not told, nor kept."""
        workers = ManualWorkers()
        self.use(workers)
        guesses = [basic("ann", f"guess{number}") for number in range(FAILURES_PER_USER)]
        asked = [self.registry.begin("GET", MANIFEST, each) for each in (*guesses, GOOD)]
        workers.work()
        self.assertEqual([self.registry.answer_of(each).status for each in asked], [401] * FAILURES_PER_USER + [429])
        self.assertEqual(self.registry.cache.asked, [])
        again = self.registry.begin("GET", MANIFEST, GOOD)
        self.assertEqual(self.registry.answer_of(again).status, 429)
        self.registry.clock.advance(61)
        later = self.registry.begin("GET", MANIFEST, GOOD)
        workers.work()
        self.registry.cache.verdict = serve(b"{}")
        self.assertEqual(self.registry.answer_of(later).status, 200)

    def test_a_network_of_ipv6_has_no_more_guesses_than_an_address(self) -> None:
        """Who has one address there has the whole /64; the neighbours of a link are each somebody else."""
        site = DoorSite(self.registry.root, self.registry.clock, Census(DoorLimits()))
        guess = f"GET {MANIFEST} HTTP/1.1\r\nHost: x\r\nAuthorization: {WRONG[1]}\r\n\r\n".encode()
        told = [
            Line(site=site, peer=IPv6Address("TCP", f"2001:db8::{number:x}", 1)).send(guess).split(b" ")[1]
            for number in range(1, FAILURES_PER_USER + 2)
        ]
        self.assertEqual(told, [b"401"] * FAILURES_PER_USER + [b"429"])
        self.assertEqual(counted_as("192.0.2.7"), "192.0.2.7")
        self.assertEqual(counted_as("-"), "-")
        self.assertEqual(counted_as("2001:db8:0:1::7"), counted_as("2001:db8:0:1:ffff::8"))
        self.assertNotEqual(counted_as("2001:db8:0:1::7"), counted_as("2001:db8:0:2::7"))
        self.assertNotEqual(counted_as("fe80::1%eth0"), counted_as("fe80::2%eth0"))

    def test_an_address_has_so_many_guesses_a_minute_for_all_users(self) -> None:
        """Else every user would be worth ten."""
        for number in range(FAILURES_PER_CLIENT):
            self.assertEqual(self.get(basic(f"user{number}", "x")).status, 401)
        self.assertEqual(self.get(basic("another", "x")).status, 429)

    def test_who_leaves_before_the_verdict_has_guessed_all_the_same(self) -> None:
        """And his check still takes its place among those that run."""
        workers = ManualWorkers()
        self.use(workers)
        for number in range(MAX_CHECKS):
            asked = self.registry.begin("GET", MANIFEST, basic("ann", f"guess{number}"))
            asked.addErrback(lambda _: None)
            asked.cancel()
            self.registry.agent.flush()
        self.assertEqual(len(workers.jobs), MAX_CHECKS)
        full = self.registry.begin("GET", MANIFEST, GOOD)
        self.assertEqual(self.registry.answer_of(full).status, 503)
        workers.work()
        again = self.registry.begin("GET", MANIFEST, WRONG)
        self.assertEqual(self.registry.answer_of(again).status, 429)

    def test_checks_are_counted(self) -> None:
        """By their result, not by name."""
        self.get(GOOD)
        self.get(GOOD)
        self.get(WRONG)
        lines = self.metrics.exposition().decode().splitlines()
        self.assertIn('ociproxy_door_logins_total{result="good"} 1.0', lines)
        self.assertIn('ociproxy_door_logins_total{result="wrong"} 1.0', lines)


class CertificateTests(SynchronousTestCase):
    """Without a lock, but with client certificates: Authorization goes nowhere either (RULES C6)."""

    def test_authorization_is_not_passed_on(self) -> None:
        """Who came in has shown a certificate."""
        registry = Registry(owns_authorization=True)
        registry.cache.verdict = serve(b"{}")
        self.assertEqual(registry.get(MANIFEST, GOOD).status, 200)
        self.assertEqual([ask.credentials for ask in registry.cache.asked], [ANONYMOUS])
        self.assertEqual(registry.get("/v2/").status, 200)
