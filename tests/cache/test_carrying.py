"""Blobs that lie elsewhere and come through us: proven, and gone on with wherever they break off (RULES E2, E5)."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from zope.interface import provider

from tests.cache.far_case import DATA, HALF, SMALL, SMALL_WRONG, TOTAL, WRONG, CarryCase
from tests.cache.house import content
from tests.doubles import FakeResponse, Request
from txociproxy.oci.errors import UpstreamUnreachable
from txociproxy.oci.ranges import ByteRange


class WholeTests(CarryCase):
    """All of it, kept nowhere here."""

    def test_it_comes_from_there_and_is_a_hit(self) -> None:
        """Nobody else is asked, nothing kept, and the fields are ours."""
        serve = self.served(self.blob())
        self.assertEqual((serve.outcome, serve.partial, serve.headers), ("hit", None, ()))
        self.assertEqual(
            (serve.descriptor.size_bytes, serve.descriptor.media_type), (TOTAL, "application/octet-stream")
        )
        self.assertEqual(self.bytes_of(serve), DATA)
        self.read("all")
        self.asked()
        self.assert_at_rest()

    def test_its_tail_waits_for_the_verdict(self) -> None:
        """No client completes wrong bytes; they are forgotten, and the next pull goes upstream."""
        self.far.by_hand = True
        logged: list[str] = []
        self.watch(logged)
        _, sink = self.follow(self.served(self.blob()))
        self.far.sent[0].send(WRONG[:-10])
        self.far.sent[0].send(WRONG[-10:])
        self.assertEqual((sink.ending, len(sink.written)), ("cut", TOTAL - 32 * 1024))
        self.assertEqual(self.far.removed, [self.digest])
        self.assertTrue(any(str(self.digest) in line and "storage" in line for line in logged), logged)
        wrong = [line for line in logged if line.startswith("wrong digest from ")]
        self.assertEqual([line.partition(":")[0] for line in wrong], ["wrong digest from the storage"])
        self.asked()
        self.assertEqual(self.get(self.blob()), ("miss", DATA))
        self.asked(f"GET {self.digest}")
        self.assert_at_rest()

    def watch(self, lines: list[str]) -> None:
        """Gather what is logged."""

        @provider(ILogObserver)
        def observe(event: LogEvent) -> None:
            lines.append(formatEvent(event))

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)

    def test_wrong_bytes_that_nobody_has_seen_are_replaced(self) -> None:
        """A short body waits whole: its client gets the upstream's, once."""
        self.far.others[self.small] = SMALL_WRONG
        self.assertEqual(self.get(self.ask(self.small, kind="blob")), ("miss", SMALL))
        self.assertEqual(self.far.removed, [self.small])
        self.read("all")
        self.asked(f"GET {self.small}")
        self.assertIn(self.small, self.far.content)
        self.assert_at_rest()

    def test_good_content_is_not_forgotten_with_the_bad(self) -> None:
        """The upstream is asked when the bad is gone; a storage that does not forget is not waited for."""
        self.far.others[self.small] = SMALL_WRONG
        self.far.removing = Deferred()
        first, second = (self.begin(self.ask(self.small, kind="blob")) for _ in range(2))
        self.assertEqual(self.far.removed, [self.small])
        self.asked()
        removing, self.far.removing = self.far.removing, None
        removing.callback(None)
        self.assertEqual([self.bytes_of(self.serve_of(d)) for d in (first, second)], [SMALL, SMALL])
        self.assertIn(self.small, self.far.content)
        self.far.removing = Deferred(lambda _: None)
        third = self.begin(self.ask(self.small, kind="blob"))
        self.clock.advance(4.9)
        self.assertNoResult(third)
        self.clock.advance(0.2)
        self.assertEqual(self.bytes_of(self.serve_of(third)), SMALL)
        self.assert_at_rest()

    def test_a_place_that_breaks_off_goes_on_from_where_it_was(self) -> None:
        """Its client only notices a pause; the upstream is not asked."""
        self.far.by_hand = True
        _, sink = self.follow(self.served(self.blob()))
        for start, stop in ((0, 70_000), (70_000, 70_001), (70_001, TOTAL)):
            self.far.sent[-1].send(DATA[start:stop])
            self.far.sent[-1].break_off()
            self.clock.advance(1)
        self.assertEqual((sink.ending, bytes(sink.written)), ("finished", DATA))
        self.read("all", "bytes=70000-", "bytes=70001-")
        self.asked()
        self.assert_at_rest()

    def test_a_place_that_brings_nothing_more_is_left_for_the_upstream(self) -> None:
        """Refused, or answered without a byte, or with something else; the entity tags differ all the same."""
        self.hub.fields = {"ETag": '"of-the-upstream"'}
        for trouble in ("down", "empty", "other"):
            self.far.by_hand = True
            _, sink = self.follow(self.served(self.blob()))
            first = self.far.sent[-1]
            first.send(DATA[:HALF])
            if trouble == "down":
                self.far.down = True
            elif trouble == "other":
                self.far.others[self.digest] = DATA + b"longer"
            first.break_off()
            if trouble == "empty":
                self.far.sent[-1].break_off()
            self.clock.pump([0.3] * 4)
            self.assertEqual((sink.ending, bytes(sink.written)), ("finished", DATA), trouble)
            self.read("all", f"bytes={HALF}-")
            self.asked(f"GET {self.digest} bytes={HALF}-")
            self.far.down = False
            self.far.others.clear()
            self.assertEqual(self.far.removed, [])
            self.assert_at_rest()

    def test_a_place_that_breaks_off_before_the_first_byte_is_not_asked_again(self) -> None:
        """The upstream sends all of it, under the same head."""
        self.far.by_hand = True
        _, sink = self.follow(self.served(self.blob()))
        self.far.sent[0].break_off()
        self.assertEqual((sink.ending, bytes(sink.written)), ("finished", DATA))
        self.read("all")
        self.asked(f"GET {self.digest}")
        self.assert_at_rest()

    def test_a_place_that_brought_nothing_is_asked_again_when_the_upstream_has_nothing(self) -> None:
        """Two breaks at the same byte are an accident as long as there is nobody else."""
        for lost in (True, False):
            self.far.by_hand, self.hub.down, self.hub.status = True, lost, None if lost else 404
            _, sink = self.follow(self.served(self.blob()))
            self.far.sent[-1].send(DATA[:HALF])
            self.far.sent[-1].break_off()
            self.far.sent[-1].break_off()
            self.clock.advance(0.3)
            self.asked(f"GET {self.digest} bytes={HALF}-")
            self.far.by_hand = False
            self.clock.advance(1)
            self.assertEqual((sink.ending, bytes(sink.written)), ("finished", DATA))
            self.read("all", f"bytes={HALF}-", f"bytes={HALF}-")
            self.asked()
            self.assert_at_rest()

    def test_a_place_that_falls_silent_is_left_sooner_than_an_upstream(self) -> None:
        """Five seconds."""
        self.far.by_hand = True
        _, sink = self.follow(self.served(self.blob()))
        self.far.sent[0].send(DATA[:HALF])
        self.clock.advance(4.9)
        self.read("all")
        self.far.by_hand = False
        self.clock.advance(0.2)
        self.read(f"bytes={HALF}-")
        self.assertEqual(bytes(sink.written), DATA)
        self.assertTrue(self.far.sent[0].transport.lost)

    def test_with_both_lost_the_client_is_cut_in_bounded_time(self) -> None:
        """After the first byte there is no error to be told."""
        self.far.by_hand = True
        _, sink = self.follow(self.served(self.blob()))
        self.far.sent[0].send(DATA[:HALF])
        self.far.down = self.hub.down = True
        self.far.sent[0].break_off()
        self.clock.pump([1.0] * 10)
        self.assertEqual((sink.ending, bytes(sink.written)), ("cut", DATA[:HALF]))
        self.assertEqual(self.far.removed, [])
        self.assert_at_rest()

    def test_a_short_one_that_is_lost_on_its_way_is_a_miss(self) -> None:
        """Nothing was sent, so the upstream's own words are told: its bytes, its refusal, or its loss."""
        self.far.by_hand = True
        for status in (None, 404, 200):
            d = self.begin(self.ask(self.small, kind="blob"))
            self.hub.down = self.far.down = True
            self.far.sent[-1].break_off()
            self.clock.advance(0.1)
            self.assertNoResult(d)
            # Four times it was asked for the rest; when the last one has failed it is asked as on a miss.
            self.hub_asked.script = self.at_last(status)
            self.clock.pump([0.3] * 10)
            if status == 200:
                self.assertEqual(self.bytes_of(self.serve_of(d)), SMALL)
            elif status is None:
                self.failureResultOf(d, UpstreamUnreachable)
            else:
                self.assertEqual(getattr(self.successResultOf(d), "status", None), status)
            self.far.down = False
            self.assert_at_rest()

    def at_last(self, status: int | None) -> Callable[[Request], FakeResponse | Exception]:
        """Be lost for who asks for the rest, and answer who asks anew."""

        def script(request: Request) -> FakeResponse | Exception:
            self.hub.down = status is None or self.core.ingests.alive != []
            self.hub.status = status if status == 404 else None
            return self.hub.respond(request)

        return script

    def test_bytes_of_both_that_are_wrong_forget_nothing(self) -> None:
        """Nobody knows whose were wrong, and the log blames nobody alone."""
        self.far.by_hand = True
        logged: list[str] = []
        self.watch(logged)
        _, sink = self.follow(self.served(self.blob()))
        self.far.sent[0].send(WRONG[:HALF])
        self.far.down = True
        self.far.sent[0].break_off()
        self.assertEqual((sink.ending, self.far.removed), ("cut", []))
        self.assertIn("wrong digest from the storage and docker.io: ", "\n".join(logged))
        self.assert_at_rest()

    def test_two_clients_have_a_stream_each(self) -> None:
        """A slow one is neither cut nor waited for."""
        self.far.by_hand = True
        _, slow = self.follow(self.served(self.blob()), capacity_bytes=1)
        _, fast = self.follow(self.served(self.blob()))
        for response in self.far.sent:
            response.send(DATA)
            response.end()
        self.assertEqual((fast.ending, slow.ending), ("finished", None))
        while slow.ending is None:
            slow.drain()
        self.assertEqual(bytes(slow.written), DATA)
        self.read("all", "all")
        self.assert_at_rest()

    def test_what_is_kept_nowhere_here_is_joined_by_nobody(self) -> None:
        """Who is told nothing by the store goes upstream."""
        self.far.by_hand = True
        _, first = self.follow(self.served(self.blob()))
        self.far.find_fails = True
        self.assertEqual(self.get(self.blob()), ("miss", DATA))
        self.asked(f"GET {self.digest}")
        first.leave()
        self.assert_at_rest()

    def test_a_client_that_does_not_read_pauses_the_place(self) -> None:
        """No more than the window is held for it."""
        large = content(3_000_000)
        digest = self.far.put(large)
        self.far.by_hand = True
        _, sink = self.follow(self.served(self.ask(digest, kind="blob")), capacity_bytes=1)
        sent_bytes = 0
        while not self.far.sent[0].transport.paused and sent_bytes < len(large):
            self.far.sent[0].send(large[sent_bytes : sent_bytes + 50_000])
            sent_bytes += 50_000
        self.assertLess(sent_bytes, 1_300_000)
        sink.leave()
        self.assertTrue(self.far.sent[0].transport.lost)
        self.assert_at_rest()


class PartTests(CarryCase):
    """Ranges, which cannot be proven."""

    def test_a_part_is_read_as_a_part(self) -> None:
        """Exactly that, whoever asks in which way; nothing is fetched beside it."""
        for byte_range, start, stop in (
            ("bytes=0-0", 0, 1),
            ("bytes=100-199", 100, 200),
            ("bytes=-10", TOTAL - 10, TOTAL),
            ("bytes=199000-", 199_000, TOTAL),
            ("bytes=199000-900000", 199_000, TOTAL),
            ("bytes=0-", 0, TOTAL),
        ):
            serve = self.served(self.blob(byte_range))
            self.assertEqual((serve.outcome, serve.partial), ("hit", ByteRange(start, stop, TOTAL)))
            self.assertEqual((serve.descriptor.size_bytes, self.bytes_of(serve)), (TOTAL, DATA[start:stop]))
            self.read(f"bytes={start}-{stop - 1}")
            self.assert_at_rest()
        self.asked()

    def test_a_part_beyond_the_end_is_told_without_a_question(self) -> None:
        """416 with the length."""
        serve = self.served(self.blob("bytes=200000-"))
        self.assertEqual((serve.body, serve.unsatisfiable_total_bytes), (None, TOTAL))
        self.read()
        self.asked()
        self.assert_at_rest()

    def test_a_part_that_breaks_off_goes_on_to_its_own_end(self) -> None:
        """From the place, then from the upstream."""
        self.far.by_hand = True
        _, sink = self.follow(self.served(self.blob("bytes=1000-1999")))
        self.far.sent[0].send(DATA[1000:1400])
        self.far.sent[0].break_off()
        self.far.sent[1].send(DATA[1400:1500])
        self.far.down = True
        self.far.sent[1].break_off()
        self.clock.advance(1)
        self.assertEqual((sink.ending, bytes(sink.written)), ("finished", DATA[1000:2000]))
        self.read("bytes=1000-1999", "bytes=1400-1999", "bytes=1500-1999")
        self.asked(f"GET {self.digest} bytes=1500-1999")
        self.assert_at_rest()
