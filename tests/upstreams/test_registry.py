"""An upstream as the cache sees it: the list of requests is asserted for every way."""

from __future__ import annotations

import json
from typing import cast

from twisted.internet import error as network
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers
from twisted.web.iweb import IResponse
from zope.interface.verify import verifyObject

from tests.upstreams.fakes import (
    NAMESPACE,
    REALM,
    URL,
    Answer,
    FakeNet,
    TokenRegistry,
    answer,
    pull_of,
    token_url,
    upstream_on,
    upstreams_on,
)
from txociproxy.collect import collect
from txociproxy.interfaces import ANONYMOUS, Credentials, IUpstream
from txociproxy.oci.errors import UpstreamUnreachable
from txociproxy.oci.names import Repository, Tag
from txociproxy.upstreams.connecting.breakers import FAILURES, OPEN_S
from txociproxy.upstreams.entries.entry import Entry

BLOB_URL = f"{URL}/v2/team/app/blobs/sha256:{'a' * 64}"
TAG_URL = f"{URL}/v2/team/app/manifests/latest"
TAG = Tag("latest")
ONE = "Bearer repository:team/app:pull#1"
TWO = "Bearer repository:team/app:pull#2"
CLIENT = Credentials("Bearer theirs")


class AnonymousTests(SynchronousTestCase):
    """Without a credential of the client's."""

    def setUp(self) -> None:
        """A registry that wants tokens."""
        self.clock = Clock()
        self.registry = TokenRegistry()
        self.net = FakeNet(self.registry)
        self.upstream = upstream_on(self.net, self.clock)

    def get(self) -> IResponse:
        """GET the blob."""
        return self.successResultOf(Deferred.fromCoroutine(self.upstream.get(pull_of(), ANONYMOUS, None, None)))

    def body(self, response: IResponse) -> bytes:
        """Return the whole body."""
        return self.successResultOf(collect(response, 1000, self.clock, 5))

    def head(self, repository: str = "team/app") -> Deferred[IResponse]:
        """HEAD the tag."""
        return Deferred.fromCoroutine(self.upstream.head(pull_of(TAG, repository), ANONYMOUS, None))

    def test_it_provides_its_interface(self) -> None:
        """All of it."""
        verifyObject(IUpstream, self.upstream)
        self.assertEqual(self.upstream.namespace, NAMESPACE)

    def test_a_challenge_is_answered_with_our_own_scope(self) -> None:
        """Never with the challenge's placeholder; the 401's page is read."""
        self.assertEqual(self.body(self.get()), b"content")
        self.assertEqual(self.net.asked, [("GET", BLOB_URL, None), ("GET", token_url(), None), ("GET", BLOB_URL, ONE)])
        self.assertIsNotNone(self.net.answered[0].protocol)

    def test_the_next_request_goes_with_the_token_at_once(self) -> None:
        """Of the same repository; another has to learn."""
        self.get()
        self.net.asked.clear()
        self.successResultOf(self.head())
        self.successResultOf(self.head("other/app"))
        self.assertEqual([asked[0] for asked in self.net.asked], ["HEAD", "HEAD", "GET", "HEAD"])
        self.assertEqual(self.net.asked[0], ("HEAD", TAG_URL, ONE))

    def test_an_expired_token_is_renewed_before_it_is_used(self) -> None:
        """54 of its 60 seconds."""
        self.get()
        self.net.asked.clear()
        self.clock.advance(55)
        self.get()
        self.assertEqual(self.net.asked, [("GET", token_url(), None), ("GET", BLOB_URL, TWO)])

    def test_a_kept_token_that_is_refused_leads_to_one_fresh_one(self) -> None:
        """Then it works."""
        self.get()
        self.net.asked.clear()
        self.registry.good.clear()
        self.assertEqual(self.get().code, 200)
        self.assertEqual(self.net.asked, [("GET", BLOB_URL, ONE), ("GET", token_url(), None), ("GET", BLOB_URL, TWO)])

    def test_a_fresh_token_that_is_refused_is_the_answer(self) -> None:
        """The 401 comes out, and nobody goes round in circles."""
        self.registry.token_answer = lambda url: answer(200, b'{"token":"bad"}')
        self.assertEqual(self.get().code, 401)
        self.assertEqual(len(self.net.asked), 3)
        self.assertEqual(self.get().code, 401)
        self.assertEqual(len(self.net.asked), 6)

    def test_many_at_once_ask_for_one_token(self) -> None:
        """All go on with it."""
        waiting: Deferred[IResponse] = Deferred()
        self.registry.token_answer = lambda url: waiting
        pulls = [Deferred.fromCoroutine(self.upstream.get(pull_of(), ANONYMOUS, None, None)) for _ in range(3)]
        self.registry.good.add("t")
        waiting.callback(answer(200, json.dumps({"token": "t"}).encode()))
        self.assertEqual([self.successResultOf(pull).code for pull in pulls], [200, 200, 200])
        self.assertEqual([url for _, url, _ in self.net.asked].count(token_url()), 1)

    def test_a_token_server_that_says_no_leaves_the_registrys_own_no(self) -> None:
        """With its challenge and page."""
        for code in (400, 401, 403, 404):
            self.registry.token_answer = lambda url, code=code: answer(code, b"denied")
            refusal = self.get()
            self.assertEqual(refusal.code, 401)
            self.assertTrue(refusal.headers.hasHeader("www-authenticate"))
            self.assertEqual(self.body(refusal), b'{"errors":[]}')

    def test_a_token_that_is_not_wanted_any_more_is_not_asked_for(self) -> None:
        """The registry has opened its doors, and its token server is gone."""
        self.get()
        self.clock.advance(55)
        self.registry.token_answer = lambda url: answer(404)
        self.net.handler = lambda *asked: self.registry(*asked) if asked[1].startswith(REALM) else answer(200)
        self.net.asked.clear()
        self.assertEqual([self.get().code, self.get().code], [200, 200])
        self.assertEqual([url for _, url, _ in self.net.asked], [token_url(), BLOB_URL, BLOB_URL])

    def test_a_token_server_that_wants_a_pause_is_relayed(self) -> None:
        """429 with its Retry-After."""
        self.registry.token_answer = lambda url: answer(429, b"slow", retry_after="7")
        refusal = self.get()
        self.assertEqual((refusal.code, refusal.headers.getRawHeaders("retry-after")), (429, ["7"]))
        self.assertIn(b"TOOMANYREQUESTS", self.body(refusal))

    def test_a_dead_token_server_is_an_outage(self) -> None:
        """So that stale answers are given."""
        for dead in (answer(503), network.ConnectionRefusedError(), answer(200, b"<html>"), answer(200, b"x" * 70000)):
            self.registry.token_answer = lambda url, dead=dead: dead
            pull = Deferred.fromCoroutine(self.upstream.get(pull_of(), ANONYMOUS, None, None))
            self.failureResultOf(pull, UpstreamUnreachable)

    def test_token_time_is_not_counted(self) -> None:
        """But it has a bound of its own (RULES D7)."""
        waiting: Deferred[IResponse] = Deferred()
        self.registry.token_answer = lambda url: waiting
        pull = Deferred.fromCoroutine(self.upstream.get(pull_of(), ANONYMOUS, None, 2.0))
        self.clock.advance(9)
        self.assertNoResult(pull)
        self.clock.advance(1)
        self.assertTrue(self.failureResultOf(pull, UpstreamUnreachable).value.timed_out)

    def test_other_challenges_are_relayed(self) -> None:
        """Basic, no realm, or one that is no URL; their bodies are not touched."""
        for challenge in ('Basic realm="x"', "Bearer", 'Bearer realm="/token"', 'Bearer realm="ftp://x"', "%&"):
            self.registry.challenge = challenge
            self.net.asked.clear()
            self.assertEqual(self.body(self.get()), b'{"errors":[]}')
            self.assertEqual(len(self.net.asked), 1)

    def test_a_bearer_behind_a_basic_challenge_is_found(self) -> None:
        """With a query of its own in the realm."""
        self.registry.challenge = f'Basic realm="x", Bearer realm="{REALM}?a=b"'
        self.assertEqual(self.get().code, 200)
        self.assertEqual(self.net.asked[1][1], f"{REALM}?a=b&scope=repository%3Ateam%2Fapp%3Apull")

    def test_a_401_from_elsewhere_is_no_challenge_of_the_registry(self) -> None:
        """A hop cannot send us to its token server, and no client to ours."""
        self.registry.good.add("x")
        there = "https://cdn.example.net/x"

        def handler(method: str, url: str, headers: Headers) -> Answer:
            if url == there:
                return answer(401, www_authenticate=f'Bearer realm="{REALM}"')
            return answer(307, location=there)

        net = FakeNet(handler)
        pull = upstream_on(net, self.clock).get(pull_of(), ANONYMOUS, None, None)
        self.failureResultOf(Deferred.fromCoroutine(pull), UpstreamUnreachable)
        self.assertEqual([url for _, url, _ in net.asked], [BLOB_URL, there])

    def test_a_pull_that_is_cancelled_ends(self) -> None:
        """While it waits for a token."""
        self.registry.token_answer = lambda url: Deferred()
        pull = Deferred.fromCoroutine(self.upstream.get(pull_of(), ANONYMOUS, None, None))
        pull.cancel()
        self.failureResultOf(pull, CancelledError)

    def test_stopping_ends_asks(self) -> None:
        """Whoever waits for a token is told."""
        upstreams = upstreams_on(self.net, self.clock)
        upstream = upstreams.upstream(NAMESPACE)
        assert upstream is not None
        self.assertIsNone(upstreams.upstream("other"))
        self.registry.token_answer = lambda url: Deferred()
        pull = Deferred.fromCoroutine(upstream.get(pull_of(), ANONYMOUS, None, None))
        self.successResultOf(upstreams.stop())
        self.failureResultOf(pull, CancelledError)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class CredentialsTests(SynchronousTestCase):
    """With a credential of the client's (RULES C6)."""

    def asked(self, entry: Entry | None = None) -> tuple[int, list[tuple[str, str, str | None]]]:
        """HEAD the tag as the client; return the status and what was asked."""
        net = FakeNet(TokenRegistry())
        head = upstream_on(net, Clock(), entry).head(pull_of(TAG), CLIENT, None)
        return self.successResultOf(Deferred.fromCoroutine(head)).code, net.asked

    def test_it_is_forwarded_as_it_is_and_its_refusal_comes_back(self) -> None:
        """No token is asked for it."""
        self.assertEqual(self.asked(), (401, [("HEAD", TAG_URL, "Bearer theirs")]))

    def test_it_is_ignored_where_the_entry_says_so(self) -> None:
        """The fetch is anonymous."""
        code, asked = self.asked(Entry(NAMESPACE, (URL,), client_credentials="ignore"))
        self.assertEqual((code, [authorization for *_, authorization in asked]), (200, [None, None, ONE]))


class AskTests(SynchronousTestCase):
    """What goes over the wire."""

    def setUp(self) -> None:
        """A registry that wants nothing."""
        self.headers: list[Headers] = []

        def handler(method: str, url: str, headers: Headers) -> Answer:
            self.headers.append(headers)
            return answer(200)

        self.net = FakeNet(handler)
        self.upstream = upstream_on(self.net, Clock())

    def test_a_range_and_the_accept_class_travel(self) -> None:
        """And nothing else of the client's (RULES E6)."""
        self.successResultOf(Deferred.fromCoroutine(self.upstream.get(pull_of(), ANONYMOUS, "bytes=100-", None)))
        self.successResultOf(Deferred.fromCoroutine(self.upstream.head(pull_of(TAG), ANONYMOUS, None)))
        self.assertEqual(self.headers[0].getRawHeaders("range"), ["bytes=100-"])
        self.assertEqual(self.headers[0].getRawHeaders("accept"), ["*/*"])
        (accept,) = self.headers[1].getRawHeaders("accept", [""])
        self.assertIn("application/vnd.oci.image.index.v1+json", accept)

    def test_listings_and_pings(self) -> None:
        """Tag lists with their query; a ping has no repository and asks for no token."""
        listing = self.upstream.listing(Repository("team/app"), "tags/list", "n=2&last=a", ANONYMOUS, "")
        self.successResultOf(Deferred.fromCoroutine(listing))
        self.successResultOf(Deferred.fromCoroutine(self.upstream.ping(CLIENT)))
        self.assertEqual(
            self.net.asked,
            [("GET", f"{URL}/v2/team/app/tags/list?n=2&last=a", None), ("GET", f"{URL}/v2/", "Bearer theirs")],
        )
        net = FakeNet(TokenRegistry())
        ping = Deferred.fromCoroutine(upstream_on(net, Clock()).ping(ANONYMOUS))
        self.assertEqual((self.successResultOf(ping).code, len(net.asked)), (401, 1))


class SeveralUrlsTests(SynchronousTestCase):
    """They are tried in order."""

    def setUp(self) -> None:
        """Two URLs, each with a scripted answer."""
        self.clock = Clock()
        self.answers: dict[str, Answer] = {}
        self.net = FakeNet(lambda method, url, headers: self.answers[url.split("/")[2]])
        self.upstream = upstream_on(self.net, self.clock, Entry(NAMESPACE, ("http://one/mirror", "http://two")))
        self.warnings: list[LogEvent] = []
        observer = cast(ILogObserver, self.warnings.append)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def head(self, deadline_s: float | None = None) -> Deferred[IResponse]:
        """HEAD the tag."""
        return Deferred.fromCoroutine(self.upstream.head(pull_of(TAG), ANONYMOUS, deadline_s))

    def hosts(self) -> list[str]:
        """Return who was asked since the last time."""
        hosts = [url.split("/")[2] for _, url, _ in self.net.asked]
        self.net.asked.clear()
        return hosts

    def test_the_first_that_answers_is_enough(self) -> None:
        """Also with a 404: it is an answer."""
        for code in (200, 404, 401, 429):
            self.answers = {"one": answer(code)}
            self.assertEqual(self.successResultOf(self.head()).code, code)
        self.assertEqual(self.net.asked[0][1], "http://one/mirror/v2/team/app/manifests/latest")

    def test_a_broken_one_is_passed_over(self) -> None:
        """Connect, TLS or 5xx; the discarded answer is closed."""
        failing = answer(503, b"x", open_ended=True)
        get = self.upstream.get(pull_of(), ANONYMOUS, None, None)
        self.answers = {"one": failing, "two": answer(200)}
        self.assertEqual(self.successResultOf(Deferred.fromCoroutine(get)).code, 200)
        self.assertTrue(failing.closed)
        self.answers = {"one": network.ConnectionRefusedError(), "two": answer(200)}
        self.assertEqual(self.successResultOf(self.head()).code, 200)
        self.assertEqual(self.hosts(), ["one", "two", "one", "two"])

    def test_one_that_is_down_is_tried_last(self) -> None:
        """Not every pull waits for its time-out (RULES D8); ten seconds later it has another chance."""
        self.answers = {"one": network.ConnectionRefusedError(), "two": answer(200)}
        for _ in range(3):
            self.successResultOf(self.head())
        self.assertEqual(len(self.warnings), 1)
        self.clock.advance(OPEN_S)
        self.successResultOf(self.head())
        self.assertEqual(self.hosts(), ["one", "two", "two", "two", "one", "two"])

    def test_one_that_is_down_takes_no_time_from_another(self) -> None:
        """And the other's end is the answer: there is no time left for more."""
        self.answers = {"one": network.ConnectionRefusedError(), "two": answer(200)}
        for _ in range(FAILURES):
            self.successResultOf(self.head())
        self.answers["two"] = Deferred()
        head = self.head(10.0)
        self.clock.advance(9.9)
        self.assertNoResult(head)
        self.clock.advance(0.1)
        lost = self.failureResultOf(head, UpstreamUnreachable).value
        self.assertEqual((lost.timed_out, "two" in str(lost)), (True, True))

    def test_what_is_down_elsewhere_is_not_the_url(self) -> None:
        """A token server, or where a redirect leads: the registry itself answers."""
        registry = TokenRegistry(token_answer=lambda url: network.ConnectionRefusedError())
        registry.good.add("theirs")
        registry.content = lambda *asked: answer(307, location="https://cdn.example.net/x")

        def handler(method: str, url: str, headers: Headers) -> Answer:
            return network.ConnectionRefusedError() if "cdn" in url else registry(method, url, headers)

        self.net.handler = handler
        for who in (ANONYMOUS, CLIENT):
            for _ in range(FAILURES + 1):
                head = Deferred.fromCoroutine(self.upstream.head(pull_of(TAG), who, None))
                self.failureResultOf(head, UpstreamUnreachable)
            self.assertEqual([host for host in self.hosts() if host in ("one", "two")][-2:], ["one", "two"])

    def test_each_has_an_even_part_of_the_time(self) -> None:
        """What the first leaves, the last has."""
        self.answers = {"one": Deferred(), "two": Deferred()}
        head = self.head(10.0)
        self.clock.advance(5)
        self.assertEqual(self.hosts(), ["one", "two"])
        self.clock.advance(4.9)
        self.assertNoResult(head)
        self.clock.advance(0.2)
        self.assertTrue(self.failureResultOf(head, UpstreamUnreachable).value.timed_out)

    def test_time_is_counted_whatever_came_of_it(self) -> None:
        """Also when it ended in 503."""
        slow: Deferred[IResponse] = Deferred()
        self.answers = {"one": slow, "two": Deferred()}
        head = self.head(10.0)
        self.clock.advance(4)
        slow.callback(answer(503))
        self.clock.advance(5.9)
        self.assertNoResult(head)
        self.clock.advance(0.1)
        self.failureResultOf(head, UpstreamUnreachable)

    def test_when_all_are_down_who_can_wait_asks_them_all(self) -> None:
        """Others had no time for them."""
        self.net.handler = lambda *asked: Deferred()
        for _ in range(FAILURES):
            head = self.head(2.0)
            self.clock.pump([1.0, 1.0])
            self.failureResultOf(head, UpstreamUnreachable)
        self.hosts()
        head = self.head(20.0)
        self.clock.advance(10)
        self.assertEqual(self.hosts(), ["one", "two"])
        self.clock.advance(10)
        self.failureResultOf(head, UpstreamUnreachable)

    def test_when_all_fail_the_last_says_why(self) -> None:
        """Its 5xx is relayed, its loss is an outage."""
        self.answers = {"one": network.ConnectionRefusedError(), "two": answer(502)}
        self.assertEqual(self.successResultOf(self.head()).code, 502)
        self.answers = {"one": answer(500), "two": network.DNSLookupError()}
        self.clock.advance(10)
        self.assertIn("http://two", str(self.failureResultOf(self.head(), UpstreamUnreachable).value))
