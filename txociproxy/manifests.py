"""Manifests: fetched whole, proven before their first byte, kept, and found again (RULES E3)."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from attrs import define, evolve, field, frozen
from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.iweb import IResponse

from txociproxy.answers import field_of, fields_of
from txociproxy.asking import SMALL_BODY_S, Asking
from txociproxy.bodies.lending import MemoryBody, whole
from txociproxy.collect import BodyTooLong, collect
from txociproxy.flights import Flights, Landed
from txociproxy.ingests import BLOB_TYPE
from txociproxy.interfaces import Ask, Elsewhere, HeaderList, IStorage, IWorkers, Local, Pull, Relay
from txociproxy.metrics import Metrics
from txociproxy.oci.errors import BodyLost, OCIError, StorageUnavailable, UpstreamUnreachable
from txociproxy.oci.headers import kept
from txociproxy.oci.manifests import MAX_MANIFEST_BYTES, is_schema1, manifest_media_type
from txociproxy.oci.names import Descriptor, Digest
from txociproxy.proving import Proving

KEEP_S = 30.0  # how long a manifest waits in memory for the disk
MAX_FRESH_BYTES = 64 * 1024 * 1024  # of all that wait for it
READ_S = 5.0  # how long a kept one is waited for that has to be read to know its type
Key = tuple[str, Digest]


@frozen
class Manifest:
    """A manifest that has been proven.

    :ivar is_kept: whether the storage has taken it.
    :ivar held: came with credentials that others do not have (RULES D3).
    """

    descriptor: Descriptor
    headers: HeaderList
    namespace: str
    data: bytes
    is_kept: bool = False
    held: bool = False

    def to_local(self) -> Local:
        """Return it as content that is here."""
        return Local(self.descriptor, self.headers, self.namespace, MemoryBody(self.data, promised=1))


@define(eq=False)
class Manifests:
    """Fetches and keeps manifests.

    :ivar _fresh: those that are proven and still on their way into the storage.
    """

    _storage: IStorage
    _asking: Asking
    _proving: Proving
    _hashers: IWorkers
    _clock: IReactorTime
    _metrics: Metrics
    _silence_s: float = 30.0
    _flights: Flights[Manifest, Relay] = field(factory=Flights)
    _fresh: dict[Key, Manifest] = field(factory=dict)

    log = Logger()

    async def find(self, namespace: str, digest: Digest) -> Local | None:
        """Return a manifest that is kept; content that is no manifest is none, whatever was asked first."""
        fresh = self._fresh.get((namespace, digest))
        if fresh is not None:
            return fresh.to_local()
        try:
            found = await self._storage.find(digest, namespace)
        except StorageUnavailable:
            return None
        if isinstance(found, Elsewhere):
            found = await self._proving.bring(found)
        if found is None:
            # It may have come while we looked where it was not yet.
            fresh = self._fresh.get((namespace, digest))
            return fresh.to_local() if fresh is not None else None
        try:
            media_type = await self._type_of(found, namespace)
        except (BodyLost, TimeoutError):
            media_type = None
        except BaseException:
            found.body.close()  # the client has left
            raise
        if media_type is None:
            found.body.close()
            return None
        return evolve(found, descriptor=evolve(found.descriptor, media_type=media_type))

    async def has(self, namespace: str, digest: Digest) -> bool:
        """Whether a manifest is kept."""
        found = await self.find(namespace, digest)
        if found is not None:
            found.body.close()
        return found is not None

    async def fetch(self, ask: Ask, pull: Pull, stale: bool = False) -> tuple[Manifest | Relay, bool]:
        """Return a manifest by digest from upstream, and whether this client's own ask brought it.

        :param stale: whether a stale answer is at hand, which shortens the deadline.
        """
        # Who can wait does not join one who cannot, and would fail with him; the other way round one ask does.
        patient = ("manifest", pull.namespace, pull.reference)
        key = (*patient, "hasty") if stale and not self._flights.is_flying(patient) else patient
        outcome, own = await self._flights.join(key, lambda: self._fetch(ask, pull, stale))
        return (outcome.value if isinstance(outcome, Landed) else outcome), own

    async def _fetch(self, ask: Ask, pull: Pull, stale: bool) -> Landed[Manifest] | Relay:
        outcome = await self.get(ask, pull, stale)
        return outcome if isinstance(outcome, Relay) else Landed(outcome)

    async def get(self, ask: Ask, pull: Pull, stale: bool = False) -> Manifest | Relay:
        """GET from upstream, by tag or digest.

        :returns: a Relay for a refusal, and for an old manifest (schema1), which is never kept.
        :raises OCIError: what came is no manifest, or not this one.
        """
        for last in (False, True):
            got = await self._asking.get(ask, pull, stale=stale)
            if got.response.code != 200:
                return await self._asking.relay(got.response)
            try:
                return await self._receive(pull, got.response, got.held)
            except (OCIError, UpstreamUnreachable):
                if last:
                    raise
        raise AssertionError("unreachable")

    async def _receive(self, pull: Pull, response: IResponse, held: bool) -> Manifest | Relay:
        try:
            counted = self._metrics.receiver(pull.namespace)
            data = await collect(response, MAX_MANIFEST_BYTES, self._clock, self._silence_s, SMALL_BODY_S, counted)
        except BodyTooLong as error:
            raise _invalid(f"the upstream's manifest is longer than {MAX_MANIFEST_BYTES} bytes") from error
        header_type = field_of(response, "Content-Type")
        media_type = await _call(self._hashers, manifest_media_type, data, header_type)
        if media_type is not None and is_schema1(media_type):
            return Relay(200, fields_of(response), data)
        digest = self._prove(pull, response, data)
        if media_type is None:
            raise _invalid("what the upstream sent is no manifest")
        descriptor = Descriptor(digest, len(data), media_type)
        manifest = Manifest(descriptor, kept(fields_of(response)), pull.namespace, data, held=held)
        return evolve(manifest, is_kept=self._keep(manifest))

    def _prove(self, pull: Pull, response: IResponse, data: bytes) -> Digest:
        """Return the digest that these bytes have and were promised to have."""
        promised = pull.reference if isinstance(pull.reference, Digest) else promised_digest(response)
        digest = Digest.of(data, promised.algorithm if promised is not None else "sha256")
        if promised is not None and promised != digest:
            self._metrics.bad_verdict(pull.namespace)
            self.log.warn(
                "wrong digest from {namespace}: the manifest of {reference} is {digest}, promised was {promised}",
                namespace=pull.namespace,
                reference=str(pull.reference),
                digest=str(digest),
                promised=str(promised),
            )
            raise _invalid("the upstream's manifest does not have its digest")
        return digest

    def _keep(self, manifest: Manifest) -> bool:
        key = (manifest.namespace, manifest.descriptor.digest)
        if key in self._fresh:
            return True
        if sum(len(fresh.data) for fresh in self._fresh.values()) + len(manifest.data) > MAX_FRESH_BYTES:
            return False  # the disk lags: memory is not for what it does not take
        try:
            spool = self._storage.open_spool(manifest.descriptor.digest, len(manifest.data))
        except StorageUnavailable as error:
            self.log.debug("not kept: {digest}: {reason}", digest=str(key[1]), reason=str(error))
            return False
        self._fresh[key] = manifest
        spool.write(manifest.data)

        async def commit() -> None:
            await spool.commit(manifest.descriptor, manifest.headers, manifest.namespace, manifest.held)

        def over(result: Failure | None) -> None:
            timer.cancel() if timer.active() else None
            self._fresh.pop(key, None)
            spool.close()
            if isinstance(result, Failure):
                result.trap(StorageUnavailable)
                self._metrics.spool_dropped()
                self.log.warn("storage lost {digest}: {reason}", digest=str(key[1]), reason=result.getErrorMessage())

        # A disk that hangs must not fill the memory with manifests.
        timer = self._clock.callLater(KEEP_S, spool.abandon)
        Deferred.fromCoroutine(commit()).addBoth(over)
        return True

    async def _type_of(self, found: Local, namespace: str) -> str | None:
        """Return the media type of kept content, if it is a manifest.

        What another registry's header said of bytes that do not tell it is not believed here (RULES E3).
        """
        size_bytes = found.descriptor.size_bytes
        if size_bytes is None or size_bytes > MAX_MANIFEST_BYTES:
            return None
        if found.namespace == namespace and found.descriptor.media_type != BLOB_TYPE:
            return found.descriptor.media_type
        data = await Deferred.fromCoroutine(whole(found.body)).addTimeout(READ_S, self._clock)
        return await _call(self._hashers, manifest_media_type, data, None)


def promised_digest(response: IResponse) -> Digest | None:
    """Return the digest that an upstream says its answer has."""
    try:
        return Digest.parse(field_of(response, "Docker-Content-Digest") or "")
    except OCIError:
        return None


def _invalid(message: str) -> OCIError:
    return OCIError("MANIFEST_INVALID", message, status=502)


async def _call(workers: IWorkers, function: Callable[..., str | None], *args: object) -> str | None:
    return cast("str | None", await workers.run(function, *args))
