"""Carrying: blobs that lie elsewhere come through us, for clients that are not sent there.

What comes from there is received as what comes from an upstream is: bounded by places and by the same memory, proven
before its tail is let go (RULES E2), and gone on with when it breaks off: from there, or from the upstream where that
place does not give it.  So its trouble is no client's trouble.
"""

from __future__ import annotations

from collections.abc import Awaitable
from functools import partial
from typing import Protocol

from attrs import define, evolve, field
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.web.iweb import IResponse

from txociproxy.answers import length_of
from txociproxy.flights import Flights, Landed
from txociproxy.forgetting import Forgetting
from txociproxy.ingest.ingest import Ingest
from txociproxy.ingest.limits import Origin, Tally, tally_of
from txociproxy.ingests import BLOB_TYPE, Ingests, Key, until_it_may_begin
from txociproxy.interfaces import Ask, Elsewhere, ISpool, Serve
from txociproxy.metrics import Metrics
from txociproxy.oci.errors import OCIError, StorageUnavailable
from txociproxy.oci.names import Descriptor
from txociproxy.oci.ranges import ByteRange
from txociproxy.parts import RangeRules
from txociproxy.places import Rest, read_part, read_whole
from txociproxy.serving import Serving, replayed


class Upstream(Protocol):
    """Asks the upstream for a blob."""

    def __call__(self, ask: Ask, offset_bytes: int, stop_bytes: int | None) -> Awaitable[IResponse]:
        """Ask from an offset on, to an end that None leaves open."""


@define(eq=False)
class Carrying:
    """Carries blobs.

    :ivar _upstream: for what a place does not give.
    """

    _ingests: Ingests
    _upstream: Upstream
    _serving: Serving
    _forgetting: Forgetting
    _rules: RangeRules
    _metrics: Metrics
    _flights: Flights[Ingest | None, OCIError] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._flights = Flights(_promise, _close)

    async def carry(self, ask: Ask, found: Elsewhere) -> Serve | None:
        """Return the blob, or the wanted part of it; None says that the upstream is to be asked.

        :raises OCIError: too many at once.
        """
        size_bytes = found.descriptor.size_bytes
        if ask.range_spec is None or size_bytes is None:
            return await self._whole(ask, found, 0)
        part = ask.range_spec.resolve(size_bytes)
        if part is None:
            return evolve(self._serving.described(ask, found), unsatisfiable_total_bytes=size_bytes)
        if found.fill is not None and self._is_near(_key(ask, found), part):
            return await self._whole(ask, found, part.start)
        return await self._part(ask, found, part)

    # --- whole

    async def _whole(self, ask: Ask, found: Elsewhere, first_bytes: int) -> Serve | None:
        """Serve what is proven as it comes."""
        until_s = self._ingests.carried.patience_ends_s()
        try:
            if found.fill is None:
                ingest = await self._open(ask, found, until_s)
            else:
                ingest = await self._shared(ask, found, first_bytes, until_s)
        except StorageUnavailable:
            # No room for a copy: of many who read together without one, the slow would be cut.
            ingest = await self._open(ask, evolve(found, fill=None), until_s)
        if ingest is None:
            return None
        try:
            await until_it_may_begin(ingest)
            if ingest.fate == "wrong":
                await self._forgetting.over(found.descriptor.digest)
        except BaseException:
            ingest.close()
            raise
        if ingest.fate not in ("arriving", "proven"):
            ingest.close()
            return None
        return self._serve(ask, found, ingest)

    async def _shared(self, ask: Ask, found: Elsewhere, first_bytes: int, until_s: float) -> Ingest | None:
        """Receive once for all who want the same, while it is kept on this machine too.

        :raises StorageUnavailable: it cannot be kept.
        """
        key = _key(ask, found)
        ingest = self._ingests.find(key, first_bytes)
        if ingest is not None:
            ingest.promise()
        else:
            outcome, _ = await self._flights.join(key, lambda: self._fill(ask, found, until_s))
            if isinstance(outcome, OCIError):
                raise outcome
            ingest = outcome.value
        self._ingests.brought.join(ask)
        return ingest

    async def _fill(self, ask: Ask, found: Elsewhere, until_s: float) -> Landed[Ingest | None] | OCIError:
        try:
            return Landed(await self._open(ask, found, until_s))
        except OCIError as error:
            return error  # that this client has too many is nobody else's (law 7)

    async def _open(self, ask: Ask, found: Elsewhere, until_s: float) -> Ingest | None:
        """Begin to receive; None says that the place gives nothing, or not this.

        :raises StorageUnavailable: there shall be a copy, and cannot.
        """
        places = self._ingests.carried_places(ask)
        await self._ingests.carried.enter(*places, until_s=until_s)
        ingest: Ingest | None = None
        spool: ISpool | None = None
        try:
            spool = found.fill() if found.fill is not None else None
            response = await read_whole(found.place, found.descriptor.size_bytes)
            if response is not None:
                ingest = self._receive(ask, found, response, spool)
            return ingest
        finally:
            if ingest is None:
                if spool is not None:
                    spool.close()
                self._ingests.carried.leave(*places)

    def _receive(self, ask: Ask, found: Elsewhere, response: IResponse, spool: ISpool | None) -> Ingest:
        size_bytes = found.descriptor.size_bytes
        total_bytes = length_of(response) if size_bytes is None else size_bytes
        rest = self._rest(ask, found, 0, None, total_bytes)

        def ended(ingest: Ingest) -> None:
            # Where the upstream has helped out nobody knows whose bytes were wrong.
            if ingest.fate == "wrong" and rest.is_pure:
                self._forgetting.begin(found.descriptor.digest)

        descriptor = Descriptor(found.descriptor.digest, total_bytes, BLOB_TYPE)
        origin = Origin(0, total_bytes, total_bytes, None, rest.reopen, rest.source, self._tally(ask, rest))
        return self._ingests.carry(ask, descriptor, replayed(ask, found), origin, response, ended, spool)

    def _rest(self, ask: Ask, found: Elsewhere, start: int, stop: int | None, total_bytes: int | None) -> Rest:
        namespace = ask.pull.namespace
        upstream, received = partial(self._upstream, ask, stop_bytes=stop), self._metrics.receiver(namespace)
        return Rest(found.place, stop, total_bytes, upstream, start, namespace, received)

    def _tally(self, ask: Ask, rest: Rest) -> Tally:
        """Return who counts: what the place gives does not come from the upstream."""
        tally = tally_of(self._metrics, ask.pull.namespace)

        def wrong() -> None:
            # Only where the upstream has helped out may it be to blame.
            self._metrics.storage_failed("read") if rest.is_pure else tally.wrong()

        return evolve(tally, received=rest.took, wrong=wrong)

    # --- parts

    def _is_near(self, key: Key, part: ByteRange) -> bool:
        """Whether a part is here, or comes soon, with what is being received already."""
        ingest = self._ingests.find(key, part.start)
        if ingest is None or ingest.size_bytes != part.total:
            return False
        return part.start <= ingest.received_bytes + self._rules.near_bytes

    async def _part(self, ask: Ask, found: Elsewhere, part: ByteRange) -> Serve | None:
        """Relay a part, which cannot be proven."""
        places = self._ingests.carried_places(ask)
        await self._ingests.carried.enter(*places)
        response: IResponse | None = None
        try:
            response = await read_part(found.place, part.start, part.stop, part.total)
        finally:
            if response is None:
                self._ingests.carried.leave(*places)
        if response is None:
            return None
        rest = self._rest(ask, found, part.start, part.stop, part.total)
        origin = Origin(part.start, part.stop, part.total, None, rest.reopen, tally=self._tally(ask, rest))
        descriptor = Descriptor(found.descriptor.digest, part.total, BLOB_TYPE)
        ingest = self._ingests.carry(ask, descriptor, replayed(ask, found), origin, response, proves=False)
        self._fill_behind(ask, found, part.total)
        return evolve(self._serve(ask, found, ingest), partial=part)

    def _fill_behind(self, ask: Ask, found: Elsewhere, size_bytes: int) -> None:
        """Keep all of a small blob of which a part was wanted (RULES E9)."""
        pays = self._rules.miss == "fill" or (self._rules.miss == "auto" and size_bytes <= self._rules.small_bytes)
        key = _key(ask, found)
        if found.fill is None or not pays or key in self._ingests.running:
            return
        until_s = self._ingests.carried.patience_ends_s()
        d = Deferred.fromCoroutine(self._flights.join(key, lambda: self._fill(ask, found, until_s)))
        d.addCallbacks(_nobody_reads, _nobody_waits)

    def _serve(self, ask: Ask, found: Elsewhere, ingest: Ingest) -> Serve:
        descriptor = Descriptor(found.descriptor.digest, ingest.descriptor.size_bytes, BLOB_TYPE)
        return evolve(self._serving.described(ask, found), descriptor=descriptor, body=ingest)


def _key(ask: Ask, found: Elsewhere) -> Key:
    return ask.pull.namespace, found.descriptor.digest


def _promise(ingest: Ingest | None) -> None:
    if ingest is not None:
        ingest.promise()


def _close(ingest: Ingest | None) -> None:
    if ingest is not None:
        ingest.close()


def _nobody_reads(result: tuple[Landed[Ingest | None] | OCIError, bool]) -> None:
    """Give back what was promised: it goes on for the storage alone."""
    if isinstance(result[0], Landed):
        _close(result[0].value)


def _nobody_waits(failure: Failure) -> None:
    """What was only begun because it seemed to pay may fail in silence."""
    failure.trap(StorageUnavailable, OCIError)
