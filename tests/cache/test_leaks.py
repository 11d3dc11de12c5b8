"""Whatever becomes of an answer, nothing is left running, waiting or held."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from tests.cache.house import CacheCase
from tests.cache.place import content, manifest
from tests.cache.troubled import TroubledStorage
from txociproxy.cache import Answer
from txociproxy.interfaces import Ask, Serve
from txociproxy.oci.errors import NoSpace

BIG, SMALL = content(200_000), content(100)


class LeakTests(CacheCase):
    """Every kind of answer, read, closed or left in its midst."""

    def setUp(self) -> None:
        """One of each."""
        super().setUp()
        self.index = self.hub.tag("1", manifest("one"))
        self.hub.tag("latest", manifest("one"))
        big, small = self.hub.add(BIG), self.hub.add(SMALL)
        self.asks = (
            self.ask(big, kind="blob"),
            self.ask(big, "HEAD", "blob"),
            self.ask(big, kind="blob", byte_range="bytes=-10"),
            self.ask(big, kind="blob", byte_range="bytes=100-"),
            self.ask(small, kind="blob"),
            self.ask(self.index),
            self.ask("1"),
            self.ask("1", "HEAD"),
            self.ask("latest"),
            self.ask("none"),
        )

    def close(self, answer: Answer) -> None:
        """Have no use for an answer."""
        if isinstance(answer, Serve) and answer.body is not None:
            answer.body.close()

    def all_ways(self, ask: Ask) -> None:
        """Ask in the same way again and again: close, read, leave."""
        self.close(self.pull(ask))
        self.assert_at_rest()
        answer = self.pull(ask)
        if isinstance(answer, Serve) and answer.body is not None:
            self.follow(answer)
        self.assert_at_rest()
        answer = self.pull(ask)
        if isinstance(answer, Serve) and answer.body is not None:
            _, sink = self.follow(answer, capacity_bytes=1)
            sink.leave()
        self.assert_at_rest()
        self.storage.content.clear()
        self.storage.tags.clear()

    def test_an_answer_that_came_at_once_leaves_nothing(self) -> None:
        """Kept or not."""
        for ask in self.asks:
            self.all_ways(ask)

    def test_an_answer_without_a_storage_leaves_nothing(self) -> None:
        """Whatever is not read is not received either."""
        self.build(self.rules, TroubledStorage(open_error=NoSpace("full")))
        for ask in self.asks:
            self.all_ways(ask)

    def test_an_answer_that_arrives_and_is_closed_goes_on_for_the_storage(self) -> None:
        """And without one it ends at once."""
        self.hub.by_hand = True
        self.close(self.pull(self.asks[0]))
        (ingest,) = self.core.ingests.running.values()
        self.assertTrue(ingest.lonely)
        self.hub.sent[0].send(BIG)
        self.hub.sent[0].end()
        self.assert_at_rest()
        self.build(self.rules, TroubledStorage(open_error=NoSpace("full")))
        self.close(self.pull(self.asks[0]))
        self.assertTrue(self.hub.sent[1].transport.lost)
        self.assert_at_rest()

    def test_clients_that_leave_while_they_wait_leave_nothing(self) -> None:
        """Before any answer, alone and beside others."""
        self.hub.holding = True
        for ask in self.asks:
            waiting: list[Deferred[Answer]] = [self.begin(ask) for _ in range(3)]
            for d in waiting:
                d.addErrback(lambda _: None)
                d.cancel()
            self.assertEqual(self.hub.held, [])
            self.assert_at_rest()

    def test_the_last_one_waiting_gets_the_answer_of_those_who_left(self) -> None:
        """And closes it."""
        self.hub.holding = True
        for ask in self.asks:
            first, second = self.begin(ask), self.begin(ask)
            first.addErrback(lambda _: None)
            first.cancel()
            while self.hub.held:
                self.hub.answer()
            self.close(self.successResultOf(second))
            self.assert_at_rest()
            self.storage.content.clear()
            self.storage.tags.clear()

    def test_a_stall_of_upstream_ends_by_itself(self) -> None:
        """A client of a silent upstream is cut in bounded time, and nothing is left."""
        self.hub.by_hand = True
        _, sink = self.follow(self.served(self.asks[0]))
        self.hub.sent[0].send(BIG[:50_000])
        self.clock.pump([1.0] * 300)
        self.assertEqual(sink.ending, "cut")
        self.assert_at_rest()
