"""The Reader when its body is a file and its socket takes files."""

from __future__ import annotations

from tests.bodies.scene import DATA, STALL_S, BodyCase, FakeFiles
from tests.doubles import FakeSink, InlineWorkers
from txociproxy.bodies.files import FileBody
from txociproxy.bodies.reader import FILE_CHUNK_BYTES


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
