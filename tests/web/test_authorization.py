"""What becomes of a client's Authorization on its way to the upstream (RULES C3, C5, C6)."""

from __future__ import annotations

import base64

from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.web.doubles import Registry
from txociproxy.envelopes import PREFIX
from txociproxy.interfaces import ANONYMOUS, Credentials, Relay
from txociproxy.upstreams.entries.table import Entry
from txociproxy.web.authorization import forwards

TAG = "/v2/library/alpine/manifests/3.20"
LIST = "/v2/library/alpine/tags/list"
CHALLENGE = (
    'Bearer realm="http://cache.example:8080/v2/_token/docker.io",service="ociproxy",'
    'scope="repository:library/alpine:pull"'
)
IGNORES = Entry("docker.io", ("https://registry-1.docker.io",), client_credentials="ignore")


def basic(login: bytes) -> str:
    """Return what clients make of a name and a password."""
    return "Basic " + base64.b64encode(login).decode()


def sealed(registry: Registry, authorization: str | None = "Bearer x", life_s: float = 9) -> str:
    """Return a token of ours for one repository."""
    return registry.envelopes.seal("docker.io", ("library/alpine",), authorization, registry.clock.seconds() + life_s)


class ForwardingTests(SynchronousTestCase):
    """What the cache is given."""

    def given_to(self, registry: Registry, authorization: str, path: str = TAG) -> Credentials:
        """Return what the cache was given for a pull."""
        registry.cache.verdict = Relay(404, (), b"")
        registry.get(path, ("Authorization", authorization))
        return registry.cache.asked[-1].credentials

    def test_a_credential_is_forwarded_as_it_is(self) -> None:
        """C5: a native token or Basic, in both modes; the empty one of skopeo is none (C3)."""
        for is_transparent in (True, False):
            registry = Registry(is_transparent=is_transparent)
            for authorization in ("Bearer abc", basic(b"user:pass"), "Basic nonsense!", "Negotiate abc"):
                self.assertEqual(self.given_to(registry, authorization), Credentials(authorization))
            for nothing in ("Basic Og==", "basic  Og==", "Bearer", "Bearer ", ""):
                self.assertEqual(self.given_to(registry, nothing), ANONYMOUS)

    def test_an_upstream_that_must_not_see_it_does_not(self) -> None:
        """C6: whatever it is, a token of ours among it, and a bad one is no error."""
        for registry, path in (
            (Registry(IGNORES), TAG),
            (Registry(IGNORES, is_transparent=False), TAG),
            (Registry(unlisted="public"), "/v2/evil.example/a/manifests/1"),
            (Registry(unlisted="public", is_transparent=False), "/v2/a/manifests/1?ns=evil.example"),
        ):
            ours = f"Bearer {sealed(registry)}"
            for authorization in ("Bearer abc", basic(b"user:pass"), ours, ours[:-3], f"Bearer {PREFIX}"):
                self.assertEqual(self.given_to(registry, authorization, path), ANONYMOUS)

    def test_one_that_nobody_configured_is_trusted_with_nothing(self) -> None:
        """C6: whatever else its entry says."""
        stranger = Entry("docker.io", ("https://registry-1.docker.io",), is_listed=False)
        self.assertFalse(forwards(stranger))
        self.assertTrue(forwards(evolve(stranger, is_listed=True)))

    def test_our_token_is_opened_and_what_lies_inside_goes(self) -> None:
        """With its end, after which nothing may be believed on its account; also for lists."""
        for is_transparent in (True, False):
            registry = Registry(is_transparent=is_transparent)
            expected = Credentials("Bearer x", registry.clock.seconds() + 9)
            for scheme in ("Bearer", "bearer", "BEARER "):
                self.assertEqual(self.given_to(registry, f"{scheme} {sealed(registry)}"), expected)
            self.assertEqual(self.given_to(registry, f"Bearer {sealed(registry, None)}"), ANONYMOUS)
            registry.get(LIST, ("Authorization", f"Bearer {sealed(registry)}"))
            self.assertEqual(registry.cache.listed_as, [expected])

    def test_our_token_is_nobodys_where_it_does_not_belong(self) -> None:
        """C5, transparent: another repository, another namespace, damaged, expired, as a password."""
        registry = Registry()
        token = sealed(registry)
        for path in ("/v2/library/busybox/manifests/1", "/v2/ghcr.io/library/alpine/manifests/1"):
            self.assertEqual(self.given_to(registry, f"Bearer {token}", path), ANONYMOUS)
        for odd in (f"bearer {token[:-3]}abc", f'Bearer "{token}"', f"Token {token}", basic(f"u:{token}".encode())):
            self.assertEqual(self.given_to(registry, odd), ANONYMOUS)
        registry.clock.advance(10)
        self.assertEqual(self.given_to(registry, f"Bearer {token}"), ANONYMOUS)

    def test_a_token_of_ours_never_goes_upstream(self) -> None:
        """However it is wrapped; in authenticated mode it is refused, and the cache is not asked."""
        registry = Registry(is_transparent=False)
        registry.cache.verdict = Relay(404, (), b"")
        wrapped = st.sampled_from(("Bearer {}", "bearer  {}", "Bearer x{}", "{}", "Token {}", 'Bearer "{}"', "B,{}"))

        @settings(deadline=None, max_examples=60)
        @given(wrapped, st.text("abcABC019-_", max_size=20), st.booleans())
        def shown(form: str, rest: str, is_basic: bool) -> None:
            field = basic(form.format(f"u:{PREFIX}{rest}").encode()) if is_basic else form.format(PREFIX + rest)
            registry.get(TAG, ("Authorization", field))

        shown()
        self.assertEqual([ask.credentials for ask in registry.cache.asked if not ask.credentials.is_anonymous], [])

    def test_two_credentials_are_an_error(self) -> None:
        """Which one is meant?  At every place that looks at them."""
        for path in (TAG, LIST, "/v2/", "/v2/_token"):
            registry = Registry()
            answer = registry.get(path, ("Authorization", "Bearer a"), ("Authorization", "Bearer b"))
            self.assertEqual((answer.status, registry.cache.asked), (400, []))


class RefusalTests(SynchronousTestCase):
    """C5, authenticated: a token of ours that is no good is refused, and the client told where to get another."""

    def setUp(self) -> None:
        """A door."""
        self.registry = Registry(is_transparent=False)

    def assert_refused(self, authorization: str, why: str, path: str = TAG, challenge: str = CHALLENGE) -> None:
        """The answer says why, and nobody is asked."""
        for method in ("GET", "HEAD"):
            answer = self.registry.ask(method, path, ("Authorization", authorization))
            self.assertEqual(answer.status, 401)
            self.assertEqual(answer.get("WWW-Authenticate"), f'{challenge},error="{why}"')
        self.assertEqual(self.registry.cache.asked, [])

    def test_a_bad_one(self) -> None:
        """Invented, changed, or with a key that is no more."""
        self.assert_refused("Bearer ociproxy1.nonsense", "invalid_token")
        self.assert_refused(f"Bearer {sealed(self.registry)[:-2]}", "invalid_token", LIST)

    def test_an_expired_one(self) -> None:
        """At its very second."""
        token = sealed(self.registry, life_s=9)
        self.registry.clock.advance(9)
        self.assert_refused(f"Bearer {token}", "invalid_token")

    def test_one_for_something_else(self) -> None:
        """skopeo asks for the scope of the challenge then, and only then."""
        token = sealed(self.registry)
        challenge = CHALLENGE.replace("alpine", "busybox")
        self.assert_refused(
            f"Bearer {token}", "insufficient_scope", "/v2/library/busybox/manifests/1", challenge=challenge
        )
        challenge = CHALLENGE.replace("docker.io", "ghcr.io")
        self.assert_refused(
            f"Bearer {token}", "insufficient_scope", "/v2/library/alpine/manifests/1?ns=ghcr.io", challenge=challenge
        )
