"""Everything an upstream can do wrong, one thing at a time: right where it can be right, short and unkept where not."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from tests.e2e.law_bench import AT_ONCE, BY, LARGE, SIZES, Bench, Case, breaks, places
from tests.e2e.law_faults import SILENCE_S, TAIL_BYTES
from tests.e2e.law_wire import connect, get, request
from tests.e2e.law_world import make_world
from tests.e2e.processes import Workshop, wait_until
from tests.e2e.scripts import Content, Served, Step
from tests.soundness import assert_store_sound


class FaultsTests(SynchronousTestCase):
    """Promises 3 and 4, rules E1, E2 and E5, with real sockets."""

    def setUp(self) -> None:
        """Start the world."""
        self.shop = Workshop()
        self.addCleanup(self.shop.close)
        self.world = make_world(self.shop)
        self.bench = Bench(self.world)
        self.addCleanup(self.check_the_end)

    def check_the_end(self) -> None:
        """Whatever happened, what is kept is true, and nothing was unforeseen."""
        assert_store_sound(self.world.proxy.fs_root)
        self.assertNotIn("level=error", self.world.proxy.process.log())

    def assert_all(self, cases: Iterable[Case], at_once: int = AT_ONCE) -> None:
        """Every case comes out as it has to."""
        self.assertEqual(self.bench.failures(cases, at_once), [])

    def test_a_break_is_resumed_by_the_right_part(self) -> None:
        """A 206 that starts where the connection broke is read on."""
        self.assert_all(breaks(SIZES, "the right part"))

    def test_a_break_is_resumed_by_the_whole(self) -> None:
        """A 200 in place of a part is read on where the connection broke."""
        self.assert_all(breaks(SIZES, "the whole", Step(on_range="whole")))

    def test_a_part_that_starts_elsewhere_is_not_taken(self) -> None:
        """A 206 with another start says nothing; the next one is right."""
        self.assert_all(breaks((TAIL_BYTES, *LARGE), "a wrong start", Step(on_range="wrong_start")))

    def test_an_expired_token_is_replaced(self) -> None:
        """A 401 to the resume gets a fresh token; one at a time, since a scripted 401 ends everybody's token."""
        self.assert_all(breaks(LARGE[1:], "401", Step(status=401), needs_token=True), at_once=1)

    def test_an_expired_address_is_replaced(self) -> None:
        """A 403 of a signed address leads back to the registry, and so to a new one."""
        self.assert_all(breaks(SIZES[1:], "a new address", is_signed=True))

    def test_a_refused_resume_is_asked_again(self) -> None:
        """403, 416, 404 and 503 to the resume say nothing about the body."""
        for status in (403, 404, 416, 503):
            self.assert_all(breaks(LARGE[1:], str(status), Step(status=status)))

    def test_another_body_under_the_same_name_is_not_glued_on(self) -> None:
        """Another ETag in answer to the resume ends the pull; short and unkept."""
        resumed = (case for case in breaks(LARGE, "another ETag") if " 0," not in case.name)
        other = Step(etag='"another"', flip_at=LARGE[0] - 1)
        self.assert_all(evolve(case, afterwards=other, mends=False) for case in resumed)

    def test_two_breaks_in_one_body_are_mended(self) -> None:
        """Any number of breaks that make progress."""
        cases = []
        for size_bytes in LARGE:
            offsets = list(places(size_bytes).items())
            for (one, first), (two, second) in pairwise(offsets):
                for by in BY:
                    steps = (Step(break_at=first, break_by=by), Step(break_at=second, break_by=by))
                    cases.append(Case(f"{by} at {one} and {two}", size_bytes, steps))
        self.assert_all(cases)

    def test_a_resume_that_makes_no_progress_ends(self) -> None:
        """An upstream that always breaks at the same byte is given up."""
        self.assert_all(
            Case(f"always breaks at {name}", size_bytes, (), Step(break_at=offset), mends=False)
            for size_bytes in LARGE
            for name, offset in places(size_bytes).items()
        )

    def test_chunks_are_as_good_as_a_length(self) -> None:
        """A chunked body is proven and kept; one that breaks off is resumed."""
        self.assert_all(Case("chunked", size_bytes, (), Step(chunked=True)) for size_bytes in SIZES)
        chunked = (evolve(case, steps=(evolve(case.steps[0], chunked=True),)) for case in breaks(SIZES, "in chunks"))
        self.assert_all(chunked)
        ends = (Step(break_at=size_bytes, chunked=True) for size_bytes in LARGE)
        self.assert_all(Case("chunked, no last chunk", step.break_at or 0, (step,)) for step in ends)

    def test_wrong_bytes_reach_nobody_whole(self) -> None:
        """One wrong byte anywhere: short and unkept."""
        for size_bytes in SIZES[1:]:
            steps = {name: Step(flip_at=offset) for name, offset in places(size_bytes).items()}
            chunked = {f"{name}, chunked": evolve(step, chunked=True) for name, step in steps.items()}
            both = {**steps, **chunked}.items()
            self.assert_all(Case(f"wrong at {name}", size_bytes, (), step, mends=False) for name, step in both)

    def test_too_few_and_too_many_bytes_reach_nobody_whole(self) -> None:
        """The length is a promise, the digest is the verdict."""
        few, many = Step(declared_extra=100), Step(declared_extra=100, sent_extra=100)
        self.assert_all(Case("too few", size_bytes, (), few, mends=False) for size_bytes in SIZES)
        self.assert_all(Case("too many", size_bytes, (), many, mends=False) for size_bytes in SIZES)
        fewer = Step(declared_extra=-1, sent_extra=-1)
        self.assert_all(Case("one less than there is", size_bytes, (), fewer, mends=False) for size_bytes in SIZES[1:])
        self.assert_all(Case("more than promised", size_bytes, (), Step(sent_extra=100)) for size_bytes in SIZES)

    def test_a_page_in_place_of_the_blob_reaches_nobody(self) -> None:
        """What a captive portal says is an error, once or always."""
        self.assert_all(Case("page", size_bytes, (), Step(page=True), mends=False) for size_bytes in SIZES)
        self.assert_all(Case("page once", size_bytes, (Step(page=True),)) for size_bytes in SIZES)

    def test_silence_is_a_break(self) -> None:
        """An upstream that falls silent is asked for the rest."""
        stalls = {
            f"silent at {name}": (size_bytes, Step(stall_at=offset, stall_s=SILENCE_S * 3))
            for size_bytes in LARGE
            for name, offset in places(size_bytes).items()
        }
        self.assert_all(Case(name, size_bytes, (step,)) for name, (size_bytes, step) in stalls.items())

    def test_a_client_that_leaves_alone_leaves_a_hit(self) -> None:
        """The only client leaves in mid-body; the ingest goes on, and the next pull is a hit."""
        content = Content(2 * 1024 * 1024, seed=77)
        target = f"/v2/library/left/blobs/{content.digest}"
        self.world.upstream.serve(Served(target, content, afterwards=Step(chunk_bytes=64 * 1024, pause_s=0.02)))
        wire = connect(self.world.proxy.port)
        wire.send(request(f"{target}?ns=docker.io"))
        self.assertEqual(wire.read_answer(leave_after_bytes=1).ended, "left")
        wire.close()
        wait_until(self.world.content_path(content).exists, 20, "kept")
        self.assertEqual(get(self.world.proxy.port, f"{target}?ns=docker.io").digest, content.digest)
        wait_until(lambda: "outcome=hit" in self.world.proxy.process.log(), 5, "the log says hit")
        self.assertEqual([ask.ended for ask in self.bench.asks(target)], ["whole"])
