"""What is carried is bounded, and leaves nothing when its clients leave (RULES A5)."""

from __future__ import annotations

from twisted.internet.defer import CancelledError

from tests.cache.far_case import SMALL, CarryCase
from tests.cache.house import content
from txociproxy.caps import IngestCaps
from txociproxy.interfaces import Ask, Serve
from txociproxy.oci.errors import OCIError


class BoundTests(CarryCase):
    """What is carried has places of its own, more than what is fetched: it is a hit (RULES A5)."""

    def test_too_many_at_once_wait_and_are_told(self) -> None:
        """In all and per client; whole and in part."""
        self.far.by_hand = self.hub.by_hand = True
        for caps in (IngestCaps(carried=1), IngestCaps(carried=2, carried_per_client=1)):
            for byte_range in (None, "bytes=10-20"):
                self.carry(caps=caps)
                _, sink = self.follow(self.served(self.blob(byte_range)))
                d = self.begin(self.blob(byte_range))
                self.clock.advance(19.9)
                self.assertNoResult(d)
                self.clock.advance(0.2)
                self.assertEqual(self.failureResultOf(d, OCIError).value.status, 503)
                waiting = self.begin(self.blob(byte_range))
                sink.leave()
                self.serve_of(waiting).body.close()  # type: ignore[union-attr]
                self.assert_at_rest()

    def test_one_client_takes_no_more_than_half_unless_said(self) -> None:
        """The others have the rest."""
        self.far.by_hand = True
        self.carry(caps=IngestCaps(carried=4))
        mine = [self.begin(self.blob()) for _ in range(3)]
        others = [self.begin(self.blob(client="192.0.2.2")) for _ in range(2)]
        self.assertEqual([d.called for d in (*mine, *others)], [True, True, False, True, True])
        for d in (*mine, *others):
            self.serve_of(d).body.close()  # type: ignore[union-attr]
        self.assert_at_rest()

    def test_misses_take_no_place_of_hits_nor_hits_one_of_misses(self) -> None:
        """An upstream that hangs keeps nobody from what is kept, and the other way round."""
        self.far.by_hand = self.hub.by_hand = True
        caps = IngestCaps(total=1, per_namespace=1, per_client=1, carried=1)
        missing = self.hub.add(content(300_000, seed=5))
        for first, second in ((missing, self.digest), (self.digest, missing)):
            self.carry(caps=caps)
            serves = [self.served(self.ask(digest, kind="blob")) for digest in (first, second)]
            for serve in serves:
                serve.body.close()  # type: ignore[union-attr]
            self.core.ingests.abandon_all()
            self.assert_at_rest()

    def test_a_storm_is_served_and_holds_no_more_than_its_windows(self) -> None:
        """Three hundred who want one blob and read nothing: on a disk nobody would be told to come again."""
        large = content(3_000_000)
        digest = self.far.put(large)
        self.far.by_hand = True
        self.carry()
        serves = [self.served(self.ask(digest, kind="blob", client=f"192.0.2.{n % 250}")) for n in range(300)]
        self.assertEqual({serve.outcome for serve in serves}, {"hit"})
        readers = [self.follow(serve, capacity_bytes=1)[1] for serve in serves]
        for response in self.far.sent:
            for start in range(0, len(large), 100_000):
                if not response.transport.paused:
                    response.send(large[start : start + 100_000])
        self.assertTrue(all(response.transport.paused for response in self.far.sent))
        self.assertLess(sum(ingest.held_bytes for ingest in self.core.ingests.alive), 300 * 500_000)
        for sink in readers:
            sink.leave()
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
