"""What is decided per upstream: tags by glob, old blobs, quotas; and what is remembered for an outage (RULES E8)."""

from __future__ import annotations

from attrs import define, evolve, field
from twisted.internet.defer import Deferred

from tests.cache.house import CacheCase, content, manifest
from tests.doubles import FakeResponse
from txociproxy.assembly import CoreRules
from txociproxy.bodies.lending import MemoryBody
from txociproxy.interfaces import Exchanged, Local, Relay
from txociproxy.meanings import TagRules
from txociproxy.modes import Transparent
from txociproxy.oci.errors import OCIError, UpstreamUnreachable
from txociproxy.oci.names import Digest, Repository
from txociproxy.storage.memory import MemoryStorage
from txociproxy.upstreams.entries.entry import Entry, TagRule

ONE, TWO = manifest("one"), manifest("two")
BLOB = content(100_000)
ALPINE = Repository.parse("library/alpine")


class EntryCase(CacheCase):
    """docker.io with an entry of the test's own."""

    def configure(self, **keys: object) -> None:
        """Give docker.io these keys."""
        entry = Entry("docker.io", ("http://upstream.test",), **keys)  # type: ignore[arg-type]
        self.registry.entries["docker.io"] = entry


class TagRuleTests(EntryCase):
    """The first rule that matches ``repository:tag`` counts, then the settings of all."""

    rules = CoreRules(tags=TagRules(fresh_s=3600.0))

    def asks_after(self, seconds_s: float, tag: str) -> list[str]:
        """Return what upstream is asked for a tag that was pulled so long ago."""
        self.hub.tag(tag, ONE)
        self.get(self.ask(tag))
        self.clock.advance(seconds_s)
        self.hub_asked.requests.clear()
        self.get(self.ask(tag))
        return [request.method for request in self.hub_asked.requests]

    def test_a_glob_shortens_and_lengthens_freshness(self) -> None:
        """Other tags go by the settings."""
        rules = (TagRule("*:nightly*", fresh_s=60.0), TagRule("library/*:v*", fresh_s=7200.0), TagRule("*:nightly2"))
        self.configure(tag_rules=rules)
        self.assertEqual(self.asks_after(61, "nightly2"), ["HEAD"])
        self.assertEqual(self.asks_after(7000, "v1"), [])
        self.assertEqual(self.asks_after(3599, "other"), [])
        self.assertEqual(self.asks_after(3601, "other2"), ["HEAD"])

    def test_a_rule_decides_whether_a_tag_is_believed_at_all(self) -> None:
        """``latest`` with a rule of its own; another tag never."""
        self.configure(tag_rules=(TagRule("*:latest", keep=True, fresh_s=300.0), TagRule("*:dev", keep=False)))
        self.assertEqual(self.asks_after(299, "latest"), [])
        self.assertEqual(self.asks_after(1, "dev"), ["HEAD"])
        self.assertEqual(self.served(self.ask("dev")).cache_control, "no-cache")

    def test_every_field_has_its_effect(self) -> None:
        """What a rule leaves out is taken from the settings."""
        base = TagRules(stale_if_error_s=5.0, on_upstream_404="keep")
        rule = TagRule("*", swr_s=7.0, stale_if_error_s=float("inf"), on_upstream_404="drop")
        entry = Entry("docker.io", ("http://upstream.test",), tag_rules=(rule,))
        expected = evolve(base, swr_s=7.0, stale_if_error_s=None, on_upstream_404="drop")
        self.assertEqual(base.of(entry, ALPINE, "1"), expected)
        bare = evolve(entry, tag_rules=(TagRule("*"),))
        self.assertEqual(base.of(bare, ALPINE, "1"), base)
        self.assertEqual(base.of(None, ALPINE, "1"), base)

    def test_a_rule_says_how_old_a_stale_tag_may_be(self) -> None:
        """0 is never."""
        self.hub.tag("1", ONE)
        for limit_s, is_served in ((float("inf"), True), (0.0, False)):
            self.configure(tag_rules=(TagRule("*", fresh_s=1.0, stale_if_error_s=limit_s),))
            self.hub.down = False
            self.get(self.ask("1"))
            self.hub.down = True
            self.clock.advance(100)
            d = self.begin(self.ask("1"))
            if is_served:
                self.assertEqual(self.serve_of(d).outcome, "stale")
            else:
                self.failureResultOf(d, UpstreamUnreachable)
            self.clock.advance(100)

    def test_a_rule_says_what_becomes_of_a_tag_that_is_gone(self) -> None:
        """``drop`` forgets it, others are kept."""
        self.configure(tag_rules=(TagRule("*:gone", fresh_s=1.0, on_upstream_404="drop"), TagRule("*", fresh_s=1.0)))
        for tag in ("gone", "kept"):
            self.hub.tag(tag, ONE)
            self.get(self.ask(tag))
            del self.hub.tags[tag]
        self.clock.advance(2)
        self.assertEqual(self.relayed(self.ask("gone")).status, 404)
        self.assertEqual(self.served(self.ask("kept")).outcome, "stale")


class QuotaTests(EntryCase):
    """A quota that runs low is left to those who wait."""

    rules = CoreRules(tags=TagRules(fresh_s=10.0, swr_s=1000.0))

    def test_background_revalidation_stops_and_begins_again(self) -> None:
        """The answer is given at once either way."""
        self.hub.tag("1", ONE)
        self.get(self.ask("1"))
        self.hub_asked.can_spare = False
        self.clock.advance(11)
        self.hub_asked.requests.clear()
        self.assertEqual(self.get(self.ask("1")), ("hit", ONE))
        self.asked()
        self.hub_asked.can_spare = True
        self.assertEqual(self.get(self.ask("1")), ("hit", ONE))
        self.asked("HEAD 1")

    def test_a_client_that_waits_is_asked_for_all_the_same(self) -> None:
        """Beyond that time somebody has to ask."""
        self.hub.tag("1", ONE)
        self.get(self.ask("1"))
        self.hub_asked.can_spare = False
        self.clock.advance(2000)
        self.hub_asked.requests.clear()
        self.get(self.ask("1"))
        self.asked("HEAD 1")


@define(eq=False)
class Counting(MemoryBody):
    """A body that counts who has closed it."""

    closed: int = 0

    def close(self) -> None:
        """Count."""
        self.closed += 1
        super().close()


@define(eq=False)
class Watched(MemoryStorage):
    """A storage that remembers the bodies it has given away."""

    given: list[Counting] = field(factory=list)

    def find(self, digest: Digest, namespace: str) -> Deferred[Local | None]:
        """Find it, with a body that counts."""
        found = super().find(digest, namespace)
        return found.addCallback(lambda local: local and evolve(local, body=self._counting(digest)))

    def _counting(self, digest: Digest) -> Counting:
        self.given.append(Counting(self.content[digest].data, promised=1))
        return self.given[-1]


class BlobAgeTests(EntryCase):
    """``blob_invalidation_time``: an old blob is confirmed, and never fetched again for its age."""

    def setUp(self) -> None:
        """A blob that was kept a while ago."""
        super().setUp()
        self.configure(blob_invalidation_time_s=1000.0)
        self.digest = self.hub.add(BLOB)
        self.storage.now = self.clock.seconds
        self.blob = self.ask(self.digest, kind="blob")
        self.get(self.blob)
        self.hub_asked.requests.clear()

    def test_a_young_one_is_not_asked_about(self) -> None:
        """Up to its age."""
        self.clock.advance(1000)
        self.assertEqual(self.get(self.blob), ("hit", BLOB))
        self.asked()

    def test_one_that_was_kept_in_the_future_is_old(self) -> None:
        """The clock was set back since."""
        self.storage.now = lambda: self.clock.seconds() + 5000
        again = content(100_000, 2)
        blob = self.ask(self.hub.add(again), kind="blob")
        self.get(blob)
        self.hub_asked.requests.clear()
        self.assertEqual(self.get(blob), ("hit", again))
        self.assertEqual([(r.method, r.deadline_s) for r in self.hub_asked.requests], [("HEAD", 2.0)])

    def test_where_each_pull_is_asked_for_nobody_asks_again(self) -> None:
        """The mode has just done so."""
        self.build(self.rules, mode=Transparent(survives_upstream_loss=False))
        self.clock.advance(1001)
        self.assertEqual(self.get(self.blob), ("hit", BLOB))
        self.asked()

    def test_an_old_one_is_confirmed_once(self) -> None:
        """By one HEAD, which is good for as long again."""
        self.clock.advance(1001)
        for expected in ([f"HEAD {self.digest}"], []):
            self.assertEqual(self.get(self.blob), ("hit", BLOB))
            self.asked(*expected)
        self.clock.advance(1001)
        self.get(self.blob)
        self.asked(f"HEAD {self.digest}")

    def test_one_that_is_gone_upstream_is_gone_here(self) -> None:
        """404 in the upstream's own words; asked again each time."""
        self.hub.content.clear()
        self.clock.advance(1001)
        for _ in range(2):
            self.assertEqual(self.relayed(self.blob).status, 404)
            self.asked(f"HEAD {self.digest}")

    def test_what_is_not_served_after_all_is_closed(self) -> None:
        """It is gone upstream, or the client left while it was asked."""
        storage = Watched(content=self.storage.content)
        self.build(self.rules, storage)
        self.clock.advance(1001)
        self.hub.holding = True
        self.begin(self.blob).addErrback(lambda _: None).cancel()
        self.hub.holding = False
        self.hub.content.clear()
        self.relayed(self.blob)
        self.assertEqual([body.closed for body in storage.given], [1, 1])

    def test_a_lost_or_refusing_upstream_says_nothing(self) -> None:
        """It is served, and upstream left alone for a while."""
        self.clock.advance(1001)
        for self.hub.down, self.hub.status in ((True, None), (False, 503), (False, 401), (False, 429)):
            for expected in ([f"HEAD {self.digest}"], []):
                self.assertEqual(self.get(self.blob), ("hit", BLOB))
                self.asked(*expected)
            self.clock.advance(31)

    def test_a_silent_upstream_is_waited_for_as_for_a_stale_tag(self) -> None:
        """The token server may be what is silent; then both are left alone for a while (RULES D7)."""
        self.clock.advance(1001)
        self.hub.holding = True
        d = self.begin(self.blob)
        self.clock.advance(3.9)
        self.assertNoResult(d)
        self.clock.advance(0.2)
        self.assertEqual((self.serve_of(d).outcome, self.hub.cancelled), ("hit", 1))
        self.assertEqual(self.get(self.blob), ("hit", BLOB))
        self.asked(f"HEAD {self.digest}")

    def test_many_at_once_share_one_question(self) -> None:
        """A fleet that pulls an old image."""
        self.clock.advance(1001)
        self.hub.holding = True
        waiting = [self.begin(evolve(self.blob, client=str(n))) for n in range(5)]
        self.hub.answer()
        self.assertEqual([self.serve_of(d).outcome for d in waiting], ["hit"] * 5)
        self.asked(f"HEAD {self.digest}")

    def test_a_refusal_says_nothing_to_those_who_wait(self) -> None:
        """They ask in their own name; the upstream still has it."""
        self.clock.advance(1001)
        self.hub.refuses = {"Bearer bad": 401, None: 401}
        self.hub.holding = True
        names = ("Bearer bad", "Bearer good")
        waiting = [self.begin(self.ask(self.digest, kind="blob", authorization=who)) for who in names]
        for _ in range(3):
            self.hub.answer()
        self.assertEqual([self.serve_of(d).outcome for d in waiting], ["hit", "hit"])
        self.assertEqual([r.authorization for r in self.hub_asked.requests], ["Bearer bad", None, "Bearer good"])

    def test_zero_asks_each_time(self) -> None:
        """Nothing is taken for granted."""
        self.configure(blob_invalidation_time_s=0.0)
        self.clock.advance(1)
        for _ in range(2):
            self.assertEqual(self.get(self.blob), ("hit", BLOB))
            self.asked(f"HEAD {self.digest}")

    def test_without_the_key_nobody_is_asked(self) -> None:
        """Kept digests need no upstream."""
        self.configure()
        self.clock.advance(10_000_000)
        self.hub.down = True
        self.assertEqual(self.get(self.blob), ("hit", BLOB))
        self.asked()


class OutageTests(EntryCase):
    """What a signature's client needs while upstream is away."""

    def referrers(self) -> Relay:
        """Ask what refers to a manifest."""
        digest = self.hub.tag("1", ONE)
        listing = self.core.cache.listing(
            "docker.io", ALPINE, f"referrers/{digest}", "", self.ask("1").credentials, "*/*"
        )
        return self.successResultOf(self.later(listing))

    def test_a_registry_without_referrers_stays_one(self) -> None:
        """Its 404 sends clients to the tag of the signature, in an outage too; while it is there it is asked."""
        self.hub_asked.script = lambda _: FakeResponse(404, {}, b"page not found")
        self.assertEqual([self.referrers().status for _ in range(2)], [404, 404])
        self.assertEqual(len(self.hub_asked.requests), 2)
        self.hub_asked.script = lambda _: UpstreamUnreachable("gone")
        self.assertEqual((self.referrers().status, self.referrers().outcome), (404, "stale"))

    def test_a_404_of_a_tag_list_is_not_remembered(self) -> None:
        """It means that the repository is gone."""
        self.hub.status = 404
        credentials = self.ask("1").credentials
        for down in (False, True):
            self.hub.down = down
            listing = self.core.cache.listing("docker.io", ALPINE, "tags/list", "", credentials, "*/*")
            if down:
                self.failureResultOf(self.later(listing), UpstreamUnreachable)
            else:
                self.assertEqual(self.successResultOf(self.later(listing)).status, 404)


class ExchangeTests(CacheCase):
    """What becomes of a client's password at our token endpoint (RULES C4)."""

    def exchange(self, answer: Exchanged | Relay | Exception) -> Exchanged | Relay:
        """Exchange a password, answered so."""
        self.hub_asked.granted = {"Basic x": answer}
        return self.successResultOf(self.later(self.core.cache.exchange("docker.io", (ALPINE,), "Basic x")))

    def test_what_upstream_gives_and_refuses_is_passed_on(self) -> None:
        """A wrong password is nobody's token in no mode."""
        for answer in (Exchanged("Bearer y", 300.0), Relay(401, (), b"")):
            self.assertEqual(self.exchange(answer), answer)

    def test_a_lost_token_server_gives_nobodys_token(self) -> None:
        """Gone, overloaded, or one that must not see credentials: what is kept can still be pulled."""
        lost = (UpstreamUnreachable("gone"), OCIError("DENIED", "not its realm"), Relay(429, (), b""))
        for answer in lost:
            self.assertEqual(self.exchange(answer), Exchanged(None))
