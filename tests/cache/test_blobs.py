"""Blobs by digest: outcome, bytes, and the exact list of upstream requests."""

from __future__ import annotations

from twisted.internet.defer import CancelledError

from tests.cache.house import CacheCase, content, manifest
from tests.doubles import FakeResponse
from txociproxy.asking import MAX_RELAYED_BYTES, SMALL_BODY_S
from txociproxy.oci.errors import OCIError, UpstreamUnreachable
from txociproxy.oci.names import Digest

SMALL = content(1000)
BIG = content(200_000)
IMMUTABLE = "public, max-age=31536000, immutable"


class BlobTests(CacheCase):
    """Blobs."""

    def test_a_miss_is_fetched_once_and_then_a_hit(self) -> None:
        """Also of no bytes, of fewer than the tail, and at its edges."""
        for size_bytes in (0, 1, 32 * 1024 - 1, 32 * 1024, 32 * 1024 + 1, 200_000):
            data = content(size_bytes, seed=size_bytes + 2)
            digest = self.hub.add(data)
            self.assertEqual(self.get(self.ask(digest, kind="blob")), ("miss", data))
            self.assertEqual(self.get(self.ask(digest, kind="blob")), ("hit", data))
            self.asked(f"GET {digest}")
            self.assert_at_rest()

    def test_bytes_that_have_their_digest_are_kept_whatever_coding_they_are_said_to_have(self) -> None:
        """The field is left out (RULES E6)."""
        self.hub.fields = {"Content-Encoding": "gzip"}
        digest = self.hub.add(BIG)
        for outcome in ("miss", "hit"):
            served = self.served(self.ask(digest, kind="blob"))
            self.assertEqual((served.outcome, served.headers), (outcome, ()))
            self.assertEqual(self.bytes_of(served), BIG)

    def test_a_hit_needs_no_upstream(self) -> None:
        """Also a HEAD."""
        digest = self.hub.add(BIG)
        self.get(self.ask(digest, kind="blob"))
        self.hub.down = True
        self.assertEqual(self.get(self.ask(digest, kind="blob")), ("hit", BIG))
        head = self.served(self.ask(digest, "HEAD", "blob"))
        self.assertEqual((head.body, head.outcome, head.descriptor.size_bytes), (None, "hit", len(BIG)))
        self.asked(f"GET {digest}")

    def test_a_blob_has_no_type_and_lives_for_ever(self) -> None:
        """On a miss and on a hit, also when it was fetched as a manifest first."""
        digest = self.hub.add(BIG)
        for _ in range(2):
            serve = self.served(self.ask(digest, kind="blob"))
            self.assertEqual(serve.descriptor.media_type, "application/octet-stream")
            self.assertEqual((serve.cache_control, serve.vary_accept), (IMMUTABLE, False))
            self.bytes_of(serve)
        as_manifest = self.hub.add(manifest("one"))
        self.get(self.ask(as_manifest))
        hit = self.served(self.ask(as_manifest, kind="blob"))
        self.assertEqual((hit.outcome, hit.descriptor.media_type), ("hit", "application/octet-stream"))

    def test_a_head_of_what_is_not_kept_is_a_head(self) -> None:
        """Never a GET, and nothing is kept (RULES D5)."""
        digest = self.hub.add(BIG)
        for _ in range(2):
            head = self.served(self.ask(digest, "HEAD", "blob"))
            self.assertEqual((head.body, head.outcome, head.descriptor.size_bytes), (None, "relay", len(BIG)))
        self.asked(f"HEAD {digest}", f"HEAD {digest}")
        self.assertEqual(self.storage.content, {})

    def test_a_length_that_is_no_number_is_unknown(self) -> None:
        """Not an error of ours."""
        digest = self.hub.add(BIG)
        for text in ("\xb2", "9" * 5000, "-1", ""):
            self.hub_asked.script = lambda _, text=text: FakeResponse(200, {"Content-Length": text})  # type: ignore[misc]
            self.assertIsNone(self.served(self.ask(digest, "HEAD", "blob")).descriptor.size_bytes)

    def test_refusals_are_relayed_and_nothing_is_kept(self) -> None:
        """With their body; each request asks again."""
        digest = self.hub.add(BIG)
        for status in (401, 403, 404, 429, 500, 503):
            self.hub.status = status
            for _ in range(2):
                relay = self.relayed(self.ask(digest, kind="blob"))
                self.assertEqual((relay.status, relay.body, relay.outcome), (status, b'{"errors":[]}', "relay"))
            head = self.relayed(self.ask(digest, "HEAD", "blob"))
            self.assertEqual((head.status, head.body), (status, b""))
            self.asked(f"GET {digest}", f"GET {digest}", f"HEAD {digest}")
        self.hub.status = None
        self.assertEqual(self.get(self.ask(digest, kind="blob")), ("miss", BIG))
        self.assert_at_rest()

    def test_a_refusal_too_long_to_relay_keeps_its_status(self) -> None:
        """Clients go by it; the page is left out, and the place given back."""
        digest = self.hub.add(BIG)
        self.hub_asked.script = lambda _: FakeResponse(403, {}, b"x" * (MAX_RELAYED_BYTES + 1))
        relay = self.relayed(self.ask(digest, kind="blob"))
        self.assertEqual((relay.status, relay.body), (403, b""))
        self.assert_at_rest()

    def test_a_refusal_that_drips_is_given_up(self) -> None:
        """It is never silent, and never ends."""
        digest = self.hub.add(BIG)
        drip = FakeResponse(404, {}, ends=False)
        self.hub_asked.script = lambda _: drip
        asked = self.begin(self.ask(digest, kind="blob"))
        for _ in range(int(SMALL_BODY_S) + 1):
            drip.send(b".")
            self.clock.advance(1)
        self.failureResultOf(asked, UpstreamUnreachable)
        self.assertTrue(drip.transport.lost)
        self.assert_at_rest()

    def test_a_lost_upstream_is_no_answer(self) -> None:
        """UpstreamUnreachable, for the door to make 502 or 504 of it."""
        digest = self.hub.add(BIG)
        self.hub.down = True
        for method in ("GET", "HEAD"):
            self.failureResultOf(self.begin(self.ask(digest, method, "blob")), UpstreamUnreachable)
        self.asked(f"GET {digest}", f"HEAD {digest}")
        self.assert_at_rest()

    def test_a_namespace_without_upstream_is_no_answer(self) -> None:
        """The router refuses it before; here it is merely not there."""
        ask = self.ask(Digest.of(b""), kind="blob", namespace="nowhere.example")
        self.failureResultOf(self.begin(ask), UpstreamUnreachable)

    def test_wrong_bytes_of_a_small_blob_are_asked_for_once_more(self) -> None:
        """Then 502; nothing is kept, and a healthy upstream is believed at once."""
        digest = self.hub.add(SMALL)
        self.hub.content[str(digest)] = b"x" * len(SMALL)
        error = self.failureResultOf(self.begin(self.ask(digest, kind="blob")), OCIError).value
        self.assertEqual((error.code, error.status), ("UNAVAILABLE", 502))
        self.asked(f"GET {digest}", f"GET {digest}")
        self.assertEqual(self.storage.content, {})
        self.assert_at_rest()
        self.hub.add(SMALL)
        self.assertEqual(self.get(self.ask(digest, kind="blob")), ("miss", SMALL))

    def test_wrong_bytes_once_are_not_noticed(self) -> None:
        """The second answer is right."""
        digest = self.hub.add(SMALL)
        answers = [FakeResponse(200, {}, b"<html>" + SMALL[6:], len(SMALL)), FakeResponse(200, {}, SMALL, len(SMALL))]
        self.hub_asked.script = lambda _: answers.pop(0)
        self.assertEqual(self.get(self.ask(digest, kind="blob")), ("miss", SMALL))
        self.asked(f"GET {digest}", f"GET {digest}")

    def test_wrong_bytes_of_a_big_blob_end_short(self) -> None:
        """The client never completes them (law 2); the next pull is right."""
        digest = self.hub.add(BIG)
        self.hub.content[str(digest)] = BIG[:-1] + b"!"
        self.hub.by_hand = True
        serve = self.served(self.ask(digest, kind="blob"))
        _, sink = self.follow(serve)
        self.hub.sent[0].send(BIG[:-1] + b"!")
        self.hub.sent[0].end()
        self.assertEqual(sink.ending, "cut")
        self.assertLess(len(sink.written), len(BIG))
        self.assertEqual(self.storage.content, {})
        self.assert_at_rest()
        self.hub.by_hand = False
        self.hub.add(BIG)
        self.assertEqual(self.get(self.ask(digest, kind="blob")), ("miss", BIG))

    def test_a_body_without_length_works(self) -> None:
        """Its end is the end of the connection; small ones wait for the verdict and then have a length."""
        self.hub.says_length = False
        for data in (SMALL, BIG):
            digest = self.hub.add(data)
            serve = self.served(self.ask(digest, kind="blob"))
            self.assertEqual(self.bytes_of(serve), data)
            self.assertEqual(self.get(self.ask(digest, kind="blob")), ("hit", data))

    def test_a_body_that_breaks_off_is_resumed_with_a_range(self) -> None:
        """The client does not notice (promise 4)."""
        digest = self.hub.add(BIG)
        self.hub.by_hand = True
        _, sink = self.follow(self.served(self.ask(digest, kind="blob")))
        self.hub.sent[0].send(BIG[:100_000])
        self.hub.sent[0].break_off()
        self.hub.sent[1].send(BIG[100_000:])
        self.hub.sent[1].end()
        self.assertEqual((sink.ending, bytes(sink.written)), ("finished", BIG))
        self.asked(f"GET {digest}", f"GET {digest} bytes=100000-")
        self.assert_at_rest()

    def test_a_small_body_that_cannot_be_resumed_is_no_answer(self) -> None:
        """Nothing was sent yet, so the client gets an error and not a cut."""
        digest = self.hub.add(SMALL)
        self.hub.by_hand = True
        d = self.begin(self.ask(digest, kind="blob"))
        self.hub.sent[0].send(SMALL[:10])
        self.hub.down = True
        self.hub.sent[0].break_off()
        self.clock.pump([1.0] * 10)
        self.failureResultOf(d, UpstreamUnreachable)
        self.assert_at_rest()

    def test_credentials_that_are_refused_fall_back_to_none(self) -> None:
        """401 and 403; without credentials nothing is asked twice."""
        digest = self.hub.add(BIG)
        for status in (401, 403):
            self.hub.refuses = {"Basic eA==": status}
            answer = self.get(self.ask(digest, kind="blob", authorization="Basic eA=="))
            self.assertEqual(answer, ("miss", BIG))
            self.assertEqual([r.authorization for r in self.hub_asked.requests], ["Basic eA==", None])
            self.assertTrue(self.successResultOf(self.storage.remove(digest)))
            head = self.served(self.ask(digest, "HEAD", "blob", authorization="Basic eA=="))
            self.assertEqual(head.outcome, "relay")
            self.asked(f"GET {digest}", f"GET {digest}", f"HEAD {digest}", f"HEAD {digest}")
        self.hub.refuses = {None: 401}
        self.assertEqual(self.relayed(self.ask(digest, kind="blob")).status, 401)
        self.asked(f"GET {digest}")

    def test_a_running_ingest_does_not_hold_up_a_head(self) -> None:
        """HEAD goes upstream."""
        digest = self.hub.add(BIG)
        self.hub.by_hand = True
        serve = self.served(self.ask(digest, kind="blob"))
        self.served(self.ask(digest, "HEAD", "blob"))
        self.asked(f"GET {digest}", f"HEAD {digest}")
        assert serve.body is not None
        serve.body.close()
        self.core.ingests.abandon_all()
        self.assert_at_rest()

    def test_a_client_that_leaves_before_the_answer_leaves_nothing(self) -> None:
        """The ask is cancelled and the place given back."""
        digest = self.hub.add(BIG)
        self.hub.holding = True
        d = self.begin(self.ask(digest, kind="blob"))
        d.cancel()
        self.failureResultOf(d, CancelledError)
        self.assertEqual(self.hub.cancelled, 1)
        self.assert_at_rest()

    def test_headers_are_replayed_only_in_their_namespace(self) -> None:
        """The bytes are shared, what one upstream said about them is not (RULES E10)."""
        digest = self.hub.add(BIG)
        self.other.add(BIG)
        self.hub.fields = {"X-Shipped": "yes", "Set-Cookie": "no", "Server": "no"}
        for outcome in ("miss", "hit"):
            serve = self.served(self.ask(digest, kind="blob"))
            self.assertEqual((serve.outcome, serve.headers), (outcome, (("X-Shipped", "yes"),)))
            self.bytes_of(serve)
        foreign = self.served(self.ask(digest, kind="blob", namespace="evil.example"))
        self.assertEqual((foreign.outcome, foreign.headers), ("hit", ()))
        self.assertEqual(self.other_asked.seen, [])
