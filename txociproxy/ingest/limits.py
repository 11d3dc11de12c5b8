"""What bounds an ingest, and where its body comes from."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

from attrs import field, frozen
from twisted.web.iweb import IResponse

from txociproxy.metrics import Metrics

TAIL_BYTES = 32 * 1024


@frozen
class IngestLimits:
    """The bounds of an ingest.

    :ivar tries: attempts in a row that bring no byte, before the body is given up.
    """

    window_bytes: int = 1024 * 1024
    tail_bytes: int = TAIL_BYTES
    outstanding_bytes: int = 8 * 1024 * 1024
    silence_s: float = 30.0
    spool_stall_s: float = 5.0
    laggard_s: float = 2.0
    commit_s: float = 60.0
    tries: int = 4
    backoff_s: float = 0.2


def _nobody_counts(*_: object) -> None:
    """Take no note."""


@frozen
class Tally:
    """What is told of a body to whoever counts.

    :ivar received: called with the length of each chunk that comes, also of bytes that are here already.
    :ivar wrong: called when its digest is not what it should be.
    :ivar dropped: called when the storage has lost it while it arrives.
    :ivar paused: called when its origin has to wait because all bodies together take too much memory.
    """

    received: Callable[[int], object] = _nobody_counts
    wrong: Callable[[], object] = _nobody_counts
    dropped: Callable[[], object] = _nobody_counts
    paused: Callable[[], object] = _nobody_counts


def tally_of(metrics: Metrics, namespace: str) -> Tally:
    """Return who counts a body that comes from this upstream."""
    wrong, paused = partial(metrics.bad_verdict, namespace), partial(metrics.cap_reached, "max_ingest_memory")
    return Tally(metrics.receiver(namespace), wrong, metrics.spool_dropped, paused)


@frozen
class Origin:
    """Where an arriving body comes from.

    :ivar first_bytes: the offset of its first byte in the content; more than 0 for a relayed range.
    :ivar end_bytes: the offset of its end; None if upstream did not say.
    :ivar total_bytes: the length of the whole content, if upstream said.
    :ivar etag: the entity tag that came with it.
    :ivar reopen: asks upstream for everything from an offset on.
    :ivar source: names whose bytes they are, as far as is known when it is called; None is the upstream.
    :ivar tally: who counts them.
    """

    first_bytes: int
    end_bytes: int | None
    total_bytes: int | None
    etag: str | None
    reopen: Callable[[int], Awaitable[IResponse]]
    source: Callable[[], str] | None = None
    tally: Tally = field(factory=Tally)
