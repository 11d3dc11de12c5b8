"""What a client of HTTP/2 may make us hold or do: each bound is reached, and has its outcome (RULES A5)."""

from __future__ import annotations

import struct

from h2.errors import ErrorCodes
from h2.events import PingAckReceived
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.web.doubles import Echo
from tests.web.http2_client import Client, bodies_site, content
from txociproxy.web.closing import CLOSING_S, LINGER_BYTES, LINGER_S
from txociproxy.web.http2.frames import PREFACE, FrameMeter, data_head, goaway
from txociproxy.web.http2.limits import (
    CONNECTION_BYTES,
    FRAMES_PER_MINUTE,
    FRAMES_PER_REQUEST,
    MAX_CONTROL_BYTES,
    MAX_STREAMS,
    QUEUE_BYTES,
    RESETS_PER_MINUTE,
    STREAM_BYTES,
    Allowance,
)
from txociproxy.web.site import Census, DoorLimits, DoorSite, DoorTimes

CHUNK_BYTES = 64 * 1024


def frame(kind: int, payload: bytes = b"", flags: int = 0, stream_id: int = 0) -> bytes:
    """Return a frame as no careful client would send it."""
    return struct.pack(">BHBBL", 0, len(payload), kind, flags, stream_id) + payload


class FrameTests(SynchronousTestCase):
    """How frames are told apart, and made."""

    def test_frames_are_counted_in_any_pieces(self) -> None:
        """The preface is none; a frame is half said until its last byte has come."""
        data = PREFACE + frame(4) + frame(0, b"x" * 1000) + frame(1, b"y") + frame(9, b"z", 0x4)
        for size_bytes in (1, 7, 9, 10, 2000):
            meter = FrameMeter()
            kinds: list[int] = []
            for start in range(0, len(data), size_bytes):
                kinds += meter.feed(data[start : start + size_bytes])
            self.assertEqual((kinds, meter.is_between), ([4, 0, 1, 9], True), size_bytes)

    def test_what_is_half_said(self) -> None:
        """A preface, a head, a payload, a field section that goes on."""
        for data, is_between in (
            (b"", False),
            (PREFACE, True),
            (PREFACE + frame(6, b"12345678")[:5], False),
            (PREFACE + frame(6, b"12345678")[:-1], False),
            (PREFACE + frame(1, b"x"), False),
            (PREFACE + frame(1, b"x") + frame(9), False),
            (PREFACE + frame(1, b"x", 0x4), True),
            (PREFACE + frame(1, b"x") + frame(9, b"", 0x4), True),
        ):
            meter = FrameMeter()
            meter.feed(data)
            self.assertEqual(meter.is_between, is_between, data)

    def test_what_is_printed(self) -> None:
        """As RFC 9113, sections 4.1 and 6.8, draw it."""
        self.assertEqual(data_head(5, 0x012345), b"\x01\x23\x45\x00\x00\x00\x00\x00\x05")
        self.assertEqual(goaway(7, 11), b"\x00\x00\x08\x07\x00\x00\x00\x00\x00" + struct.pack(">LL", 7, 11))


class AllowanceTests(SynchronousTestCase):
    """So much at once, and as much each minute."""

    def test_it_is_refilled_by_time_and_by_merit(self) -> None:
        """A clock that steps back takes nothing away."""
        clock = Clock()
        clock.advance(1000)
        allowance = Allowance(clock, 60)
        self.assertEqual([allowance.spend(count) for count in (60, 1)], [True, False])
        clock.advance(2)
        self.assertEqual([allowance.spend(1) for _ in range(3)], [True, True, False])
        allowance.earn(1.5)
        self.assertEqual([allowance.spend(1) for _ in range(2)], [True, False])
        clock.rightNow -= 500
        self.assertFalse(allowance.spend(1))
        clock.advance(1)
        self.assertTrue(allowance.spend(1))

    def test_merit_is_bounded(self) -> None:
        """Whoever was given a lot may not say as much at once; and what is earned is not lost by waiting."""
        clock = Clock()
        allowance = Allowance(clock, 60)
        allowance.earn(10_000)
        clock.advance(10)
        self.assertEqual([allowance.spend(count) for count in (240, 1)], [True, False])


class FloodTests(SynchronousTestCase):
    """Frames that cost their sender nothing."""

    def ended(self, client: Client) -> None:
        """See the connection being closed with a reason."""
        assert client.goaway is not None
        self.assertEqual(client.goaway[1], ErrorCodes.ENHANCE_YOUR_CALM)
        self.assertTrue(client.wire.half_closed)

    def test_a_hundred_resets_a_minute_and_no_more(self) -> None:
        """Requests that are reset at once (CVE-2023-44487)."""
        client = Client()
        client.root.waits = True
        for _ in range(RESETS_PER_MINUTE):
            stream_id = client.begin()
            client.flush()
            client.machine.reset_stream(stream_id, ErrorCodes.CANCEL)
            client.flush()
        self.assertIsNone(client.goaway)
        stream_id = client.begin()
        client.machine.reset_stream(stream_id, ErrorCodes.CANCEL)
        client.flush()
        self.ended(client)
        self.assertEqual(len(client.root.seen), RESETS_PER_MINUTE)

    def test_what_is_reset_in_the_same_breath_is_not_even_begun(self) -> None:
        """It would be work for nobody."""
        client = Client()
        for _ in range(10):
            client.machine.reset_stream(client.begin(), ErrorCodes.CANCEL)
        client.flush()
        self.assertEqual(client.root.seen, [])
        self.assertEqual(client.ask().status, 200)

    def test_time_forgives_resets(self) -> None:
        """A client that gives up a pull now and then is a good one."""
        client = Client()
        client.root.waits = True
        for _ in range(2 * RESETS_PER_MINUTE):
            stream_id = client.begin()
            client.flush()
            client.machine.reset_stream(stream_id, ErrorCodes.CANCEL)
            client.flush()
            client.clock.advance(0.7)
        self.assertIsNone(client.goaway)

    def test_streams_that_a_client_makes_us_reset_count_as_its_own(self) -> None:
        """By a window that overflows, for example (CVE-2025-8671)."""
        client = Client()
        client.root.waits = True
        codes: set[int | None] = set()
        for _ in range(RESETS_PER_MINUTE + 1):
            if client.goaway is None:
                stream_id = client.begin()
                client.flush()
                client.send(frame(8, struct.pack(">L", 0x7FFFFFFF), 0, stream_id))
                codes.add(client.got[stream_id].reset)
        self.assertIn(ErrorCodes.FLOW_CONTROL_ERROR, codes)
        self.ended(client)

    def test_each_kind_of_frame_has_its_bound(self) -> None:
        """PING, SETTINGS, PRIORITY, WINDOW_UPDATE, and what nobody knows."""
        kinds = {
            "PING": frame(6, b"12345678"),
            "SETTINGS": frame(4),
            "PRIORITY": frame(2, struct.pack(">LB", 0, 5), 0, 1),
            "WINDOW_UPDATE": frame(8, struct.pack(">L", 1)),
            "unknown": frame(0xB7, b"x"),
        }
        for name, data in kinds.items():
            client = Client()
            for _ in range(FRAMES_PER_MINUTE // 100 - 1):
                client.send(data * 100)
            self.assertIsNone(client.goaway, name)
            client.send(data * 200)
            self.ended(client)

    def test_empty_frames_of_a_form_have_it_too(self) -> None:
        """They are paid with nothing (CVE-2019-9518)."""
        client = Client()
        stream_id = client.begin("POST", "/v2/_token", ends=False)
        client.flush()
        client.send(frame(0, b"", 0, stream_id) * (FRAMES_PER_MINUTE + FRAMES_PER_REQUEST + 1))
        self.ended(client)

    def test_requests_and_bodies_give_more(self) -> None:
        """A client that opens its window for each frame is none that floods."""
        _, site = bodies_site()
        client = Client(site)
        for _ in range(2):
            got = client.ask("GET", "/12000000")
            self.assertEqual((got.is_whole, len(got.body)), (True, 12_000_000))
        self.assertIsNone(client.goaway)

    def test_each_request_gives_some(self) -> None:
        """A client that asks between its requests whether we are there is a good one."""
        client = Client()
        for _ in range(FRAMES_PER_MINUTE // 4):
            for _ in range(5):
                client.machine.ping(b"12345678")
            self.assertEqual(client.ask().status, 200)
        self.assertIsNone(client.goaway)

    def test_a_field_section_without_end_is_given_up(self) -> None:
        """Frames that continue it are counted by h2 (CVE-2024-27316)."""
        client = Client()
        client.send(frame(1, b"", 0, 1))
        for _ in range(100):
            if client.goaway is None:
                client.send(frame(9, b"", 0, 1))
        assert client.goaway is not None
        self.assertEqual((client.goaway[1], client.root.seen), (ErrorCodes.PROTOCOL_ERROR, []))
        self.assertTrue(client.wire.half_closed)

    def test_one_stream_too_many_ends_the_connection(self) -> None:
        """A client knows how many there may be."""
        client = Client()
        client.root.waits = True
        for _ in range(MAX_STREAMS):
            client.begin()
        client.flush()
        self.assertEqual((len(client.root.seen), client.goaway), (MAX_STREAMS, None))
        client.machine.remote_settings[3] = 1000
        client.machine.remote_settings.acknowledge()
        client.begin()
        client.flush()
        self.assertEqual(len(client.root.seen), MAX_STREAMS)
        self.assertTrue(client.wire.half_closed)

    def test_compression_uses_no_more_memory_than_by_default(self) -> None:
        """A client may allow gigabytes for its table, which our encoder would fill."""
        client = Client()
        client.machine.update_settings({1: 1 << 30})
        client.flush()
        self.assertLessEqual(client.connection._machine.encoder.header_table_size, 4096)
        self.assertEqual(client.ask().status, 200)

    def test_what_comes_after_the_end_is_swallowed_up_to_a_bound(self) -> None:
        """Nothing of it is kept, or answered."""
        client = Client()
        client.connection.close()
        client.read()
        for _ in range(LINGER_BYTES // CHUNK_BYTES):
            client.door.dataReceived(b"x" * CHUNK_BYTES)
        self.assertFalse(client.wire.disconnected)
        client.door.dataReceived(b"x")
        self.assertTrue(client.wire.disconnected)


class MemoryTests(SynchronousTestCase):
    """What waits for a client that does not read."""

    def test_answers_to_frames_are_bounded_while_the_client_does_not_read(self) -> None:
        """The client sends what we have to acknowledge, however slowly, and never reads."""
        client = Client()
        client.root.waits = True
        client.begin()
        client.flush()
        client.pause()
        for count in range(1, MAX_CONTROL_BYTES // 17 // 500 + 10):
            if client.wire.disconnected:
                break
            client.door.dataReceived(frame(6, b"12345678") * 500)
            client.clock.advance(30)
            acknowledged_bytes = 17 * 500 * count
        self.assertTrue(client.wire.disconnected)
        self.assertGreater(acknowledged_bytes, MAX_CONTROL_BYTES)
        self.assertEqual(client.wire.value(), b"")

    def test_acknowledgements_leave_once_the_client_reads_again(self) -> None:
        """In their order, and before bodies."""
        client = Client()
        client.pause()
        client.machine.ping(b"12345678")
        client.flush()
        self.assertEqual([event for event in client.events if isinstance(event, PingAckReceived)], [])
        client.resume()
        client.read()
        self.assertEqual(len([event for event in client.events if isinstance(event, PingAckReceived)]), 1)

    def test_a_stream_has_no_more_waiting_than_its_client_asked_for(self) -> None:
        """One chunk of a Reader beyond it; and never more than its bound, however large the window."""
        for window_bytes, most_bytes in ((0, 0), (1, CHUNK_BYTES), (65_535, CHUNK_BYTES), (1 << 30, STREAM_BYTES)):
            _, site = bodies_site()
            client = Client(site, window_bytes=window_bytes)
            client.machine.increment_flow_control_window((1 << 30) - 65_535)
            client.takes = False
            client.flush()
            client.pause()
            client.begin("GET", "/10000000")
            client.flush()
            sender = client.connection.sender
            self.assertLessEqual(sender.queued_bytes, most_bytes, window_bytes)
            self.assertGreaterEqual(sender.queued_bytes, min(window_bytes, STREAM_BYTES))
            client.resume()
            client.read()
            self.assertLessEqual(sender.queued_bytes, most_bytes, window_bytes)

    def test_all_streams_of_a_connection_have_a_bound_together(self) -> None:
        """A hundred large windows and a client that does not read."""
        _, site = bodies_site()
        client = Client(site, window_bytes=1 << 30)
        client.machine.increment_flow_control_window((1 << 31) - 1 - 65_535)
        client.flush()
        client.pause()
        for number in range(MAX_STREAMS):
            client.begin("GET", f"/{200_000 + number}")
            client.flush()
        self.assertLess(client.connection.sender.queued_bytes, CONNECTION_BYTES + CHUNK_BYTES)
        client.resume()
        client.read()
        self.assertEqual(sum(len(got.body) for got in client.got.values()), 100 * 200_000 + sum(range(100)))

    def test_whole_bodies_in_memory_have_a_bound_too(self) -> None:
        """The stream that is too much is reset; the others go on."""
        client = Client()
        client.takes = False
        client.root.waits = True
        ids = [client.begin() for _ in range(5)]
        client.flush()
        for request in [client.request_of(stream_id) for stream_id in ids]:
            request.write(b"x" * (QUEUE_BYTES // 4))
        client.read()
        self.assertEqual(
            [client.got[stream_id].reset for stream_id in ids], [None] * 4 + [ErrorCodes.ENHANCE_YOUR_CALM]
        )
        self.assertLessEqual(client.connection.sender.queued_bytes, QUEUE_BYTES)


class TimeTests(SynchronousTestCase):
    """How long nothing may happen (RULES A5)."""

    TIMES = DoorTimes(header_s=20, idle_s=60)

    def client(self, **more: bool) -> Client:
        """Connect."""
        return Client(times=self.TIMES, **more)  # type: ignore[arg-type]

    def closed_after(self, client: Client, delay_s: float) -> None:
        """See the connection being closed then, and not before; and gone at last, whatever the client does."""
        client.clock.advance(delay_s - 0.5)
        client.read()
        self.assertFalse(client.wire.half_closed or client.wire.disconnecting)
        client.clock.advance(0.5)
        self.assertTrue(client.wire.half_closed)
        client.clock.advance(LINGER_S)
        self.assertTrue(client.wire.disconnected)
        client.hang_up()
        self.assertEqual(client.clock.getDelayedCalls(), [])

    def test_a_preface_without_settings(self) -> None:
        """In time for a head."""
        client = self.client(greets=False)
        client.door.dataReceived(PREFACE)
        self.closed_after(client, 20)

    def test_a_connection_without_streams(self) -> None:
        """Whatever is said on it meanwhile."""
        client = self.client()
        for _ in range(5):
            client.clock.advance(10)
            client.machine.ping(b"12345678")
            client.flush()
        self.closed_after(client, 10)
        self.assertEqual(client.goaway, None)

    def test_it_is_told_why(self) -> None:
        """No error: it may come again."""
        client = self.client()
        client.clock.advance(60)
        client.read()
        self.assertEqual(client.goaway, (0, ErrorCodes.NO_ERROR))

    def test_a_stream_starts_the_clock_anew(self) -> None:
        """From its end."""
        client = self.client()
        client.clock.advance(59)
        client.ask()
        self.closed_after(client, 60)

    def test_a_stream_may_wait_as_long_as_its_answer_takes(self) -> None:
        """Neither clock runs."""
        client = self.client()
        client.root.waits = True
        stream_id = client.begin()
        client.flush()
        client.clock.advance(1000)
        request = client.request_of(stream_id)
        request.finish()
        client.read()
        self.assertTrue(client.got[stream_id].is_whole)
        self.closed_after(client, 60)

    def test_what_is_half_said(self) -> None:
        """A frame, or a field section, also beside a stream that waits for its answer."""
        section = frame(1, b"", 0, 5)
        for data, more in ((frame(6, b"12345678")[:-1], b""), (section, frame(9, b"", 0, 5)), (section[:4], b"")):
            client = self.client()
            client.root.waits = True
            client.begin()
            client.flush()
            client.clock.advance(100)
            client.door.dataReceived(data)
            client.clock.advance(10)
            client.door.dataReceived(more)
            client.clock.advance(9.5)
            self.assertFalse(client.wire.half_closed)
            client.clock.advance(0.5)
            self.assertTrue(client.wire.half_closed)

    def test_what_is_whole_in_time_stops_the_clock(self) -> None:
        """And the next half starts it anew."""
        client = self.client()
        client.root.waits = True
        client.begin()
        client.flush()
        ping = frame(6, b"12345678")
        client.send(ping[:5])
        for _ in range(5):
            client.clock.advance(19)
            client.send(ping[5:] + ping[:5])
        self.assertFalse(client.wire.half_closed)
        client.send(ping[5:])
        client.clock.advance(100)
        self.assertFalse(client.wire.half_closed)

    def test_a_form_that_drips_ends_its_stream(self) -> None:
        """In time for a head; the connection goes on."""
        client = self.client()
        stream_id = client.begin("POST", "/v2/_token", ends=False)
        client.flush()
        for _ in range(9):
            client.clock.advance(2)
            client.machine.send_data(stream_id, b"x")
            client.flush()
        self.assertIsNone(client.got[stream_id].reset)
        client.clock.advance(2)
        client.read()
        self.assertEqual(client.got[stream_id].reset, ErrorCodes.CANCEL)
        self.assertEqual((client.ask().status, len(client.root.seen)), (200, 1))

    def test_a_form_that_came_in_time_may_wait_for_its_answer(self) -> None:
        """Its clock has stopped."""
        client = self.client()
        client.root.waits = True
        stream_id = client.begin("POST", "/v2/_token", ends=False)
        client.machine.send_data(stream_id, b"a=b", end_stream=True)
        client.flush()
        client.clock.advance(100)
        client.read()
        self.assertIsNone(client.got[stream_id].reset)

    def test_an_answer_that_nobody_takes_ends_its_stream(self) -> None:
        """Its Reader is done, and what waits is bounded; so is the time."""
        client = self.client()
        client.takes, client.root.waits = False, True
        stream_id = client.begin()
        client.flush()
        request = client.request_of(stream_id)
        request.write(b"x" * 100_000)
        request.finish()
        client.clock.advance(CLOSING_S - 1)
        client.read()
        got = client.got[stream_id]
        self.assertEqual((len(got.body), got.reset, client.wire.half_closed), (65_535, None, False))
        client.clock.advance(1)
        client.read()
        self.assertEqual((len(got.body), got.reset), (65_535, ErrorCodes.CANCEL))
        self.assertEqual(client.connection.sender.queued_bytes, 0)
        self.assertIsNone(client.goaway)

    def test_no_clock_outlives_its_connection(self) -> None:
        """Whatever it was doing."""
        for data in (b"", b"PR", PREFACE, PREFACE + frame(4), PREFACE + frame(4) + frame(1, b"", 0, 1)):
            client = self.client(greets=False)
            client.door.dataReceived(data) if data else None
            client.hang_up()
            client.clock.advance(0)
            self.assertEqual(client.clock.getDelayedCalls(), [], data)


class CensusTests(SynchronousTestCase):
    """A connection of HTTP/2 has one place, however many streams it has (RULES A5)."""

    def test_it_has_one_place(self) -> None:
        """And gives it back."""
        client = Client()
        client.root.waits = True
        for _ in range(10):
            client.begin()
        client.flush()
        self.assertEqual(client.site.census.connections, 1)
        client.hang_up()
        self.assertEqual(client.site.census.connections, 0)

    def test_one_too_many_is_told_to_calm_down(self) -> None:
        """In its own language; its requests are not read."""
        first = Client(limits=DoorLimits(max_connections_per_client=1))
        for negotiated in (None, b"h2"):
            second = Client(first.site, negotiated=negotiated)
            self.assertEqual(second.goaway, (0, ErrorCodes.ENHANCE_YOUR_CALM))
            self.assertTrue(second.wire.half_closed)
            second.door.dataReceived(b"x")
            first.clock.advance(LINGER_S)
            self.assertTrue(second.wire.disconnected)
            second.hang_up()
        self.assertEqual(first.site.census.connections, 1)

    def test_draining_closes_what_is_idle(self) -> None:
        """With a word."""
        client = Client()
        client.ask()
        client.site.census.drain()
        client.read()
        self.assertEqual((client.goaway, client.wire.half_closed), ((1, ErrorCodes.NO_ERROR), True))

    def test_draining_lets_streams_finish_and_takes_no_new_ones(self) -> None:
        """A new one is refused in the way that says: ask elsewhere; then the connection is closed."""
        root, site = bodies_site()
        client = Client(site)
        client.takes = False
        running = client.begin("GET", "/200000")
        client.flush()
        for _ in range(2):
            site.census.drain()
        client.read()
        self.assertEqual(client.goaway, (running, ErrorCodes.NO_ERROR))
        late = client.begin("GET", "/1")
        client.flush()
        self.assertEqual((client.got[late].reset, client.got[late].status), (ErrorCodes.REFUSED_STREAM, None))
        self.assertFalse(client.wire.half_closed)
        client.takes = True
        client.take(running, 65_535)
        client.flush()
        self.assertEqual(client.got[running].body, content(200_000))
        self.assertEqual((client.got[running].is_whole, client.wire.half_closed), (True, True))
        self.assertEqual(client.goaway, (running, ErrorCodes.NO_ERROR))
        self.assertEqual(root.ends, {b"/200000": "finished"})
        # The kernel may still hold megabytes of it, and the client says how far it is; a reset would lose them.
        client.clock.advance(CLOSING_S - 1)
        self.assertFalse(client.wire.disconnected)
        client.clock.advance(1)
        self.assertTrue(client.wire.disconnected)

    def test_what_was_announced_holds_when_something_goes_wrong_later(self) -> None:
        """A last stream that became higher would be a promise to answer what was refused (RFC 9113 §6.8)."""
        _, site = bodies_site()
        client = Client(site)
        client.takes = False
        running = client.begin("GET", "/200000")
        client.flush()
        site.census.drain()
        client.begin("GET", "/1")
        client.flush()
        client.send(frame(6, b"12345678") * (2 * FRAMES_PER_MINUTE))
        self.assertEqual(client.goaway, (running, ErrorCodes.ENHANCE_YOUR_CALM))

    def test_an_answer_that_has_begun_survives_a_goodbye(self) -> None:
        """h2 forgets what it has printed and we have not taken yet."""
        client = Client()
        client.root.waits = True
        stream_id = client.begin()
        client.flush()
        request = client.request_of(stream_id)
        request.write(b"early")
        client.send(goaway(0, ErrorCodes.NO_ERROR))
        request.finish()
        client.read()
        got = client.got[stream_id]
        self.assertEqual((got.status, got.body, got.is_whole), (200, b"early", True))

    def test_a_client_that_says_goodbye_still_gets_what_it_has_asked_for(self) -> None:
        """GOAWAY without an error; with one, all is lost."""
        for code, is_whole in ((ErrorCodes.NO_ERROR, True), (ErrorCodes.INTERNAL_ERROR, False)):
            root = Echo()
            client = Client(DoorSite(root, Clock(), Census(DoorLimits())))
            root.waits = True
            stream_id = client.begin()
            client.flush()
            request = client.request_of(stream_id)
            lost: list[object] = []
            request.notifyFinish().addErrback(lost.append)
            client.send(goaway(0, code))
            if is_whole:
                request.write(b"late")
                request.finish()
                client.read()
            self.assertEqual((client.got[stream_id].is_whole, len(lost)), (is_whole, int(not is_whole)))
            self.assertTrue(client.wire.half_closed)
