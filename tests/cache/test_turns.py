"""Before a blob is fetched another process may be first: waited for once, by all, and never by who needs not."""

from __future__ import annotations

from attrs import evolve
from twisted.internet.defer import CancelledError, Deferred

from tests.cache.far_case import FarCase
from tests.cache.house import content, manifest, outcomes
from txociproxy.cache import Answer
from txociproxy.interfaces import Ask
from txociproxy.oci.names import Digest

DATA = content(200_000)


class TurnTests(FarCase):
    """A blob that only the upstream has, and another process that may be fetching it."""

    def setUp(self) -> None:
        """Whoever asks for a turn waits for the test."""
        super().setUp()
        self.digest = self.hub.add(DATA)
        self.other.add(DATA)
        self.waiting: list[Deferred[bool]] = []
        self.far.turns = self.waiting

    def blob(self, byte_range: str | None = None, namespace: str = "docker.io") -> Ask:
        """Return an ask for it."""
        return self.ask(self.digest, kind="blob", byte_range=byte_range, namespace=namespace)

    def turn(self, is_worth_looking: bool) -> None:
        """End the only wait there is."""
        (waiting,) = self.waiting
        self.waiting.clear()
        waiting.callback(is_worth_looking)

    def test_nobody_at_work_means_a_miss_as_ever(self) -> None:
        """One look, one request."""
        d = self.begin(self.blob())
        self.asked()
        self.turn(False)
        self.assertEqual(self.bytes_of(self.serve_of(d)), DATA)
        self.asked(f"GET {self.digest}")
        self.assertEqual(self.far.finds, 1)
        self.assert_at_rest()

    def test_a_fetch_that_comes_to_nothing_leaves_the_turn(self) -> None:
        """The upstream does not have it: nobody need wait for us; one that goes on keeps it."""
        self.hub.by_hand = True
        d = self.begin(self.blob())
        self.turn(False)
        self.serve_of(d)
        self.assertEqual(self.far.turns_left, [])
        self.core.ingests.abandon_all()
        self.hub.by_hand = False
        self.far.content.clear()
        d = self.begin(self.ask(Digest.of(b"nobody has it"), kind="blob"))
        self.turn(False)
        self.successResultOf(d)
        self.assertEqual(self.far.turns_left, [Digest.of(b"nobody has it")])

    def test_what_another_has_brought_is_served(self) -> None:
        """By a redirect, or through us; no upstream is asked."""
        for carries in (False, True):
            if carries:
                self.carry()
            d = self.begin(self.blob())
            self.far.put(DATA)
            self.turn(True)
            if carries:
                serve = self.serve_of(d)
                self.assertEqual((serve.outcome, self.bytes_of(serve)), ("hit", DATA))
            else:
                self.redirected(self.successResultOf(d))
            self.far.content.clear()
        self.asked()
        self.assert_at_rest()

    def test_who_has_waited_for_nothing_fetches(self) -> None:
        """It was another content that came, or none; nobody waits twice."""
        d = self.begin(self.blob())
        self.turn(True)
        self.assertEqual(self.serve_of(d).outcome, "miss")
        self.asked(f"GET {self.digest}")
        self.assertEqual((self.far.finds, self.far.turns_asked), (2, 1))

    def test_all_who_want_the_same_wait_together(self) -> None:
        """One turn, one fetch; also for clients of two upstreams."""
        self.hub.by_hand = True
        clients = [self.begin(self.blob()) for _ in range(20)]
        others = [self.begin(self.blob(namespace="evil.example")) for _ in range(5)]
        self.assertEqual(self.far.turns_asked, 1)
        self.turn(False)
        serves = [self.serve_of(d) for d in clients]
        self.assertEqual(outcomes(serves), ["miss"] + ["join"] * 19)
        self.asked(f"GET {self.digest}")
        for d in others:
            self.serve_of(d)
        self.core.ingests.abandon_all()
        self.assert_at_rest()

    def test_who_leaves_takes_nobody_along(self) -> None:
        """Also the one who came first; the wait ends when nobody is left."""
        clients = [self.begin(self.blob()) for _ in range(3)]
        self.leave(clients[0])
        self.turn(False)
        self.assertEqual([self.bytes_of(self.serve_of(d)) for d in clients[1:]], [DATA, DATA])
        self.far.content.clear()
        clients = [self.begin(self.blob()) for _ in range(3)]
        for d in clients:
            self.leave(d)
        self.assertTrue(self.waiting[0].called)
        self.assert_at_rest()

    def leave(self, d: Deferred[Answer]) -> None:
        """Let a client go."""
        d.cancel()
        self.failureResultOf(d, CancelledError)

    def test_a_hit_waits_for_nobody(self) -> None:
        """Nor does what is being fetched here already, by whichever upstream, or asked for."""
        self.far.put(DATA)
        self.pull(self.blob())
        self.carry()
        self.pull(self.blob())
        self.far.content.clear()
        self.hub.holding = self.hub.by_hand = True
        first = self.begin(self.blob())
        self.turn(False)
        second = self.begin(self.blob())
        self.hub.answer()
        third = self.begin(self.blob())
        self.assertEqual([self.serve_of(d).outcome for d in (first, second, third)], ["miss", "join", "join"])
        self.serve_of(self.begin(self.blob(namespace="evil.example")))
        self.assertEqual(self.far.turns_asked, 1)

    def test_only_whole_blobs_wait(self) -> None:
        """No HEAD, no manifest, no part that is only relayed; a part that is read from the whole does."""
        self.served(evolve(self.blob(), method="HEAD"))
        self.get(self.ask(self.hub.tag("1", manifest("one"))))
        self.get(self.ask("1"))
        self.assertEqual(self.get(self.blob("bytes=-10")), ("relay", DATA[-10:]))
        self.assertEqual(self.far.turns_asked, 0)
        self.far.content.clear()
        self.begin(self.blob("bytes=0-")).addErrback(lambda _: None)
        self.assertEqual(self.far.turns_asked, 1)

    def test_a_refused_client_has_waited_and_the_next_one_waits_again(self) -> None:
        """A turn is about content, not about who may have it."""
        self.hub.refuses = {None: 401}
        for _ in range(2):
            d = self.begin(self.blob())
            self.turn(False)
            self.assertEqual(getattr(self.successResultOf(d), "status", None), 401)
        self.asked(f"GET {self.digest}", f"GET {self.digest}")
        self.assert_at_rest()
