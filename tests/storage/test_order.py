"""Durability by order (RULES G1): what is done to the disk and when, and what is left when it is not all done."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.contracts import TAG, record
from tests.soundness import assert_nothing_open, assert_store_sound
from tests.storage.disks import Disk, Outcome
from tests.storage.recording import MOMENTS, Killed, Moment, MortalWorkers, RecordingFiles
from txociproxy.oci.names import Digest

DATA = bytes(range(256)) * 12
KEPT = b"kept long ago"
# Everything that a commit does to the disk, once its bytes are written and its directory is there.
COMMIT = [
    "fsync spool",
    "lock directory",
    "create new sidecar",
    "lock new sidecar",
    "write new sidecar",
    "fsync new sidecar",
    "rename sidecar",
    "close new sidecar",
    "rename content",
    "fsync directory",
    "unlink held content",
    "close directory",
]


class OrderTests(SynchronousTestCase):
    """The recorded operations."""

    def setUp(self) -> None:
        """A root where the directory of the content is there already."""
        self.disk = Disk(Path(self.mktemp()))
        self.disk.storage.prepare("transparent")
        self.disk.files.make_directory(self.disk.layout.content(Digest.of(DATA)).parent)
        self.disk.files.operations.clear()

    def test_a_commit_is_write_fsync_sidecar_rename_fsync_of_the_directory(self) -> None:
        """Exactly this, and in this order."""
        self.disk.keep(DATA)
        self.assertEqual(
            self.disk.files.operations,
            ["space", "create spool", "lock spool", *["write spool"] * 4, *COMMIT, "close spool"],
        )

    def test_content_of_no_bytes_is_made_in_the_same_order(self) -> None:
        """Its spool is made for the commit."""
        self.disk.files.make_directory(self.disk.layout.content(Digest.of(b"")).parent)
        self.disk.files.operations.clear()
        self.disk.keep(b"")
        self.assertEqual(self.disk.files.operations, ["space", "create spool", "lock spool", *COMMIT, "close spool"])

    def test_new_directories_are_durable_before_anything_is_renamed_into_them(self) -> None:
        """Each one's own name is synced."""
        self.disk.keep(KEPT)
        done = self.disk.files.operations
        made = [n for n, name in enumerate(done) if name == "make directory"]
        synced = [n for n, name in enumerate(done) if name == "fsync directory"]
        self.assertEqual(len(made), len(synced) - 1)
        self.assertTrue(max(made) < synced[-2] < done.index("rename sidecar"))

    def test_content_goes_before_its_sidecar(self) -> None:
        """A sidecar alone is no hit; content alone is one."""
        digest = self.disk.keep(DATA)
        self.disk.files.operations.clear()
        self.disk.storage.remove(digest)
        self.disk.work()
        self.assertEqual(
            self.disk.files.operations,
            [
                "lock directory",
                *("unlink content", "unlink held content"),
                *("unlink sidecar", "unlink held sidecar"),
                "close directory",
            ],
        )

    def test_a_tag_is_written_beside_and_renamed(self) -> None:
        """Nobody ever reads half a pointer; one who writes it holds the lock of its directory."""
        for _ in range(2):
            self.disk.files.operations.clear()
            self.disk.storage.record_tag(TAG, record("a/a"))
            self.disk.work()
        put = ["create spool", "lock spool", "write spool", "fsync spool", "rename tag", "close spool"]
        self.assertEqual(
            self.disk.files.operations, ["lock directory", "read tag", *put, "fsync directory", "close directory"]
        )


class OneLife:
    """A process that keeps content and a tag, and removes something, until it is killed."""

    def __init__(self, root: Path, death: tuple[int, Moment] | None) -> None:
        files = RecordingFiles(death=death, watches_power=True)
        self.disk = Disk(root, MortalWorkers(), files=files)

    def live(self) -> bool:
        """Run to the end; says whether it came there."""
        spool = self.disk.begin(DATA)
        outcome = self.disk.commit(spool, DATA)
        self.disk.work()
        self.disk.storage.record_tag(TAG, record("b/b"))
        self.disk.work()
        self.disk.storage.remove(Digest.of(KEPT))
        self.disk.work()
        spool.close()
        self.disk.work()
        return outcome.ended and not self.disk.files.is_dead


class DeathTests(SynchronousTestCase):
    """The process is killed before, during and after every single operation, with and without a loss of power."""

    def root(self) -> Path:
        """Return a root with content and a tag, as an earlier process left it."""
        disk = Disk(Path(self.mktemp()))
        disk.storage.prepare("transparent")
        disk.keep(KEPT)
        disk.storage.record_tag(TAG, record("a/a"))
        disk.work()
        disk.files.bury()
        return disk.root

    def deaths(self) -> Iterator[tuple[int, Moment]]:
        """Give every operation of a whole life, and every moment of it."""
        life = OneLife(self.root(), None)
        self.assertTrue(life.live())
        life.disk.files.bury()
        count = len(life.disk.files.operations)
        self.assertGreater(count, 30)
        return ((number, moment) for number in range(count) for moment in MOMENTS)

    def assert_survives(self, death: tuple[int, Moment], power_is_lost: bool = False) -> bool:
        """After the death the next process finds a sound store and right answers; says whether DATA is a hit."""
        root = self.root()
        life = OneLife(root, death)
        self.assertFalse(life.live())
        life.disk.files.bury(power_is_lost)
        after = Disk(root)
        self.addCleanup(after.files.bury)
        after.storage.prepare("transparent")
        assert_store_sound(root, is_at_rest=True)
        found = after.read(Digest.of(DATA))
        self.assertIn(found, (None, DATA), f"{death} {life.disk.files.operations}")
        self.assertIn(after.read(Digest.of(KEPT)), (None, KEPT))
        recalled = Outcome(after.storage.recall_tag(TAG))
        after.work()
        self.assertIn(len(recalled.value), (1, 2))
        self.assertEqual(after.read(after.keep(DATA)), DATA)
        assert_store_sound(root, is_at_rest=True)
        assert_nothing_open(root)
        return found is not None

    def test_killed_anywhere_the_store_is_sound_and_answers_right(self) -> None:
        """A miss before the content's rename, a hit after it, never anything else."""
        hits = [self.assert_survives(death) for death in self.deaths()]
        self.assertEqual(hits, sorted(hits))
        self.assertEqual(set(hits), {False, True})

    def test_a_loss_of_power_takes_nothing_that_was_promised(self) -> None:
        """Bytes that were not synced are gone, and still nothing wrong is found."""
        hits = [self.assert_survives(death, power_is_lost=True) for death in self.deaths()]
        self.assertEqual(set(hits), {False, True})

    def test_killed_at_its_first_start_anywhere_the_next_one_starts(self) -> None:
        """Nothing half made is in the way."""
        first = Disk(Path(self.mktemp()))
        first.storage.prepare("transparent")
        for number in range(len(first.files.operations)):
            for moment in MOMENTS:
                root = Path(self.mktemp())
                dying = Disk(root, files=RecordingFiles(death=(number, moment), watches_power=True))
                self.assertRaises(Killed, dying.storage.prepare, "transparent")
                dying.files.bury(power_is_lost=True)
                Disk(root).storage.prepare("transparent")
                assert_store_sound(root, is_at_rest=True)
                assert_nothing_open(root)
