"""Ranges of blobs that are not kept (RULES E9), and how many may be relayed (A5)."""

from __future__ import annotations

from attrs import evolve

from tests.cache.house import CacheCase, content
from tests.doubles import FakeResponse
from txociproxy.assembly import CoreRules
from txociproxy.interfaces import Serve
from txociproxy.oci.errors import OCIError
from txociproxy.oci.names import Digest
from txociproxy.oci.ranges import ByteRange
from txociproxy.parts import RangeMiss, RangeRules

DATA = content(400_000)
TOTAL = len(DATA)
# A blob of 400 kB counts as big: near is up to 50 kB, small is up to 10 kB.
BIG = RangeRules(near_bytes=50_000, small_bytes=10_000)


class RangeCase(CacheCase):
    """One blob, not kept."""

    rules = CoreRules(ranges=BIG)

    def setUp(self) -> None:
        """Upstream has it."""
        super().setUp()
        self.digest = self.hub.add(DATA)

    def part(self, byte_range: str, client: str = "192.0.2.1") -> Serve:
        """Pull a part."""
        return self.served(self.ask(self.digest, kind="blob", byte_range=byte_range, client=client))

    def rule(self, miss: RangeMiss) -> None:
        """Choose what is done with a range of a cold blob."""
        self.build(CoreRules(ranges=evolve(BIG, miss=miss)))


class ColdTests(RangeCase):
    """Nothing is known of the blob."""

    def test_a_far_part_is_relayed(self) -> None:
        """As 206, unproven and unkept: less than an eighth of a big blob."""
        serve = self.part("bytes=300000-300999")
        self.assertEqual((serve.outcome, serve.partial), ("relay", ByteRange(300_000, 301_000, TOTAL)))
        self.assertEqual(serve.descriptor.size_bytes, TOTAL)
        self.assertEqual(self.bytes_of(serve), DATA[300_000:301_000])
        self.asked(f"GET {self.digest} bytes=300000-300999")
        self.assertEqual(self.storage.content, {})
        self.assert_at_rest()

    def test_a_suffix_is_relayed(self) -> None:
        """Lazy pullers read the end first."""
        serve = self.part("bytes=-1000")
        self.assertEqual(self.bytes_of(serve), DATA[-1000:])
        self.asked(f"GET {self.digest} bytes=-1000")

    def test_a_small_part_at_the_start_of_a_big_blob_is_relayed(self) -> None:
        """It does not pay to fetch it all (RULES E9)."""
        serve = self.part("bytes=0-999")
        self.assertEqual((serve.outcome, self.bytes_of(serve)), ("relay", DATA[:1000]))
        self.asked(f"GET {self.digest} bytes=0-999")

    def test_all_from_a_near_byte_on_is_read_from_a_whole_download(self) -> None:
        """One upstream request, kept."""
        serve = self.part("bytes=40000-")
        self.assertEqual((serve.outcome, serve.partial), ("miss", None))
        self.assertEqual(self.bytes_of(serve), DATA)
        self.asked(f"GET {self.digest}")
        self.assertIn(self.digest, self.storage.content)

    def test_more_than_an_eighth_starts_the_download_of_the_whole(self) -> None:
        """Beside the part; the next is a hit."""
        serve = self.part(f"bytes=100000-{100_000 + TOTAL // 8}")
        self.assertEqual(serve.outcome, "relay")
        self.bytes_of(serve)
        self.asked(f"GET {self.digest} bytes=100000-150000", f"GET {self.digest}")
        self.assertEqual(self.get(self.ask(self.digest, kind="blob")), ("hit", DATA))
        self.assert_at_rest()

    def test_any_part_of_a_small_blob_starts_the_download_of_the_whole(self) -> None:
        """Up to 256 MiB by default."""
        self.build(CoreRules())
        self.bytes_of(self.part("bytes=100-109"))
        self.asked(f"GET {self.digest} bytes=100-109", f"GET {self.digest}")
        self.assertIn(self.digest, self.storage.content)

    def test_a_second_client_starts_the_download_of_the_whole(self) -> None:
        """Several parts for one client do not."""
        self.hub.by_hand = True
        serves = [self.part("bytes=300000-300999") for _ in range(2)]
        self.assertEqual(len(self.hub_asked.requests), 2)
        serves.append(self.part("bytes=300000-300999", client="192.0.2.2"))
        self.assertEqual(self.hub_asked.seen[-1], f"GET library/alpine {self.digest}")
        for serve in serves:
            self.follow(serve)
        for response in self.hub.sent[:3]:
            response.send(DATA[300_000:301_000])
            response.end()
        (whole,) = self.core.ingests.running.values()
        self.assertTrue(whole.lonely)
        self.hub.sent[3].send(DATA)
        self.hub.sent[3].end()
        self.assertIn(self.digest, self.storage.content)
        self.assert_at_rest()

    def test_fill_downloads_everything(self) -> None:
        """Near parts are read from it, far ones are relayed beside it."""
        self.rule("fill")
        self.assertEqual(self.part("bytes=0-999").outcome, "miss")
        self.asked(f"GET {self.digest}")
        self.storage.content.clear()
        self.assertEqual(self.part("bytes=300000-300999").outcome, "relay")
        self.asked(f"GET {self.digest} bytes=300000-300999", f"GET {self.digest}")

    def test_relay_downloads_nothing(self) -> None:
        """Not even for all of it."""
        self.rule("relay")
        self.assertEqual(self.bytes_of(self.part("bytes=0-")), DATA)
        self.asked(f"GET {self.digest} bytes=0-")
        self.assertEqual(self.storage.content, {})

    def test_a_range_beyond_the_end_is_said_with_the_total(self) -> None:
        """Upstream's 416."""
        serve = self.part("bytes=500000-500001")
        self.assertEqual((serve.body, serve.unsatisfiable_total_bytes), (None, TOTAL))
        self.asked(f"GET {self.digest} bytes=500000-500001")
        self.assert_at_rest()

    def test_an_upstream_that_does_no_ranges_gives_the_whole(self) -> None:
        """A 200, a wrong 206, and a 416 that does not say the length."""
        head = {"Content-Range": "bytes 0-999/400000"}
        for bad in (None, FakeResponse(206, head, DATA[:1000]), FakeResponse(206, {}, b"x"), FakeResponse(416)):
            whole = FakeResponse(200, {"Content-Length": str(TOTAL)}, DATA, TOTAL)
            answers = [bad or FakeResponse(200, {}, DATA, TOTAL), whole]
            self.hub_asked.script = lambda _, answers=answers: answers.pop(0)  # type: ignore[misc]
            serve = self.part("bytes=300000-300999")
            self.assertEqual((serve.outcome, serve.partial), ("miss", None))
            self.assertEqual(self.bytes_of(serve), DATA)
            self.asked(f"GET {self.digest} bytes=300000-300999", f"GET {self.digest}")
            self.storage.content.clear()
            self.assert_at_rest()

    def test_a_refusal_of_a_part_is_relayed(self) -> None:
        """And its place is given back."""
        self.hub.status = 404
        relay = self.relayed(self.ask(self.digest, kind="blob", byte_range="bytes=300000-300999"))
        self.assertEqual(relay.status, 404)
        self.asked(f"GET {self.digest} bytes=300000-300999")
        self.assert_at_rest()

    def test_a_relayed_part_that_breaks_off_is_resumed(self) -> None:
        """From where it broke to its own end."""
        self.hub.by_hand = True
        _, sink = self.follow(self.part("bytes=300000-300999"))
        self.hub.sent[0].send(DATA[300_000:300_400])
        self.hub.sent[0].break_off()
        self.hub.sent[1].send(DATA[300_400:301_000])
        self.assertEqual((sink.ending, bytes(sink.written)), ("finished", DATA[300_000:301_000]))
        self.asked(f"GET {self.digest} bytes=300000-300999", f"GET {self.digest} bytes=300400-300999")
        self.assert_at_rest()


class RunningTests(RangeCase):
    """The blob is on its way."""

    def setUp(self) -> None:
        """Half of it has come."""
        super().setUp()
        self.hub.by_hand = True
        self.follow(self.served(self.ask(self.digest, kind="blob")))
        self.hub.sent[0].send(DATA[:200_000])
        self.hub_asked.requests.clear()

    def end(self) -> None:
        """Let the rest come."""
        self.hub.sent[0].send(DATA[200_000:])
        self.hub.sent[0].end()
        self.assert_at_rest()

    def test_what_is_here_or_comes_soon_is_read_from_it(self) -> None:
        """No upstream request."""
        for byte_range in ("bytes=0-9", "bytes=150000-", "bytes=249999-250010", "bytes=500000-"):
            serve = self.part(byte_range)
            self.assertEqual((serve.outcome, serve.partial), ("join", None))
            self.follow(serve)
        self.asked()
        self.end()

    def test_what_comes_late_is_relayed_beside_it(self) -> None:
        """And does not start another download."""
        serve = self.part("bytes=300000-399999")
        self.assertEqual(serve.outcome, "relay")
        self.follow(serve)
        self.hub.sent[1].send(DATA[300_000:])
        self.hub.sent[1].end()
        self.asked(f"GET {self.digest} bytes=300000-399999")
        self.end()

    def test_a_near_part_joins_an_ask_that_has_no_answer_yet(self) -> None:
        """One upstream request."""
        other = self.hub.add(content(400_000, seed=2))
        self.hub.holding = True
        whole = self.begin(self.ask(other, kind="blob"))
        part = self.begin(self.ask(other, kind="blob", byte_range="bytes=0-9"))
        self.hub.answer()
        self.assertEqual([self.serve_of(d).outcome for d in (whole, part)], ["miss", "join"])
        self.asked(f"GET {other}")


class CapTests(RangeCase):
    """Four per digest and namespace, 32 in all."""

    def test_the_fifth_waits_and_is_told_to_come_again(self) -> None:
        """503 TOOMANYREQUESTS."""
        self.hub.by_hand = True
        serves = [self.part("bytes=300000-300999") for _ in range(4)]
        fifth = self.begin(self.ask(self.digest, kind="blob", byte_range="bytes=300000-300999"))
        sixth = self.begin(self.ask(self.digest, kind="blob", byte_range="bytes=300000-300999"))
        self.assertNoResult(fifth)
        assert serves[0].body is not None
        serves[0].body.close()
        self.assertEqual(self.serve_of(fifth).outcome, "relay")
        self.clock.advance(5)
        error = self.failureResultOf(sixth, OCIError).value
        self.assertEqual((error.code, error.status), ("TOOMANYREQUESTS", 503))

    def test_a_hostile_namespace_holds_nobody_of_another(self) -> None:
        """It drips the same digest (RULES E1)."""
        self.other.add(DATA)
        self.other.by_hand = True
        for _ in range(4):
            ask = self.ask(self.digest, kind="blob", byte_range="bytes=300000-300999", namespace="evil.example")
            self.served(ask)
        self.assertEqual(self.bytes_of(self.part("bytes=300000-300999")), DATA[300_000:301_000])

    def test_all_together_have_a_bound(self) -> None:
        """Of different blobs."""
        self.build(CoreRules(ranges=evolve(BIG, relays=2)))
        self.hub.by_hand = True
        digests = [self.hub.add(content(400_000, seed=seed)) for seed in (3, 4, 5)]
        for digest in digests[:2]:
            self.served(self.ask(digest, kind="blob", byte_range="bytes=300000-300999"))
        third = self.begin(self.ask(digests[2], kind="blob", byte_range="bytes=300000-300999"))
        self.assertNoResult(third)
        self.core.ingests.abandon_all()
        self.assertEqual(self.serve_of(third).outcome, "relay")

    def test_the_end_of_the_service_stops_relays_too(self) -> None:
        """Whoever reads is cut."""
        self.hub.by_hand = True
        _, sink = self.follow(self.part("bytes=300000-300999"))
        self.core.ingests.abandon_all()
        self.assertEqual(sink.ending, "cut")
        self.assert_at_rest()

    def test_a_missing_blob_takes_no_place_for_long(self) -> None:
        """Each refusal gives it back."""
        for _ in range(10):
            missing = Digest.of(b"missing")
            self.relayed(self.ask(missing, kind="blob", byte_range="bytes=300000-300999"))
