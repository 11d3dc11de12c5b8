"""The laws that every answer is judged by, whatever upstream, storage and clients have done."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import combinations

from tests.e2e.law_clients import Asked
from tests.e2e.law_faults import TAIL_BYTES
from tests.e2e.law_upstream import Noted

# Upstream notes the end of a body a moment after the proxy has seen it.
CLOCK_S = 0.05
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)$")


def broken_laws(asked: Asked, storage_works: bool = True) -> Iterator[str]:
    """Say which laws an answer breaks.

    :param storage_works: whether the storage was left alone meanwhile.
    """
    answer, subject = asked.answer, asked.subject
    if answer.ended == "hung":
        yield "it hangs"
    elif answer.status == 0 and answer.ended != "left":
        yield "the connection ended without an answer"
    elif answer.status >= 400:
        yield from _error(asked)
    elif answer.status == 200:
        yield from _whole(asked, storage_works)
    elif answer.status == 206 and asked.part is not None:
        yield from _part(asked)
    else:
        yield "this status has no place here"
    if subject.must_be_right:
        yield from _mended(asked, storage_works)


def _error(asked: Asked) -> Iterator[str]:
    """Errors have the spec's form, and a range is refused only where there is none."""
    answer = asked.answer
    if asked.method != "HEAD" and answer.ended == "whole" and not answer.is_oci_error:
        yield "the error is not as the spec has it"
    elif answer.ended not in ("whole", "left"):
        yield "the error is not whole"
    satisfiable = asked.part is not None and asked.part[0] < asked.part[1]
    fault = asked.subject.fault
    if answer.status == 416 and not fault.refuses and (asked.part is None or (satisfiable and fault.true_bytes)):
        yield "a range that exists was refused"


def _whole(asked: Asked, storage_works: bool) -> Iterator[str]:
    """A whole body has the digest; a short one is the truth so far and lacks at least the tail."""
    answer, content = asked.answer, asked.subject.content
    if answer.fields.get("docker-content-digest") != content.digest:
        yield "the answer does not name its digest"
    if answer.fields.get("content-type") != asked.subject.media_type:
        yield "the content has another type"
    if asked.method == "HEAD":
        if asked.subject.fault.true_bytes and answer.fields.get("content-length", "") not in _lengths(asked):
            yield "HEAD says a wrong length"
        return
    if answer.ended == "whole":
        if answer.digest != content.digest:
            yield "a client completed a body that does not have its digest"
        return
    if asked.subject.fault.true_bytes and not content.data().startswith(answer.body):
        yield "the beginning of the body is not true"
    announced_bytes = int(answer.fields.get("content-length", content.size_bytes))
    held_back = max(0, announced_bytes - TAIL_BYTES)
    if answer.ended != "left" and storage_works and asked.is_patient and len(answer.body) > held_back:
        yield "the tail went out before the verdict"


def _lengths(asked: Asked) -> tuple[str, ...]:
    """Return what a HEAD may say: nothing only where upstream said nothing."""
    return (str(asked.subject.content.size_bytes),)


def _part(asked: Asked) -> Iterator[str]:
    """A part is the part that was asked for, and true where upstream was."""
    answer, content = asked.answer, asked.subject.content
    found = _CONTENT_RANGE.match(answer.fields.get("content-range", ""))
    if found is None:
        yield "the part does not say what it is"
        return
    first, last, total = (int(text) for text in found.groups())
    if answer.ended == "whole" and len(answer.body) != last + 1 - first:
        yield "the part is not as long as it says"
    if not asked.subject.fault.true_bytes:
        return
    if (first, last + 1) != asked.part or total != content.size_bytes:
        yield f"{asked.part} was asked and {found.group()} came"
    if not content.data()[first : last + 1].startswith(answer.body):
        yield "the part is not true"


def _mended(asked: Asked, storage_works: bool) -> Iterator[str]:
    """Where the fault can be mended, whoever reads on gets everything."""
    answer, part = asked.answer, asked.part
    if answer.status >= 400 and not (answer.status == 416 and part is not None and part[0] >= part[1]):
        yield "it could have been right"
    elif answer.ended not in ("whole", "left") and (asked.is_patient or storage_works):
        yield "it could have been whole"


def twice_at_once(asks: Iterable[Noted]) -> Iterator[str]:
    """Say where upstream sent two whole bodies of one target at the same time, and neither had broken."""
    bodies: dict[str, list[Noted]] = {}
    for ask in asks:
        if ask.is_whole_body and ask.ended == "whole" and ask.fault != "stall":
            bodies.setdefault(ask.target, []).append(ask)
    for target, several in bodies.items():
        for one, other in combinations(several, 2):
            if min(one.ended_s, other.ended_s) - max(one.began_s, other.began_s) > CLOCK_S:
                yield f"two bodies at once: {target}: {one} {other}"
