"""Pauses that upstreams ask for (RULES D8)."""

from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers
from twisted.web.iweb import IResponse

from tests.upstreams.fakes import (
    NAMESPACE,
    REALM,
    Answer,
    FakeLogins,
    FakeNet,
    TokenRegistry,
    answer,
    pull_of,
    upstream_on,
)
from txociproxy.answers import field_of
from txociproxy.collect import collect
from txociproxy.interfaces import ANONYMOUS, OWN, Credentials
from txociproxy.oci.names import Repository, Tag
from txociproxy.upstreams.entries.entry import Entry
from txociproxy.upstreams.pauses import MAX_PAUSES, Pauses, retry_after_s

CLIENT = Credentials("Bearer theirs")
ONE, TWO = "https://one.example", "https://two.example"


class RetryAfterTests(SynchronousTestCase):
    """Seconds or a date (RFC 9110 §10.2.3)."""

    def test_what_it_says(self) -> None:
        """At most five minutes; nonsense and the past say nothing."""
        epoch = "Thu, 01 Jan 1970 00:0{}:00 GMT"
        for text, date, seconds in (
            ("7", None, 7.0),
            (" 300 ", None, 300.0),
            ("301", None, 300.0),
            ("9" * 5000, None, 300.0),
            ("0", None, 0.0),
            ("-5", None, 0.0),
            ("1.5", None, 0.0),
            ("soon", None, 0.0),
            ("", None, 0.0),
            ("²", None, 0.0),
            (epoch.format(2), None, 20.0),
            (epoch.format(1), None, 0.0),
            ("Thu, 01 Jan 1970 00:02:00 -0000", None, 20.0),
            (epoch.format(9), None, 300.0),
            # The server's own clock counts where it is known: ours may be wrong.
            (epoch.format(2), "Thu, 01 Jan 1970 00:01:30 GMT", 30.0),
            (epoch.format(2), "rubbish", 20.0),
        ):
            response = answer(429, retry_after=text) if date is None else answer(429, retry_after=text, date=date)
            self.assertEqual(retry_after_s(response, 100.0), seconds, text)
        self.assertEqual(retry_after_s(answer(429), 100.0), 0.0)

    def test_any_text_is_a_pause_within_bounds(self) -> None:
        """Nothing is raised."""
        text = st.text(st.characters(min_codepoint=32, max_codepoint=255)) | st.from_regex(
            r"(Thu, )?\d{1,3} (Jan|Feb|Foo) \d{1,5} \d{1,3}:\d\d:\d\d ([+-]\d{1,9}|GMT)?", fullmatch=True
        )

        @settings(deadline=None)
        @given(text, text)
        def holds(retry_after: str, date: str) -> None:
            response = answer(503, retry_after=retry_after, date=date)
            self.assertTrue(0.0 <= retry_after_s(response, 0.0) <= 300.0)

        holds()


class PausesTests(SynchronousTestCase):
    """The table."""

    def test_it_is_bounded(self) -> None:
        """The oldest goes; a pause that is said again is young."""
        pauses = Pauses(Clock())
        for name in ("first", "second", "first"):
            pauses.note(name, False, answer(429, retry_after="9"))
        for number in range(MAX_PAUSES - 1):
            pauses.note(str(number), False, answer(429, retry_after="9"))
        self.assertEqual(pauses.left_s("first", False), 9.0)
        self.assertEqual(pauses.left_s("second", False), 0.0)


class PausedUpstreamTests(SynchronousTestCase):
    """An upstream whose answers are scripted by host."""

    def setUp(self) -> None:
        """Two URLs."""
        self.clock = Clock()
        self.answers: dict[str, Answer] = {}
        self.net = FakeNet(lambda method, url, headers: self.answers[url.split("/v2/")[0]])
        self.upstream = upstream_on(self.net, self.clock, Entry(NAMESPACE, (ONE, TWO)), FakeLogins())

    def head(self, who: Credentials = ANONYMOUS) -> IResponse:
        """HEAD a tag."""
        head = self.upstream.head(pull_of(Tag("latest")), who, None)
        return self.successResultOf(Deferred.fromCoroutine(head))

    def hosts(self) -> list[str]:
        """Return who was asked since the last time."""
        hosts = [url.split("/v2/")[0] for _, url, _ in self.net.asked]
        self.net.asked.clear()
        return hosts

    def test_a_url_that_wants_a_pause_gets_it(self) -> None:
        """The other one is asked: at once, and while it lasts."""
        for code in (429, 503):
            self.answers = {ONE: answer(code, retry_after="20"), TWO: answer(200)}
            self.assertEqual([self.head().code, self.head().code], [200, 200])
            self.assertEqual(self.hosts(), [ONE, TWO, TWO])
            self.clock.advance(19.5)
            self.head()
            self.clock.advance(0.5)
            self.head()
            self.assertEqual(self.hosts(), [TWO, ONE, TWO])
            self.clock.advance(20)

    def test_when_all_pause_the_answer_says_how_long(self) -> None:
        """The shortest; nobody is asked; the 429 of the last is its own."""
        self.answers = {ONE: answer(429, retry_after="20"), TWO: answer(429, b"slow", retry_after="9")}
        first = self.head()
        self.assertEqual((first.code, field_of(first, "Retry-After")), (429, "9"))
        self.clock.advance(1.5)
        self.hosts()
        kept = self.head()
        self.assertEqual((kept.code, field_of(kept, "Retry-After")), (429, "8"))
        self.assertEqual(field_of(kept, "Content-Type"), "application/json")
        body = json.loads(self.successResultOf(collect(kept, 1000, self.clock, 1)))
        self.assertEqual(body["errors"][0]["code"], "TOOMANYREQUESTS")
        ping = self.successResultOf(Deferred.fromCoroutine(self.upstream.ping(ANONYMOUS)))
        listing = self.upstream.listing(Repository("team/app"), "tags/list", "", ANONYMOUS, "")
        listed = self.successResultOf(Deferred.fromCoroutine(listing))
        probe = self.upstream.probe(pull_of(), ANONYMOUS, None)
        probed = self.successResultOf(Deferred.fromCoroutine(probe))
        self.assertEqual([ping.code, listed.code, probed.code, self.hosts()], [429, 429, 429, []])

    def test_a_pause_is_not_for_other_credentials(self) -> None:
        """Ours as anybody does not stop us with our login, nor clients; a client's own 429 stops nobody."""
        self.answers = {ONE: answer(429, retry_after="20"), TWO: answer(429, retry_after="20")}
        self.assertEqual(self.head(CLIENT).code, 429)
        self.assertEqual(self.hosts(), [ONE])
        self.head(ANONYMOUS)
        self.assertEqual(self.hosts(), [ONE, TWO])
        for who in (OWN, CLIENT):
            self.head(who)
        self.assertEqual(self.hosts(), [ONE, TWO, ONE])
        self.head(OWN)
        self.assertEqual(self.hosts(), [])

    def test_without_a_time_there_is_no_pause(self) -> None:
        """The answer is given, and the next ask goes out; other answers with the field pause nothing."""
        for response in (answer(429), answer(429, retry_after="later"), answer(404, retry_after="20")):
            self.answers = {ONE: response}
            self.assertEqual([self.head().code, self.head().code], [response.code] * 2)
            self.assertEqual(self.hosts(), [ONE, ONE])

    def test_a_pause_of_somewhere_else_is_not_the_registrys(self) -> None:
        """A delivery network may be busy with one blob."""
        there = "https://cdn.example.net"
        self.answers = {ONE: answer(307, location=there + "/v2/x"), there: answer(429, retry_after="20")}
        self.assertEqual([self.head().code, self.head().code], [429, 429])
        self.assertEqual(self.hosts(), [ONE, there, ONE, there])


class PausedTokenServerTests(SynchronousTestCase):
    """A token server that wants a pause has it, and kept tokens go on."""

    def test_it_is_left_alone_by_whom_it_has_told(self) -> None:
        """Whatever the repository; its registry is still asked."""
        registry = TokenRegistry()
        clock = Clock()
        net = FakeNet(registry)
        upstream = upstream_on(net, clock, logins=FakeLogins())

        def head(repository: str, who: Credentials = ANONYMOUS) -> int:
            pull = upstream.head(pull_of(Tag("latest"), repository), who, None)
            code: int = self.successResultOf(Deferred.fromCoroutine(pull)).code
            return code

        self.assertEqual(head("team/kept"), 200)
        registry.token_answer = lambda url: answer(429, retry_after="20")
        self.assertEqual(head("team/a"), 429)
        net.asked.clear()
        self.assertEqual([head("team/a"), head("team/b"), head("team/kept")], [429, 429, 200])
        self.assertEqual([url for _, url, _ in net.asked if url.startswith(REALM)], [])
        self.assertEqual(head("team/a", OWN), 429)
        self.assertEqual(len([url for _, url, _ in net.asked if url.startswith(REALM)]), 1)
        registry.token_answer = None
        clock.advance(20)
        self.assertEqual(head("team/a"), 200)

    def test_the_answer_says_how_long(self) -> None:
        """What is left, as for a registry."""
        clock = Clock()
        registry = TokenRegistry(token_answer=lambda url: answer(429, retry_after="20"))
        upstream = upstream_on(FakeNet(registry), clock)
        for left in ("20", "14"):
            pull = upstream.head(pull_of(Tag("latest")), ANONYMOUS, None)
            response = self.successResultOf(Deferred.fromCoroutine(pull))
            self.assertEqual(field_of(response, "Retry-After"), left)
            self.assertEqual(response.headers, Headers({"content-type": ["application/json"], "retry-after": [left]}))
            clock.advance(6)
