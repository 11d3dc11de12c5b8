"""Log lines keep their shape, whatever they are given (RULES A6)."""

from __future__ import annotations

import json
import os
import re
import syslog
from collections.abc import Callable, Mapping
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.logger import Logger
from twisted.trial.unittest import SynchronousTestCase

from tests.readback import parse_logfmt
from txociproxy.logs import (
    LEVELS,
    MAX_LINE_BYTES,
    MAX_VALUE_CHARS,
    LineObserver,
    LogfmtObserver,
    Seconds,
    as_json,
    cut,
    logfmt,
    safe,
    trace,
)
from txociproxy.logs.writers import FileWriter, SyslogWriter, is_journal, write_line
from txociproxy.process import observer_for


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


def spelt(text: str) -> str:
    """Return text as JSON has it: bytes that are no UTF-8 are spelt, since half a character is no text."""

    def spell(found: re.Match[str]) -> str:
        code = ord(found.group())
        return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"\\u{code:04x}"

    return re.sub("[\ud800-\udfff]", spell, text)[:MAX_VALUE_CHARS]


class JsonTests(SynchronousTestCase):
    """The same as an object of JSON (RFC 8259)."""

    @settings(deadline=None)
    @given(
        st.dictionaries(
            st.from_regex(r"[a-z_]{1,12}", fullmatch=True),
            st.binary(max_size=600) | st.text(st.characters(exclude_categories=()), max_size=300),
            max_size=5,
        )
    )
    def test_any_bytes_and_text_make_one_line_that_reads_back(self, fields: dict[str, bytes | str]) -> None:
        """One line of printable ASCII; names and their order are those of logfmt."""
        line = as_json(fields)
        self.assertTrue(line.isascii() and line.isprintable())
        read = json.loads(line)
        self.assertEqual(read, {name: spelt(cut(value)) for name, value in fields.items()})
        self.assertEqual(list(read), list(fields))
        # Every reader takes it: half a character is an error to some.
        json.dumps(read, ensure_ascii=False).encode("utf-8")

    def test_numbers_and_truth_are_themselves(self) -> None:
        """What is no number to most readers is text."""
        fields = {"a": 1, "b": True, "c": Seconds(0.5), "d": 2.25, "e": "7", "f": None, "g": 2**70, "h": float("nan")}
        line = as_json(fields)
        self.assertEqual(line, f'{{"a":1,"b":true,"c":0.500,"d":2.25,"e":"7","g":"{2**70}","h":"nan"}}')

    def test_controls_of_a_terminal_are_escaped(self) -> None:
        """JSON alone would let one pass."""
        self.assertEqual(as_json({"a": "\x7f\x1b\n"}), '{"a":"\\u007f\\u001b\\n"}')


class LengthTests(SynchronousTestCase):
    """A line is never longer than what a pipe takes in one piece."""

    def both(self, fields: Mapping[str, object]) -> tuple[dict[str, str], dict[str, str]]:
        """Return what both forms have left of the fields."""
        lines = logfmt(fields), as_json(fields)
        for line in lines:
            self.assertLess(len(line) + len("<6>\n"), MAX_LINE_BYTES + 1)
        return parse_logfmt(lines[0]), json.loads(lines[1])

    @settings(deadline=None, max_examples=30)
    @given(st.lists(st.text("\u2603\U0001f600a\n", min_size=200, max_size=256), min_size=1, max_size=30))
    def test_long_values_are_cut_and_the_line_still_reads_back(self, texts: list[str]) -> None:
        """What is left of a value is how it began; no field is lost."""
        fields = {f"f{number}": text for number, text in enumerate(texts)}
        for read in self.both(fields):
            self.assertEqual(list(read), list(fields))
            for name, value in read.items():
                self.assertTrue(fields[name].startswith(value), name)

    def test_there_is_room_for_the_mark_and_the_end(self) -> None:
        """Lines that are just short enough, and those that are not."""
        whole = {f"f{number:02}": "v" * 200 for number in range(19)}
        for more in range(150, 350):
            for read in self.both({**whole, "last": "v" * min(more, 200), "x": "v" * max(more - 200, 1)}):
                self.assertEqual(len(read), 21)

    def test_short_values_stay_whole_beside_long_ones(self) -> None:
        """It is the long ones that are too long."""
        fields = {"a": "\U0001f600" * 256, "b": "\u2603" * 256, "c": "sha256:" + "0" * 64}
        for read in self.both(fields):
            self.assertEqual(read["c"], fields["c"])
            self.assertGreater(min(len(read["a"]), len(read["b"])), 80)

    def test_of_too_many_fields_the_first_are_written(self) -> None:
        """Time, level and message are among them."""
        for read in self.both({"ts": "now", **{f"f{number}": "v" * 100 for number in range(200)}}):
            self.assertEqual(read["ts"], "now")
            self.assertGreater(len(read), 30)

    def test_two_names_that_become_one_are_one_field(self) -> None:
        """The first counts."""
        for read in self.both({"a b": 1, "a-b": 2}):
            self.assertEqual({name: str(value) for name, value in read.items()}, {"a_b": "1"})

    def test_a_value_without_words_costs_no_line(self) -> None:
        """Its type is said."""

        class Mute:
            def __str__(self) -> str:
                raise RuntimeError

        for read in self.both({"a": Mute()}):
            self.assertEqual(read["a"], "<Mute>")


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

    def test_a_line_may_begin_with_the_number_of_its_level(self) -> None:
        """As journald and syslog count (RFC 5424, section 6.2.1)."""
        log = Logger(observer=LineObserver(self.lines.append, "trace", as_json, marks=True))
        trace(log, "t")
        for level in ("debug", "info", "warn", "error", "critical"):
            getattr(log, level)(level)
        self.assertEqual([line[:3] for line in self.lines], ["<7>", "<7>", "<6>", "<4>", "<3>", "<2>"])
        self.assertEqual([json.loads(line[3:])["level"] for line in self.lines], list(LEVELS))

    def test_traces_are_for_their_own_level(self) -> None:
        """At debug there are none."""
        for threshold, count in (("trace", 1), ("debug", 0)):
            self.lines.clear()
            trace(self._logger(threshold), "upstream request")
            self.assertEqual(len(self.lines), count)

    def test_a_closed_pipe_is_no_error(self) -> None:
        """A line that cannot be written is lost, and nothing else is."""

        def broken(line: str) -> None:
            raise BrokenPipeError

        LogfmtObserver(broken)({"log_format": "x", "log_time": 0.0})


class WriterTests(SynchronousTestCase):
    """Where lines go."""

    def file(self) -> tuple[Path, FileWriter]:
        """Return a file and what writes to it."""
        path = Path(self.mktemp())
        writer = FileWriter(str(path))
        self.addCleanup(writer.close)
        return path, writer

    def test_a_file_that_was_moved_away_is_begun_anew(self) -> None:
        """So does logrotate; nobody has to be told."""
        path, writer = self.file()
        writer("one\n")
        moved = path.rename(path.with_name("moved"))
        writer("two\n")
        writer("three\n")
        self.assertEqual((moved.read_text(), path.read_text()), ("one\n", "two\nthree\n"))
        path.unlink()
        writer("four\n")
        self.assertEqual(path.read_text(), "four\n")

    def test_a_file_that_is_rotated_by_length_goes_on(self) -> None:
        """As twistd does it."""
        path, writer = self.file()
        writer("one\n")
        assert writer._file is not None
        writer._file.rotateLength = 1
        writer("two\n")
        self.assertEqual((path.with_name(f"{path.name}.1").read_text(), path.read_text()), ("one\n", "two\n"))

    def test_a_directory_that_comes_back_is_written_to_again(self) -> None:
        """Lines are lost in between, and nothing else is."""
        directory = Path(self.mktemp())
        writer = FileWriter(str(directory / "log"))
        self.addCleanup(writer.close)
        self.assertRaises(OSError, writer, "lost\n")
        directory.mkdir()
        writer("kept\n")
        self.assertEqual((directory / "log").read_text(), "kept\n")

    def test_a_file_keeps_its_place_when_the_process_changes_its_directory(self) -> None:
        """As ``--rundir`` does, after the first line."""
        os.mkdir("elsewhere")
        self.addCleanup(os.chdir, os.getcwd())
        writer = FileWriter("relative.log")
        self.addCleanup(writer.close)
        path = Path("relative.log").absolute()
        writer("one\n")
        os.chdir("elsewhere")
        writer("two\n")
        self.assertEqual(path.read_text(), "one\ntwo\n")

    def test_a_device_is_not_moved_away(self) -> None:
        """Everybody else would miss it; a file still is."""
        writer = self.file()[1]
        self.assertGreater(writer.open().rotateLength, 0)
        device = FileWriter(os.devnull)
        self.addCleanup(device.close)
        self.assertIsNone(device.open().rotateLength)

    def test_a_file_that_broke_is_opened_again(self) -> None:
        """Whatever closed it."""
        path, writer = self.file()
        writer("one\n")
        assert writer._file is not None
        writer._file._file.close()
        writer("two\n")
        self.assertEqual(path.read_text(), "one\ntwo\n")

    def test_syslog_gets_one_message_with_its_priority(self) -> None:
        """Under our name, as a daemon."""
        done: list[tuple[object, ...]] = []

        def noting(word: str) -> Callable[..., None]:
            return lambda *words: done.append((word, *words))

        writer = SyslogWriter("proxy", noting("open"), noting("send"))
        log = Logger(observer=LineObserver(writer, "debug", marks=True))
        log.warn("late", reason="a\nb")
        log.debug("small")
        (opened, late, small) = done
        self.assertEqual(opened, ("open", "proxy", syslog.LOG_PID, syslog.LOG_DAEMON))
        self.assertEqual((late[1], small[1]), (syslog.LOG_WARNING, syslog.LOG_DEBUG))
        self.assertEqual(parse_logfmt(str(late[2]))["reason"], "a\nb")

    def test_journald_is_known_by_its_stream(self) -> None:
        """The variable is inherited by those whose output goes elsewhere."""
        read, write = os.pipe()
        self.addCleanup(os.close, read)
        found = os.fstat(write)
        self.assertTrue(is_journal(f"{found.st_dev}:{found.st_ino}", write))
        self.assertFalse(is_journal(f"{found.st_dev}:{found.st_ino + 1}", write))
        self.assertFalse(is_journal(None, write))
        os.close(write)
        self.assertFalse(is_journal(f"{found.st_dev}:{found.st_ino}", write), "a closed one is none")


class ChoiceTests(SynchronousTestCase):
    """What ``twistd`` and the configuration ask for."""

    def test_syslog_is_written_with_marks_under_its_prefix(self) -> None:
        """The mark becomes the message's priority."""
        observer = observer_for({"nodaemon": True, "syslog": 1, "prefix": "cache"}, "warn", "json")
        assert observer is not None and isinstance(observer.write, SyslogWriter)
        self.assertEqual((observer.write._ident, observer.threshold), ("cache", "warn"))
        self.assertEqual((observer.marks, observer.form), (True, as_json))

    def test_standard_output_is_marked_for_journald_only(self) -> None:
        """Whoever else reads it wants no numbers."""
        found = os.fstat(1)
        for stream, marks in ((None, False), ("0:0", False), (f"{found.st_dev}:{found.st_ino}", True)):
            observer = observer_for({"nodaemon": True}, "info", "logfmt", stream)
            assert observer is not None
            self.assertEqual((observer.write, observer.marks, observer.form), (write_line, marks, logfmt))

    def test_a_file_that_cannot_be_written_is_said_at_the_start(self) -> None:
        """Later nobody would read about it."""
        for name in ("missing/x.log", "."):
            error = self.assertRaises(SystemExit, observer_for, {"logfile": name, "nodaemon": True}, "info")
            self.assertRegex(str(error), rf"^--logfile: {name}: [A-Z].*; choose another, or -")

    def test_a_file_has_no_marks(self) -> None:
        """Also where standard output is journald's."""
        found = os.fstat(1)
        for twistd in ({"logfile": "x.log", "nodaemon": True}, {}):
            observer = observer_for(twistd, "info", "json", f"{found.st_dev}:{found.st_ino}")
            assert observer is not None and isinstance(observer.write, FileWriter)
            self.addCleanup(observer.write.close)
            self.assertEqual((observer.marks, observer.form), (False, as_json))
