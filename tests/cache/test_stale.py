"""Tags whose upstream is lost, says no, or does not say a digest (RULES E8, D5, D7)."""

from __future__ import annotations

from typing import Any

from attrs import define, evolve
from twisted.internet.defer import Deferred

from tests.cache.house import INDEX_CLASS, MANIFEST_CLASS, REPOSITORY, manifest
from tests.cache.tag_case import HOUR, NEW, OLD, TagCase
from tests.doubles import FakeResponse, Request
from txociproxy.interfaces import Local
from txociproxy.modes import Transparent
from txociproxy.oci.errors import OCIError, UpstreamUnreachable
from txociproxy.oci.manifests import OCI_INDEX, OCI_MANIFEST, SCHEMA1
from txociproxy.oci.names import Digest
from txociproxy.storage.memory import MemoryStorage


@define(eq=False)
class Vanishing(MemoryStorage):
    """A storage that somebody clears as soon as it has been looked at."""

    def find(self, digest: Digest, namespace: str) -> Deferred[Local | None]:
        """Find it once."""
        found = super().find(digest, namespace)
        self.content.clear()
        return found


class StaleTests(TagCase):
    """Upstream is lost, or says no."""

    def setUp(self) -> None:
        """The tag is known, and old."""
        super().setUp()
        self.learn()
        self.grow_old()

    def test_a_lost_upstream_leaves_it_stale_and_is_left_alone(self) -> None:
        """Unreachable, 5xx, 429: one HEAD in thirty seconds."""
        for self.hub.down, self.hub.status in ((True, None), (False, 500), (False, 503), (False, 429)):
            for method in ("GET", "HEAD", "GET"):
                serve = self.served(self.ask("1", method))
                self.assertEqual((serve.outcome, serve.cache_control), ("stale", "no-cache"))
            self.clock.advance(29)
            self.served(self.ask("1"))
            self.asked("HEAD 1")
            self.clock.advance(2)
        self.hub.status = None
        self.assertEqual(self.get(self.ask("1")), ("hit", OLD))

    def test_an_outage_is_found_out_by_one_for_all(self) -> None:
        """They wait for one ask together."""
        self.hub.holding = self.hub.down = True
        waiting = [self.begin(self.ask("1")) for _ in range(20)]
        self.hub.answer()
        self.assertEqual([self.serve_of(d).outcome for d in waiting], ["stale"] * 20)
        self.asked("HEAD 1")

    def test_a_refusal_leaves_it_stale_for_this_client_only(self) -> None:
        """401 and 403; the pointer is untouched and the next one may ask at once (law 7)."""
        new = self.move()
        for status in (401, 403):
            self.hub.refuses = {None: status, "Bearer bad": status}
            self.assertEqual(self.get(self.ask("1", authorization="Bearer bad")), ("stale", OLD))
            self.assertEqual([r.authorization for r in self.hub_asked.requests], ["Bearer bad", None])
            self.hub_asked.requests.clear()
            self.assertEqual(self.get(self.ask("1")), ("stale", OLD))
            self.asked("HEAD 1")
        self.assertEqual(self.get(self.ask("1", authorization="Bearer good")), ("miss", NEW))
        self.asked("HEAD 1", f"GET {new}")

    def test_one_client_s_refusal_is_not_shared_with_those_who_wait(self) -> None:
        """They came at the same time, with better credentials."""
        self.move()
        self.hub.refuses = {None: 401}
        self.hub.holding = True
        waiting = [self.begin(self.ask("1", authorization=who)) for who in (None, "Bearer good")]
        for _ in range(3):
            self.hub.answer()
        self.assertEqual([self.serve_of(d).outcome for d in waiting], ["stale", "miss"])

    def test_a_tag_that_is_gone_is_kept(self) -> None:
        """By default; it is asked for again."""
        del self.hub.tags["1"]
        for _ in range(2):
            self.assertEqual(self.get(self.ask("1")), ("stale", OLD))
        self.asked("HEAD 1", "HEAD 1")

    def test_a_tag_that_is_gone_may_be_dropped(self) -> None:
        """Then it is gone here too, and in the next outage."""
        self.rule(on_upstream_404="drop")
        del self.hub.tags["1"]
        self.assertEqual(self.relayed(self.ask("1")).status, 404)
        self.assertEqual(self.storage.tags, {})
        self.hub.down = True
        self.failureResultOf(self.begin(self.ask("1")), UpstreamUnreachable)

    def test_a_404_for_one_clients_credential_drops_nothing(self) -> None:
        """Some registries say it to who may not see the tag; it is his own answer."""
        self.rule(on_upstream_404="drop")
        self.hub.refuses = {"Bearer poor": 404}
        self.assertEqual(self.relayed(self.ask("1", authorization="Bearer poor")).status, 404)
        self.hub.down = True
        self.assertEqual(self.served(self.ask("1")).outcome, "stale")

    def test_a_dropped_tag_forgets_what_it_meant_before_too(self) -> None:
        """A HEAD had moved it to what nobody fetched."""
        self.rule(on_upstream_404="drop")
        self.move()
        self.served(self.ask("1", "HEAD"))
        del self.hub.tags["1"]
        self.grow_old()
        self.assertEqual(self.relayed(self.ask("1")).status, 404)
        self.hub.down = True
        self.failureResultOf(self.begin(self.ask("1")), UpstreamUnreachable)

    def test_a_stale_answer_may_be_too_old(self) -> None:
        """Then the loss shows: no answer, or upstream's own."""
        self.hub.down = True
        self.rule(stale_if_error_s=HOUR + 100)
        self.assertEqual(self.get(self.ask("1")), ("stale", OLD))
        self.clock.advance(100)
        for limit_s in (HOUR + 100, 0.0):
            self.rule(stale_if_error_s=limit_s)
            self.hub.down, self.hub.status = True, None
            self.failureResultOf(self.begin(self.ask("1")), UpstreamUnreachable)
            self.hub.down, self.hub.status = False, 503
            self.assertEqual(self.relayed(self.ask("1")).status, 503)

    def test_never_is_never(self) -> None:
        """Not even in the second in which upstream has confirmed it; whatever a clock that was set back may say."""
        self.rule(stale_if_error_s=0.0, fresh_s=0.0)
        self.assertEqual(self.get(self.ask("1")), ("hit", OLD))
        self.hub.down = True
        self.failureResultOf(self.begin(self.ask("1")), UpstreamUnreachable)

    def test_nothing_kept_is_no_stale_answer(self) -> None:
        """The pointer alone answers nothing; upstream is asked as if the tag were new."""
        self.storage.content.clear()
        self.hub.down = True
        for _ in range(2):
            self.failureResultOf(self.begin(self.ask("1")), UpstreamUnreachable)
        self.hub.down, self.hub.status = False, 503
        self.assertEqual(self.relayed(self.ask("1")).status, 503)
        self.hub.status = None
        self.assertEqual(self.get(self.ask("1")), ("miss", OLD))
        self.asked("GET 1", "GET 1", "GET 1", "GET 1")

    def test_a_manifest_that_does_not_come_leaves_the_old_one(self) -> None:
        """Upstream said that the tag has moved, and then gave nothing: that is an outage as well."""
        new = self.move()
        refusals = [FakeResponse(status, {}, b"{}") for status in (404, 500)]
        for trouble in (UpstreamUnreachable("reset"), *refusals, FakeResponse(200, {}, b"<html>")):

            def script(request: Request, trouble: Any = trouble) -> Any:
                if request.method == "HEAD":
                    return self.hub.respond(request)
                return evolve(trouble) if isinstance(trouble, FakeResponse) else trouble

            self.hub_asked.script = script
            self.assertEqual(self.get(self.ask("1")), ("stale", OLD))
            self.assertEqual(self.hub_asked.seen[0], f"HEAD {REPOSITORY} 1")
            self.hub_asked.requests.clear()
            self.assertEqual(self.get(self.ask("1")), ("stale", OLD))
            self.asked()
            self.clock.advance(31)
        self.hub_asked.script = self.hub.script
        self.assertEqual(self.get(self.ask("1")), ("miss", NEW))
        self.asked("HEAD 1", f"GET {new}")

    def test_a_head_that_moves_the_tag_loses_no_answer(self) -> None:
        """Upstream is gone before anybody has fetched what it moved to: the old one is still good."""
        new = self.move()
        self.assertEqual(self.served(self.ask("1", "HEAD")).descriptor.digest, new)
        self.hub.down = True
        for _ in range(2):
            self.assertEqual(self.get(self.ask("1")), ("stale", OLD))
            self.assertEqual(self.served(self.ask("1", "HEAD")).outcome, "stale")
        self.asked("HEAD 1", "HEAD 1")
        self.hub.down = False
        self.assertEqual(self.get(self.ask(new)), ("miss", NEW))
        self.assertEqual(self.get(self.ask("1")), ("hit", NEW))

    def test_each_class_of_clients_keeps_its_answer(self) -> None:
        """HEADs of two of them have moved the tag to what nobody fetched."""
        old = {INDEX_CLASS: manifest("old index", OCI_INDEX), MANIFEST_CLASS: OLD}
        new = {INDEX_CLASS: manifest("new index", OCI_INDEX), MANIFEST_CLASS: NEW}
        for meant in (old, new):
            self.hub.down = False
            self.hub.tag("1", *meant.values())
            for accept, data in meant.items():
                if meant is old:
                    self.assertEqual(self.get(self.ask("1", accept=accept))[1], data)
                else:
                    self.served(self.ask("1", "HEAD", accept=accept))
            self.grow_old()
        self.hub.down = True
        for accept, data in old.items():
            self.assertEqual(self.get(self.ask("1", accept=accept)), ("stale", data))

    def test_what_vanishes_meanwhile_is_no_answer(self) -> None:
        """Somebody removes the file after it was seen: upstream is not asked another time."""
        self.build(self.rules, Vanishing(content=self.storage.content, tags=self.storage.tags))
        self.hub.down = True
        self.failureResultOf(self.begin(self.ask("1")), UpstreamUnreachable)
        self.asked("HEAD 1")

    def test_a_head_at_the_same_time_loses_no_answer_for_a_get(self) -> None:
        """What the tag has moved to does not come: the HEAD may say so, the GET has the old one."""
        self.move()
        self.hub_asked.script = lambda request: (
            self.hub.script(request) if request.method == "HEAD" else UpstreamUnreachable("reset")
        )
        self.hub.holding = True
        waiting = [self.begin(self.ask("1", method)) for method in ("HEAD", "GET")]
        self.hub.answer()
        self.assertEqual([self.serve_of(d).outcome for d in waiting], ["relay", "stale"])

    def hold_gets(self) -> list[Deferred[FakeResponse]]:
        """Answer HEADs; GETs are answered by the test, through what is returned."""
        gets: list[Deferred[FakeResponse]] = []

        def script(request: Request) -> Any:
            if request.method == "HEAD":
                return self.hub.respond(request)
            gets.append(Deferred())
            return gets[-1]

        self.hub_asked.script = script
        return gets

    def test_who_cannot_wait_joins_one_who_can(self) -> None:
        """One download does for both; it costs him no more than his own time."""
        new = self.move()
        gets = self.hold_gets()
        patient, hasty = self.begin(self.ask(new)), self.begin(self.ask("1"))
        self.assertEqual(len(gets), 1)
        gets[0].callback(FakeResponse(200, {"Content-Type": OCI_MANIFEST}, NEW))
        self.assertEqual([self.bytes_of(self.serve_of(d)) for d in (patient, hasty)], [NEW, NEW])

    def test_who_can_wait_does_not_fail_with_one_who_cannot(self) -> None:
        """A pull by digest comes while a stale tag's new manifest is asked for with a short deadline (RULES D7)."""
        new = self.move()
        gets = self.hold_gets()
        hasty, patient = self.begin(self.ask("1")), self.begin(self.ask(new))
        self.assertEqual([r.deadline_s for r in self.hub_asked.requests], [2.0, 2.0, 30.0])
        gets[0].errback(UpstreamUnreachable("slow", timed_out=True))
        self.assertEqual(self.serve_of(hasty).outcome, "stale")
        gets[1].callback(FakeResponse(200, {"Content-Type": OCI_MANIFEST}, NEW))
        self.assertEqual(self.serve_of(patient).outcome, "miss")

    def test_a_mode_that_does_not_survive_has_no_stale_answers(self) -> None:
        """The loss shows."""
        self.build(self.rules, mode=Transparent(survives_upstream_loss=False))
        self.hub.down = True
        self.failureResultOf(self.begin(self.ask("1")), UpstreamUnreachable)
        self.failureResultOf(self.later(self.core.cache.ping("docker.io")), UpstreamUnreachable)
        self.hub.down = False
        self.assertEqual(self.get(self.ask("1")), ("hit", OLD))

    def test_a_stale_answer_at_hand_shortens_the_wait(self) -> None:
        """Two seconds; without one the usual time (RULES D7)."""
        self.get(self.ask("1"))
        self.storage.content.clear()
        self.get(self.ask("1"))
        fallback = evolve(self.ask("2"), has_fallback=True)
        self.pull(fallback)
        self.pull(evolve(fallback, method="HEAD"))
        blob = self.ask(Digest.of(b"none"), kind="blob")
        self.pull(evolve(blob, has_fallback=True))
        self.pull(evolve(blob, has_fallback=True, method="HEAD"))
        self.pull(blob)
        self.assertEqual([r.deadline_s for r in self.hub_asked.requests], [2.0, 30.0, 10.0, 10.0, 20.0, 10.0, 30.0])


class WithoutDigestTests(TagCase):
    """A registry that does not say Docker-Content-Digest."""

    def setUp(self) -> None:
        """It gives manifests all the same."""
        super().setUp()
        self.hub.says_digest = False

    def test_a_tag_is_got_to_be_confirmed(self) -> None:
        """The HEAD tells nothing; the digest is that of the bytes."""
        self.assertEqual(self.get(self.ask("1")), ("miss", OLD))
        self.assertEqual(self.get(self.ask("1")), ("hit", OLD))
        self.asked("GET 1")
        self.grow_old()
        self.assertEqual(self.get(self.ask("1"))[1], OLD)
        self.assertEqual([r.deadline_s for r in self.hub_asked.requests], [2.0, 2.0])
        self.asked("HEAD 1", "GET 1")
        self.move()
        self.grow_old()
        self.assertEqual(self.get(self.ask("1")), ("miss", NEW))
        self.asked("HEAD 1", "GET 1")

    def test_a_head_is_relayed_and_never_becomes_a_get(self) -> None:
        """Its length is upstream's; where the pointer is fresh it is answered here (RULES D5)."""
        relay = self.relayed(self.ask("1", "HEAD"))
        self.assertEqual((relay.status, relay.body, relay.content_length), (200, b"", len(OLD)))
        self.get(self.ask("1"))
        self.assertEqual(self.served(self.ask("1", "HEAD")).outcome, "hit")
        self.grow_old()
        self.assertEqual(self.relayed(self.ask("1", "HEAD")).status, 200)
        self.asked("HEAD 1", "GET 1", "HEAD 1")

    def test_it_is_stale_when_upstream_is_lost(self) -> None:
        """HEAD and GET; also where the GET brings something that is no manifest."""
        self.learn()
        self.grow_old()
        self.hub_asked.script = lambda _: FakeResponse(200, {"Content-Type": "text/html"}, b"<html>")
        self.assertEqual(self.get(self.ask("1")), ("stale", OLD))
        self.asked("HEAD 1", "GET 1", "GET 1")
        self.hub_asked.script = self.hub.script
        self.hub.down = True
        self.clock.advance(31)
        self.assertEqual(self.served(self.ask("1", "HEAD")).outcome, "stale")

    def test_an_old_manifest_s_digest_is_not_remembered(self) -> None:
        """schema1 is relayed and never kept, and a HEAD says so already (RULES E3)."""
        fields = {"Docker-Content-Digest": str(Digest.of(b"x")), "Content-Length": "1", "Content-Type": SCHEMA1}
        self.hub_asked.script = lambda _: FakeResponse(200, fields, b"")
        self.relayed(self.ask("1", "HEAD"))
        self.assertEqual(self.storage.tags, {})

    def test_a_digest_that_is_wrong_is_believed_by_nobody(self) -> None:
        """What upstream says and what it sends differ: 502, nothing kept."""
        self.hub.fields = {"Docker-Content-Digest": str(Digest.of(b"other"))}
        error = self.failureResultOf(self.begin(self.ask("1")), OCIError).value
        self.assertEqual((error.code, error.status), ("MANIFEST_INVALID", 502))
        self.asked("GET 1", "GET 1")
        self.assertEqual((self.storage.content, self.storage.tags), ({}, {}))
