"""What lies elsewhere and comes through us is kept on this machine too: one read for all who want it."""

from __future__ import annotations

from attrs import evolve

from tests.cache.far_case import DATA, HALF, SMALL, SMALL_WRONG, TOTAL, WRONG, CarryCase
from tests.cache.house import outcomes
from txociproxy.assembly import CoreRules
from txociproxy.caps import IngestCaps
from txociproxy.oci.errors import OCIError
from txociproxy.oci.ranges import ByteRange
from txociproxy.parts import RangeRules


class FillTests(CarryCase):
    """What comes through is kept on this machine too."""

    def setUp(self) -> None:
        """Copies are wanted."""
        super().setUp()
        self.carry(fills=True)

    def test_many_share_one_read_which_stays(self) -> None:
        """Those who come before the answer, after it, and after half; then it is here."""
        self.far.by_hand = self.far.holding = True
        early = [self.begin(self.blob(client=f"192.0.2.{n}")) for n in range(50)]
        self.far.holding = False
        self.far.answer()
        serves = [self.serve_of(d) for d in early] + [self.served(self.blob()) for _ in range(25)]
        sinks = [self.follow(serve)[1] for serve in serves]
        self.far.sent[0].send(DATA[:HALF])
        serves += [self.served(self.blob()) for _ in range(25)]
        sinks += [self.follow(serve)[1] for serve in serves[75:]]
        self.far.sent[0].send(DATA[HALF:])
        self.far.sent[0].end()
        self.assertEqual({(sink.ending, bytes(sink.written)) for sink in sinks}, {("finished", DATA)})
        self.assertEqual({serve.outcome for serve in serves}, {"hit"})
        self.read("all")
        self.assertEqual(self.get(self.blob()), ("hit", DATA))
        self.read()
        self.asked()
        self.assert_at_rest()

    def test_the_copy_is_held_and_has_the_fields_of_its_own_registry_only(self) -> None:
        """Who keeps the original knows who may see it; here nobody else does (RULES D3, E10)."""
        digest = self.far.put(SMALL, headers=(("X-Kept", "a"),))
        self.get(self.ask(digest, kind="blob"))
        assert self.far.copies is not None
        kept = self.far.copies.content[digest]
        self.assertEqual(
            (kept.held, kept.headers, kept.namespace), (frozenset({"docker.io"}), (("X-Kept", "a"),), "docker.io")
        )
        self.far.copies.content.clear()
        self.get(self.ask(digest, kind="blob", namespace="evil.example"))
        kept = self.far.copies.content[digest]
        self.assertEqual((kept.held, kept.headers), (frozenset({"evil.example"}), ()))

    def test_a_client_that_leaves_alone_leaves_a_copy(self) -> None:
        """It goes on for the storage (law 9)."""
        self.far.by_hand = True
        _, sink = self.follow(self.served(self.blob()))
        self.far.sent[0].send(DATA[:HALF])
        sink.leave()
        self.far.sent[0].send(DATA[HALF:])
        self.far.sent[0].end()
        self.assertEqual(self.get(self.blob()), ("hit", DATA))
        self.read("all")
        self.assert_at_rest()

    def test_trouble_is_found_out_by_one_for_all(self) -> None:
        """They go upstream together."""
        self.far.holding = self.far.down = self.hub.by_hand = True
        waiting = [self.begin(self.blob()) for _ in range(20)]
        self.far.answer()
        serves = [self.serve_of(d) for d in waiting]
        self.assertEqual(outcomes(serves), ["miss"] + ["join"] * 19)
        self.read("all")
        self.asked(f"GET {self.digest}")
        self.assertEqual([spool._state for spool in self.far.spools], ["abandoned"])
        self.core.ingests.abandon_all()
        self.assert_at_rest()

    def test_one_client_at_its_bound_does_not_take_others_along(self) -> None:
        """They have places of their own (law 7)."""
        self.carry(fills=True, caps=IngestCaps(carried_per_client=1))
        self.far.by_hand = True
        self.follow(self.served(self.ask(self.far.put(WRONG), kind="blob", client="greedy")))
        greedy = self.begin(self.blob(client="greedy"))
        modest = self.begin(self.blob(client="modest"))
        self.clock.advance(20.1)
        self.failureResultOf(greedy, OCIError)
        self.assertEqual(self.serve_of(modest).outcome, "hit")

    def test_without_room_for_a_copy_each_has_a_stream(self) -> None:
        """Nobody is cut for another."""
        self.far.no_room = True
        self.far.holding = True
        waiting = [self.begin(self.blob()) for _ in range(3)]
        self.far.answer()
        self.assertEqual([self.bytes_of(self.serve_of(d)) for d in waiting], [DATA] * 3)
        self.read("all", "all", "all")
        self.asked()
        self.assert_at_rest()

    def test_wrong_bytes_are_copied_by_nobody(self) -> None:
        """All who wait for a short one get the upstream's, for one question."""
        self.far.others[self.small] = SMALL_WRONG
        self.far.holding = self.hub.holding = True
        waiting = [self.begin(self.ask(self.small, kind="blob")) for _ in range(4)]
        self.far.answer()
        self.hub.answer()
        self.assertEqual([self.bytes_of(self.serve_of(d)) for d in waiting], [SMALL] * 4)
        self.assertEqual(self.far.removed, [self.small])
        self.asked(f"GET {self.small}")
        assert self.far.copies is not None
        self.assertEqual(self.far.copies.content, {})
        self.assert_at_rest()

    def test_what_breaks_off_is_gone_on_with_by_what_others_brought(self) -> None:
        """The leader's token has ended meanwhile (RULES E5)."""
        self.far.by_hand = True
        asks = [evolve(self.blob(), credentials=self.ask("1", authorization=who).credentials) for who in ("old", "new")]
        sinks = [self.follow(self.served(ask))[1] for ask in asks]
        self.far.sent[0].send(DATA[:HALF])
        self.hub.refuses = {"old": 401, None: 401}
        self.far.down = True
        self.far.sent[0].break_off()
        self.assertEqual([bytes(sink.written) for sink in sinks], [DATA, DATA])
        self.assertEqual([request.authorization for request in self.hub_asked.requests], ["old", "new"])

    def test_a_part_of_a_small_blob_brings_the_whole_here(self) -> None:
        """Beside the part, for the storage alone; the next part comes from here."""
        serve = self.served(self.blob("bytes=-10"))
        self.assertEqual((serve.outcome, self.bytes_of(serve)), ("hit", DATA[-10:]))
        self.read("bytes=199990-199999", "all")
        self.assertEqual(self.bytes_of(self.served(self.blob("bytes=-10"))), DATA)
        self.read()
        self.assert_at_rest()

    def test_a_part_of_a_large_one_brings_nothing_here(self) -> None:
        """Nor of any where parts are only relayed; where the whole is always wanted it is."""
        for rules, reads in (
            (RangeRules("auto", small_bytes=TOTAL - 1), 1),
            (RangeRules("relay", small_bytes=TOTAL), 1),
            (RangeRules("fill", small_bytes=0), 2),
        ):
            self.rules = CoreRules(ranges=rules)
            self.carry(fills=True)
            self.bytes_of(self.served(self.blob("bytes=-10")))
            self.assertEqual(len(self.far.reads), reads, rules.miss)
            self.far.reads.clear()
            self.assert_at_rest()

    def test_a_part_that_comes_soon_is_read_from_what_comes(self) -> None:
        """One that comes late is read beside it."""
        self.rules = CoreRules(ranges=RangeRules(near_bytes=1000, small_bytes=0))
        self.carry(fills=True)
        self.far.by_hand = True
        _, whole = self.follow(self.served(self.blob()))
        self.far.sent[0].send(DATA[:HALF])
        near = self.served(self.blob(f"bytes={HALF + 1000}-"))
        self.assertEqual((near.outcome, near.partial), ("hit", None))
        near.body.close()  # type: ignore[union-attr]
        self.read("all")
        late = self.served(self.blob(f"bytes={HALF + 1001}-"))
        self.assertEqual(late.partial, ByteRange(HALF + 1001, TOTAL, TOTAL))
        late.body.close()  # type: ignore[union-attr]
        self.read(f"bytes={HALF + 1001}-{TOTAL - 1}")
        self.far.sent[0].send(DATA[HALF:])
        self.far.sent[0].end()
        self.assertEqual(bytes(whole.written), DATA)
        self.assert_at_rest()

    def test_a_part_beside_a_running_read_begins_no_other(self) -> None:
        """The whole is on its way already."""
        self.rules = CoreRules(ranges=RangeRules(near_bytes=1000))
        self.carry(fills=True)
        self.far.by_hand = True
        self.follow(self.served(self.blob()))
        self.follow(self.served(self.blob("bytes=-10")))
        self.read("all", "bytes=199990-199999")
        self.core.ingests.abandon_all()
        self.assert_at_rest()

    def test_a_part_of_what_comes_without_a_length_is_read_beside_it(self) -> None:
        """A download from the upstream that runs already; no part could be made of it."""
        self.hub.by_hand, self.hub.says_length = True, False
        self.far.find_fails = True
        whole = self.begin(self.blob())
        self.hub.sent[0].send(DATA[:HALF])
        self.follow(self.serve_of(whole))
        self.far.find_fails = False
        part = self.served(self.blob("bytes=5-9"))
        self.assertEqual((part.partial, self.bytes_of(part)), (ByteRange(5, 10, TOTAL), DATA[5:10]))
        self.read("bytes=5-9")
        self.core.ingests.abandon_all()
        self.assert_at_rest()

    def test_a_read_that_somebody_waits_for_is_not_lonely(self) -> None:
        """It does not count among those that go on for the storage alone."""
        self.carry(fills=True, caps=IngestCaps(lonely=0))
        self.far.by_hand = self.far.holding = True
        waiting = [self.begin(self.blob()) for _ in range(2)]
        self.far.answer()
        sinks = [self.follow(self.serve_of(d))[1] for d in waiting]
        self.far.sent[0].send(DATA)
        self.far.sent[0].end()
        self.assertEqual([bytes(sink.written) for sink in sinks], [DATA, DATA])
        self.assert_at_rest()

    def test_a_place_that_is_lost_leaves_its_running_read_to_others(self) -> None:
        """Who is told nothing by the store joins it, and asks nobody."""
        self.far.by_hand = True
        _, first = self.follow(self.served(self.blob()))
        self.far.find_fails = True
        second = self.served(self.blob())
        self.assertEqual(second.outcome, "join")
        _, sink = self.follow(second)
        self.far.sent[0].send(DATA)
        self.far.sent[0].end()
        self.assertEqual((bytes(first.written), bytes(sink.written)), (DATA, DATA))
        self.asked()
        self.assert_at_rest()
