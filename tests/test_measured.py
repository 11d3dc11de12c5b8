"""A storage that is measured is the same storage, and what it could not do is counted."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, cast

from attrs import define, field
from twisted.internet.defer import Deferred, fail, succeed
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.iweb import IResponse
from zope.interface import implementer
from zope.interface.verify import verifyObject

from tests import contracts
from tests.storage import test_contract
from tests.upstreams.fakes import answer
from txociproxy.bodies.lending import MemoryBody
from txociproxy.interfaces import Address, Elsewhere, IPlace, ISpool, IStorage, Local, TagName
from txociproxy.measured import MAX_ACCEPT_CLASSES, MAX_TAGS, MeasuredStorage
from txociproxy.metrics import Metrics
from txociproxy.oci.errors import BodyLost, NoSpace, StorageUnavailable
from txociproxy.oci.names import Descriptor, Digest
from txociproxy.storage import layout
from txociproxy.storage.memory import MemorySpool, MemoryStorage

DATA = b"content"
DIGEST = Digest.of(DATA)
DESCRIPTOR = Descriptor(DIGEST, len(DATA), "text/plain")
OPERATIONS = ("find", "read", "spool", "commit", "tag", "remove")


class MeasuredMemoryTests(test_contract.MemoryStorageTests):
    """The contract, over a storage in memory that is measured."""

    def setUp(self) -> None:
        """An empty store."""
        super().setUp()
        self.storage = cast(Any, MeasuredStorage(self.memory, Metrics()))


class MeasuredDiskTests(test_contract.DiskStorageTests):
    """The contract, over a disk that is measured."""

    def setUp(self) -> None:
        """A prepared root."""
        super().setUp()
        self.storage = cast(Any, MeasuredStorage(self.disk.storage, Metrics()))


@implementer(IPlace)
@define(eq=False)
class Place:
    """A place that answers as it is told."""

    answer: Deferred[IResponse]

    def address(self) -> Address:
        """Return one."""
        return Address("https://bucket/x", 60.0)

    def read(self, byte_range: str | None) -> Deferred[IResponse]:
        """Answer."""
        return self.answer


class Body(MemoryBody):
    """Content whose bytes the disk does not give."""

    def read_at(self, offset_bytes: int, max_bytes: int) -> bytes:
        """Give nothing."""
        raise BodyLost("the disk does not give these bytes")

    def extent_at(self, offset_bytes: int, max_bytes: int) -> tuple[int, int] | None:
        """Give nothing."""
        raise BodyLost("the disk does not give these bytes")


class Spool(MemorySpool):
    """A spool whose commit ends when the test says so, and that does not fail when it is left."""

    committing: Deferred[None]

    def commit(self, *_: object) -> Deferred[None]:
        """Wait."""
        self.committing = Deferred()
        return self.committing


@define(eq=False)
class Failing(MemoryStorage):
    """A storage that says what it is told to.

    :ivar says: what every question ends with; None asks the memory.
    """

    says: Any = None
    refuses: StorageUnavailable | None = None
    spools: list[Spool] = field(factory=list)

    def find(self, digest: Digest, namespace: str) -> Deferred[Any]:
        """Say it."""
        return cast("Deferred[Any]", self.says)

    remove = forget_tag = recall_tag = lambda self, *_: self.says  # type: ignore[assignment]

    def open_spool(self, digest: Digest, size_bytes: int | None) -> MemorySpool:
        """Refuse, or open."""
        if self.refuses is not None:
            raise self.refuses
        self.spools.append(Spool(self))
        return self.spools[-1]


async def coroutine(awaitable: Awaitable[Any]) -> Any:
    """Wait, as a storage may that is written with coroutines."""
    return await awaitable


class MeasuredTests(SynchronousTestCase):
    """What is counted."""

    def setUp(self) -> None:
        """A storage that works."""
        self.metrics = Metrics()
        self.inner = Failing()
        self.storage = MeasuredStorage(self.inner, self.metrics)

    def counted(self) -> dict[str, float]:
        """Return the operations that failed, and how often."""
        found = {
            each: self.metrics.registry.get_sample_value("ociproxy_storage_errors_total", {"operation": each})
            for each in OPERATIONS
        }
        return {each: count for each, count in found.items() if count}

    def found(self, says: Local | Elsewhere) -> Any:
        """Return what is found where the storage finds this."""
        self.inner.says = succeed(says)
        return self.successResultOf(self.storage.find(DIGEST, "docker.io"))

    def test_every_question_that_fails_is_counted_and_fails(self) -> None:
        """Whether it is asked with a Deferred or a coroutine."""
        name = contracts.TAG
        for make in (lambda error: fail(error), lambda error: coroutine(fail(error))):
            for ask in (
                lambda: self.storage.find(DIGEST, "docker.io"),
                lambda: self.storage.remove(DIGEST),
                lambda: self.storage.recall_tag(name),
                lambda: self.storage.forget_tag(name),
            ):
                self.inner.says = make(StorageUnavailable("out"))
                self.failureResultOf(ask(), StorageUnavailable)
        self.assertEqual(self.counted(), {"find": 2, "remove": 2, "tag": 4})

    def test_other_errors_are_passed_on_uncounted(self) -> None:
        """They are slips of ours."""
        self.inner.says = fail(KeyError("x"))
        self.failureResultOf(self.storage.find(DIGEST, "docker.io"), KeyError)
        self.assertEqual(self.counted(), {})

    def test_a_question_can_be_cancelled(self) -> None:
        """The storage hears of it."""
        heard: list[object] = []
        self.inner.says = Deferred(heard.append)
        asked = self.storage.find(DIGEST, "docker.io")
        asked.cancel()
        self.failureResultOf(asked)
        self.assertEqual(len(heard), 1)

    def test_no_room_for_a_spool_is_counted(self) -> None:
        """And any other refusal."""
        for refusal in (NoSpace("full"), StorageUnavailable("read-only")):
            self.inner.refuses = refusal
            self.assertRaises(type(refusal), self.storage.open_spool, DIGEST, None)
        self.assertEqual(self.counted(), {"spool": 2})

    def commit(self, spool: ISpool) -> Deferred[None]:
        """Ask for the commit."""
        return cast("Deferred[None]", spool.commit(DESCRIPTOR, (), "docker.io", False))

    def test_a_commit_that_fails_is_counted(self) -> None:
        """Once, and the caller hears of it."""
        committing = self.commit(self.storage.open_spool(DIGEST, None))
        self.inner.spools[0].committing.errback(StorageUnavailable("no"))
        self.failureResultOf(committing, StorageUnavailable)
        self.assertEqual(self.counted(), {"commit": 1})

    def test_a_commit_that_was_left_is_no_failure(self) -> None:
        """Whoever abandons or closes a spool has ended it himself."""
        for leave in ("abandon", "close"):
            spool = self.storage.open_spool(DIGEST, None)
            committing = self.commit(spool)
            getattr(spool, leave)()
            self.assertEqual(self.inner.spools[-1]._state, "abandoned")
            self.inner.spools[-1].committing.errback(StorageUnavailable("abandoned"))
            self.failureResultOf(committing, StorageUnavailable)
        self.assertEqual(self.counted(), {})

    def test_a_copy_of_what_lies_elsewhere_is_measured_too(self) -> None:
        """Its place, and the spool that fills the copy."""
        place = Place(fail(StorageUnavailable("out")))
        elsewhere = Elsewhere(DESCRIPTOR, (), None, place, fill=lambda: self.inner.open_spool(DIGEST, None))
        found = self.found(elsewhere)
        verifyObject(IPlace, found.place)
        self.assertEqual(found.place.address(), place.address())
        self.failureResultOf(found.place.read(None), StorageUnavailable)
        committing = self.commit(found.fill())
        self.inner.spools[0].committing.errback(StorageUnavailable("no"))
        self.failureResultOf(committing, StorageUnavailable)
        self.inner.refuses = NoSpace("full")
        self.assertRaises(NoSpace, found.fill)
        self.assertEqual(self.counted(), {"read": 1, "commit": 1, "spool": 1})

    def test_what_lies_elsewhere_stays_as_it_is(self) -> None:
        """Without a copy there is none, and what the place gives is given."""
        given = answer(200)
        found = self.found(Elsewhere(DESCRIPTOR, (("a", "b"),), "docker.io", Place(succeed(given))))
        self.assertIsNone(found.fill)
        self.assertEqual((found.descriptor, found.headers, found.namespace), (DESCRIPTOR, (("a", "b"),), "docker.io"))
        self.assertIs(self.successResultOf(found.place.read(None)), given)
        self.assertEqual(self.counted(), {})

    def test_content_that_cannot_be_read_is_counted_once(self) -> None:
        """However often its reader tries."""
        body = self.found(Local(DESCRIPTOR, (), None, Body(DATA, promised=1))).body
        self.assertRaises(BodyLost, body.extent_at, 0, 4)
        self.assertRaises(BodyLost, body.read_at, 0, 4)
        self.assertEqual(self.counted(), {"read": 1})
        other = self.found(Local(DESCRIPTOR, (), None, Body(DATA, promised=1))).body
        self.assertRaises(BodyLost, other.read_at, 0, 4)
        self.assertEqual(self.counted(), {"read": 2})

    def test_one_class_too_many_reaches_the_cap(self) -> None:
        """A5: four per tag; the fullest tag tells how much is taken."""
        storage = MeasuredStorage(MemoryStorage(), self.metrics)
        for number in range(MAX_ACCEPT_CLASSES):
            self.record(storage, f"type/{number}")
        self.record(storage, "type/0")
        self.assertEqual((self.reached(), storage.uses()), (0, {"accept_classes": (4, 4)}))
        self.record(storage, "type/new")
        self.assertEqual((self.reached(), storage.uses()), (1, {"accept_classes": (4, 4)}))

    def test_a_tag_that_was_forgotten_has_room_again(self) -> None:
        """Here or by another process: what is recalled counts."""
        inner = MemoryStorage()
        storage = MeasuredStorage(inner, self.metrics)
        for forget in (storage.forget_tag, inner.forget_tag):
            for number in range(MAX_ACCEPT_CLASSES):
                self.record(storage, f"type/{number}")
            self.successResultOf(forget(contracts.TAG))
            if forget == inner.forget_tag:
                self.successResultOf(storage.recall_tag(contracts.TAG))
            self.assertEqual(storage.uses(), {"accept_classes": (0, 4)})
        self.record(storage, "type/new")
        self.assertEqual(self.reached(), 0)

    def test_it_learns_from_what_is_recalled(self) -> None:
        """A process that has just begun finds tags that are full."""
        inner = MemoryStorage()
        for number in range(MAX_ACCEPT_CLASSES):
            self.record(inner, f"type/{number}")
        storage = MeasuredStorage(inner, self.metrics)
        self.assertEqual(len(self.successResultOf(storage.recall_tag(contracts.TAG))), MAX_ACCEPT_CLASSES)
        self.record(storage, "type/new")
        self.assertEqual(self.reached(), 1)

    def test_not_every_tag_is_remembered(self) -> None:
        """Law 8: names are the clients' choice."""
        storage = MeasuredStorage(MemoryStorage(), self.metrics)
        for number in range(MAX_TAGS + 10):
            name = TagName("docker.io", contracts.TAG.repository, str(number))
            self.successResultOf(storage.record_tag(name, contracts.record("a/b")))
        self.assertEqual(len(storage._classes), MAX_TAGS)

    def test_it_counts_as_storages_keep(self) -> None:
        """The number is theirs."""
        self.assertEqual(MAX_ACCEPT_CLASSES, layout.MAX_ACCEPT_CLASSES)

    def record(self, storage: IStorage, media_type: str) -> None:
        """Record what the tag means to clients of one class."""
        self.successResultOf(cast("Deferred[None]", storage.record_tag(contracts.TAG, contracts.record(media_type))))

    def reached(self) -> float:
        """Return how often the cap was reached."""
        labels = {"cap": "accept_classes"}
        return self.metrics.registry.get_sample_value("ociproxy_caps_reached_total", labels) or 0
