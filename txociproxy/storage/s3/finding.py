"""Objects: content of the bucket, found without a thread and handed out by its place.

What was found is believed for a second, by those who may see it; that something is not there is never believed.  All
who look for a digest at the same time share one look.  What is believed ends when S3 goes out of reach.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from attrs import define, field
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.web.iweb import IResponse
from zope.interface import implementer

from txociproxy.interfaces import Address, Elsewhere, IPlace
from txociproxy.oci.names import Digest
from txociproxy.remembering import remember
from txociproxy.storage.layout import Sidecar, describe
from txociproxy.storage.s3.addresses import Addresses
from txociproxy.storage.s3.keys import Keys
from txociproxy.storage.s3.looking import BELIEVED_S, Found, Look, Seen
from txociproxy.storage.s3.reading import Reads
from txociproxy.storage.s3.settings import S3Settings
from txociproxy.storage.s3.shared import Shared
from txociproxy.storage.s3.signing import Signer
from txociproxy.storage.s3.trouble import S3Trouble

SIDECAR_BELIEVED_S = 60.0
MAX_REMEMBERED = 10_000
DAY_S = 24 * 3600.0
RENEW_AGAIN_S = 3600.0  # what is still old by then was not renewed


@define(eq=False, repr=False)
class Objects:
    """The content of a bucket.

    :ivar _now: seconds since the epoch.
    :ivar _renew: called with a digest, and whether it is held, when what was hit is older than half of the lifecycle
        (RULES G4); must not raise.
    :ivar _believed: what was found last; it may be too old.
    :ivar _sidecars: what is said of open content, and when it was read, by the clock.
    """

    _reads: Reads
    _keys: Keys
    _signer: Signer
    _settings: S3Settings
    _clock: IReactorTime
    _now: Callable[[], float]
    _renew: Callable[[Digest, bool], None]
    _addresses: Addresses = field(init=False)
    _looks: Shared[Digest, Seen] = field(init=False)
    _believed: OrderedDict[Digest, Found] = field(init=False, factory=OrderedDict)
    _sidecars: OrderedDict[Digest, tuple[Sidecar, float]] = field(init=False, factory=OrderedDict)
    _renewed_s: OrderedDict[tuple[Digest, bool], float] = field(init=False, factory=OrderedDict)

    log = Logger()

    def __attrs_post_init__(self) -> None:
        self._addresses = Addresses(self._signer, self._clock, self._now, self._settings.url_life_s)
        self._looks = Shared(self._landed)
        self._reads.gate.on_close.append(self.forget_all)

    async def find(self, digest: Digest, namespace: str) -> Elsewhere | None:
        """Return where content is; None is a miss, also for what is held for other namespaces (RULES D3).

        Takes no longer than the patience that is configured.

        :raises StorageUnavailable: it cannot be told.
        """
        self._reads.gate.check()
        found = self._believed.get(digest)
        if found is None or self._clock.seconds() - found.seen_s > BELIEVED_S or not found.is_for(namespace):
            seen = await self._looks.join(digest, lambda: self._look(digest).see(self._known(digest)))
            found = seen.found
            if found is None or not found.is_for(namespace):
                if seen.trouble is not None:
                    raise seen.trouble
                return None
        self._renew_if_old(digest, found)
        return self._elsewhere(digest, found)

    def forget(self, digest: Digest) -> None:
        """Believe nothing of this content any more, nor what is being asked about it now."""
        self._believed.pop(digest, None)
        self._sidecars.pop(digest, None)
        self._looks.part(digest)

    def forget_all(self) -> None:
        """Believe nothing any more."""
        self._believed.clear()
        self._sidecars.clear()
        self._looks.part_all()
        self._addresses.forget()

    def address(self, key: str) -> Address:
        """Return where clients get an object.

        :raises StorageUnavailable: nothing can be signed, or S3 is out.
        """
        self._reads.gate.check()
        return self._addresses.of(key)

    async def read(self, digest: Digest, key: str, size_bytes: int, byte_range: str | None) -> IResponse:
        """GET content, as :meth:`IPlace.read`; what is not as it was found is not believed any more."""
        try:
            return await self._reads.open(key, byte_range, size_bytes)
        except S3Trouble as trouble:
            self.forget(digest)
            self.log.debug("not read: {trouble}", trouble=str(trouble))  # what concerns S3 as a whole the gate says
            raise

    def _look(self, digest: Digest) -> Look:
        until_s = self._clock.seconds() + self._settings.patience_s
        return Look(self._reads, self._keys, self._clock, digest, until_s)

    def _known(self, digest: Digest) -> Sidecar | None:
        sidecar, read_s = self._sidecars.get(digest, (None, 0.0))
        return sidecar if self._clock.seconds() - read_s <= SIDECAR_BELIEVED_S else None

    def _landed(self, digest: Digest, seen: Seen) -> None:
        if seen.found is not None:
            remember(self._believed, digest, seen.found, MAX_REMEMBERED)
        else:
            self._believed.pop(digest, None)
        if seen.sidecar is not None:
            remember(self._sidecars, digest, (seen.sidecar, self._clock.seconds()), MAX_REMEMBERED)

    def _elsewhere(self, digest: Digest, found: Found) -> Elsewhere:
        sidecar = found.sidecar
        place = S3Place(self, digest, found.key, found.size_bytes)
        descriptor = describe(digest, found.size_bytes, sidecar)
        return Elsewhere(descriptor, sidecar.headers, sidecar.namespace, place, sidecar.kept_at_s)

    def _renew_if_old(self, digest: Digest, found: Found) -> None:
        half_s = self._settings.lifecycle_days * DAY_S / 2
        if half_s <= 0 or found.age_s is None or found.age_s <= half_s:
            return
        what, now_s = (digest, found.holders is not None), self._clock.seconds()
        if now_s - self._renewed_s.get(what, float("-inf")) >= RENEW_AGAIN_S:
            remember(self._renewed_s, what, now_s, MAX_REMEMBERED)
            self._renew(*what)


@implementer(IPlace)
@define(eq=False)
class S3Place:
    """An object of the bucket."""

    _objects: Objects
    _digest: Digest
    _key: str
    _size_bytes: int

    def address(self) -> Address:
        """See :meth:`IPlace.address`; all clients of one minute get the same."""
        return self._objects.address(self._key)

    async def read(self, byte_range: str | None) -> IResponse:
        """See :meth:`IPlace.read`."""
        return await self._objects.read(self._digest, self._key, self._size_bytes, byte_range)
