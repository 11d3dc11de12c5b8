"""Exactly the right numbers, scraped over real sockets: the whole exposition after each kind of pull (issue E)."""

from __future__ import annotations

import os
import signal
import socket
import stat
import threading
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.e2e.law_wire import get
from tests.e2e.processes import Workshop, wait_until
from tests.e2e.proxy import Proxy, start_proxy
from tests.e2e.scripts import MIB, Content, Served, Step, blob, start_scripted
from tests.numbers import news, numbers

KIB = 1024
SLOW = Step(chunk_bytes=256 * KIB, pause_s=0.1)
MANIFEST = Content(text='{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json"}')
PLAIN, SHARED, PART, BROKEN, WRONG, GUARDED, UNKEPT = (
    Content(size_bytes=size, seed=40 + seed)
    for seed, size in enumerate((MIB, 4 * MIB, 2 * MIB, MIB, 2 * MIB, MIB, MIB))
)
SERVED = {
    PLAIN: blob("team/app", PLAIN),
    SHARED: blob("team/app", SHARED, SLOW),
    PART: blob("team/app", PART),
    BROKEN: blob("team/app", BROKEN, Step(break_at=300_000)),
    WRONG: blob("team/app", WRONG, afterwards=Step(flip_at=1000, chunk_bytes=256 * KIB, pause_s=0.02)),
    GUARDED: blob("team/guarded", GUARDED, needs_token=True),
    UNKEPT: blob("team/app", UNKEPT),
}
TAG = "/v2/team/app/manifests/1"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
SETTINGS: dict[str, Any] = {"range_miss": "relay", "tag_fresh_s": "0s", "unlisted": "deny"}
# What depends on the machine and the moment, and one request that each scrape is itself.
BESIDES = (
    "cap_",
    "storage_size",
    "storage_used",
    "storage_free",
    "event_loop_lag",
    "ready",
    "build_info",
    'requests_total{kind="page"',
)
NS, OTHERS = 'namespace="docker.io"', 'namespace="unlisted"'
Change = dict[str, float]


def pulled(kind: str, outcome: str, sent_bytes: int, status: str = "2xx", namespace: str = NS) -> Change:
    """Return what a pull changes toward its client."""
    return {
        f'pulls_total{{kind="{kind}",{namespace},outcome="{outcome}"}}': 1,
        f'requests_total{{kind="{kind}",status="{status}"}}': 1,
        f'client_bytes_total{{kind="{kind}",{namespace}}}': sent_bytes,
        f'time_to_first_byte_seconds_count{{kind="{kind}",outcome="{outcome}"}}': 1,
    }


def asked(*requests: str) -> Change:
    """Return what answered requests to the upstream change, each as ``GET 2xx``."""
    found: Change = {f"upstream_latency_seconds_count{{{NS}}}": len(requests)}
    for request in requests:
        method, status = request.split()
        name = f'upstream_requests_total{{method="{method}",{NS},status="{status}"}}'
        found[name] = found.get(name, 0) + 1
    return found


def got(count_bytes: int) -> Change:
    """Return what so many bytes from the upstream change."""
    return {f"upstream_bytes_total{{{NS}}}": count_bytes}


class Scraped:
    """The numbers of a proxy, as they are scraped.

    :ivar scrapes: how often that was.
    """

    def __init__(self, case: SynchronousTestCase, proxy: Proxy) -> None:
        self._case, self._proxy = case, proxy
        self.scrapes = 0
        self._seen = self.now()

    def now(self) -> Change:
        """Scrape."""
        status, fields, body = self._proxy.ask("GET", "/metrics")
        self._case.assertEqual((status, fields["content-type"]), (200, "text/plain; version=0.0.4; charset=utf-8"))
        self.scrapes += 1
        return numbers(body)

    def changed(self, when: str, *changes: Change) -> None:
        """Assert everything that has changed since the last time, and nothing else.

        What ends behind the client's back is waited for: the last line of a pull, and publishing.
        """
        expected: Change = {}
        for change in changes:
            for name, by in change.items():
                expected[name] = expected.get(name, 0) + by
        expected = {name: by for name, by in expected.items() if by}
        before, found = self._seen, {}

        def is_so() -> bool:
            nonlocal found
            self._seen = self.now()
            found = news(before, self._seen, BESIDES)
            return found == expected

        try:
            wait_until(is_so, 5, when)
        except Exception:
            self._case.assertEqual(found, expected, when)

    def value(self, name: str) -> float:
        """Return one number."""
        return self.now().get(name, 0)


class MetricsTests(SynchronousTestCase):
    """A proxy before an upstream that does what it is told."""

    timeout = 90
    maxDiff = None

    def setUp(self) -> None:
        """Start the upstream; the proxy is the test's."""
        self.shop = Workshop()
        self.addCleanup(self.shop.close)
        tag = Served(TAG, MANIFEST, MANIFEST_TYPE)
        by_digest = Served(f"/v2/team/app/manifests/{MANIFEST.digest}", MANIFEST, MANIFEST_TYPE)
        self.upstream = start_scripted(self.shop, *SERVED.values(), tag, by_digest)

    def start(self, **more: Any) -> Proxy:
        """Start the proxy."""
        self.proxy = start_proxy(self.shop, self.upstream.url, **{**SETTINGS, **more})
        return self.proxy

    def pull(self, content: Content, status: int = 200, **fields: str) -> bytes:
        """Pull a blob."""
        found, _, body = self.proxy.ask("GET", SERVED[content].target, fields)
        self.assertEqual(found, status)
        return body

    def test_each_kind_of_pull_changes_exactly_its_numbers(self) -> None:
        """Miss, hit, HEAD, join, relay, resume, bad verdict, token, refusal, stale."""
        proxy = self.start()
        scraped = Scraped(self, proxy)
        scraped.changed("nothing")

        self.pull(PLAIN)
        scraped.changed("a miss", pulled("blob", "miss", MIB), asked("GET 2xx"), got(MIB))
        self.pull(PLAIN)
        scraped.changed("a hit", pulled("blob", "hit", MIB))
        self.pull(PLAIN, 206, Range="bytes=5-14")
        scraped.changed("a part of a hit", pulled("blob", "hit", 10))
        proxy.ask("HEAD", SERVED[PLAIN].target)
        scraped.changed("a HEAD", pulled("blob", "hit", 0))

        self.check_a_join(scraped)
        self.assertEqual(self.pull(PART, 206, Range="bytes=1000000-1000999"), PART.data()[1_000_000:1_001_000])
        scraped.changed("a relay", pulled("blob", "relay", 1000), asked("GET 2xx"), got(1000))
        self.assertTrue(self.pull(BROKEN) == BROKEN.data())
        resumed = {f"resumes_total{{{NS}}}": 1.0}
        scraped.changed("a resume", pulled("blob", "miss", MIB), asked("GET 2xx", "GET 2xx"), got(MIB), resumed)
        self.check_a_bad_verdict(scraped)
        self.pull(GUARDED)
        token = {f'tokens_total{{{NS},result="fetched"}}': 1.0}
        asks = asked("GET 4xx", "GET 2xx", "GET 2xx")
        scraped.changed("a token", pulled("blob", "miss", MIB), asks, got(MIB), token)

        body = proxy.ask("GET", "/v2/nobody.example/app/manifests/1")[2]
        scraped.changed("a refusal", pulled("manifest", "error", len(body), "4xx", OTHERS))
        self.check_a_stale_tag(scraped)
        pages = scraped.value('requests_total{kind="page",status="2xx"}')
        looks_at_the_log = 2  # each asks for a page, see Proxy.pulls
        self.assertEqual(pages, scraped.scrapes - 1 + looks_at_the_log, "each scrape shows all that were before it")
        self.assertEqual(proxy.complaints(), [])

    def check_a_join(self, scraped: Scraped) -> None:
        """Two clients and one body; while it arrives the gauges say so."""
        clients = [threading.Thread(target=self.pull, args=(SHARED,)) for _ in range(2)]
        clients[0].start()
        wait_until(lambda: scraped.value("readers") == 1, 10, "begins")
        clients[1].start()
        wait_until(lambda: scraped.value("readers") == 2, 10, "is joined")
        self.assertEqual(scraped.value("ingests"), 1)
        for client in clients:
            client.join(30)
        size_bytes = SHARED.size_bytes
        both = (pulled("blob", outcome, size_bytes) for outcome in ("miss", "join"))
        scraped.changed("a join", *both, asked("GET 2xx"), got(size_bytes))

    def check_a_bad_verdict(self, scraped: Scraped) -> None:
        """Its client is cut, with as many bytes as the metric says."""
        self.proxy.pulls()
        found = get(self.proxy.port, SERVED[WRONG].target)
        self.assertEqual((found.status, found.ended), (200, "closed"))
        (line,) = self.proxy.pulls()
        bad = {f"bad_verdicts_total{{{NS}}}": 1.0}
        sent_bytes = int(line["bytes"])
        self.assertEqual(sent_bytes, len(found.body))
        scraped.changed(
            "a bad verdict", pulled("blob", "miss", sent_bytes), asked("GET 2xx"), got(WRONG.size_bytes), bad
        )

    def check_a_stale_tag(self, scraped: Scraped) -> None:
        """The upstream goes away."""
        size_bytes = len(MANIFEST.data())
        self.assertEqual(self.proxy.ask("GET", TAG)[2], MANIFEST.data())
        scraped.changed("a tag", pulled("manifest", "miss", size_bytes), asked("GET 2xx"), got(size_bytes))
        self.upstream.stop()
        self.assertEqual(self.proxy.ask("GET", TAG)[2], MANIFEST.data())
        refused = {f'upstream_errors_total{{{NS},reason="refused"}}': 1.0}
        scraped.changed("a stale tag", pulled("manifest", "stale", size_bytes), refused)

    def test_a_pull_that_cannot_be_kept_is_a_bypass(self) -> None:
        """The disk has to stay emptier than it is."""
        scraped = Scraped(self, self.start(min_free="99%"))
        for _ in range(2):
            self.assertTrue(self.pull(UNKEPT) == UNKEPT.data())
            refused = {'storage_errors_total{operation="spool"}': 1.0}
            scraped.changed("a bypass", pulled("blob", "bypass", MIB), asked("GET 2xx"), got(MIB), refused)

    def test_the_door_of_whoever_runs_it(self) -> None:
        """A socket for its owner only; it has the metrics alone, and can be asked until the end of a drain."""
        path = self.shop.directory("admin") / "admin.sock"
        proxy = self.start(admin_listen=f"unix:{path}")
        self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o600)
        self.assertEqual(proxy.ask("GET", "/metrics")[0], 404)
        self.assertEqual([proxy.ask("GET", page)[0] for page in ("/healthz", "/readyz")], [200, 200])
        self.assertEqual([over(path, page)[0] for page in ("/healthz", "/readyz", "/metrics")], [200, 200, 200])
        for target in ("/v2/", SERVED[PLAIN].target, TAG):
            self.assertEqual(over(path, target)[0], 404)
        doors = [line["doors"] for line in proxy.lines() if line.get("msg") in ("starting", "listening")]
        self.assertEqual(doors, [f"127.0.0.1:{proxy.port},unix:{path}"] * 2)
        client = threading.Thread(target=self.pull, args=(SHARED,))
        client.start()
        wait_until(lambda: numbers(over(path, "/metrics")[1]).get("readers") == 1, 10, "begins")
        os.kill(proxy.pid, signal.SIGTERM)
        wait_until(lambda: over(path, "/readyz")[0] == 503, 5, "drains")
        self.assertEqual(over(path, "/healthz")[0], 200)
        self.assertEqual(numbers(over(path, "/metrics")[1])["readers"], 1)
        client.join(30)
        wait_until(lambda: not path.exists(), 20, "is closed")


def over(path: Path, target: str) -> tuple[int, bytes]:
    """GET over a Unix socket."""
    connection = HTTPConnection("localhost", timeout=10)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(10)
    try:
        connection.sock.connect(str(path))
        connection.request("GET", target)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()
