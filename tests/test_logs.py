"""Log lines keep their shape, whatever they are given (RULES A6)."""

from __future__ import annotations

import re

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.logger import Logger
from twisted.trial.unittest import SynchronousTestCase

from txociproxy.logs import MAX_VALUE_CHARS, LogfmtObserver, cut, logfmt, safe

_PAIR = re.compile(r'([A-Za-z0-9_.]+)=("(?:[^"\\]|\\.)*"|[^ "\\=]+)(?: |$)')
_ESCAPE = re.compile(r"\\(?:x([0-9a-f]{2})|u([0-9a-f]{4})|U([0-9a-f]{8})|(.))")


def _unescape(found: re.Match[str]) -> str:
    """Read one escape."""
    byte, short, long, plain = found.groups()
    if byte is not None:
        return chr(0xDC00 + int(byte, 16))
    if plain is not None:
        return {"n": "\n", "r": "\r", "t": "\t"}.get(plain, plain)
    return chr(int(short or long, 16))


def parse_logfmt(line: str) -> dict[str, str]:
    """Read a line back; anything that is not exactly a list of pairs is an error."""
    fields: dict[str, str] = {}
    at = 0
    while at < len(line):
        found = _PAIR.match(line, at)
        if found is None:
            raise ValueError(f"not logfmt at {at}: {line!r}")
        value = found.group(2)
        fields[found.group(1)] = _ESCAPE.sub(_unescape, value[1:-1]) if value.startswith('"') else value
        at = found.end()
    return fields


class LogfmtTests(SynchronousTestCase):
    """Values to text and back."""

    @settings(deadline=None)
    @given(st.dictionaries(st.from_regex(r"[a-z_]{1,12}", fullmatch=True), st.binary(max_size=600), max_size=5))
    def test_any_bytes_make_one_line_that_reads_back(self, fields: dict[str, bytes]) -> None:
        """Any bytes give one line of printable ASCII that parses back to the same."""
        line = logfmt(fields)
        self.assertTrue(line.isascii() and (line.isprintable() or not line))
        self.assertEqual(parse_logfmt(line), {name: cut(value) for name, value in fields.items()})

    @settings(deadline=None)
    @given(st.text(st.characters(exclude_categories=()), max_size=300))
    def test_any_text_reads_back(self, text: str) -> None:
        """Any text, lone surrogates included, parses back to its first 256 characters."""
        self.assertEqual(parse_logfmt(f"a={safe(text)}"), {"a": text[:MAX_VALUE_CHARS]})

    @settings(deadline=None)
    @given(st.binary(max_size=64))
    def test_short_bytes_are_not_lost(self, data: bytes) -> None:
        """What was logged as bytes can be had back as the same bytes."""
        self.assertEqual(parse_logfmt(f"a={safe(data)}")["a"].encode("utf-8", "surrogateescape"), data)

    def test_plain_words_stay_bare(self) -> None:
        """Names, digests and addresses need no quotes."""
        self.assertEqual(
            logfmt({"repository": "library/alpine", "reference": "sha256:ab", "client": "[::1]:80", "status": 200}),
            "repository=library/alpine reference=sha256:ab client=[::1]:80 status=200",
        )

    def test_newlines_and_quotes_are_escaped(self) -> None:
        """A client cannot begin a second line or a second field."""
        self.assertEqual(safe('a"\r\nlevel=info'), '"a\\"\\r\\nlevel=info"')

    def test_nothing_is_left_out_and_truth_is_lower_case(self) -> None:
        """None is no field, an empty value is, and booleans look like those of the configuration."""
        self.assertEqual(logfmt({"a": None, "b": "", "c": True}), 'b="" c=true')


class ObserverTests(SynchronousTestCase):
    """Events to lines."""

    def setUp(self) -> None:
        """Collect lines."""
        self.lines: list[str] = []

    def _logger(self, threshold: str) -> Logger:
        """Return a logger that writes to the list."""
        return Logger(namespace="test", observer=LogfmtObserver(self.lines.append, threshold))

    def test_an_event_is_one_line_with_its_fields(self) -> None:
        """Time, level and message come first, then the fields by name."""
        self._logger("info").info("pull", method="GET", path=b"/v2/\n")
        (line,) = self.lines
        self.assertTrue(line.endswith("\n"))
        fields = parse_logfmt(line[:-1])
        self.assertRegex(fields.pop("ts"), r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$")
        self.assertEqual(fields, {"level": "info", "msg": "pull", "method": "GET", "path": "/v2/\n"})

    def test_what_is_below_the_threshold_is_left_out(self) -> None:
        """At warn, info is silent and an error is not."""
        log = self._logger("warn")
        log.info("quiet")
        log.error("loud")
        self.assertEqual([parse_logfmt(line[:-1])["msg"] for line in self.lines], ["loud"])

    def test_a_failure_is_one_line_too(self) -> None:
        """A traceback becomes two fields: what, and where from."""
        log = self._logger("info")
        try:
            raise RuntimeError("two\nlines")
        except RuntimeError:
            log.failure("unexpected")
        (line,) = self.lines
        fields = parse_logfmt(line[:-1])
        self.assertEqual(fields["error"], "RuntimeError: two\nlines")
        self.assertRegex(fields["trace"], r"^test_logs\.py:\d+$")

    def test_a_closed_pipe_is_no_error(self) -> None:
        """A line that cannot be written is lost, and nothing else is."""

        def broken(line: str) -> None:
            raise BrokenPipeError

        LogfmtObserver(broken)({"log_format": "x", "log_time": 0.0})
