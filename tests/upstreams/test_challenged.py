"""Asking with our own login: whose credentials go where, and what becomes of a refusal (RULES C7, C8)."""

from __future__ import annotations

import json
from typing import cast

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers
from twisted.web.iweb import IResponse

from tests.upstreams.fakes import (
    LOGIN,
    NAMESPACE,
    REALM,
    URL,
    Answer,
    FakeLogins,
    FakeNet,
    TokenRegistry,
    answer,
    pull_of,
    token_url,
    upstream_on,
)
from txociproxy.collect import collect
from txociproxy.interfaces import ANONYMOUS, OWN, Credentials
from txociproxy.oci.errors import UpstreamUnreachable
from txociproxy.oci.names import Tag
from txociproxy.upstreams.entries.entry import Entry
from txociproxy.upstreams.logins.accounts import Login, LoginUnavailable

TAG_URL = f"{URL}/v2/team/app/manifests/latest"
OURS = LOGIN.authorization
ONE = "Bearer repository:team/app:pull#1"
TWO = "Bearer repository:team/app:pull#2"
SSO = "https://sso.example.net/token"


class OwnTests(SynchronousTestCase):
    """A registry that wants tokens, and our login for it."""

    def setUp(self) -> None:
        """The token server is of the same owner."""
        self.clock = Clock()
        self.registry = TokenRegistry()
        self.net = FakeNet(self.registry)
        self.logins = FakeLogins()
        self.upstream = upstream_on(self.net, self.clock, logins=self.logins)

    def start(self, who: Credentials = OWN) -> Deferred[IResponse]:
        """HEAD the tag."""
        return Deferred.fromCoroutine(self.upstream.head(pull_of(Tag("latest")), who, None))

    def head(self, who: Credentials = OWN) -> int:
        """HEAD the tag and return the status."""
        code: int = self.successResultOf(self.start(who)).code
        return code

    def asked(self) -> list[tuple[str, str | None]]:
        """Return the URLs and Authorizations since the last time."""
        asked = [(url, authorization) for _, url, authorization in self.net.asked]
        self.net.asked.clear()
        return asked

    def test_the_login_goes_to_the_token_server_and_the_token_to_the_registry(self) -> None:
        """Then the token is kept."""
        self.assertEqual([self.head(), self.head()], [200, 200])
        self.assertEqual(self.asked(), [(TAG_URL, None), (token_url(), OURS), (TAG_URL, ONE), (TAG_URL, ONE)])
        self.assertEqual(self.logins.refusals, [])

    def test_our_tokens_are_not_anybodys(self) -> None:
        """The challenge is known for both, the tokens are two; another login has another."""
        self.head()
        self.asked()
        self.assertEqual(self.head(ANONYMOUS), 200)
        self.assertEqual(self.asked(), [(token_url(), None), (TAG_URL, TWO)])
        self.logins.current = Login("robot", "another")
        self.head()
        self.assertEqual(self.asked()[0], (token_url(), self.logins.current.authorization))

    def test_a_kept_token_that_is_refused_leads_to_one_fresh_one(self) -> None:
        """Nothing is wrong with the login."""
        self.head()
        self.asked()
        self.registry.good.clear()
        self.assertEqual(self.head(), 200)
        self.assertEqual(self.asked(), [(TAG_URL, ONE), (token_url(), OURS), (TAG_URL, TWO)])
        self.assertEqual(self.logins.refusals, [])

    def test_a_token_is_renewed_before_its_end(self) -> None:
        """54 of its 60 seconds."""
        self.head()
        self.asked()
        self.clock.advance(55)
        self.head()
        self.assertEqual(self.asked(), [(token_url(), OURS), (TAG_URL, TWO)])

    def test_many_at_once_ask_for_one_token(self) -> None:
        """As for anybody."""
        waiting: Deferred[IResponse] = Deferred()
        self.registry.token_answer = lambda url: waiting
        pulls = [self.start() for _ in range(3)]
        self.registry.good.add("t")
        waiting.callback(answer(200, json.dumps({"token": "t"}).encode()))
        self.assertEqual([self.successResultOf(pull).code for pull in pulls], [200, 200, 200])
        self.assertEqual(self.asked().count((token_url(), OURS)), 1)

    def test_a_fresh_token_that_is_refused_is_the_answer_and_said_of_the_login(self) -> None:
        """The 401 comes out, and nobody goes round in circles."""
        self.registry.token_answer = lambda url: answer(200, b'{"token":"bad"}')
        self.assertEqual(self.head(), 401)
        self.assertEqual(len(self.asked()), 3)
        self.assertEqual(self.logins.refusals, [LOGIN])

    def test_a_login_that_the_token_server_refuses_is_read_afresh(self) -> None:
        """The registry's own 401 is the answer; a server that does not know the way has said nothing of it."""
        for code, refusals in ((401, [LOGIN]), (403, [LOGIN]), (400, []), (404, []), (429, [])):
            self.registry.token_answer = lambda url, code=code: answer(code, b"no")
            self.assertEqual(self.head(), 429 if code == 429 else 401)
            self.assertEqual(self.logins.refusals, refusals, code)
            self.logins.refusals.clear()

    def test_anybodys_refusal_says_nothing_of_the_login(self) -> None:
        """It was not shown."""
        self.registry.token_answer = lambda url: answer(401)
        self.head(ANONYMOUS)
        self.registry.token_answer = lambda url: answer(200, b'{"token":"bad"}')
        self.head(ANONYMOUS)
        self.assertEqual((self.logins.refusals, self.logins.asked), ([], 0))

    def test_without_a_login_there_is_no_ask(self) -> None:
        """It is raised, and no other URL is tried: the login is the same there."""
        self.logins.failure = LoginUnavailable("the file is gone")
        entry = Entry(NAMESPACE, (URL, "https://two.example.com"))
        upstream = upstream_on(self.net, self.clock, entry, self.logins)
        head = Deferred.fromCoroutine(upstream.head(pull_of(Tag("latest")), OWN, None))
        self.failureResultOf(head, LoginUnavailable)
        self.assertEqual((self.asked(), self.logins.asked), ([], 1))

    def test_a_dead_token_server_is_an_outage(self) -> None:
        """So that stale answers are given."""
        self.registry.token_answer = lambda url: answer(503)
        self.failureResultOf(self.start(), UpstreamUnreachable)

    def test_pings_carry_no_login(self) -> None:
        """Their challenge is for the client."""
        ping = self.upstream.ping(OWN)
        self.assertEqual(self.successResultOf(Deferred.fromCoroutine(ping)).code, 401)
        self.assertEqual(self.asked(), [(f"{URL}/v2/", None)])

    def test_who_has_none_asks_as_anybody(self) -> None:
        """And says so."""
        self.assertTrue(self.upstream.has_own_credentials)
        upstream = upstream_on(self.net, self.clock)
        self.assertFalse(upstream.has_own_credentials)
        self.successResultOf(Deferred.fromCoroutine(upstream.head(pull_of(Tag("latest")), OWN, None)))
        self.assertEqual(self.asked(), [(TAG_URL, None), (token_url(), None), (TAG_URL, ONE)])

    def test_who_is_not_listed_sees_nobodys_credentials(self) -> None:
        """Whatever came (RULES C6)."""
        entry = Entry(NAMESPACE, (URL,), is_listed=False)
        self.upstream = upstream_on(self.net, self.clock, entry, self.logins)
        self.assertFalse(self.upstream.has_own_credentials)
        self.assertEqual([self.head(OWN), self.head(Credentials("Basic theirs"))], [200, 200])
        self.assertEqual(self.asked(), [(TAG_URL, None), (token_url(), None), (TAG_URL, ONE), (TAG_URL, ONE)])
        self.assertEqual(self.logins.asked, 0)


class RealmTests(SynchronousTestCase):
    """Which token server sees our login."""

    def setUp(self) -> None:
        """Listen to the log."""
        self.events: list[LogEvent] = []
        observer = cast(ILogObserver, self.events.append)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def warnings(self) -> list[str]:
        """Return why the login was not sent."""
        return [event["why"] for event in self.events if "why" in event]

    def registry(self, realm: str) -> FakeNet:
        """Return a registry that sends its clients to this realm, which gives tokens to anybody."""

        def handler(method: str, url: str, headers: Headers) -> Answer:
            if url.startswith(realm):
                return answer(200, b'{"token":"t"}')
            if headers.getRawHeaders("authorization") == ["Bearer t"]:
                return answer(200)
            return answer(401, b"page", www_authenticate=f'Bearer realm="{realm}"')

        return FakeNet(handler)

    def test_one_of_another_owner_does_not(self) -> None:
        """The answer is the registry's 401, as it came; anybody's ask goes on; it is said once."""
        net, clock, logins = self.registry(SSO), Clock(), FakeLogins()
        upstream = upstream_on(net, clock, logins=logins)
        for _ in range(2):
            get = upstream.get(pull_of(Tag("latest")), OWN, None, None)
            refusal = self.successResultOf(Deferred.fromCoroutine(get))
            self.assertEqual(refusal.code, 401)
            self.assertEqual(self.successResultOf(collect(refusal, 100, clock, 1)), b"page")
        self.assertEqual(net.asked, [("GET", TAG_URL, None)] * 2)
        (warning,) = self.warnings()
        self.assertIn(f"`token_realm: {SSO}` in the upstream {NAMESPACE}", warning)
        head = upstream.head(pull_of(Tag("latest")), ANONYMOUS, None)
        self.assertEqual(self.successResultOf(Deferred.fromCoroutine(head)).code, 200)
        # What anybody has learned does not show the way to our login.
        head = upstream.head(pull_of(Tag("latest")), OWN, None)
        self.assertEqual(self.successResultOf(Deferred.fromCoroutine(head)).code, 401)
        self.assertNotIn(OURS, [authorization for *_, authorization in net.asked])
        self.assertEqual(logins.refusals, [])

    def test_one_that_the_entry_names_does(self) -> None:
        """Nothing is said."""
        net = self.registry(SSO)
        upstream = upstream_on(net, Clock(), Entry(NAMESPACE, (URL,), token_realm=SSO), FakeLogins())
        head = upstream.head(pull_of(Tag("latest")), OWN, None)
        self.assertEqual(self.successResultOf(Deferred.fromCoroutine(head)).code, 200)
        self.assertEqual(net.asked[1][1:], (f"{SSO}?scope=repository%3Ateam%2Fapp%3Apull", OURS))
        self.assertEqual(self.warnings(), [])

    def test_never_from_https_to_http(self) -> None:
        """Not on the same host."""
        net = self.registry("http://registry.example.com/token")
        head = upstream_on(net, Clock(), logins=FakeLogins()).head(pull_of(Tag("latest")), OWN, None)
        self.assertEqual(self.successResultOf(Deferred.fromCoroutine(head)).code, 401)
        self.assertEqual(net.asked, [("HEAD", TAG_URL, None)])

    def test_an_upstream_cannot_fill_the_log(self) -> None:
        """It could name another realm each time."""
        net = FakeNet(
            lambda method, url, headers: answer(
                401, www_authenticate=f'Bearer realm="https://sso{len(net.asked)}.example.net/"'
            )
        )
        upstream = upstream_on(net, Clock(), logins=FakeLogins())
        for _ in range(20):
            head = upstream.head(pull_of(Tag("latest")), OWN, None)
            self.successResultOf(Deferred.fromCoroutine(head))
        self.assertEqual(len(self.warnings()), 8)

    def test_a_redirect_of_the_token_server_takes_no_login_elsewhere(self) -> None:
        """A token that nobody was asked for there would say nothing of the login: it counts as a refusal."""
        there = "https://elsewhere.example.com/token"
        registry = TokenRegistry(token_answer=lambda url: answer(307, location=there))

        def handler(method: str, url: str, headers: Headers) -> Answer:
            return answer(200, b'{"token":"t"}') if url == there else registry(method, url, headers)

        net = FakeNet(handler)
        registry.good.add("t")
        logins = FakeLogins()
        upstream = upstream_on(net, Clock(), logins=logins)
        head = upstream.head(pull_of(Tag("latest")), OWN, None)
        self.assertEqual(self.successResultOf(Deferred.fromCoroutine(head)).code, 401)
        self.assertEqual(net.asked[1:], [("GET", token_url(), OURS), ("GET", there, None)])
        self.assertEqual(logins.refusals, [])
        head = upstream.head(pull_of(Tag("latest")), ANONYMOUS, None)
        self.assertEqual(self.successResultOf(Deferred.fromCoroutine(head)).code, 200)


class BasicTests(SynchronousTestCase):
    """A registry that wants the login itself."""

    def setUp(self) -> None:
        """Its blobs lie elsewhere."""
        self.good = OURS
        self.challenge = 'Basic realm="Registry"'
        self.there, self.elsewhere = "https://cdn.example.net/x", 200

        def handler(method: str, url: str, headers: Headers) -> Answer:
            if url == self.there:
                return answer(400 if headers.hasHeader("authorization") else self.elsewhere)
            if url.startswith(REALM):
                return answer(200, b'{"token":"t"}')
            if headers.getRawHeaders("authorization", [""])[0] != self.good:
                return answer(401, b"page", www_authenticate=self.challenge)
            return answer(307, location=self.there)

        self.net = FakeNet(handler)
        self.logins = FakeLogins()
        self.clock = Clock()
        self.upstream = upstream_on(self.net, self.clock, logins=self.logins)

    def head(self, who: Credentials = OWN, repository: str = "team/app") -> int:
        """HEAD the tag and return the status."""
        head = self.upstream.head(pull_of(Tag("latest"), repository), who, None)
        code: int = self.successResultOf(Deferred.fromCoroutine(head)).code
        return code

    def authorizations(self) -> list[str | None]:
        """Return what was shown since the last time."""
        shown = [authorization for *_, authorization in self.net.asked]
        self.net.asked.clear()
        return shown

    def test_it_gets_it_and_nobody_else_does(self) -> None:
        """The next request goes with it at once, one for another repository has to learn."""
        self.assertEqual([self.head(), self.head()], [200, 200])
        self.assertEqual(self.authorizations(), [None, OURS, None, OURS, None])
        self.head(repository="other/app")
        self.assertEqual(self.authorizations(), [None, OURS, None])

    def test_anybody_has_nothing_to_show(self) -> None:
        """The 401 is the answer, with its page; also where the challenge is known."""
        self.assertEqual(self.head(ANONYMOUS), 401)
        self.head()
        self.authorizations()
        get = self.upstream.get(pull_of(Tag("latest")), ANONYMOUS, None, None)
        refusal = self.successResultOf(Deferred.fromCoroutine(get))
        self.assertEqual(self.successResultOf(collect(refusal, 100, self.clock, 1)), b"page")
        self.assertEqual(self.authorizations(), [None])

    def test_a_login_that_is_refused_is_read_afresh(self) -> None:
        """Two asks while it is new, one when the challenge is known; the new one goes at once."""
        self.good = "Basic bmV3Om5ldw=="
        self.assertEqual([self.head(), self.head()], [401, 401])
        self.assertEqual(self.authorizations(), [None, OURS, OURS])
        self.assertEqual(self.logins.refusals, [LOGIN, LOGIN])
        self.logins.current = Login("new", "new")
        self.assertEqual(self.head(), 200)
        self.assertEqual(self.authorizations()[0], self.good)

    def test_a_registry_that_has_changed_its_mind_is_understood(self) -> None:
        """From the login to tokens, and back."""
        self.head()
        self.authorizations()
        self.challenge, self.good = f'Bearer realm="{REALM}"', "Bearer t"
        self.assertEqual(self.head(), 200)
        self.assertEqual(self.authorizations(), [OURS, OURS, "Bearer t", None])
        self.challenge, self.good = "Basic", OURS
        self.assertEqual(self.head(), 200)
        self.assertEqual(self.authorizations(), ["Bearer t", OURS, None])
        self.assertEqual(self.logins.refusals, [])

    def test_a_token_is_preferred(self) -> None:
        """The login is shown to fewer."""
        self.challenge, self.good = f'Basic realm="x", Bearer realm="{REALM}"', "Bearer t"
        self.assertEqual(self.head(), 200)
        self.assertEqual(self.authorizations(), [None, OURS, "Bearer t", None])

    def test_a_refusal_from_elsewhere_says_nothing_of_the_login(self) -> None:
        """The registry has taken it; whoever stores its blobs is out of order."""
        self.elsewhere = 401
        for _ in range(2):
            head = self.upstream.head(pull_of(Tag("latest")), OWN, None)
            self.failureResultOf(Deferred.fromCoroutine(head), UpstreamUnreachable)
        self.assertEqual(self.logins.refusals, [])

    def test_a_challenge_from_elsewhere_gets_nothing(self) -> None:
        """A hop cannot ask for our login."""
        net = FakeNet(
            lambda method, url, headers: (
                answer(401, www_authenticate="Basic") if url == self.there else answer(307, location=self.there)
            )
        )
        head = upstream_on(net, Clock(), logins=self.logins).head(pull_of(Tag("latest")), OWN, None)
        self.failureResultOf(Deferred.fromCoroutine(head), UpstreamUnreachable)
        self.assertEqual([authorization for *_, authorization in net.asked], [None, None])
        self.assertEqual(self.logins.refusals, [])
