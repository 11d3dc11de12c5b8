"""What every implementation of a seam must do; its own tests mix these in."""

from __future__ import annotations

import errno
import os
from collections.abc import Collection
from itertools import permutations
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from tests.soundness import assert_nothing_open, assert_store_sound
from tests.storage.recording import RecordingFiles
from txociproxy.interfaces import HeaderList, IBody, ISpool, IStorage, Local, TagName, TagRecord
from txociproxy.oci.errors import NoSpace, StorageUnavailable
from txociproxy.oci.names import Descriptor, Digest, Repository

if TYPE_CHECKING:
    Case = SynchronousTestCase
else:
    Case = object

MEDIA_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"
HEADERS: HeaderList = (("X-Origin", "west"), ("X-Origin", "caf\xe9"))
NAMESPACE = "ghcr.io"
NAMESPACES = ("docker.io", "ghcr.io", "quay.io")
DATA = bytes(range(256)) * 40
STORIES = st.lists(st.tuples(st.sampled_from(NAMESPACES), st.sampled_from(("held", "held", "open", "remove"))))
TAG = TagName("docker.io", Repository("library/alpine"), "3.20")


def record(media_type: str, checked_at_s: float = 1.0, data: bytes = DATA) -> TagRecord:
    """Return what a tag means to clients that take one media type."""
    return TagRecord(frozenset({media_type}), Digest.of(data), media_type, len(data), checked_at_s)


class StorageBench(Case):
    """What the facts about a storage are tried with.

    Whoever mixes this in makes ``self.storage`` in setUp, and says how its medium works and fails.
    """

    storage: IStorage

    def work(self) -> None:
        """Let the medium do all it has been asked to do."""

    def fill_up(self) -> None:
        """Let nothing more fit onto the medium."""
        raise NotImplementedError

    def outcome(self, awaitable: object) -> Any:
        """Return what was awaited, after the medium has worked."""

        async def wait() -> Any:
            return await cast("Deferred[Any]", awaitable)

        d = Deferred.fromCoroutine(wait())
        self.work()
        return self.successResultOf(d)

    def begin(self, data: bytes = DATA, size_bytes: int | None = None) -> ISpool:
        """Write content into a new spool."""
        spool = self.storage.open_spool(Digest.of(data), size_bytes)
        spool.write(data)
        return spool

    def commit(
        self,
        spool: ISpool,
        data: bytes = DATA,
        algorithm: str = "sha256",
        namespace: str = NAMESPACE,
        held: bool = False,
    ) -> object:
        """Ask for the commit of content."""
        return spool.commit(Descriptor(Digest.of(data, algorithm), len(data), MEDIA_TYPE), HEADERS, namespace, held)

    def keep(
        self, data: bytes = DATA, algorithm: str = "sha256", namespace: str = NAMESPACE, held: bool = False
    ) -> Digest:
        """Keep content."""
        digest = Digest.of(data, algorithm)
        spool = self.storage.open_spool(digest, len(data))
        if data:
            spool.write(data)
        self.outcome(self.commit(spool, data, algorithm, namespace, held))
        spool.close()
        self.work()
        return digest

    def find(self, digest: Digest, namespace: str = NAMESPACE) -> Local | None:
        """Look for content."""
        return cast("Local | None", self.outcome(self.storage.find(digest, namespace)))

    def found(self, digest: Digest, namespace: str = NAMESPACE) -> Local:
        """Look for content that is there."""
        local = self.find(digest, namespace)
        assert local is not None
        self.addCleanup(local.body.close)
        return local

    def whole(self, body: IBody) -> bytes:
        """Read a body from end to end, and go on waiting until it gives no more."""
        data = b""
        for _ in range(1000):
            data += body.read_at(len(data), 4096)
            self.work()
        return data

    def assert_miss(self, digest: Digest) -> None:
        """Nothing is known of this content."""
        self.assertIsNone(self.find(digest))

    def assert_unpublished(self, committing: object) -> None:
        """A commit fails in the way that callers know."""

        async def wait() -> None:
            await cast("Deferred[None]", committing)

        d = Deferred.fromCoroutine(wait())
        self.work()
        self.failureResultOf(d, StorageUnavailable)

    def walked(self) -> list[Descriptor]:
        """Return all that a walk meets."""

        async def walk() -> list[Descriptor]:
            return [descriptor async for descriptor in self.storage.walk()]

        return cast("list[Descriptor]", self.outcome(walk()))


class HeldContract(StorageBench):
    """Content that came with the proxy's own credentials (RULES D3)."""

    everybody = (*NAMESPACES, "", NAMESPACE.upper())

    def hold(self, namespace: str = NAMESPACE, data: bytes = DATA) -> Digest:
        """Keep content for a namespace."""
        return self.keep(data, namespace=namespace, held=True)

    def assert_seen_from(self, namespaces: Collection[str], digest: Digest, data: bytes = DATA) -> None:
        """These namespaces find all of it, the others nothing."""
        for namespace in self.everybody:
            local = self.find(digest, namespace)
            self.assertEqual(local is not None, namespace in namespaces, f"from {namespace!r}")
            if local is not None:
                self.assertEqual(local.body.read_at(0, len(data) + 1), data)
                local.body.close()
                self.work()

    def test_what_is_held_is_found_from_its_namespace_only(self) -> None:
        """With all that was said of it; for the others it is not there."""
        digest = self.hold()
        self.assert_seen_from({NAMESPACE}, digest)
        local = self.found(digest)
        self.assertEqual(local.descriptor, Descriptor(digest, len(DATA), MEDIA_TYPE))
        self.assertEqual((local.headers, local.namespace), (HEADERS, NAMESPACE))

    def test_what_is_held_for_two_is_held_for_both(self) -> None:
        """The header fields are those of the last one."""
        for namespaces in permutations(NAMESPACES, 2):
            data = DATA + repr(namespaces).encode()
            for namespace in namespaces:
                digest = self.hold(namespace, data)
            self.assert_seen_from(namespaces, digest, data)
            self.assertEqual(self.found(digest, namespaces[0]).namespace, namespaces[1])

    def test_one_commit_as_anybody_opens_it_and_none_closes_it(self) -> None:
        """At whatever place among the others, and whichever namespace it came from."""
        commits = (("docker.io", True), ("ghcr.io", True), ("quay.io", False), ("ghcr.io", False))
        for order in permutations(commits, 3):
            data = DATA + repr(order).encode()
            for namespace, held in order:
                digest = self.keep(data, namespace=namespace, held=held)
            self.assert_seen_from(self.everybody, digest, data)
            self.assertEqual(self.found(digest).namespace, order[-1][0])

    def test_removal_forgets_for_whom_it_was_held(self) -> None:
        """And that it was open."""
        digest = self.hold("docker.io")
        self.assertTrue(self.outcome(self.storage.remove(digest)))
        self.assertFalse(self.outcome(self.storage.remove(digest)))
        self.assert_seen_from((), digest)
        self.hold("quay.io")
        self.assert_seen_from({"quay.io"}, digest)
        self.keep()
        self.outcome(self.storage.remove(digest))
        self.hold("ghcr.io")
        self.assert_seen_from({"ghcr.io"}, digest)

    def test_a_reader_of_held_content_goes_on_whatever_becomes_of_it(self) -> None:
        """Held for another one too, opened, removed."""
        data = DATA * 3
        digest = self.hold(data=data)
        first = self.found(digest)
        self.hold("quay.io", data)
        second = self.found(digest)
        self.keep(data)
        third = self.found(digest)
        self.outcome(self.storage.remove(digest))
        for local in (first, second, third):
            self.assertEqual(self.whole(local.body), data)

    def test_a_commit_that_never_was_opens_nothing(self) -> None:
        """Written, abandoned, failed."""
        digest = self.hold()
        self.begin().abandon()
        written = self.begin()
        self.work()
        self.assert_seen_from({NAMESPACE}, digest)
        self.fill_up()
        written.write(b"more")
        self.work()
        self.assert_unpublished(self.commit(written))
        self.assert_seen_from({NAMESPACE}, digest)

    def test_a_walk_meets_what_is_held_too(self) -> None:
        """Once, for whomever it is held."""
        digests = {self.keep(b"open"), self.hold("docker.io", b"one"), self.hold("quay.io", b"two")}
        self.hold("ghcr.io", b"two")
        met = self.walked()
        self.assertEqual((len(met), {each.digest for each in met}), (3, digests))
        self.assertEqual({each.media_type for each in met}, {MEDIA_TYPE})

    def test_content_of_no_bytes_can_be_held(self) -> None:
        """It has a name like any other."""
        self.assert_seen_from({"quay.io"}, self.hold("quay.io", b""), b"")

    @given(STORIES)
    @settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.differing_executors])
    def test_any_story_ends_as_its_rules_say(self, story: list[tuple[str, str]]) -> None:
        """After every step, from every namespace."""
        self.live_through(story)

    def live_through(self, story: list[tuple[str, str]]) -> None:
        """Keep and remove, and look who sees it."""
        digest = Digest.of(DATA)
        self.outcome(self.storage.remove(digest))
        seen_from: set[str] = set()
        for namespace, step in story:
            if step == "remove":
                self.assertEqual(self.outcome(self.storage.remove(digest)), bool(seen_from))
                seen_from = set()
            else:
                self.keep(namespace=namespace, held=step == "held")
                seen_from |= {namespace} if step == "held" else set(self.everybody)
            self.assert_seen_from(seen_from, digest)
            self.assertEqual(len(self.walked()), bool(seen_from))


class StorageContract(HeldContract):
    """IStorage and ISpool, whatever the medium is."""

    # --- content

    def test_it_provides_its_interfaces(self) -> None:
        """Storage, spool and body have the methods of their seams."""
        verifyObject(IStorage, self.storage)
        verifyObject(ISpool, self.begin())
        verifyObject(IBody, self.found(self.keep()).body)

    def test_what_was_committed_is_found_with_all_that_was_said_of_it(self) -> None:
        """Bytes, size, media type, header fields in their order, and the namespace it came from."""
        local = self.found(self.keep())
        self.assertEqual(local.descriptor, Descriptor(Digest.of(DATA), len(DATA), MEDIA_TYPE))
        self.assertEqual((local.headers, local.namespace), (HEADERS, NAMESPACE))
        self.assertEqual((local.body.size_bytes, self.whole(local.body)), (len(DATA), DATA))

    def test_what_was_never_kept_is_a_miss(self) -> None:
        """None, not an error."""
        self.assert_miss(Digest.of(b"never"))

    def test_content_is_a_miss_until_it_is_committed(self) -> None:
        """Written is not published."""
        spool = self.begin()
        self.assert_miss(Digest.of(DATA))
        self.outcome(self.commit(spool))
        self.assertEqual(self.whole(self.found(Digest.of(DATA)).body), DATA)

    def test_content_of_unknown_size_can_be_kept(self) -> None:
        """The commit says how long it became."""
        self.outcome(self.commit(self.begin(size_bytes=None)))
        self.assertEqual(self.found(Digest.of(DATA)).descriptor.size_bytes, len(DATA))

    def test_content_of_no_bytes_can_be_kept(self) -> None:
        """Nothing was ever written, and that is its content."""
        local = self.found(self.keep(b""))
        self.assertEqual((local.descriptor.size_bytes, self.whole(local.body)), (0, b""))

    def test_sha512_is_a_name_like_any_other(self) -> None:
        """The same bytes under another algorithm are other content."""
        digest = self.keep(algorithm="sha512")
        self.assertEqual(self.whole(self.found(digest).body), DATA)
        self.assert_miss(Digest.of(DATA))

    def test_the_same_content_may_be_committed_twice(self) -> None:
        """Two spools at once, one after the other; a reader of the first goes on undisturbed."""
        first, second = self.begin(), self.begin()
        self.outcome(self.commit(first))
        reading = self.found(Digest.of(DATA))
        self.outcome(self.commit(second))
        self.assertEqual(self.whole(reading.body), DATA)
        self.assertEqual(self.whole(self.found(Digest.of(DATA)).body), DATA)

    def test_removed_content_is_a_miss_and_stays_readable_for_its_readers(self) -> None:
        """The answer says whether it was there."""
        digest = self.keep()
        reading = self.found(digest)
        self.assertTrue(self.outcome(self.storage.remove(digest)))
        self.assertFalse(self.outcome(self.storage.remove(digest)))
        self.assert_miss(digest)
        self.assertEqual(self.whole(reading.body), DATA)

    def test_removed_content_can_be_kept_again(self) -> None:
        """Nothing of the first time is in the way."""
        self.outcome(self.storage.remove(self.keep()))
        self.assertEqual(self.whole(self.found(self.keep()).body), DATA)

    def test_a_walk_meets_everything_that_is_kept(self) -> None:
        """Each descriptor once, unfinished content never."""
        digests = {self.keep(bytes([n])) for n in range(5)} | {self.keep(algorithm="sha512")}
        self.begin(b"unfinished")
        met = self.walked()
        self.assertEqual((len(met), {descriptor.digest for descriptor in met}), (6, digests))
        self.assertEqual({descriptor.media_type for descriptor in met}, {MEDIA_TYPE})

    # --- spools

    def test_abandoned_content_is_never_published(self) -> None:
        """Abandon may be said twice, and a commit after it fails."""
        spool = self.begin()
        spool.abandon()
        spool.abandon()
        self.assert_unpublished(self.commit(spool))
        self.assert_miss(Digest.of(DATA))

    def test_what_an_abandoned_spool_holds_stays_readable_until_it_is_closed(self) -> None:
        """Its readers may be far behind."""
        spool = self.begin()
        self.work()
        spool.abandon()
        self.work()
        self.assertEqual(spool.read_at(10, 20), DATA[10:30])

    def test_abandon_and_close_after_a_commit_change_nothing(self) -> None:
        """The content stays."""
        spool = self.begin()
        self.outcome(self.commit(spool))
        spool.abandon()
        for _ in range(2):
            spool.close()
            self.work()
        self.assertEqual(self.whole(self.found(Digest.of(DATA)).body), DATA)

    def test_closing_without_a_commit_abandons(self) -> None:
        """Close may be said twice."""
        spool = self.begin()
        for _ in range(2):
            spool.close()
            self.work()
        self.assert_miss(Digest.of(DATA))

    def test_only_one_commit_counts(self) -> None:
        """A second one is refused and does not disturb the first."""
        spool = self.begin()
        first = self.commit(spool)
        self.assert_unpublished(self.commit(spool))
        self.outcome(first)
        self.assertEqual(self.whole(self.found(Digest.of(DATA)).body), DATA)

    def test_a_spool_gives_what_is_flushed_and_nothing_more(self) -> None:
        """Bytes, and extents of a file if there is one; whoever follows is told."""
        spool = self.storage.open_spool(Digest.of(DATA), len(DATA))
        seen: list[int] = []
        spool.follow(lambda: seen.append(spool.flushed_bytes))
        for start in (0, 5000):
            spool.write(DATA[start : start + 5000])
            self.assert_gives(spool)
            self.work()
            self.assert_gives(spool)
        self.assertEqual((seen, spool.flushed_bytes), ([5000, 10000], 10000))

    def assert_gives(self, spool: ISpool) -> None:
        """At every offset, exactly the flushed bytes are there."""
        for offset in (0, 1, spool.flushed_bytes - 1, spool.flushed_bytes, spool.flushed_bytes + 1):
            here = DATA[max(0, offset) : spool.flushed_bytes]
            if offset >= 0:
                self.assertEqual(spool.read_at(offset, 1 << 20), here)
                self.assertEqual(spool.read_at(offset, 3), here[:3])
                extent = spool.extent_at(offset, 1 << 20)
                if extent is not None:
                    self.assertEqual(os.pread(extent[0], extent[1], offset), here[: extent[1]])
                    self.assertTrue(0 < extent[1] <= len(here))

    def test_a_medium_that_fails_kills_the_spool_and_not_the_writer(self) -> None:
        """Writes go on in silence, the failure is told, what was flushed stays readable, nothing is published."""
        spool = self.begin(DATA[:5000])
        self.work()
        self.fill_up()
        told: list[Exception | None] = []
        spool.follow(lambda: told.append(spool.failure))
        for start in (5000, 7000):
            spool.write(DATA[start : start + 2000])
            self.work()
        self.assertIsInstance(spool.failure, StorageUnavailable)
        self.assertEqual((len(told), told[-1]), (1, spool.failure))
        self.assertEqual((spool.flushed_bytes, spool.read_at(0, 1 << 20)), (5000, DATA[:5000]))
        self.assert_unpublished(self.commit(spool))
        spool.abandon()
        self.work()
        self.assertEqual(spool.read_at(4000, 1 << 20), DATA[4000:5000])
        spool.close()
        self.work()
        self.assert_miss(Digest.of(DATA))

    def test_content_that_cannot_fit_is_refused(self) -> None:
        """At once, or as the death of its spool; either way it is NoSpace."""
        try:
            spool = self.begin(size_bytes=1 << 62)
        except NoSpace:
            return
        self.work()
        self.assertIsInstance(spool.failure, NoSpace)
        self.assert_unpublished(self.commit(spool))

    # --- turns

    def test_nobody_waits_where_nobody_else_is_at_work(self) -> None:
        """At once False, before content is kept and after it, however often it is asked."""
        for _ in range(2):
            self.assertIs(self.outcome(self.storage.await_turn(Digest.of(DATA))), False)
        self.assertIs(self.outcome(self.storage.await_turn(self.keep())), False)

    def test_a_turn_can_be_left_at_any_time(self) -> None:
        """Before it was awaited, after it, twice; content that is kept stays."""
        digest = self.keep()
        for wait in (False, True, True):
            if wait:
                self.outcome(self.storage.await_turn(digest))
            self.storage.leave_turn(digest)
            self.work()
        self.assertEqual(self.whole(self.found(digest).body), DATA)

    # --- tags

    def recall(self, name: TagName = TAG) -> tuple[TagRecord, ...]:
        """Return what is known of a tag."""
        return cast("tuple[TagRecord, ...]", self.outcome(self.storage.recall_tag(name)))

    def remember(self, *records: TagRecord, name: TagName = TAG) -> None:
        """Record pointers one after the other."""
        for each in records:
            self.outcome(self.storage.record_tag(name, each))

    def test_an_unknown_tag_has_no_records(self) -> None:
        """And forgetting it is no error."""
        self.outcome(self.storage.forget_tag(TAG))
        self.assertEqual(self.recall(), ())

    def test_records_come_back_latest_first_one_per_accept_class(self) -> None:
        """A new record stands in place of the one with its class."""
        old, other, new = record("a/a"), record("b/b"), record("a/a", 2.5, b"moved")
        self.remember(old, other, new)
        self.assertEqual(self.recall(), (new, other))

    def test_four_accept_classes_are_kept(self) -> None:
        """The one that was recorded longest ago goes (RULES A5)."""
        records = [record(f"type/{n}") for n in range(6)]
        self.remember(*records)
        self.assertEqual(self.recall(), tuple(reversed(records[2:])))

    def test_a_forgotten_tag_has_no_records(self) -> None:
        """All classes go."""
        self.remember(record("a/a"), record("b/b"))
        self.outcome(self.storage.forget_tag(TAG))
        self.assertEqual(self.recall(), ())

    def test_tags_of_other_names_are_other_tags(self) -> None:
        """Namespace, repository and case count; a repository below another one is not in its way."""
        names = [
            TagName(namespace, Repository(path), tag)
            for namespace in ("docker.io", "localhost:5000")
            for path in ("a", "a/b", "a/tags")
            for tag in ("v1", "V1", "v1.json")
        ]
        for number, name in enumerate(names):
            self.remember(record("a/a", float(number)), name=name)
        self.assertEqual([self.recall(name)[0].checked_at_s for name in names], [float(n) for n in range(len(names))])


class RootContract(StorageContract):
    """A storage that has a root on the disk, if only for what is on its way.

    :ivar files: the operations below the root.
    """

    @property
    def files(self) -> RecordingFiles:
        """The operations on files."""
        raise NotImplementedError

    @property
    def root(self) -> Path:
        """Where they are done."""
        raise NotImplementedError

    def check(self) -> None:
        """Whatever a test did, the store is sound, and no descriptor was used by somebody it did not belong to."""
        assert_store_sound(self.root)
        self.assertEqual(self.files.foreign, [])

    def fill_up(self) -> None:
        """Let the file system be full."""
        self.files.faults["write spool"] = OSError(errno.ENOSPC, "No space left on device")

    def test_nothing_stays_open(self) -> None:
        """Committed, abandoned, found: every descriptor goes with its owner."""
        digest = self.keep()
        for spool in (self.begin(), self.storage.open_spool(digest, 5)):
            self.work()
            spool.close()
            self.work()
        local = self.find(digest)
        assert local is not None
        local.body.close()
        self.work()
        assert_nothing_open(self.root)
        assert_store_sound(self.root, is_at_rest=True)
