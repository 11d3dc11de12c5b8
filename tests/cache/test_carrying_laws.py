"""The law of carried bodies, whatever the place and the upstream do: the right bytes, or a cut (RULES E2, E5)."""

from __future__ import annotations

from typing import Literal

from attrs import define
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.cache.far_case import DATA, TOTAL, CarryCase
from tests.cache.places import far_answer
from tests.doubles import FakeResponse
from txociproxy.oci.errors import StorageUnavailable
from txociproxy.oci.ranges import parse_content_range

TAIL_BYTES = 32 * 1024


@define(frozen=True)
class Send:
    """The place sends so many bytes of what it should, or others."""

    size_bytes: int
    is_right: bool = True


@define(frozen=True)
class Happen:
    """Something else happens."""

    what: Literal["break", "end", "silence", "drain"]


@define(frozen=True)
class Reads:
    """What the place says to the next read that it does not just begin to answer."""

    what: Literal["refuse", "whole", "elsewhere"]


Step = Send | Happen | Reads
STEPS = st.lists(
    st.one_of(
        st.builds(Send, st.integers(1, 90_000), st.sampled_from((True, True, True, True, False))),
        st.builds(Happen, st.sampled_from(("break", "end", "silence", "drain"))),
        st.builds(Reads, st.sampled_from(("refuse", "whole", "elsewhere"))),
    ),
    max_size=12,
)
RANGES = st.sampled_from((None, None, "bytes=0-", "bytes=1000-150000", "bytes=-70000"))


class CarryLawTests(CarryCase):
    """One client, one carried body, and a place that does as it likes; then it sends all that it is asked for."""

    def begin_anew(self, is_lost: bool, fills: bool) -> None:
        """Prepare one example."""
        self.setUp()
        self.carry(fills)
        self.hub.down = is_lost
        self.at: dict[int, int] = {}
        self.next_reads: list[str] = []
        self.is_right = True
        self.far.script = self.respond

    def respond(self, byte_range: str | None) -> FakeResponse | Exception:
        """Answer a read as the steps say."""
        what = self.next_reads.pop(0) if self.next_reads else "right"
        if what == "refuse":
            return StorageUnavailable("not now")
        # A whole that was not asked for, or a part from another byte on: nothing to go on with.
        wanted = {"whole": None, "elsewhere": "bytes=7-"}.get(what, byte_range)
        response = far_answer(DATA, wanted, ends=self.ends)
        found = parse_content_range(response.fields.get("Content-Range", ""))
        self.at[id(response)] = found.start or 0 if found is not None else 0
        return response

    def take(self, step: Step) -> None:
        """Let the place do something."""
        response = next((sent for sent in self.far.sent if sent.protocol is not None and not sent.transport.lost), None)
        if isinstance(step, Reads):
            self.next_reads.append(step.what)
        elif isinstance(step, Happen) and step.what == "drain":
            self.sink.drain()
        elif response is not None and isinstance(step, Send):
            start = self.at[id(response)]
            data = DATA[start : start + step.size_bytes]
            if not step.is_right:
                data = bytes(byte ^ 1 for byte in data)
                self.is_right = False
            self.at[id(response)] = start + len(data)
            response.send(data)
        elif response is not None and isinstance(step, Happen):
            {"break": response.break_off, "end": response.end, "silence": lambda: self.clock.advance(10.1)}[step.what]()
        self.clock.advance(0.01)

    @settings(max_examples=150, deadline=None)
    @given(STEPS, RANGES, st.booleans(), st.booleans(), st.sampled_from((None, 1)))
    @example([Send(90_000), Reads("refuse"), Happen("break")], None, False, False, None)
    @example([Send(90_000), Reads("elsewhere"), Happen("break"), Send(5, False)], None, False, True, None)
    @example([Send(90_000), Happen("end"), Send(1), Happen("silence")], "bytes=-70000", False, False, 1)
    def test_a_client_gets_the_right_bytes_or_is_cut(
        self, steps: list[Step], byte_range: str | None, is_lost: bool, fills: bool, capacity_bytes: int | None
    ) -> None:
        """With one of the two at work and nothing wrong it is never cut; a whole one is never wrong."""
        self.begin_anew(is_lost, fills)
        self.ends = False
        serve = self.served(self.blob(byte_range))
        wanted = DATA if serve.partial is None else DATA[serve.partial.start : serve.partial.stop]
        _, self.sink = self.follow(serve, capacity_bytes)
        for step in steps:
            self.take(step)
        self.ends = True
        for _ in range(600):
            if self.sink.ending is not None:
                break
            self.sink.drain()
            self.take(Happen("break"))
            self.clock.advance(0.5)
        written = bytes(self.sink.written)
        if self.is_right and not is_lost:
            self.assertEqual((self.sink.ending, written), ("finished", wanted))
        elif serve.partial is None and self.sink.ending == "finished":
            self.assertEqual(written, wanted)
        elif serve.partial is None:
            self.assertLessEqual(len(written), TOTAL - TAIL_BYTES)
        self.assertIsNotNone(self.sink.ending)
        self.assertLessEqual(len(written), len(wanted))
        for kept in self.far.copies.content.values() if self.far.copies is not None else ():
            self.assertEqual(kept.data, DATA)
        self.core.ingests.abandon_all()
        self.assert_at_rest()
