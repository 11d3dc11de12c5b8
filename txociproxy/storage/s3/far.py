"""The far side of the storage: the bucket, and all that asks it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import TypeVar, cast

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.web.iweb import IAgent

from txociproxy.interfaces import IWorkers
from txociproxy.oci.names import Descriptor, Digest
from txociproxy.storage.layout import Sidecar
from txociproxy.storage.marker import NotOurs
from txociproxy.storage.s3.bucket import Bucket
from txociproxy.storage.s3.chores import Chores
from txociproxy.storage.s3.connecting import Connection
from txociproxy.storage.s3.finding import Objects
from txociproxy.storage.s3.gate import Gate
from txociproxy.storage.s3.keys import Keys
from txociproxy.storage.s3.leftovers import Leftovers
from txociproxy.storage.s3.opening import START_PATIENCE_S, Opening
from txociproxy.storage.s3.reading import Reads
from txociproxy.storage.s3.renewals import Renewals
from txociproxy.storage.s3.setbacks import concerns_all
from txociproxy.storage.s3.settings import S3Settings
from txociproxy.storage.s3.tags import S3Tags
from txociproxy.storage.s3.trouble import S3Trouble
from txociproxy.storage.s3.walking import Page, walk
from txociproxy.storage.s3.ways import CurrentAgent, CurrentSigner
from txociproxy.storage.shelf import MAX_SIDECAR_BYTES

T = TypeVar("T")


@define(eq=False)
class Far:
    """The bucket, once it is open, and before that the wish for it.

    :ivar _workers: the pool for what asks S3 and blocks.
    :ivar _now: seconds since the epoch.
    :ivar _connect: see :func:`connecting.connect`.
    :ivar _agent_for: makes what sends reads, for an endpoint's URL and a file of authorities that are trusted.
    """

    settings: S3Settings
    _workers: IWorkers
    _clock: IReactorTime
    _now: Callable[[], float]
    _connect: Callable[[S3Settings], Connection]
    _agent_for: Callable[[str, str | None], IAgent]
    _start_patience_s: float = START_PATIENCE_S
    keys: Keys = field(init=False)
    opening: Opening = field(init=False)
    gate: Gate = field(init=False)
    signer: CurrentSigner = field(init=False)
    reads: Reads = field(init=False)
    objects: Objects = field(init=False)
    tags: S3Tags = field(init=False)
    renewals: Renewals = field(init=False)
    leftovers: Leftovers = field(init=False)
    _chores: Chores = field(init=False)

    log = Logger()

    def __attrs_post_init__(self) -> None:
        settings, clock, workers, now = self.settings, self._clock, self._workers, self._now
        keys = self.keys = Keys(settings.prefix)
        self.opening = Opening(settings, keys, self._connect, self._start_patience_s)
        gate = self.gate = Gate(clock, self.opening.place)
        self.signer = CurrentSigner(self.opening)
        signer, agent = self.signer.as_signer(), CurrentAgent(self.opening, self._agent_for)
        self.reads = Reads(agent, signer, gate, clock, now, settings.patience_s)
        self.renewals = Renewals(self.bucket, keys, workers, gate, clock, settings.lifecycle_days)
        self.objects = Objects(self.reads, keys, signer, settings, clock, now, self.renewals.add)
        self.tags = S3Tags(self.reads, keys, self.bucket, workers, gate, clock)
        self.leftovers = Leftovers(self.bucket, keys, workers, gate, clock, settings.url_life_s)
        self._chores = Chores(self.bucket, self.signer.refresh, keys, settings, workers, gate, clock)

    def prepare(self, mode: str, adopt: bool) -> None:
        """Open the bucket before the reactor runs; blocks for a bounded time.  S3 that is out is a warning.

        :raises StorageUnavailable: it belongs to another mode or version, or there is no SDK.
        """
        trouble = self.opening.prepare(mode, adopt)
        while trouble is not None and self.gate.is_open:  # it takes some kinds of trouble more than once
            self.gate.failed(trouble)

    def start(self) -> None:
        """Begin what goes on behind, in the reactor."""
        self.gate.probe = self._probe
        if self.opening.connection is None and self.gate.is_open:
            self.gate.failed(S3Trouble("unreachable", "NotOpened", self.opening.place))
        self._chores.start()
        self.leftovers.start()

    def stop(self) -> None:
        """Begin nothing more."""
        self.gate.stop()
        self._chores.stop()
        self.leftovers.stop()
        self.renewals.stop()

    def bucket(self) -> Bucket | None:
        """Return the bucket if it is open."""
        return self.opening.bucket

    def opened(self) -> Bucket:
        """Return the bucket.

        :raises S3Trouble: it is not open.
        """
        if self.opening.bucket is None:
            raise S3Trouble("unreachable", "NotOpened", self.opening.place)
        return self.opening.bucket

    async def remove(self, digest: Digest) -> bool:
        """Remove content before what was said of it; says whether any was there.

        :raises S3Trouble: it is not certain that it has gone.
        """
        self.gate.check()
        try:
            return await self._in_thread(self._remove, digest)
        except S3Trouble as trouble:
            if concerns_all(trouble):
                self.gate.failed(trouble)
            raise

    async def walk(self, is_known: Callable[[Digest], bool]) -> AsyncIterator[Descriptor]:
        """Iterate over the content of the bucket.

        :param is_known: content that is passed over.

        :raises S3Trouble: it cannot be told, or not to its end.
        """
        self.gate.check()
        async for descriptor in walk(self.keys, self._page, self._sidecar, is_known):
            yield descriptor

    # --- in the reactor

    async def _probe(self) -> None:
        """Find out whether the bucket can be used: by the SDK, and as it is read."""
        trouble = self.gate.trouble
        is_refused = trouble is not None and trouble.kind == "refused"
        try:
            await self._in_thread(self.opening.open, is_refused)
        except NotOurs as error:
            if self.opening.not_ours is None:
                self.opening.lost(error)
                self.log.error("S3 is not used any more, pulls go on from the upstream: {reason}", reason=str(error))
            raise
        self.opening.entered()
        if await self.reads.probe(self.keys.marker) is None:
            raise S3Trouble("failing", "NoMarker", self.opening.place)

    async def _page(self, prefix: str, after: str | None) -> Page:
        return await self._in_thread(lambda: self.opened().page(prefix, after))

    async def _sidecar(self, digest: Digest, held: bool) -> Sidecar:
        small = await self.reads.small(self.keys.sidecar(digest, held), MAX_SIDECAR_BYTES)
        return Sidecar.from_json(None if small is None else small.data)

    def _in_thread(self, function: Callable[..., T], *args: object) -> Deferred[T]:
        return cast("Deferred[T]", self._workers.run(function, *args))

    # --- in a thread

    def _remove(self, digest: Digest) -> bool:
        bucket = self.opened()
        contents = [self.keys.content(digest, held) for held in (False, True)]
        there = [bucket.head(key) is not None for key in contents]
        bucket.delete(*contents)
        bucket.delete(*(self.keys.sidecar(digest, held) for held in (False, True)))
        return any(there)
