"""Ingests: those that are running, one per namespace and digest, and their common bounds (RULES A5)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from attrs import define, evolve, field
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.web.iweb import IResponse

from txociproxy.answers import field_of, fields_of, length_of
from txociproxy.asking import Got
from txociproxy.brought import Brought
from txociproxy.caps import IngestCaps, carried_slots_of, slots_of
from txociproxy.ingest.ingest import Ingest
from txociproxy.ingest.limits import TAIL_BYTES, IngestLimits, Origin, tally_of
from txociproxy.interfaces import Ask, HeaderList, ISpool, IStorage, IWorkers
from txociproxy.metrics import Metrics
from txociproxy.oci.errors import StorageUnavailable
from txociproxy.oci.headers import kept
from txociproxy.oci.names import Descriptor, Digest
from txociproxy.oci.ranges import ByteRange
from txociproxy.slots import Slots

BLOB_TYPE = "application/octet-stream"
PLACE_SILENCE_S = 5.0  # a place that is near is not waited for as an upstream is: there is one to turn to
LONE_WINDOW_BYTES = 256 * 1024
Key = tuple[str, Digest]
Reopen = Callable[[int], Awaitable[IResponse]]


@define(eq=False)
class Ingests:
    """The running ingests of blobs.

    :ivar running: those that others can join.
    :ivar alive: all of them: also relayed ranges, and those whose place in ``running`` a newer one has taken.
    :ivar slots, carried: the places of what is fetched from upstreams, and of what lies elsewhere and is a hit: a storm
        of hits is no reason to tell anybody to come again, and keeps nobody from a miss.
    :ivar brought: what the readers of those in ``running`` have brought.
    """

    _storage: IStorage
    _hashers: IWorkers
    _clock: IReactorTime
    _limits: IngestLimits
    _caps: IngestCaps
    _metrics: Metrics
    running: dict[Key, Ingest] = field(factory=dict)
    alive: list[Ingest] = field(factory=list)
    slots: Slots = field(init=False)
    carried: Slots = field(init=False)
    brought: Brought = field(init=False, factory=Brought)

    log = Logger()

    def __attrs_post_init__(self) -> None:
        self.slots = slots_of(self._caps, self._clock, self._metrics.cap_reached)
        self.carried = carried_slots_of(self._caps, self._clock, self._metrics.cap_reached)

    def find(self, key: Key, offset_bytes: int) -> Ingest | None:
        """Return the running ingest if a reader that begins at ``offset_bytes`` can still follow it."""
        ingest = self.running.get(key)
        return ingest if ingest is not None and ingest.can_serve(offset_bytes) else None

    def places(self, ask: Ask) -> tuple[str, str, str]:
        """Return the keys under which an ingest of this ask takes its place in :attr:`slots`."""
        return "all", ask.pull.namespace, _client_of(ask)

    def carried_places(self, ask: Ask) -> tuple[str, str]:
        """Return the keys under which an ingest of this ask takes its place in :attr:`carried`."""
        return "all", _client_of(ask)

    def uses(self) -> dict[str, tuple[float, float]]:
        """Return how much is taken of each cap, and how much there is."""
        lonely = sum(ingest.lonely for ingest in self.alive)
        return {
            **self.slots.uses(),
            **self.carried.uses(),
            "max_lonely_ingests": (lonely, self._caps.lonely),
            "max_ingest_memory": (self._held_bytes, self._caps.memory_bytes),
        }

    def begin(self, ask: Ask, digest: Digest, got: Got, reopen: Reopen) -> Ingest:
        """Make an ingest of an answer whose headers are in; its place has been taken, and is given back at its end.

        It is promised to the caller once, who follows or closes it.
        """
        response = got.response
        size_bytes = length_of(response)
        etag, tally = field_of(response, "ETag"), tally_of(self._metrics, ask.pull.namespace)
        ingest = self._made(
            ask,
            Descriptor(digest, size_bytes, BLOB_TYPE),
            kept(fields_of(response)),
            Origin(0, size_bytes, size_bytes, etag, reopen, tally=tally),
            self._leaves(self.slots, self.places(ask)),
            self._spool(digest, size_bytes),
            got.held,
        )
        self._let_join(ask, ingest)
        ingest.begin(response)
        return ingest

    def carry(
        self,
        ask: Ask,
        descriptor: Descriptor,
        headers: HeaderList,
        origin: Origin,
        response: IResponse,
        ended: Callable[[Ingest], None] = lambda _: None,
        spool: ISpool | None = None,
        proves: bool = True,
    ) -> Ingest:
        """Make an ingest of content that lies elsewhere, or of a part of it, as :meth:`begin`.

        With a spool others can join it.  To that it is held: only who keeps it elsewhere knows more, and too many
        must not see it (RULES D3).
        """
        limits = evolve(self._limits, silence_s=min(self._limits.silence_s, PLACE_SILENCE_S))
        if spool is None:  # it has one reader, who never goes back
            limits = evolve(limits, window_bytes=min(limits.window_bytes, LONE_WINDOW_BYTES))
        leaves = self._leaves(self.carried, self.carried_places(ask))

        def over(ingest: Ingest) -> None:
            leaves(ingest)
            ended(ingest)

        ingest = self._made(ask, descriptor, headers, origin, over, spool, True, limits, proves)
        if spool is not None:
            self._let_join(ask, ingest)
        ingest.begin(response)
        return ingest

    def relay(
        self,
        ask: Ask,
        digest: Digest,
        part: ByteRange,
        response: IResponse,
        reopen: Reopen,
        ended: Callable[[], None],
    ) -> Ingest:
        """Make a body of a relayed range: neither kept nor proven.  Promised to the caller once."""
        descriptor = Descriptor(digest, part.total, BLOB_TYPE)
        etag, tally = field_of(response, "ETag"), tally_of(self._metrics, ask.pull.namespace)
        origin = Origin(part.start, part.stop, part.total, etag, reopen, tally=tally)
        headers = kept(fields_of(response))
        ingest = self._made(ask, descriptor, headers, origin, lambda _: ended(), None, proves=False)
        ingest.begin(response)
        return ingest

    def _made(
        self,
        ask: Ask,
        descriptor: Descriptor,
        headers: HeaderList,
        origin: Origin,
        ended: Callable[[Ingest], None],
        spool: ISpool | None,
        held: bool = False,
        limits: IngestLimits | None = None,
        proves: bool = True,
    ) -> Ingest:
        """Make an ingest that is promised once."""

        def over(ingest: Ingest) -> None:
            self.alive.remove(ingest)
            self._metrics.ingests.set(len(self.alive))
            ended(ingest)

        ingest = Ingest(
            descriptor,
            headers,
            ask.pull.namespace,
            origin,
            self._clock,
            limits or self._limits,
            self._hashers if proves else None,
            spool,
            over,
            self._over_budget,
            self._deserted,
            held,
        )
        ingest.promise()
        self.alive.append(ingest)
        self._metrics.ingests.set(len(self.alive))
        return ingest

    def _let_join(self, ask: Ask, ingest: Ingest) -> None:
        # One that lost its start (no storage, window moved on) makes room for this one and ends by itself.
        key = (ask.pull.namespace, ingest.descriptor.digest)
        self.running[key] = ingest
        self.brought.begin(key)

    def _leaves(self, slots: Slots, places: tuple[str, ...]) -> Callable[[Ingest], None]:
        """Return what is to be done at the end of an ingest that has taken this place."""

        def leaves(ingest: Ingest) -> None:
            slots.leave(*places)
            key = (ingest.namespace, ingest.descriptor.digest)
            if self.running.get(key) is ingest:
                del self.running[key]
                self.brought.end(key)
            self._tell_end(ingest)

        return leaves

    def abandon_all(self) -> None:
        """Stop everything; whoever reads is cut."""
        for ingest in list(self.alive):
            ingest.abandon()

    def _spool(self, digest: Digest, size_bytes: int | None) -> ISpool | None:
        try:
            return self._storage.open_spool(digest, size_bytes)
        except StorageUnavailable as error:
            self.log.debug("not kept: {digest}: {reason}", digest=str(digest), reason=str(error))
            return None

    def _over_budget(self) -> bool:
        return self._held_bytes > self._caps.memory_bytes

    @property
    def _held_bytes(self) -> int:
        return sum(ingest.held_bytes for ingest in self.alive)

    def _deserted(self, _: Ingest) -> None:
        lonely = [ingest for ingest in self.alive if ingest.lonely]
        if len(lonely) > self._caps.lonely:
            self._metrics.cap_reached("max_lonely_ingests")
            max(lonely, key=lambda ingest: ingest.left_bytes).abandon()

    def _tell_end(self, ingest: Ingest) -> None:
        self.log.debug(
            "ingest of {digest} from {namespace} ended: {fate}, kept={kept}, {received_bytes} bytes, {resumes} resumes",
            digest=str(ingest.descriptor.digest),
            namespace=ingest.namespace,
            fate=ingest.fate,
            kept=ingest.kept,
            received_bytes=ingest.received_bytes,
            resumes=ingest.resumes,
        )


def _client_of(ask: Ask) -> str:
    # Whoever comes through a Unix socket has no address: a proxy in front of many must not count as one client.
    return ask.client if ask.client != "-" else f"unix:{id(ask)}"


async def until_it_may_begin(ingest: Ingest) -> None:
    """Bodies no longer than the tail wait for the verdict before the status line (RULES E2)."""
    if ingest.size_bytes is None or ingest.size_bytes <= TAIL_BYTES:
        await ingest.settled(more_than_bytes=TAIL_BYTES)
