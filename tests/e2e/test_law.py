"""The law test: clients, upstream and storage do what chance wants, and no law of the core is broken.

``LAW_SECONDS`` says how long (60), ``LAW_SEED`` repeats a run, ``LAW_ROUND`` one round of it.
"""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.e2e.law_clients import KINDS
from tests.e2e.law_faults import FAULTS, GONE
from tests.e2e.law_rounds import make_round
from tests.e2e.law_upstream import noted
from tests.e2e.law_world import make_world
from tests.e2e.processes import Workshop, wait_until
from tests.e2e.scripts import MIB, Content
from tests.soundness import assert_store_sound

SECONDS = float(os.environ.get("LAW_SECONDS", "60"))
SEED = int(os.environ.get("LAW_SEED") or random.SystemRandom().randrange(1_000_000))
ONLY_ROUND = os.environ.get("LAW_ROUND")
KEPT_AT_MOST = 12
GROWN_BYTES = 64 * MIB


def descriptors(pid: int) -> int:
    """Return how many descriptors a process has open."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


class LawTests(SynchronousTestCase):
    """Every law at once, over real sockets."""

    def setUp(self) -> None:
        """Start the world."""
        self.shop = Workshop()
        self.addCleanup(self.shop.close)
        self.world = make_world(self.shop)
        self.known: dict[str, Content] = {}

    def test_no_law_is_broken_whatever_happens(self) -> None:
        """Rounds of random clients and faults, until the time is over; then everything is as it was before."""
        print(f"LAW_SEED={SEED} ", end="", flush=True)
        self.world.warm_up()
        open_before, resident_before = descriptors(self.world.proxy.pid), self.world.proxy.memory_bytes()
        self.play()
        print(f"{self.world.rounds} rounds, {self.world.answers} answers ", end="", flush=True)
        self.assertEqual(self.world.laws, [], f"LAW_SEED={SEED}")
        if ONLY_ROUND is None and SECONDS >= 60:
            self.assertEqual(self.left_out(), set(), "a run that has left out something has proven less than it says")
        self.assert_at_rest(open_before, resident_before)

    def play(self) -> None:
        """Play rounds one after another."""
        number, began_s = int(ONLY_ROUND or 0), time.monotonic()
        while not self.world.laws and not self.is_over(time.monotonic() - began_s):
            self.play_round(number)
            number += 1
            if ONLY_ROUND is not None:
                break

    def is_over(self, passed_s: float) -> bool:
        """Whether the time is over, and everything has occurred; a slow machine gets more time for that."""
        return passed_s > SECONDS and (SECONDS < 60 or passed_s > 3 * SECONDS or not self.left_out())

    def left_out(self) -> set[str]:
        """Return the kinds of clients and the faults of upstream and storage that have not occurred yet."""
        world = self.world
        faults = {str(note.fault) for note in noted(world.upstream)}
        expected = {*KINDS, *(fault.name for fault in FAULTS), *world.storage_faults}
        return expected - world.kinds - faults - world.hurt

    def play_round(self, number: int) -> None:
        """Play one round with what the storage holds of earlier ones, and keep the storage small as a sweep would."""
        turn = make_round(SEED, number, self.kept(), self.world.storage_faults)
        for subject in turn.subjects:
            self.known[subject.content.digest] = subject.content
            if subject.fault is not GONE:
                self.world.evict(subject.content)  # the smallest ones come again
        self.world.play(turn)
        for content in self.kept()[:-KEPT_AT_MOST]:
            self.world.evict(content)

    def kept(self) -> list[Content]:
        """Return what is on the disk, the oldest first."""
        paths = [path for path in (self.world.proxy.fs_root / "blobs").glob("*/*/*") if path.suffix != ".json"]
        paths.sort(key=lambda path: path.stat().st_mtime_ns)
        digests = [f"{path.parent.parent.name}:{path.name}" for path in paths]
        return [self.known[digest] for digest in digests if digest in self.known]

    def assert_at_rest(self, open_before: int, resident_before: int) -> None:
        """The proxy lives, has let go of what it had open, and its store is sound."""
        proxy = self.world.proxy
        self.assertEqual(proxy.ask("GET", "/healthz")[0], 200)
        self.world.upstream.stop()
        # What goes on for the storage alone finds that upstream is gone, and gives up.
        wait_until(lambda: not any((proxy.fs_root / "ingest").iterdir()), 20, "nothing unfinished is left")
        wait_until(lambda: descriptors(proxy.pid) <= open_before, 20, "descriptors are closed")
        self.assertLess(proxy.memory_bytes() - resident_before, GROWN_BYTES)
        assert_store_sound(proxy.fs_root, is_at_rest=True)
        self.assertNotIn("Traceback", proxy.process.log())
        self.assertEqual([line for line in proxy.lines() if line.get("level") in ("error", "critical")], [])
