"""Bodies that are here, the Reader that carries them, and the window of those that arrive."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial

from attrs import define, field
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IProducer
from twisted.internet.task import Clock
from twisted.trial.unittest import SkipTest, SynchronousTestCase
from zope.interface import implementer

from tests.doubles import FakeSink, InlineWorkers, ManualWorkers
from txociproxy.bodies import (
    BODY_WAIT_S,
    CHUNK_BYTES,
    FILE_CHUNK_BYTES,
    WARM_BYTES,
    FileBody,
    IFileTransport,
    Lent,
    MemoryBody,
    Pages,
    Reader,
    resident,
    whole,
)
from txociproxy.ingest.window import Window
from txociproxy.interfaces import IBody
from txociproxy.oci.errors import BodyLost

STALL_S = 60.0
DATA = bytes(range(256)) * 2048  # 512 KiB


@implementer(IBody)
@define(eq=False)
class SlowBody(Lent):
    """A body whose bytes come when the test says so."""

    size_bytes: int | None
    data: bytes = b""
    lost: bool = False
    closed: int = 0
    step_bytes: int = 10**9

    def read_at(self, offset_bytes: int, max_bytes: int) -> bytes:
        """Return what has come."""
        if self.lost:
            raise BodyLost("lost")
        return self.data[offset_bytes : offset_bytes + min(max_bytes, self.step_bytes)]

    def extent_at(self, offset_bytes: int, max_bytes: int) -> tuple[int, int] | None:
        """Be no file."""
        return None

    def come(self, data: bytes = b"") -> None:
        """Let more come."""
        self.data += data
        self._tell()

    def lose(self) -> None:
        """Let it be over."""
        self.lost = True
        self._tell()

    def _let_go(self) -> None:
        self.closed += 1


@implementer(IFileTransport)
@define(eq=False)
class FakeFiles:
    """A socket that takes files, as much as the test says.

    :ivar room_bytes: what it takes now.
    """

    sink: FakeSink
    room_bytes: int = 10**9
    waiting: Callable[[], None] | None = None
    sends: list[tuple[int, int, int]] = field(factory=list)

    def send_file(self, fd: int, offset: int, count: int) -> int:
        """Take what fits."""
        data = os.pread(fd, min(count, self.room_bytes), offset)
        self.room_bytes -= len(data)
        self.sink.written += data
        self.sends.append((offset, count, len(data)))
        return len(data)

    def when_writable(self, callback: Callable[[], None] | None) -> None:
        """Remember it."""
        self.waiting = callback

    def writable(self) -> None:
        """Say that more fits."""
        callback, self.waiting = self.waiting, None
        assert callback is not None
        callback()


class BodyCase(SynchronousTestCase):
    """What all of them use."""

    def setUp(self) -> None:
        """Begin at time 0."""
        self.clock = Clock()
        self.ends: list[str] = []

    def reader(self, body: IBody, sink: FakeSink, start: int = 0, stop: int | None = None) -> Reader:
        """Let a Reader begin."""
        reader = Reader(body, start, stop, sink, self.clock, STALL_S)
        reader.done.addCallback(self.ends.append)
        reader.start()
        return reader

    def file(self, data: bytes = DATA) -> int:
        """Return a descriptor of a file with this content."""
        path = self.mktemp()
        with open(path, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        fd = os.open(path, os.O_RDONLY)
        os.unlink(path)
        return fd

    def cold_file(self, data: bytes = DATA) -> int:
        """Return a descriptor of a file none of which is in memory."""
        fd = self.file(data)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        try:
            is_cold = resident(fd, 0, 1) is None and resident(fd, len(data) - 1, 1) is None
        except OSError:
            is_cold = False
        if not is_cold:
            os.close(fd)
            raise SkipTest("this file system keeps everything in memory, or cannot tell")
        return fd

    def assert_closed(self, fd: int) -> None:
        """Check that a descriptor is closed."""
        with self.assertRaises(OSError):
            os.fstat(fd)


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


class FileReaderTests(BodyCase):
    """The way of a file past the process' memory."""

    def begin(self, data: bytes = DATA, room: int = 10**9, stop: int | None = None) -> tuple[FakeSink, FakeFiles, int]:
        """Let a file leave by a socket that takes so much."""
        sink, fd = FakeSink(), self.file(data)
        files = sink.file_transport = FakeFiles(sink, room)
        self.reader(FileBody(fd, len(data), InlineWorkers(), promised=1), sink, 0, stop)
        return sink, files, fd

    def test_a_file_leaves_in_turns(self) -> None:
        """One bounded part a turn, so that others get theirs; nothing is waited for at the end."""
        sink, files, fd = self.begin()
        self.assertEqual(len(sink.written), FILE_CHUNK_BYTES)
        files.writable()
        self.assertEqual((bytes(sink.written) == DATA, sink.ending, files.waiting), (True, "finished", None))
        self.assertEqual([count for _, count, _ in files.sends], [FILE_CHUNK_BYTES] * 2)
        self.assert_closed(fd)

    def test_what_the_socket_does_not_take_waits(self) -> None:
        """Partial sends, and none at all."""
        sink, files, fd = self.begin(room=1000)
        for room in (0, 1, 0, 70_000, 10**9, 10**9):
            before = len(sink.written)
            files.room_bytes = room
            files.writable()
            self.assertEqual(len(sink.written), before + min(room, FILE_CHUNK_BYTES, len(DATA) - before))
        while not self.ends:
            files.writable()
        self.assertEqual((bytes(sink.written) == DATA, self.ends), (True, ["finished"]))
        self.assert_closed(fd)

    def test_only_the_part_that_was_asked_for_leaves(self) -> None:
        """A range ends where it ends."""
        sink, _, fd = self.begin(stop=1000)
        self.assertEqual((bytes(sink.written), self.ends), (DATA[:1000], ["finished"]))
        self.assert_closed(fd)

    def test_a_socket_that_takes_nothing_is_cut(self) -> None:
        """By the same patience; nothing is called back afterwards, and the file is closed."""
        sink, files, fd = self.begin(room=1000)
        self.clock.advance(STALL_S)
        self.clock.advance(STALL_S)
        self.assertEqual((sink.ending, self.ends, files.waiting), ("cut", ["cut"], None))
        self.assert_closed(fd)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_client_that_leaves_in_mid_file(self) -> None:
        """Nothing is called back afterwards, and the file is closed."""
        sink, files, fd = self.begin(room=1000)
        sink.leave()
        self.assertEqual((sink.ending, self.ends, files.waiting), (None, ["left"], None))
        self.assert_closed(fd)

    def test_a_pause_of_the_transport_counts_for_files_too(self) -> None:
        """Bytes that were written before, such as the head, may still wait."""
        sink, files, _ = self.begin(room=1000)
        assert sink.producer is not None
        sink.producer.pauseProducing()
        files.room_bytes = 10**9
        files.writable()
        self.assertEqual(len(sink.written), 1000)
        sink.producer.resumeProducing()
        self.assertEqual(len(sink.written), 1000 + FILE_CHUNK_BYTES)
        sink.leave()

    def test_a_file_that_is_shorter_than_it_was_is_cut(self) -> None:
        """Instead of being sent nothing for ever."""
        sink, fd = FakeSink(), self.file(DATA[:300_000])
        files = sink.file_transport = FakeFiles(sink)
        self.reader(FileBody(fd, len(DATA), InlineWorkers(), promised=1), sink)
        while files.waiting is not None:
            files.writable()
        self.assertEqual((sink.ending, self.ends, DATA.startswith(bytes(sink.written))), ("cut", ["cut"], True))
        self.assert_closed(fd)


class FileBodyTests(BodyCase):
    """A FileBody owns its descriptor and closes it once."""

    def test_it_is_closed_with_the_last_of_those_who_need_it(self) -> None:
        """Followers, and those to whom it was promised."""
        fd = self.file()
        body = FileBody(fd, len(DATA), InlineWorkers(), promised=1)
        body.promise()
        first, second = FakeSink(capacity_bytes=1), FakeSink(capacity_bytes=1)
        self.reader(body, first)
        first.leave()
        os.fstat(fd)
        self.reader(body, second)
        body.promise()
        second.leave()
        os.fstat(fd)
        body.close()
        self.assert_closed(fd)

    def test_closing_again_does_not_close_somebody_elses_file(self) -> None:
        """The number may mean another file by then."""
        fd = self.file()
        body = FileBody(fd, len(DATA), InlineWorkers(), promised=1)
        body.close()
        other = self.file()
        self.addCleanup(os.close, other)
        self.assertEqual(other, fd)
        body.close()
        sink = FakeSink()
        self.reader(body, sink)
        os.fstat(other)
        self.assertEqual((self.ends, bytes(sink.written)), (["cut"], b""))

    def test_an_empty_file(self) -> None:
        """Has no byte to wait for."""
        fd, sink = self.file(b""), FakeSink()
        self.reader(FileBody(fd, 0, InlineWorkers(), promised=1), sink)
        self.assertEqual((sink.ending, self.ends), ("finished", ["finished"]))
        self.assert_closed(fd)

    def test_a_file_that_cannot_be_read_is_a_lost_body(self) -> None:
        """One reader's trouble is not an exception in another's face."""
        read_end, write_end = os.pipe()  # cannot be read at an offset
        self.addCleanup(os.close, write_end)
        body = FileBody(read_end, 10, InlineWorkers(), promised=1)
        sinks = [FakeSink(), FakeSink()]
        sinks[1].file_transport = FakeFiles(sinks[1])
        body.promise()
        for sink in sinks:
            self.reader(body, sink)
        self.assertEqual(self.ends, ["cut", "cut"])
        self.assert_closed(read_end)

    def test_whole_gives_all_bytes_and_leaves_the_body_as_it_was(self) -> None:
        """It can still be followed."""
        fd = self.file()
        body = FileBody(fd, len(DATA), InlineWorkers(), promised=1)
        self.assertEqual(self.successResultOf(Deferred.fromCoroutine(whole(body))), DATA)
        os.fstat(fd)
        body.close()
        self.assert_closed(fd)

    def test_whole_waits_and_may_fail_or_be_cancelled(self) -> None:
        """And leaves the body then too."""
        bodies = [SlowBody(2, promised=1) for _ in range(3)]
        results = [Deferred.fromCoroutine(whole(body)) for body in bodies]
        for body in bodies:
            body.come(b"a")
        bodies[0].come(b"b")
        self.assertEqual(self.successResultOf(results[0]), b"ab")
        bodies[1].lose()
        self.failureResultOf(results[1], BodyLost)
        results[2].cancel()
        self.failureResultOf(results[2], CancelledError)
        self.assertEqual([body.closed for body in bodies], [0, 0, 0])
        for body in bodies:
            body.close()
        self.assertEqual([body.closed for body in bodies], [1, 1, 1])


class PagesTests(BodyCase):
    """Law 10: a cold disk is waited for in a thread, never in the reactor."""

    def setUp(self) -> None:
        """Begin with a file of which nothing is in memory."""
        super().setUp()
        self.fd, self.workers, self.told = self.file(), ManualWorkers(), 0
        self.addCleanup(os.close, self.fd)
        self.memory: list[tuple[int, int]] = []
        self.pages = Pages(self.workers, self.tell, self.resident)

    def tell(self) -> None:
        """Count."""
        self.told += 1

    def resident(self, fd: int, offset_bytes: int, count: int) -> bytes | None:
        """Say what is in memory, as the test has it."""
        inside = any(start <= offset_bytes and offset_bytes + count <= stop for start, stop in self.memory)
        return os.pread(fd, count, offset_bytes) if inside else None

    def test_what_is_in_memory_is_given_at_once(self) -> None:
        """No thread has to do with it."""
        self.memory.append((0, len(DATA)))
        self.assertEqual(self.pages.bytes_at(self.fd, 5, 10), DATA[5:15])
        self.assertEqual(self.pages.extent_at(self.fd, 5, 10**9), (self.fd, FILE_CHUNK_BYTES))
        self.assertEqual((self.workers.jobs, self.told), ([], 0))

    def test_what_is_not_is_read_in_a_thread_once(self) -> None:
        """However often it is asked for meanwhile."""
        for _ in range(3):
            self.assertEqual(self.pages.bytes_at(self.fd, 5, 10), b"")
            self.assertIsNone(self.pages.extent_at(self.fd, 5, 10))
        self.assertEqual((self.workers.work(), self.told), (1, 1))
        self.assertEqual(self.pages.extent_at(self.fd, 5, 10), (self.fd, 10))

    def test_pages_that_are_dropped_again_at_once_are_read_all_the_same(self) -> None:
        """Waiting for them once more would never end."""
        self.assertEqual(self.pages.bytes_at(self.fd, 5, 10), b"")
        self.workers.work()
        self.assertEqual((self.pages.bytes_at(self.fd, 5, 10), self.workers.jobs), (DATA[5:15], []))

    def test_a_part_whose_end_is_not_in_memory_is_not_sent_yet(self) -> None:
        """Sendfile would wait for it."""
        self.memory.append((0, 100))
        self.assertIsNone(self.pages.extent_at(self.fd, 0, 200))
        self.workers.work()
        self.assertEqual(self.pages.extent_at(self.fd, 0, 200), (self.fd, 200))

    def test_a_part_is_sent_as_far_as_it_was_read(self) -> None:
        """What lies behind may be cold."""
        fd = self.file(DATA * 8)
        self.addCleanup(os.close, fd)
        self.assertIsNone(self.pages.extent_at(fd, 0, FILE_CHUNK_BYTES))
        self.workers.work()
        self.assertEqual(self.pages.extent_at(fd, WARM_BYTES - 10, FILE_CHUNK_BYTES), (fd, 10))
        self.assertIsNone(self.pages.extent_at(fd, WARM_BYTES, FILE_CHUNK_BYTES))

    def test_beyond_the_end_of_a_file_is_nothing(self) -> None:
        """It may be shorter than it was."""
        self.memory.append((0, 10**9))
        self.assertIsNone(self.pages.extent_at(self.fd, len(DATA) - 5, 10))
        self.assertEqual(self.pages.bytes_at(self.fd, len(DATA) - 5, 10), DATA[-5:])

    def test_what_cannot_be_read_is_lost(self) -> None:
        """In the thread, or on the spot."""
        self.pages.bytes_at(self.fd, 5, 10)
        self.workers.jobs.pop()[0].errback(OSError(5, "Input/output error"))
        self.assertEqual(self.told, 1)
        for read in (self.pages.bytes_at, self.pages.extent_at):
            with self.assertRaises(BodyLost):
                read(self.fd, 5, 10)
        read_end, write_end = os.pipe()
        self.addCleanup(os.close, read_end)
        self.addCleanup(os.close, write_end)
        with self.assertRaises(BodyLost):
            Pages(self.workers, self.tell).bytes_at(read_end, 0, 10)


class ColdFileTests(BodyCase):
    """The same with the kernel's own answers, which depend on the moment."""

    def test_a_reader_waits_for_the_pages_and_goes_on(self) -> None:
        """By memory and by file alike."""
        for by_file in (False, True):
            fd, workers, sink = self.cold_file(), ManualWorkers(), FakeSink()
            if by_file:
                sink.file_transport = FakeFiles(sink)
            self.reader(FileBody(fd, len(DATA), workers, promised=1), sink)
            for _ in range(100):
                workers.work()
                if sink.file_transport is not None and sink.file_transport.waiting is not None:
                    sink.file_transport.writable()
            self.assertEqual((bytes(sink.written) == DATA, self.ends), (True, ["finished"]))
            self.assert_closed(fd)
            self.ends.clear()

    def test_two_readers_at_different_places_both_get_there(self) -> None:
        """One read at a time; the other's turn comes."""
        data = DATA * 8
        fd, workers = self.cold_file(data), ManualWorkers()
        body = FileBody(fd, len(data), workers, promised=1)
        body.promise()
        sinks = [FakeSink(), FakeSink()]
        self.reader(body, sinks[0])
        self.reader(body, sinks[1], 3 * WARM_BYTES)
        self.assertLessEqual(len(workers.jobs), 1)
        workers.work()
        self.assertEqual(self.ends, ["finished", "finished"])
        self.assertEqual([len(sink.written) for sink in sinks], [len(data), len(data) - 3 * WARM_BYTES])

    def test_a_disk_that_fails_is_a_lost_body(self) -> None:
        """EIO from the thread."""
        fd, workers, sink = self.cold_file(), ManualWorkers(), FakeSink()
        self.reader(FileBody(fd, len(DATA), workers, promised=1), sink)
        if not workers.jobs:
            raise SkipTest("the kernel has read ahead")
        workers.jobs.pop()[0].errback(OSError(5, "Input/output error"))
        self.assertEqual((sink.ending, self.ends), ("cut", ["cut"]))
        self.assert_closed(fd)

    def test_a_disk_that_hangs_is_given_up_in_the_end(self) -> None:
        """And the client with it; a thread that comes back later meets nobody."""
        fd, workers, sink = self.cold_file(), ManualWorkers(), FakeSink()
        self.reader(FileBody(fd, len(DATA), workers, promised=1), sink)
        if not workers.jobs:
            raise SkipTest("the kernel has read ahead")
        self.clock.pump([STALL_S] * int(BODY_WAIT_S // STALL_S + 1))
        self.assertEqual((sink.ending, self.ends), ("cut", ["cut"]))
        self.assert_closed(fd)
        workers.work()
        self.assertEqual(self.ends, ["cut"])


class WindowTests(SynchronousTestCase):
    """The recent bytes of an arriving body."""

    @settings(deadline=None)
    @given(
        st.integers(0, 100),
        st.lists(st.tuples(st.binary(min_size=1, max_size=9), st.integers(0, 120)), max_size=40),
        st.integers(1, 20),
    )
    def test_it_gives_back_what_it_holds(self, start: int, steps: list[tuple[bytes, int]], count: int) -> None:
        """Always a run of bytes up to the end; what was not to be trimmed is still there."""
        window, data = Window(start), b""
        for chunk, before in steps:
            window.append(chunk)
            data += chunk
            window.trim(before)
            self.assertEqual(window.end_bytes, start + len(data))
            self.assertEqual(window.size_bytes, window.end_bytes - window.start_bytes)
            self.assertLessEqual(window.start_bytes, max(start, min(before, window.end_bytes), window.start_bytes))
        for offset in range(start - 2, start + len(data) + 2):
            got = window.read_at(offset, count) if offset >= 0 else b""
            here = window.start_bytes <= offset < window.end_bytes
            self.assertEqual(bool(got), here and offset >= 0)
            self.assertTrue(data[max(0, offset - start) :].startswith(got))
            self.assertLessEqual(len(got), count)

    @settings(deadline=None)
    @given(st.lists(st.integers(1, 9), min_size=1, max_size=20), st.integers(0, 200))
    def test_it_keeps_what_is_needed_and_no_whole_chunk_more(self, sizes: list[int], before: int) -> None:
        """Trimming goes by whole chunks."""
        window = Window(0)
        for size in sizes:
            window.append(b"x" * size)
        window.trim(before)
        edges = [0, *[sum(sizes[:count]) for count in range(1, len(sizes) + 1)]]
        self.assertEqual(window.start_bytes, max(edge for edge in edges if edge <= before))
