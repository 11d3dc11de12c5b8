"""Pulls that are not kept (law 4, RULES G2), and the same on a disk."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.internet.defer import CancelledError, Deferred

from tests.cache.house import CacheCase, content, manifest
from tests.cache.troubled import SIZE, TroubledStorage
from tests.doubles import InlineWorkers, ManualWorkers
from txociproxy.cache import Answer
from txociproxy.interfaces import Ask
from txociproxy.oci.errors import NoSpace, OCIError, StorageUnavailable
from txociproxy.oci.names import Digest
from txociproxy.storage.disk import DiskStorage
from txociproxy.storage.files import Files
from txociproxy.storage.layout import Layout
from txociproxy.storage.space import Space


class UnkeptTests(CacheCase):
    """A storage that fails never fails a pull (law 4)."""

    def setUp(self) -> None:
        """A storage with switches, and a blob, a manifest and a tag."""
        super().setUp()
        self.trouble = TroubledStorage()
        self.build(self.rules, self.trouble)
        self.blob, self.data = content(SIZE), manifest("one")
        self.digest = self.hub.add(self.blob)
        self.manifest = self.hub.tag("1", self.data)

    def test_no_space_means_bypass(self) -> None:
        """Right bytes, fetched again by the next; a tag costs one GET and not two."""
        for self.trouble.open_error in (NoSpace("full"), StorageUnavailable("read-only")):
            for _ in range(2):
                self.assertEqual(self.get(self.ask(self.digest, kind="blob")), ("bypass", self.blob))
                self.assertEqual(self.get(self.ask(self.manifest)), ("bypass", self.data))
                self.asked(f"GET {self.digest}", f"GET {self.manifest}")
            self.trouble.tags.clear()
            self.assertEqual(self.get(self.ask("1")), ("bypass", self.data))
            self.asked("GET 1")
        self.assertEqual(self.trouble.content, {})
        self.assert_at_rest()

    def test_a_known_tag_whose_manifest_is_not_kept_costs_one_get(self) -> None:
        """The pointer answers nothing."""
        self.trouble.open_error = NoSpace("full")
        for _ in range(3):
            self.assertEqual(self.get(self.ask("1")), ("bypass", self.data))
            self.asked("GET 1")

    def test_small_blobs_are_bypassed_too(self) -> None:
        """They wait for the verdict all the same."""
        self.trouble.open_error = NoSpace("full")
        small = content(10)
        digest = self.hub.add(small)
        self.assertEqual(self.get(self.ask(digest, kind="blob")), ("bypass", small))

    def test_a_storage_that_cannot_tell_is_a_miss(self) -> None:
        """And if nothing can be written either, a bypass."""
        self.get(self.ask(self.digest, kind="blob"))
        self.get(self.ask(self.manifest))
        self.hub_asked.requests.clear()
        self.trouble.find_fails = True
        self.assertEqual(self.get(self.ask(self.digest, kind="blob")), ("miss", self.blob))
        self.assertEqual(self.get(self.ask(self.manifest)), ("miss", self.data))
        self.trouble.open_error = StorageUnavailable("the disk does not answer")
        self.assertEqual(self.get(self.ask(self.digest, kind="blob")), ("bypass", self.blob))
        self.asked(f"GET {self.digest}", f"GET {self.manifest}", f"GET {self.digest}")
        self.assert_at_rest()

    def test_a_full_memory_store_loses_the_content_and_not_the_pull(self) -> None:
        """It died after the first bytes; the next ask comes too late for the start and gets one of its own."""
        self.trouble.max_bytes = 100_000
        self.hub.says_length = False
        self.hub.by_hand = True
        d = self.begin(self.ask(self.digest, kind="blob"))
        self.hub.sent[0].send(self.blob[:99_000])
        _, sink = self.follow(self.serve_of(d))
        self.hub.sent[0].send(self.blob[99_000:])
        self.hub.sent[0].end()
        self.assertEqual(bytes(sink.written), self.blob)
        self.assertEqual(self.trouble.content, {})
        self.assert_at_rest()

    def test_a_part_of_what_has_no_length_gets_a_whole_that_can_be_read_from_its_start(self) -> None:
        """The running download has let its start go, and only a whole answer can be made of it."""
        self.trouble.open_error = NoSpace("full")
        self.hub.says_length = self.hub.does_ranges = False
        self.hub.by_hand = True
        blob = content(3_000_000)
        digest = self.hub.add(blob)
        first = self.begin(self.ask(digest, kind="blob"))
        self.hub.sent[0].send(blob[:100_000])
        self.follow(self.serve_of(first))
        for start in range(100_000, 2_500_000, 100_000):
            self.hub.sent[0].send(blob[start : start + 100_000])
        late = self.begin(self.ask(digest, kind="blob", byte_range="bytes=2400000-"))
        self.hub.sent[-1].send(blob)
        self.hub.sent[-1].end()
        self.assertEqual(self.bytes_of(self.serve_of(late)), blob)
        self.core.ingests.abandon_all()
        self.assert_at_rest()

    def test_a_manifest_that_cannot_be_published_is_answered(self) -> None:
        """Its spool dies in its commit."""
        self.trouble.max_bytes = len(self.data) - 1
        self.trouble.lags = True
        self.assertEqual(self.get(self.ask(self.manifest))[1], self.data)
        self.assertEqual(self.trouble.content, {})
        self.assert_at_rest()


class SlowLookTests(CacheCase):
    """Who looked before content was published, and is told after it, does not fetch it again (promise 2)."""

    def setUp(self) -> None:
        """A store whose looks take their time."""
        super().setUp()
        self.slow = TroubledStorage()
        self.build(self.rules, self.slow)

    def look(self, ask: Ask) -> Deferred[Answer]:
        """Begin a pull that has looked, and is not told yet."""
        self.slow.slow = True
        d = self.begin(ask)
        self.slow.slow = False
        self.assertNoResult(d)
        return d

    def test_a_blob_that_was_kept_meanwhile_is_a_hit(self) -> None:
        """Its download was running when the look began."""
        self.hub.by_hand = True
        blob = content(SIZE)
        ask = self.ask(self.hub.add(blob), kind="blob")
        _, sink = self.follow(self.served(ask))
        late = self.look(ask)
        self.hub.sent[0].send(blob)
        self.hub.sent[0].end()
        self.assertEqual(sink.ending, "finished")
        self.slow.tell()
        self.assertEqual(self.bytes_of(self.serve_of(late)), blob)
        self.asked(f"GET {Digest.of(blob)}")
        self.assert_at_rest()

    def test_a_manifest_that_has_come_meanwhile_is_a_hit(self) -> None:
        """It is proven and on its way into the storage."""
        data = manifest("one")
        ask = self.ask(self.hub.add(data))
        late = self.look(ask)
        self.slow.holds_commits = True
        self.assertEqual(self.get(ask)[0], "miss")
        self.slow.tell()
        self.assertEqual(self.bytes_of(self.serve_of(late)), data)
        self.asked(f"GET {Digest.of(data)}")


class DiskTests(CacheCase):
    """The same on a directory."""

    def setUp(self) -> None:
        """A store in a new directory, whose disk works at once."""
        super().setUp()
        files = Files()
        layout = Layout(self.new_directory())
        space = Space(layout.root, files, self.clock, 0.0, 0)
        self.disk = DiskStorage(layout, files, InlineWorkers(), InlineWorkers(), self.clock, space, self.clock.seconds)
        self.disk.prepare("transparent")
        self.build(self.rules, self.disk)

    def new_directory(self) -> Path:
        """Return a directory of this test's own."""
        path = Path(self.mktemp())
        path.mkdir()
        return path

    def test_a_miss_becomes_a_hit_that_outlives_the_process(self) -> None:
        """Blob, manifest and tag; afterwards without upstream and with a new core."""
        blob, data = content(SIZE), manifest("one")
        digest = self.hub.add(blob)
        self.hub.tag("1", data)
        self.hub.fields = {"X-Shipped": "yes"}
        asks = [(self.ask(digest, kind="blob"), blob), (self.ask("1"), data), (self.ask(Digest.of(data)), data)]
        self.assertEqual([self.get(ask) for ask, _ in asks], [("miss", blob), ("miss", data), ("hit", data)])
        self.assert_at_rest()
        self.build(self.rules, self.disk)
        self.hub.down = True
        for ask, expected in asks:
            serve = self.served(ask)
            self.assertEqual((serve.outcome, serve.headers), ("hit", (("X-Shipped", "yes"),)))
            self.assertEqual(self.bytes_of(serve), expected)
        self.clock.advance(10_000)
        self.assertEqual(self.get(self.ask("1")), ("stale", data))
        self.assert_at_rest()

    def test_nothing_that_was_answered_keeps_a_descriptor_open(self) -> None:
        """HEAD, hit, wrong kind, tags: whatever was looked at is closed."""
        blob = content(SIZE)
        digest, index = self.hub.add(blob), self.hub.tag("1", manifest("one"))
        self.get(self.ask(digest, kind="blob"))
        self.get(self.ask("1"))
        open_before = descriptors()
        for _ in range(3):
            self.clock.advance(4000)
            self.served(self.ask("1", "HEAD"))
            self.get(self.ask("1"))
            self.served(self.ask(digest, "HEAD", "blob"))
            self.get(self.ask(digest, kind="blob"))
            self.get(self.ask(index, kind="blob"))
            self.failureResultOf(self.begin(self.ask(digest)), OCIError)
        self.assertEqual(descriptors(), open_before)
        self.assert_at_rest()

    def test_a_client_that_leaves_while_its_manifest_is_read_leaves_nothing_open(self) -> None:
        """It was kept as a blob, is large for a manifest, and is being looked at."""
        digest = self.hub.add(manifest("one" * 10_000))
        self.get(self.ask(digest, kind="blob"))
        open_before = descriptors()
        self.build(self.rules, self.disk, workers=ManualWorkers())
        d = self.begin(self.ask(digest))
        self.assertEqual(descriptors(), open_before + 1)
        d.cancel()
        self.failureResultOf(d, CancelledError)
        self.assertEqual(descriptors(), open_before)


def descriptors() -> int:
    """Return how many descriptors this process has open."""
    return len(os.listdir("/proc/self/fd"))
