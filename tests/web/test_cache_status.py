"""Cache-Status says what the cache did (RFC 9211)."""

from __future__ import annotations

import re
from typing import get_args

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.web.doubles import Registry, serve
from txociproxy.interfaces import Outcome, Redirect, Relay
from txociproxy.oci.errors import OCIError, UpstreamUnreachable
from txociproxy.oci.names import Descriptor, Digest
from txociproxy.web.cache_status import cache_status

DATA = b"content"
DIGEST = Digest.of(DATA)
BLOB = f"/v2/library/alpine/blobs/{DIGEST}"
TAG = "/v2/library/alpine/manifests/3.20"
# RFC 8941: a token, with parameters that are true, tokens or numbers.
MEMBER = re.compile(r"txociproxy(?:; (?:hit|stored|collapsed|fwd=[a-z-]+|fwd-status=[0-9]{3}|detail=[a-z]+))+")


class ValueTests(SynchronousTestCase):
    """One outcome, one value."""

    def test_each_outcome_has_its_value(self) -> None:
        """By digest, and by tag, where a miss has more than one reason."""
        table: tuple[tuple[Outcome, str, str], ...] = (
            ("hit", "hit", "hit"),
            ("stale", "hit; detail=stale", "hit; detail=stale"),
            ("miss", "fwd=uri-miss; stored", "fwd=miss; stored"),
            ("join", "fwd=uri-miss; collapsed", "fwd=miss; collapsed"),
            ("bypass", "fwd=uri-miss; detail=bypass", "fwd=miss; detail=bypass"),
            ("relay", "fwd=miss", "fwd=miss"),
            ("error", "detail=error", "detail=error"),
        )
        for outcome, by_digest, by_tag in table:
            self.assertEqual(cache_status(outcome, True), f"txociproxy; {by_digest}")
            self.assertEqual(cache_status(outcome, False), f"txociproxy; {by_tag}")
        self.assertEqual(cache_status("relay", True, 404), "txociproxy; fwd=miss; fwd-status=404")
        self.assertEqual(cache_status("hit", True, is_redirect=True), "txociproxy; hit; detail=redirect")

    def test_all_values_are_members_of_the_rfc(self) -> None:
        """``hit`` and ``fwd`` exclude each other; what is about forwarding stands only with ``fwd`` (section 2)."""
        for outcome in get_args(Outcome):
            for status in (None, 200):
                value = cache_status(outcome, True, status)
                self.assertRegex(value, rf"\A{MEMBER.pattern}\Z")
                self.assertFalse("; hit" in value and "; fwd=" in value)
                about_fwd = any(word in value for word in ("stored", "collapsed", "fwd-status"))
                self.assertTrue("; fwd=" in value or not about_fwd, value)


class DoorTests(SynchronousTestCase):
    """On every kind of answer."""

    def setUp(self) -> None:
        """A registry."""
        self.registry = Registry()

    def status(self, path: str, verdict: object, *fields: tuple[str, str], method: str = "GET") -> tuple[int, str]:
        """Return status and Cache-Status of an answer; only one line of it there may be."""
        self.registry.cache.verdict = verdict  # type: ignore[assignment]
        answer = self.registry.ask(method, path, *fields)
        return answer.status, str(answer.get("Cache-Status")).removeprefix("txociproxy; ")

    def test_content_of_each_outcome(self) -> None:
        """Whole, and as a HEAD."""
        for outcome, said in (("hit", "hit"), ("miss", "fwd=uri-miss; stored"), ("join", "fwd=uri-miss; collapsed")):
            self.assertEqual(self.status(BLOB, serve(DATA, outcome=outcome)), (200, said))
        self.assertEqual(self.status(BLOB, serve(DATA, body=None), method="HEAD"), (200, "hit"))
        self.assertEqual(self.status(TAG, serve(DATA, outcome="miss")), (200, "fwd=miss; stored"))
        self.assertEqual(self.status(TAG, serve(DATA, outcome="stale")), (200, "hit; detail=stale"))

    def test_parts_and_conditions_are_still_hits(self) -> None:
        """Section 2.1: what is made of kept content without going on."""
        for status, field in (
            (206, ("Range", "bytes=0-1")),
            (416, ("Range", "bytes=99-")),
            (304, ("If-None-Match", f'"{DIGEST}"')),
        ):
            self.assertEqual(self.status(BLOB, serve(DATA), field), (status, "hit"))

    def test_a_redirect_says_so(self) -> None:
        """The content is kept, elsewhere."""
        descriptor = Descriptor(DIGEST, 7, "application/octet-stream")
        redirect = Redirect(descriptor, "https://store.example/x", 60.0, "hit", "no-store")
        self.assertEqual(self.status(BLOB, redirect), (307, "hit; detail=redirect"))

    def test_a_relay_says_what_the_upstream_answered(self) -> None:
        """Also where ours is another status."""
        upstreams = (("Cache-Status", "theirs; hit"), ("X-Cache", "HIT"), ("Warning", "199 - x"))
        self.assertEqual(self.status(BLOB, Relay(404, upstreams, b"")), (404, "fwd=miss; fwd-status=404"))
        self.assertEqual(self.status(BLOB, Relay(503, (), b"")), (502, "fwd=miss; fwd-status=503"))
        known = ("If-None-Match", f'"{DIGEST}"')
        self.assertEqual(self.status(BLOB, Relay(200, (), b""), known), (304, "fwd=miss; fwd-status=200"))

    def test_lists_say_it_too(self) -> None:
        """Tag lists and what refers to a manifest."""
        for path in ("/v2/library/alpine/tags/list", f"/v2/library/alpine/referrers/{DIGEST}"):
            self.assertEqual(self.status(path, Relay(200, (), b"{}", "hit")), (200, "hit"))
            self.assertEqual(self.status(path, Relay(200, (), b"{}", "stale")), (200, "hit; detail=stale"))
            self.assertEqual(self.status(path, Relay(200, (), b"{}")), (200, "fwd=miss; fwd-status=200"))

    def test_what_the_upstreams_caches_said_is_not_replayed(self) -> None:
        """It was true of one answer."""
        kept = (("Cache-Status", "theirs; hit"), ("X-Cache", "HIT"), ("X-Request-Id", "theirs"))
        self.registry.cache.verdict = serve(DATA, headers=kept)
        answer = self.registry.get(BLOB)
        self.assertEqual((answer.get("Cache-Status"), answer.get("X-Cache")), ("txociproxy; hit", None))
        self.assertNotEqual(answer.get("X-Request-Id"), "theirs")

    def test_errors_of_ours_make_no_claim(self) -> None:
        """Whether the upstream was asked is not told by a word that would be wrong now and then."""
        for status, error in (
            (502, UpstreamUnreachable("gone")),
            (503, OCIError("TOOMANYREQUESTS", "later", status=503)),
        ):
            self.assertEqual(self.status(BLOB, error), (status, "detail=error"))
        self.assertEqual(self.status(BLOB, RuntimeError("x")), (500, "detail=error"))
        self.flushLoggedErrors(RuntimeError)
        self.assertEqual(self.status("/v2/evil.example/a/manifests/1", None), (403, "detail=error"))

    def test_what_asks_no_cache_says_nothing(self) -> None:
        """Pings, pages, and what could not be read."""
        for path in ("/v2/", "/healthz", "/", "/v2/UPPER/manifests/1"):
            self.assertIsNone(self.registry.get(path).get("Cache-Status"), path)

    def test_the_end_of_the_process_says_it_too(self) -> None:
        """Whoever waits for the cache is refused."""
        self.registry.cache.waiting = Deferred()
        asked = self.registry.begin("GET", BLOB)
        self.registry.root.refuse_waiting()
        answer = self.registry.answer_of(asked)
        self.assertEqual((answer.status, answer.get("Cache-Status")), (503, "txociproxy; detail=error"))
