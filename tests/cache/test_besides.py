"""What is asked beside pulls: pings and lists; and who is admitted at all (RULES B7, C2, E8)."""

from __future__ import annotations

from attrs import define, evolve, field
from twisted.internet.defer import CancelledError, Deferred, succeed

from tests.cache.house import CacheCase, content
from tests.doubles import FakeResponse
from txociproxy.interfaces import Admitted, Ask, Refused, Relay
from txociproxy.modes import Transparent
from txociproxy.oci.errors import OCIError, UpstreamUnreachable

SMALL = content(1000)
BIG = content(200_000)
IMMUTABLE = "public, max-age=31536000, immutable"


class PingTests(CacheCase):
    """``GET /v2/`` of one upstream (RULES C2)."""

    def ping(self) -> Relay:
        """Ping docker.io."""
        return self.successResultOf(self.later(self.core.cache.ping("docker.io")))

    def test_the_answer_is_remembered_for_a_minute(self) -> None:
        """Whatever it was; then upstream is asked again."""
        self.hub.status = 401
        self.assertEqual(self.ping().status, 401)
        self.hub.status = None
        self.clock.advance(59)
        self.assertEqual(self.ping().status, 401)
        self.assertEqual(len(self.hub_asked.requests), 1)
        self.clock.advance(2)
        self.assertEqual(self.ping().status, 200)
        self.assertEqual(len(self.hub_asked.requests), 2)

    def test_a_lost_upstream_is_as_good_as_an_open_one(self) -> None:
        """Unreachable, 5xx and 429 are 200; asked again soon."""
        for self.hub.down, self.hub.status in ((True, None), (False, 503), (False, 429)):
            self.assertEqual(self.ping().status, 200)
            self.ping()
            self.assertEqual(len(self.hub_asked.requests), 1)
            self.clock.advance(11)
            self.hub_asked.requests.clear()
        self.hub.status = 401
        self.assertEqual(self.ping().status, 401)

    def test_many_at_once_share_one_ask(self) -> None:
        """A fleet that starts pings together."""
        self.hub.holding = True
        waiting = [self.later(self.core.cache.ping("docker.io")) for _ in range(5)]
        self.hub.answer()
        self.assertEqual([self.successResultOf(d).status for d in waiting], [200] * 5)
        self.assertEqual(len(self.hub_asked.requests), 1)

    def test_what_is_remembered_is_short(self) -> None:
        """There may be many that nobody has configured, and a page of each; who asked first gets all of it."""
        page = FakeResponse(401, {"Content-Type": "text/html", "X-Long": "x" * 100_000}, b"x" * 100_000)
        self.hub_asked.script = lambda _: evolve(page)
        self.ping()
        again = self.ping()
        size_bytes = len(again.body) + sum(len(name) + len(value) for name, value in again.headers)
        self.assertEqual((again.status, len(self.hub_asked.requests)), (401, 1))
        self.assertLess(size_bytes, 16 * 1024)

    def test_a_namespace_without_upstream_is_answered_here(self) -> None:
        """200."""
        self.assertEqual(self.successResultOf(self.later(self.core.cache.ping("nowhere.example"))).status, 200)


class ListingTests(CacheCase):
    """Tag lists and referrers (RULES E8)."""

    def list(self, query: str = "n=5", authorization: str | None = None) -> Relay:
        """Ask for the tags."""
        ask = self.ask("any", authorization=authorization)
        return self.successResultOf(
            self.later(
                self.core.cache.listing(
                    "docker.io", ask.pull.repository, "tags/list", query, ask.credentials, "application/json"
                )
            )
        )

    def test_a_list_is_kept_for_a_minute_by_its_query(self) -> None:
        """Then it is asked for again."""
        self.assertEqual(self.list().outcome, "relay")
        self.assertEqual(self.list().outcome, "hit")
        self.list("n=6")
        self.asked("GET tags/list?n=5", "GET tags/list?n=6")
        self.clock.advance(61)
        self.assertEqual(self.list().outcome, "relay")
        self.asked("GET tags/list?n=5")

    def test_an_old_list_is_served_when_upstream_is_lost(self) -> None:
        """Unreachable, 5xx and 429; then it is left alone for a while."""
        first = self.list()
        for self.hub.down, self.hub.status in ((True, None), (False, 500), (False, 429)):
            self.clock.advance(61)
            self.hub_asked.requests.clear()
            for _ in range(2):
                relay = self.list()
                self.assertEqual((relay.status, relay.body, relay.outcome), (200, first.body, "stale"))
            self.asked("GET tags/list?n=5")

    def begin_list(self) -> Deferred[Relay]:
        """Ask for the tags, without the answer."""
        ask = self.ask("any")
        return self.later(
            self.core.cache.listing("docker.io", ask.pull.repository, "tags/list", "n=5", ask.credentials, "*/*")
        )

    def test_an_old_list_does_not_wait_for_a_slow_upstream(self) -> None:
        """As long as a stale tag does; what comes later is good for those who ask then (RULES D7)."""
        self.list()
        self.clock.advance(61)
        self.hub.holding = True
        waiting = [self.begin_list() for _ in range(3)]
        self.clock.advance(3.9)
        self.assertNoResult(waiting[0])
        self.clock.advance(0.2)
        self.assertEqual([self.successResultOf(d).outcome for d in waiting], ["stale"] * 3)
        self.assertEqual(self.list().outcome, "stale")
        self.hub.answer()
        self.assertEqual(self.list().outcome, "hit")
        self.assertEqual((len(self.hub_asked.requests), self.clock.getDelayedCalls()), (2, []))

    def test_a_slow_upstream_that_fails_in_the_end_is_lost(self) -> None:
        """Nobody is there to be told, and the old list stays."""
        self.list()
        self.clock.advance(61)
        self.hub.holding = self.hub.down = True
        d = self.begin_list()
        self.clock.advance(4.1)
        self.hub.answer()
        self.assertEqual(self.successResultOf(d).outcome, "stale")
        self.assertEqual(self.list().outcome, "stale")

    def test_a_client_that_leaves_ends_its_ask_for_a_list(self) -> None:
        """An old list is at hand, or none."""
        self.hub.holding = True
        for cancelled in (1, 2):
            d = self.begin_list()
            d.cancel()
            self.failureResultOf(d, CancelledError)
            self.assertEqual((self.hub.cancelled, self.clock.getDelayedCalls()), (cancelled, []))
            self.hub.holding = False
            self.list()
            self.clock.advance(61)
            self.hub.holding = True

    def test_refusals_are_relayed_and_not_kept(self) -> None:
        """A 404 stays a 404, also when a list is remembered."""
        self.list()
        self.clock.advance(61)
        for status in (404, 401, 403):
            self.hub.status = status
            self.assertEqual(self.list().status, status)
        self.hub.status = 503
        self.assertEqual(self.list("other").status, 503)

    def test_a_lost_upstream_without_a_list_is_no_answer(self) -> None:
        """And a namespace without upstream, too."""
        self.hub.down = True
        ask = self.ask("any")
        for namespace in ("docker.io", "nowhere.example"):
            listing = self.core.cache.listing(namespace, ask.pull.repository, "tags/list", "", ask.credentials, "*/*")
            self.failureResultOf(self.later(listing), UpstreamUnreachable)

    def test_refused_credentials_fall_back_to_none(self) -> None:
        """As for pulls."""
        self.hub.refuses = {"Bearer old": 401}
        self.assertEqual(self.list(authorization="Bearer old").status, 200)
        self.asked("GET tags/list?n=5", "GET tags/list?n=5")

    def test_what_is_longer_than_four_mebibytes_is_an_error(self) -> None:
        """502."""
        self.hub_asked.script = lambda _: FakeResponse(200, {}, b"x" * (4 * 1024 * 1024 + 1))
        ask = self.ask("any")
        listing = self.core.cache.listing("docker.io", ask.pull.repository, "tags/list", "", ask.credentials, "*/*")
        self.assertEqual(self.failureResultOf(self.later(listing), OCIError).value.status, 502)

    def test_a_page_in_place_of_a_list_is_not_remembered(self) -> None:
        """A portal on the way answers 200 with HTML."""
        self.hub_asked.script = lambda _: FakeResponse(200, {"Content-Type": "text/html"}, b"<html>log in</html>")
        self.list("n=1")
        self.list("n=1")
        self.asked("GET tags/list?n=1", "GET tags/list?n=1")

    def test_the_least_used_lists_are_forgotten(self) -> None:
        """All together have a bound."""
        big = FakeResponse(200, {}, b"{" + b"x" * (4 * 1024 * 1024 - 1))
        self.hub_asked.script = lambda _: evolve(big)
        for n in range(10):
            self.list(f"n={n}")
            self.list("n=0")
        self.assertEqual(len(self.hub_asked.requests), 10)
        self.hub_asked.requests.clear()
        for n in (9, 0, 1):
            self.list(f"n={n}")
        self.asked("GET tags/list?n=1")

    def test_what_a_list_was_asked_and_answered_with_counts_too(self) -> None:
        """A client chooses the query, and a registry its fields: both may be much longer than the list."""
        for longer in ({}, {"Docker-Distribution-Api-Version": "x" * 100_000}):
            self.hub_asked.script = lambda _, fields=longer: FakeResponse(200, fields, b"{}")  # type: ignore[misc]
            for n in range(400):
                self.list(f"n={n}" if longer else f"n={n}&last={'x' * 100_000}")
            self.hub_asked.requests.clear()
            self.list("n=0" if longer else f"n=0&last={'x' * 100_000}")
            self.assertEqual(len(self.hub_asked.requests), 1)


@define(eq=False)
class Closed(Transparent):
    """A mode that refuses everybody."""

    response: Relay = field(kw_only=True)

    def admit(self, ask: Ask) -> Deferred[Admitted | Refused]:
        """Refuse."""
        return succeed(Refused(self.response))


class AdmissionTests(CacheCase):
    """The mode is asked before anything else (RULES B7)."""

    def test_a_refusal_of_the_mode_is_the_answer(self) -> None:
        """Neither storage nor upstream is asked."""
        digest = self.hub.add(BIG)
        self.get(self.ask(digest, kind="blob"))
        refusal = Relay(403, (), b"no")
        self.build(self.rules, mode=Closed(response=refusal))
        self.hub_asked.requests.clear()
        answer = self.pull(self.ask(digest, kind="blob"))
        self.assertEqual(answer, refusal)
        self.asked()
