"""What may still be written: ``--min-free`` (RULES G2) and the claims of unfinished content."""

from __future__ import annotations

from pathlib import Path

from twisted.logger import ILogObserver, LogEvent, LogLevel, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from tests.storage.disks import Disk
from txociproxy.interfaces import ISpool
from txociproxy.oci.errors import NoSpace
from txociproxy.oci.names import Digest

GIB = 1 << 30
DIGEST = Digest.of(b"")


class SpaceTests(SynchronousTestCase):
    """A file system of a size that the test says."""

    def setUp(self) -> None:
        """Listen to the log."""
        self.warnings: list[str] = []

        @implementer(ILogObserver)
        def observe(event: LogEvent) -> None:
            if event["log_level"] is LogLevel.warn:
                self.warnings.append(str(event["log_format"]))

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)

    def make(self, free_bytes: int, total_bytes: int, fraction: float = 0.05, floor_bytes: int = GIB) -> Disk:
        """Return a disk of this size."""
        disk = Disk(Path(self.mktemp()), min_free_fraction=fraction, min_free_bytes=floor_bytes)
        disk.storage.prepare("transparent")
        disk.files.space_bytes = (free_bytes, total_bytes)
        self.addCleanup(disk.files.bury)
        return disk

    def open(self, disk: Disk, size_bytes: int | None) -> ISpool | None:
        """Open a spool and write a byte; None if that was refused, at once or by the look in the thread."""
        try:
            spool = disk.storage.open_spool(DIGEST, size_bytes)
        except NoSpace:
            return None
        self.addCleanup(spool.close)
        spool.write(b"x")
        disk.work()
        if spool.failure is None:
            return spool
        self.assertIsInstance(spool.failure, NoSpace)
        spool.close()
        disk.work()
        return None

    def test_the_larger_of_both_floors_stays_free(self) -> None:
        """5 % of a big disk, 1 GiB of a small one, to the byte."""
        for total, floor in ((100 * GIB, 5 * GIB), (10 * GIB, GIB)):
            self.assertIsNotNone(self.open(self.make(floor + 1000, total), 1000))
            self.assertIsNone(self.open(self.make(floor + 1000, total), 1001))
            self.assertIsNone(self.open(self.make(floor - 1, total), None))

    def test_nothing_is_off(self) -> None:
        """Zero of both lets the last byte be used, and not one more."""
        self.assertIsNotNone(self.open(self.make(1000, 10 * GIB, 0, 0), 1000))
        self.assertIsNone(self.open(self.make(1000, 10 * GIB, 0, 0), 1001))

    def test_what_is_promised_to_one_is_not_promised_to_another(self) -> None:
        """The second finds its place taken until the first has gone."""
        disk = self.make(GIB + 1500, 10 * GIB)
        first = self.open(disk, 1000)
        self.assertIsNone(self.open(disk, 1000))
        assert first is not None
        first.close()
        disk.work()
        self.assertIsNotNone(self.open(disk, 1000))

    def test_of_several_at_once_the_first_ones_fit(self) -> None:
        """Two that wait for the same look do not refuse each other."""
        disk = self.make(GIB + 1500, 10 * GIB)
        spools = [disk.storage.open_spool(DIGEST, 1000) for _ in range(3)]
        for spool in spools:
            spool.write(b"x")
        disk.work()
        self.assertEqual([spool.failure is None for spool in spools], [True, False, False])
        for spool in spools:
            spool.close()
        disk.work()

    def test_what_is_written_is_no_longer_promised(self) -> None:
        """A spool that is nearly done claims only the rest."""
        disk = self.make(GIB + 1500, 10 * GIB)
        spool = disk.storage.open_spool(DIGEST, 1000)
        self.addCleanup(spool.close)
        spool.write(bytes(900))
        disk.work()
        disk.files.space_bytes = (GIB + 600, 10 * GIB)
        self.assertIsNotNone(self.open(disk, 500))
        self.assertIsNone(self.open(disk, 501))

    def test_every_claim_ends_with_its_spool(self) -> None:
        """Committed, abandoned, dead or refused."""
        disk = self.make(GIB + 1000, 10 * GIB)
        disk.keep(b"x" * 900)
        disk.begin(b"y" * 900, size_bytes=900).abandon()
        disk.work()
        self.assertIsNone(self.open(disk, 5000))
        shorter = disk.begin(b"w", size_bytes=900)
        disk.commit(shorter, b"w")
        disk.work()
        shorter.close()
        disk.files.faults["write spool"] = OSError(5, "Input/output error")
        disk.begin(b"z" * 900, size_bytes=900)
        disk.files.faults.clear()
        self.assertIsNotNone(self.open(disk, 1000))

    def test_content_of_unknown_length_looks_again_and_again(self) -> None:
        """Every 64 MiB; then the floor is kept although nothing was promised."""
        disk = self.make(2 * GIB, 10 * GIB)
        spool = disk.storage.open_spool(DIGEST, None)
        self.addCleanup(spool.close)
        disk.files.write = lambda fd, chunks, offset_bytes: sum(map(len, chunks))  # type: ignore[method-assign]
        chunk = bytes(1 << 20)
        for _ in range(64):
            spool.write(chunk)
            disk.work()
        disk.files.space_bytes = (GIB - 1, 10 * GIB)
        self.assertIsNone(spool.failure)
        spool.write(chunk)
        disk.work()
        self.assertIsInstance(spool.failure, NoSpace)

    def test_one_warning_an_hour(self) -> None:
        """However many pulls go on unkept."""
        disk = self.make(0, 10 * GIB)
        for _ in range(20):
            self.assertIsNone(self.open(disk, 10))
            disk.clock.advance(170)
        self.assertEqual(len(self.warnings), 1)
        disk.clock.advance(400)
        self.assertIsNone(self.open(disk, 10))
        self.assertEqual(len(self.warnings), 2)

    def test_a_look_is_believed_for_a_moment(self) -> None:
        """A storm on a full disk asks the disk once, and finds out soon that there is room again."""
        disk = self.make(0, 10 * GIB)
        self.assertIsNone(self.open(disk, 10))
        disk.files.space_bytes = (5 * GIB, 10 * GIB)
        looks = disk.files.operations.count("space")
        for _ in range(5):
            self.assertRaises(NoSpace, disk.storage.open_spool, DIGEST, 10)
            disk.work()
        self.assertEqual(disk.files.operations.count("space"), looks)
        disk.clock.advance(5.1)
        self.assertRaises(NoSpace, disk.storage.open_spool, DIGEST, 10)
        disk.work()
        self.assertIsNotNone(self.open(disk, 10))

    def test_the_first_look_is_at_the_start(self) -> None:
        """A process that starts on a full disk opens no spool at all."""
        disk = Disk(Path(self.mktemp()), min_free_bytes=1 << 62)
        disk.storage.prepare("transparent")
        self.assertRaises(NoSpace, disk.storage.open_spool, DIGEST, None)
        self.assertEqual((disk.workers.jobs, len(self.warnings)), ([], 1))

    def test_a_disk_that_hangs_is_looked_at_once_in_a_while(self) -> None:
        """Jobs for it do not pile up."""
        disk = self.make(0, 10 * GIB)
        self.assertIsNone(self.open(disk, 10))
        disk.clock.advance(6)
        for _ in range(5):
            self.assertRaises(NoSpace, disk.storage.open_spool, DIGEST, 10)
        self.assertEqual(len(disk.workers.jobs), 1)

    def test_a_file_system_that_does_not_tell_is_tried(self) -> None:
        """The look fails in its thread, and the spool with it; the next one looks again."""
        disk = self.make(5 * GIB, 10 * GIB)
        disk.files.faults["space"] = OSError(5, "Input/output error")
        disk.clock.advance(6)
        spool = disk.begin(b"x")
        self.assertIn("Input/output error", str(spool.failure))
        spool.close()
        disk.files.faults.clear()
        self.assertIsNotNone(self.open(disk, 10))
