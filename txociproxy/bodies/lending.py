"""Who still needs a body; bodies in memory, and small ones read whole."""

from __future__ import annotations

from attrs import define, field
from twisted.internet.defer import Deferred
from zope.interface import implementer

from txociproxy.bodies.reader import CHUNK_BYTES
from txociproxy.interfaces import IBody, IFollower
from txociproxy.oci.errors import BodyLost


@define(eq=False)
class Lent:
    """Counts who still needs a body: those who follow it and those to whom it was promised."""

    _promised: int = field(default=0, kw_only=True)
    _followers: list[IFollower] = field(factory=list, init=False)

    def promise(self) -> None:
        """Somebody has been given this body and will follow or close it, once."""
        self._promised += 1

    def follow(self, follower: IFollower) -> None:
        """See :meth:`IBody.follow`."""
        self._promised = max(0, self._promised - 1)
        self._followers.append(follower)

    def unfollow(self, follower: IFollower) -> None:
        """See :meth:`IBody.unfollow`."""
        if follower in self._followers:
            self._followers.remove(follower)
            self._settle()

    def close(self) -> None:
        """See :meth:`IBody.close`."""
        self._promised = max(0, self._promised - 1)
        self._settle()

    def _settle(self) -> None:
        if not self._followers and not self._promised:
            self._let_go()

    def _let_go(self) -> None:
        """Nobody needs this any more."""

    def _tell(self) -> None:
        for follower in list(self._followers):
            follower.advanced()


@implementer(IBody)
@define(eq=False)
class MemoryBody(Lent):
    """Content in memory: a manifest that has just been proven."""

    data: bytes

    @property
    def size_bytes(self) -> int:
        """Whole length."""
        return len(self.data)

    def read_at(self, offset_bytes: int, max_bytes: int) -> bytes:
        """Return what is there."""
        return self.data[offset_bytes : offset_bytes + max_bytes]

    def extent_at(self, offset_bytes: int, max_bytes: int) -> tuple[int, int] | None:
        """Memory is no file."""
        return None


@implementer(IFollower)
@define(eq=False)
class _Gatherer:
    """Reads a small body whole into memory."""

    _body: IBody
    _done: Deferred[bytes]
    offset_bytes: int = 0
    _chunks: list[bytes] = field(factory=list)

    def advanced(self) -> None:
        """Read what has come."""
        try:
            while data := self._body.read_at(self.offset_bytes, CHUNK_BYTES):
                self.offset_bytes += len(data)
                self._chunks.append(data)
        except BodyLost as error:
            self._end(error)
        else:
            if self.offset_bytes == self._body.size_bytes:
                self._end(b"".join(self._chunks))

    def _end(self, result: bytes | BodyLost) -> None:
        self._body.unfollow(self)
        if not self._done.called:
            self._done.callback(result) if isinstance(result, bytes) else self._done.errback(result)


async def whole(body: IBody) -> bytes:
    """Return all bytes of a small body, and leave it as it was.

    :raises BodyLost: they are not all there.
    """
    done: Deferred[bytes] = Deferred(lambda _: body.unfollow(gatherer))
    gatherer = _Gatherer(body, done)
    body.promise()
    body.follow(gatherer)
    gatherer.advanced()
    return await done
