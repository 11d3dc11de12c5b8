"""Bodies over HTTP/2: each stream ends for itself, and gets exactly its bytes."""

from __future__ import annotations

from typing import Any

from h2.errors import ErrorCodes
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.web.doubles import serve
from tests.web.http2_client import Client, bodies_site, content
from tests.web.test_streaming import BLOB, DATA, Arriving, StreamCase
from txociproxy.web.sending import cut
from txociproxy.web.site import Census, DoorLimits, DoorSite

PATH = BLOB.decode()


class EndTests(StreamCase):
    """How bodies end."""

    def ask(self, client: Client, size_bytes: int | None = 1024) -> tuple[Arriving, int]:
        """Ask for a blob that a test lets arrive."""
        body = Arriving(promised=1, size_bytes=size_bytes)
        self.registry.cache.verdict = serve(DATA, body=body, outcome="miss")
        stream_id = client.begin("GET", PATH)
        client.flush()
        return body, stream_id

    def connect(self) -> Client:
        """Connect."""
        return Client(DoorSite(self.registry.root, self.registry.clock, Census(DoorLimits())))

    def test_a_body_that_arrives_is_sent_as_it_comes(self) -> None:
        """With a length and without; nothing is chunked."""
        for size_bytes in (1024, None):
            self.events.clear()
            client = self.connect()
            body, stream_id = self.ask(client, size_bytes)
            got = client.got[stream_id]
            self.assertIsNone(got.status)
            body.arrive(DATA[:100])
            client.read()
            self.assertEqual((got.status, got.body, got.is_whole), (200, DATA[:100], False))
            self.assertEqual(got.fields.get("content-length"), None if size_bytes is None else "1024")
            self.assertNotIn("transfer-encoding", got.fields)
            body.arrive(DATA[100:])
            body.end()
            client.read()
            self.assertEqual((got.body, got.is_whole, got.reset), (DATA, True, None))
            self.assertEqual(self.logged(), (200, "miss", 1024, None))

    def test_a_bad_verdict_resets_that_stream_alone(self) -> None:
        """With a length and without; what waits is dropped, the line is written, another stream goes on."""
        for size_bytes in (1024, None):
            self.events.clear()
            client = self.connect()
            bad, first = self.ask(client, size_bytes)
            good, second = self.ask(client, size_bytes)
            bad.arrive(DATA[:100])
            good.arrive(DATA[:10])
            client.read()
            bad.arrive(DATA[100:200])
            bad.lose()
            client.read()
            self.assertEqual((client.got[first].reset, client.got[first].body), (ErrorCodes.INTERNAL_ERROR, DATA[:100]))
            self.assertEqual(self.logged(), (200, "miss", 200, "cut"))
            good.arrive(DATA[10:])
            good.end()
            client.read()
            self.assertEqual((client.got[second].body, client.got[second].is_whole), (DATA, True))
            self.assertIsNone(client.goaway)

    def test_the_line_says_that_it_was_cut(self) -> None:
        """And not that the client left; whoever waits for the request hears of it as of a lost connection."""
        client = self.connect()
        body, stream_id = self.ask(client)
        body.arrive(DATA[:100])
        client.read()
        request = client.request_of(stream_id)
        lost: list[Any] = []
        request.notifyFinish().addErrback(lost.append)
        body.lose()
        self.assertEqual((self.logged(), lost), ((200, "miss", 100, "cut"), []))
        client.read()
        self.assertEqual(
            (client.got[stream_id].reset, client.got[stream_id].is_whole), (ErrorCodes.INTERNAL_ERROR, False)
        )
        self.assertEqual((len(lost), body.closed, self.registry.root.running), (1, True, 0))

    def test_a_body_that_is_lost_before_its_first_byte_is_an_error(self) -> None:
        """As over HTTP/1.1."""
        client = self.connect()
        body, stream_id = self.ask(client)
        body.lose()
        client.read()
        self.assertEqual((client.got[stream_id].status, client.got[stream_id].is_whole), (502, True))

    def test_a_client_that_resets_lets_go_of_the_body(self) -> None:
        """What is written afterwards raises nothing and goes nowhere."""
        client = self.connect()
        body, stream_id = self.ask(client)
        body.arrive(DATA[:100])
        client.read()
        stream = client.connection._streams[stream_id]
        request = stream._request
        assert request is not None
        client.machine.reset_stream(stream_id, ErrorCodes.CANCEL)
        client.flush()
        self.assertEqual((self.logged(), body.closed), ((200, "miss", 100, "left"), True))
        stream.write(b"x")
        stream.writeSequence([b"x"])
        stream.unregisterProducer()
        stream.cut_short()
        stream.loseConnection()
        request.write(b"x")
        cut(request)
        client.read()
        self.assertEqual(client.got[stream_id].body, DATA[:100])
        self.assertEqual(client.ask("GET", "/healthz").status, 200)

    def test_a_connection_that_is_lost_takes_its_streams_along(self) -> None:
        """Each lets go of its body."""
        client = self.connect()
        bodies = [self.ask(client)[0] for _ in range(3)]
        client.hang_up()
        self.assertEqual([body.closed for body in bodies], [True] * 3)
        self.assertEqual([event["ended"] for event in self.events], ["left"] * 3)
        self.assertEqual(self.registry.root.running, 0)

    def test_no_clock_outlives_its_connection(self) -> None:
        """Not even that of a stream that was cut just now."""
        client = self.connect()
        body, _ = self.ask(client)
        body.arrive(DATA[:10])
        body.lose()
        client.hang_up()
        client.clock.advance(0)
        self.assertEqual([call for call in client.clock.getDelayedCalls() if call.getTime() < 2_000_000_000], [])

    def test_a_request_that_wants_its_connection_closed_loses_its_stream(self) -> None:
        """The connection is not one request's to lose."""
        client = self.connect()
        _, first = self.ask(client)
        request = client.request_of(first)
        request.loseConnection()
        client.read()
        self.assertEqual(client.got[first].reset, ErrorCodes.INTERNAL_ERROR)
        self.assertEqual(client.ask("GET", "/healthz").status, 200)


class PaceTests(SynchronousTestCase):
    """Slow clients and fast ones on one connection."""

    def test_a_client_that_takes_nothing_of_one_stream_loses_that_one(self) -> None:
        """In its time; another goes on, and so does the connection."""
        root, site = bodies_site(stall_s=300.0)
        client = Client(site, window_bytes=100_000)
        client.takes = False
        client.machine.increment_flow_control_window(1 << 30)
        stalled = client.begin("GET", "/1000000")
        client.flush()
        client.clock.advance(200)
        client.takes = True
        other = client.begin("GET", "/1000001")
        client.flush()
        self.assertEqual(client.got[other].body, content(1_000_001))
        while b"/1000000" not in root.ends and client.clock.seconds() < 1000:
            client.clock.advance(10)
            client.read()
        self.assertEqual(client.got[stalled].reset, ErrorCodes.INTERNAL_ERROR)
        self.assertEqual(root.ends, {b"/1000001": "finished", b"/1000000": "cut"})
        self.assertIsNone(client.goaway)

    def test_stalled_streams_hold_up_no_others(self) -> None:
        """However many there are."""
        _, site = bodies_site()
        client = Client(site, window_bytes=10_000)
        client.takes = False
        client.machine.increment_flow_control_window(1 << 30)
        for number in range(50):
            client.begin("GET", f"/{500_000 + number}")
        client.flush()
        client.takes = True
        self.assertEqual(client.ask("GET", "/700000").body, content(700_000))

    def test_streams_share_a_turn(self) -> None:
        """No stream has all of it to itself."""
        _, site = bodies_site()
        client = self.wide(site)
        client.pause()
        for number in (900_000, 900_001, 900_002):
            client.begin("GET", f"/{number}")
        client.door.dataReceived(client.machine.data_to_send())
        self.turn(client)
        self.assertEqual([len(got.body) // 65_536 for got in client.got.values()], [2, 1, 1])

    def test_nobody_starves_when_too_much_waits(self) -> None:
        """Whoever was fed last is fed last the next time."""
        _, site = bodies_site()
        client = self.wide(site)
        client.pause()
        for number in range(40):
            client.begin("GET", f"/{9_000_000 + number}")
        client.door.dataReceived(client.machine.data_to_send())
        for _ in range(80):
            self.turn(client)
        self.assertGreater(min(len(got.body) for got in client.got.values()), 0)

    def wide(self, site: DoorSite) -> Client:
        """Connect with windows that are wider than anything that comes."""
        client = Client(site, window_bytes=1 << 30)
        client.machine.increment_flow_control_window(1 << 30)
        client.flush()
        client.takes = False
        return client

    def turn(self, client: Client) -> None:
        """Let the transport take one turn's bytes."""
        client.resume()
        client.pause()
        client._read(bytes(client.wire.value()))
        client.wire.clear()

    def test_streams_take_turns(self) -> None:
        """A small body is not behind a large one that came before."""
        _, site = bodies_site()
        client = Client(site, window_bytes=1 << 30)
        client.machine.increment_flow_control_window(1 << 30)
        client.flush()
        client.takes = False
        for number in (9_000_000, 9_000_001, 50_000):
            client.begin("GET", f"/{number}")
        client.door.dataReceived(client.machine.data_to_send())
        for _ in range(3):
            client._read(bytes(client.wire.value()))
            client.wire.clear()
            client.resume()
        self.assertTrue(client.got[5].is_whole)
        self.assertLess(len(client.got[1].body), 1_000_000)
        self.assertGreater(len(client.got[3].body), 100_000)

    def test_one_write_a_turn(self) -> None:
        """Head, frames and end leave together."""
        _, site = bodies_site()
        client = Client(site, window_bytes=1 << 20)
        client.machine.increment_flow_control_window(1 << 20)
        client.flush()
        writes: list[bytes] = []
        client.wire.write = writes.append  # type: ignore[method-assign]
        client.begin("GET", "/60000")
        client.door.dataReceived(client.machine.data_to_send())
        client.clock.advance(0)
        self.assertEqual(len(writes), 1)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("begin"), st.integers(0, 300_000)),
        st.tuples(st.just("take"), st.integers(1, 200_000)),
        st.tuples(st.just("take one"), st.integers(0, 5)),
        st.tuples(st.just("reset"), st.integers(0, 5)),
        st.tuples(st.just("pause"), st.just(0)),
        st.tuples(st.just("resume"), st.just(0)),
        st.tuples(st.just("window"), st.integers(0, 200_000)),
        st.tuples(st.just("frames"), st.integers(16_384, 60_000)),
        st.tuples(st.just("wait"), st.just(0)),
    ),
    max_size=40,
)


class PropertyTests(SynchronousTestCase):
    """Whatever a client does."""

    @settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
    @given(STEPS)
    def test_each_stream_that_finishes_has_exactly_its_bytes(self, steps: list[tuple[str, int]]) -> None:
        """Windows, resets and a transport that stops come in any order; h2 judges that no window is overrun."""
        play = Play()
        for step, number in steps:
            play.do(step, number)
        play.finish()
        for stream_id, size_bytes in play.asked.items():
            got = play.client.got[stream_id]
            self.assertEqual(got.is_whole and got.body == content(size_bytes), stream_id not in play.reset, size_bytes)
            self.assertEqual(content(size_bytes)[: len(got.body)], got.body)
        self.assertEqual(play.client.connection.sender.queued_bytes, 0)
        self.assertIsNone(play.client.goaway)


class Play:
    """One client and what it does."""

    def __init__(self) -> None:
        self.root, site = bodies_site()
        self.client = Client(site)
        self.client.takes = False
        self.asked: dict[int, int] = {}
        self.reset: set[int] = set()

    def do(self, step: str, number: int) -> None:
        """Take one step."""
        client = self.client
        if step == "begin":
            self.asked[client.begin("GET", f"/{number}")] = number
        elif step == "take":
            for stream_id in self.running():
                client.take(stream_id, number)
        elif step == "take one" and self.running():
            client.take(self.running()[number % len(self.running())], 50_000)
        elif step == "reset" and self.running():
            stream_id = self.running()[number % len(self.running())]
            client.machine.reset_stream(stream_id, ErrorCodes.CANCEL)
            self.reset.add(stream_id)
        elif step == "window":
            client.machine.update_settings({4: number})
        elif step == "frames":
            client.machine.update_settings({5: number})
        elif step == "pause":
            client.pause()
        elif step == "resume":
            client.resume()
        client.flush() if step != "wait" else client.read()

    def running(self) -> list[int]:
        """Return the streams that are not over."""
        return [number for number in self.asked if not self.client.got[number].is_whole and number not in self.reset]

    def finish(self) -> None:
        """Take everything."""
        self.client.resume()
        for _ in range(100):
            if not self.running():
                break
            self.do("take", 1_000_000)
        self.client.read()
