"""The Reader that carries bodies."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from twisted.internet.interfaces import IProducer

from tests.bodies.scene import DATA, STALL_S, BodyCase, SlowBody
from tests.doubles import FakeSink
from txociproxy.bodies.lending import MemoryBody
from txociproxy.bodies.reader import BODY_WAIT_S, CHUNK_BYTES


class ReaderTests(BodyCase):
    """A Reader ends in exactly one way, and waits for its client or its body only."""

    def test_it_carries_a_whole_body_or_a_part(self) -> None:
        """To the end, or to where it is told to stop."""
        for start, stop in ((0, None), (0, 5), (7, None), (7, 7), (len(DATA), None), (3, 400_000)):
            sink = FakeSink()
            self.reader(MemoryBody(DATA, promised=1), sink, start, stop)
            self.assertEqual((bytes(sink.written), sink.ending), (DATA[start:stop], "finished"))
        self.assertEqual(self.ends, ["finished"] * 6)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_it_stops_when_its_client_is_full_and_goes_on(self) -> None:
        """One chunk at a time here."""
        sink = FakeSink(capacity_bytes=1)
        self.reader(MemoryBody(DATA, promised=1), sink)
        for count in range(1, len(DATA) // CHUNK_BYTES + 1):
            self.assertEqual(len(sink.written), count * CHUNK_BYTES)
            sink.drain()
        self.assertEqual((bytes(sink.written) == DATA, self.ends), (True, ["finished"]))

    def test_it_waits_for_its_body(self) -> None:
        """However long it takes within reason, and a client that has nothing to take is not stalled."""
        body, sink = SlowBody(3, promised=1), FakeSink()
        self.reader(body, sink)
        for data in (b"a", b"b", b"c"):
            self.clock.pump([STALL_S] * 3)
            body.come(data)
        self.assertEqual((bytes(sink.written), self.ends, body.closed), (b"abc", ["finished"], 1))

    def test_a_client_that_takes_nothing_is_cut(self) -> None:
        """After its patience, counted from the last progress."""
        body, sink = SlowBody(2, promised=1), FakeSink(capacity_bytes=1)
        self.reader(body, sink)
        self.clock.advance(STALL_S)
        body.come(b"a")
        self.clock.advance(STALL_S)
        self.assertEqual(self.ends, [])
        self.clock.advance(STALL_S)
        self.assertEqual((sink.ending, self.ends, body.closed), ("cut", ["cut"], 1))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_client_that_takes_a_little_now_and_then_is_not_cut(self) -> None:
        """Slow is not stalled."""
        sink = FakeSink(capacity_bytes=1)
        self.reader(MemoryBody(DATA, promised=1), sink)
        while not self.ends:
            self.clock.advance(STALL_S - 1)
            sink.drain()
        self.assertEqual(self.ends, ["finished"])

    def test_a_body_that_gives_nothing_for_too_long_is_given_up(self) -> None:
        """A disk that hangs under a hit must not hold a client for ever."""
        body, sink = SlowBody(2, promised=1), FakeSink()
        self.reader(body, sink)
        self.clock.advance(STALL_S)
        body.come(b"a")
        self.clock.pump([STALL_S] * int(BODY_WAIT_S // STALL_S))
        self.assertEqual(self.ends, [])
        self.clock.advance(STALL_S)
        self.assertEqual((sink.ending, self.ends), ("cut", ["cut"]))

    def test_a_lost_body_is_cut(self) -> None:
        """At once, or when a paused client goes on."""
        for capacity in (None, 1):
            body, sink = SlowBody(2, promised=1), FakeSink(capacity)
            self.reader(body, sink)
            body.come(b"a")
            body.lose()
            if capacity is not None:
                self.assertIsNone(sink.ending)
                sink.drain()
            self.assertEqual((sink.ending, sink.producer, bytes(sink.written)), ("cut", None, b"a"))
        self.assertEqual(self.ends, ["cut", "cut"])

    def test_a_client_that_leaves_is_neither_finished_nor_cut(self) -> None:
        """Its response is not touched any more; the body is let go of."""
        body, sink = SlowBody(2, promised=1), FakeSink()
        reader = self.reader(body, sink)
        body.come(b"a")
        sink.leave()
        self.assertEqual((sink.ending, self.ends, body.closed), (None, ["left"], 1))
        reader.stopProducing()
        reader.resumeProducing()
        reader.advanced()
        body.come(b"b")
        self.assertEqual((bytes(sink.written), self.ends, body.closed), (b"a", ["left"], 1))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_client_that_is_gone_before_the_start(self) -> None:
        """Its transport stops the producer while it is being registered."""

        class Gone(FakeSink):
            def registerProducer(self, producer: IProducer, streaming: bool) -> None:
                producer.stopProducing()

        body, sink = SlowBody(2, data=b"ab", promised=1), Gone()
        self.reader(body, sink)
        self.assertEqual((self.ends, body.closed, bytes(sink.written)), (["left"], 1, b""))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def happen(self, what: str, body: SlowBody, sink: FakeSink) -> None:
        """Do something in the middle of a write."""
        assert sink.producer is not None
        if what.startswith("pause"):
            sink.producer.pauseProducing()
        if what == "pause and resume":
            sink.producer.resumeProducing()
        elif what == "leave":
            sink.leave()
        elif what == "lost":
            body.lose()
        elif what == "more" and len(body.data) == CHUNK_BYTES:
            body.come(DATA[CHUNK_BYTES : 2 * CHUNK_BYTES])

    def test_a_client_that_pauses_and_resumes_in_every_write_needs_no_stack(self) -> None:
        """Going on is a loop, not a call within a call."""

        class Nervous(FakeSink):
            def write(self, data: bytes) -> None:
                super().write(data)
                self.pauses()

            def pauses(self) -> None:
                assert self.producer is not None
                self.producer.pauseProducing()
                self.producer.resumeProducing()

        body, sink = SlowBody(5000, data=DATA[:5000], promised=1, step_bytes=1), Nervous()
        self.reader(body, sink)
        self.assertEqual((bytes(sink.written), self.ends), (DATA[:5000], ["finished"]))

    def test_whatever_happens_during_a_write(self) -> None:
        """Pausing, going on, leaving, more bytes: a write may do all of it before it returns."""

        class Busy(FakeSink):
            act: Callable[[], None]

            def write(self, data: bytes) -> None:
                super().write(data)
                self.act()

        for happens in ("pause", "pause and resume", "leave", "more", "lost"):
            body, sink = SlowBody(2 * CHUNK_BYTES, data=DATA[:CHUNK_BYTES], promised=1), Busy()
            sink.act = partial(self.happen, happens, body, sink)
            self.reader(body, sink)
            if len(body.data) == CHUNK_BYTES and not self.ends:
                body.come(DATA[CHUNK_BYTES : 2 * CHUNK_BYTES])
            while not self.ends:
                sink.drain()
            ending = {"leave": "left", "lost": "cut"}.get(happens, "finished")
            length = CHUNK_BYTES if ending != "finished" else 2 * CHUNK_BYTES
            self.assertEqual((happens, self.ends, bytes(sink.written)), (happens, [ending], DATA[:length]))
            self.assertEqual((body.closed, self.clock.getDelayedCalls()), (1, []))
            self.ends.clear()
