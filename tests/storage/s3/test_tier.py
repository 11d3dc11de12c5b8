"""The tier: what stays on the local disk, within its bound, and what stands behind it in the bucket."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from tests.storage.disks import Disk
from txociproxy.oci.names import Descriptor, Digest
from txociproxy.storage.s3.gate import Gate
from txociproxy.storage.s3.tier import ASKS_AT_ONCE, DAY_S, MAKE_ROOM_EVERY_S, MAX_SEEN, Backing, Tier
from txociproxy.storage.s3.trouble import S3Trouble
from txociproxy.storage.trimming import pieces, size_of, trim

KIB = 1024
NAMESPACE = "docker.io"


class TierCase(SynchronousTestCase):
    """A local disk."""

    def setUp(self) -> None:
        """An empty root."""
        self.disk = Disk(Path(self.mktemp()))
        self.disk.storage.prepare("transparent")
        self.addCleanup(self.disk.files.bury)
        self.waiting: set[Digest] = set()

    def keep(self, number: int, used_s: float, size_bytes: int = KIB, held: bool = False) -> Digest:
        """Keep content that was used last at this time."""
        digest = self.disk.keep(bytes([number]) * size_bytes, held=held)
        os.utime(self.disk.layout.content(digest, held), (used_s, used_s))
        return digest

    def left(self) -> set[Digest]:
        """Return what is there."""
        return {piece.digest for piece in pieces(self.disk.files, self.disk.layout)}

    def trim(self, max_bytes: int, target_bytes: int) -> tuple[int, int]:
        """Trim now."""
        return trim(self.disk.files, self.disk.layout, max_bytes, target_bytes, self.waiting.__contains__)


class TrimmingTests(TierCase):
    """What goes, and what stays."""

    def test_what_was_used_longest_ago_goes_first(self) -> None:
        """Until no more is left than was wanted; with its sidecar."""
        digests = [self.keep(number, 1000.0 - number) for number in range(5)]
        self.assertEqual(self.trim(4 * KIB, 3 * KIB), (3 * KIB, 2))
        self.assertEqual(self.left(), set(digests[:3]))
        for digest in digests[3:]:
            self.assertFalse(self.disk.layout.sidecar(digest).exists())

    def test_nothing_goes_while_it_fits(self) -> None:
        """To the byte."""
        digests = {self.keep(number, number) for number in range(4)}
        self.assertEqual(self.trim(4 * KIB, 0), (4 * KIB, 0))
        self.assertEqual(self.left(), digests)

    def test_what_waits_for_its_upload_is_neither_removed_nor_counted(self) -> None:
        """It has a bound of its own."""
        self.waiting = {self.keep(0, 1.0)}
        newer = {self.keep(number, 10.0 + number) for number in range(1, 3)}
        self.assertEqual(self.trim(2 * KIB, KIB), (2 * KIB, 0))
        self.assertEqual(self.left(), newer | self.waiting)
        self.assertEqual(self.trim(KIB, 0), (0, 2))
        self.assertEqual(self.left(), self.waiting)

    def test_what_is_wanted_at_the_last_moment_stays(self) -> None:
        """A commit began after the list was made: it is asked about once more, under the directory's lock."""
        digest = self.keep(0, 1.0)
        answers = [False, True]
        left = trim(self.disk.files, self.disk.layout, 0, 0, lambda _: answers.pop(0))
        self.assertEqual(self.disk.files.operations[-2:], ["lock directory", "close directory"])
        self.assertEqual((left, self.left()), ((0, 0), {digest}))

    def test_held_content_goes_without_the_open_one_beside_it(self) -> None:
        """Each by its own age."""
        held = self.keep(0, 1.0, held=True)
        spare = self.disk.layout.content(held, held=True).read_bytes()
        open_one = self.keep(0, 5.0)
        self.disk.layout.content(held, held=True).write_bytes(spare)
        os.utime(self.disk.layout.content(held, held=True), (1.0, 1.0))
        self.assertEqual(size_of(self.disk.files, self.disk.layout, held), 2 * KIB)
        self.assertEqual(self.trim(KIB, KIB), (KIB, 1))
        self.assertEqual((held, self.left()), (open_one, {open_one}))
        self.assertEqual(self.disk.read(open_one), bytes(KIB))

    def test_what_is_no_content_is_left_alone(self) -> None:
        """Files of other people."""
        digest = self.keep(0, 1.0)
        stray = self.disk.layout.content(digest).with_name("notes.txt")
        stray.write_bytes(b"mine")
        self.trim(0, 0)
        self.assertEqual((self.left(), stray.read_bytes()), (set(), b"mine"))

    def test_content_that_goes_meanwhile_is_no_error(self) -> None:
        """Also with its directory."""
        digest = self.keep(0, 1.0)
        directory = self.disk.layout.content(digest).parent

        def remove(_: Digest) -> bool:
            for path in directory.iterdir():
                path.unlink()
            directory.rmdir()
            return False

        self.assertEqual(trim(self.disk.files, self.disk.layout, 0, 0, remove), (0, 0))


class BoundTests(TierCase):
    """When it is trimmed."""

    def setUp(self) -> None:
        """A tier of ten KiB."""
        super().setUp()
        self.tier = self.make(10 * KIB)

    def make(self, max_bytes: int) -> Tier:
        """Make one over the disk."""
        disk = self.disk
        return Tier(disk.files, disk.layout, disk.workers, max_bytes, self.waiting.__contains__, disk.clock)

    def grow(self, count: int) -> None:
        """Let content come to stay; the threads have not worked yet."""
        before = len(self.left())
        for number in range(before, before + count):
            self.keep(number, 100.0 + number)
            self.tier.grew(KIB)

    def test_it_is_trimmed_to_nine_tenths_when_it_is_too_much(self) -> None:
        """And not before; the count is exact then."""
        self.grow(10)
        self.assertEqual((self.disk.workers.jobs, self.tier.used_bytes), ([], 10 * KIB))
        self.grow(1)
        self.disk.work()
        self.assertEqual((self.tier.used_bytes, len(self.left())), (9 * KIB, 9))

    def test_a_fresh_process_counts_what_is_there(self) -> None:
        """And trims it, if there is too much."""
        self.grow(8)
        fresh = self.make(10 * KIB)
        fresh.start()
        self.disk.work()
        self.assertEqual(fresh.used_bytes, 8 * KIB)
        smaller = self.make(4 * KIB)
        smaller.start()
        self.disk.work()
        self.assertEqual((smaller.used_bytes, len(self.left())), (3 * KIB, 3))

    def test_one_look_runs_at_a_time_and_what_comes_meanwhile_is_counted(self) -> None:
        """So that the bound holds after the next look."""
        self.tier.start()
        for number in range(12):
            self.tier.grew(KIB)
            self.assertEqual(len(self.disk.workers.jobs), 1, number)
        self.disk.work()
        self.assertEqual(self.tier.used_bytes, 0)  # nothing was there: what was said to have come has gone

    def test_one_that_is_off_takes_nothing_and_looks_at_nothing(self) -> None:
        """Its bound is 0."""
        tier = self.make(0)
        tier.start()
        self.assertEqual((tier.is_on, tier.takes(0), self.disk.workers.jobs), (False, False, []))

    def test_content_that_would_drive_out_all_others_does_not_stay(self) -> None:
        """It is larger than what a trim leaves."""
        self.assertEqual([self.tier.takes(size) for size in (0, 9 * KIB, 9 * KIB + 1)], [True, True, False])

    def test_room_is_made_by_a_tenth_or_as_much_as_is_wanted_but_never_more_than_half(self) -> None:
        """And not again before the disk was looked at anew."""
        self.grow(10)
        for wanted_bytes, left in ((0, 9), (3 * KIB, 6), (100 * KIB, 3)):
            self.tier.make_room(wanted_bytes)
            self.disk.work()
            self.assertEqual((len(self.left()), self.tier.used_bytes), (left, left * KIB))
            self.disk.clock.advance(MAKE_ROOM_EVERY_S - 0.1)
            self.tier.make_room(wanted_bytes)
            self.assertEqual(self.disk.workers.jobs, [])
            self.disk.clock.advance(0.1)

    def test_one_that_was_never_counted_is_counted_and_loses_nothing(self) -> None:
        """Nor does one make room that is off, or is being trimmed."""
        self.grow(5)
        fresh, off = self.make(10 * KIB), self.make(0)
        for tier in (fresh, fresh, off):
            tier.make_room(KIB)
        self.assertEqual(len(self.disk.workers.jobs), 1)
        self.disk.work()
        self.assertEqual((fresh.used_bytes, len(self.left())), (5 * KIB, 5))

    def test_a_disk_that_fails_is_told_and_tried_again_with_the_next_content(self) -> None:
        """The owner hears of it."""
        self.disk.files.faults["unlink content"] = OSError(5, "Input/output error")
        with capturedLogs() as lines:
            self.grow(11)
            self.disk.work()
        self.assertIn("Input/output error", str(lines[-1]["reason"]))
        self.disk.files.faults.clear()
        self.grow(1)
        self.disk.work()
        self.assertEqual((self.tier.used_bytes, len(self.left())), (9 * KIB, 9))


class BackingTests(SynchronousTestCase):
    """The bucket is asked after what the tier answers for."""

    def setUp(self) -> None:
        """A bucket that has what it should."""
        self.clock = Clock()
        self.gate = Gate(self.clock, "the bucket")
        self.gate.probe = lambda: fail(S3Trouble("unreachable", "Refused", "the probe"))
        self.asked: list[tuple[Digest, str]] = []
        self.restored: list[Digest] = []
        self.answer: object = "found"
        self.hanging: list[Deferred[object]] | None = None
        self.backing = self.make(28)

    def make(self, days: int) -> Backing:
        """Make one for a lifecycle."""
        return Backing(self.find, self.restore, self.gate, self.clock, days)

    async def find(self, digest: Digest, namespace: str) -> object:
        """Answer as the test says."""
        self.asked.append((digest, namespace))
        if self.hanging is not None:
            d: Deferred[object] = Deferred()
            self.hanging.append(d)
            return await d
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    async def restore(self, descriptor: Descriptor) -> None:
        """Remember it."""
        self.restored.append(descriptor.digest)

    def use(self, number: int = 0) -> Digest:
        """Let the tier answer."""
        digest = Digest.of(str(number).encode())
        self.backing.used(Descriptor(digest, 5, "a/a"), NAMESPACE)
        return digest

    def test_the_bucket_is_asked_once_a_quarter_of_the_lifecycle(self) -> None:
        """However often it is used; which renews what is old there."""
        digest = self.use()
        self.use()
        self.clock.advance(7 * DAY_S - 1)
        self.use()
        self.assertEqual(self.asked, [(digest, NAMESPACE)])
        self.clock.advance(1)
        self.use()
        self.assertEqual((len(self.asked), self.restored), (2, []))

    def test_what_was_just_met_there_is_not_asked_after(self) -> None:
        """Found, filled, uploaded."""
        self.backing.seen(Digest.of(b"0"))
        self.use()
        self.assertEqual(self.asked, [])

    def test_what_the_bucket_has_lost_is_brought_again(self) -> None:
        """Once: it is asked after again when that is due."""
        self.answer = None
        digest = self.use()
        self.use()
        self.assertEqual(self.restored, [digest])

    def test_trouble_is_no_loss(self) -> None:
        """The next use asks again."""
        self.answer = S3Trouble("failing", "SlowDown", "HEAD")
        self.use()
        self.use()
        self.assertEqual((len(self.asked), self.restored), (2, []))

    def test_nothing_is_asked_during_an_outage_or_without_a_lifecycle(self) -> None:
        """Hits stay hits."""
        self.backing = self.make(0)
        self.use()
        self.backing = self.make(28)
        self.gate.failed(S3Trouble("unreachable", "Refused", "HEAD"))
        self.use()
        self.assertEqual(self.asked, [])

    def test_a_few_are_asked_after_at_once_and_each_once(self) -> None:
        """The others have their turn with a later use."""
        self.hanging = []
        for number in range(ASKS_AT_ONCE + 3):
            self.use(number)
            self.use(number)
        self.assertEqual(len(self.asked), ASKS_AT_ONCE)
        self.hanging[0].callback("found")
        self.use(ASKS_AT_ONCE)
        self.assertEqual(len(self.asked), ASKS_AT_ONCE + 1)

    def test_what_is_remembered_is_bounded(self) -> None:
        """What was put in first makes room."""
        for number in range(MAX_SEEN + 5):
            self.use(number)
        self.assertEqual(len(self.backing._seen_s), MAX_SEEN)

    def test_what_nobody_expects_is_logged(self) -> None:
        """And hurts no hit."""
        self.answer = ValueError("broken")
        self.use()
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
