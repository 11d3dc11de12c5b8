"""A property-based state machine over an Ingest and those around it.

Everything that the laws of the core allow to happen may happen here, in any order: chunks of any size, goodbyes,
answers to the question for the rest, honest and lying; spools that live, lag, hang, die; readers that join, stop, go
on, leave; hashing that is behind; time.  What must hold is checked after every step, and at the end everybody is gone.
"""

from __future__ import annotations

import errno
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from attrs import define, evolve, field
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.iweb import UNKNOWN_LENGTH

from tests.doubles import FakeResponse, ManualWorkers
from tests.ingest.scene import KIB, LIMITS, Client, Scene, ScriptedSpool, content_of, digest_of
from txociproxy.oci.errors import UpstreamUnreachable
from txociproxy.storage.files import Files
from txociproxy.storage.layout import Layout
from txociproxy.storage.space import Space
from txociproxy.storage.spool import DiskSpool

TAIL, WINDOW, OUTSTANDING, CHUNK = 2 * KIB, 16 * KIB, 64 * KIB, 40 * KIB
SMALL = evolve(LIMITS, tail_bytes=TAIL, window_bytes=WINDOW, outstanding_bytes=OUTSTANDING)
# Sampled, as integers would mostly be small ones: then nothing but the tail is ever at stake.
SIZES = st.sampled_from([20 * WINDOW + 7, 12 * WINDOW, 5 * WINDOW, 2 * WINDOW, TAIL + 1, TAIL, TAIL - 1, 1, 0])
PLACES = st.sampled_from([0, 0, 1, TAIL, WINDOW, 2 * WINDOW + 1, 4 * WINDOW, 8 * WINDOW])
COUNTS = st.sampled_from([16 * KIB, 40 * KIB, 8 * KIB, 1000, 1])
STEPS_S = st.sampled_from([0.0, 0.3, 2.0, 6.0, 31.0, 61.0])
HONEST = ("part", "part without total", "short part", "whole", "whole in chunks")
USELESS = ("elsewhere", "401", "416", "gone")
DIFFERENT = ("other tag", "other total")
LYING = ("lying part", "lying whole")


class FailingFiles(Files):
    """Files whose disk may be full from some moment on."""

    is_full = False

    def write(self, fd: int, chunks: Sequence[bytes], offset_bytes: int) -> int:
        """Write, unless full."""
        self._check()
        return super().write(fd, chunks, offset_bytes)

    def fsync(self, fd: int) -> None:
        """Sync, unless full; the real thing is too slow here."""
        self._check()

    def fsync_directory(self, path: Path) -> None:
        """Sync, unless full."""
        self._check()

    def _check(self) -> None:
        if self.is_full:
            raise OSError(errno.ENOSPC, "no space left")


@define(eq=False)
class Disk:
    """A real DiskSpool whose threads are in the test's hands."""

    size_bytes: int | None
    clock: Clock
    root: Path = field(factory=lambda: Path(tempfile.mkdtemp(prefix="machine-")))
    files: FailingFiles = field(factory=FailingFiles)
    workers: ManualWorkers = field(factory=ManualWorkers)
    spool: DiskSpool = field(init=False)

    def __attrs_post_init__(self) -> None:
        layout, space = Layout(self.root), Space(self.root, self.files, self.clock, 0.0, 0)
        self.files.make_directory(layout.ingest)
        path = layout.ingest / "one.spool"
        self.spool = DiskSpool(self.files, layout, self.workers, self.workers, space, path, self.size_bytes)

    def kept(self) -> list[bytes]:
        """Return all content that is published."""
        blobs = self.root / "blobs"
        return [path.read_bytes() for path in blobs.rglob("*") if path.is_file() and path.suffix != ".json"]


@define(eq=False)
class Follower:
    """A client, what it asked for, and whether it will ever read on."""

    client: Client
    start: int
    stop: int | None

    @property
    def is_whole(self) -> bool:
        """Whether it asked for everything, so that it must not end well with anything else."""
        return self.start == 0 and self.stop is None


class Machine(RuleBasedStateMachine):
    """The Ingest among those who make its life hard."""

    followers = Bundle("followers")

    def __init__(self) -> None:
        super().__init__()
        self.all: list[Follower] = []
        self.promises = 0
        self.is_honest = True
        self.was_useless = False
        self.is_brisk = False
        self.stream = b""
        self.disk: Disk | None = None

    @initialize(
        target=followers,
        size=SIZES,
        seed=st.integers(0, 3),
        knows_length=st.booleans(),
        storage=st.sampled_from(["none", "prompt", "by hand", "disk"]),
        lie=st.sampled_from(["", "", "", "", "", "last byte", "all", "short", "long"]),
        over_budget=st.booleans(),
        is_brisk=st.booleans(),
        promises=st.integers(0, 1),
        capacities=st.lists(st.one_of(st.none(), COUNTS), min_size=1, max_size=4),
    )
    def begin(
        self,
        size: int,
        seed: int,
        knows_length: bool,
        storage: str,
        lie: str,
        over_budget: bool,
        is_brisk: bool,
        promises: int,
        capacities: list[int | None],
    ) -> MultipleResults[Follower]:
        """The first answer is in; some clients follow, and one more was promised the body."""
        content = content_of(size, seed)
        self.stream, self.is_brisk = self.told(content, lie), is_brisk
        length = len(self.stream) if knows_length else UNKNOWN_LENGTH
        clock, self.hashers = Clock(), ManualWorkers()
        spool = ScriptedSpool(storage == "prompt") if storage in ("prompt", "by hand") else None
        self.disk = Disk(len(self.stream) if knows_length else None, clock) if storage == "disk" else None
        self.scene = Scene(
            content,
            length,
            spool=spool,
            disk=self.disk.spool if self.disk is not None else None,
            hashers=self.hashers,
            limits=SMALL,
            etag='"one"',
            over_budget=over_budget,
            by_hand=True,
            clock=clock,
        )
        self.had_spool = storage != "none"
        self.scene.ingest.promise()
        self.scene.begin()
        self.all += [Follower(self.scene.client(capacity=capacity), 0, None) for capacity in capacities]
        for _ in range(promises):
            self.promise()
        return multiple(*self.all)

    # --- the upstream

    def told(self, content: bytes, lie: str) -> bytes:
        """Return what an upstream sends in place of the content."""
        self.is_honest = self.is_honest and not lie
        if lie == "all":
            return bytes(byte ^ 0xFF for byte in content)
        if lie == "last byte":
            return content[:-1] + bytes([content[-1] ^ 0xFF]) if content else content
        return content[: len(content) // 2] if lie == "short" else content + b"more" if lie == "long" else content

    @property
    def is_open(self) -> bool:
        """Whether upstream can send."""
        response = self.scene.response
        return response.protocol is not None and not response.transport.lost

    def send(self, count: int, times: int) -> None:
        """Upstream sends chunks until it has to wait; with a brisk machine the threads keep up."""
        for _ in range(times):
            if self.is_open and not self.scene.paused and self.stream:
                data, self.stream = self.stream[:count], self.stream[count:]
                self.scene.response.send(data)
                if self.is_brisk:
                    self.hashers.work()
                    self.flush_some(count)

    @rule(count=COUNTS, times=st.integers(1, 6), reading=st.booleans(), answer=st.sampled_from(HONEST * 3 + USELESS))
    def goes_on(self, count: int, times: int, reading: bool, answer: str) -> None:
        """Upstream does what can be expected of it, and perhaps clients do as well."""
        if self.scene.pending is not None:
            self.answer(answer, count)
        self.send(count, times)
        for follower in self.all if reading else []:
            follower.client.drain_all()

    @precondition(lambda self: self.is_open and not self.scene.paused)
    @rule(count=COUNTS, times=st.integers(1, 6), answer=st.sampled_from(HONEST), useless=st.sampled_from(USELESS))
    def breaks_off_and_is_resumed(self, count: int, times: int, answer: str, useless: str) -> None:
        """Upstream breaks off somewhere, and is resumed at the second attempt."""
        self.send(count, times)
        if self.is_open:
            self.scene.break_off()
            self.goes_on(count, times, False, useless)
            self.scene.clock.advance(SMALL.backoff_s)
            self.goes_on(count, times, False, answer)

    @rule()
    def does_all(self) -> None:
        """Upstream sends all it has, as far as it may, and then ends well."""
        while self.is_open and not self.scene.paused and self.stream:
            self.send(8 * KIB, 1)
        if self.is_open and not self.stream:
            self.scene.end()

    @precondition(lambda self: self.is_open)
    @rule()
    def break_off(self) -> None:
        """Upstream breaks off."""
        self.scene.break_off()

    @precondition(lambda self: self.is_open and self.scene.length is not UNKNOWN_LENGTH)
    @rule()
    def end_early(self) -> None:
        """Upstream ends well, wherever it is; without a length only a liar does that."""
        self.scene.end()

    @precondition(lambda self: self.scene.pending is not None)
    @rule(answer=st.sampled_from(HONEST * 3 + USELESS + DIFFERENT + LYING), cut=COUNTS)
    def answer(self, answer: str, cut: int) -> None:
        """Upstream answers the question for the rest."""
        pending, self.scene.pending = self.scene.pending, None
        assert pending is not None
        if pending.called:
            return
        content, at = self.scene.content, self.scene.resumed_at[-1]
        if answer == "gone":
            self.was_useless = True
            pending.errback(UpstreamUnreachable("gone"))
            return
        if answer in DIFFERENT:
            content, self.was_useless = content + b"x", True
        response, stream = FakeResponse(200, {}, ends=False), content
        total = len(content)
        if "whole" in answer:
            response.length = UNKNOWN_LENGTH if "chunks" in answer else total
        elif answer in ("401", "416") or at >= total:
            response.code = 416 if at >= total else int(answer)
            self.was_useless = self.was_useless or answer in USELESS
            response.headers.setRawHeaders("Content-Range", [f"bytes */{total}"])
        else:
            stop = min(total, at + cut) if "short" in answer else total
            start = max(0, at - 1) if answer == "elsewhere" and at else at + (answer == "elsewhere")
            self.was_useless = self.was_useless or start != at
            response.code, response.length, stream = 206, stop - start, content[start:stop]
            says = "*" if "without" in answer else str(total)
            response.headers.setRawHeaders("Content-Range", [f"bytes {start}-{max(start, stop - 1)}/{says}"])
        if answer == "other tag":
            response.headers.setRawHeaders("ETag", ['"other"'])
        self.stream = self.told(stream, "all" if answer in LYING else "")
        self.scene.response = response
        pending.callback(response)

    # --- hashers, storage, time

    @precondition(lambda self: self.hashers.jobs)
    @rule(count=st.integers(1, 5))
    def hash(self, count: int) -> None:
        """Hashing gets on."""
        self.hashers.work(count)

    @precondition(lambda self: self.scene.spool is not None or self.disk is not None)
    @rule(count=COUNTS)
    def flush(self, count: int) -> None:
        """The medium takes some."""
        self.flush_some(count)

    def flush_some(self, count: int) -> None:
        """The medium takes some."""
        if self.scene.spool is not None:
            self.scene.spool.flush(count)
        elif self.disk is not None:
            self.disk.workers.work(1)

    @precondition(lambda self: self.scene.spool is not None or self.disk is not None)
    @rule()
    def flush_all(self) -> None:
        """The medium takes all there is, and publishes if it may."""
        if self.scene.spool is not None:
            self.scene.spool.flush()
            self.scene.spool.publish()
        elif self.disk is not None:
            self.disk.workers.work()

    @precondition(lambda self: self.scene.ingest.spool is not None)
    @rule(really=st.sampled_from([False, False, True]))
    def storage_dies(self, really: bool) -> None:
        """The medium is full, or gone."""
        if really and self.disk is not None:
            self.disk.files.is_full = True
        elif really and self.scene.spool is not None:
            self.scene.spool.die()

    @rule(seconds=STEPS_S)
    def time_passes(self, seconds: float) -> None:
        """Time passes."""
        self.scene.clock.advance(seconds)

    # --- the readers

    @property
    def may_join(self) -> bool:
        """Whether anybody would be given the body: who was promised it, or who finds it running."""
        is_running = not self.scene.ended and self.scene.ingest.can_serve(0)
        return bool(self.promises or is_running) and len(self.all) < 12

    @precondition(lambda self: self.may_join)
    @rule(
        target=followers,
        start=PLACES,
        length=st.one_of(st.none(), st.none(), COUNTS),
        capacity=st.one_of(st.none(), COUNTS),
    )
    def join(self, start: int, length: int | None, capacity: int | None) -> Follower:
        """A client begins; a range may lie anywhere in what is promised."""
        ingest = self.scene.ingest
        self.promises = max(0, self.promises - 1)
        size = ingest.size_bytes
        start = min(start, size) if size is not None else 0
        stop = None if length is None or size is None else min(size, start + length)
        follower = Follower(self.scene.client(start, stop, capacity), start, stop)
        self.all.append(follower)
        return follower

    @rule(follower=followers, times=st.integers(1, 5))
    def reads_on(self, follower: Follower, times: int) -> None:
        """A client takes more."""
        for _ in range(times):
            if follower.client.how is None:
                follower.client.sink.drain()

    @rule(follower=followers)
    def reads_all(self, follower: Follower) -> None:
        """A client takes all there is."""
        follower.client.drain_all()

    @rule(follower=followers, really=st.sampled_from([False, False, True]))
    def leaves(self, follower: Follower, really: bool) -> None:
        """A client goes away."""
        if really and follower.client.how is None:
            follower.client.sink.leave()

    @precondition(lambda self: self.scene.ingest.fate == "arriving" and self.promises < 2)
    @rule()
    def promise(self) -> None:
        """Somebody is given the body."""
        self.scene.ingest.promise()
        self.promises += 1

    @precondition(lambda self: self.promises)
    @rule()
    def close(self) -> None:
        """Somebody gives the body back."""
        self.promises -= 1
        self.scene.ingest.close()

    @rule(really=st.sampled_from([False] * 49 + [True]))
    def abandon(self, really: bool) -> None:
        """The process ends, seldom."""
        if really:
            self.scene.ingest.abandon()

    # --- what must hold

    @invariant()
    def readers_have_the_truth_or_a_part_of_it(self) -> None:
        """With an honest upstream every byte is right; no corrupt whole body ever ends well."""
        content = self.scene.content
        for follower in self.all:
            got, wanted = follower.client.got, content[follower.start : follower.stop]
            if self.is_honest or self.scene.ingest.fate == "proven":
                assert wanted.startswith(got)
            if follower.client.how == "finished" and (self.is_honest or follower.is_whole):
                assert got == wanted

    @invariant()
    def nobody_has_the_tail_before_the_verdict(self) -> None:
        """Neither with a length nor without."""
        ingest = self.scene.ingest
        if ingest.fate != "proven":
            promised = ingest.received_bytes if ingest.size_bytes is None else ingest.size_bytes
            for follower in self.all:
                assert not follower.client.got or follower.client.reader.offset_bytes <= max(0, promised - TAIL)
                assert follower.client.how != "finished" or follower.stop is not None or follower.start == promised

    @invariant()
    def nothing_unproven_is_kept(self) -> None:
        """In whatever way the connection said goodbye."""
        ingest, spool = self.scene.ingest, self.scene.spool
        assert not ingest.kept or ingest.fate == "proven"
        if spool is not None and spool.committed is not None:
            assert bytes(spool.data) == self.scene.content
        if self.disk is not None:
            assert all(digest_of(data) == ingest.descriptor.digest for data in self.disk.kept())

    @invariant()
    def memory_is_bounded(self) -> None:
        """By the window without a spool, by what may be outstanding with one, and for the hash."""
        verdict = self.scene.ingest.verdict
        assert verdict is not None
        bound = max(WINDOW, OUTSTANDING) if self.had_spool else max(WINDOW, verdict.pending_bytes)
        assert self.scene.ingest.held_bytes <= bound + 2 * CHUNK
        assert verdict.pending_bytes <= OUTSTANDING + 2 * CHUNK

    @invariant()
    def upstream_waits_only_for_a_reason(self) -> None:
        """For the hash, for the spool, or, without a spool, for readers who are behind."""
        scene, ingest = self.scene, self.scene.ingest
        scene.clock.advance(0)
        if not (self.is_open and scene.paused) or ingest.fate != "arriving":
            return
        assert ingest.verdict is not None
        hash_is_behind = ingest.verdict.pending_bytes > (WINDOW if scene.over_budget else OUTSTANDING)
        if ingest.spool is not None:
            assert hash_is_behind or ingest.received_bytes - ingest.spool.flushed_bytes > WINDOW
        else:
            active = [follower.client.reader for follower in self.all if follower.client.how is None]
            slowest = min([reader.offset_bytes for reader in active] + [0] * bool(self.promises), default=None)
            assert hash_is_behind or (slowest is not None and ingest.received_bytes - slowest > WINDOW)

    @invariant()
    def the_end_comes_once_and_files_stay_open_for_readers(self) -> None:
        """Nobody loses a body under his hands."""
        scene = self.scene
        assert len(scene.ended) <= 1
        reading = any(follower.client.how is None for follower in self.all)
        if scene.spool is not None and scene.spool.closed:
            assert scene.ended
            assert not reading or scene.ingest.fate != "proven"

    def teardown(self) -> None:
        """Whatever happened: once upstream is gone, threads have worked and time has passed, nobody is left."""
        if not hasattr(self, "scene"):
            return
        scene = self.scene
        well = self.is_honest and not self.was_useless and scene.ingest.fate in ("arriving", "proven")
        self.end_of(well)
        late = [follower for follower in self.all if follower.client.how is None]
        for _ in range(30):
            scene.clock.advance(31.0)
            self.hashers.work()
        self.finally_(lambda: self.disk.workers.work() if self.disk is not None else 0)
        assert scene.ended == [scene.ingest]
        assert [follower.client.how for follower in late if follower.client.how is None] == []
        assert scene.clock.getDelayedCalls() == []
        self.nothing_unproven_is_kept()
        self.readers_have_the_truth_or_a_part_of_it()
        if scene.spool is not None:
            assert scene.spool.closed
        if self.disk is not None:
            assert [path for path in (self.disk.root / "ingest").iterdir() if path.suffix == ".spool"] == []
            shutil.rmtree(self.disk.root)

    def finally_(self, action: Callable[[], object]) -> None:
        """Let threads that hung come back."""
        action()
        self.scene.clock.advance(0)

    def end_of(self, well: bool) -> None:
        """Let upstream finish, well if it can; every other client reads to the end, the rest have stopped."""
        scene, ingest = self.scene, self.scene.ingest
        reading = [follower for follower in self.all[::2] if follower.client.how is None]
        while self.promises:
            self.close()
        for _ in range(2000):
            if ingest.fate != "arriving":
                break
            if self.is_open and not scene.paused:
                self.does_all() if well else scene.break_off()
            elif scene.pending is not None:
                self.answer("part" if well else "gone", 1)
            self.hashers.work(2)
            for follower in reading:
                follower.client.drain_all()
            scene.clock.advance(0.5)
        assert ingest.fate != "arriving"
        if well and self.had_spool and ingest.kept:
            for follower in reading:
                follower.client.drain_all()
                assert follower.client.how == "finished"


class MachineTests(SynchronousTestCase):
    """The machine, run."""

    def test_the_laws_hold_whatever_happens(self) -> None:
        """Found examples become directed tests in test_laws."""
        how = settings(
            max_examples=250,
            stateful_step_count=40,
            deadline=None,
            database=None,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        )
        run_state_machine_as_test(Machine, settings=how)
