"""Blobs that are not kept: one ingest for all who want them (RULES E1, E2)."""

from __future__ import annotations

from attrs import define, evolve, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from twisted.web.iweb import IResponse

from txociproxy.asking import Asking
from txociproxy.flights import Flights, Landed
from txociproxy.ingest.ingest import Ingest
from txociproxy.ingests import BLOB_TYPE, Ingests, until_it_may_begin
from txociproxy.interfaces import Ask, Outcome, Relay, Serve, Visibility
from txociproxy.metrics import Metrics
from txociproxy.oci.errors import OCIError, UpstreamUnreachable
from txociproxy.oci.headers import cache_control
from txociproxy.oci.names import Descriptor, Digest
from txociproxy.parts import Parts, RangeRules


@define(eq=False)
class Blobs:
    """Serves blobs that have to be fetched."""

    _asking: Asking
    _ingests: Ingests
    _clock: IReactorTime
    _rules: RangeRules
    _visibility: Visibility
    _metrics: Metrics
    _flights: Flights[Ingest, Relay | OCIError] = field(init=False)
    _parts: Parts = field(init=False)

    def __attrs_post_init__(self) -> None:
        # The ask's own promise ends when everybody who waited has got one.
        self._flights = Flights(Ingest.promise, Ingest.close)
        self._parts = Parts(
            self._asking,
            self._ingests,
            self._clock,
            self._rules,
            self._visibility,
            self.reopen,
            self._flights.is_flying,
            self._fill_behind,
            self._metrics.cap_reached,
        )

    async def pull(self, ask: Ask, digest: Digest) -> Serve | Relay:
        """Return the blob, or the wanted part of it, from upstream.

        :raises UpstreamUnreachable: no answer.
        :raises OCIError: too many at once, or the upstream's bytes are not the blob.
        """
        if ask.range_spec is not None and not self._parts.worth_waiting(ask, digest, ask.range_spec):
            part = await self._parts.relay(ask, digest, ask.range_spec)
            if part is not None:
                return part
        until_s = self._ingests.slots.patience_ends_s()
        for _ in range(2):
            # A reader moves once to a fresh download if the first turns out wrong before it has sent anything.
            served = await self._whole(ask, digest, until_s)
            if served is not None:
                return served
        raise OCIError("UNAVAILABLE", "the upstream's bytes do not have this digest", status=502)

    def uses(self) -> dict[str, tuple[float, float]]:
        """Return how much is taken of each cap, and how much there is."""
        return {**self._ingests.uses(), **self._parts.uses()}

    def arriving(self, namespace: str, digest: Digest) -> Ingest | None:
        """Return the running download of a blob."""
        return self._ingests.running.get((namespace, digest))

    async def reopen(self, ask: Ask, offset_bytes: int, stop_bytes: int | None) -> IResponse:
        """Ask upstream for a blob that broke off, from an offset on, to an end that None leaves open.

        :raises UpstreamUnreachable: no answer.
        """
        last = "" if stop_bytes is None else str(stop_bytes - 1)
        self._metrics.resumed(ask.pull.namespace)
        wanted = f"bytes={offset_bytes}-{last}" if offset_bytes or last else None
        got = await self._asking.get(ask, ask.pull, wanted, others=self._ingests.brought.of(ask))
        return got.response

    def begins_whole(self, ask: Ask, digest: Digest) -> bool:
        """Say whether a GET of what is not kept would fetch the whole blob, which nobody in this process does yet."""
        if self._flights.is_flying((ask.pull.namespace, digest)):
            return False
        if any(running == digest for _, running in self._ingests.running):
            return False
        return ask.range_spec is None or self._parts.worth_waiting(ask, digest, ask.range_spec)

    # --- the whole blob

    async def _whole(self, ask: Ask, digest: Digest, until_s: float) -> Serve | Relay | None:
        key = (ask.pull.namespace, digest)
        ingest, own = self._joinable(ask, digest), False
        if ingest is not None:
            ingest.promise()
        else:
            outcome, own = await self._flights.join(key, lambda: self._fetch(ask, digest, until_s))
            if isinstance(outcome, OCIError):
                raise outcome
            if isinstance(outcome, Relay):
                return outcome
            ingest = outcome.value
        self._ingests.brought.join(ask)
        try:
            await until_it_may_begin(ingest)
        except BaseException:
            ingest.close()
            raise
        if ingest.fate not in ("arriving", "proven"):
            ingest.close()
            if ingest.fate == "wrong":
                return None
            raise UpstreamUnreachable("the upstream broke off and could not be resumed")
        return self._serve(ingest, "miss" if own else "join")

    def _joinable(self, ask: Ask, digest: Digest) -> Ingest | None:
        """Return the running download, if it still has what this client reads first."""
        running = self.arriving(ask.pull.namespace, digest)
        # No part can be made of what has no length: the answer begins at the start.
        has_length = running is not None and running.size_bytes is not None
        first_bytes = ask.range_spec.first or 0 if ask.range_spec is not None and has_length else 0
        return self._ingests.find((ask.pull.namespace, digest), first_bytes)

    async def _fetch(self, ask: Ask, digest: Digest, until_s: float) -> Landed[Ingest] | Relay | OCIError:
        running = self._ingests.find((ask.pull.namespace, digest), 0)
        if running is not None:
            running.promise()
            return Landed(running, brought=False)
        try:
            return await self._begin(ask, digest, until_s)
        except OCIError as error:
            # That this client has too many downloads, or got a refusal too long to read, is nobody else's (law 7).
            return error

    async def _begin(self, ask: Ask, digest: Digest, until_s: float) -> Landed[Ingest] | Relay:
        places = self._ingests.places(ask)
        await self._ingests.slots.enter(*places, until_s=until_s)
        begun = False
        try:
            got = await self._asking.get(ask, ask.pull)
            if got.response.code != 200:
                return await self._asking.relay(got.response)
            ingest = self._ingests.begin(ask, digest, got, lambda n: self.reopen(ask, n, None))
            begun = True
            return Landed(ingest)
        finally:
            if not begun:
                self._ingests.slots.leave(*places)

    def _serve(self, ingest: Ingest, outcome: Outcome) -> Serve:
        if ingest.spool is None and not ingest.kept:
            outcome = "bypass"
        descriptor = Descriptor(ingest.descriptor.digest, ingest.size_bytes, BLOB_TYPE)
        return Serve(descriptor, ingest.headers, ingest, outcome, cache_control("digest", self._visibility))

    # --- for the storage alone

    def _fill_behind(self, ask: Ask, digest: Digest) -> None:
        key = (ask.pull.namespace, digest)
        if key in self._ingests.running:
            return
        whole, until_s = evolve(ask, range_spec=None), self._ingests.slots.patience_ends_s()
        d = Deferred.fromCoroutine(self._flights.join(key, lambda: self._fetch(whole, digest, until_s)))
        d.addCallbacks(_nobody_reads, _nobody_waits)


def _nobody_reads(result: tuple[Landed[Ingest] | Relay | OCIError, bool]) -> None:
    """Give back what was promised: it goes on for the storage alone."""
    if isinstance(result[0], Landed):
        result[0].value.close()


def _nobody_waits(failure: Failure) -> None:
    """A download that was only started because it seemed to pay may fail in silence; the next pull will tell."""
    failure.trap(UpstreamUnreachable, OCIError)
