"""The clients of the law test: each kind by its name, as a function that asks and returns what it got."""

from __future__ import annotations

import time
from collections.abc import Callable
from random import Random

from attrs import define, field, frozen

from tests.e2e.law_faults import BLOB_TYPE, TAIL_BYTES, Fault
from tests.e2e.law_wire import Answer, Wire, connect, request
from tests.e2e.scripts import MIB, Content

NEAR_BYTES = 8 * MIB


@frozen
class Subject:
    """Content in a namespace, and what its upstream does wrong."""

    namespace: str
    target: str
    content: Content
    fault: Fault
    media_type: str = BLOB_TYPE

    @property
    def asked_as(self) -> str:
        """The target with its namespace, as clients ask for it."""
        return f"{self.target}?ns={self.namespace}"

    @property
    def is_manifest(self) -> bool:
        """Whether it is a manifest, of which no part can be asked."""
        return self.media_type != BLOB_TYPE

    @property
    def must_be_right(self) -> bool:
        """Whether the fault leaves no excuse to a GET."""
        return self.fault.spares_manifests if self.is_manifest else self.fault.mends and not self.fault.refuses


@frozen
class Asked:
    """One question and its answer.

    :ivar part: the start and stop that a Range asks for; None for the whole; empty for an unsatisfiable one.
    :ivar is_patient: whether this client reads at once and to the end, so that it has a right to all of it.
    """

    subject: Subject
    answer: Answer
    method: str = "GET"
    part: tuple[int, int] | None = None
    is_patient: bool = True


@define
class Guest:
    """One client: who, when, and the chance that is its own."""

    kind: str
    subject: Subject
    delay_s: float
    seed: int
    asked: list[Asked] = field(factory=list)
    trouble: str | None = None

    def visit(self, port: int) -> None:
        """Ask, and keep the answers."""
        time.sleep(self.delay_s)
        try:
            KINDS[self.kind](self, port, Random(self.seed))
        except OSError as error:
            self.trouble = repr(error)

    def take(
        self, answer: Answer, method: str = "GET", part: tuple[int, int] | None = None, is_patient: bool = True
    ) -> None:
        """Keep one answer; a part of a manifest is all of it."""
        wanted = None if self.subject.is_manifest else part
        self.asked.append(Asked(self.subject, answer, method, wanted, is_patient))


def _ask(guest: Guest, port: int, *fields: str, part: tuple[int, int] | None = None, version: str = "1.1") -> None:
    """Send one GET and read all of its answer."""
    wire = connect(port)
    try:
        wire.send(request(guest.subject.asked_as, *fields, version=version))
        guest.take(wire.read_answer(), part=part)
    finally:
        wire.close()


def _get(guest: Guest, port: int, rng: Random) -> None:
    _ask(guest, port)


def _http10(guest: Guest, port: int, rng: Random) -> None:
    _ask(guest, port, version="1.0")


def _head(guest: Guest, port: int, rng: Random) -> None:
    wire = connect(port)
    try:
        wire.send(request(guest.subject.asked_as, method="HEAD"))
        guest.take(wire.read_answer("HEAD"), method="HEAD")
    finally:
        wire.close()


def _single(guest: Guest, port: int, rng: Random) -> None:
    size = guest.subject.content.size_bytes
    first = rng.randint(0, size)
    last = rng.randint(first, size + 10)
    _ask(guest, port, f"Range: bytes={first}-{last}", part=(first, min(last + 1, size)))


def _open(guest: Guest, port: int, rng: Random) -> None:
    size = guest.subject.content.size_bytes
    first = rng.choice([0, rng.randint(0, size), max(0, size - TAIL_BYTES)])
    _ask(guest, port, f"Range: bytes={first}-", part=(first, size))


def _suffix(guest: Guest, port: int, rng: Random) -> None:
    size = guest.subject.content.size_bytes
    last = rng.choice([1, 1000, TAIL_BYTES, size + 5])
    _ask(guest, port, f"Range: bytes=-{last}", part=(max(0, size - last), size))


def _far(guest: Guest, port: int, rng: Random) -> None:
    size = guest.subject.content.size_bytes
    first = rng.randint(min(NEAR_BYTES + 1, size * 3 // 4), size)
    _ask(guest, port, f"Range: bytes={first}-{first + 4095}", part=(first, min(first + 4096, size)))


def _several(guest: Guest, port: int, rng: Random) -> None:
    _ask(guest, port, "Range: bytes=0-1,5-9")


def _slow(guest: Guest, port: int, rng: Random) -> None:
    wire = connect(port, receive_buffer_bytes=16 * 1024)
    wire.whole_s, wire.whole_bytes = rng.uniform(0.5, 2), max(64 * 1024, guest.subject.content.size_bytes)
    try:
        wire.send(request(guest.subject.asked_as))
        guest.take(wire.read_answer(), is_patient=False)
    finally:
        wire.close()


def _leaver(by_reset: bool) -> Callable[[Guest, int, Random], None]:
    def leave(guest: Guest, port: int, rng: Random) -> None:
        wire = connect(port, receive_buffer_bytes=16 * 1024)
        try:
            wire.send(request(guest.subject.asked_as))
            answer = wire.read_answer(leave_after_bytes=rng.randint(0, guest.subject.content.size_bytes))
            guest.take(answer, is_patient=False)
        finally:
            wire.close(by_reset)

    return leave


def _deaf(guest: Guest, port: int, rng: Random) -> None:
    """Leave before the answer begins."""
    wire = connect(port)
    wire.send(request(guest.subject.asked_as))
    time.sleep(rng.choice([0, 0.01, 0.1]))
    wire.close(by_reset=rng.random() < 0.5)


def _pipelined(guest: Guest, port: int, rng: Random) -> None:
    wire = connect(port)
    target, size = guest.subject.asked_as, guest.subject.content.size_bytes
    part = (0, min(10, size))
    try:
        first, second = request(target), request(target, method="HEAD")
        wire.send(first + second + request(target, "Range: bytes=0-9") + first)
        for method, wanted in (("GET", None), ("HEAD", None), ("GET", part), ("GET", None)):
            if not _one_more(guest, wire, method, wanted):
                break
    finally:
        wire.close()


def _one_more(guest: Guest, wire: Wire, method: str, part: tuple[int, int] | None) -> bool:
    """Read one of several answers; after one that ended short there is none."""
    answer = wire.read_answer(method)
    guest.take(answer, method=method, part=part)
    return answer.ended == "whole"


KINDS: dict[str, Callable[[Guest, int, Random], None]] = {
    "get": _get,
    "head": _head,
    "range: single": _single,
    "range: open": _open,
    "range: suffix": _suffix,
    "range: far": _far,
    "range: several": _several,
    "slow": _slow,
    "leaves by FIN": _leaver(by_reset=False),
    "leaves by RST": _leaver(by_reset=True),
    "leaves at once": _deaf,
    "HTTP/1.0": _http10,
    "pipelined": _pipelined,
}
