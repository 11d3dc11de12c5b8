"""Parts of blobs that are not kept: read from a whole download, or relayed beside it (RULES E9)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Literal

from attrs import define, field, frozen
from twisted.internet.interfaces import IReactorTime
from twisted.web.iweb import IResponse

from txociproxy.answers import field_of
from txociproxy.asking import Asking
from txociproxy.collect import discard
from txociproxy.ingests import BLOB_TYPE, Ingests, Key
from txociproxy.interfaces import Ask, Relay, Serve, Visibility
from txociproxy.oci.headers import cache_control
from txociproxy.oci.names import Descriptor, Digest
from txociproxy.oci.ranges import ByteRange, RangeSpec, parse_content_range
from txociproxy.slots import Slots

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
class Parts:
    """Relays parts, and says when a whole download is better.

    :ivar _reopen: asks for the rest of a part: from an offset, to an end.
    :ivar _is_flying: whether a whole download has been asked for and not answered yet.
    :ivar _fill_behind: starts one, for the storage alone.
    :ivar _reached: called with the name of a cap that has its effect.
    """

    _asking: Asking
    _ingests: Ingests
    _clock: IReactorTime
    _rules: RangeRules
    _visibility: Visibility
    _reopen: Callable[[Ask, int, int], Awaitable[IResponse]]
    _is_flying: Callable[[Key], bool]
    _fill_behind: Callable[[Ask, Digest], None]
    _reached: Callable[[str], object]
    _relays: Slots = field(init=False)
    _relaying: list[tuple[Key, str]] = field(factory=list, init=False)

    def __attrs_post_init__(self) -> None:
        limits = (self._rules.relays, self._rules.relays_per_digest)
        names = ("max_range_relays", "max_range_relays_per_digest")
        self._relays = Slots("range requests", limits, self._clock, names=names, reached=self._reached)

    def uses(self) -> dict[str, tuple[float, float]]:
        """Return how much is taken of each cap, and how much there is."""
        return self._relays.uses()

    def worth_waiting(self, ask: Ask, digest: Digest, spec: RangeSpec) -> bool:
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
        if self._rules.miss == "fill" or self._is_flying(key):
            return True
        # All from a near byte on is more than an eighth, or the blob is small.  Of others the first part will tell.
        return self._rules.miss == "auto" and spec.last is None

    async def relay(self, ask: Ask, digest: Digest, spec: RangeSpec) -> Serve | Relay | None:
        """Relay a range; None where upstream does not do ranges."""
        # With the namespace: one that drips must not use up the places of all others (RULES E1).
        places = "all", (ask.pull.namespace, digest)
        await self._relays.enter(*places)
        begun = False
        try:
            response = (await self._asking.get(ask, ask.pull, str(spec))).response
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
            descriptor = Descriptor(digest, found.total, BLOB_TYPE)
            control = cache_control("revalidate", self._visibility)
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


def _part_of(response: IResponse, spec: RangeSpec) -> ByteRange | None:
    """Return the part that a 206 brings, if it is the one that was asked for."""
    found = parse_content_range(field_of(response, "Content-Range") or "")
    if found is None or found.start is None or found.stop is None or found.total is None:
        return None
    wanted = spec.resolve(found.total)
    given = ByteRange(found.start, found.stop, found.total)
    return given if given == wanted else None
