"""Ingests: those that are running, one per namespace and digest, and their common bounds (RULES A5)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from attrs import define, field, frozen
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.web.iweb import IResponse

from txociproxy.answers import field_of, fields_of, length_of
from txociproxy.asking import Got
from txociproxy.ingest.ingest import Ingest
from txociproxy.ingest.limits import IngestLimits, Origin
from txociproxy.interfaces import Ask, Credentials, ISpool, IStorage, IWorkers
from txociproxy.oci.errors import StorageUnavailable
from txociproxy.oci.headers import kept
from txociproxy.oci.names import Descriptor, Digest, Reference, Repository
from txociproxy.oci.ranges import ByteRange
from txociproxy.slots import Slots

BLOB_TYPE = "application/octet-stream"
MAX_BROUGHT = 8  # readers of one ingest whose credentials are remembered
Key = tuple[str, Digest]
Reopen = Callable[[int], Awaitable[IResponse]]


@frozen
class IngestCaps:
    """The bounds that all ingests share.

    :ivar lonely: how many may go on without a reader.
    :ivar memory_bytes: windows and outstanding bytes of all together.
    """

    total: int = 256
    per_namespace: int = 64
    per_client: int = 32
    lonely: int = 16
    memory_bytes: int = 256 * 1024 * 1024
    wait_s: float = 5.0


@define(eq=False)
class Ingests:
    """The running ingests of blobs.

    :ivar running: those that others can join.
    :ivar alive: all of them: also relayed ranges, and those whose place in ``running`` a newer one has taken.
    """

    _storage: IStorage
    _hashers: IWorkers
    _clock: IReactorTime
    _limits: IngestLimits
    _caps: IngestCaps
    running: dict[Key, Ingest] = field(factory=dict)
    alive: list[Ingest] = field(factory=list)
    slots: Slots = field(init=False)
    _brought: dict[tuple[str, Reference], dict[tuple[Repository, Credentials], None]] = field(factory=dict, init=False)

    log = Logger()

    def __attrs_post_init__(self) -> None:
        caps = self._caps
        limits = (caps.total, caps.per_namespace, caps.per_client)
        self.slots = Slots("downloads", limits, self._clock, caps.wait_s)

    def find(self, key: Key, offset_bytes: int) -> Ingest | None:
        """Return the running ingest if a reader that begins at ``offset_bytes`` can still follow it."""
        ingest = self.running.get(key)
        return ingest if ingest is not None and ingest.can_serve(offset_bytes) else None

    def places(self, ask: Ask) -> tuple[str, str, str]:
        """Return the keys under which an ingest of this ask takes its place in :attr:`slots`."""
        # Whoever comes through a Unix socket has no address: a proxy in front of many must not count as one client.
        return "all", ask.pull.namespace, ask.client if ask.client != "-" else f"unix:{id(ask)}"

    def join(self, ask: Ask) -> None:
        """Remember in whose name the running ingest can be gone on with, should its own token end (RULES E5)."""
        brought = self._brought.get((ask.pull.namespace, ask.pull.reference))
        if brought is not None and len(brought) < MAX_BROUGHT and not ask.credentials.is_anonymous:
            brought.setdefault((ask.pull.repository, ask.credentials))

    def brought(self, ask: Ask) -> list[Credentials]:
        """Return what the readers of the running ingest brought for the same repository."""
        brought = self._brought.get((ask.pull.namespace, ask.pull.reference), {})
        return [credentials for repository, credentials in brought if repository == ask.pull.repository]

    def begin(self, ask: Ask, digest: Digest, got: Got, reopen: Reopen) -> Ingest:
        """Make an ingest of an answer whose headers are in; its place has been taken, and is given back at its end.

        It is promised to the caller once, who follows or closes it.
        """
        key, places, response = (ask.pull.namespace, digest), self.places(ask), got.response
        size_bytes = length_of(response)

        def ended(ingest: Ingest) -> None:
            self.slots.leave(*places)
            self.alive.remove(ingest)
            if self.running.get(key) is ingest:
                del self.running[key]
                del self._brought[key]
            self._tell_end(ingest)

        ingest = Ingest(
            Descriptor(digest, size_bytes, BLOB_TYPE),
            kept(fields_of(response)),
            ask.pull.namespace,
            Origin(0, size_bytes, size_bytes, field_of(response, "ETag"), reopen),
            self._clock,
            self._limits,
            self._hashers,
            self._spool(digest, size_bytes),
            ended,
            self._over_budget,
            self._deserted,
            got.held,
        )
        ingest.promise()
        # One that lost its start (no storage, window moved on) makes room for this one and ends by itself.
        self.running[key], self._brought[key] = ingest, {}
        self.alive.append(ingest)
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

        def over(ingest: Ingest) -> None:
            self.alive.remove(ingest)
            ended()

        ingest = Ingest(
            Descriptor(digest, part.total, BLOB_TYPE),
            kept(fields_of(response)),
            ask.pull.namespace,
            Origin(part.start, part.stop, part.total, field_of(response, "ETag"), reopen),
            self._clock,
            self._limits,
            None,
            None,
            over,
            self._over_budget,
        )
        ingest.promise()
        self.alive.append(ingest)
        ingest.begin(response)
        return ingest

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
        return sum(ingest.held_bytes for ingest in self.alive) > self._caps.memory_bytes

    def _deserted(self, _: Ingest) -> None:
        lonely = [ingest for ingest in self.alive if ingest.lonely]
        if len(lonely) > self._caps.lonely:
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
