"""Whether a credential reaches a content (RULES D1)."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers
from twisted.web.iweb import IResponse

from tests.upstreams.fakes import NAMESPACE, URL, Answer, FakeNet, FakeResponse, answer, pull_of, upstream_on
from txociproxy.answers import field_of
from txociproxy.collect import collect
from txociproxy.interfaces import Credentials
from txociproxy.oci.errors import UpstreamUnreachable
from txociproxy.upstreams.entries.entry import Entry

BLOB_URL = f"{URL}/v2/team/app/blobs/sha256:{'a' * 64}"
THERE = "https://cdn.example.net/x?sig=1"
CLIENT = Credentials("Basic theirs")


class ProbeTests(SynchronousTestCase):
    """A registry, and the delivery network it may redirect to."""

    def probe(
        self, here: dict[str, Answer], there: dict[str, Answer], entry: Entry | None = None
    ) -> Deferred[IResponse]:
        """Probe the blob as a client.

        :param here: the registry's answers by method; what it does not say is a redirect.
        :param there: the network's.
        """

        def handler(method: str, url: str, headers: Headers) -> Answer:
            self.ranges.append(headers.getRawHeaders("range", [None])[0])
            return there[method] if url == THERE else here.get(method) or answer(307, location=THERE)

        self.ranges: list[str | None] = []
        self.clock = Clock()
        self.net = FakeNet(handler)
        upstream = upstream_on(self.net, self.clock, entry)
        return Deferred.fromCoroutine(upstream.probe(pull_of(), CLIENT, None))

    def body(self, response: IResponse) -> bytes:
        """Return what is left to deliver."""
        return self.successResultOf(collect(response, 100_000, self.clock, 1))

    def test_a_head_that_tells_is_enough(self) -> None:
        """Yes and no, of the registry's own."""
        for code in (200, 401, 403, 404, 429, 500, 502):
            response = self.successResultOf(self.probe({"HEAD": answer(code, docker_content_digest="d")}, {}))
            self.assertEqual((response.code, field_of(response, "Docker-Content-Digest")), (code, "d"))
            self.assertEqual(self.body(response), b"")
            self.assertEqual(self.net.asked, [("HEAD", BLOB_URL, "Basic theirs")])

    def test_redirects_are_followed_and_see_no_credential(self) -> None:
        """RULES F3."""
        for code in (200, 401, 404, 429):
            response = self.successResultOf(self.probe({}, {"HEAD": answer(code)}))
            self.assertEqual(response.code, code)
            self.assertEqual(self.net.asked, [("HEAD", BLOB_URL, "Basic theirs"), ("HEAD", THERE, None)])

    def test_an_address_that_is_signed_for_get_is_tried_with_its_first_byte(self) -> None:
        """The answer says how long the content is, and its body is closed."""
        for code in (403, 405, 501):
            first = answer(206, b"x", open_ended=True, content_range="bytes 0-0/1234")
            response = self.successResultOf(self.probe({}, {"HEAD": answer(code), "GET": first}))
            self.assertEqual((response.code, field_of(response, "Content-Range")), (206, "bytes 0-0/1234"))
            self.assertEqual(self.body(response), b"")
            self.assertTrue(first.closed)
            asked = [("HEAD", BLOB_URL, "Basic theirs"), ("HEAD", THERE, None)]
            self.assertEqual(self.net.asked, [*asked, ("GET", BLOB_URL, "Basic theirs"), ("GET", THERE, None)])
            self.assertEqual(self.ranges, [None, None, "bytes=0-0", "bytes=0-0"])

    def test_a_registry_that_does_not_know_head_is_tried_too(self) -> None:
        """Whole content in place of its first byte is closed as well."""
        for code in (405, 501):
            whole = answer(200, b"x" * 100, open_ended=True)
            response = self.successResultOf(self.probe({"HEAD": answer(code), "GET": whole}, {}))
            self.assertEqual((response.code, self.body(response), whole.closed), (200, b"", True))
            self.assertEqual([method for method, *_ in self.net.asked], ["HEAD", "GET"])

    def test_a_refusal_of_the_get_keeps_its_words(self) -> None:
        """If they are few, and the registry's own."""
        for page, kept in ((b"denied", b"denied"), (b"x" * 70_000, b"")):
            response = self.successResultOf(self.probe({"HEAD": answer(405), "GET": answer(403, page)}, {}))
            self.assertEqual((response.code, self.body(response)), (403, kept))
        response = self.successResultOf(self.probe({}, {"HEAD": answer(403), "GET": answer(403, b"?sig=x")}))
        self.assertEqual((response.code, self.body(response)), (403, b""))

    def test_a_server_elsewhere_that_fails_is_an_outage(self) -> None:
        """It has not said no; all its answers are closed."""
        for head, get in ((500, 200), (503, 200), (403, 503), (501, 501)):
            answers = {"HEAD": answer(head), "GET": answer(get, b"x", open_ended=True)}
            probe = self.probe({}, answers)  # type: ignore[arg-type]  # each is an answer
            self.assertIn(NAMESPACE, str(self.failureResultOf(probe, UpstreamUnreachable).value))
            last = self.net.answered[-1]
            assert isinstance(last, FakeResponse)
            self.assertIsNotNone(last.protocol)

    def test_nothing_is_left_open(self) -> None:
        """Else the connections would be, for ever."""
        self.successResultOf(self.probe({"HEAD": answer(405), "GET": answer(404, b"no")}, {}))
        self.assertTrue(all(response.protocol is not None for response in self.net.answered))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_both_asks_share_one_deadline(self) -> None:
        """The GET has what the HEAD left."""
        head: Deferred[IResponse] = Deferred()
        probe = self.probe({"HEAD": head, "GET": Deferred()}, {}, Entry(NAMESPACE, (URL,), deadline_s=10.0))
        self.clock.advance(7)
        head.callback(answer(405))
        self.clock.advance(2.9)
        self.assertNoResult(probe)
        self.clock.advance(0.2)
        self.assertTrue(self.failureResultOf(probe, UpstreamUnreachable).value.timed_out)

    def test_the_next_url_is_asked_from_the_beginning(self) -> None:
        """With a HEAD."""
        answers: dict[str, list[Answer]] = {
            "https://one": [answer(307, location=THERE)],
            "https://two": [answer(405), answer(206)],
        }

        def handler(method: str, url: str, headers: Headers) -> Answer:
            return answer(502) if url == THERE else answers[url.split("/v2/")[0]].pop(0)

        net = FakeNet(handler)
        upstream = upstream_on(net, Clock(), Entry(NAMESPACE, ("https://one", "https://two")))
        probe = Deferred.fromCoroutine(upstream.probe(pull_of(), CLIENT, None))
        self.assertEqual(self.successResultOf(probe).code, 206)
        self.assertEqual(
            [(method, url[:11]) for method, url, _ in net.asked][2:], [("HEAD", "https://two"), ("GET", "https://two")]
        )
