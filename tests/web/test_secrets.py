"""What a client confides stays out of logs, errors and header fields, whatever goes wrong."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from urllib.parse import quote, quote_plus

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.logger import ILogObserver, LogEvent, eventAsText, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from tests.web.doubles import Answer, Line, Registry
from txociproxy.interfaces import Relay
from txociproxy.logs import LogfmtObserver
from txociproxy.oci.errors import OCIError, UpstreamUnreachable
from txociproxy.upstreams.entries.table import Entry
from txociproxy.web.resources import Undisclosed
from txociproxy.web.site import Census, DoorLimits, DoorSite

NAME, PASSWORD, THEIRS = "hugo.account", "pa ss/w\xf6rd+%41", "Bearer theirs-41f0"
LOGIN = f"{NAME}:{PASSWORD}".encode()
BASIC = base64.b64encode(LOGIN).decode()
SECRETS = (PASSWORD, quote(PASSWORD), quote_plus(PASSWORD), BASIC, quote(BASIC, safe=""), "theirs-41f0")
TOKEN = "/v2/_token/docker.io?scope=repository:alpine:pull&service=ociproxy"
PULLS = ("/v2/alpine/manifests/3", "/v2/alpine/tags/list", "/v2/")
FORM = f"grant_type=password&username={NAME}&password={quote_plus(PASSWORD)}&scope=repository%3Aalpine%3Apull"


@frozen
class Way:
    """One way to show a secret."""

    method: str
    path: str
    authorization: str | None
    body: bytes | None = None

    @property
    def fields(self) -> tuple[tuple[str, str], ...]:
        """The header fields that carry it."""
        return () if self.authorization is None else (("Authorization", self.authorization),)

    def raw(self, *lines: str, body: bytes | None = None) -> bytes:
        """Return the request as bytes, with further header lines."""
        body = self.body if body is None else body
        fields = [f"{name}: {value}" for name, value in self.fields] + list(lines)
        if body is not None:
            fields.append(f"Content-Length: {len(body)}")
        head = "\r\n".join((f"{self.method} {self.path} HTTP/1.1", "Host: cache.example", *fields, "", ""))
        return head.encode() + (body or b"")


class SecretTests(SynchronousTestCase):
    """Everything that leaves, but for what goes upstream."""

    def setUp(self) -> None:
        """A door, and whoever reads its log at the finest level."""
        self.registry = Registry(Entry("docker.io", ("https://registry-1.docker.io",)), is_transparent=False)
        self.said: list[str] = []
        logfmt = LogfmtObserver(self.said.append, "debug")

        @implementer(ILogObserver)
        def listen(event: LogEvent) -> None:
            logfmt(event)
            self.said.append(eventAsText(event, includeTraceback=True))
            self.said.append(repr({name: value for name, value in event.items() if name != "log_failure"}))

        globalLogPublisher.addObserver(listen)
        self.addCleanup(globalLogPublisher.removeObserver, listen)
        self.envelope = self.registry.envelopes.seal(
            "docker.io", ("library/alpine",), THEIRS, self.registry.clock.seconds() + 3600
        )

    def ways(self) -> Iterator[Way]:
        """Give every way to show a secret, good and bad tokens of ours among them."""
        shown = (f"Basic {BASIC}", f"Bearer {self.envelope}", f"Bearer {self.envelope}x", THEIRS)
        hidden = "Basic " + base64.b64encode(f"u:{self.envelope}".encode()).decode()
        for path in PULLS:
            yield from (Way("GET", path, authorization) for authorization in (*shown, hidden))
        yield from (Way("GET", f"{TOKEN}&account={NAME}", authorization) for authorization in (shown[0], hidden))
        yield Way("POST", "/v2/_token/docker.io", None, FORM.encode())
        yield Way("POST", "/v2/_token/docker.io", None, f"{FORM}&password=twice".encode())
        yield Way("POST", "/v2/_token/docker.io", None, FORM.replace("grant_type=password", "grant_type=x").encode())
        yield Way("GET", f"{TOKEN}&access_token={quote(PASSWORD)}", f"Basic {BASIC}=!")

    def assert_told_nothing(self, text: str, of: object) -> None:
        """No secret in any of its forms, nor a token of ours."""
        for secret in (*SECRETS, self.envelope, self.envelope[:40]):
            self.assertNotIn(secret, text, of)

    def assert_nothing_logged(self, of: object) -> None:
        """The log has lines, and no secret; names are nobody's business either."""
        self.assertTrue(self.said, of)
        for line in self.said:
            self.assert_told_nothing(line, of)
            self.assertNotIn(NAME, line)
            self.assertNotIn("access_token", line)
        self.said.clear()

    def assert_kept(self, way: Way, answer: Answer) -> None:
        """Nothing in the answer, nothing in the log."""
        self.assert_told_nothing(answer.body.decode(), way)
        self.assert_told_nothing(repr(list(answer.headers.getAllRawHeaders())), way)
        self.assert_nothing_logged(way)

    def fails_with(self, failure: Relay | Exception) -> set[int]:
        """Let everything fail in one way, and look at all that leaves."""
        statuses = set()
        for way in self.ways():
            self.registry.cache.verdict = self.registry.cache.granted = failure
            answer = self.registry.ask(way.method, way.path, *way.fields, body=way.body)
            statuses.add(answer.status)
            self.assert_kept(way, answer)
        return statuses

    def test_refused(self) -> None:
        """By the upstream, which may even repeat what it was shown; only a good token's ping is answered."""
        challenge = ("WWW-Authenticate", f'Bearer realm="https://x/?t={THEIRS}",error="{PASSWORD}"')
        self.assertEqual(self.fails_with(Relay(401, (challenge, ("X-Echo", THEIRS)), b"")), {200, 400, 401})

    def test_unreachable(self) -> None:
        """Nobody answers, or nobody may be asked."""
        self.assertEqual(self.fails_with(UpstreamUnreachable("no connection")), {400, 401, 502})
        self.registry.clock.advance(60)
        self.assertEqual(self.fails_with(OCIError("DENIED", "see token_realm")), {400, 401, 403})

    def test_a_crash_inside_is_logged_without_its_words(self) -> None:
        """They may repeat anything; where it happened is told."""
        text = " ".join((*SECRETS, self.envelope))
        self.assertEqual(self.fails_with(KeyError(text)), {400, 401, 500})
        self.assertGreater(len(self.flushLoggedErrors(Undisclosed)), 5)

    def test_a_crash_that_held_no_secret_is_told_in_full(self) -> None:
        """Whoever has to mend it needs its words, and always its place."""
        self.registry.cache.verdict = KeyError("which key")
        self.registry.get(PULLS[0])
        self.assertTrue(any("which key" in line for line in self.said))
        self.registry.cache.verdict = KeyError(PASSWORD)
        self.said.clear()
        self.registry.get(PULLS[0], ("Authorization", f"Basic {BASIC}"))
        (line,) = (line for line in self.said if line.startswith("ts=") and "level=critical" in line)
        self.assertIn("KeyError", line)
        self.assertIn("doubles.py:", line)
        self.assertEqual(len(self.flushLoggedErrors(KeyError, Undisclosed)), 2)

    def test_a_client_that_leaves(self) -> None:
        """In the middle of an exchange or a pull."""
        for way in self.ways():
            self.registry.cache.waiting = Deferred()
            self.registry.cache.granted = Deferred()
            self.registry.cache.verdict = UpstreamUnreachable("no connection")
            asked = self.registry.begin(way.method, way.path, *way.fields, body=way.body)
            asked.cancel()
            asked.addErrback(lambda _: None)
            self.registry.agent.flush()
            self.assert_nothing_logged(way)

    def test_malformed(self) -> None:
        """Refused before anything is read: on the wire, whatever is wrong with it."""
        site = DoorSite(self.registry.root, self.registry.clock, Census(DoorLimits()))
        spoilt: tuple[Callable[[Way], bytes], ...] = (
            lambda way: way.raw("Host: another.example"),
            lambda way: way.raw(f"Authorization: Basic {BASIC}", f"Authorization: Basic {BASIC}"),
            lambda way: way.raw(f"Authorization : Basic {BASIC}\x01"),
            lambda way: way.raw(f"X-Long: {PASSWORD * 20000}"),
            lambda way: way.raw(body=(way.body or b"") + FORM.encode() * 1000),
            lambda way: way.raw().replace(way.method.encode(), b"BREW", 1),
            lambda way: way.raw().replace(b" HTTP", b"\xf6 HTTP", 1),
            lambda way: way.raw().replace(b"/v2/", b"/v2/%2525/", 1),
        )
        for way in self.ways():
            for spoil in spoilt:
                line = Line(site=site)
                answer = line.send(spoil(way))
                line.hang_up()
                self.assertGreaterEqual(line.status, 400)
                self.assert_told_nothing(answer.decode("latin-1"), way)
                self.assert_nothing_logged(way)
        self.assertEqual(self.registry.cache.exchanges, [])

    def test_a_good_one_is_not_logged_either(self) -> None:
        """Neither query nor form, nor what was given for it."""
        for way in (Way("GET", f"{TOKEN}&account={NAME}", f"Basic {BASIC}"), *self.ways()):
            if way.path.startswith("/v2/_token"):
                answer = self.registry.ask(way.method, way.path, *way.fields, body=way.body)
                self.said.append(repr(list(answer.headers.getAllRawHeaders())))
                self.assert_nothing_logged(way)
