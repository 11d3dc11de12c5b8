"""The token endpoint: who is asked for what, and what a client gets (RULES C4, C5)."""

from __future__ import annotations

import base64
import json
from urllib.parse import quote, urlencode

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from tests.web.doubles import Answer, Line, Registry
from txociproxy.envelopes import MAX_ENVELOPE_BYTES, Envelope
from txociproxy.interfaces import Exchanged, Relay
from txociproxy.oci.errors import OCIError, UpstreamUnreachable
from txociproxy.upstreams.entries.table import Entry, UpstreamTable

ASK = "/v2/_token?scope=repository:library/alpine:pull"
HUB_ASK = "/v2/_token/docker.io?scope=repository:alpine:pull"
BASIC = "Basic " + base64.b64encode(b"user:pass").decode()
LOGIN = ("Authorization", BASIC)
HUB = Entry("docker.io", ("https://registry-1.docker.io",))
GHCR = Entry("ghcr.io", ("https://ghcr.io",))


def opened(registry: Registry, answer: Answer) -> Envelope:
    """Look into the token of an answer."""
    assert answer.status == 200, answer.body
    envelope = registry.envelopes.open(json.loads(answer.body)["token"])
    assert envelope is not None
    return envelope


def inside(registry: Registry, answer: Answer) -> tuple[str, tuple[str, ...], str | None]:
    """Return for what a token is, and what lies in it."""
    envelope = opened(registry, answer)
    return envelope.namespace, envelope.repositories, envelope.authorization


def post(registry: Registry, path: str = HUB_ASK, **form: str) -> Answer:
    """Send a form."""
    return registry.ask("POST", path, body=urlencode(form).encode())


class ScopeTests(SynchronousTestCase):
    """For what a token is given (C4)."""

    def setUp(self) -> None:
        """A door."""
        self.registry = Registry()

    def named(self, path: str) -> tuple[str, tuple[str, ...], str | None]:
        """Fetch a token as nobody, and look into it."""
        return inside(self.registry, self.registry.get(path))

    def test_everybody_gets_one_in_the_form_of_the_spec(self) -> None:
        """Both names, its life, its birth; never kept by anything between."""
        answer = self.registry.get(ASK)
        token = json.loads(answer.body)
        self.assertEqual(token["token"], token["access_token"])
        self.assertEqual((token["expires_in"], token["issued_at"]), (3600, "2027-01-15T08:00:00Z"))
        self.assertEqual(answer.get("Cache-Control"), "no-store")
        self.assertNotIn("refresh_token", token)
        self.assertEqual(opened(self.registry, answer).expires_at_s, self.registry.clock.seconds() + 3600)

    def test_the_namespace_is_the_realms_or_the_scopes(self) -> None:
        """Prefixes go, ``library/`` comes."""
        for path, expected in (
            ("/v2/_token/ghcr.io?scope=repository:ghcr.io/a/b:pull", ("ghcr.io", ("a/b",), None)),
            ("/v2/_token/ghcr.io?scope=repository:a/b:pull", ("ghcr.io", ("a/b",), None)),
            ("/v2/_token?ns=ghcr.io&scope=repository:a/b:pull", ("ghcr.io", ("a/b",), None)),
            ("/v2/_token?scope=repository:alpine:pull", ("docker.io", ("library/alpine",), None)),
            ("/v2/_token/index.docker.io?scope=repository:alpine:pull", ("docker.io", ("library/alpine",), None)),
            ("/v2/_token?scope=repository:quay.io/a/b:pull,push", ("quay.io", ("a/b",), None)),
        ):
            self.assertEqual(self.named(path), expected, path)

    def test_scopes_of_others_are_dropped(self) -> None:
        """Another type, another namespace, no pull, not served, the same again."""
        scopes = (
            "registry:catalog:*",
            "repository:alpine:pull",
            "repository:quay.io/a/b:pull",
            "repository:busybox:push",
            "repository:evil.example/x:pull",
            "repository:debian:*",
            "repository:library/alpine:pull",
        )
        query = "&".join(f"scope={scope}" for scope in scopes)
        expected = ("docker.io", ("library/alpine", "library/debian"), None)
        self.assertEqual(self.named(f"/v2/_token?{query}"), expected)
        self.assertEqual(self.named(f"/v2/_token?scope={'%20'.join(scopes)}"), expected)

    def test_the_ninth_scope_is_dropped(self) -> None:
        """Nobody makes us ask for more."""
        query = "&".join(f"scope=repository:a/{number}:pull" for number in range(10))
        self.assertEqual(len(self.named(f"/v2/_token?{query}")[1]), 8)

    def test_refused_repositories_are_left_out(self) -> None:
        """B7: nobody is asked about them, and the token is good for the others."""
        self.registry = Registry(Entry("docker.io", ("https://registry-1.docker.io",), refused=("library/*",)), GHCR)
        for path in ("/v2/_token/docker.io", "/v2/_token"):
            answer = self.registry.get(f"{path}?scope=repository:alpine:pull&scope=repository:a/b:pull", LOGIN)
            self.assertEqual(inside(self.registry, answer)[:2], ("docker.io", ("a/b",)))
        self.assertEqual(self.registry.cache.exchanges, [("docker.io", ("a/b",), BASIC)] * 2)

    def test_a_claimed_host_is_its_upstreams(self) -> None:
        """B2: the whole name is the repository."""
        claimed = Entry("ghcr.io", ("https://ghcr.io",), hosts=("ghcr.cache.example",))
        self.registry = Registry(HUB, claimed)
        answer = self.registry.get("/v2/_token?scope=repository:quay.io/b:pull", ("Host", "ghcr.cache.example"))
        self.assertEqual(inside(self.registry, answer)[:2], ("ghcr.io", ("quay.io/b",)))

    def test_an_unlisted_namespace_is_denied(self) -> None:
        """The remedy is told here too."""
        answer = self.registry.get("/v2/_token/evil.example?scope=repository:a:pull")
        self.assertEqual((answer.status, answer.error()), (403, "DENIED"))


class ExchangeTests(SynchronousTestCase):
    """What a client shows becomes what the upstream wants."""

    def setUp(self) -> None:
        """A door; the upstream gives a token for five minutes."""
        self.registry = Registry()
        self.registry.cache.granted = Exchanged("Bearer theirs", 300.0)

    def test_the_upstreams_own_token_lies_inside(self) -> None:
        """As long as it is good, to the second; the repositories are in the upstream's words."""
        for path in (ASK, HUB_ASK):
            answer = self.registry.get(path, LOGIN)
            envelope = opened(self.registry, answer)
            expected = Envelope("docker.io", ("library/alpine",), "Bearer theirs", self.registry.clock.seconds() + 300)
            self.assertEqual(envelope, expected)
            self.assertEqual(json.loads(answer.body)["expires_in"], 300)
            self.assertNotIn("theirs", answer.body.decode())
        self.assertEqual(self.registry.cache.exchanges, [("docker.io", ("library/alpine",), BASIC)] * 2)

    def test_the_scheme_is_written_in_one_way(self) -> None:
        """Whoever exchanges it need not look twice."""
        for scheme in ("basic ", "BASIC  ", " Basic "):
            self.registry.get(ASK, ("Authorization", scheme + BASIC.removeprefix("Basic ")))
        self.assertEqual({shown for _, _, shown in self.registry.cache.exchanges}, {BASIC})

    def test_it_lives_no_longer_than_ours_and_no_longer_than_theirs(self) -> None:
        """Unknown is ours; a part of a second is one."""
        for life_s, expected in ((None, 3600), (7200.0, 3600), (299.9, 299), (0.2, 1), (float("inf"), 3600)):
            self.registry.cache.granted = Exchanged("Bearer theirs", life_s)
            answer = self.registry.get(ASK, LOGIN)
            self.assertEqual(json.loads(answer.body)["expires_in"], expected)
            left_s = opened(self.registry, answer).expires_at_s - self.registry.clock.seconds()
            self.assertEqual(left_s, expected)

    def test_it_comes_back_as_what_the_upstream_wants(self) -> None:
        """From the login to the pull."""
        token = json.loads(self.registry.get(ASK, LOGIN).body)["token"]
        self.registry.cache.verdict = Relay(404, (), b"")
        self.registry.get("/v2/alpine/manifests/1", ("Authorization", f"Bearer {token}"))
        self.assertEqual(self.registry.cache.asked[0].credentials.authorization, "Bearer theirs")

    def test_an_upstream_that_wants_nothing_gets_nothing(self) -> None:
        """Or one that is lost, in transparent mode."""
        self.registry.cache.granted = Exchanged(None)
        self.assertEqual(inside(self.registry, self.registry.get(ASK, LOGIN)), ("docker.io", ("library/alpine",), None))

    def test_nobody_is_asked_without_credentials(self) -> None:
        """None, the empty ones of skopeo, and another scheme, which is none at a token server."""
        for authorization in ("Basic Og==", "Bearer native", "Bearer ociproxy1.x", "Negotiate abc", ""):
            answer = self.registry.get(ASK, ("Authorization", authorization))
            self.assertEqual(inside(self.registry, answer), ("docker.io", ("library/alpine",), None))
        self.assertEqual(inside(self.registry, post(self.registry, grant_type="password"))[0], "docker.io")
        self.assertEqual(self.registry.cache.exchanges, [])

    def test_nobody_is_asked_for_nothing(self) -> None:
        """A login without scope, at any realm: a token that is good for the ping that follows."""
        for path, namespace in (
            ("/v2/_token?service=ociproxy&account=user", ""),
            ("/v2/_token?scope=repository:evil.example/a:pull", ""),
            ("/v2/_token/docker.io", "docker.io"),
            ("/v2/_token/docker.io?scope=registry:catalog:*", "docker.io"),
        ):
            self.assertEqual(inside(self.registry, self.registry.get(path, LOGIN)), (namespace, (), None))
        self.assertEqual(self.registry.cache.exchanges, [])

    def test_an_upstream_that_must_not_see_credentials_is_not_asked(self) -> None:
        """C6: one that ignores them, and one that nobody has configured."""
        ignores = Entry("docker.io", ("https://registry-1.docker.io",), client_credentials="ignore")
        registry = Registry(ignores, GHCR, unlisted="public")
        for path, namespace in (
            (ASK, "docker.io"),
            ("/v2/_token?scope=repository:evil.example/a/b:pull", "evil.example"),
            ("/v2/_token/evil.example?scope=repository:a/b:pull", "evil.example"),
        ):
            found = inside(registry, registry.get(path, LOGIN))
            self.assertEqual((found[0], found[2]), (namespace, None))
        self.assertEqual(registry.cache.exchanges, [])

    def test_a_refusal_is_a_401_with_our_challenge(self) -> None:
        """Nothing of the token server's answer passes; the realm is the one that was used."""
        headers = (("WWW-Authenticate", "Basic"), ("Set-Cookie", "a=b"))
        for path, realm in (
            (ASK, "/v2/_token"),
            (HUB_ASK, "/v2/_token/docker.io"),
            ("/v2/_token?ns=ghcr.io&scope=repository:a/b:pull", "/v2/_token/ghcr.io"),
        ):
            for status in (401, 403, 400, 404):
                registry = Registry()
                registry.cache.granted = Relay(status, headers, b"<p>theirs</p>")
                answer = registry.get(path, LOGIN)
                self.assertEqual((answer.status, answer.error()), (401, "UNAUTHORIZED"))
                challenge = f'Bearer realm="http://cache.example:8080{realm}",service="ociproxy"'
                self.assertEqual(answer.get("WWW-Authenticate"), challenge)
                self.assertIsNone(answer.get("Set-Cookie"))
                self.assertNotIn(b"theirs", answer.body)

    def test_a_token_server_that_has_enough_is_passed_on(self) -> None:
        """With when to come again, if it said so in seconds."""
        for headers, expected in (
            ((("RateLimit-Limit", "5"), ("retry-after", "7")), "7"),
            ((), "60"),
            ((("Retry-After", "Sun, 22 Nov 2026 00:00:00 GMT"),), "60"),
        ):
            self.registry.cache.granted = Relay(429, headers, b"")
            answer = self.registry.get(ASK, LOGIN)
            self.assertEqual((answer.status, answer.error()), (429, "TOOMANYREQUESTS"))
            self.assertEqual(answer.get("Retry-After"), expected)

    def test_a_lost_token_server_has_the_status_of_its_kind(self) -> None:
        """502, 504, or why it may not be asked (C8)."""
        registry = Registry(is_transparent=False)
        for error, status in (
            (UpstreamUnreachable("no connection"), 502),
            (UpstreamUnreachable("no answer", timed_out=True), 504),
            (Relay(503, (), b""), 502),
            (Relay(302, (), b""), 502),
            (OCIError("DENIED", "see token_realm"), 403),
        ):
            registry.cache.granted = error
            self.assertEqual(registry.get(ASK, LOGIN).status, status)
        self.registry.cache.granted = Relay(503, (), b"")
        self.assertIsNone(inside(self.registry, self.registry.get(ASK, LOGIN))[2])

    def test_a_token_that_is_too_long_to_come_back_is_a_502(self) -> None:
        """Better than one that is good for nothing; the longest that fits does come back."""
        self.registry.cache.granted = Exchanged("Bearer " + "a" * MAX_ENVELOPE_BYTES)
        answer = self.registry.get(ASK, LOGIN)
        self.assertEqual((answer.status, answer.error()), (502, "UNAVAILABLE"))
        self.assertIn("too long", answer.body.decode())
        longest = "Bearer " + "a" * (MAX_ENVELOPE_BYTES * 3 // 4 - 200)
        self.registry.cache.granted = Exchanged(longest)
        self.assertEqual(inside(self.registry, self.registry.get(ASK, LOGIN))[2], longest)

    def test_one_table_counts_for_a_whole_request(self) -> None:
        """A reload in the middle takes nothing away from who has asked."""
        waiting: Deferred[Exchanged | Relay] = Deferred()
        self.registry.cache.granted = waiting
        asked = self.registry.begin("GET", HUB_ASK, LOGIN)
        self.registry.table.current = UpstreamTable((GHCR,), "ghcr.io")
        waiting.callback(Exchanged("Bearer theirs"))
        answer = self.registry.answer_of(asked)
        self.assertEqual(inside(self.registry, answer), ("docker.io", ("library/alpine",), "Bearer theirs"))
        self.assertEqual(self.registry.get(HUB_ASK, LOGIN).status, 403)

    def test_the_log_says_which_upstream_it_was_about(self) -> None:
        """At the finest level; a login without scope is about none."""
        lines: list[LogEvent] = []

        @implementer(ILogObserver)
        def listen(event: LogEvent) -> None:
            lines.append(event)

        globalLogPublisher.addObserver(listen)
        self.addCleanup(globalLogPublisher.removeObserver, listen)
        for path in (ASK, "/v2/_token"):
            self.registry.get(path, LOGIN)
        self.assertEqual([line["namespace"] for line in lines if line["log_format"] == "request"], ["docker.io", None])

    def test_a_client_that_leaves_ends_its_exchange(self) -> None:
        """Nobody waits for a token server on its behalf."""
        cancelled: list[object] = []
        self.registry.cache.granted = Deferred(cancelled.append)
        asked = self.registry.begin("GET", ASK, LOGIN)
        asked.cancel()
        self.failureResultOf(asked)
        self.registry.agent.flush()
        self.assertEqual((len(cancelled), self.registry.root.running), (1, 0))


class FormTests(SynchronousTestCase):
    """POST: containerd with a user tries it first (RFC 6749, section 4.3)."""

    def setUp(self) -> None:
        """A door."""
        self.registry = Registry()

    def test_a_form_is_read_as_a_query_and_a_field_are(self) -> None:
        """Service, client and offline access are ignored."""
        form = b"grant_type=password&service=x&client_id=c&access_type=offline&scope=repository%3Aalpine%3Apull"
        answer = self.registry.ask("POST", "/v2/_token/docker.io", body=form + b"&username=user&password=pass")
        self.assertEqual(inside(self.registry, answer), ("docker.io", ("library/alpine",), "Bearer upstream"))
        self.assertEqual(self.registry.cache.exchanges, [("docker.io", ("library/alpine",), BASIC)])

    def test_the_query_of_a_post_and_the_form_of_a_get_count_for_nothing(self) -> None:
        """Each says it in one place."""
        answer = post(self.registry, grant_type="password", username="user", password="pass")
        self.assertEqual(inside(self.registry, answer), ("docker.io", (), None))
        form = {"scope": "repository:alpine:pull", "grant_type": "password"}
        answer = self.registry.ask("POST", "/v2/_token", LOGIN, body=urlencode(form).encode())
        self.assertIsNone(inside(self.registry, answer)[2])

    def test_every_byte_of_a_password_arrives(self) -> None:
        """Whatever characters they are meant to be; the upstream alone knows."""

        @settings(deadline=None, max_examples=100)
        @given(st.binary(max_size=20).filter(lambda name: b":" not in name), st.binary(min_size=1, max_size=20))
        def shown(name: bytes, password: bytes) -> None:
            # No token of ours is among these.
            fields = (b"username=" + quote(name).encode(), b"password=" + quote(password).encode())
            form = b"&".join((b"grant_type=password&scope=repository:alpine:pull", *fields))
            self.registry.ask("POST", "/v2/_token", body=form)
            _, _, authorization = self.registry.cache.exchanges[-1]
            self.assertEqual(base64.b64decode(authorization.removeprefix("Basic ")), name + b":" + password)

        shown()

    def test_a_refresh_token_is_refused(self) -> None:
        """None was issued; containerd goes on with a GET.  It does so before each pull, so it is no failure."""
        for _ in range(11):
            answer = post(self.registry, grant_type="refresh_token", refresh_token="secret")
            self.assertEqual((answer.status, answer.error()), (401, "UNAUTHORIZED"))
            self.assertIn("/v2/_token/docker.io", str(answer.get("WWW-Authenticate")))
        self.assertEqual(self.registry.get(ASK).status, 200)

    def test_what_makes_no_sense_is_a_400(self) -> None:
        """Another kind of grant, none, twice the same, a name that would end early, too many, no text."""
        for form in (
            b"grant_type=client_credentials",
            b"username=user&password=pass",
            b"grant_type=password&grant_type=password",
            b"grant_type=password&username=a&username=b&password=c",
            b"grant_type=password&username=a&password=b&password=c",
            b"grant_type=password&username=a%3Ab&password=c",
            b"grant_type=password&" + b"&".join([b"a=b"] * 64),
            b"grant_type=password&username=\xff",
        ):
            registry = Registry()
            answer = registry.ask("POST", HUB_ASK, body=form)
            self.assertEqual((answer.status, answer.error()), (400, "UNSUPPORTED"), form)
            self.assertEqual(registry.cache.exchanges, [])

    def test_what_is_no_basic_credential_is_a_400(self) -> None:
        """No base64, or no name and password in it."""
        for value in ("!", "dXNlcg==", "dXNlcjpwYX"):
            answer = self.registry.get(ASK, ("Authorization", f"Basic {value}"))
            self.assertEqual((answer.status, answer.error()), (400, "UNSUPPORTED"), value)
        self.assertEqual(self.registry.cache.exchanges, [])

    def test_a_token_of_ours_is_no_password(self) -> None:
        """C5: whoever got it could pull from here with it."""
        token = self.registry.envelopes.seal("docker.io", ("a",), "Bearer x", self.registry.clock.seconds() + 9)
        answer = post(self.registry, scope="repository:a:pull", grant_type="password", username="u", password=token)
        self.assertEqual(answer.status, 401)
        field = "Basic " + base64.b64encode(f"u:{token}".encode()).decode()
        self.assertEqual(self.registry.get(ASK, ("Authorization", field)).status, 401)
        self.assertEqual(self.registry.cache.exchanges, [])

    def test_no_answer_of_the_endpoint_is_kept(self) -> None:
        """Errors neither, whoever finds them."""
        registry = Registry()
        registry.cache.granted = Relay(401, (), b"")
        for answer in (
            registry.get(ASK),
            registry.get(ASK, LOGIN),
            registry.get("/v2/_token/evil.example"),
            registry.ask("PUT", "/v2/_token"),
            post(registry, grant_type="x"),
            registry.ask("HEAD", ASK),
        ):
            self.assertEqual(answer.get("Cache-Control"), "no-store", answer.status)
        line = Line()
        answer_bytes = line.send(b"POST /v2/_token HTTP/1.1\r\nHost: a\r\nContent-Length: 70000\r\n\r\n")
        self.assertEqual((line.status, answer_bytes.count(b"\r\nCache-Control: no-store\r\n")), (413, 1))
