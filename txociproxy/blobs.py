"""Blobs that are not kept: one ingest for all, or a part relayed beside it (DESIGN: the paths; RULES E1, E2, E9)."""

from __future__ import annotations

from typing import Literal

from attrs import define, evolve, field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from twisted.web.iweb import IResponse

from txociproxy.asking import Asking
from txociproxy.flights import Flights, Landed
from txociproxy.ingest.ingest import TAIL_BYTES, Ingest
from txociproxy.ingest.resume import field_of
from txociproxy.ingests import BLOB_TYPE, Ingests, Key
from txociproxy.interfaces import Ask, Outcome, Relay, Serve
from txociproxy.oci.errors import OCIError, UpstreamUnreachable
from txociproxy.oci.headers import cache_control
from txociproxy.oci.names import Descriptor, Digest
from txociproxy.oci.ranges import ByteRange, RangeSpec, parse_content_range
from txociproxy.slots import Slots
from txociproxy.upstreams.collect import discard

RangeMiss = Literal["auto", "fill", "relay"]


@frozen
class RangeRules:
    """What is done with a range of a blob that is not kept.

    :ivar miss: ``fill`` starts a whole download, ``relay`` never does, ``auto`` when it pays.
    :ivar near_bytes: how far ahead of the running download a range may begin to be waited for.
    :ivar small_bytes: blobs up to here are downloaded whole.
    :ivar relays, relays_per_digest: how many relayed ranges may run at once.
    """

    miss: RangeMiss = "auto"
    near_bytes: int = 8 * 1024 * 1024
    small_bytes: int = 256 * 1024 * 1024
    relays: int = 32
    relays_per_digest: int = 4


@define(eq=False)
class Blobs:
    """Serves blobs that have to be fetched."""

    _asking: Asking
    _ingests: Ingests
    _clock: IReactorTime
    _rules: RangeRules
    _visibility: Literal["public", "private"]
    _flights: Flights[Ingest, Relay | OCIError] = field(init=False)
    _relays: Slots = field(init=False)
    _relaying: list[tuple[Key, str]] = field(factory=list, init=False)

    def __attrs_post_init__(self) -> None:
        # The ask's own promise ends when everybody who waited has got one.
        self._flights = Flights(Ingest.promise, Ingest.close)
        limits = (self._rules.relays, self._rules.relays_per_digest)
        self._relays = Slots("range requests", limits, self._clock)

    async def pull(self, ask: Ask, digest: Digest) -> Serve | Relay:
        """Return the blob, or the wanted part of it, from upstream.

        :raises UpstreamUnreachable: no answer.
        :raises OCIError: too many at once, or the upstream's bytes are not the blob.
        """
        if ask.range_spec is not None and not self._worth_waiting(ask, digest, ask.range_spec):
            part = await self._part(ask, digest, ask.range_spec)
            if part is not None:
                return part
        until_s = self._ingests.slots.patience_ends_s()
        for _ in range(2):
            # A reader moves once to a fresh download if the first turns out wrong before it has sent anything.
            served = await self._whole(ask, digest, until_s)
            if served is not None:
                return served
        raise OCIError("UNAVAILABLE", "the upstream's bytes do not have this digest", status=502)

    # --- the whole blob

    async def _whole(self, ask: Ask, digest: Digest, until_s: float) -> Serve | Relay | None:
        first_bytes = ask.range_spec.first or 0 if ask.range_spec is not None else 0
        key = (ask.pull.namespace, digest)
        ingest, own = self._ingests.find(key, first_bytes), False
        if ingest is not None:
            ingest.promise()
        else:
            outcome, own = await self._flights.join(key, lambda: self._fetch(ask, digest, until_s))
            if isinstance(outcome, OCIError):
                raise outcome
            if isinstance(outcome, Relay):
                return outcome
            ingest = outcome.value
        try:
            await self._until_it_may_begin(ask, ingest)
        except BaseException:
            ingest.close()
            raise
        if ingest.fate not in ("arriving", "proven"):
            ingest.close()
            if ingest.fate == "wrong":
                return None
            raise UpstreamUnreachable("the upstream broke off and could not be resumed")
        return self._serve(ingest, "miss" if own else "join")

    async def _fetch(self, ask: Ask, digest: Digest, until_s: float) -> Landed[Ingest] | Relay | OCIError:
        running = self._ingests.running.get((ask.pull.namespace, digest))
        if running is not None and running.can_serve(0):
            running.promise()
            return Landed(running)
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
            response = await self._asking.get(ask, ask.pull)
            if response.code != 200:
                return await self._asking.relay(response)
            ingest = self._ingests.begin(ask, digest, response, lambda n: self._reopen(ask, n, None))
            begun = True
            return Landed(ingest)
        finally:
            if not begun:
                self._ingests.slots.leave(*places)

    async def _reopen(self, ask: Ask, offset_bytes: int, stop_bytes: int | None) -> IResponse:
        last = "" if stop_bytes is None else str(stop_bytes - 1)
        wanted = f"bytes={offset_bytes}-{last}" if offset_bytes or last else None
        return await self._asking.get(ask, ask.pull, wanted)

    async def _until_it_may_begin(self, ask: Ask, ingest: Ingest) -> None:
        """Bodies no longer than the tail wait for the verdict before the status line (RULES E2)."""
        size_bytes = ingest.size_bytes
        if ask.needs_length and size_bytes is None:
            await ingest.settled()
        elif size_bytes is None or size_bytes <= TAIL_BYTES:
            await ingest.settled(more_than_bytes=TAIL_BYTES)

    def _serve(self, ingest: Ingest, outcome: Outcome) -> Serve:
        if ingest.spool is None and not ingest.kept:
            outcome = "bypass"
        descriptor = Descriptor(ingest.descriptor.digest, ingest.size_bytes, BLOB_TYPE)
        return Serve(descriptor, ingest.headers, ingest, outcome, cache_control("digest", self._visibility))

    # --- a part of it

    def _worth_waiting(self, ask: Ask, digest: Digest, spec: RangeSpec) -> bool:
        """Whether the range is better read from a whole download than asked for by itself."""
        key = (ask.pull.namespace, digest)
        ingest = self._ingests.running.get(key)
        if ingest is None:
            return spec.first is not None and spec.first <= self._rules.near_bytes and self._pays_unseen(key, spec)
        if ingest.size_bytes is None:
            # Its length is not known, so it can only be answered whole; a part needs an answer of its own.
            return False
        part = spec.resolve(ingest.size_bytes)
        if part is None:
            return True
        return ingest.can_serve(part.start) and part.start <= ingest.received_bytes + self._rules.near_bytes

    def _pays_unseen(self, key: Key, spec: RangeSpec) -> bool:
        """Whether a whole download pays before anything is known of the blob (RULES E9)."""
        if self._rules.miss == "fill" or self._flights.is_flying(key):
            return True
        # All from a near byte on is more than an eighth, or the blob is small.  Of others the first part will tell.
        return self._rules.miss == "auto" and spec.last is None

    async def _part(self, ask: Ask, digest: Digest, spec: RangeSpec) -> Serve | Relay | None:
        """Relay a range; None where upstream does not do ranges."""
        # With the namespace: one that drips must not use up the places of all others (RULES E1).
        places = ("all", (ask.pull.namespace, digest))
        await self._relays.enter(*places)
        begun = False
        try:
            response = await self._asking.get(ask, ask.pull, str(spec))
            if response.code == 206:
                part = _part_of(response, spec)
                if part is not None:
                    begun = True
                    return self._serve_part(ask, digest, part, response)
                discard(response)
                return None
            return await self._no_part(ask, digest, response)
        finally:
            if not begun:
                self._relays.leave(*places)

    async def _no_part(self, ask: Ask, digest: Digest, response: IResponse) -> Serve | Relay | None:
        if response.code == 416:
            discard(response)
            found = parse_content_range(field_of(response, "Content-Range") or "")
            if found is None or found.total is None:
                return None
            descriptor, control = (
                Descriptor(digest, found.total, BLOB_TYPE),
                cache_control("revalidate", self._visibility),
            )
            return Serve(descriptor, (), None, "relay", control, unsatisfiable_total_bytes=found.total)
        if response.code == 200:
            discard(response)
            return None
        return await self._asking.relay(response)

    def _serve_part(self, ask: Ask, digest: Digest, part: ByteRange, response: IResponse) -> Serve:
        key = (ask.pull.namespace, digest)
        pays = self._pays(ask, key, part)

        def ended() -> None:
            self._relaying.remove((key, ask.client))
            self._relays.leave("all", key)

        self._relaying.append((key, ask.client))
        body = self._ingests.relay(ask, digest, part, response, lambda n: self._reopen(ask, n, part.stop), ended)
        if pays:
            self._fill_behind(ask, digest)
        descriptor = Descriptor(digest, part.total, BLOB_TYPE)
        control = cache_control("digest", self._visibility)
        return Serve(descriptor, body.headers, body, "relay", control, partial=part)

    def _pays(self, ask: Ask, key: Key, part: ByteRange) -> bool:
        if self._rules.miss != "auto":
            return self._rules.miss == "fill"
        second = any(other == key and client != ask.client for other, client in self._relaying)
        return second or part.total <= self._rules.small_bytes or part.length_bytes * 8 > part.total

    def _fill_behind(self, ask: Ask, digest: Digest) -> None:
        key = (ask.pull.namespace, digest)
        if key in self._ingests.running:
            return
        whole, until_s = evolve(ask, range_spec=None), self._ingests.slots.patience_ends_s()
        d = Deferred.fromCoroutine(self._flights.join(key, lambda: self._fetch(whole, digest, until_s)))
        d.addCallbacks(_nobody_reads, _nobody_waits)


def _part_of(response: IResponse, spec: RangeSpec) -> ByteRange | None:
    """Return the part that a 206 brings, if it is the one that was asked for."""
    found = parse_content_range(field_of(response, "Content-Range") or "")
    if found is None or found.start is None or found.stop is None or found.total is None:
        return None
    wanted = spec.resolve(found.total)
    given = ByteRange(found.start, found.stop, found.total)
    return given if given == wanted else None


def _nobody_reads(result: tuple[Landed[Ingest] | Relay | OCIError, bool]) -> None:
    """Give back what was promised: it goes on for the storage alone."""
    if isinstance(result[0], Landed):
        result[0].value.close()


def _nobody_waits(failure: Failure) -> None:
    """A download that was only started because it seemed to pay may fail in silence; the next pull will tell."""
    failure.trap(UpstreamUnreachable, OCIError)
