"""An origin that does not answer is left alone for a while (RULES D8)."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st
from OpenSSL import SSL
from twisted.internet import error as network
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web._newclient import ResponseFailed, ResponseNeverReceived
from twisted.web.http_headers import Headers
from twisted.web.iweb import IResponse

from tests.upstreams.fakes import Answer, FakeNet, answer
from txociproxy.collect import discard
from txociproxy.oci.errors import OCIError, UpstreamUnreachable
from txociproxy.upstreams.connecting.breakers import FAILURES, MAX_ORIGINS, OPEN_S, Attempt, Breakers
from txociproxy.upstreams.connecting.telling import Telling
from txociproxy.upstreams.connecting.wire import Budget, Outgoing, Slots, Wire
from txociproxy.upstreams.origins import Origin

URL = "https://reg.example/v2/"
REG = Origin.of(URL)


class WireTests(SynchronousTestCase):
    """The breaker where it stands: around every request."""

    def setUp(self) -> None:
        """Nothing has failed; ``self.answer`` is what is answered."""
        self.clock = Clock()
        self.answer: Callable[[], Answer] = lambda: answer(200)

        def handler(method: str, url: str, headers: Headers) -> Answer:
            return self.answer()

        self.net = FakeNet(handler)
        self.wire = Wire(self.net, self.clock, "tests/1", Slots.of(4), Telling("reg"))

    def send(self, url: str = URL, budget_s: float = 10.0, bulk: bool = False) -> Deferred[IResponse]:
        """GET."""
        return Deferred.fromCoroutine(self.wire.send(Outgoing("GET", url, bulk=bulk), Budget(budget_s)))

    def fail_with(self, error: Exception, times: int = FAILURES) -> None:
        """Fail so many times in a row."""
        self.answer = lambda: error
        for _ in range(times):
            self.failureResultOf(self.send(), UpstreamUnreachable)

    def hang(self) -> None:
        """Do not answer from now on."""
        self.answer = Deferred

    def assert_open(self, is_open: bool = True) -> None:
        """See whether requests fail without being sent."""
        asked = len(self.net.asked)
        sent = self.send()
        self.assertEqual(len(self.net.asked), asked + (0 if is_open else 1))
        sent.addErrback(lambda _: None)
        sent.cancel()

    def test_five_failures_in_a_row_open_it_for_ten_seconds(self) -> None:
        """Then it fails at once, and says so and how long."""
        self.fail_with(network.ConnectionRefusedError(), FAILURES - 1)
        self.assertFalse(self.wire.is_down(URL))
        self.fail_with(network.ConnectionRefusedError(), 1)
        self.assertTrue(self.wire.is_down(URL))
        self.clock.advance(2.5)
        error = self.failureResultOf(self.send(), UpstreamUnreachable).value
        self.assertEqual(str(error), "https://reg.example has not answered lately; it is asked again in 8 s")
        self.assertFalse(error.timed_out)
        self.assertEqual(len(self.net.asked), FAILURES)
        self.clock.advance(OPEN_S - 2.5)
        self.assertFalse(self.wire.is_down(URL))
        self.assert_open(False)

    def test_any_answer_between_begins_anew(self) -> None:
        """Whatever its status."""
        for code in (200, 401, 404, 429, 500, 503, 304):
            self.fail_with(network.ConnectionRefusedError(), FAILURES - 1)
            self.answer = lambda code=code: answer(code)  # type: ignore[misc]
            self.send().addErrback(lambda _: None)
        self.fail_with(network.ConnectionRefusedError(), FAILURES - 1)
        self.assertFalse(self.wire.is_down(URL))

    def test_connections_tls_and_first_bytes_count(self) -> None:
        """Each kind."""
        for error in (
            network.DNSLookupError(),
            network.ConnectionRefusedError(),
            network.TimeoutError(),
            ResponseNeverReceived([Failure(SSL.Error([("", "", "certificate verify failed")]))]),
            ResponseNeverReceived([Failure(network.ConnectionLost())]),
            ResponseFailed([Failure(network.ConnectionDone())]),
        ):
            self.setUp()
            self.fail_with(error)
            self.assert_open()

    def test_who_hangs_up_on_one_clients_credential_is_not_down_for_all(self) -> None:
        """A firewall that dislikes a password (law 7); any other lost connection counts, with our own token too."""
        lost = ResponseNeverReceived([Failure(network.ConnectionLost())])
        plain = Outgoing("GET", URL)
        for outgoing, is_down in ((plain.with_client("Basic x"), False), (plain.with_token("Bearer y"), True)):
            self.setUp()
            for _ in range(FAILURES):
                self.answer = lambda: lost
                sent = Deferred.fromCoroutine(self.wire.send(outgoing, Budget(10)))
                self.failureResultOf(sent, UpstreamUnreachable)
            self.assertEqual(self.wire.is_down(URL), is_down)

    def test_a_refused_connection_counts_whoever_asks(self) -> None:
        """It was made for nobody in particular."""
        for _ in range(FAILURES):
            self.answer = network.ConnectionRefusedError
            sent = Deferred.fromCoroutine(self.wire.send(Outgoing("GET", URL).with_client("Basic x"), Budget(10)))
            self.failureResultOf(sent, UpstreamUnreachable)
        self.assertTrue(self.wire.is_down(URL))

    def test_one_failure_makes_it_doubtful_for_a_while(self) -> None:
        """Another URL is the better choice then; any answer ends it."""
        self.assertFalse(self.wire.is_doubtful(URL))
        for ends_by_answer in (False, True):
            self.answer = network.ConnectionRefusedError
            sent = Deferred.fromCoroutine(self.wire.send(Outgoing("GET", URL), Budget(10)))
            self.failureResultOf(sent, UpstreamUnreachable)
            self.assertEqual((self.wire.is_doubtful(URL), self.wire.is_down(URL)), (True, False))
            if ends_by_answer:
                self.answer = lambda: answer(200)
                self.successResultOf(Deferred.fromCoroutine(self.wire.send(Outgoing("GET", URL), Budget(10))))
            else:
                self.clock.advance(OPEN_S)
            self.assertFalse(self.wire.is_doubtful(URL))

    def test_time_outs_count(self) -> None:
        """Connections that hang, and servers that do."""
        self.hang()
        for _ in range(FAILURES):
            sent = self.send()
            self.clock.advance(10)
            self.assertTrue(self.failureResultOf(sent, UpstreamUnreachable).value.timed_out)
        self.assert_open()
        self.failureResultOf(self.send(budget_s=20), UpstreamUnreachable)
        self.assertEqual(len(self.net.asked), FAILURES)

    def test_who_can_wait_much_longer_is_not_failed_by_the_impatient(self) -> None:
        """A slow registry is no dead one: asks for a stale tag give up after 2 s, a cold blob has 30 s."""
        self.hang()
        for _ in range(FAILURES):
            sent = self.send(budget_s=2)
            self.clock.advance(2)
            self.failureResultOf(sent, UpstreamUnreachable)
        self.failureResultOf(self.send(budget_s=4), UpstreamUnreachable)
        self.assertEqual(len(self.net.asked), FAILURES)
        patient = self.send(budget_s=30)
        self.assertEqual(len(self.net.asked), FAILURES + 1)
        self.assertTrue(self.wire.is_down(URL))
        self.clock.advance(5)
        self.assertNoResult(patient)

    def test_what_the_patient_learn_counts(self) -> None:
        """An answer closes it for all; none makes it fail for them too."""
        for is_answered in (True, False):
            self.setUp()
            self.hang()
            for _ in range(FAILURES):
                self.send(budget_s=2).addErrback(lambda _: None)
            self.clock.advance(2)
            waiting: Deferred[IResponse] = Deferred()
            self.answer = lambda waiting=waiting: waiting  # type: ignore[misc]
            patient = self.send(budget_s=6)
            patient.addErrback(lambda _: None)
            if is_answered:
                waiting.callback(answer(200))
            else:
                self.clock.advance(6)
            asked = len(self.net.asked)
            self.send(budget_s=12).addErrback(lambda _: None)
            self.assertEqual(len(self.net.asked), asked + (1 if is_answered else 0))

    def test_clients_that_leave_and_refusals_of_the_guard_do_not_count(self) -> None:
        """Nor do they begin the row anew."""
        self.fail_with(network.ConnectError(), FAILURES - 1)
        self.hang()
        for _ in range(FAILURES):
            sent = self.send()
            sent.cancel()
            self.failureResultOf(sent, CancelledError)
        self.answer = lambda: OCIError("DENIED", "no")
        for _ in range(FAILURES):
            self.failureResultOf(self.send(), OCIError)
        self.assertFalse(self.wire.is_down(URL))
        self.fail_with(network.ConnectError(), 1)
        self.assert_open()

    def test_waiting_for_a_slot_is_not_the_origins_fault(self) -> None:
        """And a wait that ends while it is open is not sent."""
        bodies = [answer(200, b"x", open_ended=True) for _ in range(4)]
        given = list(bodies)
        self.answer = lambda: given.pop(0)
        held = [self.successResultOf(self.send(bulk=True)) for _ in range(4)]
        for _ in range(FAILURES):
            self.send(bulk=True, budget_s=1).addErrback(lambda _: None)
        self.clock.advance(1)
        self.assertFalse(self.wire.is_down(URL))
        waiting = self.send(bulk=True)
        self.fail_with(network.ConnectError())
        self.failureResultOf(self.send(bulk=True), UpstreamUnreachable)  # at once, though no slot is free
        self.assertNoResult(waiting)
        asked = len(self.net.asked)
        discard(held[0])
        assert bodies[0].protocol is not None
        bodies[0].protocol.connectionLost(Failure(ResponseFailed([])))
        self.failureResultOf(waiting, UpstreamUnreachable)
        self.assertEqual(len(self.net.asked), asked)

    def test_a_body_that_breaks_off_does_not_count(self) -> None:
        """The origin answers."""
        for _ in range(FAILURES):
            body = answer(200, b"x", open_ended=True)
            self.answer = lambda body=body: body  # type: ignore[misc]
            discard(self.successResultOf(self.send(bulk=True)))
            assert body.protocol is not None
            body.protocol.connectionLost(Failure(ResponseFailed([])))
        self.assertFalse(self.wire.is_down(URL))

    def test_half_open_one_request_goes_and_the_others_fail_until_it_is_decided(self) -> None:
        """An answer closes it; a failure opens it for ten more seconds."""
        for is_answered in (True, False):
            self.setUp()
            self.fail_with(network.ConnectError())
            self.clock.advance(OPEN_S)
            probing: Deferred[IResponse] = Deferred()
            self.answer = lambda probing=probing: probing  # type: ignore[misc]
            probe = self.send(budget_s=60)
            self.clock.advance(OPEN_S + 1)
            asked = len(self.net.asked)
            self.assertTrue(self.wire.is_down(URL))
            self.assertIn("in 1 s", str(self.failureResultOf(self.send(), UpstreamUnreachable).value))
            self.assertEqual(len(self.net.asked), asked)
            if is_answered:
                probing.callback(answer(200))
                self.successResultOf(probe)
                self.assert_open(False)
            else:
                probing.errback(network.ConnectError())
                self.failureResultOf(probe, UpstreamUnreachable)
                self.clock.advance(OPEN_S - 0.1)
                self.assert_open()
                self.clock.advance(0.1)
                self.assert_open(False)

    def test_a_probe_whose_client_leaves_is_followed_by_the_next(self) -> None:
        """At once; the guard's refusal decides nothing either."""
        self.fail_with(network.ConnectError())
        self.clock.advance(OPEN_S)
        self.hang()
        first = self.send()
        self.assert_open()
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.answer = lambda: OCIError("DENIED", "no")
        self.failureResultOf(self.send(), OCIError)
        asked = len(self.net.asked)
        self.hang()
        self.send().addErrback(lambda _: None)
        self.assertEqual(len(self.net.asked), asked + 1)
        self.assert_open()

    def test_late_failures_do_not_keep_it_open(self) -> None:
        """Those of requests that were on their way when it opened."""
        late: list[Deferred[IResponse]] = []

        def hang() -> Answer:
            late.append(Deferred())
            return late[-1]

        self.answer = hang
        sent = [self.send(budget_s=60) for _ in range(3)]
        self.fail_with(network.ConnectError())
        self.clock.advance(OPEN_S - 1)
        for waiting, one in zip(late, sent, strict=True):
            waiting.errback(network.ConnectionLost())
            self.failureResultOf(one, UpstreamUnreachable)
        self.clock.advance(1)
        self.assertFalse(self.wire.is_down(URL))

    def test_each_origin_has_its_own(self) -> None:
        """A CDN that is down does not close the registry, nor another port of the same host."""
        self.fail_with(network.ConnectError())
        for url in ("https://reg.example:8443/v2/", "http://reg.example/v2/", "https://cdn.example/"):
            self.assertFalse(self.wire.is_down(url))
        self.assertTrue(self.wire.is_down("https://reg.example/other?x=y"))


class BreakersTests(SynchronousTestCase):
    """The table itself."""

    def test_the_table_is_bounded(self) -> None:
        """Whose last failure is longest ago is forgotten."""
        breakers = Breakers(Clock())
        first, others = REG, [Origin("https", f"h{number}", 443) for number in range(MAX_ORIGINS)]
        for origin in (first, *others[:-1], first, others[-1]):
            breakers.begin(origin, 10).failed(has_expired=False)
        self.assertEqual(len(breakers._states), MAX_ORIGINS)
        self.assertIn(first, breakers._states)
        self.assertNotIn(others[0], breakers._states)

    def test_it_never_stays_shut(self) -> None:
        """Whatever happens, ten seconds after all requests have ended one may be sent."""

        @settings(deadline=None, max_examples=200)
        @given(
            st.lists(
                st.tuples(st.sampled_from("bafl"), st.integers(0, 3), st.sampled_from([0.0, 1.0, 9.0])), max_size=60
            )
        )
        def holds(steps: list[tuple[str, int, float]]) -> None:
            clock = Clock()
            breakers = Breakers(clock)
            running: list[Attempt] = []
            for kind, which, wait_s in steps:
                clock.advance(wait_s)
                if kind == "b":
                    try:
                        running.append(breakers.begin(REG, 10.0))
                    except UpstreamUnreachable:
                        self.assertTrue(breakers.is_down(REG))
                elif running:
                    attempt = running.pop(which % len(running))
                    if kind == "f":
                        attempt.failed(has_expired=which > 1)
                    elif kind == "a":
                        attempt.answered()
                    else:
                        attempt.left()
            for attempt in running:
                attempt.left()
            clock.advance(OPEN_S)
            self.assertFalse(breakers.is_down(REG))
            breakers.begin(REG, 10.0)

        holds()
