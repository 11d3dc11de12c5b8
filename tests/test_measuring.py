"""Gauges are read when somebody asks; the disk is looked at beside; timers that fire late are measured."""

from __future__ import annotations

from math import isnan
from types import SimpleNamespace
from typing import Any, cast

from attrs import define, field
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from tests.doubles import ManualWorkers
from txociproxy import __version__
from txociproxy.building import House, build
from txociproxy.config import Config, load
from txociproxy.measured import MeasuredStorage
from txociproxy.measuring import BEAT_S, DISK_EVERY_S, Measuring
from txociproxy.metrics import CAPS, Metrics
from txociproxy.readiness import Readiness
from txociproxy.storage.s3.gate import Gate
from txociproxy.storage.s3.trouble import S3Trouble

BUCKET = {"STORAGE_BACKEND": "s3", "S3_BUCKET": "images"}
S3_NAMES = ("s3_up", "s3_outages", "s3_upload_queue", "s3_upload_queue_bytes", "s3_tier_bytes")


def config(**environ: str) -> Config:
    """Return a configuration."""
    return load({}, {"PROXY_MODE": "transparent", "LISTEN_ADDR": "127.0.0.1:0", "FS_ROOT": "/srv/x", **environ})


@define(eq=False)
class Bench:
    """What is measured, in the hands of the test.

    :ivar disks: what a look at the disk finds, one after the other; an error is raised.
    """

    environ: dict[str, str] = field(factory=dict)
    clock: Clock = field(factory=Clock)
    metrics: Metrics = field(factory=Metrics)
    readiness: Readiness = field(factory=Readiness)
    threads: ManualWorkers = field(factory=ManualWorkers)
    core: dict[str, tuple[float, float]] = field(factory=lambda: {"max_ingests": (3.0, 256.0)})
    tokens: dict[str, tuple[float, float]] = field(factory=lambda: {"tokens": (7.0, 10_000.0)})
    doors: dict[str, tuple[float, float]] = field(factory=lambda: {"max_connections": (2.0, 4096.0)})
    disks: list[Any] = field(factory=lambda: [(100, 60, 30)])
    looked_at: list[str] = field(factory=list)
    gate: Gate = field(init=False)
    bucket: Any = field(init=False)
    measuring: Measuring = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.gate = Gate(self.clock, "s3://images")
        uploads = SimpleNamespace(waiting=4, waiting_bytes=4096)
        near = SimpleNamespace(uploads=uploads, tier=SimpleNamespace(used_bytes=77))
        self.bucket = SimpleNamespace(far=SimpleNamespace(gate=self.gate), near=near)
        self.measuring = Measuring(self.clock, config(**self.environ), self.look)

    def look(self, path: str) -> tuple[int, int, int]:
        """Look at a disk."""
        self.looked_at.append(path)
        found = self.disks.pop(0)
        if isinstance(found, Exception):
            raise found
        return cast("tuple[int, int, int]", found)

    def house(self) -> House:
        """Return a house of which everything that is measured is here."""
        house = SimpleNamespace(
            metrics=self.metrics,
            readiness=self.readiness,
            aside=self.threads,
            storage=self.bucket,
            uses=lambda: self.core,
            upstreams=SimpleNamespace(uses=lambda: self.tokens),
            site=SimpleNamespace(census=SimpleNamespace(uses=lambda: self.doors)),
        )
        return cast(House, house)

    def start(self) -> None:
        """Begin, and let the first look at the disk begin."""
        self.measuring.start(self.house())
        self.clock.advance(0)

    def scraped(self, name: str, **labels: str) -> float | None:
        """Return what somebody sees who asks now; None is nothing."""
        self.metrics.exposition()
        return self.metrics.registry.get_sample_value(f"ociproxy_{name}", labels)

    def disk(self) -> tuple[float | None, ...]:
        """Return size, used and free."""
        return tuple(self.scraped(f"storage_{name}_bytes") for name in ("size", "used", "free"))


class GaugeTests(SynchronousTestCase):
    """What is read at a scrape."""

    def setUp(self) -> None:
        """Measure."""
        self.bench = Bench()
        self.bench.start()
        self.addCleanup(self.bench.measuring.stop)

    def test_caps_are_told_by_whoever_has_them(self) -> None:
        """The core, the upstreams and the doors."""
        for cap, use in (("max_ingests", (3, 256)), ("tokens", (7, 10_000)), ("max_connections", (2, 4096))):
            found = self.bench.scraped("cap_used", cap=cap), self.bench.scraped("cap_limit", cap=cap)
            self.assertEqual(found, use)
        self.bench.core["max_ingests"] = (200, 256)
        self.assertEqual(self.bench.scraped("cap_used", cap="max_ingests"), 200)

    def test_ready_says_what_the_page_says(self) -> None:
        """From one scrape to the next."""
        self.assertEqual(self.bench.scraped("ready"), 1)
        self.bench.readiness.draining = True
        self.assertEqual(self.bench.scraped("ready"), 0)

    def test_what_runs_here_is_in_the_labels(self) -> None:
        """One sample, whose value is 1."""
        text = self.bench.metrics.exposition().decode()
        (line,) = [line for line in text.splitlines() if line.startswith("ociproxy_build_info{")]
        for part in (f'version="{__version__}"', 'mode="transparent"', 'storage="fs"', "} 1.0"):
            self.assertIn(part, line)

    def test_what_cannot_be_read_is_said_and_costs_no_scrape(self) -> None:
        """Everything else is given."""
        self.bench.core = cast(Any, None)
        self.assertEqual(self.bench.scraped("ready"), 1)
        self.assertEqual(len(self.flushLoggedErrors(AttributeError)), 1)

    def test_after_the_end_nothing_is_read_and_no_timer_is_left(self) -> None:
        """What was told last stays."""
        self.bench.scraped("ready")
        self.bench.measuring.stop()
        self.bench.readiness.draining = True
        self.assertEqual(self.bench.scraped("ready"), 1)
        self.assertEqual(self.bench.metrics.looks, [])
        self.assertEqual(self.bench.clock.getDelayedCalls(), [])
        self.bench.measuring.stop()  # twice is fine

    def test_without_a_bucket_there_are_no_numbers_of_one(self) -> None:
        """A 0 would be an outage."""
        self.assertEqual([self.bench.scraped(name) for name in S3_NAMES], [None] * 5)


class BucketTests(SynchronousTestCase):
    """A bucket, and the disk before it."""

    def test_the_bucket_tells_its_state(self) -> None:
        """Outage, queue and tier."""
        bench = Bench(BUCKET)
        bench.start()
        self.assertEqual([bench.scraped(name) for name in S3_NAMES], [1, 0, 4, 4096, 77])
        bench.gate.failed(S3Trouble("unreachable", "Timeout", "s3://images"))
        self.assertEqual([bench.scraped(name) for name in S3_NAMES[:2]], [0, 1])
        bench.gate.stop()
        bench.measuring.stop()
        self.assertIn(b'storage="s3"', bench.metrics.exposition())

    def test_the_disk_is_that_of_the_spool(self) -> None:
        """Where everything that arrives is put."""
        for environ, path in ((BUCKET, "/srv/x/spool"), ({}, "/srv/x")):
            bench = Bench(environ)
            bench.start()
            bench.threads.work()
            self.assertEqual(bench.looked_at, [path])


class WholeTests(SynchronousTestCase):
    """The house as it is built."""

    def measured(self, **environ: str) -> House:
        """Return a house that is measured, and was read once."""
        house = build(config(FS_ROOT=self.mktemp(), **environ), MemoryReactorClock())
        for pool in house.pools:
            self.addCleanup(pool.stop)
        measuring = house.measuring
        assert measuring is not None
        measuring.start(house)
        self.addCleanup(measuring.stop)
        house.metrics.exposition()
        return house

    def test_a_real_bucket_tells_its_state(self) -> None:
        """Before it was ever asked: nothing is known to be wrong, and nothing waits."""
        house = self.measured(**BUCKET)
        found = [house.metrics.registry.get_sample_value(f"ociproxy_{name}") for name in S3_NAMES]
        self.assertEqual(found, [1, 0, 0, 0, 0])

    def test_every_cap_is_told(self) -> None:
        """A5: each has a gauge, and whoever reaches it counts on the same object."""
        house = self.measured()
        for cap in CAPS:
            self.assertIsNotNone(house.metrics.registry.get_sample_value("ociproxy_cap_limit", {"cap": cap}), cap)
            self.assertEqual(house.metrics.registry.get_sample_value("ociproxy_cap_used", {"cap": cap}), 0, cap)
        storage = house.ingests._storage
        self.assertIs(storage._metrics if isinstance(storage, MeasuredStorage) else None, house.metrics)


class DiskTests(SynchronousTestCase):
    """A disk that is looked at in a thread."""

    def setUp(self) -> None:
        """Measure."""
        self.bench = Bench()
        self.bench.start()

    def test_before_the_first_look_nothing_is_known(self) -> None:
        """0 bytes free would wake somebody."""
        for value in self.bench.disk():
            assert value is not None
            self.assertTrue(isnan(value))
        self.assertEqual(self.bench.looked_at, [], "looked at in the reactor")

    def test_it_is_looked_at_again_and_again(self) -> None:
        """With a pause between."""
        self.bench.disks = [(100, 60, 30), (100, 61, 29)]
        self.bench.threads.work()
        self.assertEqual(self.bench.disk(), (100, 60, 30))
        self.bench.clock.advance(DISK_EVERY_S - 0.1)
        self.assertEqual(self.bench.threads.jobs, [])
        self.bench.clock.advance(0.1)
        self.bench.threads.work()
        self.assertEqual(self.bench.disk(), (100, 61, 29))

    def test_a_disk_that_hangs_holds_one_thread(self) -> None:
        """And what was seen last stays."""
        self.bench.disks *= 2
        self.bench.threads.work()
        for _ in range(10):
            self.bench.clock.advance(DISK_EVERY_S)
        self.assertEqual(len(self.bench.threads.jobs), 1)
        self.assertEqual(self.bench.disk(), (100, 60, 30))
        self.bench.threads.work()
        self.bench.clock.advance(DISK_EVERY_S)
        self.assertEqual(len(self.bench.threads.jobs), 1, "it is looked at again when it has answered")

    def test_a_look_that_fails_changes_nothing(self) -> None:
        """The next one may succeed."""
        self.bench.disks = [(100, 60, 30), OSError("gone"), (100, 50, 40)]
        for expected in ((100, 60, 30), (100, 60, 30), (100, 50, 40)):
            self.bench.threads.work()
            self.assertEqual(self.bench.disk(), expected)
            self.bench.clock.advance(DISK_EVERY_S)

    def test_a_look_that_ends_after_the_end_is_nothing(self) -> None:
        """No error, no timer."""
        self.bench.measuring.stop()
        self.bench.threads.work()
        self.assertEqual(self.bench.clock.getDelayedCalls(), [])


class LagTests(SynchronousTestCase):
    """How late timers fire."""

    def setUp(self) -> None:
        """Measure."""
        self.bench = Bench()
        self.bench.start()

    def lag(self) -> tuple[float | None, float | None]:
        """Return how often it was measured, and the sum in seconds."""
        return self.bench.scraped("event_loop_lag_seconds_count"), self.bench.scraped("event_loop_lag_seconds_sum")

    def test_a_reactor_in_time_is_not_late(self) -> None:
        """Beat after beat."""
        for _ in range(10):
            self.bench.clock.advance(BEAT_S)
        self.assertEqual(self.lag(), (10, 0))

    def test_a_reactor_that_was_held_up_is_late_by_that(self) -> None:
        """Once, also where it missed several beats."""
        self.bench.clock.advance(BEAT_S + 3.25)
        self.assertEqual(self.lag(), (1, 3.25))
        self.bench.clock.advance(0.25)  # beats are due at whole multiples still
        self.assertEqual(self.lag(), (2, 3.25))

    @settings(max_examples=100, deadline=None)
    @given(st.lists(st.integers(0, 40), max_size=30))
    def test_nothing_adds_up(self, eighths: list[int]) -> None:
        """However late single beats come, the next one is due by the first one's time."""
        bench = Bench()
        bench.start()
        for count in eighths:
            bench.clock.advance(count / 8)
        now_s = bench.clock.seconds()
        due_s = bench.measuring._due_s
        self.assertEqual(due_s % BEAT_S, 0)
        self.assertTrue(now_s < due_s <= now_s + BEAT_S)
        bench.measuring.stop()
        self.assertEqual(bench.clock.getDelayedCalls(), [])
