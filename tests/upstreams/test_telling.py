"""What is told of the requests to upstreams: numbers, and lines without a secret (RULES A6, C7)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from OpenSSL import SSL
from twisted.internet import error as network
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web._newclient import ParseError, ResponseFailed, ResponseNeverReceived
from twisted.web.http_headers import Headers
from twisted.web.iweb import IResponse

from tests.doubles import InlineWorkers
from tests.upstreams.fakes import NAMESPACE, REALM, Answer, FakeNet, TokenRegistry, answer, pull_of, wire_on
from txociproxy.collect import discard
from txociproxy.interfaces import ANONYMOUS
from txociproxy.logs import LineObserver, Seconds, logfmt
from txociproxy.metrics import Metrics
from txociproxy.oci.errors import OCIError, UpstreamUnreachable
from txociproxy.upstreams.connecting.agents import Line
from txociproxy.upstreams.connecting.breakers import FAILURES, OPEN_S
from txociproxy.upstreams.connecting.failures import REASONS
from txociproxy.upstreams.connecting.telling import SHOWN, Telling, plain, shown
from txociproxy.upstreams.connecting.wire import Budget, Outgoing
from txociproxy.upstreams.entries.entry import Entry
from txociproxy.upstreams.entries.table import LiveTable, UpstreamTable
from txociproxy.upstreams.entries.unlisted import MAX_UNLISTED
from txociproxy.upstreams.registry import Upstreams
from txociproxy.upstreams.tokens import Token, TokenKey, Tokens

BLOB = Outgoing("GET", "http://reg/v2/a/blobs/x?sig=secret", bulk=True)
SHORT = Outgoing("HEAD", "http://reg/v2/a/manifests/x")
SECRET = "s3cr3t-0f-Ours"
URL = f"https://{NAMESPACE}"
# Whatever else a server or a request of ours may say.
NAMES = st.from_regex(r"[A-Za-z][A-Za-z0-9-]{0,20}", fullmatch=True)

LOCATIONS = ("https://cdn/x?sig={}", "/x?a=1&t={}", "//u:{}@h/x", "https:{}@h", "https://{}@h/x#{}", "?{}")
CHALLENGES = ('Bearer realm="https://a/?{}"', 'Basic realm="{}"', "{}", '{} realm="x"', "Bearer {}", " {}")


def line_on(net: FakeNet, _: Entry) -> Line:
    """Return the way to whatever upstream."""
    return Line(net)


class Counted:
    """What has been counted."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def __call__(self, name: str, **labels: str) -> float:
        """Return a number; 0 is never."""
        return self._metrics.registry.get_sample_value(f"ociproxy_{name}", labels) or 0.0

    def errors(self) -> dict[str, float]:
        """Return the reasons of failures, and how often each was one."""
        found = {each: self("upstream_errors_total", namespace=NAMESPACE, reason=each) for each in REASONS}
        return {each: count for each, count in found.items() if count}

    def answers(self) -> float:
        """Return how many answers were measured."""
        return self("upstream_latency_seconds_count", namespace=NAMESPACE)


class CountingTests(SynchronousTestCase):
    """Each request is counted once: answered, failed, or left."""

    def setUp(self) -> None:
        """Answer as ``self.answers`` says, one after the other."""
        self.clock = Clock()
        self.answers: list[Answer] = []
        self.net = FakeNet(lambda *_: self.answers.pop(0))
        self.metrics = Metrics()
        self.metrics.know([NAMESPACE])
        self.counted = Counted(self.metrics)
        self.wire = wire_on(self.net, self.clock, 1, Telling(NAMESPACE, self.metrics))

    def send(self, outgoing: Outgoing = SHORT, budget_s: float = 10.0) -> Deferred[IResponse]:
        """Send."""
        return Deferred.fromCoroutine(self.wire.send(outgoing, Budget(budget_s)))

    def test_an_answer_is_counted_by_its_class_of_status(self) -> None:
        """Whatever it says."""
        for code in (200, 206, 302, 404, 429, 503):
            self.answers = [answer(code)]
            self.successResultOf(self.send())
        for status, count in (("2xx", 2), ("3xx", 1), ("4xx", 2), ("5xx", 1)):
            labels = {"namespace": NAMESPACE, "method": "HEAD", "status": status}
            self.assertEqual(self.counted("upstream_requests_total", **labels), count)
        self.assertEqual((self.counted.answers(), self.counted.errors()), (6, {}))

    def test_time_runs_from_the_request_to_the_head(self) -> None:
        """What is waited for a place among our own connections is not the upstream's."""
        first = answer(200, b"x", open_ended=True)
        second: Deferred[IResponse] = Deferred()
        self.answers = [first, second]
        body = self.successResultOf(self.send(BLOB))
        asked = self.send(BLOB)
        self.clock.advance(5)
        discard(body)
        assert first.protocol is not None
        first.protocol.connectionLost(Failure(ResponseFailed([])))
        self.clock.advance(2)
        second.callback(answer(200))
        self.successResultOf(asked)
        self.assertEqual(self.counted("upstream_latency_seconds_sum", namespace=NAMESPACE), 2.0)

    def test_every_failure_has_its_word(self) -> None:
        """One of a few, and none is counted as an answer."""
        tls = ResponseNeverReceived([Failure(SSL.Error([("x", "", "certificate verify failed")]))])
        for error, reason in (
            (network.ConnectionRefusedError(), "refused"),
            (network.DNSLookupError(), "dns"),
            (tls, "tls"),
            (network.TimeoutError(), "timeout"),
            (ResponseFailed([Failure(network.ConnectionDone())]), "reset"),
            (network.NoRouteError(), "unreachable"),
            (UpstreamUnreachable("the outbound proxy says no"), "proxy"),
            (OCIError("DENIED", "no"), "guard"),
            (ResponseFailed([Failure(ParseError("x", b"y"))]), "nonsense"),
            (KeyError("x"), "other"),
        ):
            before = self.counted("upstream_errors_total", namespace=NAMESPACE, reason=reason)
            self.answers = [error]
            self.clock.advance(OPEN_S)
            self.failureResultOf(self.send(), UpstreamUnreachable, OCIError)
            self.assertEqual(
                self.counted("upstream_errors_total", namespace=NAMESPACE, reason=reason), before + 1, reason
            )
        self.assertEqual((sum(self.counted.errors().values()), self.counted.answers()), (10, 0))

    def test_an_answer_that_makes_no_sense_is_a_failure(self) -> None:
        """It is no answer as well."""
        for code in (-1, 101, 304):
            self.answers = [answer(code)]
            self.failureResultOf(self.send(), UpstreamUnreachable)
        self.assertEqual((self.counted.errors(), self.counted.answers()), ({"nonsense": 3}, 0))

    def test_no_answer_in_time_is_a_timeout_and_no_place_in_time_is_busy(self) -> None:
        """The second one was never sent."""
        self.answers = [Deferred()]
        first, second = self.send(BLOB, 3.0), self.send(BLOB, 2.0)
        self.clock.advance(2)
        self.failureResultOf(second, UpstreamUnreachable)
        self.assertEqual(self.counted.errors(), {"busy": 1})
        self.clock.advance(1)
        self.failureResultOf(first, UpstreamUnreachable)
        self.assertEqual(self.counted.errors(), {"busy": 1, "timeout": 1})

    def test_what_the_breaker_keeps_back_is_told_apart(self) -> None:
        """Nothing was sent."""
        self.answers = [network.ConnectionRefusedError() for _ in range(FAILURES)]
        for _ in range(FAILURES + 2):
            self.failureResultOf(self.send(), UpstreamUnreachable)
        self.assertEqual(len(self.net.asked), FAILURES)
        self.assertEqual(self.counted.errors(), {"refused": FAILURES, "breaker": 2})

    def test_who_leaves_counts_as_neither(self) -> None:
        """Whether it was sent or not."""
        self.answers = [Deferred()]
        sent, waiting = self.send(BLOB), self.send(BLOB)
        for asked in (waiting, sent):
            asked.cancel()
            self.failureResultOf(asked, CancelledError)
        self.assertEqual((self.counted.errors(), self.counted.answers()), ({}, 0))


class WholeTests(SynchronousTestCase):
    """Upstreams over a network in memory."""

    def setUp(self) -> None:
        """One configured upstream; others are asked too."""
        self.clock = Clock()
        self.registry = TokenRegistry()
        self.net = FakeNet(self.registry)
        self.metrics = Metrics()
        self.counted = Counted(self.metrics)
        self.live = LiveTable(self.table(NAMESPACE))
        self.metrics.know([NAMESPACE])
        self.upstreams = Upstreams(
            self.clock, self.live, InlineWorkers(), lambda _: Line(self.net), metrics=self.metrics
        )

    def table(self, *namespaces: str) -> UpstreamTable:
        """Return a table of these."""
        return UpstreamTable(tuple(Entry(each, (f"https://{each}",)) for each in namespaces), namespaces[0], "public")

    def get(self, namespace: str = NAMESPACE) -> Deferred[IResponse]:
        """Ask for a blob."""
        upstream = self.upstreams.upstream(namespace)
        assert upstream is not None
        return Deferred.fromCoroutine(upstream.get(pull_of(), ANONYMOUS, None, 9))

    def token(self, result: str, namespace: str = NAMESPACE) -> float:
        """Return how many tokens came to this."""
        return self.counted("tokens_total", namespace=namespace, result=result)

    def requests(self, status: str, namespace: str = NAMESPACE) -> float:
        """Return how many GETs were answered in this way."""
        return self.counted("upstream_requests_total", namespace=namespace, method="GET", status=status)

    def test_the_token_server_counts_for_its_registry(self) -> None:
        """A challenge, a token, and the content; the second pull needs no token of its own."""
        for _ in range(2):
            self.successResultOf(self.get())
        self.assertEqual((self.requests("4xx"), self.requests("2xx"), self.token("fetched")), (1, 3, 1))
        self.assertEqual((self.token("kept"), self.token("refused"), self.token("failed")), (1, 0, 0))

    def test_a_token_that_is_refused_or_does_not_come_is_counted_so(self) -> None:
        """403 is a no, 500 and a dead server are none."""
        for says, result in ((answer(403), "refused"), (answer(500), "failed"), (network.DNSLookupError(), "failed")):
            before = self.token(result)
            self.registry.token_answer = lambda _, says=says: says
            self.get().addErrback(lambda failure: failure.trap(UpstreamUnreachable))
            self.assertEqual(self.token(result), before + 1)
        self.assertEqual(self.token("fetched"), 0)

    def test_a_token_server_that_wants_a_pause_refuses_meanwhile(self) -> None:
        """Without being asked."""
        self.registry.token_answer = lambda _: answer(429, retry_after="60")
        for _ in range(2):
            self.successResultOf(self.get())
        asked = [url for _, url, _ in self.net.asked if url.startswith(REALM)]
        self.assertEqual((len(asked), self.token("refused")), (1, 2))

    def test_one_ask_for_many_counts_once(self) -> None:
        """They all wait for the same token."""
        waiting: Deferred[IResponse] = Deferred()
        self.registry.token_answer = lambda _: waiting
        pulls = [self.get() for _ in range(3)]
        self.registry.good.add("t")
        waiting.callback(answer(200, b'{"token": "t"}'))
        for pull in pulls:
            self.successResultOf(pull)
        self.assertEqual((self.token("fetched"), self.token("kept")), (1, 0))

    def test_the_quota_of_a_configured_upstream_is_told(self) -> None:
        """As its last answer said; others have no gauge of their own."""
        for limit, remaining in (("100;w=21600", "76;w=21600"), ("100;w=21600", "0;w=21600")):
            said = {"ratelimit_limit": limit, "ratelimit_remaining": remaining}
            self.registry.content = lambda *_, said=said: answer(200, **said)
            for namespace in (NAMESPACE, "reg.example"):
                self.successResultOf(self.get(namespace))
            for name, count in (("limit", 100), ("remaining", int(remaining[: remaining.index(";")]))):
                self.assertEqual(self.counted(f"upstream_quota_{name}", namespace=NAMESPACE), count)
        self.assertNotIn(b"reg.example", self.metrics.exposition())
        self.assertNotIn(b'quota_limit{namespace="unlisted"', self.metrics.exposition())

    def test_whoever_is_not_configured_is_unlisted(self) -> None:
        """A6: names are the clients' choice."""
        for namespace in ("one.example", "two.example"):
            self.successResultOf(self.get(namespace))
        self.assertEqual((self.requests("2xx", "unlisted"), self.requests("2xx")), (4, 0))
        self.assertEqual(self.token("fetched", "unlisted"), 2)

    def test_a_reload_keeps_what_was_counted(self) -> None:
        """Who is gone is unlisted from then on, and has no quota any more."""
        self.registry.content = lambda *_: answer(200, ratelimit_limit="100", ratelimit_remaining="7")
        self.successResultOf(self.get())
        table = self.table("other.example")
        self.upstreams.turn_to(table)
        self.metrics.know(entry.namespace for entry in table.entries)
        self.successResultOf(self.get())
        self.assertEqual((self.requests("2xx"), self.requests("2xx", "unlisted")), (2, 2))
        self.assertNotIn(b"quota_remaining{", self.metrics.exposition())

    def test_caps_are_told_and_counted(self) -> None:
        """A5: one unlisted namespace too many pushes out another."""
        self.assertEqual(self.upstreams.uses(), {"tokens": (0, 10_000), "unlisted_namespaces": (0, MAX_UNLISTED)})
        for number in range(MAX_UNLISTED + 2):
            self.upstreams.upstream(f"r{number}.example")
        self.assertEqual(self.upstreams.uses()["unlisted_namespaces"], (MAX_UNLISTED, MAX_UNLISTED))
        self.assertEqual(self.counted("caps_reached_total", cap="unlisted_namespaces"), 2)
        self.successResultOf(self.get("r9.example"))
        self.assertEqual(self.upstreams.uses()["tokens"], (1, 1000))

    def test_a_token_that_is_pushed_out_reaches_the_cap(self) -> None:
        """One that takes its own place does not."""
        tokens = Tokens(self.clock, 2, self.metrics)

        async def ask(key: TokenKey) -> Token:
            return Token("t", self.clock.seconds())  # too old at once

        for scope in ("a", "b", "b", "c"):
            key = TokenKey(NAMESPACE, REALM, None, scope)
            self.successResultOf(Deferred.fromCoroutine(tokens.token(key, ask)))
        self.assertEqual(self.counted("caps_reached_total", cap="tokens"), 1)
        self.assertEqual(tokens.use, (2, 2))


class TracingTests(SynchronousTestCase):
    """Lines at level trace."""

    def setUp(self) -> None:
        """Answer with what the test says."""
        self.clock = Clock()
        self.handler: Callable[[str, str, Headers], Answer] = lambda *_: answer(200)
        self.net = FakeNet(lambda *asked: self.handler(*asked))

    def traced(self, outgoing: Outgoing, traces: bool = True) -> list[dict[str, Any]]:
        """Send, and return the events of the log."""
        wire = wire_on(self.net, self.clock, telling=Telling(NAMESPACE, Metrics(), traces))
        with capturedLogs() as events:
            sent = Deferred.fromCoroutine(wire.send(outgoing, Budget(9)))
            self.clock.advance(2)
            sent.addErrback(lambda failure: failure.trap(UpstreamUnreachable, CancelledError))
            sent.cancel()
        return [event for event in events if event.get("log_is_trace")]

    def test_a_request_and_its_answer_are_a_line_each(self) -> None:
        """With the same number, and what may be shown."""
        waiting: Deferred[IResponse] = Deferred()
        self.clock.callLater(2, waiting.callback, answer(206, b"x", content_range="bytes 0-0/9", etag='"e"'))
        self.handler = lambda *_: waiting
        asked, answered = self.traced(
            Outgoing("GET", "https://reg/v2/a/blobs/x?sig=1", (("Range", "bytes=0-0"), ("Authorization", "Basic x")))
        )
        common = {"namespace": NAMESPACE, "number": 1, "method": "GET", "url": "https://reg/v2/a/blobs/x"}
        self.assert_line(asked, "upstream request", **common, range="bytes=0-0", user_agent="tests/1")
        self.assert_line(
            answered,
            "upstream answer",
            **common,
            status=206,
            duration=Seconds(2),
            content_range="bytes 0-0/9",
            etag='"e"',
            content_length="1",
        )

    def assert_line(self, event: dict[str, Any], text: str, **fields: object) -> None:
        """An event of level trace has this text, and exactly these fields."""
        (line,) = self.written([event])
        self.assertEqual(line.partition(" ")[2], logfmt({"level": "trace", "msg": text, **fields}) + "\n")

    def test_no_answer_is_a_line_too(self) -> None:
        """With the reason in a word; also when the client has left, and when nothing was sent."""
        for says, reason in ((network.ConnectionRefusedError(), "refused"), (Deferred(), "left")):
            self.handler = lambda *_, says=says: says
            _, failed = self.traced(SHORT)
            self.assertEqual((failed["log_format"], failed["reason"]), ("no upstream answer", reason))
        wire = wire_on(self.net, self.clock, telling=Telling(NAMESPACE, Metrics(), True))
        self.handler = lambda *_: network.ConnectionRefusedError()
        with capturedLogs() as events:
            for _ in range(FAILURES + 1):
                self.failureResultOf(Deferred.fromCoroutine(wire.send(SHORT, Budget(9))), UpstreamUnreachable)
        self.assertEqual((events[-1]["reason"], events[-1]["number"]), ("breaker", 0))
        self.assertEqual([event["number"] for event in events[:4]], [1, 1, 2, 2])

    def test_at_other_levels_nothing_is_made(self) -> None:
        """Not even an event that nobody would write."""
        self.assertEqual(self.traced(SHORT, traces=False), [])

    def test_an_upstream_is_traced_where_that_is_wanted(self) -> None:
        """Configured or not; a token server's answer is a line without the token."""
        entries = (Entry(NAMESPACE, (URL,)),)
        for namespace in (NAMESPACE, "reg.example"):
            for traces in (True, False):
                registry = TokenRegistry()
                table = LiveTable(UpstreamTable(entries, NAMESPACE, "public"))
                net = FakeNet(registry)
                upstreams = Upstreams(self.clock, table, InlineWorkers(), partial(line_on, net), traces=traces)
                upstream = upstreams.upstream(namespace)
                assert upstream is not None
                with capturedLogs() as events:
                    self.successResultOf(Deferred.fromCoroutine(upstream.get(pull_of(), ANONYMOUS, None, 9)))
                lines = self.written(events)
                self.assertEqual(len(lines), 6 * traces)
                self.assertNotIn("#1", "".join(lines))
                self.assertEqual(sum(f"url={REALM} " in line for line in lines), 2 * traces)

    def written(self, events: Sequence[dict[str, Any]]) -> list[str]:
        """Return the lines that a log at level trace would have."""
        lines: list[str] = []
        observer = LineObserver(lines.append, "trace")
        for event in events:
            observer(event)
        return lines

    @settings(max_examples=150, deadline=None)
    @given(
        st.lists(st.tuples(NAMES, st.booleans()), max_size=6),
        st.sampled_from(
            ("https://cdn/x?sig={}", "/x?a=1&t={}", "//u:{}@h/x", "https:{}@h", "https://{}@h/x#{}", "?{}")
        ),
        st.sampled_from(('Bearer realm="https://a/?{}"', 'Basic realm="{}"', "{}", '{} realm="x"', "Bearer {}", " {}")),
        st.booleans(),
    )
    def test_no_secret_is_ever_shown(
        self, fields: list[tuple[str, bool]], location: str, challenge: str, fails: bool
    ) -> None:
        """In a query, in whatever header field that is not in the list, of a request or of an answer."""
        listed = {name.lower() for name in SHOWN}
        hidden = [(name, mine) for name, mine in fields if name.lower() not in listed]
        sent = tuple((name, SECRET) for name, mine in hidden if mine)
        headers = Headers({name.encode(): [SECRET.encode()] for name, mine in hidden if not mine})
        for name, value in (
            ("Location", location.replace("{}", SECRET)),
            ("WWW-Authenticate", challenge.replace("{}", SECRET)),
            ("Set-Cookie", SECRET),
            ("Docker-RateLimit-Source", SECRET),
        ):
            headers.setRawHeaders(name, [value])
        response = answer(401, SECRET.encode())
        response.headers = headers
        self.handler = lambda *_: network.ConnectionLost(SECRET) if fails else response
        secret_too = (("Authorization", f"Basic {SECRET}"), ("Cookie", SECRET), *sent)
        outgoing = Outgoing("GET", f"https://reg/v2/a/blobs/x?X-Amz-Signature={SECRET}", secret_too)
        lines = self.written(self.traced(outgoing))
        self.assertEqual(len(lines), 2)
        self.assertNotIn(SECRET.lower(), "".join(lines).lower())

    def test_addresses_are_shown_without_what_signs_them(self) -> None:
        """And what is left is enough to know the place."""
        for url, expected in (
            ("https://reg:5000/v2/a/blobs/sha256:1?x=y#z", "https://reg:5000/v2/a/blobs/sha256:1"),
            ("https://u:p@reg/a@b/c", "https://reg/a@b/c"),
            ("https://u:p@q@reg", "https://reg"),
            ("https:\\\\u:p@reg\\x", "https:\\\\reg\\x"),
            ("//u:p@reg/x", "//reg/x"),
            ("/v2/x#?y", "/v2/x"),
            ("https:u:p@reg", "reg"),
            ("?x=y", ""),
            ("", ""),
        ):
            self.assertEqual(plain(url), expected)

    def test_of_challenges_the_schemes_are_shown(self) -> None:
        """Those that are known; and of fields with odd bytes what can be."""
        challenges = [b'Bearer realm="x"', b"BASIC", b"abc", b"", b"\xff x"]
        headers = Headers({b"WWW-Authenticate": challenges, b"ETag": [b"\xe9", b"2"], b"Location": [b"/\xff?x"]})
        self.assertEqual(
            shown(headers),
            {"etag": "\xe9, 2", "location": "/\xff", "www_authenticate": "bearer,basic,other,other,other"},
        )
