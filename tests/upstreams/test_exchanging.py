"""A client's credentials become what the upstream wants to see (RULES C4, C8)."""

from __future__ import annotations

import json

from twisted.internet import error as network
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers

from tests.upstreams.fakes import (
    NAMESPACE,
    REALM,
    URL,
    Answer,
    FakeLogins,
    FakeNet,
    answer,
    pull_of,
    upstream_on,
)
from txociproxy.interfaces import ANONYMOUS, OWN, Exchanged, Relay
from txociproxy.oci.errors import OCIError, UpstreamUnreachable
from txociproxy.oci.names import Repository, Tag
from txociproxy.upstreams.entries.entry import Entry
from txociproxy.upstreams.upstream import Upstream

THEIRS = "Basic dGhlbTp0aGVpcnM="
PING = ("GET", f"{URL}/v2/", None)
LOOK = ("HEAD", f"{URL}/v2/team/app/manifests/latest", None)
ASK = ("GET", f"{REALM}?service=reg&scope=repository%3Ateam%2Fapp%3Apull", THEIRS)
BEARER = f'Bearer realm="{REALM}",service="reg",scope="repository:user/image:pull"'
TEAM = (Repository("team/app"),)


class ExchangeTests(SynchronousTestCase):
    """A registry whose ping, manifests and token server are scripted."""

    def setUp(self) -> None:
        """One that wants tokens, and gives them."""
        self.clock = Clock()
        self.clock.advance(1000)
        self.ping: Answer = answer(401, b"page", www_authenticate=BEARER)
        self.manifest: Answer = answer(404)
        self.token: Answer = answer(200, b'{"token":"t","expires_in":300}')
        self.net = FakeNet(self.handle)
        self.upstream = upstream_on(self.net, self.clock)

    def handle(self, method: str, url: str, headers: Headers) -> Answer:
        """Answer as one of the three."""
        if "/token" in url:
            return self.token
        return self.ping if url.endswith("/v2/") else self.manifest

    def start(self, repositories: tuple[Repository, ...] = TEAM) -> Deferred[Exchanged | Relay]:
        """Exchange a client's name and password."""
        return Deferred.fromCoroutine(self.upstream.exchange(repositories, THEIRS))

    def exchange(self, repositories: tuple[Repository, ...] = TEAM) -> Exchanged | Relay:
        """Exchange, and return what came of it."""
        return self.successResultOf(self.start(repositories))

    def asked(self) -> list[tuple[str, str, str | None]]:
        """Return what was asked since the last time."""
        asked = self.net.asked[:]
        self.net.asked.clear()
        return asked

    def use(self, **fields: object) -> None:
        """Configure the upstream anew."""
        self.upstream = upstream_on(self.net, self.clock, Entry(NAMESPACE, (URL,), **fields))  # type: ignore[arg-type]

    def test_the_clients_password_is_shown_to_the_token_server_only(self) -> None:
        """For our own scope; a token's life is somewhat shorter, so that it does not end on its way."""
        self.assertEqual(self.exchange(), Exchanged("Bearer t", 270.0))
        self.assertEqual(self.asked(), [PING, ASK])

    def test_several_repositories_are_several_scopes(self) -> None:
        """And none is none: a login wants no more than a yes."""
        self.exchange((Repository("a/b"), Repository("c")))
        self.exchange(())
        self.ping = answer(401, www_authenticate=f'Bearer realm="{REALM}"')
        self.clock.advance(60)
        self.exchange(())
        both, none, bare = (url for _, url, authorization in self.asked() if authorization)
        self.assertEqual(both, f"{REALM}?service=reg&scope=repository%3Aa%2Fb%3Apull&scope=repository%3Ac%3Apull")
        self.assertEqual((none, bare), (f"{REALM}?service=reg", REALM))

    def test_nothing_is_kept_beside_the_challenge(self) -> None:
        """A password that was revoked is refused at once; the challenge is known for a minute."""
        self.exchange()
        self.token = answer(401, b"revoked", www_authenticate=BEARER)
        refusal = self.exchange()
        assert isinstance(refusal, Relay)
        self.assertEqual((refusal.status, refusal.headers), (401, (("Content-Type", "application/json"),)))
        self.assertEqual(json.loads(refusal.body)["errors"][0]["code"], "UNAUTHORIZED")
        self.assertEqual(self.asked(), [PING, ASK, ASK])
        self.clock.advance(60)
        self.exchange()
        self.assertEqual(self.asked(), [PING, ASK])

    def test_a_refusal_does_not_outlive_a_token_server_that_has_moved(self) -> None:
        """A repository's own challenge was learned; once the server refuses, the registry is asked anew."""
        self.ping, self.manifest = answer(200), answer(401, www_authenticate=BEARER)
        self.exchange()
        self.token = answer(401)
        self.exchange()
        moved = REALM.replace("/token", "/new/token")
        self.manifest = answer(401, www_authenticate=BEARER.replace(REALM, moved))
        self.asked()
        self.exchange()
        self.assertEqual([url for _, url, shown in self.asked() if shown], [ASK[1].replace(REALM, moved)])

    def test_every_refusal_of_the_token_server_is_a_401(self) -> None:
        """Some say 400 or 403."""
        for code in (400, 401, 403):
            self.token = answer(code)
            refusal = self.exchange()
            assert isinstance(refusal, Relay)
            self.assertEqual(refusal.status, 401)

    def test_a_token_server_that_wants_a_pause_is_relayed(self) -> None:
        """It stops nobody else: it is about this client."""
        self.token = answer(429, retry_after="7")
        for _ in range(2):
            refusal = self.exchange()
            assert isinstance(refusal, Relay)
            self.assertEqual((refusal.status, ("Retry-After", "7") in refusal.headers), (429, True))
            self.assertIn(b"TOOMANYREQUESTS", refusal.body)
        self.assertEqual(self.asked(), [PING, ASK, ASK])

    def test_a_dead_token_server_is_an_outage(self) -> None:
        """It may have moved, so that the registry is asked again."""
        for dead in (answer(503), network.ConnectionRefusedError(), answer(200, b"<html>"), answer(200, b"x" * 70_000)):
            self.token = dead
            self.failureResultOf(self.start(), UpstreamUnreachable)
            self.assertEqual(self.asked(), [PING, ASK])

    def test_a_dead_registry_is_an_outage(self) -> None:
        """Nothing is remembered of it."""
        for dead in (answer(502), network.ConnectionRefusedError()):
            self.ping = dead
            for _ in range(2):
                self.failureResultOf(self.start(), UpstreamUnreachable)
            self.assertEqual(self.asked(), [PING, PING])

    def test_a_registry_that_wants_a_pause_is_relayed(self) -> None:
        """At either ask; nothing is remembered."""
        self.ping = answer(429, retry_after="7")
        refusal = self.exchange()
        assert isinstance(refusal, Relay)
        self.assertEqual((refusal.status, ("Retry-After", "7") in refusal.headers), (429, True))
        self.ping, self.manifest = answer(200), answer(429)
        refusal = self.exchange()
        assert isinstance(refusal, Relay)
        self.assertEqual(refusal.status, 429)
        self.assertEqual(self.asked(), [PING, PING, LOOK])

    def test_a_registry_that_wants_the_password_itself_gets_it_later(self) -> None:
        """Nobody is asked with it."""
        self.ping = answer(401, www_authenticate='Basic realm="x"')
        self.assertEqual([self.exchange(), self.exchange()], [Exchanged(THEIRS)] * 2)
        self.assertEqual(self.asked(), [PING])

    def test_a_registry_that_lets_everybody_ping_is_asked_for_the_repository(self) -> None:
        """Its challenge is learned; that there was none at the ping is known for a minute."""
        self.ping, self.manifest = answer(200), answer(401, www_authenticate=BEARER)
        self.assertEqual([self.exchange(), self.exchange()], [Exchanged("Bearer t", 270.0)] * 2)
        self.assertEqual(self.asked(), [PING, LOOK, ASK, ASK])
        self.exchange((Repository("b"),))
        self.assertEqual(self.asked()[0][1], f"{URL}/v2/b/manifests/latest")

    def test_a_registry_that_wants_nothing_sees_it_as_it_is(self) -> None:
        """404, 200 and 403 are no challenge; nor is a 401 from elsewhere; without a repository a ping is all."""
        self.ping = answer(307, location="https://elsewhere.example.net/token")
        self.token = answer(401, www_authenticate=BEARER)
        for code in (200, 403, 404):
            self.manifest = answer(code)
            self.assertEqual(self.exchange(), Exchanged(THEIRS))
        self.assertEqual(self.exchange(()), Exchanged(THEIRS))
        self.assertNotIn(THEIRS, [authorization for *_, authorization in self.asked()])

    def test_what_pulls_have_learned_is_used(self) -> None:
        """Of any of the repositories."""
        self.manifest = answer(401, www_authenticate=BEARER)
        head = self.upstream.head(pull_of(Tag("latest")), ANONYMOUS, None)
        self.successResultOf(Deferred.fromCoroutine(head))
        self.asked()
        self.exchange((Repository("b"), *TEAM))
        self.assertEqual([method for method, *_ in self.asked()], ["GET"])

    def test_a_realm_of_another_owner_sees_nothing(self) -> None:
        """The remedy is said; named by the entry it is asked."""
        sso = "https://sso.example.net/token"
        self.ping = answer(401, www_authenticate=f'Bearer realm="{sso}?x=1"')
        error = self.failureResultOf(self.start(), OCIError).value
        self.assertEqual((error.code, error.status), ("DENIED", 403))
        self.assertIn(f"`token_realm: {sso}` in the upstream {NAMESPACE}", error.message)
        self.assertEqual(self.asked(), [PING])
        self.use(token_realm=sso)
        self.assertEqual(self.exchange(), Exchanged("Bearer t", 270.0))
        self.assertEqual(self.asked()[1][2], THEIRS)

    def test_never_from_https_to_http(self) -> None:
        """Not on the same host."""
        self.ping = answer(401, www_authenticate=f'Bearer realm="{URL.replace("https", "http")}/token"')
        self.failureResultOf(self.start(), OCIError)
        self.assertEqual(self.asked(), [PING])

    def test_a_redirect_of_the_token_server_is_a_refusal(self) -> None:
        """Else a wrong password would get anybody's token, and look right."""
        there = "https://other.example.com/x"
        anybodys = self.token
        self.token = answer(307, location=there)
        self.net.handler = lambda *asked: anybodys if asked[1] == there else self.handle(*asked)
        refusal = self.exchange()
        assert isinstance(refusal, Relay)
        self.assertEqual((refusal.status, self.asked()[-1]), (401, ("GET", there, None)))

    def test_an_upstream_that_takes_no_clients_credentials_wants_nothing(self) -> None:
        """Ignored, or not listed (RULES C6)."""
        self.use(client_credentials="ignore")
        self.assertEqual(self.exchange(), Exchanged(None))
        self.use(is_listed=False)
        self.assertEqual(self.exchange(), Exchanged(None))
        self.assertEqual(self.asked(), [])

    def test_our_own_login_is_never_part_of_it(self) -> None:
        """Nor is a token of ours given to a client (RULES C4)."""
        self.upstream = upstream_on(self.net, self.clock, logins=FakeLogins())
        self.manifest = answer(401, www_authenticate=BEARER)
        head = self.upstream.head(pull_of(Tag("latest")), OWN, None)
        self.successResultOf(Deferred.fromCoroutine(head))
        self.asked()
        self.exchange()
        self.assertEqual(self.asked(), [ASK])

    def test_the_next_url_is_asked_when_one_is_lost(self) -> None:
        """The last one's word counts."""
        two = "https://two.example.com"
        lost: Answer = network.ConnectionRefusedError()
        self.net.handler = lambda method, url, headers: (
            lost if url.startswith(URL) else self.handle(method, url, headers)
        )
        self.upstream = upstream_on(self.net, self.clock, Entry(NAMESPACE, (URL, two)))
        self.assertEqual(self.exchange(), Exchanged("Bearer t", 270.0))
        self.assertEqual(self.asked(), [PING, ("GET", f"{two}/v2/", None), ASK])
        self.ping = answer(500)
        self.clock.advance(60)
        self.failureResultOf(self.start(), UpstreamUnreachable)

    def test_what_comes_of_it_is_not_printed(self) -> None:
        """It is a credential."""
        self.assertNotIn("Bearer t", repr(self.exchange()))
        self.assertIsInstance(self.upstream, Upstream)
