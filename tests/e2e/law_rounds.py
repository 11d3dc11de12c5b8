"""The rounds of the law test: what happens in a round follows from the seed and its number alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from random import Random

from attrs import evolve, frozen

from tests.e2e.law_clients import KINDS, Guest, Subject
from tests.e2e.law_faults import BLOB_TYPE, FAULTS, GONE, TAIL_BYTES, Fault
from tests.e2e.scripts import MIB, Content, Served

NAMESPACES = {"docker.io": "library/law", "ghcr.io": "org/law"}
SMALL = (0, 1, TAIL_BYTES - 1, TAIL_BYTES)
LARGE = (TAIL_BYTES + 1, 300 * 1024, 2 * MIB, 3 * MIB + 7)
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
FAR_SIZE = 9 * MIB
CONTENTS = 4
STORAGE_EVERY = 5
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
    hurts = storage_faults and number % STORAGE_EVERY == 0
    fault = storage_faults[number // STORAGE_EVERY % len(storage_faults)] if hurts else None
    subjects: list[Subject] = []
    served: list[Served] = []
    for place in range(CONTENTS):
        content = Content(_size(rng), seed=seed * 1_000_000 + number * CONTENTS + place)
        if any(content.digest == subject.content.digest for subject in subjects):
            content = evolve(content, size_bytes=LARGE[-1])  # there is only one content of no bytes
        _add(rng, content, [_fault(number * CONTENTS + place), rng.choice(FAULTS)], subjects, served)
    manifest, faults = _manifest(rng, seed, number), [_fault(number), rng.choice(FAULTS)]
    for reference in (manifest.digest, f"v{number}"):
        _add(rng, manifest, faults, subjects, served, f"manifests/{reference}", MANIFEST_TYPE)
    news = {subject.content.digest for subject in subjects}
    olds = [content for content in kept if content.digest not in news]
    if olds and fault is None:
        _add(rng, rng.choice(olds), [GONE, GONE], subjects, served)
    guests = tuple(_guest(rng, number, place, subjects) for place in range(rng.randint(8, 20)))
    return Round(number, tuple(subjects), tuple(served), guests, fault, rng.choice([0, rng.uniform(0, 0.3)]))


def _size(rng: Random) -> int:
    """Return a size; the large ones are rare, since time is short."""
    return FAR_SIZE if rng.random() < 0.06 else rng.choice([*SMALL, *LARGE, *LARGE])


def _fault(turn: int) -> Fault:
    """Take the faults in turn."""
    return FAULTS[turn % len(FAULTS)]


def _manifest(rng: Random, seed: int, number: int) -> Content:
    """Return a manifest of some length."""
    config = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": f"sha256:{'0' * 64}", "size": 2}
    notes = {"round": f"{seed}:{number}", "filler": "x" * rng.choice([0, TAIL_BYTES, 200 * 1024])}
    fields = {"schemaVersion": 2, "mediaType": MANIFEST_TYPE, "config": config, "layers": [], "annotations": notes}
    text = json.dumps(fields)
    return Content(len(text), text=text)


def _add(
    rng: Random,
    content: Content,
    faults: Sequence[Fault],
    subjects: list[Subject],
    served: list[Served],
    path: str | None = None,
    media_type: str = BLOB_TYPE,
) -> None:
    """Put content into both namespaces, each with a fault of its own."""
    for (namespace, repository), fault in zip(NAMESPACES.items(), faults, strict=True):
        target = f"/v2/{repository}/{path or f'blobs/{content.digest}'}"
        subjects.append(Subject(namespace, target, content, fault, media_type))
        served.extend(fault.served(rng, target, content, media_type))


def _guest(rng: Random, number: int, place: int, subjects: Sequence[Subject]) -> Guest:
    """Draw one client; the first takes its kind in turn, and each fault whose turn it is meets at least one GET."""
    if place < CONTENTS:
        kind, subject = "get", subjects[place * len(NAMESPACES)]
    else:
        kind, subject = rng.choice(list(KINDS)), rng.choice(subjects)
    if place == CONTENTS:
        kind = list(KINDS)[number % len(KINDS)]
    return Guest(kind, subject, rng.choice([0, rng.uniform(0, 0.4)]), rng.getrandbits(32))
