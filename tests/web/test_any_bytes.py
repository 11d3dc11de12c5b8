"""Any bytes in a request, one line out that parses back equal, in both forms (RULES A6)."""

from __future__ import annotations

import json
import re

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from zope.interface import implementer

from tests.readback import parse_logfmt
from tests.web.test_access import TAG, AccessCase
from txociproxy.logs import cut

SECRET = b"geheim"
# All but what ends a line, and what ends a head.
VALUE = st.binary(max_size=300).map(lambda data: re.sub(rb"[\r\n]", b"?", data)) | st.text(
    st.characters(min_codepoint=32, exclude_categories=["Cs"], exclude_characters="\x7f"), max_size=300
).map(lambda text: text.encode("utf-8"))
PRINTABLE = st.from_regex(rb"[\t -~\x80-\xff]{0,300}", fullmatch=True)
TARGET = VALUE.map(lambda data: re.sub(rb" ", b"_", data))


class AnyBytesTests(AccessCase):
    """Any bytes in, one line out, parsed back equal."""

    @implementer(ILogObserver)
    class Events(list[LogEvent]):
        """The events themselves."""

        def __call__(self, event: LogEvent) -> None:
            """Take one."""
            self.append(event)

    def setUp(self) -> None:
        """Take the events too."""
        super().setUp()
        self.events = AnyBytesTests.Events()
        globalLogPublisher.addObserver(self.events)
        self.addCleanup(globalLogPublisher.removeObserver, self.events)

    def sent(self, raw: bytes) -> bytes:
        """Send a request and return what was answered."""
        for each in (self.lines, self.objects, self.events):
            each.clear()
        return self.line().send(raw)

    def reads_back(self) -> tuple[dict[str, str], dict[str, object]]:
        """Return the one line in both forms; they say what the event says."""
        self.assertEqual((len(self.lines), len(self.objects), len(self.events)), (1, 1, 1))
        (line,), (text,), (event,) = self.lines, self.objects, self.events
        for each in (line, text):
            self.assertTrue(each.isascii() and each[:-1].isprintable() and each.endswith("\n"))
            self.assertLessEqual(len(each), 4096)
        fields, values = parse_logfmt(line[:-1]), json.loads(text)
        self.assertEqual(list(fields), list(values))
        for name in set(fields) - {"ts", "level", "msg"}:
            self.assertEqual(fields[name], cut(event[name]), name)
            self.assertEqual(as_text(values[name]), re.sub("[\udc80-\udcff]", spelt, fields[name])[:256], name)
        return fields, values

    @settings(deadline=None, max_examples=300)
    @given(
        # Printable characters get past the first check, whole words into a pull.
        st.one_of(st.just(b"3.20"), st.from_regex(rb"[!-\"$-~]{0,300}", fullmatch=True), TARGET),
        st.one_of(st.just(b""), PRINTABLE, VALUE),
        VALUE,
        st.one_of(st.just(b"cache.example"), st.just(b"h:1"), VALUE),
        st.one_of(st.just(b"docker.io"), st.just(b"evil.example"), st.just(b""), TARGET),
        PRINTABLE | VALUE,
    )
    def test_any_bytes_in_a_request(
        self, reference: bytes, agent: bytes, name: bytes, host: bytes, ns: bytes, shown: bytes
    ) -> None:
        """Each request has one answer and one line, which names neither more nor less."""
        answer = self.sent(
            b"GET /v2/a/b/manifests/%b?ns=%b HTTP/1.1\r\nHost: %b\r\nUser-Agent: %b\r\nX-Request-Id: %b\r\n"
            b"Authorization: %b%b\r\n\r\n" % (reference, ns, host, agent, name, SECRET, shown)
        )
        self.assertEqual(answer.count(b"HTTP/1.1 "), 1)
        self.reads_back()
        self.assertNotIn(SECRET.decode(), "".join(self.lines + self.objects))

    @settings(deadline=None, max_examples=150)
    @given(VALUE, VALUE, st.from_regex(r"[A-Za-z0-9._-]{1,64}", fullmatch=True) | st.text(max_size=9))
    def test_any_bytes_in_a_pull(self, agent: bytes, shown: bytes, name: str) -> None:
        """What a client says of itself stands in the line of its pull as it said it."""
        agent, shown = (re.sub(rb"[\x00-\x1f\x7f]", b"?", data) for data in (agent, shown))
        clean = re.sub(rb"[\x00-\x1f\x7f]", b"?", name.encode("utf-8"))
        answer = self.sent(
            b"GET %b HTTP/1.1\r\nHost: h\r\nUser-Agent: %b\r\nX-Request-Id: %b\r\nAuthorization: Bearer %b%b\r\n\r\n"
            % (TAG.encode(), agent, clean, SECRET, shown)
        )
        fields, _ = self.reads_back()
        self.assertEqual(fields["msg"], "pull")
        self.assertEqual(fields["user_agent"], cut(agent.strip(b" \t")))
        (given_back,) = re.findall(rb"\r\nX-Request-Id: ([^\r]*)\r\n", answer)
        self.assertEqual(fields["request_id"], given_back.decode())
        if re.fullmatch(rb"[A-Za-z0-9._-]{1,64}", clean.strip(b" \t")):
            self.assertEqual(given_back, clean.strip(b" \t"))
        self.assertNotIn(SECRET.decode(), "".join(self.lines + self.objects))

    @settings(deadline=None, max_examples=100)
    @given(st.binary(max_size=200).filter(lambda raw: not raw.startswith(b"PRI ")))  # that would be HTTP/2
    def test_any_bytes_for_a_request(self, raw: bytes) -> None:
        """As many lines as answers, whatever comes over the wire."""
        answer = self.sent(raw + b"\r\n\r\n")
        self.assertEqual(len(self.lines), answer.count(b"HTTP/1.1 "))
        for line, text in zip(self.lines, self.objects, strict=True):
            self.assertEqual(list(parse_logfmt(line[:-1])), list(json.loads(text)))

    def test_a_long_name_of_a_program_is_cut(self) -> None:
        """To 256 characters; of two lines the first counts."""
        self.sent(f"GET {TAG} HTTP/1.1\r\nHost: h\r\nUser-Agent: {'a' * 300}\r\nUser-Agent: b\r\n\r\n".encode())
        fields, _ = self.reads_back()
        self.assertEqual(fields["user_agent"], "a" * 256)

    def test_a_pull_says_numbers_as_numbers(self) -> None:
        """Whoever reads JSON can sum them."""
        self.sent(f"GET {TAG} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
        _, values = self.reads_back()
        self.assertEqual((values["status"], values["bytes"], values["duration"]), (404, 93, 0.0))
        self.assertNotIn("user_agent", values, "it said none")


def as_text(value: object) -> str:
    """Return what JSON says as logfmt does."""
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def spelt(found: re.Match[str]) -> str:
    """Spell a byte that is no UTF-8."""
    return f"\\x{ord(found.group()) - 0xDC00:02x}"
