"""Held content and death: whatever is killed and when, nobody sees too much, and nobody less than before (RULES D3)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.soundness import assert_nothing_open, assert_store_sound
from tests.storage.disks import Disk
from tests.storage.recording import MOMENTS, Moment, MortalWorkers, RecordingFiles
from txociproxy.oci.names import Digest

DATA = bytes(range(256)) * 12
DIGEST = Digest.of(DATA)
A, B, C = "docker.io", "ghcr.io", "quay.io"
ALL = {A, B, C}
Seen = set[str]
Story = Callable[[Disk], object]


def hold(namespace: str) -> Story:
    """Keep it for a namespace."""
    return lambda disk: disk.keep(DATA, namespace, held=True)


def open_up(disk: Disk) -> None:
    """Keep it for all."""
    disk.keep(DATA, C)


def remove(disk: Disk) -> None:
    """Remove it."""
    disk.storage.remove(DIGEST)
    disk.work()


def leave_a_sidecar_that_holds(disk: Disk) -> None:
    """Leave what a removal leaves that died half way."""
    hold(A)(disk)
    disk.layout.content(DIGEST, held=True).unlink()


def leave_a_sidecar_that_opens(disk: Disk) -> None:
    """Leave what a removal leaves that died half way."""
    open_up(disk)
    disk.layout.content(DIGEST).unlink()


def leave_both(disk: Disk) -> None:
    """Leave what an opening leaves that died half way."""
    hold(A)(disk)
    spare = {path: path.read_bytes() for held in (True,) for path in paths(disk, held)}
    open_up(disk)
    for path, data in spare.items():
        path.write_bytes(data)


def paths(disk: Disk, held: bool) -> tuple[Path, Path]:
    """Return where content and sidecar lie."""
    return disk.layout.content(DIGEST, held), disk.layout.sidecar(DIGEST, held)


# What was there before, and who saw it.
BEFORE: tuple[tuple[Story, Seen], ...] = (
    (lambda disk: None, set()),
    (leave_a_sidecar_that_holds, set()),
    (leave_a_sidecar_that_opens, set()),
    (hold(A), {A}),
    (open_up, ALL),
    (leave_both, ALL),
)


class HeldDeathTests(SynchronousTestCase):
    """Every story before, every act after it, killed before, during and after every operation of the act."""

    def disk(self, root: Path) -> Disk:
        """Return a process that works."""
        return Disk(root, files=RecordingFiles(reaches_medium=False))

    def root(self, before: Story) -> Path:
        """Return a root with a story."""
        disk = self.disk(Path(self.mktemp()))
        disk.storage.prepare("transparent")
        before(disk)
        disk.files.bury()
        return disk.root

    def life(self, root: Path, act: Story, death: tuple[int, Moment] | None = None) -> Disk:
        """Live through an act, as far as it goes."""
        files = RecordingFiles(death=death, watches_power=True, reaches_medium=False)
        disk = Disk(root, MortalWorkers(), files=files)
        try:
            act(disk)
        except AssertionError:
            self.assertTrue(disk.files.is_dead)
        return disk

    def deaths(self, before: Story, act: Story) -> Iterator[tuple[int, Moment]]:
        """Give every operation of the act, and every moment of it."""
        disk = self.life(self.root(before), act)
        disk.files.bury()
        count = len(disk.files.operations)
        self.assertGreater(count, 3)
        return ((number, moment) for number in range(count) for moment in MOMENTS)

    def seen(self, root: Path) -> Seen:
        """Return who sees the content, in the next process."""
        disk = self.disk(root)
        disk.storage.prepare("transparent")
        assert_store_sound(root, is_at_rest=True)
        found = {namespace: disk.read(DIGEST, namespace) for namespace in sorted(ALL)}
        self.assertLessEqual(set(found.values()), {None, DATA})
        assert_nothing_open(root)
        return {namespace for namespace, data in found.items() if data is not None}

    def each_end(self, before: Story, act: Story) -> list[Seen]:
        """Return who sees it after every death, with the power on and lost; the next commits find their way."""
        ends = []
        for death in self.deaths(before, act):
            for power_is_lost in (False, True):
                root = self.root(before)
                disk = self.life(root, act, death)
                self.assertTrue(disk.files.is_dead)
                disk.files.bury(power_is_lost)
                ends.append(self.seen(root))
                hold(C)(self.disk(root))
                self.assertEqual(self.seen(root), ends[-1] | {C}, f"killed at {death} {disk.files.operations}")
                assert_store_sound(root, is_at_rest=True)
        return ends

    def test_a_commit_that_dies_leaves_the_old_or_the_new(self) -> None:
        """Nobody sees it before its rename who did not see it before, and nobody ever loses it."""
        acts: tuple[tuple[Story, Seen], ...] = ((hold(B), {B}), (open_up, ALL))
        for before, saw in BEFORE:
            for act, will_see in acts:
                ends = self.each_end(before, act)
                for end in ends:
                    self.assertIn(end, (saw, saw | will_see))
                self.assertEqual(ends, sorted(ends, key=len))
                self.assertEqual({frozenset(end) for end in ends}, {frozenset(saw), frozenset(saw | will_see)})

    def test_a_removal_that_dies_shows_it_to_nobody_new(self) -> None:
        """Those who saw it see it, or nobody does, or those for whom it was held before it was opened."""
        for before, saw in BEFORE[3:]:
            ends = self.each_end(before, remove)
            for end in ends:
                self.assertIn(end, (saw, {A} & saw, set()))
            self.assertEqual(ends, sorted(ends, key=len, reverse=True))
            self.assertIn(set(), ends)
