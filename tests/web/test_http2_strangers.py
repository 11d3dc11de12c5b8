"""What a stranger tried on a connection of HTTP/2: words in an unusual order, long heads, and ends at odd moments."""

from __future__ import annotations

import struct
from typing import Any

from h2.errors import ErrorCodes
from h2.events import PingAckReceived
from hpack import Encoder, NeverIndexedHeaderTuple
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.web.http2_client import Client, Got, bodies_site, content
from txociproxy.web.http2.frames import goaway
from txociproxy.web.http2.limits import FRAMES_PER_MINUTE, HEAD_BYTES_PER_MINUTE, RESETS_PER_MINUTE, Allowance
from txociproxy.web.http2.machine import HeadReader
from txociproxy.web.site import Census, DoorLimits, DoorSite, DoorTimes
from txociproxy.web.switch import Switch

KIB = 1024
HEAD = [(":method", "GET"), (":path", "/v2/"), (":scheme", "http"), (":authority", "cache.example")]
TOKEN = ("authorization", "Bearer " + "x" * 100 * KIB)


def frame(kind: int, payload: bytes = b"", flags: int = 0, stream_id: int = 0) -> bytes:
    """Return a frame as no careful client would send it."""
    return struct.pack(">BHBBL", 0, len(payload), kind, flags, stream_id) + payload


def long_head(stream_id: int) -> bytes:
    """Return a request with a token, in as many frames as it takes."""
    block = Encoder().encode([NeverIndexedHeaderTuple(*each) for each in (*HEAD, TOKEN)], huffman=False)
    pieces = [block[start : start + 16_384] for start in range(0, len(block), 16_384)]
    frames = [frame(9, piece, 0, stream_id) for piece in pieces[1:-1]]
    return frame(1, pieces[0], 1, stream_id) + b"".join(frames) + frame(9, pieces[-1], 4, stream_id)


class OrderTests(SynchronousTestCase):
    """Words that come in one breath."""

    def test_a_request_in_the_first_breath_may_wait_as_long_as_any_other(self) -> None:
        """Many clients send preface, settings and request together."""
        client = Client(greets=False, times=DoorTimes(header_s=20, idle_s=60))
        client.root.waits = True
        stream_id = client.begin()
        client.flush()
        client.clock.advance(1000)
        client.read()
        self.assertIsNone(client.goaway)
        client.request_of(stream_id).finish()
        client.read()
        self.assertTrue(client.got[stream_id].is_whole)
        client.clock.advance(60)
        self.assertTrue(client.wire.half_closed)

    def test_a_goodbye_does_not_end_what_comes_with_it(self) -> None:
        """The window for what still arrives comes in the same breath (RFC 9113 §6.8)."""
        root, site = bodies_site()
        client = Client(site)
        client.takes = False
        stream_id = client.begin("GET", "/100000")
        client.flush()
        self.assertEqual(len(client.got[stream_id].body), 65_535)
        for number in (None, stream_id):
            client.machine.increment_flow_control_window(65_535, number)
        windows = client.machine.data_to_send()
        client.send(frame(6, b"12345678") + goaway(0, ErrorCodes.NO_ERROR) + windows)
        got = client.got[stream_id]
        self.assertEqual((got.is_whole, got.body), (True, content(100_000)))
        self.assertEqual(root.ends, {b"/100000": "finished"})
        self.assertEqual(len([event for event in client.events if isinstance(event, PingAckReceived)]), 1)
        self.assertTrue(client.wire.half_closed)

    def test_windows_that_shrink_below_nothing_stop_a_body_and_no_more(self) -> None:
        """A client may take back what it has given (RFC 9113 §6.9.2)."""
        _, site = bodies_site()
        client = Client(site, window_bytes=200_000)
        client.machine.increment_flow_control_window(1 << 20)
        client.takes = False
        client.flush()
        stream_id = client.begin("GET", "/500000")
        client.flush()
        got = client.got[stream_id]
        self.assertEqual(len(got.body), 200_000)
        client.machine.update_settings({4: 1000})
        client.flush()
        client.machine.increment_flow_control_window(198_000, stream_id)
        client.flush()
        self.assertEqual((len(got.body), client.goaway), (200_000, None))
        client.machine.increment_flow_control_window(400_000, stream_id)
        client.flush()
        self.assertEqual((got.body, got.is_whole), (content(500_000), True))

    def test_frames_are_never_longer_than_the_client_allows_now(self) -> None:
        """It may change its mind in the middle of a body; h2 is the judge."""
        _, site = bodies_site()
        client = Client(site)
        for size_bytes in (1 << 20, 16_384, (1 << 24) - 1):
            client.machine.update_settings({5: size_bytes})
            got = client.ask("GET", "/300000")
            self.assertEqual((got.is_whole, client.goaway), (True, None), size_bytes)


class LongHeadTests(SynchronousTestCase):
    """Reading heads costs more than anything else that a client can make us do with few bytes."""

    def ask(self, client: Client) -> Got:
        """Ask with a token of 100 KiB, which is never indexed and has no Huffman code: to make that takes long."""
        stream_id = client.machine.get_next_available_stream_id()
        client.machine.send_headers(stream_id, HEAD, end_stream=True)
        client.machine.clear_outbound_data_buffer()
        client.got[stream_id] = Got()
        client.send(long_head(stream_id))
        return client.got[stream_id]

    def test_eighty_long_tokens_at_once_are_welcome_and_then_another_connection_is(self) -> None:
        """What was asked is answered; nothing is lost by a client that reads what it is told."""
        client = Client()
        answered = 0
        while client.goaway is None:
            answered += self.ask(client).status == 200
        self.assertEqual((answered * 100 * KIB) // (HEAD_BYTES_PER_MINUTE // 2), 1)
        self.assertGreaterEqual(answered, 80)
        self.assertEqual(client.goaway[1], ErrorCodes.NO_ERROR)
        self.assertTrue(client.wire.half_closed)

    def test_requests_that_run_are_answered_then(self) -> None:
        """And new ones are refused in the way that says: ask elsewhere."""
        client = Client()
        client.root.waits = True
        first = client.begin()
        client.flush()
        client.root.waits = False
        while client.goaway is None:
            self.ask(client)
        late = client.ask()
        self.assertEqual((late.status, late.reset), (None, ErrorCodes.REFUSED_STREAM))
        client.request_of(first).finish()
        client.read()
        self.assertTrue(client.got[first].is_whole)
        self.assertTrue(client.wire.half_closed)

    def test_one_that_does_not_listen_is_cut_off(self) -> None:
        """Heads that are refused are read too."""
        client = Client()
        client.root.waits = True
        client.begin()
        client.flush()
        for _ in range(200):
            if not client.wire.half_closed:
                self.ask(client)
        self.assertTrue(client.wire.half_closed)
        assert client.goaway is not None
        self.assertEqual(client.goaway[1], ErrorCodes.ENHANCE_YOUR_CALM)

    def test_time_forgives(self) -> None:
        """A long token on each of a hundred requests a minute."""
        client = Client()
        for _ in range(200):
            self.assertEqual(self.ask(client).status, 200)
            client.clock.advance(0.6)
        self.assertIsNone(client.goaway)

    def test_ordinary_heads_cost_nothing(self) -> None:
        """However many."""
        reader = HeadReader(Clock())
        for _ in range(1000):
            reader.decode(b"\x82\x84\x86" + b"\x90" * 10)
        self.assertTrue(reader._allowance.has(HEAD_BYTES_PER_MINUTE))

    def test_few_bytes_that_stand_for_many_count_as_many(self) -> None:
        """A field of the table is one byte (RFC 7541 §6.1)."""
        reader = HeadReader(Clock())
        block = b"\x90" * 4000  # accept-encoding: gzip, deflate: 60 with what each field counts
        for _ in range(HEAD_BYTES_PER_MINUTE // (4000 * 60) // 2 - 1):
            reader.decode(block)
        self.assertFalse(reader.is_weary)
        reader.decode(block)
        reader.decode(block)
        self.assertTrue(reader.is_weary)

    def test_heads_that_begin_nothing_are_frames_like_others(self) -> None:
        """On a stream that was reset they are answered with another reset, each."""
        client = Client()
        stream_id = client.begin("POST", "/v2/_token", ends=False)
        client.flush()
        client.connection._streams[stream_id].cut_short()
        client.read()
        block = client.machine.encoder.encode([(":method", "GET")])
        for _ in range(FRAMES_PER_MINUTE + 20):
            if not client.wire.half_closed:
                client.door.dataReceived(frame(1, block, 0x5, stream_id))
                client.clock.advance(0)
        self.assertTrue(client.wire.half_closed)

    def test_what_is_there_is_not_taken_by_asking(self) -> None:
        """And what is not there is not either."""
        allowance = Allowance(Clock(), 60)
        self.assertEqual(
            [allowance.has(60), allowance.has(61), allowance.spend(61), allowance.spend(60)], [True, False, False, True]
        )


class EndTests(SynchronousTestCase):
    """Ends at moments that nobody chose."""

    def lose(self, end: Any) -> tuple[Client, list[int]]:
        """Let one request's end be another one's beginning, on a connection that ends."""
        client = Client()
        client.root.waits = True
        ids = [client.begin() for _ in range(2)]
        client.flush()
        first, second = (client.request_of(stream_id) for stream_id in ids)
        ends: list[int] = []

        def answer(_: object) -> None:
            second.write(b"it is your turn")
            second.channel.cut_short()
            ends.append(1)

        first.notifyFinish().addErrback(answer)
        second.notifyFinish().addErrback(lambda _: ends.append(2))
        end(client)
        client.clock.advance(0)
        return client, ends

    def test_what_one_request_lets_go_another_may_have_on_a_connection_that_ends(self) -> None:
        """A place that it has waited for; its answer goes nowhere, quietly."""
        for end in (Client.hang_up, lambda client: client.connection.close()):
            _, ends = self.lose(end)
            self.assertEqual(ends, [1, 2])

    def test_what_comes_after_we_have_hung_up_is_not_read(self) -> None:
        """Under TLS a client may go on for a while; it must not get a second life by that."""
        site = DoorSite(bodies_site()[0], Clock(), Census(DoorLimits()))
        client = Client(site, greets=False)
        self.assertIsInstance(client.door, Switch)
        client.door.dataReceived(b"PR")
        site.census.drain()
        client.door.dataReceived(b"I * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        self.assertIsNone(client.door.spoken)
        client.clock.advance(15)
        self.assertTrue(client.wire.disconnected)

    def test_resets_that_we_owe_to_late_frames_are_bounded(self) -> None:
        """Frames of a request that we have refused are no reason to go on for ever."""
        client = Client()
        stream_id = client.begin("PUT", "/v2/a/manifests/b", ("content-length", "9000000"), ends=False)
        client.flush()
        self.assertEqual(client.got[stream_id].status, 405)
        for _ in range(FRAMES_PER_MINUTE + RESETS_PER_MINUTE):
            if not client.wire.half_closed:
                client.door.dataReceived(frame(0, b"x" * 100, 0, stream_id))
                client.clock.advance(0)
        self.assertTrue(client.wire.half_closed)

    def test_what_is_sent_in_vain_costs_no_window(self) -> None:
        """The window of the connection is opened again for bodies that are refused, whoever still reads them."""
        client = Client()
        for _ in range(10):
            stream_id = client.begin("PUT", "/v2/a/manifests/b", ("content-length", "30000"), ends=False)
            for _ in range(2):
                client.machine.send_data(stream_id, b"x" * 15_000)
            client.flush()
            self.assertEqual(client.got[stream_id].status, 405)
        self.assertGreaterEqual(client.machine.outbound_flow_control_window, 30_000)

    def test_a_form_that_is_whole_makes_room_for_the_next(self) -> None:
        """Also while its answer takes its time."""
        client = Client()
        client.root.waits = True
        for number in range(20):
            stream_id = client.begin("POST", "/v2/_token", ends=False)
            client.machine.send_data(stream_id, b"a=" + b"b" * 15_000, end_stream=True)
            client.flush()
            self.assertEqual((client.got[stream_id].status, len(client.root.seen)), (None, number + 1))
