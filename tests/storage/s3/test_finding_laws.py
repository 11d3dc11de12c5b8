"""What holds for finding, whatever happens in whatever order."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred

from tests.storage.s3.finding_case import FindingCase
from tests.storage.s3.scripted import DIGEST, PATIENCE_S, refused
from txociproxy.interfaces import Elsewhere
from txociproxy.oci.errors import StorageUnavailable

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("find"), st.sampled_from(("a", "b", "c"))),
        st.tuples(st.just("answer"), st.integers(0, 9)),
        st.tuples(st.just("answer"), st.integers(0, 9)),
        st.tuples(st.just("fail"), st.integers(0, 9)),
        st.tuples(st.just("advance"), st.sampled_from((0.1, 0.5, 0.6, 1.1, 2.0))),
        st.tuples(st.just("cancel"), st.integers(0, 9)),
        st.tuples(st.just("hold"), st.sampled_from((("a",), ("a", "b"), ("b",)))),
        st.tuples(st.sampled_from(("forget", "forget all", "open", "remove", "cut")), st.none()),
    ),
    max_size=40,
)


class LawTests(FindingCase):
    """Whatever happens in whatever order."""

    @settings(deadline=None, max_examples=100)
    @given(STEPS)
    def test_nobody_finds_what_is_not_for_him_nor_what_is_long_gone(self, steps: list[tuple[str, Any]]) -> None:
        """What is found was there for that namespace, under that key, at most a second ago."""
        self.setUp()
        self.s3.is_manual = True
        self.asks: list[tuple[str, Deferred[Elsewhere | None], float]] = []
        self.gone_s: dict[tuple[str, str], float] = {}
        for name, value in steps:
            before = self.visible()
            getattr(self, f"do_{name.replace(' ', '_')}")(value)
            for key in before - self.visible():
                self.gone_s[key] = self.clock.seconds()
            self.judge()
        self.clock.advance(PATIENCE_S)
        self.judge()
        self.assertEqual(self.asks, [])
        self.gate.stop()

    def visible(self) -> set[tuple[str, str]]:
        """Return which namespace may find which key now."""
        found = set()
        for namespace in ("a", "b", "c"):
            if self.content in self.s3.objects:
                found.add((namespace, self.content))
            if self.held in self.s3.objects and namespace in self.holders:
                found.add((namespace, self.held))
        return found

    def judge(self) -> None:
        """Look at all who have an answer by now."""
        for ask in list(self.asks):
            namespace, d, began_s = ask
            self.assertLessEqual(self.clock.seconds() - began_s, 2 * PATIENCE_S)
            if not d.called:
                self.assertLess(self.clock.seconds() - began_s, PATIENCE_S)
                continue
            self.asks.remove(ask)
            outcome: list[Any] = []
            d.addBoth(outcome.append)
            if isinstance(outcome[0], Elsewhere):
                key = outcome[0].place._key  # type: ignore[attr-defined]
                if (namespace, key) not in self.visible():
                    self.assertIn((namespace, key), self.gone_s)
                    self.assertLessEqual(self.clock.seconds() - self.gone_s[namespace, key], 1.0)
            elif outcome[0] is not None:
                self.assertIsNotNone(outcome[0].check(StorageUnavailable, CancelledError))

    holders: tuple[str, ...] = ()

    def do_find(self, namespace: str) -> None:
        """Begin to look."""
        self.asks.append((namespace, self.begin(namespace), self.clock.seconds()))

    def do_answer(self, which: int) -> None:
        """Answer a request, as things are now."""
        if self.s3.waiting:
            self.s3.answer(self.s3.open[which % len(self.s3.waiting)])

    def do_fail(self, which: int) -> None:
        """Answer a request with a failure."""
        if self.s3.waiting:
            what = self.s3.open[which % len(self.s3.waiting)]
            self.script(what, refused(500, "InternalError", what.partition(" ")[0]))
            self.s3.answer(what)
            del self.s3.scripts[what]

    def do_advance(self, seconds: float) -> None:
        """Let time pass, and look at each tenth of a second."""
        for _ in range(round(seconds * 10)):
            self.clock.advance(0.1)
            self.judge()

    def do_cancel(self, which: int) -> None:
        """Let somebody leave."""
        if self.asks:
            self.asks[which % len(self.asks)][1].cancel()

    def do_hold(self, holders: tuple[str, ...]) -> None:
        """Publish for some; those who see it already go on to do so."""
        self.holders = tuple(sorted({*holders, *(self.holders if self.held in self.s3.objects else ())}))
        self.reading.publish(held=self.holders)

    def do_open(self, _: None) -> None:
        """Publish for all, and drop what was held, as a proxy does."""
        self.reading.publish()
        self.s3.objects.pop(self.held, None)
        self.s3.objects.pop(self.held_sidecar, None)

    def do_remove(self, _: None) -> None:
        """Remove everything."""
        self.s3.objects.clear()

    def do_cut(self, _: None) -> None:
        """Cut the open content short; then it may not be found."""
        self.s3.objects.pop(self.content, None)

    def do_forget(self, _: None) -> None:
        """Forget it."""
        self.objects.forget(DIGEST)

    def do_forget_all(self, _: None) -> None:
        """Forget everything."""
        self.objects.forget_all()
