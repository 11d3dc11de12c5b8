"""Pages for whoever runs the proxy, on the doors of clients and on a door of their own (RULES G5)."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.web.doubles import Line, Registry
from txociproxy.metrics import Metrics
from txociproxy.web.making import ADMIN_LIMITS, make_admin, make_root
from txociproxy.web.pages import Pages
from txociproxy.web.settings import WebSettings
from txociproxy.web.site import DoorSite

TEXT = "text/plain; charset=utf-8"
EXPOSITION = "text/plain; version=0.0.4; charset=utf-8"


class Door(Registry):
    """A door of clients with pages on it."""

    def __init__(self, pages: Pages) -> None:
        super().__init__()
        self.metrics = Metrics()
        cache = self.cache
        self.root = make_root(self.clock, cache, self.table, self.envelopes, WebSettings(), self.metrics, pages)  # type: ignore[arg-type]
        self.agent = type(self.agent)(self.root)


class PagesTests(SynchronousTestCase):
    """Between pulls."""

    def setUp(self) -> None:
        """Be ready."""
        self.trouble: str | None = None
        self.metrics = Metrics()
        self.door = Door(Pages(lambda: self.trouble, self.metrics.exposition))

    def test_it_is_alive(self) -> None:
        """Whatever else is wrong."""
        self.trouble = "the disk is gone"
        got = self.door.get("/healthz")
        self.assertEqual((got.status, got.body, got.get("Content-Type")), (200, b"ok", TEXT))
        self.assertEqual(got.get("Cache-Control"), "no-store")

    def test_it_is_ready_or_says_why_not(self) -> None:
        """In a word for people, and a status for programs."""
        got = self.door.get("/readyz")
        self.assertEqual((got.status, got.body), (200, b"ready"))
        self.trouble = "draining"
        got = self.door.get("/readyz")
        self.assertEqual((got.status, got.body, got.get("Content-Type")), (503, b"draining", TEXT))
        self.assertEqual(got.get("Cache-Control"), "no-store")

    def test_metrics_are_text_for_prometheus(self) -> None:
        """Of the version that all of its versions read."""
        self.metrics.bad_verdict("evil.example")
        got = self.door.get("/metrics")
        self.assertEqual((got.status, got.get("Content-Type")), (200, EXPOSITION))
        self.assertEqual(got.get("Cache-Control"), "no-store")
        self.assertEqual(got.get("Content-Length"), str(len(got.body)))
        self.assertIn(b'ociproxy_bad_verdicts_total{namespace="unlisted"} 1.0\n', got.body)
        self.assertIn("ociproxy_ingests", {family.name for family in text_string_to_metric_families(got.body.decode())})

    def test_a_head_has_the_same_fields_and_no_body(self) -> None:
        """As everywhere."""
        for path in ("/healthz", "/readyz", "/metrics"):
            whole, head = self.door.get(path), self.door.ask("HEAD", path)
            self.assertEqual((head.status, head.body), (200, b""), path)
            self.assertEqual(head.get("Content-Length"), str(len(whole.body)), path)

    def test_nothing_can_be_written_there(self) -> None:
        """RULES A4."""
        for path in ("/healthz", "/readyz", "/metrics"):
            got = self.door.ask("DELETE", path)
            self.assertEqual((got.status, got.get("Allow"), got.error()), (405, "GET, HEAD", "UNSUPPORTED"))

    def test_metrics_that_are_served_elsewhere_are_not_here(self) -> None:
        """The other two pages stay: balancers ask for them at this door."""
        door = Door(Pages(lambda: self.trouble, None))
        got = door.get("/metrics")
        self.assertEqual((got.status, got.error()), (404, "UNSUPPORTED"))
        self.assertEqual([door.get(path).status for path in ("/healthz", "/readyz")], [200, 200])


class AdminTests(SynchronousTestCase):
    """The door of whoever runs the proxy."""

    def setUp(self) -> None:
        """Open it."""
        self.clock = Clock()
        self.clock.advance(1_800_000_000)
        self.metrics = Metrics()
        self.trouble: str | None = None
        self.site = self.opened()

    def opened(self) -> DoorSite:
        """Return such a door."""
        pages = Pages(lambda: self.trouble, self.metrics.exposition)
        return make_admin(self.clock, WebSettings(), self.clock.seconds, self.metrics, pages)

    def send(self, request: str) -> tuple[int, bytes]:
        """Send a request; returns status and body."""
        line = Line(site=self.site)
        answer = line.send(f"{request} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        return line.status, answer.partition(b"\r\n\r\n")[2]

    def test_it_has_the_pages(self) -> None:
        """All three."""
        self.assertEqual(self.send("GET /healthz"), (200, b"ok"))
        self.assertEqual(self.send("GET /readyz"), (200, b"ready"))
        status, body = self.send("GET /metrics")
        self.assertEqual((status, b"ociproxy_ingests 0.0\n" in body), (200, True))
        self.trouble = "draining"
        self.assertEqual(self.send("GET /readyz"), (503, b"draining"))

    def test_it_has_nothing_else(self) -> None:
        """No pulls, no logins; in words of the spec."""
        digest = f"sha256:{'a' * 64}"
        for path in ("/", "/v2/", "/v2/_token", f"/v2/a/b/blobs/{digest}", "/v2/a/b/manifests/1", "/v2/a/tags/list"):
            status, body = self.send(f"GET {path}")
            self.assertEqual((status, b'"UNSUPPORTED"' in body), (404, True), path)
        self.assertEqual(self.send("DELETE /metrics")[0], 405)

    def test_it_has_few_places_of_its_own(self) -> None:
        """A program that opens more and more ends up at its own door; clients' caps do not count it."""
        lines = [Line(site=self.site) for _ in range(ADMIN_LIMITS.max_connections_per_client)]
        for line in lines:
            self.assertEqual(bytes(line.wire.value()), b"")
        self.assertEqual(self.send("GET /healthz")[0], 503)
        lines[0].hang_up()
        self.assertEqual(self.send("GET /healthz")[0], 200)
        self.assertNotIn(b"ociproxy_caps_reached_total{", self.metrics.exposition())
