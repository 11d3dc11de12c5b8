"""What the core counts: bytes from upstreams, verdicts, resumes, lost spools, what runs, and each cap (RULES A5)."""

from __future__ import annotations

from typing import Any

from tests.cache.far_case import DATA, HALF, TOTAL, WRONG, CarryCase
from tests.cache.house import CacheCase, content, manifest
from tests.cache.troubled import TroubledStorage
from tests.doubles import FakeResponse, ManualWorkers
from tests.numbers import news, numbers
from txociproxy.assembly import CoreRules
from txociproxy.caps import IngestCaps
from txociproxy.ingest.limits import IngestLimits
from txociproxy.interfaces import Relay
from txociproxy.oci.errors import NoSpace, OCIError
from txociproxy.oci.manifests import OCI_MANIFEST
from txociproxy.oci.names import Digest
from txociproxy.parts import RangeRules

SIZE = 200_000
HUB, EVIL = 'namespace="docker.io"', 'namespace="unlisted"'


def from_upstream(count_bytes: int, labels: str = HUB) -> dict[str, float]:
    """Return the number of so many bytes from an upstream."""
    return {f"upstream_bytes_total{{{labels}}}": count_bytes}


def reached(*caps: str) -> dict[str, float]:
    """Return the numbers of caps that had their effect once."""
    return {f'caps_reached_total{{cap="{cap}"}}': 1 for cap in caps}


class CountingCase(CacheCase):
    """A core whose numbers are looked at; docker.io is configured, evil.example is not."""

    def setUp(self) -> None:
        """Have blobs whose bodies the test sends."""
        super().setUp()
        self.blobs = [content(SIZE, seed=seed + 1) for seed in range(4)]
        self.digests = [self.hub.add(data) for data in self.blobs]
        for data in self.blobs:
            self.other.add(data)
        self.hub.by_hand = self.other.by_hand = True
        self.seen: dict[str, float] = {}

    def counted(self, *changes: dict[str, float]) -> None:
        """Assert everything that the core has counted since the last time, and nothing else."""
        before, self.seen = self.seen, numbers(self.metrics.exposition())
        expected: dict[str, float] = {}
        for change in changes:
            expected |= change
        self.assertEqual(news(before, self.seen), expected)

    def start(self, number: int, **more: Any) -> Any:
        """Let a client read one of the blobs."""
        return self.follow(self.served(self.ask(self.digests[number], kind="blob", **more)))[1]


class BytesTests(CountingCase):
    """Bytes from upstreams, as they come."""

    def test_each_chunk_is_counted_when_it_comes(self) -> None:
        """Not at the end of a body that may take an hour."""
        self.start(0)
        self.counted({"ingests": 1})
        self.hub.sent[0].send(self.blobs[0][:150_000])
        self.counted(from_upstream(150_000))
        self.hub.sent[0].send(self.blobs[0][150_000:])
        self.counted(from_upstream(50_000), {"ingests": -1})

    def test_who_joins_brings_no_bytes(self) -> None:
        """That is what a cache is for."""
        self.start(0)
        self.start(0)
        self.hub.sent[0].send(self.blobs[0])
        self.hub.sent[0].end()
        self.start(0)
        self.counted(from_upstream(SIZE))

    def test_they_belong_to_the_namespace_of_the_ask(self) -> None:
        """One that is not configured has no label of its own (RULES A6)."""
        self.start(0, namespace="evil.example")
        self.other.sent[0].send(self.blobs[0])
        self.counted(from_upstream(SIZE, EVIL))

    def test_a_relayed_part_is_counted(self) -> None:
        """It is a body as any other; the answer that does not have the part is none."""
        self.build(CoreRules(ranges=RangeRules(miss="relay")))
        self.hub.by_hand = False
        ask = self.ask(self.digests[0], kind="blob", byte_range="bytes=100000-100999")
        self.assertEqual(len(self.bytes_of(self.served(ask))), 1000)
        self.counted(from_upstream(1000))
        self.served(self.ask(self.digests[0], kind="blob", byte_range=f"bytes={SIZE}-{SIZE + 1}"))
        self.counted()

    def test_a_manifest_is_counted_also_if_it_breaks_off(self) -> None:
        """What came has come."""
        data = manifest("one")
        self.hub.tag("1", data)
        self.assertEqual(self.get(self.ask("1"))[1], data)
        self.counted(from_upstream(len(data)))
        broken = FakeResponse(200, {"Content-Type": OCI_MANIFEST}, data[:10], ends=False)
        self.hub_asked.script = lambda _: broken
        asked = self.begin(self.ask(Digest.of(manifest("two"))))
        self.hub_asked.script = self.hub.script
        broken.break_off()
        self.counted(from_upstream(10))
        self.assertIsInstance(self.successResultOf(asked), Relay)

    def test_bytes_that_come_twice_are_counted_twice(self) -> None:
        """An upstream that begins again from the start has sent them, wanted or not."""
        self.hub.does_ranges = False
        self.start(0)
        self.hub.sent[0].send(self.blobs[0][:150_000])
        self.hub.sent[0].break_off()
        self.counted(from_upstream(150_000), {f"resumes_total{{{HUB}}}": 1, "ingests": 1})
        self.hub.sent[1].send(self.blobs[0])
        self.counted(from_upstream(SIZE), {"ingests": -1})


class TroubleTests(CountingCase):
    """What goes wrong with a body."""

    def test_a_wrong_blob_is_one_bad_verdict(self) -> None:
        """Of whoever sent it."""
        self.start(0)
        self.hub.sent[0].send(self.blobs[1])
        self.counted(from_upstream(SIZE), {f"bad_verdicts_total{{{HUB}}}": 1})

    def test_a_wrong_manifest_is_a_bad_verdict_each_time_that_it_comes(self) -> None:
        """It is asked for twice."""
        self.hub.content[str(Digest.of(manifest("one")))] = manifest("two")
        self.failureResultOf(self.begin(self.ask(Digest.of(manifest("one")))), OCIError)
        self.counted(from_upstream(2 * len(manifest("two"))), {f"bad_verdicts_total{{{HUB}}}": 2})

    def test_each_ask_for_the_rest_is_a_resume(self) -> None:
        """Also one that brings nothing, and that of a part."""
        self.start(0)
        self.hub.sent[0].send(self.blobs[0][:100_000])
        self.hub.down = True
        self.hub.sent[0].break_off()
        self.hub.down = False
        self.clock.advance(1)
        self.counted(from_upstream(100_000), {f"resumes_total{{{HUB}}}": 2, "ingests": 1})

    def test_a_spool_that_dies_is_dropped_once(self) -> None:
        """Its clients go on; what could not be begun was never there to be lost."""
        storage = TroubledStorage(lags=True)
        self.build(self.rules, storage)
        self.start(0)
        self.hub.sent[0].send(self.blobs[0][:150_000])
        self.clock.advance(IngestLimits().spool_stall_s)
        self.counted(from_upstream(150_000), {"spools_dropped_total": 1, "ingests": 1})
        storage.open_error = NoSpace("full")
        self.start(1)
        self.counted({"ingests": 1})

    def test_a_manifest_that_the_storage_loses_is_a_dropped_spool(self) -> None:
        """It waits for the disk for a while only."""
        data = manifest("one")
        self.hub.add(data)
        self.build(self.rules, TroubledStorage(holds_commits=True))
        self.assertEqual(self.get(self.ask(Digest.of(data)))[1], data)
        self.counted(from_upstream(len(data)))
        self.clock.advance(30)
        self.counted({"spools_dropped_total": 1})


class CapsTests(CountingCase):
    """Each cap of the core, when it has its effect and how full it is."""

    def caps(self, **caps: int) -> None:
        """Choose bounds."""
        self.build(CoreRules(caps=IngestCaps(**caps)))

    def assert_reached(self, *caps: str) -> None:
        """Another blob has to wait, which is counted once, and not again when it is refused."""
        waiting = self.begin(self.ask(self.digests[3], kind="blob"))
        self.assertEqual(self.caps_reached(), reached(*caps))
        self.clock.advance(5)
        self.failureResultOf(waiting, OCIError)
        self.assertEqual(self.caps_reached(), reached(*caps))

    def caps_reached(self) -> dict[str, float]:
        """Return the numbers of caps."""
        found = numbers(self.metrics.exposition())
        return {name: value for name, value in found.items() if name.startswith("caps_reached")}

    def uses(self, *caps: str) -> list[tuple[float, float]]:
        """Return how much of these caps is taken, and how much there is."""
        return [self.core.uses()[cap] for cap in caps]

    def test_ingests_in_all(self) -> None:
        """Who joins takes no place."""
        self.caps(total=2)
        for number in (0, 1, 1):
            self.start(number)
        self.assertEqual(self.uses("max_ingests"), [(2, 2)])
        self.assert_reached("max_ingests")

    def test_ingests_per_namespace(self) -> None:
        """The fullest is told of."""
        self.caps(per_namespace=2)
        for number in (0, 1):
            self.start(number)
        self.start(2, namespace="evil.example")
        self.assertEqual(self.uses("max_ingests", "max_ingests_per_namespace"), [(3, 256), (2, 2)])
        self.assert_reached("max_ingests_per_namespace")

    def test_ingests_per_client(self) -> None:
        """As the others."""
        self.caps(per_client=1)
        self.start(0)
        self.start(1, client="192.0.2.2")
        self.assertEqual(self.uses("max_ingests_per_client"), [(1, 1)])
        self.assert_reached("max_ingests_per_client")

    def test_two_caps_at_once_are_both_told_of(self) -> None:
        """Raising one of them would not help."""
        self.caps(total=1, per_client=1)
        self.start(0)
        self.assert_reached("max_ingests", "max_ingests_per_client")

    def test_ingests_without_readers(self) -> None:
        """The one that is abandoned is the effect."""
        self.caps(lonely=1)
        for number in (0, 1):
            sink = self.start(number)
            self.hub.sent[number].send(self.blobs[number][:1000])
            self.assertEqual((self.caps_reached(), self.uses("max_lonely_ingests")), ({}, [(number, 1)]))
            sink.leave()
        self.assertEqual(self.caps_reached(), reached("max_lonely_ingests"))
        self.assertEqual(self.uses("max_lonely_ingests"), [(1, 1)])

    def test_memory_of_all(self) -> None:
        """Counted when an upstream is paused for it, not with each look."""
        storage = TroubledStorage(lags=True)
        rules = CoreRules(IngestLimits(window_bytes=10_000), IngestCaps(memory_bytes=100_000))
        self.build(rules, storage)
        for number in range(2):
            self.start(number)
            self.hub.sent[number].send(self.blobs[number][:60_000])
        self.assertEqual(self.uses("max_ingest_memory"), [(120_000, 100_000)])
        self.assertEqual(self.caps_reached(), reached("max_ingest_memory"))
        self.follow(self.served(self.ask(self.digests[1], kind="blob")))
        self.assertEqual(self.caps_reached(), reached("max_ingest_memory"))
        storage.spools[1].flush()
        self.hub.sent[1].send(self.blobs[1][60_000:120_000])
        self.assertEqual(self.caps_reached(), {'caps_reached_total{cap="max_ingest_memory"}': 2})

    def test_what_was_short_once_is_not_short_for_ever(self) -> None:
        """The next pause is for its own disk, and no effect of this cap."""
        storage = TroubledStorage(lags=True)
        limits = IngestLimits(window_bytes=10_000, outstanding_bytes=80_000)
        self.build(CoreRules(limits, IngestCaps(memory_bytes=100_000)), storage)
        for number in range(2):
            self.start(number)
            self.hub.sent[number].send(self.blobs[number][:60_000])
        storage.spools[1].flush()
        self.hub.sent[1].send(self.blobs[1][60_000:150_000])
        self.assertTrue(self.hub.sent[1].transport.paused)
        self.assertEqual(self.caps_reached(), reached("max_ingest_memory"))

    def test_an_ingest_that_is_too_far_behind_alone_reaches_no_cap_of_all(self) -> None:
        """It waits for its own disk."""
        hashers = ManualWorkers()
        self.build(CoreRules(IngestLimits(window_bytes=10_000, outstanding_bytes=50_000)), workers=hashers)
        self.start(0)
        self.hub.sent[0].send(self.blobs[0][:60_000])
        self.assertTrue(self.hub.sent[0].transport.paused)
        self.assertEqual(self.caps_reached(), {})

    def test_relayed_ranges(self) -> None:
        """In all, and per blob."""
        for rules, cap in (
            (RangeRules(miss="relay", relays=1), "max_range_relays"),
            (RangeRules(miss="relay", relays_per_digest=1), "max_range_relays_per_digest"),
        ):
            self.build(CoreRules(ranges=rules))
            ask = self.ask(self.digests[0], kind="blob", byte_range="bytes=100000-100999")
            self.follow(self.served(ask))
            self.assertEqual(self.uses(cap), [(1, 1)])
            waiting = self.begin(ask)
            self.assertEqual(self.caps_reached(), reached(cap))
            self.clock.advance(5)
            self.failureResultOf(waiting, OCIError)

    def test_every_cap_of_the_core_is_told_of(self) -> None:
        """From the start, with the limits that hold."""
        limits = {name: limit for name, (used, limit) in self.core.uses().items() if used == 0}
        self.assertEqual(
            limits,
            {
                "max_ingests": 256,
                "max_ingests_per_namespace": 64,
                "max_ingests_per_client": 32,
                "max_lonely_ingests": 16,
                "max_ingest_memory": 256 * 1024 * 1024,
                "max_carried": 512,
                "max_range_relays": 32,
                "max_range_relays_per_digest": 4,
            },
        )


class CarriedTests(CarryCase, CountingCase):
    """What lies elsewhere and comes through us is not the upstream's."""

    def setUp(self) -> None:
        """Let the test send what the place gives."""
        CountingCase.setUp(self)
        CarryCase.setUp(self)
        self.hub.by_hand, self.far.by_hand, self.seen = False, True, {}

    def carried(self) -> Any:
        """Let a client read the blob through us."""
        return self.follow(self.served(self.blob()))[1]

    def test_its_bytes_come_from_no_upstream(self) -> None:
        """Also after a break, when the place goes on."""
        self.carried()
        self.far.sent[0].send(DATA[:HALF])
        self.far.sent[0].break_off()
        self.counted({"ingests": 1})
        self.far.sent[1].send(DATA[HALF:])
        self.counted({"ingests": -1})

    def test_what_the_upstream_helps_out_with_is_the_upstreams(self) -> None:
        """And only that: a resume, and the bytes that it brings."""
        self.carried()
        self.far.sent[0].send(DATA[:HALF])
        self.far.down = True
        self.far.sent[0].break_off()
        self.counted(from_upstream(TOTAL - HALF), {f"resumes_total{{{HUB}}}": 1})

    def test_a_place_that_is_back_gives_its_own_bytes_again(self) -> None:
        """The turn of each is known."""
        self.carried()
        self.far.sent[0].send(DATA[:50_000])
        self.far.down, self.hub.by_hand = True, True
        self.far.sent[0].break_off()
        self.hub.sent[0].send(DATA[50_000:60_000])
        self.far.down = False
        self.hub.sent[0].break_off()
        self.clock.advance(1)
        self.far.sent[-1].send(DATA[60_000:])
        self.counted(from_upstream(10_000), {f"resumes_total{{{HUB}}}": 1})

    def test_a_part_of_it_comes_from_no_upstream_either(self) -> None:
        """Until the upstream has to help out."""
        self.follow(self.served(self.blob("bytes=1000-1999")))
        self.far.sent[0].send(DATA[1000:1400])
        self.counted({"ingests": 1})
        self.far.down = True
        self.far.sent[0].break_off()
        self.counted(from_upstream(600), {f"resumes_total{{{HUB}}}": 1, "ingests": -1})

    def test_wrong_bytes_of_the_storage_are_its_error(self) -> None:
        """No upstream is to blame."""
        self.carried()
        self.far.sent[0].send(WRONG)
        self.counted({'storage_errors_total{operation="read"}': 1})

    def test_wrong_bytes_of_both_are_a_bad_verdict(self) -> None:
        """The upstream may be to blame."""
        self.carried()
        self.far.sent[0].send(WRONG[:HALF])
        self.far.down = True
        self.far.sent[0].break_off()
        verdict = {f"bad_verdicts_total{{{HUB}}}": 1.0}
        self.counted(from_upstream(TOTAL - HALF), {f"resumes_total{{{HUB}}}": 1}, verdict)

    def test_a_wrong_manifest_of_the_storage_is_its_error(self) -> None:
        """It is fetched again from the upstream."""
        data = manifest("one")
        digest = self.far.put(data, OCI_MANIFEST)
        self.hub.add(data)
        self.far.by_hand, self.far.others[digest] = False, manifest("two")
        self.assertEqual(self.get(self.ask(digest))[1], data)
        self.counted(from_upstream(len(data)), {'storage_errors_total{operation="read"}': 1})

    def test_its_places_are_a_cap_of_their_own(self) -> None:
        """Counted once, whether all of them are taken or one client's share."""
        for caps in (IngestCaps(carried=1), IngestCaps(carried=2, carried_per_client=1)):
            self.carry(caps=caps)
            self.carried()
            self.assertEqual(self.core.uses()["max_carried"], (1, caps.carried))
            waiting = self.begin(self.blob())
            found = numbers(self.metrics.exposition())
            self.assertEqual(
                {name: value for name, value in found.items() if name.startswith("caps")}, reached("max_carried")
            )
            waiting.cancel()
            self.failureResultOf(waiting)

    def test_a_copy_that_the_storage_loses_is_a_dropped_spool(self) -> None:
        """The pull goes on."""
        self.carry(fills=True)
        self.carried()
        self.far.spools[0].abandon()
        self.far.sent[0].send(DATA)
        self.counted({"spools_dropped_total": 1})
