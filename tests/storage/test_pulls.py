"""Pulls over a disk that fails (issue F): the body is right, upstream saw one GET, one log line says what happened."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from tests.doubles import FakeRegistry, FakeResponse, FakeSink, FakeUpstream, InlineWorkers
from tests.soundness import assert_nothing_open, assert_store_sound
from tests.storage.disks import PATIENCE_S, Disk, Outcome
from txociproxy.assembly import CoreRules, assemble
from txociproxy.bodies.reader import Reader
from txociproxy.interfaces import Ask, Pull, Serve
from txociproxy.modes import Transparent
from txociproxy.oci.accept import EVERYTHING
from txociproxy.oci.names import Digest, Repository

CHUNK_BYTES = 64 * 1024
CHUNKS = 48
DATA = b"".join(n.to_bytes(4, "big") * (CHUNK_BYTES // 4) for n in range(CHUNKS))
DIGEST = Digest.of(DATA)
GET = f"GET library/alpine {DIGEST}"
ERRORS = (errno.EROFS, errno.EACCES, errno.ENOSPC, errno.EIO)
COMMIT_STEPS = ("fsync spool", "make directory", "write new sidecar", "fsync new sidecar", "rename content")
LONG_S = 61.0  # longer than any wait for a disk


class Scene:
    """A core over a disk, and a client that has begun to pull a blob."""

    def __init__(self, root: Path) -> None:
        self.disk = Disk(root)
        self.disk.storage.prepare("transparent")
        self.response = FakeResponse(length=len(DATA), ends=False)
        self.upstream = FakeUpstream("docker.io", lambda _: self.response)
        self.core = assemble(
            self.disk.storage,
            Transparent(),
            FakeRegistry({"docker.io": self.upstream}),
            InlineWorkers(),
            self.disk.clock,
            lambda: self.disk.now_s,
            CoreRules(),
        )
        self.sink = FakeSink()
        self.hangs = False
        self.sent = 0

    def work(self) -> None:
        """Let the disk work, if it does."""
        if not self.hangs:
            self.disk.work()

    def ask(self) -> Outcome:
        """Ask for the blob."""
        pull = Pull("docker.io", Repository("library/alpine"), DIGEST, "blob", EVERYTHING)
        return Outcome(self.core.cache.pull(Ask("GET", pull)))

    def begin(self) -> Serve:
        """Pull, and give the body to the client."""
        outcome = self.ask()
        self.work()
        if not outcome.ended:
            self.disk.clock.advance(PATIENCE_S)
        serve = outcome.value
        assert isinstance(serve, Serve), outcome
        assert serve.body is not None
        Reader(serve.body, 0, None, self.sink, self.disk.clock, 60.0).start()
        return serve

    def send(self, until: int) -> None:
        """Let upstream send chunks up to this number."""
        for number in range(self.sent, until):
            self.response.send(DATA[number * CHUNK_BYTES : (number + 1) * CHUNK_BYTES])
            self.work()
        self.sent = until
        if until == CHUNKS:
            self.response.end()

    def wait(self) -> None:
        """Let every wait for the disk end."""
        for _ in range(int(LONG_S)):
            self.disk.clock.advance(1.0)
            self.work()


class PullsTests(SynchronousTestCase):
    """Every fault, at every point."""

    def setUp(self) -> None:
        """Listen to the log."""
        self.lines: list[str] = []

        @implementer(ILogObserver)
        def observe(event: LogEvent) -> None:
            if event["log_level"] not in (LogLevel.debug, LogLevel.info):
                self.lines.append(formatEvent(event))

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)

    def scene(self) -> Scene:
        """Return a fresh one."""
        scene = Scene(Path(self.mktemp()))
        self.addCleanup(scene.disk.files.bury)
        self.lines.clear()
        return scene

    def assert_served(self, scene: Scene, *reasons: str) -> None:
        """The client has everything, upstream saw one GET, and the log says once why nothing is kept."""
        self.assertEqual(scene.sink.ending, "finished")
        self.assertTrue(bytes(scene.sink.written) == DATA, "wrong bytes")
        self.assertEqual(scene.upstream.seen, [GET])
        self.assertEqual(len(self.lines), 1, self.lines)
        for reason in (*reasons, "unkept"):
            self.assertIn(reason, self.lines[0])

    def assert_clean(self, scene: Scene) -> None:
        """When the disk works again nothing is left of it, and the next pull is a download."""
        scene.hangs = False
        scene.disk.files.faults.clear()
        scene.work()
        assert_nothing_open(scene.disk.root)
        assert_store_sound(scene.disk.root, is_at_rest=True)
        self.assertEqual(scene.disk.files.foreign, [])
        self.assertEqual(scene.core.ingests.running, {})
        self.assertIn(scene.disk.read(DIGEST), (None, DATA))

    def each_error(self, run: Callable[[Scene, OSError], Any]) -> None:
        """Do it with each error, on a disk of its own."""
        for number in ERRORS:
            scene = self.scene()
            run(scene, OSError(number, os.strerror(number)))
            self.assert_served(scene, os.strerror(number), str(DIGEST))
            self.assert_clean(scene)

    def test_a_disk_that_works_keeps_the_blob(self) -> None:
        """The measure for all others: no line, and the second pull is a hit."""
        scene = self.scene()
        scene.begin()
        scene.send(CHUNKS)
        self.assertEqual((scene.sink.ending, self.lines), ("finished", []))
        self.assertEqual(scene.disk.read(DIGEST), DATA)
        again = scene.ask()
        scene.work()
        self.assertEqual((again.value.outcome, scene.upstream.seen), ("hit", [GET]))
        again.value.body.close()
        self.assert_clean(scene)

    def test_a_spool_that_cannot_be_made(self) -> None:
        """At 0 %."""

        def run(scene: Scene, error: OSError) -> None:
            scene.disk.files.faults["create spool"] = error
            scene.begin()
            scene.send(CHUNKS)

        self.each_error(run)

    def test_a_write_that_fails(self) -> None:
        """At 0 % and at 50 %."""
        for share in (0, CHUNKS // 2):

            def run(scene: Scene, error: OSError, share: int = share) -> None:
                scene.begin()
                scene.send(share)
                scene.disk.files.faults["write spool"] = error
                scene.send(CHUNKS)

            self.each_error(run)

    def test_a_commit_that_fails(self) -> None:
        """In fsync, sidecar and rename."""
        for step in COMMIT_STEPS:

            def run(scene: Scene, error: OSError, step: str = step) -> None:
                scene.begin()
                scene.disk.files.faults[step] = error
                scene.send(CHUNKS)

            self.each_error(run)

    def test_a_write_that_never_returns(self) -> None:
        """At 0 % and at 50 %: nobody waits for it; when it returns after all, nothing is left."""
        for share in (0, CHUNKS // 2):
            scene = self.scene()
            scene.begin()
            scene.send(share)
            scene.hangs = True
            scene.send(CHUNKS)
            self.assertEqual(scene.sink.ending, "finished")
            scene.wait()
            self.assert_served(scene, str(DIGEST), "no progress")
            self.assert_clean(scene)

    def test_a_commit_that_never_returns(self) -> None:
        """The client has had its bytes before, and what is published late is right."""
        scene = self.scene()
        scene.begin()
        scene.send(CHUNKS - 1)
        self.assertIsNone(scene.sink.ending)
        scene.response.send(DATA[-CHUNK_BYTES:])
        scene.disk.workers.work(1)  # the last write; its commit hangs
        scene.hangs = True
        self.assertEqual(scene.sink.ending, "finished")
        scene.response.end()
        scene.wait()
        self.assert_served(scene, str(DIGEST), "publishing took more than")
        self.assert_clean(scene)

    def test_a_disk_that_hangs_from_the_start(self) -> None:
        """Nothing can be told and nothing kept: upstream is asked as if nothing were there."""
        scene = self.scene()
        scene.hangs = True
        scene.begin()
        scene.send(CHUNKS)
        scene.wait()
        self.assert_served(scene, str(DIGEST))
        self.assert_clean(scene)

    def test_a_disk_whose_threads_are_all_stuck(self) -> None:
        """It is not asked at all; nobody waits, and the pull says that it goes past the storage."""
        scene = self.scene()
        scene.disk.workers.is_stuck = True
        serve = scene.begin()
        self.assertEqual((serve.outcome, scene.disk.clock.seconds()), ("bypass", 0.0))
        scene.send(CHUNKS)
        self.assert_served(scene, "the disk does not answer")
        scene.disk.workers.is_stuck = False
        self.assert_clean(scene)
