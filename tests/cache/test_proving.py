"""Manifests that lie elsewhere: never a redirect, read once, proven, remembered (RULES E3, H)."""

from __future__ import annotations

import json

from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.iweb import UNKNOWN_LENGTH

from tests.cache.far_case import FarCase
from tests.cache.house import manifest
from tests.cache.places import BLOB_TYPE, far_answer
from txociproxy.oci.errors import UpstreamUnreachable
from txociproxy.oci.manifests import MAX_MANIFEST_BYTES, OCI_INDEX, OCI_MANIFEST
from txociproxy.oci.names import Digest
from txociproxy.proving import AGAIN_S, Proven

ONE = manifest("one")
HEADERS = (("X-Kept", "a"),)


class ProvingTests(FarCase):
    """A manifest elsewhere, and at the upstream too."""

    def setUp(self) -> None:
        """Clients are sent away for blobs."""
        super().setUp()
        self.digest = self.far.put(ONE, OCI_MANIFEST, HEADERS)
        self.hub.tag("1", ONE)

    def test_it_is_served_from_here_and_read_once(self) -> None:
        """The store is asked each time whether it is there; its bytes are not."""
        for _ in range(3):
            serve = self.served(self.ask(self.digest))
            self.assertEqual((serve.outcome, serve.headers), ("hit", HEADERS))
            self.assertEqual((serve.descriptor.media_type, serve.descriptor.size_bytes), (OCI_MANIFEST, len(ONE)))
            self.assertEqual(self.bytes_of(serve), ONE)
        self.assertIsNone(self.served(self.ask(self.digest, "HEAD")).body)
        self.read("all")
        self.assertEqual(self.far.finds, 4)
        self.asked()
        self.assert_at_rest()

    def test_a_tag_finds_it(self) -> None:
        """With one HEAD, and then without."""
        for requests in (("GET 1",), ()):
            self.assertEqual(self.get(self.ask("1"))[1], ONE)
            self.asked(*requests)
        self.read("all")

    def test_what_is_gone_is_gone(self) -> None:
        """Memory is no store: what the store does not have any more is asked for upstream."""
        self.get(self.ask(self.digest))
        self.far.content.clear()
        self.far.copies = self.storage
        self.assertEqual(self.get(self.ask(self.digest)), ("miss", ONE))
        self.asked(f"GET {self.digest}")

    def test_what_is_held_stays_held(self) -> None:
        """Though its bytes are remembered, no other namespace sees them (RULES D3)."""
        secret = manifest("secret")
        digest = self.far.put(secret, OCI_MANIFEST, namespace="evil.example", held=True)
        self.assertEqual(self.get(self.ask(digest, namespace="evil.example")), ("hit", secret))
        self.assertEqual(self.relayed(self.ask(digest)).status, 404)
        self.asked(f"GET {digest}")

    def test_those_who_ask_together_read_once(self) -> None:
        """And who leaves takes nobody along."""
        self.far.holding = True
        waiting = [self.begin(self.ask(self.digest)) for _ in range(20)]
        waiting[0].cancel()
        self.failureResultOf(waiting[0], CancelledError)
        self.far.answer()
        self.assertEqual({self.bytes_of(self.serve_of(d)) for d in waiting[1:]}, {ONE})
        self.read("all")
        self.assert_at_rest()

    def test_when_all_leave_the_read_ends(self) -> None:
        """Before the answer, and in the midst of it."""
        self.far.holding = True
        self.leave_all()
        self.assertEqual(self.far.held, [])
        self.far.holding, self.far.by_hand = False, True
        self.leave_all()
        self.assertTrue(self.far.sent[-1].transport.lost)
        self.assert_at_rest()

    def leave_all(self) -> None:
        """Let three clients ask and go."""
        for d in [self.begin(self.ask(self.digest)) for _ in range(3)]:
            d.cancel()
            self.failureResultOf(d, CancelledError)

    def test_wrong_bytes_are_forgotten_and_fetched(self) -> None:
        """Nobody sees them, and they are not remembered."""
        self.far.others[self.digest] = manifest("two")
        waiting = [self.begin(self.ask(self.digest)) for _ in range(3)]
        self.assertEqual({self.bytes_of(self.serve_of(d)) for d in waiting}, {ONE})
        self.assertEqual(self.far.removed[0], self.digest)
        self.far.others.clear()
        self.assertEqual(self.get(self.ask(self.digest)), ("hit", ONE))

    def test_trouble_is_a_miss(self) -> None:
        """No answer, another status, one that breaks off, another length; it is found out by one for all."""
        broken = far_answer(ONE, None, ends=False)
        for trouble in (None, far_answer(ONE, "bytes=0-"), broken, far_answer(ONE + b" ", None)):
            self.far.down = trouble is None
            self.far.script = lambda _, trouble=trouble: trouble  # type: ignore[misc]
            self.far.holding = self.hub.holding = True
            waiting = [self.begin(self.ask(self.digest)) for _ in range(5)]
            self.far.answer()
            if trouble is broken:
                broken.send(ONE[:10])
                broken.break_off()
            self.hub.answer()
            self.assertEqual({self.bytes_of(self.serve_of(d)) for d in waiting}, {ONE})
            self.read("all")
            self.asked(f"GET {self.digest}")
        self.assertEqual(self.far.removed, [])
        self.assert_at_rest()

    def test_a_place_that_hangs_is_waited_for_five_seconds(self) -> None:
        """In all: before its answer, or while that drips."""
        for drips in (False, True):
            self.far.holding, self.far.by_hand = not drips, True
            d = self.begin(self.ask(self.digest))
            for _ in range(49):
                self.clock.advance(0.1)
                if drips:
                    self.far.sent[-1].send(b"x")
            self.assertNoResult(d)
            self.clock.advance(0.2)
            self.assertEqual(self.bytes_of(self.serve_of(d)), ONE)
            self.asked(f"GET {self.digest}")
            self.clock.advance(AGAIN_S)
        self.assertTrue(self.far.sent[-1].transport.lost)
        self.assert_at_rest()

    def test_a_place_that_hung_is_left_alone_for_a_while(self) -> None:
        """A pull asks more than once, and the next one comes soon: nobody waits again for the same manifest."""
        self.assertEqual(self.get(self.ask("1"))[1], ONE)
        self.far.by_hand = True
        self.build(self.rules, self.far)
        d = self.begin(self.ask("1"))
        self.clock.advance(5)
        self.assertEqual(self.bytes_of(self.serve_of(d)), ONE)
        self.assertEqual(self.get(self.ask(self.digest))[1], ONE)
        self.assertEqual(len(self.far.reads), 1)
        self.far.by_hand = False
        self.clock.advance(AGAIN_S)
        self.assertEqual(self.get(self.ask(self.digest)), ("hit", ONE))
        self.assertEqual(len(self.far.reads), 2)

    def test_with_the_upstream_lost_as_well_that_is_told(self) -> None:
        """No error of the storage."""
        self.far.down = self.hub.down = True
        self.failureResultOf(self.begin(self.ask(self.digest)), UpstreamUnreachable)

    def test_what_is_too_long_for_a_manifest_is_not_read(self) -> None:
        """Nor more than that of what has no length."""
        digest = self.far.put(b"{" + b" " * MAX_MANIFEST_BYTES)
        self.assertEqual(self.relayed(self.ask(digest)).status, 404)
        self.read()
        self.far.says_size = False
        endless = far_answer(b"", None, ends=False)
        endless.length = UNKNOWN_LENGTH
        self.far.script = lambda _: endless
        d = self.begin(self.ask(digest))
        endless.send(b"x" * (MAX_MANIFEST_BYTES + 1))
        self.assertEqual(getattr(self.successResultOf(d), "status", None), 404)
        self.assertTrue(endless.transport.lost)
        self.assert_at_rest()

    def test_its_length_is_that_of_its_bytes(self) -> None:
        """Where the store does not say it."""
        self.far.says_size = False
        serve = self.served(self.ask(self.digest))
        self.assertEqual((serve.outcome, serve.descriptor.size_bytes), ("hit", len(ONE)))

    def test_only_a_manifest_is_a_manifest(self) -> None:
        """Its own type, or that which its own registry said; no blob, and no other registry's word (RULES E3)."""
        bare = json.dumps({"schemaVersion": 2, "config": {}, "layers": []}).encode()
        found = self.far.put(bare, "application/vnd.other", namespace="evil.example")
        self.assertEqual(self.served(self.ask(found)).descriptor.media_type, OCI_MANIFEST)
        own = self.ask(found, namespace="evil.example")
        self.assertEqual(self.served(own).descriptor.media_type, "application/vnd.other")
        index = self.far.put(manifest("index", OCI_INDEX), BLOB_TYPE)
        self.assertEqual(self.served(self.ask(index)).descriptor.media_type, OCI_INDEX)
        blob = self.far.put(b"no manifest at all")
        self.assertEqual(self.relayed(self.ask(blob)).status, 404)
        self.asked(f"GET {blob}")
        self.assert_at_rest()

    def test_it_is_proven_by_the_algorithm_of_its_digest(self) -> None:
        """sha512 is a digest too."""
        digest = Digest.of(ONE, "sha512")
        kept = self.far.content[self.digest]
        self.far.content[digest] = evolve(kept, descriptor=evolve(kept.descriptor, digest=digest))
        self.assertEqual(self.get(self.ask(digest)), ("hit", ONE))
        self.assertEqual(self.far.removed, [])


class ProvenTests(SynchronousTestCase):
    """The memory."""

    def test_what_was_used_longest_ago_makes_room(self) -> None:
        """By number and by bytes."""
        memory = Proven(max_count=2, max_bytes=10)
        one, two, three = (Digest.of(data) for data in (b"1", b"2", b"3"))
        memory.remember(one, b"1")
        memory.remember(two, b"2")
        self.assertEqual(memory.recall(one), b"1")
        memory.remember(three, b"3")
        self.assertEqual((memory.recall(one), memory.recall(two), memory.recall(three)), (b"1", None, b"3"))
        memory.remember(two, b"2" * 10)
        self.assertEqual((memory.recall(one), memory.recall(three), memory.used_bytes), (None, None, 10))
        memory.remember(one, b"1" * 11)
        self.assertEqual((memory.recall(one), memory.used_bytes), (None, 0))

    @settings(max_examples=50, deadline=None)
    @given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 30))))
    def test_it_never_holds_more_than_it_may(self, steps: list[tuple[int, int]]) -> None:
        """Whatever comes, twice too; and its count of bytes is right."""
        memory = Proven(max_count=4, max_bytes=50)
        for name, size_bytes in steps:
            memory.remember(Digest.of(bytes([name])), b"x" * size_bytes)
            held = [memory.recall(Digest.of(bytes([n]))) for n in range(10)]
            sizes = [len(data) for data in held if data is not None]
            self.assertEqual(sum(sizes), memory.used_bytes)
            self.assertLessEqual((len(sizes) <= 4, memory.used_bytes <= 50), (True, True))
