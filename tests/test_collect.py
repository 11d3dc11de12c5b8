"""Small bodies: gathered with a cap, kept, closed."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import ResponseFailed
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers

from tests.upstreams.fakes import answer
from txociproxy.collect import BodyTooLong, KeptResponse, collect, discard, kept
from txociproxy.oci.errors import UpstreamUnreachable


class CollectTests(SynchronousTestCase):
    """Whole bodies, within bounds."""

    def setUp(self) -> None:
        """Time stands still."""
        self.clock = Clock()

    def tearDown(self) -> None:
        """No timer outlives its body."""
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_body_comes_whole(self) -> None:
        """Up to the cap, exactly."""
        self.assertEqual(self.successResultOf(collect(answer(200, b"1234"), 4, self.clock, 5)), b"1234")

    def test_a_connection_may_be_the_end(self) -> None:
        """Without a length there is no other."""
        response = answer(200, b"12", open_ended=True)
        body = collect(response, 4, self.clock, 5)
        assert response.protocol is not None
        response.protocol.connectionLost(Failure(PotentialDataLoss()))
        self.assertEqual(self.successResultOf(body), b"12")

    def test_a_long_body_is_closed(self) -> None:
        """By its announced length before it begins, else as soon as it is over."""
        for response in (answer(200, b"12345"), answer(200, b"12345", open_ended=True)):
            self.failureResultOf(collect(response, 4, self.clock, 5), BodyTooLong)
            self.assertTrue(response.closed)

    def test_a_broken_body_is_no_body(self) -> None:
        """The upstream is as good as unreachable."""
        response = answer(200, b"12", open_ended=True)
        body = collect(response, 4, self.clock, 5)
        assert response.protocol is not None
        response.protocol.connectionLost(Failure(ResponseFailed([])))
        self.failureResultOf(body, UpstreamUnreachable)

    def test_silence_ends_it(self) -> None:
        """Each chunk gives the same time again."""
        response = answer(200, b"1", open_ended=True)
        body = collect(response, 9, self.clock, 5)
        self.clock.advance(4)
        assert response.protocol is not None
        response.protocol.dataReceived(b"2")
        self.clock.advance(4)
        self.assertNoResult(body)
        self.clock.advance(1)
        self.assertTrue(self.failureResultOf(body, UpstreamUnreachable).value.timed_out)
        self.assertTrue(response.closed)

    def test_a_drip_ends_with_the_whole_time(self) -> None:
        """One byte now and then does not hold it for ever."""
        response = answer(200, b"1", open_ended=True)
        body = collect(response, 9, self.clock, 5, 8)
        for _ in range(2):
            self.clock.advance(4)
            assert response.protocol is not None
            response.protocol.dataReceived(b"2")
        self.failureResultOf(body, UpstreamUnreachable)

    def test_cancelling_closes_it(self) -> None:
        """And late bytes are dropped."""
        response = answer(200, b"1", open_ended=True)
        body = collect(response, 9, self.clock, 5)
        body.cancel()
        self.failureResultOf(body, CancelledError)
        self.assertTrue(response.closed)
        assert response.protocol is not None
        response.protocol.dataReceived(b"2")

    def test_discard_closes(self) -> None:
        """A body that is never delivered would stay open for ever."""
        response = answer(200, b"1", open_ended=True)
        discard(response)
        self.assertTrue(response.closed)

    def test_a_kept_answer_is_given_again(self) -> None:
        """With status, headers and body."""
        response = answer(401, b"no", www_authenticate="Basic")
        again = self.successResultOf(Deferred.fromCoroutine(kept(response, self.clock, 9, 5)))
        self.assertEqual((again.code, again.headers, again.length), (401, response.headers, 2))
        self.assertEqual(self.successResultOf(collect(again, 9, self.clock, 5)), b"no")

    def test_an_answer_with_a_long_page_is_kept_without_it(self) -> None:
        """Its status is what counts."""
        again = self.successResultOf(Deferred.fromCoroutine(kept(answer(401, b"long"), self.clock, 3, 5)))
        self.assertEqual((again.code, again.length), (401, 0))
        discard(KeptResponse(200, Headers(), b"x"))
