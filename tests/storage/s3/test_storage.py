"""One storage over a bucket and a disk: what is where and when, alone and in a fleet."""

from __future__ import annotations

from typing import Any

from attrs import evolve
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionRefusedError
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from tests.soundness import assert_nothing_open, assert_store_sound
from tests.storage.s3.between import refusal
from tests.storage.s3.proxies import Proxy, proxy_of
from tests.storage.s3.server import BlockingAgent, fresh
from txociproxy.interfaces import Elsewhere, Local
from txociproxy.oci.errors import NoSpace, StorageUnavailable
from txociproxy.oci.names import Descriptor, Digest
from txociproxy.storage.layout import Sidecar
from txociproxy.storage.s3.settings import S3Settings
from txociproxy.storage.s3.trouble import S3Trouble

A, B, C = "docker.io", "ghcr.io", "quay.io"
DATA = bytes(range(256)) * 90
DIGEST = Digest.of(DATA)
MIB = 1 << 20
DOWN = S3Trouble("unreachable", "ConnectionRefused", "HEAD")


class StorageCase(SynchronousTestCase):
    """A bucket, and proxies that share it."""

    wanted = S3Settings()

    def setUp(self) -> None:
        """An empty bucket."""
        self.there = fresh(self.wanted)

    def proxy(self, root: str | None = None, begins: bool = True, **more: Any) -> Proxy:
        """Make a proxy; ``root`` is that of a process which has ended."""
        proxy = proxy_of(self.there, root or self.mktemp(), **more)
        self.addCleanup(proxy.stop)
        return proxy.begin() if begins else proxy

    def key(self, digest: Digest = DIGEST, held: bool = False) -> str:
        """Return where content lies in the bucket."""
        return self.there.keys.content(digest, held)

    def is_there(self, digest: Digest = DIGEST, held: bool = False) -> bool:
        """Whether content is in the bucket."""
        return self.key(digest, held) in self.there.names()

    def files(self, proxy: Proxy) -> list[str]:
        """Return what lies on the local disk, but for the marker."""
        return [path.name for path in proxy.root.rglob("*") if path.is_file() and path != proxy.layout.marker]

    def close(self, found: object) -> None:
        """Let go of what was found."""
        if isinstance(found, Local):
            found.body.close()


class WayTests(StorageCase):
    """From the client's pull into the bucket."""

    def test_a_commit_answers_before_s3_was_asked(self) -> None:
        """The upload comes behind, and nothing stays here after it."""
        proxy = self.proxy(uploads_wait=True)
        proxy.keep(DATA)
        self.assertFalse(self.is_there())
        self.assertIsInstance(found := proxy.find(DIGEST), Local)
        self.close(found)
        proxy.upload()
        self.assertEqual(self.there.content(self.key()), DATA)
        recorded = proxy.files.operations  # type: ignore[attr-defined]
        recorded.clear()
        self.assertIsInstance(proxy.find(DIGEST), Elsewhere)
        self.assertEqual(recorded, [])  # the disk has nothing to say about it
        self.assertEqual((proxy.read(DIGEST), self.files(proxy)), (DATA, []))

    def test_what_a_dead_process_left_is_found_at_once_and_uploaded(self) -> None:
        """Before the reactor runs it is known what waits."""
        dead = self.proxy(uploads_wait=True)
        dead.keep(DATA)
        dead.stop()
        proxy = self.proxy(str(dead.root), uploads_wait=True)
        self.assertIsInstance(found := proxy.find(DIGEST), Local)
        self.close(found)
        proxy.upload()
        self.assertTrue(self.is_there())
        self.assertEqual(self.files(proxy), [])

    def test_what_waits_is_said_at_the_end_and_at_the_next_start(self) -> None:
        """Whoever stops a proxy in an outage reads that nothing is lost, and where it lies; else nothing is said."""
        proxy = self.proxy(uploads_wait=True)
        proxy.keep(DATA)
        with capturedLogs() as lines:
            proxy.stop()
            self.proxy(str(proxy.root)).stop()
        what = f"1 blobs and manifests ({len(DATA)} bytes) wait in {proxy.root}; "
        self.assertEqual(
            [formatEvent(line) for line in lines if "spool_dir" in line],
            [
                f"{what}the next start with this spool_dir goes on with them",
                f"{what}they will be brought into the bucket",
            ],
        )

    def test_what_lies_here_without_a_mark_is_brought_into_the_bucket(self) -> None:
        """A tier that was turned off leaves nothing behind for ever."""
        old = self.proxy(settings=evolve(self.there.settings, tier_max_bytes=MIB))
        old.keep(DATA)
        old.stop()
        self.there.client.delete_object(Bucket=self.there.settings.bucket, Key=self.key())
        proxy = self.proxy(str(old.root))
        self.assertTrue(self.is_there())
        self.assertEqual(self.files(proxy), [])

    def test_a_copy_that_cannot_be_removed_keeps_its_mark(self) -> None:
        """Else it would stay for ever."""
        proxy = self.proxy(uploads_wait=True)
        proxy.keep(DATA)
        proxy.files.faults["lock directory"] = OSError(5, "Input/output error")  # type: ignore[attr-defined]
        proxy.upload()
        self.assertTrue(self.is_there())
        self.assertIn(f"sha256-{DIGEST.hex}", self.files(proxy))
        proxy.files.faults.clear()  # type: ignore[attr-defined]
        proxy.pass_time(2)
        self.assertEqual(self.files(proxy), [])

    def test_content_waits_while_s3_is_out(self) -> None:
        """It answers from here, the rest cannot be told; when S3 is back it is uploaded."""
        proxy = self.proxy()
        there = proxy.keep(b"there before")
        proxy.storage.far.gate.failed(DOWN)
        proxy.storage.far.gate.probe = lambda: Deferred()
        proxy.keep(DATA)
        proxy.pass_time(20)
        self.assertEqual((proxy.read(DIGEST), self.is_there()), (DATA, False))
        for digest in (there, Digest.of(b"anything")):
            self.assertRaises(StorageUnavailable, proxy.find, digest)

    def test_recovery_needs_no_restart(self) -> None:
        """One failing request closes the gate, the probe opens it."""
        agent = BlockingAgent()
        proxy = self.proxy(agent=agent)
        digest = proxy.keep(b"there before")
        agent.trouble = ConnectionRefusedError()
        proxy.clock.advance(2)  # what was found is believed for a second
        self.assertRaises(StorageUnavailable, proxy.find, digest)
        proxy.keep(DATA)
        self.assertEqual((proxy.read(DIGEST), self.is_there()), (DATA, False))
        agent.trouble = None
        proxy.pass_time(40)
        self.assertEqual((proxy.read(digest), proxy.read(DIGEST)), (b"there before", DATA))
        self.assertTrue(self.is_there())
        self.assertEqual(proxy.storage.far.gate.outages, 1)

    def test_a_bucket_that_is_deleted_under_us_is_made_again(self) -> None:
        """What was in it is lost, what comes is kept."""
        proxy = self.proxy()
        for name in self.there.names():
            self.there.client.delete_object(Bucket=self.there.settings.bucket, Key=name)
        self.there.client.delete_bucket(Bucket=self.there.settings.bucket)
        proxy.keep(DATA)
        self.assertFalse(proxy.storage.far.gate.is_open)
        proxy.pass_time(60)
        self.assertEqual((proxy.read(DIGEST), self.there.content(self.key())), (DATA, DATA))

    def test_what_cannot_wait_any_more_is_not_kept(self) -> None:
        """The budget bounds what arrives and waits together."""
        proxy = self.proxy(settings=evolve(self.there.settings, spool_max_bytes=3000), uploads_wait=True)
        proxy.keep(bytes(2000))
        self.assertRaises(NoSpace, proxy.storage.open_spool, DIGEST, 1001)
        proxy.storage.open_spool(DIGEST, 1000).close()
        proxy.upload()
        proxy.storage.open_spool(DIGEST, 3000).close()
        proxy.work()

    def test_nothing_stays_on_the_clock_or_open_after_the_end(self) -> None:
        """In the middle of an outage, with content that waits."""
        proxy = self.proxy(settings=evolve(self.there.settings, lease_wait_s=5.0, tier_max_bytes=MIB))
        proxy.storage.far.gate.failed(DOWN)
        proxy.keep(DATA)
        stopped = proxy.storage.stop()
        self.successResultOf(stopped)
        self.assertEqual((proxy.clock.getDelayedCalls(), proxy.workers.work()), ([], 0))
        assert_nothing_open(proxy.root)
        assert_store_sound(proxy.root)


class RemovalTests(StorageCase):
    """What is forgotten."""

    def test_who_looks_meanwhile_does_not_make_it_believed(self) -> None:
        """After the removal it is gone at once, for this process."""
        proxy = self.proxy()
        proxy.keep(DATA)
        removed = proxy.storage.remove(DIGEST)
        looking = proxy.storage.find(DIGEST, A)
        proxy.workers.work(2)  # the local copy goes, and who looks is told that there is none
        self.assertIsInstance(self.successResultOf(looking), Elsewhere)
        proxy.work()
        self.assertTrue(self.successResultOf(removed))
        self.assertIsNone(proxy.find(DIGEST))

    def test_what_waits_is_removed_before_it_was_uploaded(self) -> None:
        """And never is."""
        proxy = self.proxy(uploads_wait=True)
        proxy.keep(DATA)
        self.assertTrue(proxy.ask(proxy.storage.remove(DIGEST)))
        proxy.upload()
        self.assertEqual((self.is_there(), self.files(proxy), proxy.find(DIGEST)), (False, [], None))

    def test_all_that_is_in_the_bucket_goes(self) -> None:
        """Open and held, content and what is said of it, also where only one of them is there."""
        proxy = self.proxy()
        proxy.keep(DATA, A, held=True)
        spare = {name: self.there.content(name) for name in self.there.names()}
        proxy.keep(DATA)
        for name, data in spare.items():
            self.there.plant(name, data)
        self.assertTrue(proxy.ask(proxy.storage.remove(DIGEST)))
        self.assertEqual(self.there.names(), [".txociproxy.json"])
        self.assertFalse(proxy.ask(proxy.storage.remove(DIGEST)))

    def test_content_goes_before_what_is_said_of_it(self) -> None:
        """A sidecar alone is no hit; content without one would be."""
        proxy = self.proxy()
        proxy.keep(DATA)
        deleted: list[str] = []
        bucket = proxy.storage.far.opened()
        delete = bucket._client.delete_object

        def watched(**said: Any) -> Any:
            deleted.append(said["Key"])
            return delete(**said)

        bucket._client.delete_object = watched
        proxy.ask(proxy.storage.remove(DIGEST))
        keys = self.there.keys
        contents = [keys.content(DIGEST, held) for held in (False, True)]
        self.assertEqual(deleted[:2], contents)
        self.assertEqual(set(deleted[2:]), {keys.sidecar(DIGEST, held) for held in (False, True)})

    def test_a_removal_that_s3_does_not_hear_of_is_an_error(self) -> None:
        """Not a no."""
        proxy = self.proxy()
        proxy.keep(DATA)
        proxy.storage.far.gate.failed(DOWN)
        self.assertRaises(StorageUnavailable, proxy.ask, proxy.storage.remove(DIGEST))
        self.assertTrue(self.is_there())

    def test_a_thread_that_is_late_removes_nothing_that_was_committed_later(self) -> None:
        """Who wants it removed waits for a bounded time; who commits waits until the thread has ended."""
        proxy = self.proxy(uploads_wait=True)
        proxy.keep(DATA)
        removed = proxy.storage.remove(DIGEST)
        proxy.clock.advance(30)  # and the disk hangs
        self.failureResultOf(removed, StorageUnavailable)
        spool = proxy.storage.open_spool(DIGEST, len(DATA))
        spool.write(DATA)
        committed = spool.commit(Descriptor(DIGEST, len(DATA), "a/a"), (), A, False)
        proxy.work()
        proxy.ask(committed)
        spool.close()
        self.assertEqual(proxy.read(DIGEST), DATA)
        proxy.upload()
        self.assertTrue(self.is_there())

    def test_a_local_copy_that_cannot_be_removed_is_an_error(self) -> None:
        """And no end of the storage."""
        proxy = self.proxy(uploads_wait=True)
        proxy.keep(DATA)
        proxy.files.faults["unlink content"] = OSError(5, "Input/output error")  # type: ignore[attr-defined]
        self.assertRaises(StorageUnavailable, proxy.ask, proxy.storage.remove(DIGEST))
        self.assertEqual(proxy.read(DIGEST), DATA)

    def test_trouble_during_a_removal_closes_the_gate(self) -> None:
        """It tells about S3 like any other request."""
        proxy = self.proxy()

        from botocore.exceptions import EndpointConnectionError

        def refuse(**_: object) -> None:
            raise EndpointConnectionError(endpoint_url="http://s3.test")

        proxy.storage.far.opened()._client.head_object = refuse
        self.assertRaises(StorageUnavailable, proxy.ask, proxy.storage.remove(DIGEST))
        self.assertFalse(proxy.storage.far.gate.is_open)

    def test_a_right_to_remove_that_is_missing_takes_nothing_from_those_who_read(self) -> None:
        """The gate stays open: what is there can be had."""
        proxy = self.proxy()
        proxy.keep(DATA)

        def refuse(**_: object) -> None:
            raise refusal(403, "AccessDenied")

        proxy.storage.far.opened()._client.delete_object = refuse
        self.assertRaises(StorageUnavailable, proxy.ask, proxy.storage.remove(DIGEST))
        self.assertTrue(proxy.storage.far.gate.is_open)


class WalkTests(StorageCase):
    """All that is kept."""

    def put(self, count: int) -> set[Digest]:
        """Put small content into the bucket, behind the back of all proxies."""
        digests = {Digest.of(str(number).encode()) for number in range(count)}
        for number in range(count):
            data = str(number).encode()
            self.there.plant(self.key(Digest.of(data)), data)
        return digests

    def test_it_sees_more_than_a_page_of_s3_has(self) -> None:
        """A page has 1000 keys."""
        digests = self.put(1_003)
        proxy = self.proxy(uploads_wait=True)
        digests.add(proxy.keep(DATA))
        met = [descriptor.digest for descriptor in proxy.walked()]
        self.assertEqual((len(met), set(met)), (1_004, digests))

    def test_what_is_here_and_there_is_met_once(self) -> None:
        """In the tier and in the bucket, open and held, on both sides of the end of a page."""
        proxy = self.proxy(settings=evolve(self.there.settings, tier_max_bytes=MIB))
        other = self.proxy()
        proxy.keep(DATA)
        other.keep(b"there", B, held=True)
        sidecar = Sidecar("a/a", 5, A, ()).to_json(Digest.of(b"there"))
        self.there.plant(self.there.keys.sidecar(Digest.of(b"there")), sidecar)
        self.there.plant(self.key(Digest.of(b"there")), b"there")
        for size in range(1, 8):
            for each in (proxy, other):
                bucket = each.storage.far.opened()
                listed = bucket._client.list_objects_v2
                bucket._client.list_objects_v2 = lambda size=size, ask=listed, **said: ask(**{**said, "MaxKeys": size})
                met = {descriptor.digest: descriptor.media_type for descriptor in each.walked()}
                self.assertEqual(len(each.walked()), 2)
                self.assertEqual(met, {DIGEST: "application/octet-stream", Digest.of(b"there"): "a/a"})

    def test_what_was_cut_short_is_left_out(self) -> None:
        """It is a miss, too."""
        proxy = self.proxy()
        proxy.keep(DATA)
        self.there.plant(self.key(), DATA[:100])
        proxy.clock.advance(2)
        self.assertEqual((proxy.walked(), proxy.find(DIGEST)), ([], None))
        proxy.keep(DATA)
        self.assertEqual((len(proxy.walked()), proxy.read(DIGEST)), (1, DATA))

    def test_what_is_no_content_is_passed_over(self) -> None:
        """Tags, leases, strangers."""
        proxy = self.proxy()
        for name in ("blobs/sha256/ab/notes.txt", "blobs/readme", "leases/sha256/ab", "else"):
            self.there.plant(name, b"mine")
        self.assertEqual(proxy.walked(), [])

    def test_one_that_cannot_see_all_is_an_error(self) -> None:
        """Not a short list."""
        proxy = self.proxy()
        proxy.keep(DATA)
        proxy.storage.far.gate.failed(DOWN)
        self.assertRaises(StorageUnavailable, proxy.walked)

    def test_a_sidecar_that_cannot_be_read_now_is_an_error_too(self) -> None:
        """All of those that were asked for have ended by then."""
        agent = BlockingAgent()
        proxy = self.proxy(agent=agent)
        self.put(20)
        agent.trouble = ConnectionRefusedError()
        self.assertRaises(StorageUnavailable, proxy.walked)


class FleetTests(StorageCase):
    """Two proxies over one bucket."""

    def setUp(self) -> None:
        """Both run."""
        super().setUp()
        self.one, self.other = self.proxy(), self.proxy()

    def test_what_one_has_uploaded_the_other_finds(self) -> None:
        """All of it, with all that was said of it; without a wait."""
        self.assertIsNone(self.other.find(DIGEST))
        self.one.keep(DATA)
        found = self.other.find(DIGEST)
        assert isinstance(found, Elsewhere)
        self.assertEqual(found.descriptor, Descriptor(DIGEST, len(DATA), "application/octet-stream"))
        self.assertEqual((found.namespace, found.fill), (A, None))
        self.assertEqual(self.other.read(DIGEST), DATA)

    def test_what_is_held_is_held_everywhere(self) -> None:
        """For those for whom any proxy holds it; once open it is open (RULES D3)."""
        self.one.keep(DATA, A, held=True)
        self.other.keep(DATA, B, held=True)
        for proxy in (self.one, self.other):
            proxy.clock.advance(2)
            self.assertEqual([proxy.read(DIGEST, each) for each in (A, B, C)], [DATA, DATA, None])
        self.one.keep(DATA, C)
        for proxy in (self.one, self.other):
            proxy.clock.advance(2)  # what was found is believed for a second
            self.assertEqual([proxy.read(DIGEST, each) for each in (A, B, C)], [DATA] * 3)
        self.other.keep(DATA, A, held=True)
        self.assertEqual([proxy.read(DIGEST, C) for proxy in (self.one, self.other)], [DATA] * 2)

    def test_what_was_opened_here_is_read_where_it_lies_now(self) -> None:
        """What was believed of the held object ends with the upload."""
        self.one.keep(DATA, A, held=True)
        self.assertEqual(self.one.read(DIGEST, A), DATA)
        self.one.keep(DATA, C)
        self.there.client.delete_object(Bucket=self.there.settings.bucket, Key=self.key(held=True))
        self.assertEqual(self.one.read(DIGEST, A), DATA)

    def test_who_was_sent_to_what_is_held_can_fetch_it_as_long_as_his_address_is_good(self) -> None:
        """It is opened in the meantime; after that time only one copy is left."""
        self.one.keep(DATA, A, held=True)
        found = self.other.find(DIGEST, A)
        assert isinstance(found, Elsewhere)
        life_s = found.place.address().expires_s
        self.one.keep(DATA, C)
        self.one.pass_time(life_s, 30.0)
        self.assertEqual((self.is_there(), self.is_there(held=True)), (True, True))
        self.one.pass_time(600.0, 30.0)
        self.assertEqual((self.is_there(), self.is_there(held=True)), (True, False))
        self.assertEqual(len(self.there.names()), 3)  # with its sidecar and the marker

    def test_what_waits_here_for_one_namespace_is_found_there_for_another(self) -> None:
        """Each sees what he may, wherever it lies."""
        waiting = self.proxy(uploads_wait=True)
        waiting.keep(DATA, A, held=True)
        self.one.keep(DATA, B, held=True)
        found = [waiting.find(DIGEST, each) for each in (A, B, C)]
        self.assertEqual([type(each) for each in found], [Local, Elsewhere, type(None)])
        self.close(found[0])

    def test_what_one_removes_the_other_does_not_find_for_long(self) -> None:
        """It may believe in it for a second; reading it is a failure that says so."""
        self.one.keep(DATA)
        self.assertIsInstance(self.other.find(DIGEST), Elsewhere)
        self.one.ask(self.one.storage.remove(DIGEST))
        self.assertRaises(StorageUnavailable, self.other.read, DIGEST)
        self.assertIsNone(self.other.find(DIGEST))

    def test_tags_are_shared(self) -> None:
        """What one has learnt the other knows."""
        from tests.contracts import TAG, record

        self.one.ask(self.one.storage.record_tag(TAG, record("a/a")))
        self.assertEqual(self.other.ask(self.other.storage.recall_tag(TAG)), (record("a/a"),))

    @given(st.data())
    @settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.differing_executors])
    def test_whoever_does_what_at_once_all_end_right(self, data: st.DataObject) -> None:
        """Commits, uploads and looks of both in any order, job by job: nobody sees what he may not, nothing is lost."""
        content = data.draw(st.binary(min_size=1, max_size=40))
        digest = Digest.of(content)
        self.one.ask(self.one.storage.remove(digest))
        seen_from: set[str] = set()
        spools = []
        for _ in range(data.draw(st.integers(1, 4))):
            proxy = data.draw(st.sampled_from((self.one, self.other)))
            namespace, held = data.draw(st.tuples(st.sampled_from((A, B, C)), st.booleans()))
            spool = proxy.storage.open_spool(digest, len(content))
            spool.write(content)
            descriptor = Descriptor(digest, len(content), "a/a")
            spools.append((spool, spool.commit(descriptor, (), namespace, held)))
            seen_from |= {namespace} if held else {A, B, C}
            for worker in data.draw(st.lists(st.sampled_from((self.one, self.other)), max_size=12)):
                worker.workers.work(1)
        while self.one.workers.work() + self.other.workers.work():
            pass
        for spool, committed in spools:
            self.one.ask(committed)
            spool.close()
        for proxy in (self.one, self.other):
            proxy.work()
            proxy.clock.advance(2)
            for namespace in (A, B, C):
                wanted = content if namespace in seen_from else None
                self.assertEqual(proxy.read(digest, namespace), wanted, namespace)
            self.assertEqual(self.files(proxy), [])


class TierTests(StorageCase):
    """With a tier before the bucket."""

    wanted = S3Settings(tier_max_bytes=100_000)

    def test_what_was_uploaded_is_served_from_here(self) -> None:
        """Without a mark; the next process serves it, too."""
        proxy = self.proxy()
        proxy.keep(DATA)
        self.assertTrue(self.is_there())
        self.assertIsInstance(found := proxy.find(DIGEST), Local)
        self.close(found)
        self.assertEqual(sorted(self.files(proxy)), [DIGEST.hex, f"{DIGEST.hex}.meta.json"])
        proxy.stop()
        proxy = self.proxy(str(proxy.root))
        self.assertIsInstance(found := proxy.find(DIGEST), Local)
        self.close(found)
        self.assertEqual(proxy.storage.near.tier.used_bytes, len(DATA))

    def test_it_answers_while_s3_is_out(self) -> None:
        """That is what it is for."""
        proxy = self.proxy()
        proxy.keep(DATA)
        proxy.storage.far.gate.failed(DOWN)
        self.assertEqual(proxy.read(DIGEST), DATA)

    def test_content_of_others_is_filled_in_without_an_upload(self) -> None:
        """For those who may see it; nothing is put into the bucket."""
        one, other = self.proxy(), self.proxy()
        one.keep(DATA, A, held=True)
        found = other.find(DIGEST)
        assert isinstance(found, Elsewhere) and found.fill is not None
        before = self.there.names()
        spool = found.fill()
        spool.write(DATA)
        other.ask(spool.commit(found.descriptor, found.headers, A, True))
        spool.close()
        other.work()
        self.assertIsInstance(here := other.find(DIGEST), Local)
        self.close(here)
        self.assertEqual((other.find(DIGEST, B), other.storage.near.tier.used_bytes), (None, len(DATA)))
        self.assertEqual((self.there.names(), other.storage.near.uploads.waiting), (before, 0))

    def test_a_fill_that_came_to_nothing_is_not_counted(self) -> None:
        """And leaves nothing."""
        proxy = self.proxy()
        spool = proxy.storage.near.open_fill(DIGEST, len(DATA))
        spool.write(DATA[:100])
        proxy.work()
        spool.close()
        proxy.work()
        self.assertEqual((proxy.storage.near.tier.used_bytes, self.files(proxy)), (0, []))

    def test_content_that_is_too_large_for_it_does_not_stay(self) -> None:
        """Neither after its upload nor as a fill."""
        proxy = self.proxy()
        digest = proxy.keep(bytes(95_000))
        self.assertIsInstance(found := proxy.find(digest), Elsewhere)
        self.assertIsNone(found.fill if isinstance(found, Elsewhere) else "here")
        self.assertEqual(self.files(proxy), [])

    def test_what_was_trimmed_is_found_in_the_bucket(self) -> None:
        """It is bounded."""
        proxy = self.proxy()
        digests = [proxy.keep(bytes([number]) * 20_000) for number in range(9)]
        sizes = [path.stat().st_size for path in proxy.root.rglob("*") if path.name in {each.hex for each in digests}]
        self.assertLessEqual(sum(sizes), 100_000)
        self.assertGreater(sum(sizes), 50_000)
        self.assertEqual([proxy.read(each) for each in digests], [bytes([number]) * 20_000 for number in range(9)])

    def test_what_the_bucket_has_lost_is_brought_again(self) -> None:
        """From here, when it is asked after: once a quarter of the lifecycle."""
        proxy = self.proxy()
        proxy.keep(DATA)
        for key in (self.key(), self.there.keys.sidecar(DIGEST)):
            self.there.client.delete_object(Bucket=self.there.settings.bucket, Key=key)
        self.assertEqual((proxy.read(DIGEST), self.is_there()), (DATA, False))
        proxy.clock.advance(7 * 24 * 3600)
        proxy.work()
        found = proxy.storage.find(DIGEST, A)
        seen = [self.files(proxy) for _ in iter(lambda: proxy.workers.work(1), 0)]
        self.close(self.successResultOf(found))
        self.assertTrue(any(f"sha256-{DIGEST.hex}" in names for names in seen))  # a death would not lose it
        self.assertTrue(self.is_there())
        self.assertEqual(proxy.storage.near.uploads.waiting, 0)

    def test_nothing_is_brought_again_without_its_mark(self) -> None:
        """A full disk: it would be forgotten in the middle; it is tried again when it is asked for."""
        proxy = self.proxy()
        proxy.keep(DATA)
        self.there.client.delete_object(Bucket=self.there.settings.bucket, Key=self.key())
        proxy.clock.advance(7 * 24 * 3600)
        proxy.files.faults["create content"] = OSError(28, "No space left")  # type: ignore[attr-defined]
        self.assertEqual((proxy.read(DIGEST), self.is_there()), (DATA, False))
        self.assertEqual(proxy.storage.near.uploads.waiting, 0)
        del proxy.files.faults["create content"]  # type: ignore[attr-defined]
        self.assertEqual((proxy.read(DIGEST), self.is_there()), (DATA, True))

    def test_a_disk_without_room_takes_it_from_the_tier(self) -> None:
        """From what was used longest ago, a tenth at a time, so that what arrives is kept again."""
        for how in ("known", "while it arrives", "from the bucket"):
            proxy = self.proxy()
            digests = [proxy.keep(f"{how[0]}{number}".encode() * 2500) for number in range(10)]
            space = proxy.local._space
            proxy.pass_time(10)
            used_bytes = proxy.storage.near.tier.used_bytes
            proxy.files.space_bytes = (1000, MIB)  # type: ignore[attr-defined]
            if how == "known":
                space.look()
                self.assertRaises(NoSpace, proxy.storage.open_spool, DIGEST, 5000)
            else:
                opened = proxy.storage.open_spool if how != "from the bucket" else proxy.storage.near.open_fill
                spool = opened(DIGEST, 5000)
                spool.write(bytes(5000))
                proxy.work()
                self.assertIsInstance(spool.failure, NoSpace)
                spool.close()
            proxy.work()
            left = [f"{each.hex}" in self.files(proxy) for each in digests]
            self.assertLess(proxy.storage.near.tier.used_bytes, used_bytes - 4999, how)
            self.assertEqual((any(left), left.count(False) in (1, 2)), (True, True), how)

    def test_a_disk_that_does_not_answer_leaves_it_to_the_bucket(self) -> None:
        """A hit stays a hit."""
        proxy = self.proxy()
        proxy.keep(DATA)
        proxy.files.faults["open content"] = OSError(5, "Input/output error")  # type: ignore[attr-defined]
        self.assertIsInstance(proxy.find(DIGEST), Elsewhere)


class LeaseTests(StorageCase):
    """Two that miss the same content at once."""

    wanted = S3Settings(lease_wait_s=10.0)

    def setUp(self) -> None:
        """Both run, and one has the lease."""
        super().setUp()
        self.one, self.other = self.proxy(), self.proxy()
        self.assertFalse(self.one.ask(self.one.storage.await_turn(DIGEST)))
        self.lease = self.there.keys.lease(DIGEST)
        self.turn = self.other.storage.await_turn(DIGEST)
        self.other.work()
        self.assertNoResult(self.turn)

    def test_whoever_waited_finds_what_the_other_has_uploaded(self) -> None:
        """The lease has gone by then."""
        self.one.keep(DATA)
        self.other.pass_time(1)
        self.assertTrue(self.successResultOf(self.turn))
        self.assertEqual(self.other.read(DIGEST), DATA)
        self.assertNotIn(self.lease, self.there.names())

    def test_it_stays_while_the_upload_waits(self) -> None:
        """The content could not be found yet."""
        self.one.storage.far.gate.failed(DOWN)
        self.one.storage.far.gate.probe = lambda: Deferred()
        self.one.keep(DATA)
        self.other.pass_time(5)
        self.assertNoResult(self.turn)
        self.assertIn(self.lease, self.there.names())

    def test_a_download_that_broke_off_lets_the_other_go_ahead(self) -> None:
        """At once, not when its patience ends."""
        spool = self.one.storage.open_spool(DIGEST, len(DATA))
        spool.write(DATA[:10])
        spool.abandon()
        spool.close()
        self.one.work()
        self.other.pass_time(1)
        self.assertTrue(self.successResultOf(self.turn))
        self.assertIsNone(self.other.find(DIGEST))

    def test_so_does_one_that_cannot_be_kept(self) -> None:
        """It will never be in the bucket."""
        self.assertRaises(NoSpace, self.one.storage.open_spool, DIGEST, 1 << 50)
        self.one.work()
        self.assertNotIn(self.lease, self.there.names())

    def test_so_does_a_fetch_that_opened_no_spool(self) -> None:
        """The upstream does not have it, or was lost."""
        self.one.storage.leave_turn(DIGEST)
        self.one.work()
        self.assertNotIn(self.lease, self.there.names())
        self.other.pass_time(1)
        self.assertTrue(self.successResultOf(self.turn))

    def test_a_turn_that_is_left_beside_a_spool_is_still_ours(self) -> None:
        """Somebody else fetches it here."""
        spool = self.one.storage.open_spool(DIGEST, len(DATA))
        self.one.storage.leave_turn(DIGEST)
        self.one.work()
        self.assertIn(self.lease, self.there.names())
        spool.close()

    def test_nobody_waits_for_an_upload_that_fails_for_ever(self) -> None:
        """It is not renewed any more, and ends by its age."""

        client = self.one.storage.far.opened()._client
        put = client.put_object

        def refuse(**said: Any) -> Any:
            if "/blobs/" in f"/{said['Key']}":
                raise refusal(403, "AccessDenied")
            return put(**said)

        client.put_object = refuse
        self.one.keep(DATA)
        self.assertTrue(self.one.storage.near.uploads.is_coming(DIGEST))
        self.one.pass_time(100, 5.0)
        self.assertTrue(self.one.storage.near.uploads.holds(DIGEST))
        self.assertEqual(self.one.storage.leases._until_s, {})

    def test_a_second_commit_of_one_spool_is_no_end_of_the_first(self) -> None:
        """Only the first one counts."""
        self.one.uploads_wait = True
        spool = self.one.storage.open_spool(DIGEST, len(DATA))
        spool.write(DATA)
        descriptor = Descriptor(DIGEST, len(DATA), "a/a")
        first = spool.commit(descriptor, (), A, False)
        second = spool.commit(descriptor, (), A, False)
        self.assertRaises(StorageUnavailable, self.other.ask, second)
        self.assertIn(self.lease, self.there.names())
        self.one.ask(first)
        spool.close()
        self.one.work()
        self.assertTrue(self.is_there())
