"""The bounds that all ingests share (RULES A5)."""

from __future__ import annotations

from tests.cache.house import CacheCase, content
from tests.cache.troubled import SIZE, TroubledStorage
from tests.doubles import FakeSink, ManualWorkers
from txociproxy.assembly import CoreRules
from txociproxy.caps import IngestCaps
from txociproxy.ingest.limits import IngestLimits
from txociproxy.oci.errors import NoSpace, OCIError


class CapTests(CacheCase):
    """Ingests whose bodies the test sends."""

    def setUp(self) -> None:
        """Six blobs in each namespace."""
        super().setUp()
        self.blobs = [content(SIZE, seed=seed + 1) for seed in range(6)]
        self.digests = [self.hub.add(data) for data in self.blobs]
        for data in self.blobs:
            self.other.add(data)
        self.hub.by_hand = self.other.by_hand = True

    def caps(self, **caps: int) -> None:
        """Choose bounds."""
        self.build(CoreRules(caps=IngestCaps(**caps)))

    def start(self, number: int, client: str = "192.0.2.1", namespace: str = "docker.io") -> FakeSink:
        """Let a client read one of the blobs."""
        ask = self.ask(self.digests[number], kind="blob", client=client, namespace=namespace)
        return self.follow(self.served(ask))[1]

    def refused(self, number: int, client: str = "192.0.2.1", namespace: str = "docker.io") -> None:
        """Assert that a pull waits for five seconds and is told to come again."""
        ask = self.ask(self.digests[number], kind="blob", client=client, namespace=namespace)
        d = self.begin(ask)
        self.clock.advance(4.9)
        self.assertNoResult(d)
        self.clock.advance(0.2)
        error = self.failureResultOf(d, OCIError).value
        self.assertEqual((error.code, error.status, error.headers), ("TOOMANYREQUESTS", 503, (("Retry-After", "1"),)))

    def test_all_together_have_a_bound(self) -> None:
        """Joining one that runs takes no place."""
        self.caps(total=2)
        self.start(0)
        self.start(1, client="192.0.2.2", namespace="evil.example")
        self.start(0, client="192.0.2.3")
        self.refused(2, client="192.0.2.4")

    def test_one_namespace_has_a_bound(self) -> None:
        """The others are not held up."""
        self.caps(per_namespace=2)
        self.start(0)
        self.start(1)
        self.start(2, namespace="evil.example")
        self.refused(3)

    def test_one_client_has_a_bound(self) -> None:
        """The others are not held up."""
        self.caps(per_client=2)
        self.start(0)
        self.start(1)
        self.start(2, client="192.0.2.2")
        self.refused(3)

    def test_a_place_that_comes_free_is_taken(self) -> None:
        """By who waits."""
        self.caps(total=1)
        self.start(0)
        waiting = self.begin(self.ask(self.digests[1], kind="blob"))
        self.clock.advance(3)
        self.hub.sent[0].send(self.blobs[0])
        self.assertEqual(self.serve_of(waiting).outcome, "miss")

    def test_clients_without_an_address_are_not_one_client(self) -> None:
        """Behind a Unix socket stands a proxy of many."""
        self.caps(per_client=1)
        for number in range(3):
            self.start(number, client="-")
        self.assertEqual(len(self.core.ingests.running), 3)

    def test_one_client_at_its_bound_does_not_take_others_along(self) -> None:
        """They wanted the same blob and have places of their own (law 7)."""
        self.caps(per_client=1)
        self.start(0, client="greedy")
        greedy = self.begin(self.ask(self.digests[1], kind="blob", client="greedy"))
        self.clock.advance(1)
        modest = self.begin(self.ask(self.digests[1], kind="blob", client="modest"))
        greedy_too = self.begin(self.ask(self.digests[1], kind="blob", client="greedy"))
        self.clock.advance(4)
        self.failureResultOf(greedy, OCIError)
        self.assertEqual(self.serve_of(modest).outcome, "miss")
        self.assertEqual(self.serve_of(greedy_too).outcome, "join")

    def test_nobody_waits_longer_than_five_seconds(self) -> None:
        """Also who waited for another one's place first."""
        self.caps(total=1)
        self.start(0)
        waiting = [self.begin(self.ask(self.digests[1], kind="blob")) for _ in range(4)]
        self.clock.advance(5)
        for d in waiting:
            self.failureResultOf(d, OCIError)

    def test_of_too_many_without_readers_the_one_with_most_left_goes(self) -> None:
        """It holds a place and bandwidth for nobody."""
        self.caps(lonely=1)
        sinks = [self.start(n) for n in range(3)]
        for n, sent_bytes in enumerate((50_000, 1_000, 100_000)):
            self.hub.sent[n].send(self.blobs[n][:sent_bytes])
        sinks[0].leave()
        self.assertEqual(len(self.core.ingests.running), 3)
        sinks[1].leave()
        self.assertEqual([digest for _, digest in self.core.ingests.running], [self.digests[0], self.digests[2]])
        self.assertEqual(self.core.ingests.slots.taken[(0, "all")], 2)
        self.assertTrue(self.hub.sent[1].transport.lost)

    def test_one_of_unknown_length_goes_first(self) -> None:
        """Its end may never come."""
        self.caps(lonely=1)
        self.hub.says_length = False
        endless = self.begin(self.ask(self.digests[0], kind="blob"))
        self.hub.sent[0].send(self.blobs[0][:150_000])
        sink = self.follow(self.serve_of(endless))[1]
        self.hub.says_length = True
        bounded = self.start(1)
        sink.leave()
        bounded.leave()
        self.assertEqual([digest for _, digest in self.core.ingests.running], [self.digests[1]])

    def test_all_windows_together_have_a_bound(self) -> None:
        """Beyond it upstream is paused until the spool has caught up."""
        storage = TroubledStorage(lags=True)
        limits = IngestLimits(window_bytes=10_000)
        self.build(CoreRules(limits, IngestCaps(memory_bytes=100_000)), storage)
        for n in range(2):
            self.start(n)
            self.hub.sent[n].send(self.blobs[n][:60_000])
        first, second = (response.transport for response in self.hub.sent)
        self.assertEqual((first.paused, second.paused), (False, True))
        storage.spools[1].flush()
        self.assertFalse(second.paused)
        self.core.ingests.abandon_all()
        self.assert_at_rest()

    def test_what_is_not_hashed_yet_counts_too(self) -> None:
        """It is in memory although the windows have let it go: the disk is faster than the processor."""
        hashers = ManualWorkers()
        rules = CoreRules(IngestLimits(window_bytes=10_000), IngestCaps(memory_bytes=100_000))
        self.build(rules, workers=hashers)
        for n in range(2):
            self.start(n)
            self.hub.sent[n].send(self.blobs[n][:60_000])
        first, second = (response.transport for response in self.hub.sent)
        self.assertEqual((first.paused, second.paused), (False, True))
        hashers.work()
        self.assertFalse(second.paused)
        self.core.ingests.abandon_all()
        self.assert_at_rest()

    def test_the_end_of_the_service_stops_everything(self) -> None:
        """Also an ingest whose place a newer one has taken."""
        self.build(CoreRules(IngestLimits(window_bytes=10_000)), TroubledStorage(open_error=NoSpace("full")))
        sinks = [self.start(0)]
        for n in range(10):
            self.hub.sent[0].send(self.blobs[0][n * 10_000 : (n + 1) * 10_000])
        sinks.append(self.start(0))
        self.assertEqual((len(self.core.ingests.running), len(self.core.ingests.alive)), (1, 2))
        self.core.ingests.abandon_all()
        self.assertEqual([sink.ending for sink in sinks], ["cut", "cut"])
        self.assert_at_rest()
