"""The end of the whole house but its sockets: what clients get whose answers run, wait, or cannot be ended."""

from __future__ import annotations

import json
from collections.abc import Sequence

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.logger import LogEvent, capturedLogs, formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import ResponseDone
from twisted.web.http_headers import Headers

from tests.cache.place import content
from tests.house.paced import Paced
from tests.house.whole import Waiting, WholeHouse
from tests.upstreams.fakes import Answer, answer
from tests.web.doubles import Line, Wire, client
from txociproxy.draining import Draining
from txociproxy.oci.names import Digest
from txociproxy.web.site import Census, DoorLimits, DoorSite

SIZE = 200_000
KEPT, ARRIVING, SILENT = (content(SIZE, seed) for seed in (1, 2, 3))


def target(data: bytes) -> str:
    """Return the path of content."""
    return f"/v2/team/app/blobs/{Digest.of(data)}"


class FullWire(Wire):
    """A connection whose client takes nothing: whoever writes is paused."""

    def write(self, data: bytes) -> None:
        """Take bytes, and want no more."""
        super().write(data)
        if self.producer is not None:
            self.producer.pauseProducing()


class DrainingTests(SynchronousTestCase):
    """Half a body has come from upstream, and one has not begun."""

    def setUp(self) -> None:
        """Keep one blob."""
        self.waiting = Waiting()
        self.house = WholeHouse(self.answer)
        self.clock = self.house.clock
        self.assertEqual(self.house.get(target(KEPT)).body, KEPT)
        self.site = DoorSite(self.house.root, self.clock, Census(DoorLimits()))
        self.draining = Draining(self.site, self.house.core.ingests, self.clock)

    def answer(self, method: str, url: str, headers: Headers) -> Answer:
        """Answer as an upstream does that is slow."""
        if url.endswith(target(SILENT)):
            return self.waiting.hang()
        if url.endswith(target(ARRIVING)):
            self.arriving = Paced(200, ARRIVING[: SIZE // 2], whole_bytes=SIZE)
            return self.arriving
        return answer(200, KEPT, content_length=str(SIZE))

    def ask(self, data: bytes) -> Line:
        """Let a client ask for content."""
        line = Line(site=self.site)
        line.send(f"GET {target(data)} HTTP/1.1\r\nHost: cache.example\r\n\r\n".encode())
        return line

    def run_for(self, timeout_s: float) -> Deferred[None]:
        """Begin to drain."""
        return Deferred.fromCoroutine(self.draining.run(timeout_s))

    def test_nobody_is_waited_for_where_nobody_is(self) -> None:
        """The end comes in the same turn."""
        self.successResultOf(self.run_for(30))
        self.assertTrue(self.site.census.draining)

    def test_who_is_served_is_waited_for(self) -> None:
        """The whole body comes, and with it the end of its connection; an idle one ends at once."""
        idle, line = self.ask(KEPT), self.ask(ARRIVING)
        ended = self.run_for(30)
        self.assertTrue(idle.wire.disconnecting)
        idle.hang_up()
        self.clock.advance(1)
        self.assertFalse(line.wire.disconnecting)
        self.end_of_body()
        self.assertTrue(line.wire.disconnecting)
        self.clock.advance(1)
        self.assertNoResult(ended)
        line.hang_up()
        self.clock.advance(0.1)
        self.successResultOf(ended)
        self.assertEqual(line.wire.value().partition(b"\r\n\r\n")[2], ARRIVING)
        self.assertEqual(self.house.get(target(ARRIVING)).body, ARRIVING, "it is kept")
        self.assertEqual(len(self.house.net.asked), 2)

    def end_of_body(self) -> None:
        """Let the rest come from upstream."""
        protocol = self.arriving.protocol
        assert protocol is not None
        protocol.dataReceived(ARRIVING[SIZE // 2 :])
        protocol.connectionLost(Failure(ResponseDone()))

    def test_who_still_waits_is_refused_and_who_is_served_is_cut(self) -> None:
        """Each in a way that nobody takes for the whole; nothing more is asked of upstreams, nothing half is kept."""
        silent, arriving = self.ask(SILENT), self.ask(ARRIVING)
        with capturedLogs() as events:
            ended = self.run_for(2)
            self.clock.pump([0.1] * 21)
            head, _, body = silent.wire.value().partition(b"\r\n\r\n")
            self.assertEqual(silent.status, 503)
            self.assertIn(b"\r\nconnection: close", head.lower())
            self.assertEqual(json.loads(body)["errors"][0]["code"], "UNAVAILABLE")
            self.assertTrue(silent.wire.disconnecting and arriving.wire.disconnecting)
            self.assertEqual(self.waiting.outstanding, 0)
            self.assertTrue(self.arriving.closed)
            for line in (silent, arriving):
                line.hang_up()
            self.clock.advance(0.1)
        self.successResultOf(ended)
        got = arriving.wire.value().partition(b"\r\n\r\n")[2]
        self.assertTrue(ARRIVING.startswith(got) and 0 < len(got) < SIZE)
        self.assertEqual(self.how(events), {(503, None), (200, "cut")})
        self.assertIsNone(self.successResultOf(self.house.storage.find(Digest.of(ARRIVING), "registry.example.com")))
        self.assertEqual(self.house.core.ingests.alive, [])

    def how(self, events: Sequence[LogEvent]) -> set[tuple[int, str | None]]:
        """Return how pulls have ended."""
        return {(event["status"], event["ended"]) for event in events if formatEvent(event) == "pull"}

    def test_a_hit_that_nobody_takes_is_cut_before_it_is_reset(self) -> None:
        """No ingest is behind it whose end would end it; its line says how it went."""
        wire = FullWire(peerAddress=client("192.0.2.1"))
        door = self.site.buildProtocol(wire.getPeer())
        assert door is not None
        door.makeConnection(wire)
        door.dataReceived(f"GET {target(KEPT)} HTTP/1.1\r\nHost: cache.example\r\n\r\n".encode())
        with capturedLogs() as events:
            ended = self.run_for(1)
            self.clock.pump([0.1] * 11)
            self.assertEqual(self.how(events), {(200, "cut")})
        self.assertTrue(wire.disconnecting)
        self.assertFalse(wire.disconnected)
        self.assertLess(len(wire.value()), SIZE)
        door.connectionLost(Failure(ConnectionDone()))
        self.clock.advance(0.1)
        self.successResultOf(ended)

    def test_a_client_that_takes_nothing_is_reset(self) -> None:
        """It was told for a second that its body is cut."""
        line = self.ask(ARRIVING)
        ended = self.run_for(0)
        self.clock.pump([0.1] * 8)
        self.assertFalse(line.wire.disconnected)
        self.clock.pump([0.1] * 3)
        self.assertTrue(line.wire.disconnected)
        self.assertNoResult(ended)
        line.hang_up()
        self.clock.advance(0.1)
        self.successResultOf(ended)

    def test_what_arrives_for_the_storage_alone_goes_on_while_somebody_is_served(self) -> None:
        """And no longer: it would hold up the end for nobody."""
        reader, other = self.ask(ARRIVING), self.ask(SILENT)
        ended = self.run_for(30)
        reader.hang_up()
        self.clock.advance(1)
        self.assertEqual([ingest.fate for ingest in self.house.core.ingests.alive], ["arriving"])
        other.hang_up()
        self.clock.advance(0.1)
        self.successResultOf(ended)
        self.assertTrue(self.arriving.closed)
        self.assertEqual(self.house.core.ingests.alive, [])
