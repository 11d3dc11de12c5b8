"""One line and one count per request, whatever it brings and however it ends (RULES A6)."""

from __future__ import annotations

from functools import partial

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.logger import Logger, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.test.requesthelper import DummyChannel

from tests.readback import parse_logfmt
from tests.web.doubles import FakeCache, Line, Registry, serve
from txociproxy.flights import Flights, Landed
from txociproxy.interfaces import Ask, Redirect, Relay, Serve
from txociproxy.logs import LineObserver, as_json
from txociproxy.oci.errors import UpstreamUnreachable
from txociproxy.oci.names import Digest
from txociproxy.web.access import at_first_byte
from txociproxy.web.site import Census, DoorLimits, DoorRequest, DoorSite

DATA = b"content"
DIGEST = Digest.of(DATA)
TAG = "/v2/library/alpine/manifests/3"
BLOB = f"/v2/library/alpine/blobs/{DIGEST}"
OURS = r"\A[0-9a-f]{16}\Z"


class AccessCase(SynchronousTestCase):
    """A registry, and whoever reads its log in both forms."""

    def setUp(self) -> None:
        """Listen to the log."""
        self.registry = Registry()
        self.registry.cache.verdict = Relay(404, (), b"")
        self.lines: list[str] = []
        self.objects: list[str] = []
        for observer in (
            LineObserver(self.lines.append, "debug"),
            LineObserver(self.objects.append, "debug", as_json),
        ):
            globalLogPublisher.addObserver(observer)
            self.addCleanup(globalLogPublisher.removeObserver, observer)

    def told(self) -> list[dict[str, str]]:
        """Return the lines so far, and forget them."""
        told = [parse_logfmt(line.removesuffix("\n")) for line in self.lines]
        self.lines.clear()
        self.objects.clear()
        return told

    def line(self) -> Line:
        """Return a connection."""
        return Line(site=DoorSite(self.registry.root, self.registry.clock, Census(DoorLimits())))


class RequestIdTests(AccessCase):
    """The name of a request."""

    def test_a_clients_own_name_is_taken_and_given_back(self) -> None:
        """In the answer and in the line."""
        answer = self.registry.get(TAG, ("X-Request-Id", "a.B_9-x"))
        self.assertEqual(answer.get("X-Request-Id"), "a.B_9-x")
        self.assertEqual([line["request_id"] for line in self.told()], ["a.B_9-x"])

    def test_an_odd_one_is_replaced(self) -> None:
        """What a client writes there is its own affair; two names are none."""
        for fields in (("a b",), ('x"y',), ("a" * 65,), ("",), ("\xff",), ("a", "b")):
            answer = self.registry.get(TAG, *(("X-Request-Id", value) for value in fields))
            self.assertRegex(str(answer.get("X-Request-Id")), OURS)
            self.assertEqual([line["request_id"] for line in self.told()], [answer.get("X-Request-Id")])

    def test_two_requests_have_two_names(self) -> None:
        """Or nobody could tell them apart."""
        self.assertNotEqual(*(self.registry.get(TAG).get("X-Request-Id") for _ in range(2)))

    def test_every_kind_of_answer_has_it(self) -> None:
        """Content, parts, 304, redirects to nowhere, errors and pages."""
        self.registry.cache.verdict = serve(DATA)
        named = ("X-Request-Id", "n1")
        for status, path, *fields in (
            (200, BLOB),
            (206, BLOB, ("Range", "bytes=0-0")),
            (416, BLOB, ("Range", "bytes=99-")),
            (304, BLOB, ("If-None-Match", f'"{DIGEST}"')),
            (401, "/v2/"),
            (200, "/healthz"),
            (404, "/nothing"),
            (400, "/v2/UPPER/manifests/1"),
            (403, "/v2/evil.example/a/manifests/1"),
        ):
            self.registry.cache.verdict = serve(DATA)
            answer = self.registry.get(path, named, *fields)
            self.assertEqual((answer.status, answer.get("X-Request-Id")), (status, "n1"), path)

    def test_an_answer_in_place_of_a_lost_body_has_it(self) -> None:
        """The fields of the content are taken back, this one is not."""
        self.registry.cache.verdict = UpstreamUnreachable("gone")
        self.assertEqual(self.registry.get(BLOB, ("X-Request-Id", "n1")).get("X-Request-Id"), "n1")


class Chatty(FakeCache):
    """Says something in the middle of each pull."""

    log = Logger()

    def __init__(self) -> None:
        super().__init__()
        self.waits: dict[str, Deferred[None]] = {"a": Deferred(), "b": Deferred()}

    async def pull(self, ask: Ask) -> Serve | Relay | Redirect:
        """Wait for what the test has put there for this reference."""
        self.log.debug("begun", reference=str(ask.pull.reference))
        await self.waits[str(ask.pull.reference)]
        self.log.debug("waited", reference=str(ask.pull.reference))
        return Relay(404, (), b"")


class BelongingTests(AccessCase):
    """Which request a line belongs to."""

    def setUp(self) -> None:
        """A cache that talks."""
        super().setUp()
        self.cache = Chatty()
        self.registry.root._desks.pulls._cache = self.cache  # type: ignore[attr-defined]

    def begin(self, reference: str) -> Line:
        """Ask for a tag; the request has the tag's name."""
        line = self.line()
        line.send(
            b"GET /v2/x/manifests/%b HTTP/1.1\r\nHost: h\r\nX-Request-Id: %b\r\n\r\n"
            % (reference.encode(), reference.encode())
        )
        return line

    def test_lines_of_two_interleaved_requests_are_told_apart(self) -> None:
        """Each has the name of the request in whose course it is written."""
        self.begin("a")
        self.begin("b")
        # What b waits for comes to pass in the course of a.
        self.cache.waits["a"].addCallback(lambda _: self.cache.waits["b"].callback(None))
        self.cache.waits["a"].callback(None)
        told = self.told()
        self.assertEqual(sorted(line["msg"] for line in told), ["begun"] * 2 + ["pull"] * 2 + ["waited"] * 2)
        for line in told:
            self.assertEqual(line["request_id"], line["reference"], line)

    def test_a_line_beside_all_requests_has_no_name(self) -> None:
        """Also while one waits, and after it."""
        self.begin("a")
        self.cache.log.info("beside")
        self.cache.waits["a"].callback(None)
        self.cache.log.info("beside")
        self.assertEqual([line.get("request_id") for line in self.told() if line["msg"] == "beside"], [None, None])

    def test_who_joins_keeps_his_own_name_and_who_left_is_forgotten(self) -> None:
        """The ask of the first goes on for the second, and is nobody's then."""
        flights: Flights[str, None] = Flights()
        arrives: Deferred[None] = Deferred()

        async def fetch() -> Landed[str]:
            await arrives
            self.cache.log.debug("arrived")
            return Landed("x")

        async def pull(ask: Ask) -> Relay:
            await flights.join("key", fetch)
            self.cache.log.debug("joined")
            return Relay(404, (), b"")

        self.cache.pull = pull  # type: ignore[method-assign]
        first, _ = self.begin("a"), self.begin("b")
        first.hang_up()
        arrives.callback(None)
        told = [(line["msg"], line.get("request_id")) for line in self.told()]
        self.assertEqual(told, [("pull", "a"), ("arrived", None), ("joined", "b"), ("pull", "b")])

    def test_what_outlives_its_request_is_nobodys(self) -> None:
        """As a download that goes on for the storage."""
        goes_on: Deferred[None] = Deferred()

        async def download() -> None:
            self.cache.log.debug("downloading")
            await goes_on
            self.cache.log.debug("downloaded")

        async def pull(ask: Ask) -> Relay:
            Deferred.fromCoroutine(download())
            return Relay(404, (), b"")

        self.cache.pull = pull  # type: ignore[method-assign]
        self.begin("a")
        goes_on.callback(None)
        told = [(line["msg"], line.get("request_id")) for line in self.told()]
        self.assertEqual(told, [("downloading", "a"), ("pull", "a"), ("downloaded", None)])

    def test_a_refusal_right_behind_an_answer_is_another_request(self) -> None:
        """It is read in the course of the answer before."""
        line = self.begin("a")
        line.send(b"GET http://absolute/ HTTP/1.1\r\nHost: h\r\n\r\n")
        self.cache.waits["a"].callback(None)
        told = [(each["msg"], each.get("request_id")) for each in self.told()]
        self.assertEqual(sorted(told, key=str), [("begun", "a"), ("pull", "a"), ("refused", None), ("waited", "a")])


class MetricTests(AccessCase):
    """What is counted, exactly once."""

    def value(self, name: str, **labels: str) -> float:
        """Return a number, 0 for one that was never counted."""
        registry = self.registry.root._metrics.registry
        return registry.get_sample_value(f"ociproxy_{name}", labels) or 0.0

    def pulls(self) -> dict[tuple[str, str, str], float]:
        """Return all pulls by namespace, kind and outcome."""
        return {
            (sample.labels["namespace"], sample.labels["kind"], sample.labels["outcome"]): sample.value
            for metric in self.registry.root._metrics.registry.collect()
            for sample in metric.samples
            if sample.name == "ociproxy_pulls_total"
        }

    def setUp(self) -> None:
        """One namespace has a label of its own."""
        super().setUp()
        self.registry.root._metrics.know(["docker.io"])

    def test_a_pull_is_counted_with_the_word_of_its_line(self) -> None:
        """Namespace, kind, outcome and bytes."""
        self.registry.cache.verdict = serve(DATA, outcome="miss")
        self.registry.get(BLOB)
        self.assertEqual(self.pulls(), {("docker.io", "blob", "miss"): 1})
        self.assertEqual(self.value("client_bytes_total", namespace="docker.io", kind="blob"), len(DATA))
        self.assertEqual(self.value("requests_total", kind="blob", status="2xx"), 1)
        (line,) = self.told()
        self.assertEqual((line["outcome"], line["bytes"]), ("miss", str(len(DATA))))

    def test_each_kind_of_request_is_counted(self) -> None:
        """Pulls are only some of them."""
        for path, kind, status in (
            (TAG, "manifest", "4xx"),
            (BLOB, "blob", "4xx"),
            ("/v2/library/alpine/tags/list", "tags", "4xx"),
            (f"/v2/library/alpine/referrers/{DIGEST}", "referrers", "4xx"),
            ("/v2/", "ping", "4xx"),
            ("/v2/_token", "token", "2xx"),
            ("/healthz", "page", "2xx"),
            ("/nothing", "other", "4xx"),
        ):
            self.registry.get(path)
            self.assertEqual(self.value("requests_total", kind=kind, status=status), 1, kind)
        self.assertEqual(sum(self.pulls().values()), 2, "only what concerns content is a pull")

    def test_a_client_that_leaves_is_counted_once(self) -> None:
        """Without a status where there was none, and as an error where it is not known how it would have gone."""
        self.registry.cache.waiting = Deferred()
        line = self.line()
        line.send(f"GET {TAG} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
        self.assertEqual(self.pulls(), {})
        line.hang_up()
        self.assertEqual(self.pulls(), {("docker.io", "manifest", "error"): 1})
        self.assertEqual(self.value("requests_total", kind="manifest", status="none"), 1)
        self.assertEqual(self.value("time_to_first_byte_seconds_count", kind="manifest", outcome="error"), 0)

    def test_what_is_cut_is_counted_once(self) -> None:
        """The end of the process, and then that of the connection."""
        self.registry.cache.waiting = Deferred()
        line = self.line()
        line.send(f"GET {TAG} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
        self.registry.root.cut_all()
        line.hang_up()
        self.assertEqual(sum(self.pulls().values()), 1)
        self.assertEqual([each["ended"] for each in self.told()], ["cut"])

    def test_namespaces_that_are_not_configured_share_a_label(self) -> None:
        """A client may name any."""
        self.registry.get("/v2/ghcr.io/a/b/manifests/1")
        self.assertEqual(self.pulls(), {("unlisted", "manifest", "relay"): 1})

    def test_the_time_to_the_first_byte_is_measured_once(self) -> None:
        """From the head to the first byte; pulls only."""
        for verdict, outcome, path, method in (
            (serve(DATA), "hit", BLOB, "GET"),
            (serve(DATA, body=None, outcome="relay"), "relay", BLOB, "HEAD"),
            (UpstreamUnreachable("x"), "error", BLOB, "GET"),
        ):
            waits: Deferred[Serve | Relay | Redirect] = Deferred()
            self.registry.cache.waiting = waits
            asked = self.registry.begin(method, path)
            self.registry.clock.advance(2)
            if isinstance(verdict, Exception):
                waits.errback(verdict)
            else:
                waits.callback(verdict)
            self.registry.answer_of(asked, method)
            count = self.value("time_to_first_byte_seconds_count", kind="blob", outcome=outcome)
            total_s = self.value("time_to_first_byte_seconds_sum", kind="blob", outcome=outcome)
            self.assertEqual((count, total_s), (1, 2), outcome)
        self.registry.get("/healthz")
        self.assertEqual(self.value("time_to_first_byte_seconds_count", kind="page", outcome="error"), 0)

    def test_a_quick_answer_is_measured_as_it_is(self) -> None:
        """A hit takes less than the millisecond that is the least a line tells."""
        waits: Deferred[Serve | Relay | Redirect] = Deferred()
        self.registry.cache.waiting = waits
        asked = self.registry.begin("GET", BLOB)
        self.registry.clock.advance(0.0004)
        waits.callback(serve(DATA))
        self.registry.answer_of(asked, "GET")
        total_s = self.value("time_to_first_byte_seconds_sum", kind="blob", outcome="hit")
        self.assertAlmostEqual(total_s, 0.0004, 6)

    def test_the_first_byte_is_the_first_one_only(self) -> None:
        """And none is told of where the client is gone and nothing leaves."""
        told: list[str] = []
        for is_gone, name in ((False, "here"), (True, "gone")):
            request = DoorRequest(DummyChannel())
            request.method, request.clientproto = b"GET", b"HTTP/1.1"
            at_first_byte(request, partial(told.append, name))
            if is_gone:
                request.connectionLost(Failure(ConnectionDone()))
            request.write(b"one")
            request.write(b"two")
        self.assertEqual(told, ["here"])
