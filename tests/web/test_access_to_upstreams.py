"""Pings, tokens and what becomes of Authorization (RULES C1 to C6)."""

from __future__ import annotations

import base64
import json

from twisted.trial.unittest import SynchronousTestCase

from tests.web.doubles import Registry
from txociproxy.interfaces import Relay
from txociproxy.oci.errors import UpstreamUnreachable
from txociproxy.upstreams.table import Entry

TAG = "/v2/library/alpine/manifests/3.20"
HUB = Entry("docker.io", ("https://registry-1.docker.io",))
PING_CHALLENGE = 'Bearer realm="http://cache.example:8080/v2/_token",service="ociproxy"'


def token_of(registry: Registry, query: str = "?scope=repository:library/alpine:pull") -> str:
    """Return a token from the endpoint."""
    return str(json.loads(registry.get(f"/v2/_token{query}").body)["token"])


class PingTests(SynchronousTestCase):
    """``/v2/`` (C1, C2)."""

    def test_with_several_upstreams_it_asks_for_a_token_without_network(self) -> None:
        """docker fetches tokens only if it is told to here."""
        registry = Registry()
        for path in ("/v2/", "/v2"):
            answer = registry.get(path)
            self.assertEqual((answer.status, answer.error()), (401, "UNAUTHORIZED"))
            self.assertEqual(answer.get("WWW-Authenticate"), PING_CHALLENGE)
        self.assertEqual(registry.cache.pings, [])

    def test_a_token_of_ours_is_welcome(self) -> None:
        """A login ends here."""
        registry = Registry()
        answer = registry.get("/v2/", ("Authorization", f"Bearer {token_of(registry)}"))
        self.assertEqual((answer.status, answer.body), (200, b"{}"))
        self.assertEqual(answer.get("Docker-Distribution-Api-Version"), "registry/2.0")
        registry.clock.advance(7200)
        stale = registry.get("/v2/", ("Authorization", f"Bearer {token_of(registry)[:-2]}xx"))
        self.assertEqual(stale.status, 401)

    def test_nobody_is_asked_for_a_token_that_no_upstream_would_see(self) -> None:
        """C2: no entry forwards."""
        registry = Registry(
            Entry("docker.io", ("https://registry-1.docker.io",), client_credentials="ignore"),
            Entry("ghcr.io", ("https://ghcr.io",), client_credentials="ignore"),
        )
        self.assertEqual(registry.get("/v2/").status, 200)

    def test_the_only_upstream_is_asked(self) -> None:
        """Its answer is passed on, with our challenge."""
        registry = Registry(HUB)
        registry.cache.verdict = Relay(401, (("WWW-Authenticate", 'Bearer realm="https://auth.docker.io/token"'),), b"")
        answer = registry.get("/v2/")
        self.assertEqual((answer.status, answer.get("WWW-Authenticate")), (401, PING_CHALLENGE))
        registry.cache.verdict = Relay(200, (), b"")
        self.assertEqual(registry.get("/v2/").status, 200)
        self.assertEqual(registry.cache.pings, ["docker.io", "docker.io"])

    def test_a_lost_upstream_is_no_reason_to_turn_clients_away(self) -> None:
        """C2 and promise 7: transparent mode says 200, authenticated 502."""
        for lost in (UpstreamUnreachable("gone"), Relay(503, (), b"")):
            registry = Registry(HUB)
            registry.cache.verdict = lost
            self.assertEqual(registry.get("/v2/").status, 200)
        registry = Registry(HUB, is_transparent=False)
        registry.cache.verdict = UpstreamUnreachable("gone")
        self.assertEqual(registry.get("/v2/").status, 502)

    def test_a_head_has_no_body(self) -> None:
        """skopeo and others do not care, but a body would be the next answer."""
        answer = Registry().ask("HEAD", "/v2/")
        self.assertEqual((answer.status, answer.body), (401, b""))


class TokenTests(SynchronousTestCase):
    """The token endpoint (C4, C5)."""

    def setUp(self) -> None:
        """A door."""
        self.registry = Registry()

    def opened(self, path: str, body: bytes | None = None) -> tuple[str, tuple[str, ...], str | None]:
        """Fetch a token and look into it."""
        answer = self.registry.ask("GET" if body is None else "POST", path, body=body)
        self.assertEqual(answer.status, 200, answer.body)
        envelope = self.registry.envelopes.open(json.loads(answer.body)["token"])
        assert envelope is not None
        return envelope.namespace, envelope.repositories, envelope.authorization

    def test_everybody_gets_one_in_the_form_of_the_spec(self) -> None:
        """Both names, its life, its birth; never kept by anything between."""
        answer = self.registry.get("/v2/_token?scope=repository:library/alpine:pull")
        token = json.loads(answer.body)
        self.assertEqual(token["token"], token["access_token"])
        self.assertEqual((token["expires_in"], token["issued_at"]), (3600, "2027-01-15T08:00:00Z"))
        self.assertEqual(answer.get("Cache-Control"), "no-store")

    def test_the_namespace_is_the_realms_or_the_scopes(self) -> None:
        """Prefixes go, ``library/`` comes."""
        for path, expected in (
            ("/v2/_token/ghcr.io?scope=repository:ghcr.io/a/b:pull", ("ghcr.io", ("a/b",), None)),
            ("/v2/_token/ghcr.io?scope=repository:a/b:pull", ("ghcr.io", ("a/b",), None)),
            ("/v2/_token?scope=repository:alpine:pull", ("docker.io", ("library/alpine",), None)),
            ("/v2/_token?scope=repository:quay.io/a/b:pull,push", ("quay.io", ("a/b",), None)),
        ):
            self.assertEqual(self.opened(path), expected, path)

    def test_scopes_of_others_are_dropped(self) -> None:
        """Another type, another namespace, no pull, not served."""
        scopes = (
            "registry:catalog:*",
            "repository:alpine:pull",
            "repository:quay.io/a/b:pull",
            "repository:busybox:push",
            "repository:evil.example/x:pull",
            "repository:debian:*",
        )
        query = "&".join(f"scope={scope}" for scope in scopes)
        expected = ("docker.io", ("library/alpine", "library/debian"), None)
        self.assertEqual(self.opened(f"/v2/_token?{query}"), expected)
        self.assertEqual(self.opened(f"/v2/_token?scope={'%20'.join(scopes)}"), expected)

    def test_a_form_is_read_as_a_query_is(self) -> None:
        """containerd with a user POSTs first; its password is looked at by nobody."""
        form = b"grant_type=password&service=x&scope=repository%3Aalpine%3Apull&username=u&password=p"
        self.assertEqual(self.opened("/v2/_token/docker.io", form), ("docker.io", ("library/alpine",), None))

    def test_a_login_without_scope_gets_a_token_for_nothing(self) -> None:
        """It is good for the ping that follows."""
        self.assertEqual(self.opened("/v2/_token?service=ociproxy&account=u"), ("", (), None))

    def test_an_unlisted_namespace_is_denied(self) -> None:
        """The remedy is told here too."""
        answer = self.registry.get("/v2/_token/evil.example?scope=repository:a:pull")
        self.assertEqual((answer.status, answer.error()), (403, "DENIED"))

    def test_the_eleventh_failure_of_a_minute_waits(self) -> None:
        """A minute later the client may ask again."""
        for _ in range(10):
            self.assertEqual(self.registry.get("/v2/_token/evil.example").status, 403)
        self.assertEqual(self.registry.get("/v2/_token").status, 429)
        self.registry.clock.advance(60)
        self.assertEqual(self.registry.get("/v2/_token").status, 200)

    def test_too_many_parameters_are_an_error(self) -> None:
        """Nobody needs them."""
        answer = self.registry.get("/v2/_token?" + "&".join(["a=b"] * 100))
        self.assertEqual(answer.status, 400)


class AuthorizationTests(SynchronousTestCase):
    """What goes on to the upstream."""

    def forwarded(self, registry: Registry, authorization: str, path: str = TAG) -> str | None:
        """Return what the cache was given."""
        registry.cache.verdict = Relay(404, (), b"")
        registry.get(path, ("Authorization", authorization))
        return registry.cache.asked[-1].credentials.authorization

    def test_a_credential_is_forwarded_as_it_is(self) -> None:
        """C5: a native token or Basic; the empty one of skopeo is none (C3)."""
        registry = Registry()
        basic = "Basic " + base64.b64encode(b"user:pass").decode()
        self.assertEqual(self.forwarded(registry, "Bearer abc"), "Bearer abc")
        self.assertEqual(self.forwarded(registry, basic), basic)
        self.assertIsNone(self.forwarded(registry, "Basic Og=="))

    def test_an_upstream_that_must_not_see_it_does_not(self) -> None:
        """C6."""
        registry = Registry(Entry("docker.io", ("https://registry-1.docker.io",), client_credentials="ignore"))
        self.assertIsNone(self.forwarded(registry, "Bearer abc"))
        token = registry.envelopes.seal("docker.io", ("library/alpine",), "Bearer x", registry.clock.seconds() + 9)
        self.assertIsNone(self.forwarded(registry, f"Bearer {token}"))

    def test_our_token_is_opened_and_never_goes_on_itself(self) -> None:
        """What lies inside goes, to its own repositories only."""
        registry = Registry()
        token = registry.envelopes.seal("docker.io", ("library/alpine",), "Bearer x", registry.clock.seconds() + 9)
        self.assertEqual(self.forwarded(registry, f"Bearer {token}"), "Bearer x")
        self.assertIsNone(self.forwarded(registry, f"Bearer {token}", "/v2/library/busybox/manifests/1"))
        self.assertIsNone(self.forwarded(registry, f"Bearer {token}", "/v2/ghcr.io/library/alpine/manifests/1"))
        self.assertIsNone(self.forwarded(registry, f"bearer {token[:-3]}abc"))
        registry.clock.advance(10)
        self.assertIsNone(self.forwarded(registry, f"Bearer {token}"))
        self.assertIsNone(self.forwarded(registry, f"Bearer {token_of(registry)}"))

    def test_a_bad_token_of_ours_is_refused_in_authenticated_mode(self) -> None:
        """C5, with our challenge."""
        registry = Registry(is_transparent=False)
        answer = registry.get(TAG, ("Authorization", "Bearer ociproxy1.nonsense"))
        self.assertEqual((answer.status, answer.error()), (401, "UNAUTHORIZED"))
        self.assertIn("/v2/_token/docker.io", str(answer.get("WWW-Authenticate")))
        self.assertEqual(registry.cache.asked, [])

    def test_two_credentials_are_an_error(self) -> None:
        """Which one is meant?"""
        answer = Registry().get(TAG, ("Authorization", "Bearer a"), ("Authorization", "Bearer b"))
        self.assertEqual(answer.status, 400)
