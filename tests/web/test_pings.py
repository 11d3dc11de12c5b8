"""Pings: what clients learn from ``/v2/`` (RULES C1, C2)."""

from __future__ import annotations

import json
from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from tests.web.doubles import Answer, Registry
from txociproxy.interfaces import ANONYMOUS, Credentials, Relay
from txociproxy.oci.errors import UpstreamUnreachable
from txociproxy.upstreams.entries.table import Entry, UpstreamTable

HUB = Entry("docker.io", ("https://registry-1.docker.io",))
CLOSED = Entry("docker.io", ("https://registry-1.docker.io",), client_credentials="ignore")
PING_CHALLENGE = 'Bearer realm="http://cache.example:8080/v2/_token",service="ociproxy"'
WANTS_TOKEN = Relay(401, (("WWW-Authenticate", 'Bearer realm="https://auth.docker.io/token"'),), b"")
OPEN = Relay(200, (), b"")
LOST = UpstreamUnreachable("gone")


def token_of(registry: Registry) -> str:
    """Return a token from the endpoint, such as every login gets."""
    return str(json.loads(registry.get("/v2/_token").body)["token"])


def show(registry: Registry, authorization: str) -> Answer:
    """Ping with an Authorization field."""
    return registry.get("/v2/", ("Authorization", authorization))


def show_ours(registry: Registry) -> Answer:
    """Ping with a good token of ours."""
    return show(registry, f"Bearer {token_of(registry)}")


class UnboundTests(SynchronousTestCase):
    """Any upstream can be meant: no network."""

    def test_with_several_upstreams_it_asks_for_a_token_without_network(self) -> None:
        """docker fetches tokens only if it is told to here."""
        registry = Registry()
        for path in ("/v2/", "/v2"):
            answer = registry.get(path)
            self.assertEqual((answer.status, answer.error()), (401, "UNAUTHORIZED"))
            self.assertEqual(answer.get("WWW-Authenticate"), PING_CHALLENGE)
        self.assertEqual(registry.cache.pings, [])

    def test_a_token_of_ours_is_welcome(self) -> None:
        """A login ends here, in both modes."""
        for is_transparent in (True, False):
            registry = Registry(is_transparent=is_transparent)
            answer = show_ours(registry)
            self.assertEqual((answer.status, answer.body), (200, b"{}"))
            self.assertEqual(answer.get("Docker-Distribution-Api-Version"), "registry/2.0")
            self.assertEqual(registry.cache.pings, [])

    def test_a_bad_token_of_ours_is_told_so(self) -> None:
        """containerd throws it away then and fetches another."""
        registry = Registry()
        token = token_of(registry)
        registry.clock.advance(3600)
        for bad in (token, token[:-2] + "xx"):
            answer = show(registry, f"Bearer {bad}")
            challenge = f'{PING_CHALLENGE},error="invalid_token"'
            self.assertEqual((answer.status, answer.get("WWW-Authenticate")), (401, challenge))

    def test_what_is_not_ours_says_nothing_here(self) -> None:
        """Whose it is can only be told when an upstream is named."""
        registry = Registry()
        for authorization in ("Bearer native", "Basic dTpw"):
            self.assertEqual(show(registry, authorization).get("WWW-Authenticate"), PING_CHALLENGE)
        self.assertEqual(registry.cache.pings, [])

    def test_nobody_is_asked_for_a_token_that_no_upstream_would_see(self) -> None:
        """C2: no entry forwards; the unlisted ones never do."""
        ghcr = Entry("ghcr.io", ("https://ghcr.io",), client_credentials="ignore")
        for registry in (Registry(CLOSED, ghcr), Registry(CLOSED, ghcr, unlisted="public", is_transparent=False)):
            self.assertEqual(registry.get("/v2/").status, 200)
            self.assertEqual(show(registry, "Bearer ociproxy1.nonsense").status, 200)
            self.assertEqual(registry.cache.pings, [])

    def test_a_reload_counts_for_the_next_ping(self) -> None:
        """The table is read anew for each request."""
        registry = Registry()
        self.assertEqual(registry.get("/v2/").status, 401)
        registry.table.current = UpstreamTable((HUB,))
        registry.cache.verdict = OPEN
        self.assertEqual((registry.get("/v2/").status, registry.cache.pings), (200, ["docker.io"]))

    def test_a_head_has_no_body(self) -> None:
        """skopeo and others do not care, but a body would be the next answer."""
        answer = Registry().ask("HEAD", "/v2/")
        self.assertEqual((answer.status, answer.body), (401, b""))


class BoundTests(SynchronousTestCase):
    """Only one upstream can be meant: it is asked."""

    def test_the_only_upstream_is_asked(self) -> None:
        """Its answer is passed on, with our challenge."""
        for is_transparent in (True, False):
            registry = Registry(HUB, is_transparent=is_transparent)
            registry.cache.verdict = WANTS_TOKEN
            answer = registry.get("/v2/")
            self.assertEqual((answer.status, answer.get("WWW-Authenticate")), (401, PING_CHALLENGE))
            registry.cache.verdict = OPEN
            self.assertEqual(registry.get("/v2/").status, 200)
            self.assertEqual(registry.cache.pings, ["docker.io", "docker.io"])
            self.assertEqual(registry.cache.pinged_as, [ANONYMOUS, ANONYMOUS])

    def test_a_lost_upstream_is_no_reason_to_turn_clients_away(self) -> None:
        """C2: in transparent mode, kept content can still be pulled."""
        for lost in (LOST, Relay(503, (), b""), Relay(429, (), b"")):
            registry = Registry(HUB)
            registry.cache.verdict = lost
            for ping in (Registry.get, lambda registry, _: show_ours(registry)):
                self.assertEqual(ping(registry, "/v2/").status, 200)

    def test_authenticated_mode_says_that_the_upstream_is_lost(self) -> None:
        """C2: 502 or 504, whatever failed; a token of ours changes nothing."""
        asks: tuple[Callable[[Registry], Answer], ...] = (lambda registry: registry.get("/v2/"), show_ours)
        for lost, status in (
            (LOST, 502),
            (UpstreamUnreachable("late", timed_out=True), 504),
            (Relay(503, (), b""), 502),
        ):
            for ask in asks:
                registry = Registry(HUB, is_transparent=False)
                registry.cache.verdict = lost
                self.assertEqual(ask(registry).status, status)

    def test_a_token_of_ours_is_welcome_at_once_in_transparent_mode(self) -> None:
        """Nobody is asked."""
        registry = Registry(HUB)
        registry.cache.verdict = WANTS_TOKEN
        self.assertEqual(show_ours(registry).status, 200)
        self.assertEqual(registry.cache.pings, [])

    def test_a_token_of_ours_is_welcome_in_authenticated_mode_once_the_upstream_has_answered(self) -> None:
        """It is asked as nobody, which the cache remembers; whatever it says, it is there."""
        for verdict in (WANTS_TOKEN, OPEN, Relay(403, (), b""), Relay(429, (), b"")):
            registry = Registry(HUB, is_transparent=False)
            registry.cache.verdict = verdict
            self.assertEqual(show_ours(registry).status, 200)
            self.assertEqual(registry.cache.pinged_as, [ANONYMOUS])

    def test_a_native_credential_goes_to_the_upstream(self) -> None:
        """As it is; the upstream alone can judge it."""
        for is_transparent in (True, False):
            registry = Registry(HUB, is_transparent=is_transparent)
            registry.cache.verdict = WANTS_TOKEN
            answer = show(registry, "Basic dTpw")
            self.assertEqual((answer.status, answer.get("WWW-Authenticate")), (401, PING_CHALLENGE))
            registry.cache.verdict = OPEN
            self.assertEqual(show(registry, "Bearer native").status, 200)
            self.assertEqual(registry.cache.pinged_as, [Credentials("Basic dTpw"), Credentials("Bearer native")])

    def test_an_upstream_that_must_not_see_credentials_sees_none(self) -> None:
        """C6: an entry that ignores them, or one that nobody has configured."""
        for registry, path in (
            (Registry(CLOSED, is_transparent=False), "/v2/"),
            (Registry(HUB, unlisted="public", is_transparent=False), "/v2/?ns=evil.example"),
        ):
            registry.cache.verdict = OPEN
            for authorization in ("Basic dTpw", "Bearer native", "Bearer ociproxy1.nonsense"):
                self.assertEqual(registry.get(path, ("Authorization", authorization)).status, 200)
            self.assertEqual(registry.cache.pinged_as, [ANONYMOUS] * 3)

    def test_a_bad_token_of_ours_is_none_or_refused(self) -> None:
        """C5: it never goes upstream."""
        registry = Registry(HUB)
        registry.cache.verdict = OPEN
        self.assertEqual(show(registry, "Bearer ociproxy1.nonsense").status, 200)
        self.assertEqual(registry.cache.pinged_as, [ANONYMOUS])
        registry = Registry(HUB, is_transparent=False)
        answer = show(registry, "Bearer ociproxy1.nonsense")
        self.assertEqual((answer.status, registry.cache.pings), (401, []))
        self.assertEqual(answer.get("WWW-Authenticate"), f'{PING_CHALLENGE},error="invalid_token"')
