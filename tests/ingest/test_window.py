"""The window of bodies that arrive."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txociproxy.ingest.window import Window


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
