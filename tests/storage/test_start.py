"""What is done to a root before the first listen (RULES D4, G1, G2)."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from tests.soundness import assert_nothing_open, assert_store_sound
from tests.storage.disks import Disk
from tests.storage.recording import MOMENTS, Killed, RecordingFiles
from txociproxy.oci.errors import StorageUnavailable
from txociproxy.storage.layout import Layout

HOLDER = (
    "import fcntl, os, sys; fcntl.flock(os.open(sys.argv[1], os.O_RDWR), fcntl.LOCK_EX); print(flush=True); input()"
)


class StartTests(SynchronousTestCase):
    """A process begins with a root."""

    def setUp(self) -> None:
        """A path where nothing is."""
        self.disk = Disk(Path(self.mktemp()) / "deep" / "store")
        self.addCleanup(self.disk.files.bury)

    def prepare(self, mode: str = "transparent", adopt: bool = False) -> None:
        """Start."""
        self.disk.storage.prepare(mode, adopt)

    def refusal(self, mode: str = "transparent", adopt: bool = False) -> str:
        """Start, and return why not."""
        error = self.assertRaises(StorageUnavailable, self.prepare, mode, adopt)
        text = str(error)
        self.assertNotIn("\n", text)
        return text

    def leave(self, name: str) -> Path:
        """Put an unfinished file into the root."""
        path = self.disk.layout.ingest / name
        path.write_bytes(b"half of it")
        return path

    def test_a_root_is_made_and_marked(self) -> None:
        """The marker says layout and mode; a second start changes nothing."""
        for _ in range(2):
            self.prepare()
            marker = json.loads(self.disk.layout.marker.read_bytes())
            self.assertEqual(marker, {"layout": 1, "mode": "transparent"})
        assert_store_sound(self.disk.root, is_at_rest=True)
        assert_nothing_open(self.disk.root)

    def test_a_store_of_the_other_mode_is_refused(self) -> None:
        """A digest that is kept is no proof of access."""
        self.prepare()
        text = self.refusal("authenticated")
        for part in ("belongs to transparent mode", "--adopt-store true", "name another", str(self.disk.root)):
            self.assertIn(part, text)
        self.assertEqual(self.marker()["mode"], "transparent")

    def marker(self) -> dict[str, object]:
        """Return what the marker says."""
        found: dict[str, object] = json.loads(self.disk.layout.marker.read_bytes())
        return found

    def test_an_adopted_store_belongs_to_the_new_mode_with_all_it_keeps(self) -> None:
        """One line says so; from then on the old mode is refused, and nobody adopts a store that is his."""
        lines = self.listen()
        self.prepare()
        digest, held = self.disk.keep(b"kept"), self.disk.keep(b"held", held=True)
        self.disk.files.operations.clear()
        self.prepare("authenticated", adopt=True)
        done = self.disk.files.operations
        self.assertEqual(done[done.index("rename .txociproxy.json") + 1 :][:2], ["close spool", "fsync directory"])
        self.assertLess(done.index("fsync spool"), done.index("rename .txociproxy.json"))
        self.assertEqual(self.marker(), {"layout": 1, "mode": "authenticated"})
        self.assertEqual(len(lines), 1, lines)
        for part in (str(self.disk.root), "transparent", "authenticated"):
            self.assertIn(part, lines[0])
        self.assertIn("belongs to authenticated mode", self.refusal())
        for adopt in (False, True):
            self.prepare("authenticated", adopt)
        self.assertEqual(len(lines), 1)
        self.assertEqual((self.disk.read(digest), self.disk.read(held)), (b"kept", b"held"))
        self.assertIsNone(self.disk.read(held, "quay.io"))

    def listen(self) -> list[str]:
        """Return the list of what is logged at info."""
        lines: list[str] = []

        @implementer(ILogObserver)
        def observe(event: LogEvent) -> None:
            if event["log_level"] is LogLevel.info and event["log_namespace"].startswith("txociproxy.storage"):
                lines.append(formatEvent(event))

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        return lines

    def test_a_fresh_root_needs_no_adoption_and_says_nothing_of_one(self) -> None:
        """Nor does one that has never said whose it is."""
        lines = self.listen()
        self.prepare("authenticated", adopt=True)
        self.assertEqual((lines, self.marker()["mode"]), ([], "authenticated"))

    def test_a_store_that_cannot_be_marked_anew_is_not_adopted(self) -> None:
        """One clear error, the marker as it was, and not a word of an adoption."""
        lines = self.listen()
        self.prepare()
        for step in ("create spool", "write spool", "fsync spool", "rename .txociproxy.json"):
            self.disk.files.faults = {step: OSError(errno.ENOSPC, "No space left on device")}
            self.assertIn("No space left", self.refusal("authenticated", adopt=True))
            self.assertEqual((self.marker()["mode"], lines), ("transparent", []))
            assert_nothing_open(self.disk.root)

    def test_killed_anywhere_while_it_is_adopted_a_store_belongs_to_one_of_the_modes(self) -> None:
        """The next start in the new mode finds the old marker or the new one, whole."""
        self.prepare()
        self.disk.files.operations.clear()
        self.prepare("authenticated", adopt=True)
        owners = []
        for number in range(len(self.disk.files.operations)):
            for moment in MOMENTS:
                root = Path(self.mktemp())
                Disk(root).storage.prepare("transparent")
                dying = Disk(root, files=RecordingFiles(death=(number, moment), watches_power=True))
                self.assertRaises(Killed, dying.storage.prepare, "authenticated", True)
                dying.files.bury(power_is_lost=True)
                owners.append(json.loads(Layout(root).marker.read_bytes())["mode"])
                Disk(root).storage.prepare("authenticated", True)
                assert_store_sound(root, is_at_rest=True)
        self.assertEqual(owners, sorted(owners, reverse=True))
        self.assertEqual(set(owners), {"transparent", "authenticated"})

    def test_the_marker_is_read_and_written_under_the_lock(self) -> None:
        """Else two that begin at once on a fresh root, in different modes, both believe that it is theirs."""
        self.prepare()
        done = self.disk.files.operations
        self.assertEqual(done[done.index("lock directory") + 1], "read .txociproxy.json")
        self.assertLess(done.index("rename .txociproxy.json"), done.index("close directory"))
        assert_nothing_open(self.disk.root)
        self.refusal("authenticated")
        assert_nothing_open(self.disk.root)

    def test_a_store_of_another_layout_is_refused(self) -> None:
        """Also one whose marker says nothing."""
        self.prepare()
        self.disk.layout.marker.write_text('{"layout": 2, "mode": "transparent"}')
        self.assertIn("has layout 2", self.refusal())
        for text in ("", "[]", "{}", '"layout"', "\xff"):
            self.disk.layout.marker.write_text(text)
            self.assertIn("cannot be read", self.refusal())
        for mode in ('"open"', '"a\\nb"', "5", "null", '["transparent"]'):
            self.disk.layout.marker.write_text(f'{{"layout": 1, "mode": {mode}}}')
            self.assertIn("names no mode", self.refusal())

    def test_a_store_of_another_layout_is_not_adopted(self) -> None:
        """Nor one that does not say whose it is: only the mode may change."""
        self.prepare()
        for text in ('{"layout": 2, "mode": "transparent"}', "{}", '{"layout": 1, "mode": "open"}', "[" * 100_000):
            self.disk.layout.marker.write_text(text)
            self.refusal("authenticated", adopt=True)
            self.assertEqual(self.disk.layout.marker.read_text(), text)

    def test_a_root_that_cannot_be_written_is_one_clear_error(self) -> None:
        """Whatever refuses: the directory, the marker, or the trial of the disk."""
        self.prepare()
        for number in (errno.EROFS, errno.EACCES, errno.EIO):
            for step in ("create spool", "write spool", "fsync spool", "rename writable", "unlink writable"):
                self.disk.files.faults = {step: OSError(number, os.strerror(number))}
                text = self.refusal()
                self.assertIn(str(self.disk.root), text)
                self.assertIn(os.strerror(number), text)
                assert_nothing_open(self.disk.root)
        fresh = Disk(Path(self.mktemp()))
        fresh.files.faults = {"make directory": OSError(errno.EACCES, "Permission denied")}
        self.assertRaises(StorageUnavailable, fresh.storage.prepare, "transparent")

    def test_a_root_that_is_a_file_is_refused(self) -> None:
        """It is left as it was."""
        self.disk.root.parent.mkdir(parents=True)
        self.disk.root.write_text("precious")
        self.refusal()
        self.assertEqual(self.disk.root.read_text(), "precious")

    def test_a_full_disk_does_not_keep_us_from_serving_what_is_kept(self) -> None:
        """Pulls go on unkept, hits are hits, and the trial leaves nothing behind."""
        self.prepare()
        digest = self.disk.keep(b"kept")
        for step in ("write spool", "fsync spool"):
            self.disk.files.faults = {step: OSError(errno.ENOSPC, "No space left on device")}
            self.prepare()
            assert_store_sound(self.disk.root, is_at_rest=True)
        self.assertEqual(self.disk.read(digest), b"kept")

    def test_what_dead_processes_left_is_removed(self) -> None:
        """Whatever it is called."""
        self.prepare()
        left = [self.leave(name) for name in ("a.spool", "a.meta", "writable", "what is this")]
        self.prepare()
        self.assertEqual([path.exists() for path in left], [False] * 4)
        assert_store_sound(self.disk.root, is_at_rest=True)

    def test_a_directory_among_them_is_left_alone(self) -> None:
        """It is not ours, and no reason not to start."""
        self.prepare()
        (self.disk.layout.ingest / "directory").mkdir()
        self.prepare()
        self.assertTrue((self.disk.layout.ingest / "directory").is_dir())

    def test_what_another_process_is_writing_is_kept(self) -> None:
        """The lock says who is alive, and goes with its process."""
        self.prepare()
        path = self.leave("theirs.spool")
        holder = subprocess.Popen([sys.executable, "-c", HOLDER, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        with holder:
            assert holder.stdout is not None
            holder.stdout.readline()
            self.prepare()
            self.assertTrue(path.exists())
            assert_store_sound(self.disk.root)
            holder.kill()
        self.prepare()
        self.assertFalse(path.exists())

    def test_a_spool_of_our_own_is_kept_too(self) -> None:
        """Another worker of the same service starts beside us; our content is published all the same."""
        self.prepare()
        spool = self.disk.begin(b"ours")
        Disk(self.disk.root).storage.prepare("transparent")
        outcome = self.disk.commit(spool, b"ours")
        self.disk.work()
        spool.close()
        self.disk.work()
        self.assertEqual((outcome.ended, outcome.error), (True, None))

    def test_a_spool_that_a_starting_process_took_for_dead_is_given_up(self) -> None:
        """It was made, and not locked yet, when the other looked."""
        self.prepare()
        disk = self.disk
        lock = disk.files.lock

        def too_late(fd: int) -> bool:
            other = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY)
            self.addCleanup(os.close, other)
            fcntl.flock(other, fcntl.LOCK_EX)
            return lock(fd)

        disk.files.lock = too_late  # type: ignore[method-assign]
        spool = disk.begin(b"ours")
        self.assertIsInstance(spool.failure, StorageUnavailable)
        spool.close()
        disk.work()
