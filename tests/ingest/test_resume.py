"""An upstream that breaks off is resumed, right where that can be, short and unkept where not (RULES E5)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.iweb import UNKNOWN_LENGTH, IResponse

from tests.doubles import FakeResponse
from tests.ingest.scene import KIB, LIMITS, TAIL, Client, Scene, ScriptedSpool, content_of, partial
from txociproxy.oci.errors import OCIError, UpstreamUnreachable

SIZE = 64 * KIB
BREAKS = (0, 1, SIZE // 2, SIZE - TAIL // 2, SIZE - 1)
GOOD, OTHER = content_of(SIZE), content_of(SIZE, seed=2)
Answer = Callable[[int], FakeResponse]


def right_part(at: int) -> FakeResponse:
    """Answer as it should be."""
    return partial(GOOD, at)


def part_without_total(at: int) -> FakeResponse:
    """Answer without the total: ``bytes 5-9/*``."""
    response = partial(GOOD, at)
    return FakeResponse(206, {"Content-Range": f"bytes {at}-{SIZE - 1}/*"}, response.body, length=SIZE - at)


def whole(at: int) -> FakeResponse:
    """Answer without understanding ranges."""
    return FakeResponse(200, {}, GOOD, length=SIZE)


def whole_in_chunks(at: int) -> FakeResponse:
    """Answer without understanding ranges, and without a length."""
    return FakeResponse(200, {}, GOOD)


def part_from_elsewhere(at: int) -> FakeResponse:
    """Answer with a part that begins a byte early, or late."""
    return partial(GOOD, at - 1 if at else 1)


def part_without_range(at: int) -> FakeResponse:
    """Answer 206 and do not say of what."""
    return FakeResponse(206, {}, GOOD[at:], length=SIZE - at)


def refusal(code: int) -> Answer:
    """Answer with an error page."""
    return lambda at: FakeResponse(code, {}, b"<html>no</html>")


def unsatisfiable(at: int) -> FakeResponse:
    """Answer that there is no more."""
    return FakeResponse(416, {"Content-Range": f"bytes */{SIZE}"})


def unsatisfiable_here(at: int) -> FakeResponse:
    """Answer that there is no more, against an earlier promise."""
    return FakeResponse(416, {"Content-Range": f"bytes */{at}"})


def part_of_another_tag(at: int) -> FakeResponse:
    """Answer with a part of something else, and say so."""
    return partial(OTHER, at, fields={"ETag": '"other"'})


def whole_of_another_tag(at: int) -> FakeResponse:
    """Answer with all of something else, and say so."""
    return FakeResponse(200, {"ETag": '"other"'}, OTHER, length=SIZE)


def part_of_another_total(at: int) -> FakeResponse:
    """Answer with a part of something longer."""
    return partial(GOOD + b"x", at)


def whole_of_another_total(at: int) -> FakeResponse:
    """Answer with something shorter."""
    return FakeResponse(200, {}, GOOD[:-1], length=SIZE - 1)


def part_of_lies(at: int) -> FakeResponse:
    """Answer with a part of something else, and do not say so."""
    return partial(OTHER, at)


def whole_of_lies(at: int) -> FakeResponse:
    """Answer with something else, and do not say so; the first half is right."""
    return FakeResponse(200, {}, GOOD[: SIZE // 2] + OTHER[SIZE // 2 :], length=SIZE)


GOOD_ANSWERS: tuple[Answer, ...] = (right_part, part_without_total, whole, whole_in_chunks)
USELESS_ANSWERS: tuple[Answer, ...] = (
    part_from_elsewhere,
    part_without_range,
    refusal(401),
    refusal(403),
    refusal(404),
    refusal(503),
    unsatisfiable,
    unsatisfiable_here,
)
OTHER_ANSWERS: tuple[Answer, ...] = (
    part_of_another_tag,
    whole_of_another_tag,
    part_of_another_total,
    whole_of_another_total,
)


def breaking() -> Iterator[tuple[Scene, Client, int, Callable[[], None]]]:
    """Iterate over scenes whose upstream has sent a part, and is to say goodbye now."""
    for at in BREAKS:
        for how in ("clean", "unclean"):
            scene = Scene(GOOD, SIZE, spool=ScriptedSpool(), etag='"one"').begin()
            client = scene.client()
            scene.send(0, at)
            yield scene, client, at, scene.end if how == "clean" else scene.break_off


class ResumeCase(SynchronousTestCase):
    """What all of them check."""

    def wait(self, scene: Scene) -> None:
        """Let all pauses between attempts pass."""
        for _ in range(LIMITS.tries):
            scene.clock.advance(LIMITS.backoff_s * 8)

    def assert_right(self, scene: Scene, client: Client, *resumed_at: int) -> None:
        """Check that nobody noticed anything, and that the body is kept."""
        assert scene.spool is not None
        self.assertEqual((client.how, client.got == scene.content), ("finished", True))
        self.assertEqual((scene.ingest.fate, scene.ingest.kept, scene.ended), ("proven", True, [scene.ingest]))
        self.assertEqual((bytes(scene.spool.data) == scene.content, scene.timers), (True, 0))
        self.assertEqual(scene.resumed_at, list(resumed_at))

    def assert_short(self, scene: Scene, client: Client, fate: str, *resumed_at: int) -> None:
        """Check that the client was cut short of the tail, and that nothing is kept."""
        assert scene.spool is not None
        self.assertEqual((client.how, len(client.got) <= max(0, len(scene.content) - TAIL)), ("cut", True))
        self.assertEqual((scene.ingest.fate, scene.ingest.kept, scene.ended), (fate, False, [scene.ingest]))
        self.assertEqual((scene.spool.committed, scene.spool.commits, scene.spool.closed), (None, 0, True))
        self.assertEqual((scene.resumed_at, scene.timers), (list(resumed_at), 0))


class ResumeTests(ResumeCase):
    """What becomes of a body that breaks off."""

    def test_a_right_answer_is_read_on(self) -> None:
        """With the hash state kept: 206 from where it broke, or the whole with the beginning skipped."""
        for answer in GOOD_ANSWERS:
            for scene, client, at, goodbye in breaking():
                scene.answers.append(answer(at))
                goodbye()
                self.assert_right(scene, client, at)

    def test_a_useless_answer_is_closed_and_the_next_one_counts(self) -> None:
        """A wrong start, a refusal, an error: says nothing about the body, so it is asked again."""
        for answer in USELESS_ANSWERS:
            for scene, client, at, goodbye in breaking():
                useless = answer(at)
                scene.answers += [useless, right_part(at)]
                goodbye()
                self.assertEqual((scene.resumed_at, client.how, useless.transport.lost), ([at], None, True))
                self.wait(scene)
                self.assert_right(scene, client, at, at)

    def test_useless_answers_only_end_it(self) -> None:
        """After a bounded number of attempts, with growing pauses between them."""
        for answer in (*USELESS_ANSWERS, None):
            for scene, client, at, goodbye in breaking():
                scene.answers += [answer(at) for _ in range(LIMITS.tries)] if answer is not None else []
                goodbye()
                self.wait(scene)
                self.assert_short(scene, client, "lost", *[at] * LIMITS.tries)

    def test_another_body_ends_it_at_once(self) -> None:
        """Another entity tag or another length: what we have does not belong to what upstream has now."""
        for answer in OTHER_ANSWERS:
            for scene, client, at, goodbye in breaking():
                other = answer(at)
                scene.answers += [other, right_part(at)]
                goodbye()
                self.assert_short(scene, client, "lost", at)
                self.assertTrue(other.transport.lost)

    def test_lies_are_found_by_the_digest(self) -> None:
        """Nobody gets the tail of them."""
        for answer in (part_of_lies, whole_of_lies):
            for scene, client, at, goodbye in breaking():
                if answer is whole_of_lies and at > SIZE // 2:
                    continue  # only its last bytes count then
                scene.answers.append(answer(at))
                goodbye()
                self.assert_short(scene, client, "wrong", at)

    def test_a_weak_entity_tag_says_nothing(self) -> None:
        """Nor does a missing one; the digest has the last word anyhow."""
        for before, now in ((None, '"x"'), ('W/"a"', 'W/"b"'), ('"a"', None)):
            scene = Scene(GOOD, SIZE, spool=ScriptedSpool(), etag=before).begin()
            client = scene.client()
            scene.send(0, SIZE // 2)
            scene.answers.append(partial(GOOD, SIZE // 2, fields={"ETag": now} if now else {}))
            scene.break_off()
            self.assert_right(scene, client, SIZE // 2)

    def test_twice_in_one_body(self) -> None:
        """In any mixture of parts and wholes."""
        for first in (right_part, whole):
            for second in (right_part, whole):
                for at, then in ((0, 1), (1, SIZE // 2), (SIZE // 2, SIZE - 1), (SIZE // 2, SIZE // 2)):
                    scene = Scene(GOOD, SIZE, spool=ScriptedSpool()).begin()
                    client = scene.client()
                    scene.send(0, at)
                    broken = first(at)
                    broken.body = broken.body[: then - at if first is right_part else then]
                    broken.ends = False
                    scene.answers += [broken, second(then)]
                    scene.break_off()
                    scene.break_off()
                    self.wait(scene)
                    self.assert_right(scene, client, at, then)

    def test_breaks_that_make_progress_do_not_count(self) -> None:
        """Any number of them."""
        scene = Scene(GOOD, SIZE, spool=ScriptedSpool()).begin()
        client = scene.client()
        places = list(range(KIB, 20 * KIB, KIB))
        scene.send(0, KIB)
        for at in places:
            scene.answers.append(FakeResponse(206, right_part(at).fields, GOOD[at : at + KIB], ends=False))
            scene.break_off()
            scene.clock.advance(LIMITS.backoff_s)
        scene.answers.append(right_part(20 * KIB))
        scene.break_off()
        scene.clock.advance(LIMITS.backoff_s)
        self.assert_right(scene, client, *places, 20 * KIB)

    def test_one_that_gives_little_is_not_asked_again_at_once(self) -> None:
        """Else it could keep us busy for ever, a byte at a time."""
        scene = Scene(GOOD, SIZE, spool=ScriptedSpool()).begin()
        client = scene.client()
        scene.send(0, KIB)
        scene.answers += [
            FakeResponse(206, right_part(KIB).fields, GOOD[KIB : KIB + 1], ends=False),
            right_part(KIB + 1),
        ]
        scene.break_off()
        scene.break_off()
        self.assertEqual(scene.resumed_at, [KIB])
        scene.clock.advance(LIMITS.backoff_s)
        self.assert_right(scene, client, KIB, KIB + 1)

    def test_a_whole_answer_that_breaks_within_what_we_have_is_no_progress(self) -> None:
        """An upstream that always breaks at the same place is given up."""
        scene = Scene(GOOD, SIZE, spool=ScriptedSpool()).begin()
        client = scene.client()
        scene.send(0, SIZE // 2)
        for _ in range(LIMITS.tries):
            scene.answers.append(FakeResponse(200, {}, GOOD[: SIZE // 2], length=SIZE, ends=False))
        scene.break_off()
        for _ in range(LIMITS.tries):
            scene.break_off()
            scene.clock.advance(LIMITS.backoff_s * 8)
        self.assert_short(scene, client, "lost", *[SIZE // 2] * LIMITS.tries)

    def test_more_than_was_promised_is_not_taken(self) -> None:
        """A part that goes on beyond the end it promised."""
        scene = Scene(GOOD, SIZE, spool=ScriptedSpool()).begin()
        client = scene.client()
        scene.send(0, SIZE // 2)
        answer = right_part(SIZE // 2)
        answer.body += b"more"
        scene.answers.append(answer)
        scene.break_off()
        self.assert_right(scene, client, SIZE // 2)

    def test_less_than_was_promised_is_asked_for_again(self) -> None:
        """A server may send a shorter part than was wanted, and end well."""
        scene = Scene(GOOD, SIZE, spool=ScriptedSpool()).begin()
        client = scene.client()
        scene.send(0, KIB)
        scene.answers += [partial(GOOD, KIB, stop=2 * KIB), right_part(2 * KIB)]
        scene.break_off()
        self.wait(scene)
        self.assert_right(scene, client, KIB, 2 * KIB)


class SizeTests(ResumeCase):
    """Sizes around the tail, and bodies of unknown length."""

    def test_sizes_around_the_tail(self) -> None:
        """Whole, broken at every interesting place, with the right bytes and with wrong ones."""
        for size in (0, 1, TAIL - 1, TAIL, TAIL + 1):
            good = content_of(size)
            for at in sorted({0, min(1, size), size // 2, size}):
                for sent, fate in ((good, "proven"), (b"x" * size, "wrong" if size else "proven")):
                    scene = Scene(good, size, spool=ScriptedSpool()).begin()
                    client = scene.client()
                    scene.response.send(sent[:at])
                    scene.answers.append(partial(sent, at))
                    scene.break_off()
                    resumed_at = [at] if at < size else []
                    if fate == "proven":
                        self.assert_right(scene, client, *resumed_at)
                    else:
                        self.assert_short(scene, client, fate, *resumed_at)
                        self.assertLessEqual(len(client.got), max(0, size - TAIL))

    def test_a_body_of_unknown_length_is_resumed(self) -> None:
        """Chunks that break off; the answer may tell the length."""
        for answer in GOOD_ANSWERS:
            for at in (0, 1, SIZE // 2, SIZE - 1):
                scene = Scene(GOOD, UNKNOWN_LENGTH, spool=ScriptedSpool()).begin()
                client = scene.client()
                scene.send(0, at)
                scene.answers.append(answer(at))
                scene.break_off()
                self.assert_right(scene, client, at)

    def test_a_body_of_unknown_length_that_broke_behind_its_last_byte(self) -> None:
        """Only the goodbye was missing: 416 with our length, or a whole answer, tells that there is no more."""
        for answer in (unsatisfiable, whole, whole_in_chunks):
            scene = Scene(GOOD, UNKNOWN_LENGTH, spool=ScriptedSpool()).begin()
            client = scene.client()
            scene.send()
            scene.answers.append(answer(SIZE))
            scene.break_off()
            self.assert_right(scene, client, SIZE)

    def test_a_length_that_an_answer_tells_is_a_promise(self) -> None:
        """A part that ends before it is not the end; an answer with another length is another body."""
        for last, fate in ((right_part, "proven"), (part_of_another_total, "lost")):
            scene = Scene(GOOD, UNKNOWN_LENGTH, spool=ScriptedSpool()).begin()
            client = scene.client()
            scene.send(0, KIB)
            scene.answers += [partial(GOOD, KIB, stop=2 * KIB), last(2 * KIB)]
            scene.break_off()
            self.wait(scene)
            if fate == "proven":
                self.assert_right(scene, client, KIB, 2 * KIB)
            else:
                self.assert_short(scene, client, fate, KIB, 2 * KIB)

    def test_a_relayed_range_is_resumed_within_its_bounds(self) -> None:
        """A whole answer is skipped to where it broke, and not read beyond the part."""
        for answer in (right_part, whole):
            scene = Scene(GOOD, SIZE, part=(KIB, 9 * KIB))
            scene.ingest.promise()
            scene.begin()
            client = scene.client(KIB, 9 * KIB)
            scene.send(KIB, 5 * KIB)
            scene.answers.append(answer(5 * KIB))
            scene.break_off()
            self.assertEqual((client.how, client.got), ("finished", GOOD[KIB : 9 * KIB]))
            self.assertEqual((scene.resumed_at, scene.timers, scene.ended), ([5 * KIB], 0, [scene.ingest]))


class AskingTests(ResumeCase):
    """The question for the rest, while it has no answer."""

    def test_a_refusal_of_our_own_making_is_as_good_as_no_answer(self) -> None:
        """No route, no place: the next attempt may find it otherwise."""
        scene = Scene(GOOD, SIZE, spool=ScriptedSpool()).begin()
        client = scene.client()
        scene.send(0, KIB)
        scene.answers += [OCIError("DENIED", "no"), UpstreamUnreachable("no"), right_part(KIB)]
        scene.break_off()
        self.wait(scene)
        self.assert_right(scene, client, KIB, KIB, KIB)

    def test_a_fault_of_ours_ends_it_and_is_logged(self) -> None:
        """Nobody hangs."""
        scene = Scene(GOOD, SIZE, spool=ScriptedSpool()).begin()
        client = scene.client()
        scene.answers.append(ZeroDivisionError())
        scene.break_off()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assert_short(scene, client, "lost", 0)

    def test_readers_read_what_is_here_while_it_is_asked(self) -> None:
        """Joining and leaving go on as well."""
        pending: Deferred[IResponse] = Deferred()
        scene = Scene(GOOD, SIZE, spool=ScriptedSpool(), answers=[pending]).begin()
        first = scene.client()
        scene.send(0, SIZE // 2)
        scene.break_off()
        late = scene.client()
        self.assertEqual((len(late.got), late.how), (SIZE // 2, None))
        first.sink.leave()
        pending.callback(right_part(SIZE // 2))
        self.assert_right(scene, late, SIZE // 2)

    def test_nobody_asks_any_more_when_it_was_abandoned(self) -> None:
        """Not while the question is out, whatever cancelling makes of it, and not in a pause between two."""
        for cancelled_as in (None, UpstreamUnreachable("cancelled"), right_part(KIB)):
            pending: Deferred[IResponse] = Deferred()
            if cancelled_as is not None:
                pending = Deferred(lambda d, end=cancelled_as: d.callback(end))  # type: ignore[misc]
                if isinstance(cancelled_as, Exception):
                    pending = Deferred(lambda d, end=cancelled_as: d.errback(end))  # type: ignore[misc]
            scene = Scene(GOOD, SIZE, spool=ScriptedSpool(), answers=[pending]).begin()
            client = scene.client()
            scene.send(0, KIB)
            scene.break_off()
            scene.ingest.abandon()
            self.wait(scene)
            self.assert_short(scene, client, "abandoned", KIB)
            if isinstance(cancelled_as, FakeResponse):
                self.assertTrue(cancelled_as.transport.lost)
        scene = Scene(GOOD, SIZE, spool=ScriptedSpool()).begin()
        client = scene.client()
        scene.break_off()
        self.assertEqual(scene.resumed_at, [0])
        scene.ingest.abandon()
        self.wait(scene)
        self.assert_short(scene, client, "abandoned", 0)
