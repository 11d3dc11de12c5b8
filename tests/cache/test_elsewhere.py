"""Blobs that lie elsewhere: who is sent there, with what, and what happens when nobody can be (RULES D4, E10)."""

from __future__ import annotations

from attrs import evolve
from twisted.internet.defer import CancelledError

from tests.cache.far_case import CARRIED, FarCase
from tests.cache.house import content
from tests.cache.places import BLOB_TYPE, far_answer
from txociproxy.admissions import Admissions
from txociproxy.asking import Asking
from txociproxy.interfaces import Ask, Relay, Serve
from txociproxy.modes import Authenticated
from txociproxy.oci.errors import StorageUnavailable, UpstreamUnreachable
from txociproxy.upstreams.entries.entry import Entry

DATA = content(200_000)
HEADERS = (("X-Kept", "from the upstream"),)
DAY = 86_400.0


class RedirectTests(FarCase):
    """A blob that is elsewhere, and at the upstream too."""

    def setUp(self) -> None:
        """Both have it."""
        super().setUp()
        self.digest = self.far.put(DATA, "some/type", HEADERS)
        self.hub.add(DATA)

    def blob(self, client: str = "192.0.2.1", byte_range: str | None = None, namespace: str = "docker.io") -> Ask:
        """Return an ask for it."""
        return self.ask(self.digest, kind="blob", client=client, byte_range=byte_range, namespace=namespace)

    def test_a_hit_is_a_redirect(self) -> None:
        """To a signed address, kept for less than that lives; nothing is read and nobody asked."""
        redirect = self.redirected(self.pull(self.blob()))
        self.assertEqual(redirect.url, f"https://bucket.test/{self.digest.hex}?signature=secret")
        self.assertEqual((redirect.outcome, redirect.expires_s), ("hit", 900.0))
        self.assertEqual(redirect.cache_control, "private, max-age=890")
        self.assertEqual((redirect.descriptor.digest, redirect.descriptor.size_bytes), (self.digest, len(DATA)))
        self.read()
        self.asked()
        self.assertEqual(self.far.turns_asked, 0)
        self.assert_at_rest()

    def test_a_range_is_redirected_like_any_other(self) -> None:
        """The client asks there with the same Range."""
        self.redirected(self.pull(self.blob(byte_range="bytes=-10")))
        self.redirected(self.pull(self.blob(byte_range="bytes=900000-")))
        self.read()

    def test_an_address_that_is_about_to_end_is_not_kept(self) -> None:
        """A negative age is no age."""
        for life_s, kept_s in ((10.9, 0), (10.0, 0), (12.5, 2)):
            self.far.life_s = life_s
            self.assertEqual(self.redirected(self.pull(self.blob())).cache_control, f"private, max-age={kept_s}")

    def test_an_address_that_a_client_could_miss_is_given_to_nobody(self) -> None:
        """Our credentials end within seconds: the blob comes through us."""
        self.far.life_s = 9.9
        self.assertEqual(self.get(self.blob()), ("hit", DATA))
        self.read("all")
        self.asked()
        self.assert_at_rest()

    def test_a_head_is_answered_here(self) -> None:
        """Size, type, digest; a HEAD on an address that is signed for GET fails."""
        serve = self.served(evolve(self.blob(), method="HEAD"))
        self.assertEqual((serve.outcome, serve.body, serve.headers), ("hit", None, HEADERS))
        self.assertEqual((serve.descriptor.size_bytes, serve.descriptor.media_type), (len(DATA), BLOB_TYPE))
        self.assertEqual(serve.cache_control, "public, max-age=31536000, immutable")
        self.far.down = self.far.unsigned = True
        self.served(evolve(self.blob(), method="HEAD"))
        self.read()
        self.asked()

    def test_fields_of_another_registry_are_not_replayed(self) -> None:
        """To whom they did not come from (RULES E10), in a HEAD and in a body."""
        self.carry()
        for method in ("HEAD", "GET"):
            serve = self.served(evolve(self.blob(namespace="evil.example"), method=method))
            self.assertEqual(serve.headers, ())
            if serve.body is not None:
                serve.body.close()
        self.assertEqual(self.served(self.blob()).headers, HEADERS)

    def test_only_what_is_longer_is_redirected(self) -> None:
        """The bound itself is not above the bound; nothing at all is sent where nothing shall be."""
        for above_bytes, is_sent in ((0, True), (len(DATA) - 1, True), (len(DATA), False), (None, False)):
            self.redirect(above_bytes)
            answer = self.pull(self.blob())
            self.assertEqual(isinstance(answer, Serve), not is_sent, above_bytes)
            if isinstance(answer, Serve):
                self.assertEqual(self.bytes_of(answer), DATA)
        self.read("all", "all")
        self.asked()

    def test_a_size_that_is_not_known_counts_as_long(self) -> None:
        """It could be anything."""
        self.far.says_size = False
        self.redirect(1000)
        self.redirected(self.pull(self.blob()))
        self.carry()
        self.assertEqual(self.get(self.blob(byte_range="bytes=10-")), ("hit", DATA))

    def test_nothing_is_no_reason_to_send_a_client_away(self) -> None:
        """An empty blob comes from here."""
        digest = self.far.put(b"")
        self.assertEqual(self.get(self.ask(digest, kind="blob")), ("hit", b""))
        self.assert_at_rest()

    def test_some_networks_are_never_sent_there(self) -> None:
        """However their addresses are written; who has none lies in no network."""
        self.redirect(0, "192.0.2.0/28", "2001:db8::/32")
        for client, is_sent in (
            ("192.0.2.1", False),
            ("::ffff:192.0.2.15", False),
            ("192.0.2.16", True),
            ("2001:db8::1", False),
            ("2001:db9::1", True),
            ("fe80::1%eth0", True),
            ("-", True),
            ("", True),
        ):
            answer = self.pull(self.blob(client))
            self.assertEqual(isinstance(answer, Serve), not is_sent, client)
            if isinstance(answer, Serve):
                self.assertEqual((answer.outcome, self.bytes_of(answer)), ("hit", DATA))
        self.assert_at_rest()

    def test_an_old_blob_is_confirmed_before_it_is_redirected(self) -> None:
        """As one that is here; one that is gone closes nothing, since nothing is open."""
        entry = Entry("docker.io", ("http://upstream.test",), library=True, blob_invalidation_time_s=DAY)
        self.registry.entries["docker.io"] = entry
        self.redirected(self.pull(self.blob()))
        self.asked()
        self.clock.advance(DAY + 1)
        self.redirected(self.pull(self.blob()))
        self.asked(f"HEAD {self.digest}")
        self.clock.advance(DAY + 1)
        self.hub.status = 404
        self.assertEqual(self.relayed(self.blob()).status, 404)
        self.asked(f"HEAD {self.digest}")
        self.hub.status, self.hub.holding = None, True
        leaving = self.begin(self.blob())
        leaving.cancel()
        self.failureResultOf(leaving, CancelledError)
        self.assert_at_rest()

    def test_what_is_held_for_others_is_a_miss(self) -> None:
        """Only its own namespace is sent there (RULES D3)."""
        secret = content(1000, seed=7)
        digest = self.far.put(secret, namespace="evil.example", held=True)
        self.redirected(self.pull(self.ask(digest, kind="blob", namespace="evil.example")))
        self.assertEqual(self.relayed(self.ask(digest, kind="blob")).status, 404)
        self.asked(f"GET {digest}")


class TroubleTests(FarCase):
    """The place is no good; upstream is (never an error because of the storage)."""

    def setUp(self) -> None:
        """Both have it."""
        super().setUp()
        self.digest = self.far.put(DATA)
        self.hub.add(DATA)

    def blob(self, byte_range: str | None = None) -> Ask:
        """Return an ask for it."""
        return self.ask(self.digest, kind="blob", byte_range=byte_range)

    def test_an_address_that_cannot_be_signed_is_a_miss(self) -> None:
        """Straight from upstream; a HEAD needs no signature."""
        self.far.unsigned = True
        self.assertEqual(self.get(self.blob()), ("miss", DATA))
        self.asked(f"GET {self.digest}")
        self.read()
        self.assertEqual(self.far.turns_asked, 0)

    def test_a_place_that_cannot_be_read_is_a_miss(self) -> None:
        """Whole or in part."""
        self.carry()
        self.far.down = True
        self.assertEqual(self.get(self.blob()), ("miss", DATA))
        self.asked(f"GET {self.digest}")
        self.assertEqual(self.get(self.blob("bytes=-10")), ("relay", DATA[-10:]))
        self.asked(f"GET {self.digest} bytes=-10", f"GET {self.digest}")
        self.read("all", "bytes=199990-199999")
        self.assert_at_rest()

    def test_a_store_that_cannot_tell_is_a_miss(self) -> None:
        """It is asked once."""
        self.far.find_fails = True
        self.assertEqual(self.get(self.blob()), ("miss", DATA))
        self.asked(f"GET {self.digest}")

    def test_with_the_upstream_lost_as_well_that_is_told(self) -> None:
        """As on a miss: 502, and not an error of the storage."""
        self.hub.down = True
        self.far.unsigned = True
        self.failureResultOf(self.begin(self.blob()), UpstreamUnreachable)
        self.carry()
        self.far.down = True
        for byte_range in (None, "bytes=0-9"):
            self.failureResultOf(self.begin(self.blob(byte_range)), UpstreamUnreachable)
        self.assert_at_rest()

    def test_a_place_that_was_busy_is_asked_again_when_the_upstream_has_nothing(self) -> None:
        """Nobody is told of an upstream that is lost, fails, counts or refuses: a hit asks it nothing."""
        self.carry()
        for lost, status in ((True, None), (False, 503), (False, 429), (False, 404), (False, 403), (False, 401)):
            self.hub.down, self.hub.status = lost, status
            for byte_range, wanted in ((None, DATA), ("bytes=5-9", DATA[5:10])):
                busy: list[Exception] = [StorageUnavailable("busy")]
                self.far.script = lambda _, busy=busy: busy.pop() if busy else None  # type: ignore[misc]
                self.assertEqual(self.get(self.blob(byte_range)), ("hit", wanted))
        self.far.script = lambda _: StorageUnavailable("busy")
        self.assertEqual(self.relayed(self.blob()).status, 401, "and what is said in the end is the upstream's")
        self.assert_at_rest()

    def test_an_answer_that_is_not_this_content_is_trouble(self) -> None:
        """Another status, length or part; it is closed, and upstream asked."""
        self.carry()
        for bad, byte_range in (
            (far_answer(DATA[:-1], None, False), None),
            (far_answer(DATA, "bytes=0-", False), None),
            (far_answer(DATA, "bytes=1-10", False), "bytes=0-9"),
            (far_answer(DATA, "bytes=1-9", False), "bytes=0-9"),
            (far_answer(DATA, "bytes=0-10", False), "bytes=0-9"),
            (far_answer(DATA + b"x", "bytes=0-9", False), "bytes=0-9"),
            (far_answer(DATA, None, False), "bytes=0-9"),
        ):
            self.far.script = lambda _, bad=bad: bad  # type: ignore[misc]
            serve = self.served(self.blob(byte_range))
            self.assertNotEqual(serve.outcome, "hit")
            self.assertTrue(bad.transport.lost)
            self.assertEqual(self.bytes_of(serve), DATA if byte_range is None else DATA[:10])
        self.assertEqual(self.far.removed, [])
        self.assert_at_rest()


class AuthenticatedTests(FarCase):
    """The upstream decides about each client before it is sent anywhere (RULES D1, D4)."""

    def setUp(self) -> None:
        """Everybody but Alice is refused."""
        super().setUp()
        self.digest = self.far.put(DATA)
        self.hub.add(DATA)
        self.hub.refuses = {None: 401, "Bearer mallory": 403}
        asking = Asking(self.registry, self.clock, True)
        self.mode = Authenticated(asking, Admissions(self.clock.seconds, 0.0, b"k" * 32))
        self.build(self.rules, self.far, self.mode)

    def blob(self, who: str | None = "Bearer alice") -> Ask:
        """Return an ask for the blob."""
        return self.ask(self.digest, kind="blob", authorization=who)

    def test_each_redirect_is_admitted_first_and_kept_by_nobody(self) -> None:
        """One HEAD each; no-store."""
        for _ in range(2):
            redirect = self.redirected(self.pull(self.blob()))
            self.assertEqual((redirect.cache_control, redirect.outcome), ("no-store", "hit"))
            self.asked(f"HEAD {self.digest}")

    def test_who_is_refused_gets_no_address(self) -> None:
        """Nothing is signed for him."""
        self.far.unsigned = True
        for who, status in ((None, 401), ("Bearer mallory", 403)):
            self.assertEqual(self.relayed(self.blob(who)).status, status)
        self.asked(f"HEAD {self.digest}", f"HEAD {self.digest}")

    def test_a_client_that_is_not_admitted_yet_is_not_sent(self) -> None:
        """The HEAD is out; with upstream lost there is no redirect at all."""
        self.hub.holding = True
        waiting = self.begin(self.blob())
        self.assertNoResult(waiting)
        self.assertEqual(self.far.finds, 0)
        self.hub.down = True
        self.hub.answer()
        self.failureResultOf(waiting, UpstreamUnreachable)

    def test_who_is_refused_after_all_is_not_served_by_a_place_that_was_busy(self) -> None:
        """She was admitted a moment ago, and the last word is a no; an upstream that only fails has said none."""
        self.build(evolve(self.rules, redirects=CARRIED), self.far, self.mode)
        self.hub.holding = True
        for status, wanted in ((403, None), (404, None), (503, DATA)):
            busy: list[Exception] = [StorageUnavailable("busy")]
            self.far.script = lambda _, busy=busy: busy.pop() if busy else None  # type: ignore[misc]
            waiting = self.begin(self.blob())
            self.hub.status = None
            self.hub.answer()
            self.hub.status = status
            self.hub.answer()
            if wanted is None:
                answer = self.successResultOf(waiting)
                assert isinstance(answer, Relay)
                self.assertEqual(answer.status, status)
            else:
                self.assertEqual(self.bytes_of(self.serve_of(waiting)), wanted)
        self.assert_at_rest()

    def test_a_head_is_answered_with_what_upstream_said(self) -> None:
        """The store is not asked."""
        serve = self.served(evolve(self.blob(), method="HEAD"))
        self.assertEqual((serve.outcome, self.far.finds), ("relay", 0))
        self.asked(f"HEAD {self.digest}")

    def test_a_carried_blob_is_private_and_gone_on_with_in_the_clients_name(self) -> None:
        """What the place does not give, upstream does: to her."""
        self.build(evolve(self.rules, redirects=CARRIED), self.far, self.mode)
        self.far.by_hand = True
        serve = self.served(self.blob())
        self.assertEqual(serve.cache_control, "private, max-age=31536000, immutable")
        _, sink = self.follow(serve)
        self.far.sent[0].send(DATA[:100_000])
        self.far.down = True
        self.far.sent[0].break_off()
        self.clock.advance(1)
        self.assertEqual((sink.ending, bytes(sink.written)), ("finished", DATA))
        self.assertEqual({request.authorization for request in self.hub_asked.requests}, {"Bearer alice"})
        self.asked(f"HEAD {self.digest}", f"GET {self.digest} bytes=100000-")
        self.read("all", "bytes=100000-")
        self.assert_at_rest()
