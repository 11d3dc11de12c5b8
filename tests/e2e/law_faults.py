"""What upstream does wrong in the law test: each fault by its name, as steps of the scripted upstream."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from attrs import evolve, frozen

from tests.e2e.law_upstream import LABEL
from tests.e2e.scripts import HONEST, Content, Served, Step

TAIL_BYTES = 32 * 1024
BLOB_TYPE = "application/octet-stream"
SILENCE_S = 2  # what the proxy is configured to bear
Script = Callable[[Random, int], tuple[Step, ...]]


@frozen
class Fault:
    """One way in which an upstream misbehaves.

    :ivar script: makes the steps; the last one goes on for ever.
    :ivar mends: whether every whole GET can still be served right, and has to be.
    :ivar refuses: whether a step of it is a refusal, which is passed on to a client whose own GET meets it first.
    :ivar spares_manifests: whether it does nothing to a manifest, which is read whole and never resumed.
    :ivar true_bytes: whether what is sent is always the true part of the content.
    """

    name: str
    script: Script
    mends: bool = True
    refuses: bool = False
    true_bytes: bool = True
    spares_manifests: bool = False
    needs_token: bool = False
    is_signed: bool = False

    def served(self, rng: Random, target: str, content: Content, media_type: str) -> tuple[Served, ...]:
        """Return the targets that do it."""
        *steps, afterwards = self._labelled(self.script(rng, content.size_bytes))
        if self.is_signed:
            return signed(target, content, steps[0], media_type)
        return (Served(target, content, media_type, tuple(steps), afterwards, needs_token=self.needs_token),)

    def _labelled(self, steps: Sequence[Step]) -> list[Step]:
        """Let the log tell that the fault has happened: its label is on the step that comes last of it."""
        last = max((place for place, step in enumerate(steps) if step != HONEST), default=0)
        return [_label(step, self.name) if place == last else step for place, step in enumerate(steps)]


def _label(step: Step, name: str) -> Step:
    """Return the step with its label."""
    return evolve(step, headers=(*step.headers, (LABEL, name)))


def signed(target: str, content: Content, broken: Step, media_type: str = BLOB_TYPE) -> tuple[Served, ...]:
    """Return a registry that sends its clients to signed addresses, of which the first expires in mid-body."""
    first, second = (f"/signed/{number}{target}" for number in (1, 2))
    there = tuple(Step(status=307, headers=(("Location", place),)) for place in (first, second))
    return (
        Served(first, content, media_type, steps=(broken,), afterwards=Step(status=403)),
        Served(second, content, media_type),
        Served(target, content, media_type, steps=there[:1], afterwards=there[1], head=there[1]),
    )


def _somewhere(rng: Random, size: int) -> int:
    """Return an offset, often one of the special ones."""
    special = [0, min(1, size), size // 2, max(0, size - TAIL_BYTES // 2), max(0, size - 1), size]
    return rng.choice([*special, rng.randint(0, size), rng.randint(0, size)])


def _broken(rng: Random, size: int, **more: object) -> Step:
    """Return a step that breaks off somewhere."""
    by = rng.choice(["fin", "rst"])
    return Step(break_at=_somewhere(rng, size), break_by=by, chunk_bytes=rng.choice([8192, 65536]), **more)  # type: ignore[arg-type]


def _broken_then(*after: Step) -> Script:
    """Break off once, then do this."""
    return lambda rng, size: (evolve(_broken(rng, size), break_at=_inside(rng, size)), *after, HONEST)


def _inside(rng: Random, size: int) -> int:
    """Return an offset after which something is left, if the content has any."""
    return rng.randint(0, max(0, size - 1))


def _twice(rng: Random, size: int) -> tuple[Step, ...]:
    """Break off twice, the second time further on."""
    first, second = sorted((_somewhere(rng, size), _somewhere(rng, size)))
    breaks = (Step(break_at=first), Step(break_at=second))
    return (*(evolve(step, break_by=rng.choice(["fin", "rst"])) for step in breaks), HONEST)


def _flipped(rng: Random, size: int) -> tuple[Step, ...]:
    """Send one wrong byte, once or always."""
    step = Step(flip_at=_inside(rng, size)) if size else Step(page=True)
    return rng.choice([(step, HONEST), (step,)])


def _stalled(stall_s: float) -> Script:
    """Send nothing for a while in mid-body."""
    return lambda rng, size: (Step(stall_at=_inside(rng, size), stall_s=stall_s), HONEST)


def _short(rng: Random, size: int) -> tuple[Step, ...]:
    """Promise and send less than the content."""
    missing = rng.randint(1, size) if size else 0
    return (Step(declared_extra=-missing, sent_extra=-missing) if size else Step(page=True),)


def _always(*steps: Step) -> Script:
    """Do the same, whatever the content is."""
    return lambda rng, size: steps


def _dead_end(rng: Random, size: int) -> tuple[Step, ...]:
    """Never come beyond one offset."""
    return (Step(break_at=_inside(rng, size)),)


FAULTS = (
    Fault("honest", _always(HONEST), spares_manifests=True),
    Fault("drip", lambda rng, size: (Step(chunk_bytes=max(64, size // 24), pause_s=0.04),), spares_manifests=True),
    Fault("chunked", _always(Step(chunked=True)), spares_manifests=True),
    Fault("chunked broken", lambda rng, size: (_broken(rng, size, chunked=True), HONEST)),
    Fault("break", lambda rng, size: (_broken(rng, size), HONEST)),
    Fault("break twice", _twice),
    Fault("resume: wrong start", _broken_then(Step(on_range="wrong_start"))),
    Fault("resume: whole 200", _broken_then(Step(on_range="whole"))),
    Fault("resume: 401", _broken_then(Step(status=401)), refuses=True, needs_token=True),
    Fault("resume: 403", _broken_then(Step(status=403)), refuses=True),
    Fault("resume: signed address expired", _broken_then(), is_signed=True),
    Fault("resume: 416", _broken_then(Step(status=416)), refuses=True),
    Fault("resume: another ETag", _broken_then(Step(etag='"another"')), mends=False),
    Fault("wrong byte", _flipped, mends=False, true_bytes=False),
    Fault("too few", _always(Step(declared_extra=1000)), mends=False, true_bytes=False),
    Fault("short promise", _short, mends=False, true_bytes=False),
    Fault("too many", _always(Step(declared_extra=1000, sent_extra=1000)), mends=False, true_bytes=False),
    Fault("too many, unannounced", _always(Step(sent_extra=1000)), spares_manifests=True),
    Fault("page", _always(Step(page=True)), mends=False, true_bytes=False),
    Fault("page once", _always(Step(page=True), HONEST)),
    Fault("pause", _stalled(SILENCE_S / 4), spares_manifests=True),
    Fault("stall", _stalled(SILENCE_S * 2)),
    Fault("dead end", _dead_end, mends=False),
    Fault("refusal", lambda rng, size: (Step(status=rng.choice([403, 404, 429, 500, 503])),), mends=False),
)
# Content that is kept already needs nobody.
GONE = Fault("gone", _always(Step(status=503)))
