"""Every 401 that leaves carries exactly one challenge, ours; and what is one client's says so (RULES C3, D4)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.web.doubles import Answer, Registry, serve
from txociproxy.interfaces import Redirect, Relay
from txociproxy.oci.errors import OCIError
from txociproxy.oci.names import Descriptor, Digest
from txociproxy.upstreams.entries.table import Entry
from txociproxy.web.replies import BadToken, error_reply

DATA = b"content"
DIGEST = Digest.of(DATA)
HUB = Entry("docker.io", ("https://registry-1.docker.io",))
GHCR = Entry("ghcr.io", ("https://ghcr.io",), hosts=("ghcr.cache.example",))
THEIRS = (("WWW-Authenticate", 'Basic realm="theirs"'), ("www-authenticate", 'Bearer realm="https://theirs/"'))

# (path, realm behind /v2/_token, scope)
PULLS = (
    ("/v2/alpine/manifests/3", "/docker.io", "alpine"),
    ("/v2/ghcr.io/a/b/manifests/3", "/ghcr.io", "ghcr.io/a/b"),
    ("/v2/a/b/manifests/3?ns=ghcr.io", "/ghcr.io", "a/b"),
    (f"/v2/alpine/manifests/{DIGEST}", "/docker.io", "alpine"),
    (f"/v2/alpine/blobs/{DIGEST}", "/docker.io", "alpine"),
    ("/v2/alpine/tags/list", "/docker.io", "alpine"),
    (f"/v2/ghcr.io/a/b/referrers/{DIGEST}", "/ghcr.io", "ghcr.io/a/b"),
)
PINGS = (("/v2/", "", None), ("/v2", "", None), ("/v2/?ns=ghcr.io", "", None))
TOKENS = (
    ("/v2/_token?scope=repository:alpine:pull", "", None),
    ("/v2/_token/docker.io?scope=repository:alpine:pull", "/docker.io", None),
    ("/v2/_token/ghcr.io?scope=repository:ghcr.io/a/b:pull", "/ghcr.io", None),
    ("/v2/_token?ns=ghcr.io&scope=repository:a/b:pull", "/ghcr.io", None),
)


def challenge(base: str, realm: str, scope: str | None) -> str:
    """Return our challenge as RULES C3 writes it."""
    text = f'Bearer realm="{base}/v2/_token{realm}",service="ociproxy"'
    return text if scope is None else f'{text},scope="repository:{scope}:pull"'


class ChallengeTests(SynchronousTestCase):
    """C3."""

    def answers(self) -> Iterator[tuple[Answer, str]]:
        """Give a 401 of every kind on every path, with the challenge that it must carry."""
        ways = itertools.product((True, False), ("GET", "HEAD"), (None, "https://public.example"))
        for is_transparent, method, public_url in ways:
            for refusal in (
                Relay(401, THEIRS, b""),
                Relay(401, THEIRS, b"{}"),
                OCIError("UNAUTHORIZED", "no"),
                OCIError("UNAUTHORIZED", "no", headers=THEIRS),
            ):
                registry = Registry(HUB, GHCR, is_transparent=is_transparent, public_url=public_url)
                registry.cache.verdict = registry.cache.granted = refusal
                base = public_url or "http://cache.example:8080"
                for path, realm, scope in (*PULLS, *PINGS, *TOKENS):
                    yield registry.ask(method, path, ("Authorization", "Basic dTpw")), challenge(base, realm, scope)

    def test_every_401_carries_exactly_our_challenge(self) -> None:
        """Relays, errors of the core, the token endpoint, lists; both methods, both modes."""
        count = 0
        for answer, expected in self.answers():
            count += 1
            self.assertEqual(answer.status, 401)
            self.assertEqual(answer.headers.getRawHeaders("WWW-Authenticate"), [expected])
            self.assertEqual(answer.get("Cache-Control"), "no-store")
        self.assertEqual(count, 8 * 4 * 14)

    def test_the_host_is_the_one_that_the_client_used(self) -> None:
        """B2: its realm leads back to the same door."""
        registry = Registry(HUB, GHCR)
        registry.cache.verdict = Relay(401, THEIRS, b"")
        for path, realm, scope in (("/v2/", "", None), ("/v2/a/b/manifests/3", "/ghcr.io", "a/b")):
            answer = registry.get(path, ("Host", "ghcr.cache.example"))
            expected = challenge("http://ghcr.cache.example", realm, scope)
            self.assertEqual((answer.status, answer.get("WWW-Authenticate")), (401, expected))

    def test_no_other_answer_carries_any(self) -> None:
        """Whatever the upstream sends."""
        for status in (200, 302, 403, 404, 429, 500):
            registry = Registry(HUB)
            registry.cache.verdict = Relay(status, THEIRS, b"{}")
            for path, _, _ in (*PULLS[:1], *PULLS[3:6], *PINGS[:2]):
                self.assertIsNone(registry.get(path).get("WWW-Authenticate"), (status, path))

    def test_an_error_is_told_with_one_challenge_whatever_it_brings(self) -> None:
        """Any status, any fields: a 401 has ours, all others have none, and an error without a request has none."""

        @settings(deadline=None, max_examples=100)
        @given(
            st.sampled_from((400, 401, 403, 404, 429, 502)),
            st.lists(st.sampled_from((*THEIRS, ("Retry-After", "7")))),
            st.booleans(),
        )
        def told(status: int, fields: list[tuple[str, str]], is_token: bool) -> None:
            error = OCIError("UNAUTHORIZED", "no", status=status, headers=tuple(fields))
            registry = Registry(HUB, GHCR)
            registry.cache.verdict = registry.cache.granted = error
            path = TOKENS[1][0] if is_token else PULLS[0][0]
            answer = registry.get(path, ("Authorization", "Basic dTpw"))
            lines = answer.headers.getRawHeaders("WWW-Authenticate", [])
            self.assertEqual((answer.status, len(lines)), (status, 1 if status == 401 else 0))
            self.assertFalse(any("theirs" in line for line in lines))
            alone = error_reply(error).headers
            self.assertEqual([value for name, value in alone if name.lower() == "www-authenticate"], [])

        told()

    def test_a_bad_token_says_why_behind_our_challenge(self) -> None:
        """As a parameter like the others (RFC 6750 §3)."""
        registry = Registry(HUB)
        registry.cache.verdict = BadToken("invalid_token", "expired")
        answer = registry.get(PULLS[0][0])
        expected = challenge("http://cache.example:8080", "/docker.io", "alpine") + ',error="invalid_token"'
        self.assertEqual(answer.get("WWW-Authenticate"), expected)


class VisibilityTests(SynchronousTestCase):
    """D4: what is one client's is private."""

    def test_content_says_what_the_cache_says(self) -> None:
        """The mode has decided it; whole, part, 304 and redirect."""
        registry = Registry(is_transparent=False)
        blob = f"/v2/alpine/blobs/{DIGEST}"
        control = "private, max-age=31536000, immutable"
        for fields, status in (((), 200), ((("Range", "bytes=0-0"),), 206), ((("If-None-Match", str(DIGEST)),), 304)):
            registry.cache.verdict = serve(DATA, cache_control=control)
            answer = registry.get(blob, *fields)
            self.assertEqual((answer.status, answer.get("Cache-Control")), (status, control))
        descriptor = Descriptor(DIGEST, len(DATA), "application/octet-stream")
        registry.cache.verdict = Redirect(descriptor, "https://store.example/x", 120.0, "hit", "no-store")
        answer = registry.get(blob)
        self.assertEqual((answer.status, answer.get("Cache-Control")), (307, "no-store"))

    def test_nothing_that_is_passed_on_is_for_everybody_in_authenticated_mode(self) -> None:
        """A list that this client may see; the upstream's own word on caching never passes."""
        theirs = (("Cache-Control", "public, max-age=60"), ("Expires", "0"))
        for is_transparent, control in ((True, None), (False, "private, no-cache")):
            registry = Registry(is_transparent=is_transparent)
            registry.cache.verdict = Relay(200, theirs, b"{}")
            for path, _, _ in PULLS:
                answer = registry.get(path)
                self.assertEqual((answer.status, answer.get("Cache-Control")), (200, control), path)
            registry.cache.verdict = Relay(404, theirs, b"{}")
            self.assertEqual(registry.get(PULLS[0][0]).get("Cache-Control"), "no-store")
