"""Places: what is read of content that lies elsewhere, and from where its rest comes when that breaks off."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from attrs import define
from twisted.web.iweb import IResponse

from txociproxy.answers import field_of, length_of
from txociproxy.collect import discard
from txociproxy.interfaces import IPlace
from txociproxy.oci.errors import StorageUnavailable
from txociproxy.oci.ranges import parse_content_range


async def read_whole(place: IPlace, size_bytes: int | None) -> IResponse | None:
    """Begin to read all of it; None says that the place gives nothing, or something of another length.

    :param size_bytes: how long it is; None is not known.
    """
    try:
        response = await place.read(None)
    except StorageUnavailable:
        return None  # said by the storage
    length_bytes = length_of(response)
    if response.code == 200 and (None in (length_bytes, size_bytes) or length_bytes == size_bytes):
        return response
    discard(response)
    return None


async def read_part(place: IPlace, start: int, stop: int | None, total_bytes: int | None) -> IResponse | None:
    """Begin to read a part; None says that the place does not give exactly this.

    :param stop: offset behind the last byte; None is the end of the content.
    """
    try:
        response = await place.read(f"bytes={start}-{'' if stop is None else stop - 1}")
    except StorageUnavailable:
        return None  # said by the storage
    given = parse_content_range(field_of(response, "Content-Range") or "") if response.code == 206 else None
    if given is not None and given.start == start:
        if stop in (None, given.stop) and (given.total is None or total_bytes in (None, given.total)):
            return response
    discard(response)
    return None


@define(eq=False)
class Rest:
    """Asks for the rest of a body: the place, and where that gives nothing the upstream.

    Their entity tags differ for the same content, and are not compared: the digest is the verdict.

    :ivar _stop_bytes: where the body ends; None is the end of the content.
    :ivar _upstream: asks the upstream for everything from an offset on.
    :ivar _asked_bytes: from where the place was asked last, or -1 if the upstream was asked since.
    :ivar _namespace: the upstream's name.
    :ivar _received: called with how much of it has come from the upstream.
    :ivar is_pure: whether the upstream was never asked, so that all bytes are the place's.
    """

    _place: IPlace
    _stop_bytes: int | None
    _total_bytes: int | None
    _upstream: Callable[[int], Awaitable[IResponse]]
    _asked_bytes: int
    _namespace: str
    _received: Callable[[int], object]
    is_pure: bool = True
    _upstreams_turn: bool = False

    def source(self) -> str:
        """Say whose bytes they are."""
        return "the storage" if self.is_pure else f"the storage and {self._namespace}"

    def took(self, count_bytes: int) -> None:
        """Count a chunk if it is the upstream's."""
        if self._upstreams_turn:
            self._received(count_bytes)

    async def reopen(self, offset_bytes: int) -> IResponse:
        """Return an answer that goes on from here.

        :raises UpstreamUnreachable: neither of them answers.
        """
        if offset_bytes > self._asked_bytes:  # it has brought something since
            self._asked_bytes = offset_bytes
            response = await read_part(self._place, offset_bytes, self._stop_bytes, self._total_bytes)
            if response is not None:
                self._upstreams_turn = False
                return response
        # Should that bring nothing either, a place that brought nothing once is better than none.
        self.is_pure, self._asked_bytes, self._upstreams_turn = False, -1, True
        return await self._upstream(offset_bytes)
