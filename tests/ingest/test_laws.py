"""One directed test, or a few, for each law of the core (docs/ARCHITECTURE.md) that an Ingest has to keep."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, evolve
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http import PotentialDataLoss

from tests.doubles import BodyTransport, InlineWorkers, ManualWorkers
from tests.ingest.scene import (
    KIB,
    LIMITS,
    OUTSTANDING,
    STALL_S,
    TAIL,
    WINDOW,
    Client,
    Scene,
    ScriptedSpool,
    content_of,
    partial,
)
from txociproxy.oci.errors import BodyLost

SIZE = 512 * KIB
MIDDLING = OUTSTANDING - 64 * KIB  # what may wait to be hashed


class VerdictTests(SynchronousTestCase):
    """Law 1: the digest is the verdict; and law 2: the tail waits for it."""

    def test_the_right_bytes_are_kept_however_the_connection_says_goodbye(self) -> None:
        """Clean, reset, without a length, or not at all: length and digest decide."""
        for goodbye in ("clean", "reset", "doubtful", "none"):
            scene = Scene.of(SIZE).begin()
            client = scene.client()
            scene.send()
            if goodbye != "none":
                errors = {"clean": None, "reset": ConnectionError(), "doubtful": PotentialDataLoss()}
                scene.response.end(errors[goodbye])
            self.assertEqual((client.how, client.got == scene.content), ("finished", True), goodbye)
            self.assertEqual((scene.ingest.fate, scene.ingest.kept), ("proven", True))
            self.assertEqual((scene.ended, scene.resumed_at, scene.timers), ([scene.ingest], [], 0))

    def test_a_body_of_unknown_length_is_proven_at_its_end(self) -> None:
        """The tail is held back all the way, as nobody knows where the end is."""
        scene = Scene(content_of(SIZE), spool=ScriptedSpool()).begin()
        client = scene.client()
        scene.send()
        self.assertEqual((len(client.got), client.how, scene.ingest.size_bytes), (SIZE - TAIL, None, None))
        scene.end()
        self.assertEqual((client.got == scene.content, client.how, scene.ingest.kept), (True, "finished", True))
        self.assertEqual(scene.ingest.size_bytes, SIZE)

    def test_wrong_bytes_are_not_kept_and_nobody_gets_their_tail(self) -> None:
        """Changed, too few, too many: the client is cut short of the tail."""
        good = content_of(SIZE)
        for bad in (b"x" + good[1:], good[:-1] + b"x", good[: SIZE // 2], good + b"x", b"<html>" * 10_000):
            for length in ({"length": len(bad)}, {}):
                scene = Scene(good, spool=ScriptedSpool(), **length).begin()  # type: ignore[arg-type]
                client = scene.client()
                scene.response.send(bad)
                scene.end()
                self.assertEqual((client.how, len(client.got) <= len(bad) - TAIL), ("cut", True))
                assert scene.spool is not None
                self.assertEqual((scene.ingest.fate, scene.spool.committed, scene.spool.closed), ("wrong", None, True))
                self.assertEqual((scene.ended, scene.timers), ([scene.ingest], 0))

    def test_the_tail_waits_for_the_hash(self) -> None:
        """All bytes are here and hashing is behind: the tail stays."""
        scene = Scene.of(MIDDLING, hashers=ManualWorkers()).begin()
        client = scene.client()
        scene.send(step=32 * KIB)
        scene.end()
        self.assertEqual((len(client.got), client.how), (MIDDLING - TAIL, None))
        scene.hashers.work()  # type: ignore[attr-defined]
        self.assertEqual((client.got == scene.content, client.how), (True, "finished"))

    def test_a_reader_of_a_range_does_not_get_the_tail_either(self) -> None:
        """Else two halves make a corrupt whole."""
        scene = Scene.of(MIDDLING, hashers=ManualWorkers()).begin()
        client = scene.client(MIDDLING - 2 * TAIL, MIDDLING - 1)
        scene.send(step=32 * KIB)
        self.assertEqual(len(client.got), TAIL)
        scene.hashers.work()  # type: ignore[attr-defined]
        self.assertEqual((len(client.got), client.how), (2 * TAIL - 1, "finished"))

    def test_a_body_of_no_bytes_waits_for_its_verdict_too(self) -> None:
        """No length promised more than this one needs a verdict: nothing is what a lying upstream sends first."""
        for content, how in ((b"", "finished"), (b"something", "cut")):
            scene = Scene(content, 0, spool=ScriptedSpool(prompt=True)).begin()
            client = scene.client()
            self.assertIsNone(client.how)
            scene.end()
            self.assertEqual((client.how, client.got, scene.ingest.kept), (how, b"", how == "finished"))

    def test_a_hash_that_cannot_be_computed_proves_nothing(self) -> None:
        """What is not proven is not kept."""
        hashers = ManualWorkers()
        scene = Scene.of(MIDDLING, hashers=hashers).begin()
        client = scene.client()
        scene.send(step=32 * KIB)
        hashers.jobs.pop(0)[0].errback(MemoryError())
        self.assertEqual((client.how, scene.ingest.kept, hashers.jobs), ("cut", False, []))

    def test_a_small_chunk_is_never_hashed_before_a_big_one_that_waits(self) -> None:
        """Small chunks are hashed on the spot, but not when one comes while the next batch is about to begin."""
        hashers, limits = ManualWorkers(), evolve(LIMITS, outstanding_bytes=64 * KIB)
        scene = Scene.of(MIDDLING, hashers=hashers, limits=limits)
        scene.response.transport = eager = EagerTransport()
        scene.begin()
        client = scene.client()
        eager.resumed = lambda: scene.pour(min(MIDDLING, scene.ingest.received_bytes + 4 * KIB))
        while client.how is None:
            scene.pour(step=32 * KIB)
            self.assertEqual(hashers.work(1), 1)
        self.assertEqual((client.how, client.got == scene.content), ("finished", True))


@define(eq=False)
class EagerTransport(BodyTransport):
    """Delivers at once what came during a pause, as TLS may."""

    resumed: Callable[[], None] = lambda: None

    def resumeProducing(self) -> None:
        """Deliver."""
        was_paused, self.paused = self.paused, False
        if was_paused:
            self.resumed()


class IndependenceTests(SynchronousTestCase):
    """Law 3: no reader waits for another; law 5: what may make upstream wait."""

    def test_a_stopped_reader_holds_up_nobody_and_finishes_later(self) -> None:
        """With a living spool upstream never waits; the stopped one reads on from the spool."""
        scene = Scene.of(SIZE).begin()
        stopped, others = scene.client(capacity=KIB), [scene.client() for _ in range(5)]
        for _ in range(SIZE // WINDOW):
            scene.pour(scene.ingest.received_bytes + WINDOW)
            self.assertFalse(scene.paused)
        scene.end()
        self.assertEqual({(other.how, other.got == scene.content) for other in others}, {("finished", True)})
        self.assertLess(len(stopped.got), WINDOW)
        assert scene.spool is not None
        self.assertFalse(scene.spool.closed)
        stopped.drain_all()
        self.assertEqual((stopped.how, stopped.got == scene.content, scene.spool.closed), ("finished", True, True))

    def test_a_late_reader_gets_all_from_the_start(self) -> None:
        """Joining at 0 in the middle, with a spool."""
        scene = Scene.of(SIZE).begin()
        scene.send(0, SIZE // 2)
        late = scene.client()
        self.assertEqual(len(late.got), SIZE // 2)
        scene.pour()
        self.assertEqual((late.how, late.got == scene.content), ("finished", True))

    def test_without_a_spool_the_window_follows_the_fastest_and_laggards_are_cut_after_two_seconds(self) -> None:
        """The laggard may make upstream wait for so long and no longer."""
        scene = Scene.of(SIZE, spool=None).begin()
        fast, slow = scene.client(), scene.client(capacity=KIB)
        scene.pour()
        self.assertTrue(scene.paused)
        self.assertLess(len(fast.got), SIZE // 2)
        scene.clock.advance(LIMITS.laggard_s - 0.01)
        self.assertTrue(scene.paused)
        scene.clock.advance(0.01)
        self.assertFalse(scene.paused)
        scene.pour()
        self.assertEqual((fast.how, fast.got == scene.content), ("finished", True))
        slow.drain_all()
        self.assertEqual((slow.how, scene.content.startswith(slow.got)), ("cut", True))
        self.assertEqual(scene.timers, 0)

    def test_a_laggard_that_drips_makes_upstream_wait_for_two_seconds_in_all(self) -> None:
        """A little progress now and then buys no new patience."""
        scene = Scene.of(8 * SIZE, spool=None).begin()
        fast, slow = scene.client(), scene.client(capacity=KIB)
        waited_s = 0.0
        for _ in range(400):
            scene.pour()
            if scene.paused:
                waited_s += 0.1
            scene.clock.advance(0.1)
            if slow.how is None:
                slow.sink.drain()
        self.assertEqual((fast.how, fast.got == scene.content, slow.how), ("finished", True, "cut"))
        self.assertLess(waited_s, LIMITS.laggard_s + 0.3)

    def test_a_laggard_that_catches_up_is_forgiven(self) -> None:
        """It may fall behind again."""
        scene = Scene.of(SIZE, spool=None).begin()
        fast, slow = scene.client(), scene.client(capacity=KIB)
        for _ in range(8):
            scene.pour()
            scene.clock.advance(LIMITS.laggard_s / 2)
            slow.drain_all()
            scene.clock.advance(0)
        scene.pour()
        slow.drain_all()
        self.assertEqual((fast.how, slow.how), ("finished", "finished"))

    def test_without_a_spool_the_only_reader_sets_the_pace(self) -> None:
        """Upstream waits for it, and goes on as soon as it takes more."""
        scene = Scene.of(SIZE, spool=None).begin()
        client = scene.client(capacity=KIB)
        for _ in range(1000):
            scene.pour()
            self.assertLessEqual(scene.ingest.held_bytes, WINDOW + 4 * KIB)
            if client.how is not None:
                break
            client.sink.drain()
            scene.clock.advance(1.0)
        self.assertEqual((client.how, client.got == scene.content, scene.ingest.kept), ("finished", True, False))
        self.assertEqual((scene.resumed_at, scene.timers), ([], 0))

    def test_an_upstream_that_is_resumed_waits_if_it_had_to_wait_before(self) -> None:
        """Breaking off is no way round a reader who is behind."""
        scene = Scene.of(SIZE, spool=None, by_hand=True).begin()
        client = scene.client(capacity=KIB)
        scene.pour()
        received_bytes = scene.ingest.received_bytes
        scene.break_off()
        scene.response = partial(scene.content, received_bytes)
        scene.response.body, scene.response.ends = b"", False
        assert scene.pending is not None
        scene.pending.callback(scene.response)
        self.assertTrue(scene.paused)
        client.drain_all()
        scene.clock.advance(0)
        self.assertFalse(scene.paused)
        scene.ingest.abandon()

    def test_without_a_spool_a_promise_holds_the_start_for_two_seconds_only(self) -> None:
        """Somebody was given the body and has not begun: the others wait for him as for a laggard."""
        scene = Scene.of(SIZE, spool=None).begin()
        scene.ingest.promise()
        fast = scene.client()
        scene.ingest.promise()
        scene.pour()
        self.assertTrue(scene.paused)
        self.assertTrue(scene.ingest.can_serve(0))
        scene.clock.advance(LIMITS.laggard_s)
        scene.pour()
        self.assertEqual((fast.how, scene.ingest.can_serve(0)), ("finished", False))
        scene.ingest.close()
        self.assertEqual(scene.timers, 0)

    def test_a_promise_that_is_given_back_lets_upstream_go_on(self) -> None:
        """At once, not after the patience for laggards."""
        scene = Scene.of(SIZE, spool=None).begin()
        scene.ingest.promise()
        fast = scene.client()
        scene.ingest.promise()
        scene.pour()
        self.assertTrue(scene.paused)
        scene.ingest.close()
        self.assertFalse(scene.paused)
        scene.pour()
        self.assertEqual(fast.how, "finished")

    def test_a_laggard_that_leaves_lets_upstream_go_on(self) -> None:
        """At once."""
        scene = Scene.of(SIZE, spool=None).begin()
        fast, slow = scene.client(), scene.client(capacity=KIB)
        scene.pour()
        slow.sink.leave()
        self.assertEqual((slow.how, scene.paused), ("left", False))
        scene.pour()
        self.assertEqual((fast.how, scene.timers), ("finished", 0))

    def test_one_reader_whose_reading_fails_does_not_keep_the_news_from_the_next(self) -> None:
        """Followers are told one by one, and what one does to the list does not matter."""
        scene = Scene.of(SIZE).begin()
        clients = [scene.client(capacity=KIB) for _ in range(4)]
        clients[0].sink.leave()
        scene.pour()
        clients[2].sink.leave()
        for client in clients:
            client.drain_all()
        self.assertEqual([client.how for client in clients], ["left", "finished", "left", "finished"])


class StorageTests(SynchronousTestCase):
    """Law 4: the storage may fail or lag without a client noticing; law 6: one commit point."""

    def assert_right_but_unkept(self, scene: Scene, *clients: Client) -> None:
        """Check that no client noticed anything and that nothing was kept or left behind."""
        for client in clients:
            self.assertEqual((client.how, client.got == scene.content), ("finished", True))
        self.assertEqual((scene.ingest.fate, scene.ingest.kept, scene.ended), ("proven", False, [scene.ingest]))
        assert scene.spool is not None
        self.assertEqual((scene.spool.committed, scene.spool.abandoned, scene.spool.closed), (None, True, True))
        self.assertEqual((scene.timers, scene.ingest.spool, scene.resumed_at), (0, None, []))

    def test_a_spool_that_dies_at_the_start_or_in_the_middle(self) -> None:
        """The readers live on from the window."""
        for at in (0, 1, SIZE // 2, SIZE - 1):
            scene = Scene.of(SIZE).begin()
            client = scene.client()
            scene.pour(at, step=KIB)
            assert scene.spool is not None
            scene.spool.die()
            scene.pour()
            self.assert_right_but_unkept(scene, client)

    def test_a_spool_that_never_flushes_is_dropped_after_its_patience(self) -> None:
        """A write that hangs from the first byte on, or from the middle on."""
        for at in (0, SIZE // 2):
            scene = Scene.of(4 * SIZE).begin()
            client = scene.client()
            scene.pour(at)
            assert scene.spool is not None
            scene.spool.prompt = False
            scene.pour()
            self.assertTrue(scene.paused)
            scene.clock.advance(LIMITS.spool_stall_s)
            self.assertFalse(scene.paused)
            scene.pour()
            self.assert_right_but_unkept(scene, client)

    def test_a_spool_that_lags_is_waited_for_and_kept(self) -> None:
        """Slow is not dead: upstream runs ahead of it by a bound."""
        scene = Scene.of(2 * SIZE, spool=ScriptedSpool(prompt=False)).begin()
        assert scene.spool is not None
        client, spool = scene.client(), scene.spool
        for _ in range(1000):
            scene.pour()
            self.assertLessEqual(scene.ingest.held_bytes, OUTSTANDING + WINDOW + 4 * KIB)
            scene.clock.advance(LIMITS.spool_stall_s / 2)
            spool.flush(16 * KIB)
            if client.how is not None:
                break
        self.assertEqual((client.how, client.got == scene.content), ("finished", True))
        while spool.flushed_bytes < 2 * SIZE:
            scene.clock.advance(LIMITS.spool_stall_s / 2)
            spool.flush(16 * KIB)
        spool.publish()
        self.assertEqual((scene.ingest.kept, scene.ended, scene.timers), (True, [scene.ingest], 0))

    def test_a_commit_that_fails_is_not_noticed(self) -> None:
        """The verdict is told before the commit begins."""
        scene = Scene.of(SIZE, spool=ScriptedSpool(prompt=False)).begin()
        assert scene.spool is not None
        client, late = scene.client(), scene.client(capacity=KIB)
        for _ in range(SIZE // WINDOW):
            scene.pour(scene.ingest.received_bytes + WINDOW)
            scene.spool.flush()
        self.assertEqual((client.how, scene.ingest.kept, scene.ended), ("finished", False, []))
        scene.spool.die()
        late.drain_all()
        self.assert_right_but_unkept(scene, client, late)

    def test_a_commit_that_hangs_is_left_after_its_patience(self) -> None:
        """Also when everything was flushed."""
        scene = Scene.of(SIZE, spool=ScriptedSpool(prompt=False)).begin()
        assert scene.spool is not None
        client = scene.client()
        for _ in range(SIZE // WINDOW):
            scene.pour(scene.ingest.received_bytes + WINDOW)
            scene.spool.flush()
        self.assertEqual((client.how, scene.ended), ("finished", []))
        scene.clock.advance(LIMITS.commit_s)
        self.assert_right_but_unkept(scene, client)

    def test_a_disk_that_hangs_with_all_bytes_here_delays_no_verdict(self) -> None:
        """The tail is released although nothing was ever flushed (law 10)."""
        scene = Scene.of(WINDOW, spool=ScriptedSpool(prompt=False)).begin()
        client = scene.client()
        scene.pour()
        self.assertEqual((client.how, client.got == scene.content), ("finished", True))
        scene.clock.advance(LIMITS.spool_stall_s)
        self.assert_right_but_unkept(scene, client)

    def test_what_a_dead_spool_holds_stays_readable(self) -> None:
        """A reader far behind goes on, as the window begins where the spool ended."""
        scene = Scene.of(SIZE).begin()
        assert scene.spool is not None
        slow = scene.client(capacity=KIB)
        scene.pour(SIZE // 2)
        scene.spool.die()
        late = scene.client()
        self.assertEqual(len(late.got), SIZE // 2)
        late.sink.leave()
        for _ in range(200):
            scene.pour()
            scene.clock.advance(0.1)
            if slow.how is None:
                slow.sink.drain()
        self.assert_right_but_unkept(scene, slow)

    def test_a_promise_at_the_start_is_kept_by_what_a_dead_spool_holds(self) -> None:
        """The window is held from where the spool ended, as the one to come will need it from there."""
        scene = Scene.of(SIZE).begin()
        assert scene.spool is not None
        scene.ingest.promise()
        scene.pour(SIZE // 2)
        scene.spool.die()
        scene.pour()
        self.assertTrue(scene.paused)
        client = scene.client()
        scene.clock.advance(0)
        scene.pour()
        self.assert_right_but_unkept(scene, client)

    def test_who_is_too_slow_for_the_window_behind_a_dead_spool_is_cut(self) -> None:
        """It gets what the spool holds, then the gap ends it."""
        scene = Scene.of(SIZE).begin()
        assert scene.spool is not None
        fast, slow = scene.client(), scene.client(capacity=KIB)
        scene.pour(SIZE // 2)
        scene.spool.die()
        for _ in range(10):
            scene.pour()
            scene.clock.advance(LIMITS.laggard_s / 4)
        self.assertEqual((fast.how, fast.got == scene.content), ("finished", True))
        slow.drain_all()
        self.assertEqual(
            (slow.how, scene.content.startswith(slow.got), len(slow.got) >= SIZE // 2), ("cut", True, True)
        )

    def test_a_spool_that_cannot_be_read_costs_only_what_memory_does_not_have(self) -> None:
        """A reader at the tip does not need the disk (EIO, closed, gone)."""
        for error in (BodyLost("broken"),):
            scene = Scene.of(SIZE).begin()
            assert scene.spool is not None
            tip, behind = scene.client(), scene.client(capacity=KIB)
            tip.sink.file_transport = NoFiles()
            scene.pour(SIZE // 2)
            scene.spool.unreadable = error
            scene.pour()
            self.assertEqual((tip.how, tip.got == scene.content), ("finished", True))
            behind.drain_all()
            self.assertEqual((behind.how, scene.content.startswith(behind.got)), ("cut", True))
            self.assertTrue(scene.ingest.kept)

    def test_the_commit_comes_after_the_verdict_and_the_end_after_the_commit(self) -> None:
        """With the length that was received; the spool is closed when the last reader is gone."""
        scene = Scene(content_of(SIZE), spool=ScriptedSpool(prompt=False)).begin()
        assert scene.spool is not None
        slow = scene.client(capacity=KIB)
        for _ in range(SIZE // WINDOW):
            scene.pour(scene.ingest.received_bytes + WINDOW)
            scene.spool.flush()
        self.assertEqual(scene.spool.commits, 0)
        scene.end()
        self.assertEqual((scene.spool.commits, scene.ingest.fate, scene.ended), (1, "proven", []))
        scene.spool.publish()
        self.assertEqual((scene.ingest.kept, scene.ended, scene.spool.closed), (True, [scene.ingest], False))
        assert scene.spool.committed is not None
        self.assertEqual(scene.spool.committed.size_bytes, SIZE)
        slow.drain_all()
        self.assertEqual((slow.how, scene.spool.closed, scene.timers), ("finished", True, 0))


class NoFiles:
    """A transport that could send files."""

    def send_file(self, fd: int, offset: int, count: int) -> int:
        """Never asked to."""
        raise AssertionError

    def when_writable(self, callback: object) -> None:
        """Nothing to forget."""


class LeavingTests(SynchronousTestCase):
    """Law 9: a client that leaves stops nothing that others or the storage still want; law 7: nobody shares a fate."""

    def test_it_goes_on_for_the_storage_when_all_have_left(self) -> None:
        """Alone in mid-body: the next one is a hit."""
        scene = Scene.of(SIZE).begin()
        client = scene.client()
        scene.pour(SIZE // 2)
        client.sink.leave()
        self.assertEqual((client.how, scene.ingest.lonely, scene.deserted), ("left", True, [scene.ingest]))
        scene.pour()
        self.assertEqual((scene.ingest.kept, scene.ended, scene.timers), (True, [scene.ingest], 0))

    def test_it_goes_on_for_those_who_stay(self) -> None:
        """With or without a spool."""
        for spool in (ScriptedSpool(), None):
            scene = Scene.of(SIZE, spool=spool).begin()
            leaver, other = scene.client(), scene.client()
            scene.pour(SIZE // 2)
            leaver.sink.leave()
            scene.pour()
            self.assertEqual((leaver.how, other.how, other.got == scene.content), ("left", "finished", True))
            self.assertEqual((scene.deserted, scene.timers), ([], 0))

    def test_it_is_abandoned_when_nobody_reads_and_nobody_keeps(self) -> None:
        """Without a spool, with the last reader; upstream's connection is closed."""
        scene = Scene.of(SIZE, spool=None).begin()
        clients = [scene.client(), scene.client()]
        scene.pour(SIZE // 2)
        clients[0].sink.leave()
        self.assertEqual(scene.ingest.fate, "arriving")
        clients[1].sink.leave()
        self.assertEqual((scene.ingest.fate, scene.ended, scene.timers), ("abandoned", [scene.ingest], 0))
        self.assertTrue(scene.response.transport.lost)

    def test_it_is_abandoned_when_the_spool_dies_after_all_have_left(self) -> None:
        """Nobody wants the bytes any more."""
        scene = Scene.of(SIZE).begin()
        client = scene.client()
        scene.pour(SIZE // 2)
        client.sink.leave()
        assert scene.spool is not None
        scene.spool.die()
        self.assertEqual((scene.ingest.fate, scene.ended, scene.timers), ("abandoned", [scene.ingest], 0))
        self.assertTrue(scene.spool.closed)

    def test_a_promise_counts_as_a_reader(self) -> None:
        """Who was given a body will follow or close it."""
        scene = Scene.of(SIZE, spool=None)
        scene.ingest.promise()
        scene.begin()
        scene.pour(WINDOW)
        self.assertEqual((scene.ingest.fate, scene.ingest.lonely), ("arriving", False))
        scene.ingest.close()
        self.assertEqual((scene.ingest.fate, scene.timers), ("abandoned", 0))

    def test_abandoning_cuts_whoever_reads(self) -> None:
        """At the end of the process; nothing is kept."""
        scene = Scene.of(SIZE).begin()
        client = scene.client()
        scene.pour(SIZE // 2)
        scene.ingest.abandon()
        self.assertEqual((client.how, scene.ingest.fate, scene.ended), ("cut", "abandoned", [scene.ingest]))
        assert scene.spool is not None
        self.assertEqual((scene.spool.closed, scene.spool.committed, scene.timers), (True, None, 0))
        scene.ingest.abandon()
        self.assertEqual(scene.ended, [scene.ingest])

    def test_one_who_stops_waiting_for_the_verdict_takes_nobody_along(self) -> None:
        """Each who waits has a Deferred of his own (law 7)."""
        scene = Scene.of(WINDOW, hashers=ManualWorkers()).begin()
        first, second = (Deferred.fromCoroutine(scene.ingest.settled()) for _ in range(2))
        enough = Deferred.fromCoroutine(scene.ingest.settled(more_than_bytes=WINDOW // 2))
        scene.pour(WINDOW // 2, step=32 * KIB)
        self.assertNoResult(enough)
        scene.pour(step=32 * KIB)
        self.successResultOf(enough)
        first.addErrback(lambda _: None).cancel()
        self.assertNoResult(second)
        scene.hashers.work()  # type: ignore[attr-defined]
        self.successResultOf(second)
        self.assertTrue(scene.ingest.kept)


class BoundTests(SynchronousTestCase):
    """Law 8: nothing is unbounded; law 10: nothing blocks the reactor."""

    def test_memory_stays_within_the_window_while_the_spool_keeps_up(self) -> None:
        """However far the slowest reader is behind."""
        scene = Scene.of(2 * SIZE).begin()
        scene.client(capacity=KIB)
        for _ in range(100):
            scene.pour(scene.ingest.received_bytes + 16 * KIB)
            self.assertLessEqual(scene.ingest.held_bytes, WINDOW + 4 * KIB)
        self.assertFalse(scene.paused)

    def test_what_is_kept_is_held_in_memory_no_more(self) -> None:
        """From the commit on a slow reader reads the file, as on a hit."""
        scene = Scene.of(SIZE).begin()
        slow = scene.client(capacity=KIB)
        scene.pour()
        self.assertEqual((scene.ingest.kept, scene.ingest.held_bytes), (True, 0))
        slow.drain_all()
        self.assertEqual((slow.how, slow.got == scene.content), ("finished", True))

    def test_upstream_waits_while_hashing_is_far_behind(self) -> None:
        """And goes on when it has caught up."""
        scene = Scene.of(2 * SIZE, hashers=ManualWorkers()).begin()
        client = scene.client()
        scene.pour(step=32 * KIB)
        self.assertTrue(scene.paused)
        self.assertLessEqual(scene.ingest.received_bytes, OUTSTANDING + 2 * 32 * KIB)
        while client.how is None and scene.hashers.work(1):  # type: ignore[attr-defined]
            scene.pour(step=32 * KIB)
        self.assertEqual((client.how, client.got == scene.content), ("finished", True))

    def test_over_the_common_budget_only_those_wait_whose_spool_is_behind(self) -> None:
        """More than a window of unflushed bytes."""
        scene = Scene.of(SIZE, spool=ScriptedSpool(prompt=False), over_budget=True).begin()
        scene.client()
        scene.pour()
        self.assertTrue(scene.paused)
        self.assertLessEqual(scene.ingest.received_bytes, WINDOW + 4 * KIB)
        assert scene.spool is not None
        scene.spool.flush()
        self.assertFalse(scene.paused)

    def test_silence_is_a_break(self) -> None:
        """Counted from the last chunk; the connection is closed and the rest asked for."""
        scene = Scene.of(SIZE).begin()
        client = scene.client()
        first = scene.response
        scene.clock.advance(LIMITS.silence_s - 1)
        scene.pour(WINDOW)
        scene.clock.advance(LIMITS.silence_s - 1)
        self.assertEqual(scene.resumed_at, [])
        scene.clock.advance(1)
        self.assertEqual((scene.resumed_at, first.transport.lost), ([WINDOW], True))
        for _ in range(LIMITS.tries):
            scene.clock.advance(60)
        self.assertEqual((client.how, scene.ingest.fate, len(scene.resumed_at)), ("cut", "lost", LIMITS.tries))
        self.assertEqual(scene.timers, 0)

    def test_our_own_pause_is_not_the_upstreams_silence(self) -> None:
        """The timer stands still while upstream has to wait."""
        scene = Scene.of(SIZE, spool=None).begin()
        client = scene.client(capacity=KIB)
        scene.pour()
        self.assertTrue(scene.paused)
        scene.clock.advance(STALL_S - 1)
        self.assertEqual((scene.resumed_at, client.how), ([], None))
        client.drain_all()
        scene.clock.advance(0)
        self.assertFalse(scene.paused)
        scene.clock.advance(LIMITS.silence_s)
        self.assertEqual(len(scene.resumed_at), 1)

    def test_big_chunks_are_hashed_by_the_workers_and_small_ones_on_the_spot(self) -> None:
        """The reactor never hashes much at once."""
        hashers = ManualWorkers()
        scene = Scene.of(SIZE, hashers=hashers).begin()
        scene.send(0, 4 * KIB)
        self.assertEqual(hashers.jobs, [])
        scene.response.send(scene.content[4 * KIB : 64 * KIB])
        self.assertEqual(len(hashers.jobs), 1)
        scene.ingest.abandon()
        hashers.work()

    def test_a_relayed_range_is_bounded_too_and_kept_by_nobody(self) -> None:
        """It is neither proven nor withheld; it ends where it was asked to end."""
        scene = Scene(content_of(SIZE), SIZE, part=(WINDOW, 5 * WINDOW), hashers=InlineWorkers())
        scene.ingest.promise()
        scene.begin()
        client = scene.client(WINDOW, 5 * WINDOW, capacity=KIB)
        for _ in range(200):
            scene.pour(6 * WINDOW)
            self.assertLessEqual(scene.ingest.held_bytes, WINDOW + 4 * KIB)
            if client.how is not None:
                break
            client.sink.drain()
            scene.clock.advance(0.01)
        self.assertEqual((client.how, client.got), ("finished", scene.content[WINDOW : 5 * WINDOW]))
        self.assertEqual((scene.ingest.kept, scene.ended, scene.timers), (False, [scene.ingest], 0))
