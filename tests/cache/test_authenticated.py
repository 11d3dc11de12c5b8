"""Authenticated mode: the upstream decides about each pull, the store only saves the bytes (RULES D1, D2, D4)."""

from __future__ import annotations

from typing import Literal

from attrs import evolve
from twisted.internet.defer import Deferred

from tests.cache.house import CacheCase, content, manifest
from tests.doubles import FakeResponse, FakeSink, Request
from txociproxy.admissions import Admissions
from txociproxy.asking import Asking
from txociproxy.cache import Answer
from txociproxy.interfaces import Ask, Credentials, Relay, Serve
from txociproxy.modes import Authenticated
from txociproxy.oci.errors import UpstreamUnreachable
from txociproxy.oci.manifests import OCI_INDEX
from txociproxy.oci.names import Digest, Repository

BLOB = content(300_000)
MANIFEST = manifest("one", OCI_INDEX)
NEXT = manifest("two", OCI_INDEX)
ALICE, MALLORY = "Bearer alice", "Bearer mallory"
IMMUTABLE = "private, max-age=31536000, immutable"


class AuthenticatedCase(CacheCase):
    """A core that asks the upstream about each pull; everybody but Alice is refused."""

    auth_cache_s = 0.0

    def setUp(self) -> None:
        """Make the mode; upstream has a blob and a tag."""
        super().setUp()
        asking = Asking(self.registry, self.clock, True)
        self.admissions = Admissions(self.clock.seconds, self.auth_cache_s, b"k" * 32)
        self.build(self.rules, mode=Authenticated(asking, self.admissions))
        self.digest = self.hub.add(BLOB)
        self.hub.tag("1", MANIFEST)
        self.hub.refuses = {None: 401, MALLORY: 403}

    def blob(self, who: str | None = ALICE, method: Literal["GET", "HEAD"] = "GET") -> Ask:
        """Return an ask for the blob."""
        ask = self.ask(self.digest, kind="blob", authorization=who)
        return evolve(ask, method=method)

    def tag(self, who: str | None = ALICE, method: Literal["GET", "HEAD"] = "GET", name: str = "1") -> Ask:
        """Return an ask for the tag."""
        return evolve(self.ask(name, authorization=who), method=method)


class PullTests(AuthenticatedCase):
    """Each path, with the exact requests upstream."""

    def test_a_miss_is_admitted_and_fetched_in_the_clients_name(self) -> None:
        """A HEAD and a GET with her own credential, and nobody else's."""
        self.hub_asked.has_own_credentials = True
        self.assertEqual(self.get(self.blob()), ("miss", BLOB))
        self.assertEqual({request.authorization for request in self.hub_asked.requests}, {ALICE})
        self.assertFalse(any(request.own for request in self.hub_asked.requests))
        self.asked(f"HEAD {self.digest}", f"GET {self.digest}")
        self.assert_at_rest()

    def test_a_hit_costs_one_head_and_is_private(self) -> None:
        """The body comes from the store."""
        self.get(self.blob())
        self.hub_asked.requests.clear()
        serve = self.served(self.blob())
        self.assertEqual((serve.outcome, serve.cache_control, self.bytes_of(serve)), ("hit", IMMUTABLE, BLOB))
        self.asked(f"HEAD {self.digest}")

    def test_who_is_refused_gets_the_refusal_warm_and_cold(self) -> None:
        """401, 403, 404 and 429 are relayed; nothing is fetched and nothing served."""
        for warm in (False, True):
            if warm:
                self.get(self.blob())
            for status in (401, 403, 404, 429):
                self.hub.refuses = {MALLORY: status}
                self.hub_asked.requests.clear()
                self.assertEqual(self.relayed(self.blob(MALLORY)).status, status)
                self.asked(f"HEAD {self.digest}")

    def test_a_client_without_credentials_is_asked_for_as_nobody(self) -> None:
        """And gets what anybody may have."""
        self.get(self.blob())
        self.assertEqual(self.relayed(self.blob(None)).status, 401)
        self.hub.refuses = {}
        self.assertEqual(self.get(self.blob(None)), ("hit", BLOB))

    def test_a_lost_upstream_serves_nothing(self) -> None:
        """Kept or not, by digest or by tag, GET or HEAD."""
        self.get(self.blob())
        self.get(self.tag())
        self.hub.down = True
        for ask in (self.blob(), self.tag(), self.blob(method="HEAD"), self.tag(method="HEAD")):
            self.failureResultOf(self.begin(ask), UpstreamUnreachable)

    def test_a_page_admits_nobody(self) -> None:
        """A portal answers everything with 200 and HTML."""
        self.get(self.blob())
        self.hub_asked.script = lambda _: FakeResponse(200, {"Content-Type": "text/html; charset=utf-8"}, b"")
        self.failureResultOf(self.begin(self.blob()), UpstreamUnreachable)

    def test_a_server_error_is_relayed_and_serves_nothing(self) -> None:
        """It is no yes."""
        self.get(self.blob())
        self.hub.status = 503
        self.assertEqual(self.relayed(self.blob()).status, 503)

    def test_one_byte_admits_as_well_as_a_head(self) -> None:
        """Where a HEAD cannot tell; the length is in the Content-Range."""
        fields = {"Content-Range": f"bytes 0-0/{len(BLOB)}"}
        self.hub_asked.script = lambda _: FakeResponse(206, fields, b"")
        serve = self.served(self.blob(method="HEAD"))
        self.assertEqual(serve.descriptor.size_bytes, len(BLOB))
        relay = self.relayed(self.tag(method="HEAD"))
        self.assertEqual((relay.status, relay.content_length, relay.headers), (200, len(BLOB), ()))

    def test_head_is_always_asked_upstream(self) -> None:
        """Kept content too; the answer is the upstream's."""
        self.get(self.blob())
        self.hub.fields = {"X-Custom": "yes"}
        self.hub_asked.requests.clear()
        serve = self.served(self.blob(method="HEAD"))
        self.assertEqual((serve.body, serve.outcome, serve.cache_control), (None, "relay", IMMUTABLE))
        self.assertEqual((serve.descriptor.digest, serve.descriptor.size_bytes), (self.digest, len(BLOB)))
        self.assertIn(("X-Custom", "yes"), serve.headers)
        self.asked(f"HEAD {self.digest}")

    def test_a_digest_is_admitted_for_the_repository_that_was_asked(self) -> None:
        """Alice cannot get Bob's layer through her own repository (RULES D1)."""
        self.get(self.blob())
        wanted = str(self.blob().pull.repository)
        plain = self.hub_asked.script
        self.hub_asked.script = lambda request: (
            plain(request) if request.repository == wanted else FakeResponse(404, {}, b"")
        )
        ask = self.blob()
        elsewhere = evolve(ask, pull=evolve(ask.pull, repository=Repository.parse("alice/app")))
        self.assertEqual(self.relayed(elsewhere).status, 404)


class TagTests(AuthenticatedCase):
    """The HEAD of a tag says which content is meant."""

    def test_a_tag_means_what_upstream_has_just_said(self) -> None:
        """Cold, warm, and after it has moved."""
        first, second = Digest.of(MANIFEST), Digest.of(NEXT)
        self.assertEqual(self.get(self.tag()), ("miss", MANIFEST))
        self.asked("HEAD 1", f"GET {first}")
        serve = self.served(self.tag())
        self.assertEqual((serve.outcome, self.bytes_of(serve), serve.vary_accept), ("hit", MANIFEST, True))
        self.assertEqual(serve.cache_control, "private, max-age=2419200")
        self.asked("HEAD 1")
        self.hub.tag("1", NEXT)
        self.assertEqual(self.get(self.tag()), ("miss", NEXT))
        self.asked("HEAD 1", f"GET {second}")

    def test_a_removed_tag_is_gone_at_once(self) -> None:
        """No stale answer."""
        self.get(self.tag())
        del self.hub.tags["1"]
        self.assertEqual(self.relayed(self.tag()).status, 404)

    def test_head_of_a_tag(self) -> None:
        """Digest, type and length as upstream says."""
        serve = self.served(self.tag(method="HEAD"))
        expected = (Digest.of(MANIFEST), len(MANIFEST), OCI_INDEX)
        descriptor = serve.descriptor
        self.assertEqual((descriptor.digest, descriptor.size_bytes, descriptor.media_type), expected)
        self.asked("HEAD 1")

    def test_a_registry_that_does_not_say_the_digest(self) -> None:
        """The tag itself is fetched each time; its HEAD is relayed."""
        self.hub.says_digest = False
        for _ in range(2):
            self.assertEqual(self.get(self.tag()), ("miss", MANIFEST))
            self.asked("HEAD 1", "GET 1")
        answer = self.relayed(self.tag(method="HEAD"))
        self.assertEqual((answer.status, answer.content_length), (200, len(MANIFEST)))
        self.hub.refuses = {ALICE: 403}
        self.assertEqual(self.relayed(self.tag()).status, 403)

    def test_a_refusal_of_the_get_after_the_head_is_relayed(self) -> None:
        """The quota ends between the two."""
        self.hub_asked.script = lambda request: (
            FakeResponse(429, {}, b"") if request.method == "GET" else self.hub.respond(request)
        )
        self.assertEqual(self.relayed(self.tag()).status, 429)
        self.assertEqual(self.relayed(self.blob()).status, 429)

    def test_a_tag_that_is_not_kept_is_not_to_be_kept_by_others(self) -> None:
        """``latest`` by default."""
        self.hub.tag("latest", MANIFEST)
        self.assertEqual(self.served(self.tag(name="latest")).cache_control, "private, no-cache")


class BesideTests(AuthenticatedCase):
    """Lists and pings."""

    def list(self, who: str | None) -> Relay:
        """Ask for the tags."""
        credentials, repository = Credentials(who), self.blob().pull.repository
        listing = self.core.cache.listing("docker.io", repository, "tags/list", "", credentials, "*/*")
        return self.successResultOf(self.later(listing))

    def test_lists_are_asked_for_each_client_and_never_remembered(self) -> None:
        """And nobody else's name is tried."""
        self.assertEqual([self.list(who).status for who in (ALICE, ALICE, MALLORY, None)], [200, 200, 403, 401])
        self.assertEqual(len(self.hub_asked.requests), 4)

    def test_a_ping_says_what_upstream_says(self) -> None:
        """Unreachable is no 200 here."""
        self.hub.refuses = {None: 401}
        self.assertEqual(self.successResultOf(self.later(self.core.cache.ping("docker.io"))).status, 401)
        self.hub.down = True
        self.clock.advance(61)
        self.failureResultOf(self.later(self.core.cache.ping("docker.io")), UpstreamUnreachable)


class AdmissionCacheTests(AuthenticatedCase):
    """``auth_cache_s`` (RULES D2)."""

    auth_cache_s = 100.0

    def test_an_admission_is_kept_for_its_time(self) -> None:
        """For this credential, this repository and this digest."""
        self.get(self.blob("Basic alice"))
        self.hub_asked.requests.clear()
        self.get(self.blob("Basic alice"))
        self.asked()
        self.assertEqual(self.relayed(self.blob(MALLORY)).status, 403)
        ask = self.blob("Basic alice")
        self.get(evolve(ask, pull=evolve(ask.pull, repository=Repository.parse("other/app"))))
        self.assertEqual(len(self.hub_asked.requests), 2)
        self.clock.advance(101)
        self.hub_asked.requests.clear()
        self.get(self.blob("Basic alice"))
        self.asked(f"HEAD {self.digest}")

    def test_never_longer_than_the_token_lives(self) -> None:
        """What the client's envelope says, and a minute for a token of which nothing is known."""
        ends = evolve(self.blob(), credentials=Credentials(ALICE, self.clock.seconds() + 10))
        for ask, life_s in ((ends, 10), (self.blob("Bearer other"), 60)):
            self.get(ask)
            self.clock.advance(life_s - 1)
            self.hub_asked.requests.clear()
            self.get(ask)
            self.asked()
            self.clock.advance(2)
            self.get(ask)
            self.asked(f"HEAD {self.digest}")

    def test_refusals_tags_and_heads_are_asked_each_time(self) -> None:
        """Only a yes about a digest is kept."""
        for ask in (self.blob(MALLORY), self.tag(), self.blob(method="HEAD")):
            self.pull(ask)
            self.hub_asked.requests.clear()
            self.pull(ask)
            self.assertEqual([request.method for request in self.hub_asked.requests], ["HEAD"])

    def test_a_refusal_ends_what_was_kept(self) -> None:
        """Whoever has just been told no does not get it from what was said before; a pause is no refusal."""
        for status, requests in ((401, 1), (403, 1), (404, 1), (429, 0)):
            self.hub.refuses = {}
            self.get(self.blob())
            self.hub.refuses = {ALICE: status}
            self.assertEqual(self.relayed(self.blob(method="HEAD")).status, status)
            self.hub.refuses, before = {}, len(self.hub_asked.requests)
            self.get(self.blob())
            self.assertEqual(len(self.hub_asked.requests) - before, requests, status)

    def test_other_upstreams_are_asked_anew(self) -> None:
        """After a reload the same namespace may mean another registry."""
        self.get(self.blob("Basic alice"))
        self.admissions.forget_all()
        self.hub_asked.requests.clear()
        self.get(self.blob("Basic alice"))
        self.asked(f"HEAD {self.digest}")

    def test_a_removed_blob_is_known_to_be_removed_by_a_head(self) -> None:
        """The HEAD's own answer counts, whatever is kept about GETs."""
        self.get(self.blob())
        self.hub.refuses = {ALICE: 404}
        self.assertEqual(self.relayed(self.blob(method="HEAD")).status, 404)


class PrivateStormTests(AuthenticatedCase):
    """A hundred clients, a hundred credentials, one private blob that is not kept; every other one is refused."""

    def storm(self, first_is_allowed: bool) -> None:
        """Come before, during and after the ingest."""
        names = [f"Bearer {n}" for n in range(100)]
        allowed = {name for n, name in enumerate(names) if (n % 2 == 0) == first_is_allowed}
        self.hub.refuses = {name: 403 for name in names if name not in allowed}
        self.hub.by_hand = self.hub.holding = True
        waiting = [self.begin(self.blob(name)) for name in names[:40]]
        while self.hub.held:
            self.hub.answer(1)
        self.hub.holding = False
        early = dict(zip(names, self.readers(waiting), strict=False))
        body = self.hub.sent[-1]
        body.send(BLOB[:100_000])
        during = dict(
            zip(names[40:70], self.readers([self.begin(self.blob(name)) for name in names[40:70]]), strict=True)
        )
        body.send(BLOB[100_000:])
        body.end()
        after = self.come(names[70:])
        got = {name: sink for name, sink in {**early, **during, **after}.items() if sink is not None}
        self.assertEqual(set(got), allowed)
        self.assertEqual({(sink.ending, bytes(sink.written)) for sink in got.values()}, {("finished", BLOB)})
        asked = [(request.method, request.authorization) for request in self.hub_asked.requests]
        self.assertEqual(sorted(str(who) for method, who in asked if method == "HEAD"), sorted(names))
        self.assertEqual(len([who for method, who in asked if method == "GET"]), 1)
        self.assert_at_rest()

    def come(self, names: list[str]) -> dict[str, FakeSink | None]:
        """Ask in these names, which are answered at once."""
        return dict(zip(names, self.readers([self.begin(self.blob(name)) for name in names]), strict=True))

    def readers(self, waiting: list[Deferred[Answer]]) -> list[FakeSink | None]:
        """Let those read who may; None is a refusal."""
        answers = [self.successResultOf(d) for d in waiting]
        for answer in answers:
            self.assertTrue(isinstance(answer, Serve) or (isinstance(answer, Relay) and answer.status == 403))
        return [self.follow(answer)[1] if isinstance(answer, Serve) else None for answer in answers]

    def test_the_first_is_allowed(self) -> None:
        """Exactly the allowed get it; one body, a hundred admissions."""
        self.storm(first_is_allowed=True)

    def test_the_first_is_refused(self) -> None:
        """He does not stand in the way of the others."""
        self.storm(first_is_allowed=False)


class LeaderTests(AuthenticatedCase):
    """Admitted by a HEAD and refused by the GET: then the next one asks for himself (law 7)."""

    def test_the_next_one_leads_with_his_own_credential(self) -> None:
        """A token that ends between the two requests."""

        def script(request: Request) -> FakeResponse | Exception:
            if request.method == "GET" and request.authorization == MALLORY:
                return FakeResponse(401, {}, b"")
            return self.hub.respond(request)

        self.hub.refuses = {None: 401}
        self.hub.holding = True
        self.hub_asked.script = self.hub.script
        leader, other = self.begin(self.blob(MALLORY)), self.begin(self.blob())
        self.hub.answer(2)
        self.hub.refuses[MALLORY] = 401
        while self.hub.held:
            self.hub.answer(1)
        refused = self.successResultOf(leader)
        assert isinstance(refused, Relay)
        self.assertEqual(refused.status, 401)
        self.assertEqual(self.bytes_of(self.serve_of(other)), BLOB)
