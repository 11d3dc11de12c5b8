"""Exactly the right numbers: one pull of each kind, and everything that it changes in what is measured (RULES A6).

Everything is real but the sockets: what a client asks for, what upstreams are asked, and what is counted of both.
"""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import quote

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet import error
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import ResponseDone, ResponseFailed
from twisted.web.http_headers import Headers

from tests.cache.place import content, manifest
from tests.house.whole import WholeHouse, stuck
from tests.numbers import news, numbers
from tests.upstreams.fakes import NAMESPACE, URL, Answer, FakeResponse, TokenRegistry, answer
from tests.web.doubles import Line
from txociproxy.oci.manifests import OCI_MANIFEST
from txociproxy.oci.names import Digest
from txociproxy.oci.ranges import parse_range
from txociproxy.upstreams.entries.entry import Entry
from txociproxy.web.site import Census, DoorLimits, DoorSite

SIZE = 100_000
BLOB, OTHER, IMAGE = content(SIZE, 1), content(SIZE, 2), manifest("one")
DIGEST, IMAGE_DIGEST = Digest.of(BLOB), Digest.of(IMAGE)
PATH = f"/v2/team/app/blobs/{DIGEST}"
IMAGE_SIZE = len(IMAGE)
NS = f'namespace="{NAMESPACE}"'
OTHERS = 'namespace="unlisted"'


def pulled(
    kind: str, outcome: str, sent_bytes: int, status: str = "2xx", namespace: str = NS, times: int = 1
) -> dict[str, float]:
    """Return what pulls of a client change, whatever upstreams have to do with them."""
    return {
        f'pulls_total{{kind="{kind}",{namespace},outcome="{outcome}"}}': times,
        f'requests_total{{kind="{kind}",status="{status}"}}': times,
        f'client_bytes_total{{kind="{kind}",{namespace}}}': sent_bytes * times,
        f'time_to_first_byte_seconds_count{{kind="{kind}",outcome="{outcome}"}}': times,
    }


def asked(*requests: str, namespace: str = NS) -> dict[str, float]:
    """Return what answered requests to an upstream change, each as ``GET 2xx``."""
    found: dict[str, float] = {f"upstream_latency_seconds_count{{{namespace}}}": len(requests)}
    for request in requests:
        method, status = request.split()
        name = f'upstream_requests_total{{method="{method}",{namespace},status="{status}"}}'
        found[name] = found.get(name, 0) + 1
    return found


def got(count_bytes: int, namespace: str = NS) -> dict[str, float]:
    """Return what so many bytes from an upstream change."""
    return {f"upstream_bytes_total{{{namespace}}}": count_bytes}


def token(result: str, namespace: str = NS) -> dict[str, float]:
    """Return what a token changes."""
    return {f'tokens_total{{{namespace},result="{result}"}}': 1}


# A client's first request in a repository: refused, a token, and again.
FIRST = (asked("GET 4xx", "GET 2xx", "GET 2xx"), token("fetched"))


class MetricsCase(SynchronousTestCase):
    """A house whose numbers are looked at."""

    maxDiff = None

    def setUp(self) -> None:
        """Have a registry that wants tokens, and nothing in the store."""
        self.registry = TokenRegistry(content=self.serve)
        self.content = {str(Digest.of(data)): data for data in (BLOB, OTHER, IMAGE)}
        self.tags = {"1": IMAGE}
        self.special: list[Callable[[FakeResponse], Answer]] = []
        self.house = WholeHouse(self.answer, Entry(NAMESPACE, (URL,)), unlisted="public")
        self.down = False
        self.seen = numbers(self.house.metrics.exposition())

    def answer(self, method: str, url: str, headers: Headers) -> Answer:
        """Answer as the registry, or not at all; others than the configured one want no tokens."""
        if self.down:
            return error.ConnectionRefusedError("refused")
        if not url.startswith((URL, "https://auth.")):
            return self.serve(method, url, headers)
        return self.registry(method, url, headers)

    def serve(self, method: str, url: str, headers: Headers) -> Answer:
        """Give the content that a URL names; what is special about it is for the next that is asked."""
        data = self.content.get(url.rpartition("/")[2]) or self.tags.get(url.rpartition("/")[2])
        if data is None:
            return answer(404, b"{}")
        media_type = OCI_MANIFEST if "/manifests/" in url else "application/octet-stream"
        spec = parse_range(next(iter(headers.getRawHeaders("Range", [])), None))
        part = None if spec is None else spec.resolve(len(data))
        digest = str(Digest.of(data))
        if part is None:
            found = answer(
                200, data, content_length=str(len(data)), content_type=media_type, docker_content_digest=digest
            )
        else:
            found = answer(206, data[part.start : part.stop], content_range=part.content_range())
        return self.special.pop(0)(found) if self.special else found

    def counted(self, *changes: dict[str, float]) -> None:
        """Assert everything that has changed since the last time, and nothing else."""
        before, self.seen = self.seen, numbers(self.house.metrics.exposition())
        expected: dict[str, float] = {}
        for change in changes:
            for name, by in change.items():
                expected[name] = expected.get(name, 0) + by
        self.assertEqual(news(before, self.seen), {name: by for name, by in expected.items() if by})

    def get(self, path: str, status: int = 200, *fields: tuple[str, str]) -> bytes:
        """Pull, and expect a status."""
        found = self.house.get(path, *fields)
        self.assertEqual(found.status, status, found.body[:200])
        return found.body


class NumbersTests(MetricsCase):
    """One client."""

    def test_a_miss_and_a_hit(self) -> None:
        """The second costs the upstream nothing."""
        self.assertEqual(self.get(PATH), BLOB)
        self.counted(pulled("blob", "miss", SIZE), *FIRST, got(SIZE))
        self.assertEqual(self.get(PATH), BLOB)
        self.counted(pulled("blob", "hit", SIZE))

    def test_a_part_of_a_hit(self) -> None:
        """As many bytes as it has."""
        self.get(PATH)
        self.seen = numbers(self.house.metrics.exposition())
        self.get(PATH, 206, ("Range", "bytes=10-19"))
        self.counted(pulled("blob", "hit", 10))

    def test_a_head_has_no_bytes(self) -> None:
        """It is a pull all the same; the upstream is asked with HEAD."""
        self.house.ask("HEAD", PATH)
        self.counted(pulled("blob", "relay", 0), asked("HEAD 4xx", "GET 2xx", "HEAD 2xx"), token("fetched"))

    def test_a_join(self) -> None:
        """One body from the upstream, two to clients; while it arrives the gauges show it."""
        self.special = [stuck]
        first, second = self.house.begin("GET", PATH), self.house.begin("GET", PATH)
        self.house.agent.flush()
        began = {
            f'time_to_first_byte_seconds_count{{kind="blob",outcome="{outcome}"}}': 1.0 for outcome in ("miss", "join")
        }
        self.counted(*FIRST, got(SIZE // 2), {"ingests": 1, "readers": 2}, began)
        self.send_the_rest()
        for asked_for in (first, second):
            self.assertEqual(self.house.answer_of(asked_for).body, BLOB)
        self.counted(
            *(pulled("blob", outcome, SIZE) for outcome in ("miss", "join")),
            {name: -by for name, by in began.items()},
            got(SIZE // 2),
            {"ingests": -1, "readers": -2},
        )

    def send_the_rest(self, data: bytes = BLOB) -> None:
        """Send the second half of a body that is stuck."""
        protocol = self.house.net.answered[-1].protocol
        assert protocol is not None
        protocol.dataReceived(data[SIZE // 2 :])
        protocol.connectionLost(Failure(ResponseDone()))

    def test_a_client_that_leaves_is_no_reader_any_more(self) -> None:
        """Its pull is over with what it got; the body goes on for the storage."""
        self.special = [stuck]
        site = DoorSite(self.house.root, self.house.clock, Census(DoorLimits()))
        line = Line(site=site)
        line.send(f"GET {PATH} HTTP/1.1\r\nHost: cache.example\r\n\r\n".encode())
        self.assertEqual(numbers(self.house.metrics.exposition())["readers"], 1)
        line.hang_up()
        self.counted(pulled("blob", "miss", SIZE // 2), *FIRST, got(SIZE // 2), {"ingests": 1})
        self.send_the_rest()
        self.counted(got(SIZE // 2), {"ingests": -1})

    def test_a_tag_and_a_stale_tag(self) -> None:
        """A GET brings it; later its token has ended, nobody answers, and it is given as it was."""
        self.assertEqual(self.get("/v2/team/app/manifests/1"), IMAGE)
        self.counted(pulled("manifest", "miss", IMAGE_SIZE), *FIRST, got(IMAGE_SIZE))
        self.house.let_pass(4000)
        self.down = True
        self.assertEqual(self.get("/v2/team/app/manifests/1"), IMAGE)
        refused = {f'upstream_errors_total{{{NS},reason="refused"}}': 1.0}
        self.counted(pulled("manifest", "stale", IMAGE_SIZE), refused, token("failed"))

    def test_a_tag_that_is_confirmed(self) -> None:
        """By one HEAD with a fresh token."""
        self.get("/v2/team/app/manifests/1")
        self.house.let_pass(4000)
        self.seen = numbers(self.house.metrics.exposition())
        self.assertEqual(self.get("/v2/team/app/manifests/1"), IMAGE)
        # The registry forgets no token here, but we do after its time.
        self.counted(pulled("manifest", "hit", IMAGE_SIZE), asked("GET 2xx", "HEAD 2xx"), token("fetched"))

    def test_a_relayed_part(self) -> None:
        """Of a blob that is not kept; what is fetched beside it comes from the upstream too."""
        self.assertEqual(self.get(PATH, 206, ("Range", "bytes=90000-90099")), BLOB[90_000:90_100])
        self.counted(pulled("blob", "relay", 100), *FIRST, got(100), asked("GET 2xx"), got(SIZE), token("kept"))

    def test_a_relayed_refusal(self) -> None:
        """Nothing of it is content."""
        absent = f"/v2/team/app/blobs/{Digest.of(b'absent')}"
        body = self.get(absent, 404)
        first = asked("GET 4xx", "GET 2xx", "GET 4xx")
        self.counted(pulled("blob", "relay", len(body), "4xx"), first, token("fetched"))

    def test_a_lost_upstream_is_an_error(self) -> None:
        """Told of on both sides."""
        self.down = True
        body = self.get(PATH, 502)
        refused = {f'upstream_errors_total{{{NS},reason="refused"}}': 1.0}
        self.counted(pulled("blob", "error", len(body), "5xx"), refused)

    def test_a_bypass(self) -> None:
        """The storage takes nothing; the client does not notice."""
        self.house.storage.max_bytes = 0
        self.assertEqual(self.get(PATH), BLOB)
        self.counted(pulled("blob", "bypass", SIZE), *FIRST, got(SIZE))

    def test_a_bad_verdict(self) -> None:
        """The client is cut before the tail, and nothing runs on."""

        self.special = [stuck]
        asked_for = self.house.begin("GET", PATH)
        self.send_the_rest(OTHER)
        self.house.agent.flush()
        sent_bytes = SIZE - 32 * 1024
        bad = {f"bad_verdicts_total{{{NS}}}": 1.0}
        self.counted(pulled("blob", "miss", sent_bytes), *FIRST, got(SIZE), bad)
        self.assertRaises(ResponseFailed, self.house.answer_of, asked_for)

    def test_a_resume(self) -> None:
        """A body that breaks off is gone on with; the client notices nothing."""
        self.special = [stuck]
        asked_for = self.house.begin("GET", PATH)
        protocol = self.house.net.answered[-1].protocol
        assert protocol is not None
        protocol.connectionLost(Failure(error.ConnectionLost()))
        self.assertEqual(self.house.answer_of(asked_for).body, BLOB)
        resumed = (asked("GET 2xx"), token("kept"), {f"resumes_total{{{NS}}}": 1.0})
        self.counted(pulled("blob", "miss", SIZE), *FIRST, got(SIZE), *resumed)

    def test_what_is_no_pull_is_a_request(self) -> None:
        """Of a kind of its own; the page of the metrics too, in the numbers of the next one."""
        self.get("/v2/", 401)
        self.get("/v2/team/app/tags/none", 404)
        self.get("/nowhere", 404)
        self.get("/healthz")
        self.get("/metrics")
        kinds = {'kind="ping",status="4xx"': 1, 'kind="page",status="2xx"': 2, 'kind="other",status="4xx"': 2}
        self.counted({f"requests_total{{{labels}}}": by for labels, by in kinds.items()}, asked("GET 4xx"))

    def test_a_page_shows_what_was_counted_before_it(self) -> None:
        """What a client reads is what the process knows."""
        self.get(PATH)
        known = numbers(self.house.metrics.exposition())
        self.assertEqual(numbers(self.get("/metrics")), known)


class UnlistedTests(MetricsCase):
    """Whatever clients invent is one series (RULES A6)."""

    def test_unlisted_registries_are_one(self) -> None:
        """Two registries that nobody has configured; a word of the default one is in no number of theirs."""
        for name in ("one.example", "two.example"):
            self.assertEqual(self.get(f"/v2/{name}/team/app/blobs/{DIGEST}"), BLOB)
        first, second = pulled("blob", "miss", SIZE, namespace=OTHERS), pulled("blob", "hit", SIZE, namespace=OTHERS)
        self.counted(first, second, asked("GET 2xx", namespace=OTHERS), got(SIZE, OTHERS))

    def test_inventions_add_no_series(self) -> None:
        """More than 10,000 of them: namespaces, repositories, references, User-Agents and request ids."""
        for number in range(300):  # more than are remembered, so that forgetting is counted too
            self.invent(number)
        before = self.exposed()
        for number in range(300, 1000):
            self.invent(number)
        self.assertEqual(self.exposed(), before)

    def invent(self, number: int) -> None:
        """Ask for four things that do not exist."""
        names = (("User-Agent", f"agent/{number}"), ("X-Request-Id", f"id-{number}"))
        for path in (
            f"r{number}.example/app/manifests/t{number}",
            f"r{number}.example/app{number}/blobs/{Digest.of(b'%d' % number)}",
            f"team/app/tags/none{number}",
            f"r{number}.example/v2/app{number}/tags/list",
        ):
            self.assertEqual(self.house.get(f"/v2/{path}", *names).status, 404)

    @settings(max_examples=50, deadline=None)
    @given(st.lists(st.text(st.characters(codec="ascii"), max_size=30), max_size=5))
    def test_no_path_adds_a_series(self, words: list[str]) -> None:
        """Whatever stands in it."""
        self.setUp()
        allowed = {
            f'requests_total{{kind="{kind}",status="{status}"}}'
            for kind in ("manifest", "blob", "tags", "referrers", "ping", "token", "page", "other")
            for status in ("2xx", "4xx", "5xx")
        }
        for word in words:
            self.house.get(f"/v2/{quote(word)}/blobs/{quote(word)}")
            self.house.get(f"/v2/{quote(word)}")
            self.house.get(f"/{quote(word)}")
        known = {name for name in numbers(self.house.metrics.exposition()) if not name.startswith("time_to")}
        self.assertLessEqual({name for name in known if name.startswith("requests")}, allowed)
        self.assertLessEqual(known - allowed, known_of_pulls())

    def exposed(self) -> set[str]:
        """Return the names of all series."""
        lines = self.house.metrics.exposition().decode().splitlines()
        return {line.rpartition(" ")[0] for line in lines if not line.startswith("#")}


def known_of_pulls() -> set[str]:
    """Return the series that one pull of something that does not exist may have."""
    return {
        name
        for namespace in (NS, OTHERS)
        for outcome in ("error", "relay")
        for change in (pulled("blob", outcome, 1, namespace=namespace), FIRST[0], FIRST[1], token("failed"))
        for name in (*change, *asked("GET 4xx", "GET 2xx", namespace=namespace))
    }
