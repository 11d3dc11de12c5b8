"""Range and Content-Range."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txociproxy.oci.ranges import ByteRange, ContentRange, RangeSpec, parse_content_range, parse_range


class ParseRangeTests(SynchronousTestCase):
    """The Range field."""

    def test_one_range_in_its_three_forms(self) -> None:
        """Closed, open and suffix; the unit's case and blanks do not count."""
        table = {
            "bytes=0-0": RangeSpec(0, 0),
            "bytes=5-": RangeSpec(5, None),
            "bytes=-5": RangeSpec(None, 5),
            "bytes=-0": RangeSpec(None, 0),
            "Bytes= 1-2 ": RangeSpec(1, 2),
            "bytes=" + "9" * 18 + "-": RangeSpec(10**18 - 1, None),
        }
        for text, spec in table.items():
            self.assertEqual(spec, parse_range(text), text)

    def test_everything_else_is_ignored(self) -> None:
        """No field, another unit, nonsense and several ranges give the whole (RFC 9110 §14.2)."""
        bad = (
            None, "", "bytes", "bytes=", "bytes=-", "bytes=a-b", "bytes=2-1", "bytes=0-1,3-4", "bytes=0-1,",
            "items=0-1", "bytes=--1", "bytes=0--1", "bytes=+0-1", "bytes=0x1-2", "bytes=\u0661-", "bytes=0-1\n",
            "bytes:0-1", "bytes=1", "bytes=0-" + "9" * 19, "bytes=" + "9" * 5000 + "-", " bytes=0-1",
        )  # fmt: skip
        for text in bad:
            self.assertIsNone(parse_range(text), text)

    def test_resolve(self) -> None:
        """What exists of a range is served; nothing of it is a 416."""
        table = {
            ("bytes=0-0", 10): (0, 1),
            ("bytes=0-9", 10): (0, 10),
            ("bytes=0-99", 10): (0, 10),
            ("bytes=9-", 10): (9, 10),
            ("bytes=-3", 10): (7, 10),
            ("bytes=-99", 10): (0, 10),
        }
        for (text, total), (start, stop) in table.items():
            spec = parse_range(text)
            assert spec is not None
            self.assertEqual(ByteRange(start, stop, total), spec.resolve(total), text)

    def test_unsatisfiable(self) -> None:
        """Behind the end, an empty suffix, and anything of nothing."""
        for spec, total in (
            (RangeSpec(10, None), 10),
            (RangeSpec(10, 12), 10),
            (RangeSpec(None, 0), 10),
            (RangeSpec(0, None), 0),
            (RangeSpec(None, 5), 0),
            (RangeSpec(0, 0), 0),
        ):
            self.assertIsNone(spec.resolve(total), spec)

    def test_a_part_prints_its_content_range(self) -> None:
        """The field names first and last byte and the whole."""
        part = ByteRange(2, 5, 10)
        self.assertEqual(("bytes 2-4/10", 3), (part.content_range(), part.length_bytes))

    @settings(deadline=None, max_examples=300)
    @given(st.text() | st.from_regex(r"bytes=[0-9]{0,20}-[0-9]{0,20}", fullmatch=True), st.integers(0, 10**19))
    def test_any_text_is_a_sound_range_or_ignored(self, text: str, total: int) -> None:
        """Every range prints back, and what it resolves to lies within the content."""
        spec = parse_range(text)
        if spec is None:
            return
        self.assertEqual(spec, parse_range(str(spec)))
        part = spec.resolve(total)
        if part is not None:
            self.assertTrue(0 <= part.start < part.stop <= total)
            self.assertEqual(part.length_bytes, part.stop - part.start)

    @settings(deadline=None, max_examples=200)
    @given(st.integers(0, 20), st.none() | st.integers(0, 20), st.integers(0, 20))
    def test_resolving_is_slicing(self, first: int, last: int | None, total: int) -> None:
        """A range is the slice that a reader of RFC 9110 would cut."""
        content = bytes(range(total))
        part = RangeSpec(first, last).resolve(total)
        expected = content[first : None if last is None else last + 1]
        self.assertEqual(expected, b"" if part is None else content[part.start : part.stop])


class ContentRangeTests(SynchronousTestCase):
    """The Content-Range field of an upstream."""

    def test_what_upstreams_send(self) -> None:
        """A part with and without the whole's length, and the field of a 416."""
        table = {
            "bytes 0-9/10": ContentRange(0, 10, 10),
            "Bytes  5-9/*": ContentRange(5, 10, None),
            "bytes */10": ContentRange(None, None, 10),
        }
        for text, value in table.items():
            self.assertEqual(value, parse_content_range(text), text)

    def test_nonsense_is_none(self) -> None:
        """A field that contradicts itself is not believed."""
        for text in (
            "", "bytes", "bytes */*", "bytes 9-0/10", "bytes 0-10/10", "bytes 0-9", "bytes=0-9/10", "items 0-9/10",
            "bytes -9/10", "bytes 0-/10", "bytes 0-9/10\n", "bytes 0-9/" + "9" * 5000,
        ):  # fmt: skip
            self.assertIsNone(parse_content_range(text), text)

    @settings(deadline=None, max_examples=100)
    @given(st.integers(0, 1000), st.integers(1, 1000), st.integers(0, 1000))
    def test_our_own_fields_read_back(self, start: int, length: int, behind: int) -> None:
        """What ByteRange prints is what the parser reads."""
        part = ByteRange(start, start + length, start + length + behind)
        self.assertEqual(ContentRange(part.start, part.stop, part.total), parse_content_range(part.content_range()))
