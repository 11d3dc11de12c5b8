"""DiskStorage's own facts: sidecars that are broken, content that was cut, times of use, paths."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.contracts import TAG, record
from tests.oci.strategies import digests, namespaces, repositories, tags
from tests.soundness import assert_nothing_open, open_files
from tests.storage.disks import BLOB_TYPE, Disk, Outcome
from txociproxy.interfaces import Local, TagName
from txociproxy.oci.errors import StorageUnavailable
from txociproxy.oci.names import Digest, canonical_namespace
from txociproxy.storage.layout import Layout, Sidecar, tags_from_json
from txociproxy.storage.shelf import SMALL_BYTES

DATA = b"some content"
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
DAMAGED = st.binary(max_size=200) | st.dictionaries(
    st.sampled_from(("media_type", "size_bytes", "namespace", "headers", "records", "digest")), JSON
).map(lambda value: json.dumps(value).encode())
BROKEN_RECORDS = st.fixed_dictionaries(
    dict.fromkeys(("accept", "media_type", "size_bytes", "checked_at_s"), JSON), optional={"digest": JSON}
)


class SidecarTests(SynchronousTestCase):
    """Content whose sidecar was lost or damaged is content (RULES G1)."""

    def setUp(self) -> None:
        """A root with content."""
        self.disk = Disk(Path(self.mktemp()))
        self.disk.storage.prepare("transparent")
        self.addCleanup(self.disk.files.bury)
        self.digest = self.disk.keep(DATA)
        self.sidecar = self.disk.layout.sidecar(self.digest)

    def find(self) -> Local | None:
        """Look for the content."""
        outcome = Outcome(self.disk.storage.find(self.digest, "docker.io"))
        self.disk.work()
        self.assertIsNone(outcome.error)
        if outcome.value is not None:
            outcome.value.body.close()
        found: Local | None = outcome.value
        return found

    def assert_bare_hit(self) -> None:
        """The content is found, and nothing else is known of it."""
        local = self.find()
        assert local is not None
        self.assertEqual((local.descriptor.media_type, local.headers, local.namespace), (BLOB_TYPE, (), None))
        self.assertEqual(self.disk.read(self.digest), DATA)

    def test_without_its_sidecar_it_is_a_hit(self) -> None:
        """As a blob of nobody."""
        self.sidecar.unlink()
        self.assert_bare_hit()

    def test_with_a_torn_or_foreign_sidecar_it_is_a_hit(self) -> None:
        """Half of it, nothing, something else, too much of it, not text."""
        whole = self.sidecar.read_bytes()
        for data in (b"", whole[: len(whole) // 2], b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b" " * (1 << 20)):
            self.sidecar.write_bytes(data)
            self.assert_bare_hit()

    def test_with_a_sidecar_that_cannot_be_read_it_is_a_hit(self) -> None:
        """The disk's own errors count as damage."""
        self.disk.files.faults["read sidecar"] = OSError(5, "Input/output error")
        self.assert_bare_hit()
        self.disk.files.faults.clear()
        self.sidecar.unlink()
        self.sidecar.mkdir()
        self.assert_bare_hit()

    @given(DAMAGED)
    @settings(deadline=None)
    def test_no_damage_is_an_error(self, data: bytes) -> None:
        """And nothing that comes out of it can end a header field."""
        sidecar = Sidecar.from_json(data)
        texts = [sidecar.media_type, sidecar.namespace or "", *(part for pair in sidecar.headers for part in pair)]
        for text in texts:
            self.assertFalse(set(text) & {"\r", "\n", "\0"})
            text.encode("latin-1")
        tags_from_json(data)

    @given(st.lists(BROKEN_RECORDS, max_size=3))
    @settings(deadline=None)
    def test_no_damage_of_a_tag_is_an_error(self, records: list[object]) -> None:
        """What cannot be believed is left out."""
        known = {"digest": str(self.digest)}
        tags_from_json(json.dumps({"records": [{**known, **each} for each in records]}).encode())  # type: ignore[dict-item]

    def test_a_hit_outlives_its_file(self) -> None:
        """Small content is read at once and holds nothing open; large content holds the file."""
        for data, holds in ((DATA, False), (DATA * SMALL_BYTES, True)):
            digest = self.disk.keep(data)
            outcome = Outcome(self.disk.storage.find(digest, "docker.io"))
            self.disk.work()
            body = outcome.value.body
            self.assertEqual(bool(open_files(self.disk.root)), holds)
            self.disk.storage.remove(digest)
            self.disk.work()
            self.assertEqual(body.read_at(0, len(data)), data)
            body.close()
            assert_nothing_open(self.disk.root)

    def test_content_that_was_cut_is_a_miss_and_is_published_over(self) -> None:
        """Its sidecar knows how long it was."""
        path = self.disk.layout.content(self.digest)
        os.truncate(path, 3)
        self.assertIsNone(self.find())
        assert_nothing_open(self.disk.root)
        self.disk.keep(DATA)
        self.assertEqual(self.disk.read(self.digest), DATA)

    def test_a_descriptor_whose_close_fails_is_not_closed_again(self) -> None:
        """By then its number may be somebody else's (close(2): it is gone also after an error)."""
        os.truncate(self.disk.layout.content(self.digest), 3)
        self.disk.files.operations.clear()
        self.disk.files.faults["close content"] = OSError(errno.EIO, "Input/output error")
        outcome = Outcome(self.disk.storage.find(self.digest, "docker.io"))
        self.disk.work()
        self.assertIsInstance(outcome.error, StorageUnavailable)
        self.assertEqual(self.disk.files.operations.count("close content"), 1)
        self.disk.files.faults.clear()


class UseTests(SynchronousTestCase):
    """The time of last use, for the sweep."""

    def setUp(self) -> None:
        """Content that was used long ago."""
        self.disk = Disk(Path(self.mktemp()))
        self.disk.storage.prepare("transparent")
        self.addCleanup(self.disk.files.bury)
        self.path = self.disk.layout.content(self.disk.keep(DATA))
        self.used_s = self.disk.now_s - 5000
        os.utime(self.path, (self.used_s, self.used_s))

    def touches(self) -> int:
        """Count them."""
        return self.disk.files.operations.count("touch content")

    def test_a_hit_touches_it_once_an_hour(self) -> None:
        """Not more often: a hit is no write."""
        self.disk.read(Digest.of(DATA))
        self.assertEqual(self.touches(), 1)
        self.disk.now_s = os.stat(self.path).st_mtime + 3500
        self.disk.read(Digest.of(DATA))
        self.assertEqual(self.touches(), 1)
        self.disk.now_s += 200
        self.disk.read(Digest.of(DATA))
        self.assertEqual(self.touches(), 2)

    def test_a_store_that_cannot_be_written_still_serves(self) -> None:
        """The touch is not needed for the hit."""
        self.disk.files.faults["touch content"] = OSError(30, "Read-only file system")
        self.assertEqual(self.disk.read(Digest.of(DATA)), DATA)

    def test_a_walk_uses_nothing(self) -> None:
        """Else a list would make everything look loved."""

        async def walk() -> int:
            return len([descriptor async for descriptor in self.disk.storage.walk()])

        outcome = Outcome(walk())
        self.disk.work()
        self.assertEqual((outcome.value, self.touches()), (1, 0))

    def test_a_walk_goes_past_what_is_not_ours(self) -> None:
        """Files and directories of any name, at any depth, and content that cannot be opened."""
        top = self.disk.root / "blobs" / "sha256"
        (top / "stray").write_text("x")
        (top / "zz").mkdir()
        (top / "zz" / "lost+found").mkdir()
        (self.path.parent / "note.txt").write_text("x")
        self.test_a_walk_uses_nothing()
        self.disk.files.faults["open content"] = OSError(5, "Input/output error")

        async def walk() -> int:
            return len([descriptor async for descriptor in self.disk.storage.walk()])

        outcome = Outcome(walk())
        self.disk.work()
        self.assertEqual(outcome.value, 0)


class SharedRootTests(SynchronousTestCase):
    """Any number of processes share a root."""

    def setUp(self) -> None:
        """Two processes."""
        root = Path(self.mktemp())
        self.one, self.other = Disk(root), Disk(root)
        for disk in (self.one, self.other):
            disk.storage.prepare("transparent")
            self.addCleanup(disk.files.bury)

    def test_what_one_keeps_the_other_finds_and_may_remove(self) -> None:
        """There is no truth in memory."""
        digest = self.one.keep(DATA)
        self.assertEqual(self.other.read(digest), DATA)
        self.other.storage.remove(digest)
        self.other.work()
        self.assertIsNone(self.one.read(digest))

    def test_pointers_of_both_are_kept(self) -> None:
        """Neither writes over what the other has learnt."""
        for disk, media_type in ((self.one, "a/a"), (self.other, "b/b")):
            disk.storage.record_tag(TAG, record(media_type))
            disk.work()
        recalled = Outcome(self.one.storage.recall_tag(TAG))
        self.one.work()
        self.assertEqual([each.media_type for each in recalled.value], ["b/b", "a/a"])


class PathTests(SynchronousTestCase):
    """Every path of every value lies under the root, in components that file systems take (issue G)."""

    root = Path("/store")

    def assert_inside(self, path: Path) -> None:
        """No way out, nothing too long."""
        parts = path.relative_to(self.root).parts
        self.assertEqual({".", "..", ""} & set(parts), set())
        self.assertTrue(all(len(os.fsencode(part)) <= 255 for part in parts), parts)
        self.assertFalse(any("\0" in part or "/" in part for part in parts))

    @given(digests)
    @settings(deadline=None)
    def test_content_and_sidecars_lie_under_the_root(self, digest: Digest) -> None:
        """For every digest."""
        layout = Layout(self.root)
        self.assert_inside(layout.content(digest))
        self.assert_inside(layout.sidecar(digest))

    @given(st.builds(TagName, namespaces().map(canonical_namespace), repositories, tags))
    @settings(deadline=None)
    def test_tags_lie_under_the_root(self, name: TagName) -> None:
        """For every namespace, repository and tag."""
        self.assert_inside(Layout(self.root).tag(name))

    @given(st.lists(st.builds(TagName, namespaces().map(canonical_namespace), repositories, tags), max_size=4))
    @settings(deadline=None)
    def test_no_tag_lies_where_another_one_has_its_directory(self, names: list[TagName]) -> None:
        """Different names have different paths, and none is above another."""
        paths = {name: Layout(self.root).tag(name) for name in names}
        self.assertEqual(len(set(paths.values())), len(paths))
        for path in paths.values():
            self.assertFalse(any(path in other.parents for other in paths.values()))
