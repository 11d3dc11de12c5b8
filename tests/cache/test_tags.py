"""Tags that are believed, confirmed or asked for every time (RULES E7, E8), with the exact list of requests."""

from __future__ import annotations

from attrs import evolve
from twisted.internet.defer import Deferred

from tests.cache.house import INDEX_CLASS, MANIFEST_CLASS, REPOSITORY, WIDE_CLASS, manifest
from tests.cache.tag_case import HOUR, LONG, NEW, OLD, TagCase
from txociproxy.interfaces import Serve, TagName, TagRecord
from txociproxy.oci.accept import EVERYTHING
from txociproxy.oci.errors import UpstreamUnreachable
from txociproxy.oci.manifests import DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST
from txociproxy.oci.names import Repository


class BelievedTests(TagCase):
    """A pointer that is fresh, or confirmed."""

    def test_the_first_pull_brings_the_manifest_along(self) -> None:
        """One GET; then no contact for an hour."""
        for outcome in ("miss", "hit", "hit"):
            serve = self.served(self.ask("1"))
            self.assertEqual((serve.outcome, serve.cache_control, serve.vary_accept), (outcome, LONG, True))
            self.assertEqual(self.bytes_of(serve), OLD)
            self.clock.advance(HOUR / 2)
        self.asked("GET 1")

    def test_a_pointer_that_is_confirmed_is_fresh_again(self) -> None:
        """One HEAD an hour."""
        self.learn()
        for _ in range(3):
            self.grow_old()
            for _ in range(2):
                self.assertEqual(self.get(self.ask("1")), ("hit", OLD))
            self.asked("HEAD 1")

    def test_a_tag_that_has_moved_means_the_new_one(self) -> None:
        """One HEAD and one GET by digest."""
        self.learn()
        new = self.move()
        self.assertEqual(self.get(self.ask("1")), ("hit", OLD))
        self.grow_old()
        self.assertEqual(self.get(self.ask("1")), ("miss", NEW))
        self.assertEqual(self.get(self.ask("1")), ("hit", NEW))
        self.asked("HEAD 1", f"GET {new}")

    def test_all_who_come_at_once_wait_for_one_ask(self) -> None:
        """For the first GET, and for the HEAD that confirms."""
        for request, outcome in (("GET 1", "join"), ("HEAD 1", "hit")):
            self.hub.holding = True
            waiting = [self.begin(self.ask("1")) for _ in range(20)]
            self.hub.answer()
            self.hub.holding = False
            self.assertEqual([self.serve_of(d).outcome for d in waiting][1:], [outcome] * 19)
            self.asked(request)
            self.grow_old()

    def test_a_head_teaches_the_pointer(self) -> None:
        """As containerd asks: HEAD the tag, GET the digest; its tag survives the outage."""
        head = self.served(self.ask("1", "HEAD"))
        self.assertEqual((head.outcome, head.body, head.descriptor.digest), ("relay", None, self.old))
        self.assertEqual((head.descriptor.media_type, head.descriptor.size_bytes), (OCI_MANIFEST, len(OLD)))
        self.get(self.ask(self.old))
        self.asked("HEAD 1", f"GET {self.old}")
        self.hub.down = True
        self.assertEqual(self.served(self.ask("1", "HEAD")).outcome, "hit")
        self.asked()
        self.grow_old()
        self.assertEqual(self.served(self.ask("1", "HEAD")).outcome, "stale")
        self.assertEqual(self.get(self.ask("1")), ("stale", OLD))

    def test_a_head_of_what_is_not_kept_is_a_head(self) -> None:
        """Also where the pointer is fresh: only upstream knows whether the manifest is still there."""
        for _ in range(3):
            self.served(self.ask("1", "HEAD"))
        self.asked("HEAD 1", "HEAD 1", "HEAD 1")
        self.assertEqual(self.storage.content, {})
        self.hub.down = True
        self.failureResultOf(self.begin(self.ask("1", "HEAD")), UpstreamUnreachable)

    def test_a_fresh_pointer_to_what_is_gone_everywhere_answers_nothing(self) -> None:
        """Swept here, removed upstream, and the tag has moved: the new one is right, no 404."""
        self.learn()
        self.storage.content.clear()
        del self.hub.content[str(self.old)]
        self.move()
        self.assertEqual(self.get(self.ask("1")), ("miss", NEW))
        self.asked("GET 1")

    def test_an_unknown_tag_is_upstream_s_404(self) -> None:
        """Nothing is remembered."""
        for _ in range(2):
            self.assertEqual(self.relayed(self.ask("none")).status, 404)
            self.assertEqual(self.relayed(self.ask("none", "HEAD")).status, 404)
        self.asked("GET none", "HEAD none", "GET none", "HEAD none")
        self.assertEqual(self.storage.tags, {})

    def test_a_clock_that_was_set_back_makes_nothing_young(self) -> None:
        """A record from the future is old."""
        self.learn()
        name = TagName("docker.io", Repository.parse(REPOSITORY), "1")
        self.storage.tags[name] = tuple(
            evolve(record, checked_at_s=self.clock.seconds() + 10) for record in self.storage.tags[name]
        )
        self.get(self.ask("1"))
        self.asked("HEAD 1")

    def test_swr_answers_at_once_and_asks_behind(self) -> None:
        """The next one has the new meaning."""
        self.rule(swr_s=600.0)
        self.learn()
        new = self.move()
        self.grow_old()
        self.hub.holding = True
        self.assertEqual([self.get(self.ask("1")) for _ in range(2)], [("hit", OLD)] * 2)
        self.asked("HEAD 1")
        self.hub.holding = False
        self.hub.answer()
        self.asked(f"GET {new}")
        self.assertEqual(self.get(self.ask("1")), ("hit", NEW))

    def test_swr_does_not_ask_a_lost_upstream_all_the_time(self) -> None:
        """Nor does its failure show; after the time the answer is stale."""
        self.rule(swr_s=600.0)
        self.learn()
        self.hub.down = True
        self.grow_old()
        for _ in range(3):
            self.assertEqual(self.get(self.ask("1")), ("hit", OLD))
        self.asked("HEAD 1")
        self.grow_old(600)
        self.assertEqual(self.get(self.ask("1")), ("stale", OLD))


class UnkeptTests(TagCase):
    """Tags that are asked for every time."""

    def test_latest_is_asked_for_every_time_but_survives(self) -> None:
        """Its pointer is remembered for outages."""
        self.hub.tag("latest", OLD)
        for outcome, request in (("miss", "GET latest"), ("hit", "HEAD latest"), ("hit", "HEAD latest")):
            serve = self.served(self.ask("latest"))
            self.assertEqual((serve.outcome, serve.cache_control), (outcome, "no-cache"))
            self.asked(request)
        self.hub.down = True
        serve = self.served(self.ask("latest"))
        self.assertEqual((serve.outcome, serve.cache_control), ("stale", "no-cache"))

    def test_latest_may_be_kept(self) -> None:
        """For an hour at the clients."""
        self.rule(keep_latest=True)
        self.hub.tag("latest", OLD)
        for _ in range(2):
            self.assertEqual(self.served(self.ask("latest")).cache_control, "public, max-age=3600")
        self.asked("GET latest")

    def test_no_tag_may_be_kept(self) -> None:
        """By the switch, or by a life of no time; then ``latest`` is none either."""
        for rules in ({"keep_tags": False, "keep_latest": True}, {"fresh_s": 0.0, "keep_latest": True}):
            self.rule(**rules)
            self.hub.tag("latest", OLD)
            for name in ("1", "latest"):
                self.get(self.ask(name))
                self.assertEqual(self.served(self.ask(name)).cache_control, "no-cache")
            self.assertEqual(len(self.hub_asked.requests), 4)
            self.hub_asked.requests.clear()
            self.storage.tags.clear()


class AcceptTests(TagCase):
    """What one client takes does not decide what another gets (RULES E7, issue line H)."""

    def setUp(self) -> None:
        """The tag means an index for those who take it, else a manifest."""
        super().setUp()
        self.index = manifest("index", OCI_INDEX)
        self.hub.tag("1", self.index, OLD)

    def test_a_narrow_client_first_spoils_nothing(self) -> None:
        """All who take an index get the index."""
        self.assertEqual(self.get(self.ask("1", accept=MANIFEST_CLASS)), ("miss", OLD))
        self.asked("GET 1")
        for accept in (WIDE_CLASS, EVERYTHING, INDEX_CLASS):
            self.assertEqual(self.get(self.ask("1", accept=accept))[1], self.index)
        self.assertEqual(self.get(self.ask("1", accept=MANIFEST_CLASS)), ("hit", OLD))

    def test_a_wide_pointer_answers_a_narrower_ask_of_its_type(self) -> None:
        """Without contact; another type is asked for."""
        self.get(self.ask("1", accept=WIDE_CLASS))
        self.assertEqual(self.get(self.ask("1", accept=INDEX_CLASS)), ("hit", self.index))
        self.assertEqual(self.get(self.ask("1", accept=MANIFEST_CLASS)), ("miss", OLD))
        self.asked("GET 1", "GET 1")

    def test_in_an_outage_a_narrow_pointer_answers_no_wider_ask(self) -> None:
        """An error is better than the wrong platform."""
        self.get(self.ask("1", accept=MANIFEST_CLASS))
        self.hub.down = True
        self.failureResultOf(self.begin(self.ask("1", accept=WIDE_CLASS)), UpstreamUnreachable)

    def test_in_an_outage_whatever_fits_and_is_kept_answers(self) -> None:
        """The client's own pointer leads to nothing here, the wider one does."""
        self.served(self.ask("1", "HEAD", accept=INDEX_CLASS))
        newer = manifest("newer", OCI_INDEX)
        self.hub.tag("1", newer)
        self.get(self.ask("1", accept=WIDE_CLASS))
        self.hub.down = True
        self.grow_old()
        self.assertEqual(self.get(self.ask("1", accept=INDEX_CLASS)), ("stale", newer))

    def test_only_four_classes_are_remembered(self) -> None:
        """The oldest goes."""
        for n in range(6):
            self.get(self.ask("1", accept=WIDE_CLASS | {f"application/x{n}"}))
        (records,) = self.storage.tags.values()
        self.assertEqual(len(records), 4)

    def test_classes_ask_side_by_side(self) -> None:
        """They do not share a flight."""
        self.hub.holding = True
        waiting = [self.begin(self.ask("1", accept=accept)) for accept in (MANIFEST_CLASS, WIDE_CLASS)]
        self.assertEqual(len(self.hub.held), 2)
        for d in waiting:
            d.addErrback(lambda _: None)
            d.cancel()

    def test_a_docker_manifest_keeps_its_type(self) -> None:
        """Bytes are sacred."""
        data = manifest("docker", DOCKER_MANIFEST)
        self.hub.tag("2", data)
        for _ in range(2):
            self.assertEqual(self.served(self.ask("2")).descriptor.media_type, DOCKER_MANIFEST)


class ColdRecordTests(TagCase):
    """What the storage remembers from another life."""

    def test_records_are_read_from_the_storage_every_time(self) -> None:
        """Several processes share it; there is no truth in memory."""
        new = self.hub.add(NEW)
        self.learn()
        self.get(self.ask(new))
        record = TagRecord(EVERYTHING, new, OCI_MANIFEST, len(NEW), self.clock.seconds())
        recorded: Deferred[None] = self.storage.record_tag(
            TagName("docker.io", Repository.parse(REPOSITORY), "1"), record
        )
        self.successResultOf(recorded)
        answer = self.pull(self.ask("1"))
        assert isinstance(answer, Serve)
        self.assertEqual(answer.descriptor.digest, new)
