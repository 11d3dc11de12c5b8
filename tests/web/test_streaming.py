"""Bodies on their way, and what the log says of them (RULES E2, A6)."""

from __future__ import annotations

import json
from typing import Any

from attrs import define
from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred
from twisted.logger import ILogObserver, LogEvent, capturedLogs, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import provider

from tests.web.doubles import Line, Registry, client, serve
from txociproxy.bodies.lending import Lent
from txociproxy.bodies.reader import CHUNK_BYTES
from txociproxy.interfaces import Relay
from txociproxy.oci.errors import BodyLost, OCIError, UpstreamUnreachable
from txociproxy.oci.names import Digest
from txociproxy.web.access import client_address
from txociproxy.web.closing import CUT_S
from txociproxy.web.site import Census, DoorLimits, DoorSite

DATA = b"0123456789abcdef" * 64
BLOB = f"/v2/library/alpine/blobs/{Digest.of(DATA)}".encode()


@define(eq=False)
class Arriving(Lent):
    """A body that a test lets arrive."""

    size_bytes: int | None = None
    data: bytes = b""
    lost: bool = False
    closed: bool = False

    def read_at(self, offset_bytes: int, max_bytes: int) -> bytes:
        """Return what is here."""
        if self.lost and offset_bytes >= len(self.data):
            raise BodyLost("lost")
        return self.data[offset_bytes : offset_bytes + max_bytes]

    def extent_at(self, offset_bytes: int, max_bytes: int) -> None:
        """Not in a file."""

    def arrive(self, data: bytes) -> None:
        """More comes."""
        self.data += data
        self._tell()

    def end(self) -> None:
        """The verdict is good."""
        self.size_bytes = len(self.data)
        self._tell()

    def lose(self) -> None:
        """The verdict is bad, or the upstream is gone."""
        self.lost = True
        self._tell()

    def _let_go(self) -> None:
        self.closed = True


class StreamCase(SynchronousTestCase):
    """A real site over a cache that gives one arriving body."""

    def setUp(self) -> None:
        """Begin to listen to the log."""
        self.registry = Registry()
        self.events: list[dict[str, Any]] = []

        @provider(ILogObserver)
        def observe(event: LogEvent) -> None:
            if event.get("log_format") == "pull":
                self.events.append(event)

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)

    def begin(self, size_bytes: int | None, version: bytes = b"1.1", fields: bytes = b"") -> Line:
        """Ask for the blob."""
        self.body = Arriving(promised=1, size_bytes=size_bytes)
        self.registry.cache.verdict = serve(DATA, body=self.body, outcome="miss")
        site = DoorSite(self.registry.root, self.registry.clock, Census(DoorLimits()))
        line = Line(site=site)
        line.send(b"GET " + BLOB + b" HTTP/" + version + b"\r\nHost: cache.example\r\n" + fields + b"\r\n")
        return line

    def logged(self) -> tuple[object, ...]:
        """Return status, outcome, bytes and end of the only line."""
        self.assertEqual(len(self.events), 1)
        event = self.events[0]
        return event["status"], event["outcome"], event["bytes"], event["ended"]


class EndTests(StreamCase):
    """How bodies end."""

    def test_a_body_that_arrives_is_sent_as_it_comes(self) -> None:
        """The head leaves with the first byte; the connection goes on."""
        line = self.begin(1024)
        self.assertEqual(line.wire.value(), b"")
        self.body.arrive(DATA[:100])
        self.assertTrue(line.wire.value().endswith(b"\r\n\r\n" + DATA[:100]))
        self.body.arrive(DATA[100:])
        self.assertTrue(line.wire.value().endswith(DATA))
        self.assertFalse(line.wire.disconnecting)
        self.assertTrue(self.body.closed)
        self.assertEqual(self.logged(), (200, "miss", 1024, None))

    def test_a_body_that_is_lost_ends_short_and_visibly(self) -> None:
        """With a length: fewer bytes, then a close; and if the client takes nothing, an abort."""
        line = self.begin(1024)
        self.body.arrive(DATA[:100])
        self.body.lose()
        self.assertTrue(line.wire.disconnecting)
        self.assertTrue(line.wire.value().endswith(DATA[:100]))
        self.assertEqual(self.logged(), (200, "miss", 100, "cut"))
        self.registry.clock.advance(CUT_S)
        self.assertTrue(line.wire.disconnected)

    def test_chunks_end_without_the_last_one(self) -> None:
        """With chunks: no ``0``, then a close."""
        line = self.begin(None)
        self.body.arrive(DATA)
        self.body.lose()
        self.assertTrue(line.wire.disconnecting)
        self.assertFalse(line.wire.value().endswith(b"0\r\n\r\n"))
        self.assertIn(b"Transfer-Encoding: chunked", line.wire.value())

    def test_chunks_of_a_good_body_end_with_the_last_one(self) -> None:
        """The verdict makes the end."""
        line = self.begin(None)
        self.body.arrive(DATA)
        self.body.end()
        self.assertTrue(line.wire.value().endswith(b"\r\n0\r\n\r\n"))
        self.assertEqual(self.logged(), (200, "miss", 1024, None))

    def test_a_body_that_is_lost_before_its_first_byte_is_an_error(self) -> None:
        """Nothing has been said, so that the truth can be told; nothing of the content's head remains."""
        line = self.begin(1024)
        self.body.lose()
        head, _, body = line.wire.value().partition(b"\r\n\r\n")
        self.assertEqual(line.status, 502)
        self.assertEqual(json.loads(body)["errors"][0]["code"], "UNAVAILABLE")
        self.assertNotIn(b"immutable", head)
        self.assertEqual(head.count(b"Content-Length"), 1)
        self.assertFalse(line.wire.disconnecting)
        self.assertEqual(self.logged(), (502, "error", len(body), None), "as Cache-Status says it")
        self.assertIn("lost on its way", self.events[0]["reason"])

    def test_http_1_0_waits_for_an_unknown_length(self) -> None:
        """E2: nothing is said before the verdict; then it has a length."""
        line = self.begin(None, b"1.0")
        self.body.arrive(DATA)
        self.assertEqual(line.wire.value(), b"")
        self.body.end()
        self.assertIn(b"Content-Length: 1024\r\n", line.wire.value())
        self.assertTrue(line.wire.value().endswith(DATA))
        self.assertTrue(line.wire.disconnecting)
        self.registry.clock.advance(0)
        self.assertTrue(self.body.closed)

    def test_http_1_0_gets_an_error_if_the_verdict_is_bad(self) -> None:
        """It could not tell a short body from a whole one."""
        line = self.begin(None, b"1.0")
        self.body.arrive(DATA)
        self.body.lose()
        self.assertEqual(line.status, 502)
        self.assertTrue(self.body.closed)
        self.assertEqual(self.logged()[:2], (502, "error"))

    def test_whoever_waits_at_the_end_of_the_process_has_an_error(self) -> None:
        """Whatever the cache had promised before."""
        line = self.begin(None, b"1.0")
        self.registry.root.refuse_waiting()
        self.assertEqual(line.status, 503)
        self.assertEqual(self.logged()[:2], (503, "error"))

    def test_http_1_0_takes_nothing_of_what_was_promised_to_others(self) -> None:
        """Another client has been given the same body and has not begun to read it."""
        for ending in (Arriving.end, Arriving.lose):
            line = self.begin(None, b"1.0")
            self.body.promise()
            self.body.arrive(DATA)
            ending(self.body)
            line.hang_up()
            self.registry.clock.advance(0)
            self.assertFalse(self.body.closed)
            self.body.close()
            self.assertTrue(self.body.closed)

    def test_http_1_0_does_not_wait_for_ever(self) -> None:
        """An upstream that drips without a length is given up."""
        line = self.begin(None, b"1.0")
        self.registry.clock.advance(300)
        self.assertEqual(line.status, 502)
        self.assertTrue(self.body.closed)

    def test_a_client_that_leaves_lets_go_of_the_body(self) -> None:
        """The line says so."""
        line = self.begin(1024)
        self.body.arrive(DATA[:100])
        self.assertEqual(self.registry.root.running, 1)
        line.hang_up()
        self.assertTrue(self.body.closed)
        self.assertEqual(self.registry.root.running, 0)
        self.assertEqual(self.logged(), (200, "miss", 100, "left"))

    def test_a_client_that_takes_nothing_is_cut(self) -> None:
        """It does not hold the body for ever."""
        line = self.begin(None)
        self.body.arrive(DATA)
        line.channel.pauseProducing()
        self.body.arrive(b"x" * CHUNK_BYTES)
        self.registry.clock.pump([300, 300])
        self.assertEqual(self.logged()[3], "cut")
        self.assertTrue(line.wire.disconnecting)
        self.assertTrue(self.body.closed)

    def test_no_timer_outlives_its_connection(self) -> None:
        """Neither of the body nor of the connection."""
        for ending in (Arriving.end, Arriving.lose):
            line = self.begin(None)
            self.body.arrive(DATA)
            ending(self.body)
            line.hang_up()
            self.assertEqual(self.registry.clock.getDelayedCalls(), [])


class LogTests(StreamCase):
    """What a line says."""

    def test_a_refused_pull_has_a_line_too(self) -> None:
        """With everything a person looks for."""
        self.begin(None)
        self.events.clear()
        self.registry.cache.verdict = Relay(404, (), b"{}")
        self.registry.get("/v2/ghcr.io/a/b/manifests/3", ("X-Request-Id", "abc.1"))
        event = self.events[0]
        expected = {
            "kind": "manifest",
            "method": b"GET",
            "namespace": "ghcr.io",
            "repository": "a/b",
            "reference": "3",
            "status": 404,
            "outcome": "relay",
            "bytes": 2,
            "client": "127.0.0.1",
            "request_id": "abc.1",
            "duration": 0.0,
        }
        self.assertEqual({name: event[name] for name in expected}, expected)

    def test_what_is_no_pull_has_no_outcome(self) -> None:
        """A good ping is no error."""
        with capturedLogs() as events:
            Registry().get("/healthz")
        self.assertEqual([(event["status"], event["outcome"]) for event in events if "status" in event], [(200, None)])

    def test_a_line_says_why_there_was_no_content(self) -> None:
        """The answer says so too, but its client is somebody else's."""
        self.begin(None)
        for error, reason in (
            (UpstreamUnreachable("http://reg: connection refused"), "UNAVAILABLE: http://reg: connection refused"),
            (OCIError("TOOMANYREQUESTS", "later", status=503), "TOOMANYREQUESTS: later"),
        ):
            self.events.clear()
            self.registry.cache.verdict = error
            self.registry.get("/v2/a/b/manifests/3")
            self.assertEqual(self.events[0]["reason"], reason)

    def test_a_client_that_left_before_its_answer_got_no_status(self) -> None:
        """Least of all 200, which Twisted begins with."""
        self.begin(None).hang_up()
        self.events.clear()
        self.registry.cache.waiting = Deferred()
        line = Line(site=DoorSite(self.registry.root, self.registry.clock, Census(DoorLimits())))
        line.send(b"GET /v2/a/b/manifests/3 HTTP/1.1\r\nHost: x\r\n\r\n")
        line.hang_up()
        self.assertEqual([(event["status"], event["ended"]) for event in self.events], [(None, "left")])

    def test_no_line_holds_a_credential(self) -> None:
        """Promise 8."""
        self.registry.cache.verdict = Relay(401, (), b"")
        self.registry.get("/v2/a/b/manifests/3?token=geheim", ("Authorization", "Bearer geheim"))
        self.assertNotIn("geheim", repr(self.events))

    def test_addresses_are_written_as_what_they_are(self) -> None:
        """A socket of both families maps IPv4."""
        self.assertEqual(client_address(client("::ffff:192.0.2.7")), "192.0.2.7")
        self.assertEqual(client_address(client("2001:db8::1")), "2001:db8::1")
        self.assertEqual(client_address(UNIXAddress("/run/x")), "-")
