"""One request: its slot, its deadline, its errors (RULES D7)."""

from __future__ import annotations

from functools import partial

from OpenSSL import SSL
from twisted.internet import error as network
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web._newclient import ParseError, RequestTransmissionFailed, ResponseFailed, ResponseNeverReceived
from twisted.web.http_headers import Headers
from twisted.web.iweb import IResponse

from tests.upstreams.fakes import Answer, FakeNet, FakeResponse, answer, wire_on
from txociproxy.collect import collect, discard
from txociproxy.oci.errors import OCIError, UpstreamUnreachable
from txociproxy.upstreams.connecting.breakers import OPEN_S
from txociproxy.upstreams.connecting.wire import Budget, Outgoing

BLOB = Outgoing("GET", "http://reg/v2/a/blobs/x?sig=secret", bulk=True)
SHORT = Outgoing("HEAD", "http://reg/v2/a/manifests/x")


def _fail_with(error: Exception, deferred: Deferred[IResponse]) -> None:
    """Fail, as a canceller."""
    deferred.errback(error)


class WireTests(SynchronousTestCase):
    """Sending through a network in memory."""

    def setUp(self) -> None:
        """Answer as ``self.answers`` says, one after the other."""
        self.clock = Clock()
        self.answers: list[Answer] = []
        self.headers: list[Headers] = []

        def handler(method: str, url: str, headers: Headers) -> Answer:
            self.headers.append(headers)
            return self.answers.pop(0)

        self.net = FakeNet(handler)
        self.wire = wire_on(self.net, self.clock, max_connections=2)

    def send(self, outgoing: Outgoing = SHORT, budget: Budget | None = None) -> Deferred[IResponse]:
        """Send, with ten seconds unless said otherwise."""
        return Deferred.fromCoroutine(self.wire.send(outgoing, budget or Budget(10.0)))

    def test_every_request_says_who_asks_and_wants_plain_bytes(self) -> None:
        """E6: another coding would not match the digest."""
        self.answers = [answer(200)]
        self.successResultOf(self.send())
        self.assertEqual(self.headers[0].getRawHeaders("accept-encoding"), ["identity"])
        self.assertEqual(self.headers[0].getRawHeaders("user-agent"), ["tests/1"])

    def test_no_answer_in_time_is_a_time_out(self) -> None:
        """However the agent shows that it was cancelled."""
        forms = (
            lambda waiting: waiting.errback(ResponseFailed([Failure(CancelledError())])),
            lambda waiting: waiting.errback(network.ConnectingCancelledError(None)),
            None,
        )
        for form in forms:
            waiting: Deferred[IResponse] = Deferred(form)
            self.answers = [waiting]
            sent = self.send(budget=Budget(3.0))
            self.clock.advance(3)
            error = self.failureResultOf(sent, UpstreamUnreachable).value
            self.assertTrue(error.timed_out)
            self.assertIn("http://reg did not answer within 3 s", str(error))

    def test_who_cancels_gets_cancelled(self) -> None:
        """Not an error of the upstream, and no next URL is tried."""
        for shown in (ResponseFailed([Failure(CancelledError())]), network.ConnectingCancelledError(None)):
            waiting: Deferred[IResponse] = Deferred(partial(_fail_with, shown))
            self.answers = [waiting]
            sent = self.send()
            sent.cancel()
            self.failureResultOf(sent, CancelledError)
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_only_waiting_is_taken_from_the_budget(self) -> None:
        """Time between two sends is not."""
        budget = Budget(10.0)
        for _ in range(2):
            waiting: Deferred[IResponse] = Deferred()
            self.answers = [waiting]
            sent = self.send(budget=budget)
            self.clock.advance(2)
            waiting.callback(answer(200))
            self.successResultOf(sent)
            self.clock.advance(100)
        self.assertEqual(budget.left_s, 6.0)

    def test_errors_are_told_in_safe_words(self) -> None:
        """502 or 504, without the query."""
        tls = SSL.Error([("SSL routines", "", "certificate verify failed")])
        plain = SSL.Error([("SSL routines", "", "wrong version number")])
        lost = Failure(network.ConnectionLost())
        for error, timed_out, words in (
            (network.ConnectionRefusedError(), False, "refused"),
            (network.DNSLookupError(), False, "no address"),
            (network.TimeoutError(), True, "in time"),
            (network.NoRouteError(), False, "no connection"),
            (ResponseNeverReceived([Failure(tls)]), False, "TLS: certificate verify failed"),
            (ResponseNeverReceived([lost, Failure(plain)]), False, "http:// in `urls`"),
            (ResponseFailed([Failure(network.ConnectionDone())]), False, "closed"),
            (RequestTransmissionFailed([lost]), False, "closed"),
            (ResponseFailed([Failure(ParseError("x", b"y"))]), False, "not HTTP"),
            (KeyError("sig=secret"), False, "KeyError"),
        ):
            self.answers = [error]
            self.clock.advance(OPEN_S)
            found = self.failureResultOf(self.send(BLOB), UpstreamUnreachable).value
            self.assertEqual(found.timed_out, timed_out, words)
            self.assertIn(words, str(found))
            self.assertNotIn("secret", str(found))

    def test_an_answer_that_would_confuse_clients_is_an_outage(self) -> None:
        """Interim ones, 304 without a condition, and numbers that are no status; their connections are let go."""
        for code in (-1, 99, 101, 304, 600, 99999):
            self.answers = [answer(code, b"x", open_ended=True)]
            error = self.failureResultOf(self.send(BLOB), UpstreamUnreachable).value
            self.assertIn(f"http://reg answered with status {code}", str(error))
            self.assertTrue(self.net.answered[-1].closed)
            body = self.net.answered[-1].protocol
            assert body is not None
            body.connectionLost(Failure(ResponseFailed([])))
        self.answers = [answer(599)]
        self.assertEqual(self.successResultOf(self.send(BLOB)).code, 599)

    def test_the_guards_refusal_is_passed_on(self) -> None:
        """It is an answer, not an outage."""
        self.answers = [OCIError("DENIED", "no")]
        self.failureResultOf(self.send(), OCIError)

    def test_a_slot_is_held_until_the_body_has_ended(self) -> None:
        """The third body waits, in order, within its deadline."""
        bodies = [answer(200, b"x", open_ended=True) for _ in range(4)]
        self.answers = [*bodies]
        first, second = (self.successResultOf(self.send(BLOB)) for _ in range(2))
        third, fourth = self.send(BLOB), self.send(BLOB, Budget(1.0))
        self.assertEqual(len(self.net.asked), 2)
        self.clock.advance(1)
        self.failureResultOf(fourth, UpstreamUnreachable)
        self.assertNoResult(third)
        self.end(first, bodies[0])
        self.successResultOf(third)
        self.assertEqual(len(self.net.asked), 3)
        self.end(second, bodies[1])
        self.successResultOf(self.send(BLOB))

    def end(self, response: IResponse, body: FakeResponse) -> None:
        """Close a body as its reader would, and let the connection tell it."""
        discard(response)
        assert body.protocol is not None
        body.protocol.connectionLost(Failure(ResponseFailed([])))

    def test_short_asks_never_wait_behind_bodies(self) -> None:
        """They have as many slots of their own; HEAD gives its slot back at once."""
        bodies = [answer(200, b"x", open_ended=True) for _ in range(2)]
        self.answers = [*bodies, *(answer(200) for _ in range(5))]
        for _ in range(2):
            self.successResultOf(self.send(BLOB))
        for _ in range(5):
            self.successResultOf(self.send())

    def test_failures_and_cancels_give_their_slots_back(self) -> None:
        """Also those of waiters."""
        self.answers = [network.ConnectError() for _ in range(5)]
        for _ in range(5):
            self.failureResultOf(self.send(BLOB), UpstreamUnreachable)
        self.clock.advance(OPEN_S)
        self.answers = [answer(200, b"x", open_ended=True) for _ in range(3)]
        held = [self.successResultOf(self.send(BLOB)) for _ in range(2)]
        leaving, staying = self.send(BLOB), self.send(BLOB)
        leaving.cancel()
        self.failureResultOf(leaving, CancelledError)
        self.end(held[0], self.net.answered[0])
        self.successResultOf(staying)

    def test_a_leased_answer_is_the_answer(self) -> None:
        """With its length, headers and bytes."""
        self.answers = [answer(206, b"body", content_range="bytes 0-3/9")]
        found = self.successResultOf(self.send(BLOB))
        self.assertEqual((found.code, found.length), (206, 4))
        self.assertEqual(found.headers.getRawHeaders("content-range"), ["bytes 0-3/9"])
        self.assertEqual(self.successResultOf(collect(found, 9, self.clock, 5)), b"body")
