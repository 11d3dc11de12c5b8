"""Bodies that lie in files, on disks that are warm, cold, broken or hang."""

from __future__ import annotations

import os

from twisted.trial.unittest import SkipTest

from tests.bodies.scene import DATA, STALL_S, BodyCase, FakeFiles
from tests.doubles import FakeSink, InlineWorkers, ManualWorkers
from txociproxy.bodies.files import WARM_BYTES, FileBody, Pages
from txociproxy.bodies.reader import BODY_WAIT_S, FILE_CHUNK_BYTES
from txociproxy.oci.errors import BodyLost


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
