"""Many clients, one digest: one upstream body (promise 2, RULES E1; issue lines C and H)."""

from __future__ import annotations

from twisted.internet.defer import CancelledError

from tests.cache.house import CacheCase, content, outcomes
from txociproxy.interfaces import Ask, Relay
from txociproxy.oci.errors import UpstreamUnreachable

DATA = content(300_000)
HALF = len(DATA) // 2


class StormTests(CacheCase):
    """A blob whose body the test sends."""

    def setUp(self) -> None:
        """Both upstreams have it."""
        super().setUp()
        self.digest = self.hub.add(DATA)
        self.other.add(DATA)
        self.hub.by_hand = self.other.by_hand = True

    def blob(self, client: str = "192.0.2.1", namespace: str = "docker.io", authorization: str | None = None) -> Ask:
        """Return an ask for it."""
        return self.ask(self.digest, kind="blob", client=client, namespace=namespace, authorization=authorization)

    def finish(self) -> None:
        """Send the rest of what is not sent."""
        self.hub.sent[0].send(DATA[HALF:])
        self.hub.sent[0].end()

    def test_thirty_two_at_once_cost_one_body(self) -> None:
        """Those who come before the answer, after it, and after half."""
        self.hub.holding = True
        early = [self.begin(self.blob(f"192.0.2.{n}")) for n in range(16)]
        self.hub.holding = False
        self.hub.answer()
        serves = [self.serve_of(d) for d in early]
        serves += [self.served(self.blob()) for _ in range(8)]
        readers = [self.follow(serve) for serve in serves]
        self.hub.sent[0].send(DATA[:HALF])
        serves += [self.served(self.blob()) for _ in range(8)]
        readers += [self.follow(serve) for serve in serves[24:]]
        self.finish()
        for _, sink in readers:
            self.assertEqual((sink.ending, bytes(sink.written)), ("finished", DATA))
        self.assertEqual(outcomes(serves), ["miss"] + ["join"] * 31)
        self.asked(f"GET {self.digest}")
        self.assertEqual(self.get(self.blob()), ("hit", DATA))
        self.assert_at_rest()

    def test_one_that_stops_reading_holds_nobody_up(self) -> None:
        """It finishes when it reads on (law 3)."""
        slow, slow_sink = self.follow(self.served(self.blob()), capacity_bytes=1000)
        _, fast_sink = self.follow(self.served(self.blob()))
        self.hub.sent[0].send(DATA[:HALF])
        self.finish()
        self.assertEqual((fast_sink.ending, slow_sink.ending), ("finished", None))
        while slow_sink.ending is None:
            slow_sink.drain()
        self.assertEqual(bytes(slow_sink.written), DATA)
        self.assertEqual(self.successResultOf(slow.done), "finished")
        self.assert_at_rest()

    def test_a_leader_that_leaves_before_the_answer_takes_nothing_along(self) -> None:
        """The others get the body that he asked for."""
        self.hub.holding = True
        leader, other = self.begin(self.blob()), self.begin(self.blob())
        leader.cancel()
        self.failureResultOf(leader, CancelledError)
        self.hub.answer()
        _, sink = self.follow(self.serve_of(other))
        self.hub.sent[0].send(DATA)
        self.assertEqual(bytes(sink.written), DATA)
        self.hub.sent[0].end()
        self.asked(f"GET {self.digest}")
        self.assert_at_rest()

    def test_a_leader_that_leaves_in_mid_body_takes_nothing_along(self) -> None:
        """The others read on."""
        _, leader = self.follow(self.served(self.blob()))
        _, other = self.follow(self.served(self.blob()))
        self.hub.sent[0].send(DATA[:HALF])
        leader.leave()
        self.finish()
        self.assertEqual(bytes(other.written), DATA)
        self.assert_at_rest()

    def test_when_all_leave_before_the_answer_the_ask_is_cancelled(self) -> None:
        """Nobody pays for it; the next one asks afresh."""
        self.hub.holding = True
        waiting = [self.begin(self.blob()) for _ in range(3)]
        for d in waiting:
            d.cancel()
            self.failureResultOf(d, CancelledError)
        self.assertEqual(self.hub.cancelled, 1)
        self.assert_at_rest()
        self.hub.holding = self.hub.by_hand = False
        self.assertEqual(self.get(self.blob()), ("miss", DATA))

    def test_a_client_that_leaves_alone_in_mid_body_leaves_a_hit(self) -> None:
        """The ingest goes on for the storage (law 9)."""
        _, sink = self.follow(self.served(self.blob()))
        self.hub.sent[0].send(DATA[:HALF])
        sink.leave()
        self.finish()
        self.assertEqual(self.get(self.blob()), ("hit", DATA))
        self.asked(f"GET {self.digest}")
        self.assert_at_rest()

    def test_a_client_that_leaves_while_a_small_body_comes_leaves_a_hit(self) -> None:
        """It waited for the verdict and had no Reader yet."""
        small = content(1000)
        digest = self.hub.add(small)
        d = self.begin(self.ask(digest, kind="blob"))
        self.hub.sent[0].send(small[:10])
        d.cancel()
        self.failureResultOf(d, CancelledError)
        (ingest,) = self.core.ingests.running.values()
        self.assertTrue(ingest.lonely)
        self.hub.sent[0].send(small[10:])
        self.hub.sent[0].end()
        self.assertEqual(self.get(self.ask(digest, kind="blob")), ("hit", small))
        self.assert_at_rest()

    def test_somebody_can_come_back_to_an_ingest_that_went_on_alone(self) -> None:
        """It joins, from the first byte."""
        _, sink = self.follow(self.served(self.blob()))
        self.hub.sent[0].send(DATA[:HALF])
        sink.leave()
        serve = self.served(self.blob())
        _, sink = self.follow(serve)
        self.finish()
        self.assertEqual((serve.outcome, bytes(sink.written)), ("join", DATA))
        self.asked(f"GET {self.digest}")

    def test_a_hostile_namespace_holds_nobody_of_another(self) -> None:
        """It starts first and drips the same digest: the flights are not shared (RULES E1)."""
        hostile = self.served(self.blob(namespace="evil.example"))
        self.follow(hostile)
        self.other.sent[0].send(b"x")
        serve = self.served(self.blob())
        _, sink = self.follow(serve)
        self.hub.sent[0].send(DATA)
        self.hub.sent[0].end()
        self.assertEqual((serve.outcome, sink.ending, bytes(sink.written)), ("miss", "finished", DATA))
        self.assertEqual(self.get(self.blob()), ("hit", DATA))

    def test_two_namespaces_may_publish_the_same_content(self) -> None:
        """That is fine."""
        for namespace in ("docker.io", "evil.example"):
            self.follow(self.served(self.blob(namespace=namespace)))
        for place in (self.hub, self.other):
            place.sent[0].send(DATA)
            place.sent[0].end()
        self.assert_at_rest()

    def test_a_refusal_is_not_shared(self) -> None:
        """Who has better credentials gets the body, and shares it."""
        self.hub.refuses = {None: 401}
        self.hub.holding = True
        waiting = [self.begin(self.blob(authorization=who)) for who in (None, "Bearer good", None, "Bearer good")]
        self.hub.answer()
        self.hub.answer()
        refusal = self.successResultOf(waiting[0])
        assert isinstance(refusal, Relay)
        serves = [self.serve_of(d) for d in waiting[1:]]
        self.assertEqual((refusal.status, outcomes(serves)), (401, ["miss", "join", "join"]))
        self.asked(f"GET {self.digest}", f"GET {self.digest}")
        for serve in serves:
            self.follow(serve)
        self.hub.sent[0].send(DATA)
        self.hub.sent[0].end()
        self.assert_at_rest()

    def test_no_answer_is_shared(self) -> None:
        """One ask tells everybody that upstream is lost."""
        self.hub.holding = self.hub.down = True
        waiting = [self.begin(self.blob()) for _ in range(5)]
        self.hub.answer()
        for d in waiting:
            self.failureResultOf(d, UpstreamUnreachable)
        self.asked(f"GET {self.digest}")
        self.assert_at_rest()

    def test_all_who_wait_for_wrong_bytes_ask_once_more_together(self) -> None:
        """A reader moves once to a fresh flight (RULES E1)."""
        small = content(1000)
        digest = self.hub.add(small)
        waiting = [self.begin(self.ask(digest, kind="blob")) for _ in range(4)]
        self.hub.sent[0].send(b"x" * 1000)
        self.hub.sent[1].send(small)
        self.assertEqual([self.bytes_of(self.serve_of(d)) for d in waiting], [small] * 4)
        self.asked(f"GET {digest}", f"GET {digest}")
        self.clock.advance(0)
        self.assert_at_rest()
