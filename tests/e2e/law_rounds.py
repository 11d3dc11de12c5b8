"""The rounds of the law test: what happens in a round follows from the seed and its number alone."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from attrs import evolve, frozen

from tests.e2e.law_clients import KINDS, Guest, Subject
from tests.e2e.law_faults import FAULTS, GONE, TAIL_BYTES, Fault
from tests.e2e.scripts import MIB, Content, Served

NAMESPACES = {"docker.io": "library/law", "ghcr.io": "org/law"}
SIZES = (0, 1, TAIL_BYTES - 1, TAIL_BYTES, TAIL_BYTES + 1, 300 * 1024, 2 * MIB, 3 * MIB + 7)
FAR_SIZE = 9 * MIB
CONTENTS = 4
STORAGE_FAULTS = ("file too large", "no directory", "disk full")


@frozen
class Round:
    """What happens at the same time.

    :ivar served: what upstream is told.
    :ivar storage_fault: what happens to the storage, ``storage_delay_s`` after the beginning.
    """

    number: int
    subjects: tuple[Subject, ...]
    served: tuple[Served, ...]
    guests: tuple[Guest, ...]
    storage_fault: str | None
    storage_delay_s: float


def make_round(
    seed: int, number: int, kept: Sequence[Content] = (), storage_faults: Sequence[str] = STORAGE_FAULTS
) -> Round:
    """Draw a round: every fault and every kind of client comes in its turn, and chance adds the rest.

    :param kept: what the storage holds; one of it may be asked again while its upstream is gone.
    """
    rng = Random(f"{seed}:{number}")
    fault = rng.choice(storage_faults) if storage_faults and rng.random() < 0.2 else None
    subjects: list[Subject] = []
    served: list[Served] = []
    for place in range(CONTENTS):
        content = Content(_size(rng), seed=seed * 1_000_000 + number * CONTENTS + place)
        if any(content.digest == subject.content.digest for subject in subjects):
            content = evolve(content, size_bytes=SIZES[-1])  # there is only one content of no bytes
        _add(rng, content, [_fault(number * CONTENTS + place), rng.choice(FAULTS)], subjects, served)
    if kept and fault is None:
        _add(rng, rng.choice(kept), [GONE, GONE], subjects, served)
    guests = tuple(_guest(rng, number, place, subjects) for place in range(rng.randint(8, 16)))
    return Round(number, tuple(subjects), tuple(served), guests, fault, rng.choice([0, rng.uniform(0, 0.3)]))


def _size(rng: Random) -> int:
    """Return a size; the large ones are rare, since time is short."""
    return FAR_SIZE if rng.random() < 0.06 else rng.choice(SIZES)


def _fault(turn: int) -> Fault:
    """Take the faults in turn."""
    return FAULTS[turn % len(FAULTS)]


def _add(
    rng: Random, content: Content, faults: Sequence[Fault], subjects: list[Subject], served: list[Served]
) -> None:
    """Put content into both namespaces, each with a fault of its own."""
    for (namespace, repository), fault in zip(NAMESPACES.items(), faults, strict=True):
        target = f"/v2/{repository}/blobs/{content.digest}"
        subjects.append(Subject(namespace, target, content, fault))
        served.extend(fault.served(rng, target, content))


def _guest(rng: Random, number: int, place: int, subjects: Sequence[Subject]) -> Guest:
    """Draw one client; the first takes its kind in turn, and each fault whose turn it is meets at least one GET."""
    if place < CONTENTS:
        kind, subject = "get", subjects[place * len(NAMESPACES)]
    else:
        kind, subject = rng.choice(list(KINDS)), rng.choice(subjects)
    if place == CONTENTS:
        kind = list(KINDS)[number % len(KINDS)]
    return Guest(kind, subject, rng.choice([0, rng.uniform(0, 0.4)]), rng.getrandbits(32))
