"""A store whose content lies elsewhere, in a place whose answers are the test's."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from attrs import define, field
from twisted.internet.defer import Deferred, fail, succeed
from twisted.web.iweb import IResponse
from zope.interface import implementer

from tests.doubles import FakeResponse
from txociproxy.interfaces import Address, Elsewhere, HeaderList, IPlace, Local
from txociproxy.oci.errors import NoSpace, StorageUnavailable
from txociproxy.oci.names import Descriptor, Digest
from txociproxy.oci.ranges import parse_range
from txociproxy.storage.memory import MemorySpool, MemoryStorage

LIFE_S = 900.0
BLOB_TYPE = "application/octet-stream"


@define(eq=False)
class CopySpool(MemorySpool):
    """A spool that remembers whether somebody has let go of it."""

    is_closed: bool = False

    def close(self) -> None:
        """Let go."""
        super().close()
        self.is_closed = True


@define(eq=False)
class FarStorage(MemoryStorage):
    """Content in a place elsewhere, and copies of it here if the test wants them.

    :ivar copies: where fills go; None wants no copies.
    :ivar no_room: no copy can be begun.
    :ivar reads: what was read, "all" or a Range.
    :ivar others: what the place gives in place of the content.
    :ivar script: answers reads before anything else does; None leaves it to the rest.
    :ivar find_fails: it cannot be told what there is.
    :ivar down: reads are refused.
    :ivar unsigned: no address can be given.
    :ivar by_hand: the test sends the bodies, which are in ``sent``.
    :ivar holding: reads wait in ``held`` until :meth:`answer`.
    :ivar removing: removals wait for the test.
    :ivar turns: those who wait for another process; None lets nobody wait.
    """

    copies: MemoryStorage | None = None
    no_room: bool = False
    spools: list[CopySpool] = field(factory=list)
    reads: list[str] = field(factory=list)
    others: dict[Digest, bytes] = field(factory=dict)
    script: Callable[[str | None], FakeResponse | Exception | None] = lambda _: None
    find_fails: bool = False
    finds: int = 0
    down: bool = False
    unsigned: bool = False
    life_s: float = LIFE_S
    says_size: bool = True
    by_hand: bool = False
    sent: list[FakeResponse] = field(factory=list)
    holding: bool = False
    held: list[tuple[Deferred[IResponse], Callable[[], FakeResponse | Exception]]] = field(factory=list)
    removed: list[Digest] = field(factory=list)
    removing: Deferred[None] | None = None
    turns: list[Deferred[bool]] | None = None
    turns_asked: int = 0
    turns_left: list[Digest] = field(factory=list)

    def put(
        self,
        data: bytes,
        media_type: str = BLOB_TYPE,
        headers: HeaderList = (),
        namespace: str = "docker.io",
        held: bool = False,
    ) -> Digest:
        """Have this content; returns its digest."""
        digest = Digest.of(data)
        self.publish(data, Descriptor(digest, len(data), media_type), headers, namespace, held)
        return digest

    def find(self, digest: Digest, namespace: str) -> Deferred[Local | Elsewhere | None]:  # type: ignore[override]
        """Find the copy that is here, or say where the content is."""
        self.finds += 1
        if self.find_fails:
            return fail(StorageUnavailable("the gate is closed"))
        kept = self.content.get(digest)
        if self.copies is not None and digest in self.copies.content:
            return cast("Deferred[Local | Elsewhere | None]", self.copies.find(digest, namespace))
        if kept is None or (kept.held is not None and namespace not in kept.held):
            return succeed(None)
        descriptor = kept.descriptor
        if not self.says_size:
            descriptor = Descriptor(digest, None, descriptor.media_type)
        fill = None if self.copies is None else self._fill
        place = FarPlace(self, digest)
        return succeed(Elsewhere(descriptor, kept.headers, kept.namespace, place, kept.kept_at_s, fill))

    def _fill(self) -> CopySpool:
        if self.no_room:
            raise NoSpace("full")
        assert self.copies is not None
        self.spools.append(CopySpool(self.copies))
        return self.spools[-1]

    def remove(self, digest: Digest) -> Deferred[bool]:
        """Remember it, and forget the content when the test lets it."""
        self.removed.append(digest)
        if self.removing is None:
            return super().remove(digest)
        return self.removing.addCallback(lambda _: super(FarStorage, self).remove(digest))

    def await_turn(self, digest: Digest) -> Deferred[bool]:
        """Let nobody wait, or wait for the test."""
        self.turns_asked += 1
        if self.turns is None:
            return succeed(False)
        self.turns.append(Deferred(lambda _: None))
        return self.turns[-1]

    def leave_turn(self, digest: Digest) -> None:
        """Remember it."""
        self.turns_left.append(digest)

    def respond(self, digest: Digest, byte_range: str | None) -> FakeResponse | Exception:
        """Return what the place says to a read."""
        if self.down:
            return StorageUnavailable("the place does not answer")
        found = self.script(byte_range)
        if found is None:
            found = far_answer(self.others.get(digest) or self.content[digest].data, byte_range, not self.by_hand)
        if isinstance(found, FakeResponse):
            self.sent.append(found)
        return found

    def answer(self) -> None:
        """Let the reads go that are held back."""
        held, self.held = self.held, []
        for d, respond in held:
            response = respond()
            d.errback(response) if isinstance(response, Exception) else d.callback(cast(IResponse, response))


@implementer(IPlace)
@define(eq=False)
class FarPlace:
    """Where one content lies."""

    _storage: FarStorage
    _digest: Digest

    def address(self) -> Address:
        """Sign, or not."""
        if self._storage.unsigned:
            raise StorageUnavailable("there are no credentials now")
        return Address(f"https://bucket.test/{self._digest.hex}?signature=secret", self._storage.life_s)

    def read(self, byte_range: str | None) -> Deferred[IResponse]:
        """Give it, or wait until the test does."""
        self._storage.reads.append(byte_range or "all")
        if self._storage.holding:
            d: Deferred[IResponse] = Deferred(self._cancel)
            self._storage.held.append((d, lambda: self._storage.respond(self._digest, byte_range)))
            return d
        found = self._storage.respond(self._digest, byte_range)
        return fail(found) if isinstance(found, Exception) else succeed(cast(IResponse, found))

    def _cancel(self, deferred: Deferred[IResponse]) -> None:
        self._storage.held = [(d, respond) for d, respond in self._storage.held if d is not deferred]


def far_answer(data: bytes, byte_range: str | None, ends: bool = True) -> FakeResponse:
    """Return what a bucket says to a read of this content.

    :param ends: whether the body comes at once; else the test sends it.
    """
    fields = {"ETag": '"of-the-bucket"', "Content-Type": "binary/octet-stream", "Last-Modified": "yesterday"}
    spec = parse_range(byte_range)
    code, total = 200, len(data)
    if spec is not None:
        part = spec.resolve(total)
        assert part is not None, "nobody asks for what is not there"
        code, data = 206, data[part.start : part.stop]
        fields["Content-Range"] = part.content_range()
    return FakeResponse(code, fields, data if ends else b"", len(data), ends)
