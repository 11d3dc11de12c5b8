"""What is carried is bounded, and leaves nothing when its clients leave (RULES A5)."""

from __future__ import annotations

from twisted.internet.defer import CancelledError

from tests.cache.far_case import SMALL, CarryCase
from tests.cache.house import content
from txociproxy.ingests import IngestCaps
from txociproxy.interfaces import Ask, Serve
from txociproxy.oci.errors import OCIError


class BoundTests(CarryCase):
    """What is carried takes its place among all downloads (RULES A5)."""

    def test_too_many_at_once_wait_and_are_told(self) -> None:
        """In all, per namespace and per client; whole and in part."""
        self.far.by_hand = True
        for caps in (IngestCaps(total=1), IngestCaps(per_namespace=1), IngestCaps(per_client=1)):
            for byte_range in (None, "bytes=10-20"):
                self.carry(caps=caps)
                _, sink = self.follow(self.served(self.blob(byte_range)))
                d = self.begin(self.blob(byte_range))
                self.clock.advance(4.9)
                self.assertNoResult(d)
                self.clock.advance(0.2)
                self.assertEqual(self.failureResultOf(d, OCIError).value.status, 503)
                waiting = self.begin(self.blob(byte_range))
                sink.leave()
                self.serve_of(waiting).body.close()  # type: ignore[union-attr]
                self.assert_at_rest()

    def test_a_storm_holds_no_more_than_its_places_and_windows(self) -> None:
        """A hundred who want one blob and read nothing."""
        large = content(3_000_000)
        digest = self.far.put(large)
        self.far.by_hand = True
        self.carry()
        asks = [self.ask(digest, kind="blob", client=f"192.0.2.{n}") for n in range(100)]
        waiting = [self.begin(ask) for ask in asks]
        serves = [self.serve_of(d) for d in waiting if d.called]
        self.assertEqual((len(serves), len(self.far.sent)), (64, 64))
        readers = [self.follow(serve, capacity_bytes=1)[1] for serve in serves]
        for response in self.far.sent:
            for start in range(0, len(large), 100_000):
                if not response.transport.paused:
                    response.send(large[start : start + 100_000])
        self.assertTrue(all(response.transport.paused for response in self.far.sent))
        self.assertLess(sum(ingest.held_bytes for ingest in self.core.ingests.alive), 64 * 1_300_000)
        for sink in readers:
            sink.leave()
        late = [self.serve_of(d) for d in waiting[64:]]
        self.assertEqual({serve.outcome for serve in late}, {"hit"})
        for serve in late:
            assert serve.body is not None
            serve.body.close()
        self.asked()
        self.assert_at_rest()

    def test_the_end_of_the_service_ends_them(self) -> None:
        """Whole and in part."""
        self.far.by_hand = True
        sinks = [self.follow(self.served(self.blob(wanted)))[1] for wanted in (None, "bytes=10-20")]
        self.core.ingests.abandon_all()
        self.assertEqual([sink.ending for sink in sinks], ["cut", "cut"])
        self.assert_at_rest()


class LeakTests(CarryCase):
    """Clients that leave at any moment leave nothing."""

    def all_asks(self) -> tuple[Ask, ...]:
        """Return one of each."""
        small = self.ask(self.small, kind="blob")
        return self.blob(), self.blob("bytes=5-"), self.blob("bytes=-10"), self.blob("bytes=900000-"), small

    def close(self, serve: Serve) -> None:
        """Have no use for an answer."""
        if serve.body is not None:
            serve.body.close()

    def test_before_the_place_answers(self) -> None:
        """The read is cancelled and the place in the queue given back."""
        for fills in (False, True):
            self.carry(fills)
            self.far.holding = True
            for ask in self.all_asks():
                for d in [self.begin(ask) for _ in range(3)]:
                    d.addErrback(lambda failure: failure.trap(CancelledError))
                    d.cancel()
                self.assertEqual(self.far.held, [])
                self.assert_at_rest()
            self.assertEqual({spool._state for spool in self.far.spools}, {"abandoned"} if fills else set())

    def test_after_it(self) -> None:
        """Closed, read, or left in the midst."""
        for fills in (False, True):
            self.carry(fills)
            for ask in self.all_asks():
                self.close(self.served(ask))
                self.assert_at_rest()
                serve = self.served(ask)
                if serve.body is not None:
                    self.follow(serve)
                self.assert_at_rest()
                serve = self.served(ask)
                if serve.body is not None:
                    self.follow(serve, capacity_bytes=1)[1].leave()
                self.assert_at_rest()
            self.asked()

    def test_while_a_short_one_waits_for_its_verdict(self) -> None:
        """It had no Reader yet."""
        self.far.by_hand = True
        d = self.begin(self.ask(self.small, kind="blob"))
        self.far.sent[0].send(SMALL[:10])
        d.cancel()
        self.failureResultOf(d, CancelledError)
        self.assertTrue(self.far.sent[0].transport.lost)
        self.assert_at_rest()
