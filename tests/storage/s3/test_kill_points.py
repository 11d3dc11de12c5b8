"""Killed at every step from the mark to its removal, and a next process over the same root and bucket goes on.

Nothing wrong is ever findable, nobody sees what he may not see (RULES D3), nothing that was committed is lost, and in
the end the bucket has it all and the local root is empty.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.soundness import assert_nothing_open, assert_store_sound
from tests.storage.disks import BLOB_TYPE, Disk, Outcome
from tests.storage.recording import Killed, Moment, MortalWorkers, RecordingFiles
from tests.storage.s3.mortal import MortalBucket
from tests.storage.s3.server import Fresh, fresh
from txociproxy.oci.names import Descriptor, Digest
from txociproxy.storage.s3.budget import Budget
from txociproxy.storage.s3.gate import Gate
from txociproxy.storage.s3.publishing import publish
from txociproxy.storage.s3.spool import S3Spool
from txociproxy.storage.s3.uploads import Uploads
from txociproxy.storage.s3.waiting import Waiting

DATA = bytes(range(256)) * 12
DIGEST = Digest.of(DATA)
A, B, C = "docker.io", "ghcr.io", "quay.io"
ALL = frozenset({A, B, C})
Seen = frozenset[str]
LOOKS = ("close", "fsync directory", "get", "head", "lock", "look", "measure", "open", "read")


@define(eq=False)
class Process:
    """One process over a root and a bucket, which may be killed."""

    root: Path
    s3: Fresh
    death: tuple[int, Moment] | None = None
    disk: Disk = field(init=False)
    waiting: Waiting = field(init=False)
    uploads: Uploads = field(init=False)
    budget: Budget = field(init=False)

    def __attrs_post_init__(self) -> None:
        files = RecordingFiles(reaches_medium=False, watches_power=True)
        self.disk = Disk(self.root, MortalWorkers(), files=files)
        self.disk.storage.prepare("transparent")
        files.operations.clear()
        files.death = self.death
        self.waiting = Waiting(files, self.disk.layout)
        workers, clock = self.disk.workers, Clock()
        self.uploads = Uploads(self.publish, self.done, workers, Gate(clock, "the bucket"), clock)
        self.budget = Budget(1 << 20, self.uploads, clock)

    def publish(self, digest: Digest, is_cancelled: Callable[[], bool]) -> None:
        """Bring it into the bucket."""
        files = self.disk.files
        publish(MortalBucket(self.s3, files), self.s3.keys, files, self.disk.layout, digest, is_cancelled)

    def done(self, digest: Digest) -> Deferred[None]:
        """Remove the local copy."""
        return cast("Deferred[None]", self.disk.workers.run(self.waiting.finish, digest))

    def commit(self, namespace: str, held: bool) -> Outcome:
        """Keep content locally; says how that ended, if it has."""
        spool = S3Spool(
            self.disk.storage.open_spool(DIGEST, len(DATA)),
            *(len(DATA), self.waiting, self.uploads, self.budget, self.disk.workers),
        )
        spool.write(DATA)
        outcome = Outcome(spool.commit(Descriptor(DIGEST, len(DATA), BLOB_TYPE), (), namespace, held))
        self.disk.work()
        spool.close()
        self.disk.work()
        return outcome

    def upload(self) -> None:
        """Let uploads run to their end."""
        self.uploads.start()
        self.disk.work()

    def resume(self) -> None:
        """Take up what an earlier process has left, and upload it."""
        for digest, size_bytes in self.waiting.sizes():
            self.uploads.add(digest, size_bytes)
        self.upload()


Act = Callable[[Process], Outcome]


def hold(process: Process) -> Outcome:
    """Keep it for one more namespace."""
    return process.commit(B, held=True)


def open_up(process: Process) -> Outcome:
    """Keep it for all."""
    return process.commit(C, held=False)


def nothing(_: Process) -> None:
    """Nobody has it."""


def held_here(process: Process) -> None:
    """It waits for its upload, held."""
    process.commit(A, held=True)


def open_here(process: Process) -> None:
    """It waits for its upload, open."""
    process.commit(A, held=False)


def held_there(process: Process) -> None:
    """It is in the bucket, held."""
    held_here(process)
    process.upload()


def open_there(process: Process) -> None:
    """It is in the bucket, open."""
    open_here(process)
    process.upload()


def a_sidecar_that_holds(process: Process) -> None:
    """A removal from the bucket died half way: that sidecar counts for nothing."""
    held_there(process)
    process.s3.client.delete_object(Bucket=process.s3.bucket.name, Key=process.s3.keys.content(DIGEST, held=True))


BEFORE: tuple[tuple[Callable[[Process], None], Seen], ...] = (
    (nothing, frozenset()),
    (a_sidecar_that_holds, frozenset()),
    (held_here, frozenset({A})),
    (held_there, frozenset({A})),
    (open_here, ALL),
    (open_there, ALL),
)


@define(eq=False)
class World:
    """A root and a bucket as they were, to begin from again and again."""

    s3: Fresh
    root: Path
    objects: dict[str, bytes] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.objects = objects(self.s3)

    def again(self, root: Path) -> Path:
        """Bring the bucket back, and a copy of the root."""
        client, bucket = self.s3.client, self.s3.bucket.name
        wipe(self.s3)
        for key, data in self.objects.items():
            client.put_object(Bucket=bucket, Key=key, Body=data)
        shutil.copytree(self.root, root)
        return root


def wipe(s3: Fresh) -> None:
    """Empty the bucket."""
    names = s3.names()
    if names:
        s3.client.delete_objects(Bucket=s3.bucket.name, Delete={"Objects": [{"Key": name} for name in names]})


def objects(s3: Fresh) -> dict[str, bytes]:
    """Return all that is in the bucket."""
    found = {}
    for key in s3.names():
        body = s3.client.get_object(Bucket=s3.bucket.name, Key=key)["Body"]
        found[key] = body.read()
        body.close()
    return found


def seen_there(s3: Fresh, there: dict[str, bytes]) -> Seen:
    """Return who finds it in the bucket, by the rules that readers keep; wrong bytes are found by nobody."""
    keys = s3.keys
    seen: set[str] = set()
    for held in (False, True):
        sidecar = json.loads(there.get(keys.sidecar(DIGEST, held), b"{}"))
        data = there.get(keys.content(DIGEST, held))
        assert data in (None, DATA), "wrong bytes are in the bucket"
        assert sidecar.get("size_bytes") in (None, len(DATA)), "a sidecar hides what is right"
        if data is not None:
            seen |= set(sidecar.get("held") or ()) if held else ALL
    return frozenset(seen)


class KillPointTests(SynchronousTestCase):
    """Every story before, every act after it, every step of it."""

    def setUp(self) -> None:
        """One bucket for all of a test."""
        self.s3 = fresh()

    def root(self) -> Path:
        """Return where a root may be."""
        return Path(self.mktemp())

    def world(self, before: Callable[[Process], None]) -> World:
        """Tell a story up to its act."""
        wipe(self.s3)
        process = Process(self.root(), self.s3)
        before(process)
        process.disk.files.bury()
        return World(self.s3, process.root)

    def live(self, root: Path, act: Act, death: tuple[int, Moment] | None = None) -> tuple[Process, Outcome | None]:
        """Live through an act and its upload, as far as it goes."""
        process = Process(root, self.s3, death)
        outcome = None
        try:
            outcome = act(process)
            process.upload()
        except Killed:
            pass  # in the reactor's own thread
        return process, outcome

    def deaths(self, world: World, act: Act) -> Iterator[tuple[int, Moment]]:
        """Give all steps from the mark on that change anything; killed after one is killed before the next."""
        process, _ = self.live(world.again(self.root()), act)
        self.assertFalse(process.disk.files.is_dead)
        process.disk.files.bury()
        steps = process.disk.files.operations
        first = steps.index("create content")  # the mark
        for number, step in enumerate(steps[first:], first):
            if not step.startswith(LOOKS):
                yield number, "before"
            if step in ("put s3 content", "put s3 held content"):
                yield number, "during"
        yield len(steps) - 1, "after"

    def seen(self, root: Path) -> tuple[Seen, Seen]:
        """Return who finds it in the bucket, and who here."""
        disk = Disk(root, files=RecordingFiles(reaches_medium=False))
        here = {namespace: disk.read(DIGEST, namespace) for namespace in sorted(ALL)}
        self.assertLessEqual(set(here.values()), {None, DATA})
        found = frozenset(namespace for namespace, data in here.items() if data is not None)
        return seen_there(self.s3, objects(self.s3)), found

    def assert_worked_off(self, root: Path) -> Seen:
        """A new process uploads all there is and leaves nothing here; returns who finds it then."""
        process = Process(root, self.s3)
        process.resume()
        assert_nothing_open(root)
        left = [path for path in root.rglob("*") if not path.is_dir() and path != process.disk.layout.marker]
        self.assertEqual(left, [])
        self.assertEqual((process.uploads.waiting, process.budget.used_bytes), (0, 0))
        there = objects(self.s3)
        for key in there:
            if key.endswith((DIGEST.hex, ".held")):
                self.assertIn(f"{key}.meta.json", there)
        return seen_there(self.s3, there)

    def assert_survives(self, world: World, act: Act, death: tuple[int, Moment], saw: Seen, will: Seen) -> bool:
        """Whatever the last process left is right, and the next one makes it whole; says whether the act came true."""
        root = world.again(self.root())
        process, outcome = self.live(root, act, death)
        self.assertTrue(process.disk.files.is_dead, f"{death}")
        story = f"killed at {death} {process.disk.files.operations}"
        process.disk.files.bury(power_is_lost=death[0] % 2 == 0)
        there, here = self.seen(root)
        self.assertIn(there | here, (saw, saw | will), story)
        ended = self.assert_worked_off(root)
        self.assertEqual(ended, there | here, story)
        if outcome is not None and outcome.ended and outcome.error is None:
            self.assertEqual(ended, saw | will, story)
        assert_store_sound(root, is_at_rest=True)
        return ended == saw | will

    def assert_all_survive(self, before: Callable[[Process], None], saw: Seen) -> None:
        """Both acts, all deaths."""
        for act, will in ((hold, frozenset({B})), (open_up, ALL)):
            world = self.world(before)
            ends = [self.assert_survives(world, act, death, saw, will) for death in self.deaths(world, act)]
            self.assertGreater(len(ends), 10)
            self.assertEqual(ends, sorted(ends), "what came true stays true")
            self.assertTrue(ends[-1])

    def test_killed_anywhere_where_nobody_has_it(self) -> None:
        """It survives."""
        self.assert_all_survive(*BEFORE[0])

    def test_killed_anywhere_where_a_sidecar_that_holds_is_left(self) -> None:
        """It survives."""
        self.assert_all_survive(*BEFORE[1])

    def test_killed_anywhere_where_it_waits_here_held(self) -> None:
        """It survives."""
        self.assert_all_survive(*BEFORE[2])

    def test_killed_anywhere_where_it_is_held_in_the_bucket(self) -> None:
        """It survives."""
        self.assert_all_survive(*BEFORE[3])

    def test_killed_anywhere_where_it_waits_here_open(self) -> None:
        """It survives."""
        self.assert_all_survive(*BEFORE[4])

    def test_killed_anywhere_where_it_is_open_in_the_bucket(self) -> None:
        """It survives."""
        self.assert_all_survive(*BEFORE[5])

    def test_two_deaths_in_a_row_are_survived_as_one_is(self) -> None:
        """The process that goes on is killed as well, wherever it is; the third one finds its way."""
        world = self.world(held_there)
        first, _ = self.live(world.again(self.root()), open_up)
        first.disk.files.bury()
        at = first.disk.files.operations.index("put s3 sidecar")
        for number in range(200):
            root = world.again(self.root())
            self.live(root, open_up, (at, "after"))[0].disk.files.bury()
            second = Process(root, self.s3, (number, "before"))
            with contextlib.suppress(Killed):
                second.resume()
            was_killed = second.disk.files.is_dead
            second.disk.files.bury()
            self.assertEqual(frozenset.union(*self.seen(root)), ALL)
            self.assertEqual(self.assert_worked_off(root), ALL)
            if not was_killed:
                break
        self.assertGreater(number, 10)
