"""Reads: objects asked for over presigned URLs, without a thread, each within the patience of those who wait."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from attrs import define, field, frozen
from twisted.internet.defer import CancelledError, DeferredSemaphore
from twisted.internet.interfaces import IReactorTime
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IResponse

from txociproxy import __version__
from txociproxy.answers import field_of, promised_length
from txociproxy.collect import BodyTooLong, collect, discard
from txociproxy.oci.errors import UpstreamUnreachable
from txociproxy.oci.ranges import RangeSpec, parse_range
from txociproxy.storage.s3.gate import Gate
from txociproxy.storage.s3.patience import Ask, Asks
from txociproxy.storage.s3.saying import Aside, age_s, check_coding, check_part, refusal, unanswered
from txociproxy.storage.s3.signing import Signer
from txociproxy.storage.s3.trouble import S3Trouble

MAX_ASKS = 64
MAX_ERROR_BYTES = 16 * 1024
USER_AGENT = f"txociproxy/{__version__}"
# Used at once; the rest is for clocks that differ, of which S3 itself bears this much.
SIGNED_S = 900.0


@frozen
class Head:
    """What S3 says of an object.

    :ivar age_s: by the server's own clock; None is not known.
    """

    size_bytes: int
    age_s: float | None
    etag: str | None


@frozen
class Small:
    """A small object, whole; ``age_s`` as in :class:`Head`."""

    data: bytes = field(repr=False)
    age_s: float | None
    etag: str | None


@define(eq=False, repr=False)
class Reads:
    """Asks for objects of one bucket.

    :ivar gate: nothing is asked while it is closed.
    :ivar _now: seconds since the epoch.
    :ivar _patience_s: how long one ask may take in all, with its wait for a place among the others.
    :ivar _shorts, _opens: places: short asks have one until they are answered whole, long bodies until they begin.
    """

    _agent: IAgent
    _signer: Signer
    gate: Gate
    _clock: IReactorTime
    _now: Callable[[], float]
    _patience_s: float
    _asks: Asks = field(init=False)
    _shorts: DeferredSemaphore = field(init=False, factory=lambda: DeferredSemaphore(MAX_ASKS))
    _opens: DeferredSemaphore = field(init=False, factory=lambda: DeferredSemaphore(MAX_ASKS))

    def __attrs_post_init__(self) -> None:
        self._asks = Asks(self.gate, self._clock, self._patience_s)

    async def head(self, key: str, until_s: float | None = None) -> Head | None:
        """Ask what S3 says of an object; None is that there is none.

        :param until_s: when patience ends, by the clock, if that is earlier than usual.
        :raises S3Trouble: it cannot be told.
        """
        return await self._asks.run(f"HEAD {key}", until_s, lambda ask: self._head(ask, key))

    async def probe(self, key: str) -> Head | None:
        """Ask as :meth:`head` does, also while the gate is closed, and without telling it."""
        return await self._asks.run(f"HEAD {key}", None, lambda ask: self._head(ask, key), is_probe=True)

    async def small(self, key: str, max_bytes: int, until_s: float | None = None) -> Small | None:
        """Read a small object whole; None is that there is none.

        :raises S3Trouble: it cannot be told, or it is longer than ``max_bytes``.
        """
        return await self._asks.run(f"GET {key}", until_s, lambda ask: self._small(ask, key, max_bytes))

    async def open(self, key: str, byte_range: str | None, size_bytes: int | None = None) -> IResponse:
        """GET an object: 200, or 206 for a range; headers in, body not yet delivered.

        :param byte_range: the value of a Range field.
        :param size_bytes: how long the whole must be; None is not known.
        :raises S3Trouble: no such answer came, and not in time; with code ``NoSuchKey`` there is no such object.
        """
        what, spec = f"GET {key}", parse_range(byte_range)
        if byte_range is not None and spec is None:
            raise Aside("failing", "InvalidRange", what)
        return await self._asks.run(what, None, lambda ask: self._open(ask, key, spec, size_bytes))

    async def _send(
        self, ask: Ask, method: Literal["GET", "HEAD"], key: str, spec: RangeSpec | None = None
    ) -> IResponse:
        url, _ = self._signer.presign(method, key, SIGNED_S, self._now())
        headers = Headers({"User-Agent": [USER_AGENT], "Accept-Encoding": ["identity"]})
        if spec is not None:
            headers.addRawHeader("Range", str(spec))
        ask.sent_s = self._clock.seconds()
        try:
            return await ask.wait(self._agent.request(method.encode("ascii"), url.encode("ascii"), headers, None))
        except (CancelledError, S3Trouble):  # it may not even have been sent
            raise
        except Exception as error:
            raise unanswered(error, ask.what) from None

    # --- its kinds

    async def _head(self, ask: Ask, key: str) -> Head | None:
        await ask.wait(self._shorts.acquire())
        try:
            response = await self._send(ask, "HEAD", key)
        finally:
            self._shorts.release()
        if response.code != 200:  # HEAD has no body that could be left
            _raise(refusal(response.code, b"", ask.what))
            return None
        check_coding(response, ask.what)
        size_bytes = promised_length(response)
        if size_bytes is None:
            raise Aside("failing", "NoLength", ask.what)
        return Head(size_bytes, age_s(response), field_of(response, "ETag"))

    async def _small(self, ask: Ask, key: str, max_bytes: int) -> Small | None:
        await ask.wait(self._shorts.acquire())
        try:
            response = await self._send(ask, "GET", key)
            if response.code != 200:
                _raise(refusal(response.code, await self._error(ask, response), ask.what))
                return None
            data = await self._whole(ask, response, max_bytes)
        finally:
            self._shorts.release()
        return Small(data, age_s(response), field_of(response, "ETag"))

    async def _open(self, ask: Ask, key: str, spec: RangeSpec | None, size_bytes: int | None) -> IResponse:
        await ask.wait(self._opens.acquire())
        try:
            response = await self._send(ask, "GET", key, spec)
            if response.code not in (200, 206):
                _raise(refusal(response.code, await self._error(ask, response), ask.what))
                raise Aside("failing", "NoSuchKey", ask.what)
        finally:
            self._opens.release()
        try:
            check_coding(response, ask.what)
            check_part(response, spec, size_bytes, ask.what)
        except Aside:
            discard(response)
            raise
        return response

    async def _whole(self, ask: Ask, response: IResponse, max_bytes: int) -> bytes:
        try:
            check_coding(response, ask.what)
        except Aside:
            discard(response)
            raise
        try:
            return await ask.wait(collect(response, max_bytes, self._clock, self._patience_s))
        except BodyTooLong:
            raise Aside("failing", "TooLong", ask.what) from None
        except UpstreamUnreachable:
            raise S3Trouble("failing", "BrokenOff", ask.what) from None

    async def _error(self, ask: Ask, response: IResponse) -> bytes:
        """Read what a refusal says; to its end, so that the connection can be used again."""
        try:
            return await ask.wait(collect(response, MAX_ERROR_BYTES, self._clock, self._patience_s))
        except (BodyTooLong, UpstreamUnreachable):
            return b""


def _raise(trouble: S3Trouble | None) -> None:
    if trouble is not None:
        raise trouble
