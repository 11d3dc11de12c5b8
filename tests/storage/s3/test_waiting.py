"""Marks of what is still to be uploaded: durable before they are believed, gone only after what they speak of."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.soundness import assert_nothing_open
from tests.storage.disks import Disk
from tests.storage.recording import MOMENTS, Killed, RecordingFiles
from txociproxy.oci.names import Digest
from txociproxy.storage.layout import Layout
from txociproxy.storage.s3.waiting import Waiting

DATA = b"content that waits"
DIGEST = Digest.of(DATA)
OTHER = Digest.of(b"other", "sha512")


class WaitingTests(SynchronousTestCase):
    """Marks on a real disk."""

    def setUp(self) -> None:
        """An empty root."""
        self.disk = Disk(Path(self.mktemp()))
        self.disk.storage.prepare("transparent")
        self.addCleanup(self.disk.files.bury)
        self.waiting = Waiting(self.disk.files, self.disk.layout)
        self.disk.files.operations.clear()

    def names(self) -> list[str]:
        """Return the files of all marks."""
        return sorted(os.listdir(self.disk.root / "uploads"))

    def test_a_mark_names_its_content_and_is_durable_when_it_is_said(self) -> None:
        """Its file is synced, and then its name; so is the name of a new directory."""
        self.waiting.mark(DIGEST)
        self.assertEqual(self.names(), [f"sha256-{DIGEST.hex}"])
        steps = [name for name in self.disk.files.operations if name.startswith(("create", "fsync"))]
        self.assertEqual(steps[-3:], ["create content", "fsync content", "fsync directory"])
        self.assertEqual(self.disk.files.operations[0], "make directory")
        assert_nothing_open(self.disk.root)

    def test_a_mark_that_is_there_is_made_durable_once_more(self) -> None:
        """Whoever made it may not have come to that yet."""
        self.waiting.mark(DIGEST)
        self.disk.files.operations.clear()
        self.waiting.mark(DIGEST)
        self.assertEqual(self.disk.files.operations, ["create content", "fsync directory"])
        self.assertEqual(self.waiting.marks(), [DIGEST])

    def test_a_mark_that_cannot_be_made_durable_is_an_error(self) -> None:
        """At any step; and no descriptor is left behind."""
        for step in ("make directory", "create content", "fsync content", "fsync directory"):
            self.disk.files.faults = {step: OSError(errno.EIO, "Input/output error")}
            self.assertRaises(OSError, self.waiting.mark, DIGEST)
            assert_nothing_open(self.disk.root)

    def test_the_oldest_mark_comes_first(self) -> None:
        """By the time it was made, and not by its name."""
        digests = [Digest.of(bytes([n])) for n in range(5)]
        for age_s, digest in enumerate(digests):
            self.waiting.mark(digest)
            os.utime(self.disk.root / "uploads" / f"sha256-{digest.hex}", (0, 1000 - age_s))
        self.assertEqual(self.waiting.marks(), digests[::-1])

    def test_both_algorithms_are_told_apart(self) -> None:
        """And what is no mark is left alone."""
        self.waiting.mark(DIGEST)
        self.waiting.mark(OTHER)
        for name in ("sha256-short", "note.txt", f"md5-{DIGEST.hex}"):
            (self.disk.root / "uploads" / name).touch()
        self.assertEqual(set(self.waiting.marks()), {DIGEST, OTHER})
        self.waiting.unmark(OTHER)
        self.waiting.unmark(OTHER)
        self.assertEqual(self.waiting.marks(), [DIGEST])

    def test_nothing_was_ever_marked(self) -> None:
        """There is not even a directory."""
        self.assertEqual((self.waiting.marks(), self.waiting.sizes()), ([], []))
        self.waiting.unmark(DIGEST)

    def test_sizes_are_those_of_the_local_copies(self) -> None:
        """Open or held, and nothing where the copy has gone."""
        held, gone = b"held for some", Digest.of(b"gone")
        for digest in (DIGEST, Digest.of(held), gone):
            self.waiting.mark(digest)
        self.disk.keep(DATA)
        self.disk.keep(held, held=True)
        self.assertEqual(dict(self.waiting.sizes()), {DIGEST: len(DATA), Digest.of(held): len(held), gone: 0})
        assert_nothing_open(self.disk.root)

    def test_the_copy_goes_durably_before_its_mark(self) -> None:
        """Else a loss of power could leave content that nobody waits for."""
        self.waiting.mark(DIGEST)
        self.disk.keep(DATA)
        self.disk.files.operations.clear()
        self.waiting.finish(DIGEST)
        done = [name for name in self.disk.files.operations if "close" not in name and "lock" not in name]
        self.assertEqual(done[0], "unlink content")
        self.assertEqual(done[-2:], ["fsync directory", "unlink content"])
        self.assertEqual((self.waiting.marks(), self.disk.read(DIGEST)), ([], None))

    def test_a_mark_without_content_can_be_finished(self) -> None:
        """There is nothing to remove but the mark."""
        self.waiting.mark(DIGEST)
        self.waiting.finish(DIGEST)
        self.waiting.finish(DIGEST)
        self.assertEqual(self.waiting.marks(), [])

    def test_content_that_cannot_be_removed_keeps_its_mark(self) -> None:
        """And is tried again."""
        self.waiting.mark(DIGEST)
        self.disk.keep(DATA)
        self.disk.files.faults["lock directory"] = OSError(errno.EIO, "Input/output error")
        self.assertRaises(OSError, self.waiting.finish, DIGEST)
        self.assertEqual(self.waiting.marks(), [DIGEST])

    def test_what_lies_here_anyway_is_marked_without_a_wait_for_the_disk(self) -> None:
        """Tens of thousands may be; those that have their mark keep it."""
        digests = [Digest.of(bytes([number])) for number in range(9)]
        self.waiting.mark(digests[0])
        self.disk.files.operations.clear()
        self.waiting.mark_the_unmarked(digests)
        self.assertEqual([name for name in self.disk.files.operations if "fsync" in name], [])
        self.assertEqual(set(self.waiting.marks()), set(digests))
        assert_nothing_open(self.disk.root)

    def test_killed_at_any_step_of_finishing_there_is_never_content_without_its_mark(self) -> None:
        """The mark is the last to go."""
        self.waiting.mark(DIGEST)
        self.disk.keep(DATA)
        ends = set()
        for number in range(30):
            for moment in MOMENTS:
                self.waiting.mark(DIGEST)
                self.disk.keep(DATA)
                dying = RecordingFiles(death=(number, moment))
                try:
                    Waiting(dying, Layout(self.disk.root)).finish(DIGEST)
                except Killed:
                    there = self.disk.read(DIGEST) is not None
                    ends.add((there, bool(self.waiting.marks())))
                dying.bury()
        self.assertEqual(ends, {(True, True), (False, True), (False, False)})
