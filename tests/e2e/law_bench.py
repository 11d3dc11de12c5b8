"""Cases of upstream's misbehaviour, tried one thing at a time against one proxy."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

from attrs import define, field, frozen

from tests.e2e.law_faults import TAIL_BYTES, signed
from tests.e2e.law_upstream import Noted, noted
from tests.e2e.law_wire import Answer, get
from tests.e2e.law_world import World
from tests.e2e.processes import E2EError, wait_until
from tests.e2e.scripts import HONEST, Content, Served, Step

SMALL = (0, 1, TAIL_BYTES - 1, TAIL_BYTES)
LARGE = (TAIL_BYTES + 1, 300 * 1024)
SIZES = (*SMALL, *LARGE)
AT_ONCE = 8
BY: tuple[Literal["fin", "rst"], ...] = ("fin", "rst")


@frozen
class Case:
    """One thing that goes wrong with one blob.

    :ivar mends: whether the pull has to come out right all the same.
    """

    name: str
    size_bytes: int
    steps: tuple[Step, ...]
    afterwards: Step = HONEST
    mends: bool = True
    needs_token: bool = False
    is_signed: bool = False

    def __str__(self) -> str:
        return f"{self.name}, {self.size_bytes} bytes"


@define(eq=False)
class Bench:
    """Tries cases against one proxy, several at once; the same content never twice at the same time."""

    world: World
    numbers: Iterator[int] = field(factory=lambda: iter(range(1, 1_000_000)))
    locks: dict[str, threading.Lock] = field(factory=dict)

    def failures(self, cases: Iterable[Case], at_once: int) -> list[str]:
        """Try all cases and return what was not as it has to be."""
        prepared = [(case, self._content(case)) for case in cases]
        with ThreadPoolExecutor(at_once) as pool:
            found = pool.map(lambda both: [f"{both[0]}: {failure}" for failure in self._try(*both)], prepared)
            return [failure for several in found for failure in several]

    def _content(self, case: Case) -> Content:
        """Return content that no other case has, where there is enough of it."""
        number = next(self.numbers)
        content = Content(text=chr(number % 128)) if case.size_bytes == 1 else Content(case.size_bytes, seed=number)
        self.locks.setdefault(content.digest, threading.Lock())
        return content

    def _try(self, case: Case, content: Content) -> Iterator[str]:
        """Pull through the fault, and once more when it is over."""
        target = f"/v2/library/faults/blobs/{content.digest}"
        with self.locks[content.digest]:
            self.world.evict(content)
            self.world.upstream.serve(*_targets(case, target, content))
            answer = self._get(target)
            if case.mends:
                yield from self._right(answer, content)
                yield from self._kept(target, content)
            else:
                yield from self._short(answer, content)
                self.world.upstream.serve(Served(target, content))
                yield from self._right(self._get(target), content)

    def _get(self, target: str) -> Answer:
        """Pull once."""
        return get(self.world.proxy.port, f"{target}?ns=docker.io")

    def _right(self, answer: Answer, content: Content) -> Iterator[str]:
        """The client has the content."""
        if (answer.status, answer.ended, answer.digest) != (200, "whole", content.digest):
            yield f"not right: {answer} {answer.body[:200] if answer.status >= 400 else ''!r}"

    def _short(self, answer: Answer, content: Content) -> Iterator[str]:
        """The client has an error, or visibly not all; nothing is kept."""
        if answer.status == 200 and answer.ended not in ("closed", "reset"):
            yield f"not short: {answer}"
        if answer.status != 200 and not (answer.status >= 400 and answer.is_oci_error):
            yield f"no error: {answer}"
        if self.world.content_path(content).exists():
            yield "it was kept"

    def _kept(self, target: str, content: Content) -> Iterator[str]:
        """It is on the disk soon, and then upstream is not asked again."""
        try:
            wait_until(self.world.content_path(content).exists, 10, "kept")
        except E2EError:
            yield "it is not kept"
            return
        before = self.asks(target)
        yield from self._right(self._get(target), content)
        if len(self.asks(target)) != len(before):
            yield "upstream was asked for what is kept"

    def asks(self, target: str) -> list[Noted]:
        """Return what upstream was asked about a target."""
        return [note for note in noted(self.world.upstream) if note.target.endswith(target)]


def _targets(case: Case, target: str, content: Content) -> tuple[Served, ...]:
    """Tell upstream what to do."""
    if case.is_signed:
        return signed(target, content, case.steps[0])
    return (Served(target, content, steps=case.steps, afterwards=case.afterwards, needs_token=case.needs_token),)


def places(size_bytes: int) -> dict[str, int]:
    """Return where a body is broken off: at its beginning, after a byte, half way, and in the tail that is withheld."""
    named = {"0": 0, "1": 1, "half": size_bytes // 2, "tail": size_bytes - 10, "last": size_bytes - 1}
    return {name: place for name, place in named.items() if 0 <= place < size_bytes}


def breaks(sizes: Iterable[int], name: str, *after: Step, **more: Any) -> Iterator[Case]:
    """Return cases that break off everywhere, by FIN and by RST, and then go on like this."""
    for size_bytes in sizes:
        for place, offset in places(size_bytes).items():
            for by in BY:
                step = Step(break_at=offset, break_by=by, chunk_bytes=16 * 1024)
                yield Case(f"{by} at {place}, then {name}", size_bytes, (step, *after), **more)
