"""What lies locally comes into the bucket: sidecar, content, and then what was held goes; open or held as it should."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.soundness import assert_nothing_open
from tests.storage.disks import Disk
from tests.storage.s3.mortal import MortalBucket
from tests.storage.s3.server import fresh
from txociproxy.oci.names import Digest
from txociproxy.storage.s3.bucket import Bucket, UploadCancelled, WrongDigest
from txociproxy.storage.s3.publishing import publish
from txociproxy.storage.s3.settings import S3Settings
from txociproxy.storage.s3.trouble import S3Trouble

DATA = bytes(range(256)) * 12
DIGEST = Digest.of(DATA)
A, B, C = "docker.io", "ghcr.io", "quay.io"
SLOW = S3Trouble("failing", "SlowDown", "head_object")


class PublishingCase(SynchronousTestCase):
    """A local root and a bucket."""

    def setUp(self) -> None:
        """Both are empty."""
        self.s3 = fresh(S3Settings(prefix="a/b"))
        self.keys = self.s3.keys
        self.disk = self.local()
        self.bucket = MortalBucket(self.s3, self.disk.files)

    def local(self) -> Disk:
        """Return another proxy's local root."""
        disk = Disk(Path(self.mktemp()))
        disk.storage.prepare("transparent")
        self.addCleanup(disk.files.bury)
        return disk

    def publish(self, disk: Disk | None = None, is_cancelled: bool = False) -> list[str]:
        """Publish what is there; returns what was asked of the bucket."""
        disk = disk or self.disk
        bucket = self.bucket if disk is self.disk else MortalBucket(self.s3, disk.files)
        disk.files.operations.clear()
        publish(bucket, self.keys, disk.files, disk.layout, DIGEST, lambda: is_cancelled)
        assert_nothing_open(disk.root)
        self.assertEqual(disk.files.foreign, [])
        return [name.replace(" s3", "") for name in disk.files.operations if " s3 " in name]

    def put(self, namespace: str = A, held: bool = False) -> None:
        """Let another proxy be first."""
        disk = self.local()
        disk.keep(DATA, namespace, held)
        self.publish(disk)

    def sidecar(self, held: bool = False) -> Any:
        """Return what the bucket says of the content."""
        return json.loads(self.s3.content(self.keys.sidecar(DIGEST, held)))

    def assert_there(self, held: bool = False, namespace: str = A) -> None:
        """Content and sidecar are there, open or held, and nothing else is."""
        self.assertEqual(self.s3.content(self.keys.content(DIGEST, held)), DATA)
        self.assertEqual((self.sidecar(held)["namespace"], self.sidecar(held)["size_bytes"]), (namespace, len(DATA)))
        self.assertEqual(len(self.s3.names()), 2)


class OpenTests(PublishingCase):
    """Content that anybody may have."""

    def test_the_sidecar_goes_first_and_then_the_content(self) -> None:
        """The local copy is left alone; what has gone up once may go up again."""
        self.disk.keep(DATA)
        for _ in range(2):
            self.assertEqual(self.publish(), ["put sidecar", "put content", "head held content"])
            self.assert_there()
        self.assertIsNone(self.sidecar()["held"])
        self.assertEqual(self.disk.read(DIGEST), DATA)

    def test_nothing_there_is_nothing_to_do(self) -> None:
        """The bucket is not even asked."""
        self.assertEqual(self.publish(), [])

    def test_no_bytes_are_content_too(self) -> None:
        """An object of no bytes."""
        digest = self.disk.keep(b"")
        publish(self.bucket, self.keys, self.disk.files, self.disk.layout, digest, lambda: False)
        self.assertEqual(self.s3.content(self.keys.content(digest)), b"")

    def is_left(self) -> bool:
        """Publish; returns whether something held may be left beside it."""
        disk = self.disk
        return publish(self.bucket, self.keys, disk.files, disk.layout, DIGEST, lambda: False)

    def test_what_was_held_stays_beside_it_and_is_told_of(self) -> None:
        """Clients may have been sent there a moment ago."""
        self.disk.keep(DATA, B)
        self.assertFalse(self.is_left())
        self.bucket.delete(self.keys.content(DIGEST))
        self.put(A, held=True)
        self.disk.keep(DATA, C)
        self.assertTrue(self.is_left())
        self.assertEqual({self.s3.content(self.keys.content(DIGEST, held)) for held in (False, True)}, {DATA})

    def test_that_it_cannot_be_told_fails_nothing(self) -> None:
        """The content is where it belongs; there may be something."""
        self.disk.keep(DATA, C)
        self.disk.files.faults["head s3 held content"] = SLOW  # type: ignore[assignment]
        self.assertTrue(self.is_left())

    def test_content_of_another_size_is_replaced(self) -> None:
        """It cannot be right."""
        self.put()
        self.s3.plant(self.keys.content(DIGEST), DATA[:-1])
        self.disk.keep(DATA)
        self.publish()
        self.assert_there()

    def test_content_without_its_sidecar_gets_one(self) -> None:
        """It heals with the next publish."""
        self.s3.plant(self.keys.content(DIGEST), DATA)
        self.disk.keep(DATA)
        self.publish()
        self.assert_there()

    def test_a_local_sidecar_that_cannot_be_right_says_nothing(self) -> None:
        """It would hide what is in the bucket already."""
        self.put()
        self.disk.keep(DATA, B)
        path = self.disk.layout.sidecar(DIGEST)
        for text in (b"not json", path.read_bytes().replace(str(len(DATA)).encode(), b"17")):
            path.write_bytes(text)
            self.assertNotIn("put sidecar", self.publish())
            self.assert_there()

    def test_wrong_bytes_are_never_published_and_go(self) -> None:
        """With what was said of them; also bytes of the right number."""
        for wrong in (DATA[:-1], DATA[:-1] + b"x"):
            self.disk.keep(DATA)
            self.disk.layout.content(DIGEST).write_bytes(wrong)
            self.assertRaises(WrongDigest, self.publish)
            self.assertNotIn(self.keys.content(DIGEST), self.s3.names())
            for path in (self.disk.layout.content(DIGEST), self.disk.layout.sidecar(DIGEST)):
                self.assertFalse(path.exists())
        assert_nothing_open(self.disk.root)

    def test_right_bytes_that_came_in_place_of_wrong_ones_meanwhile_stay(self) -> None:
        """A commit ends while the wrong ones are hashed."""
        self.disk.keep(DATA)
        self.disk.layout.content(DIGEST).write_bytes(DATA[:-1])

        def again() -> None:
            self.disk.keep(DATA)

        self.bucket.before["put s3 content"] = again
        self.assertRaises(WrongDigest, self.publish)
        self.assertEqual(self.disk.read(DIGEST), DATA)
        self.publish()
        self.assert_there()

    def test_held_content_beside_wrong_open_bytes_is_published(self) -> None:
        """For those who may see it; the wrong bytes are told of all the same."""
        self.disk.keep(DATA, B, held=True)
        self.disk.layout.content(DIGEST).write_bytes(DATA[:-1])
        self.assertRaises(WrongDigest, self.publish)
        self.assert_there(held=True, namespace=B)

    def test_what_is_given_up_is_not_published(self) -> None:
        """And says so."""
        self.disk.keep(DATA)
        self.assertRaises(UploadCancelled, self.publish, is_cancelled=True)
        self.assertEqual(self.s3.names(), [])
        assert_nothing_open(self.disk.root)


class Forgetful(MortalBucket):
    """A bucket whose small objects are never there."""

    def read(self, key: str, max_bytes: int) -> bytes | None:
        """Say that there is none."""
        return None


class HeldTests(PublishingCase):
    """Content that came with the proxy's own credentials (RULES D3)."""

    def test_what_is_held_goes_up_under_its_own_name(self) -> None:
        """Its sidecar says for whom."""
        self.disk.keep(DATA, A, held=True)
        looks, puts = ["head content", "head held content"], ["put held sidecar", "put held content"]
        self.assertEqual(self.publish(), [*looks, *puts, "head held content", "get held sidecar"])
        self.assert_there(held=True)
        self.assertEqual(self.sidecar(held=True)["held"], [A])

    def test_it_is_held_for_those_for_whom_it_was_held_too(self) -> None:
        """Here and in the bucket."""
        self.put(C, held=True)
        self.disk.keep(DATA, A, held=True)
        self.disk.keep(DATA, B, held=True)
        self.publish()
        self.assert_there(held=True, namespace=B)
        self.assertEqual(self.sidecar(held=True)["held"], [A, B, C])

    def test_a_sidecar_whose_content_has_gone_holds_for_nobody(self) -> None:
        """A removal died half way."""
        self.put(C, held=True)
        self.bucket.delete(self.keys.content(DIGEST, held=True))
        self.disk.keep(DATA, A, held=True)
        self.publish()
        self.assertEqual(self.sidecar(held=True)["held"], [A])

    def test_what_is_open_stays_open_and_only_its_sidecar_is_new(self) -> None:
        """Nothing is held beside it."""
        self.put(C)
        self.disk.keep(DATA, A, held=True)
        self.assertEqual(self.publish()[:2], ["head content", "put sidecar"])
        self.assert_there(namespace=A)
        self.assertIsNone(self.sidecar()["held"])

    def test_what_is_held_opens_nothing_when_the_open_content_goes_meanwhile(self) -> None:
        """Its bytes came with credentials that others do not have, whoever had opened it."""
        self.put(C)
        self.disk.keep(DATA, A, held=True)
        self.bucket.before["put s3 sidecar"] = lambda: Bucket.delete(self.bucket, self.keys.content(DIGEST))
        self.publish()
        self.assertNotIn(self.keys.content(DIGEST), self.s3.names())
        self.assertEqual(self.s3.content(self.keys.content(DIGEST, held=True)), DATA)
        self.assertEqual(self.sidecar(held=True)["held"], [A])

    def test_open_content_that_cannot_be_right_is_replaced_by_what_is_held(self) -> None:
        """It is open already."""
        self.put(C)
        self.s3.plant(self.keys.content(DIGEST), DATA[:-1])
        self.disk.keep(DATA, A, held=True)
        self.publish()
        self.assert_there(namespace=A)

    def test_a_local_sidecar_that_cannot_be_read_holds_for_nobody(self) -> None:
        """What nobody may see is not brought up."""
        self.disk.keep(DATA, A, held=True)
        self.disk.layout.sidecar(DIGEST, held=True).unlink()
        self.assertEqual(self.publish(), [])

    def test_two_proxies_that_hold_it_at_once_hold_it_for_both(self) -> None:
        """The one that sees its own name missing in the end writes it once more."""
        self.disk.keep(DATA, A, held=True)
        self.bucket.before["put s3 held content"] = lambda: self.put(B, held=True)
        self.publish()
        self.assert_there(held=True)
        self.assertEqual(self.sidecar(held=True)["held"], [A, B])

    def test_a_sidecar_that_never_says_what_was_put_is_given_up(self) -> None:
        """Bounded, whatever a server does: a miss for one namespace is no harm."""
        self.disk.keep(DATA, A, held=True)
        self.bucket = Forgetful(self.s3, self.disk.files)
        self.assertEqual(self.publish().count("put held sidecar"), 3)

    def test_what_was_opened_by_another_meanwhile_is_open(self) -> None:
        """What is left held beside it does no harm."""
        self.disk.keep(DATA, A, held=True)
        self.bucket.before["put s3 held sidecar"] = lambda: self.put(C)
        self.publish()
        self.assertEqual(self.s3.content(self.keys.content(DIGEST)), DATA)

    def test_wrong_bytes_that_are_held_go_too(self) -> None:
        """Content and sidecar."""
        self.disk.keep(DATA, A, held=True)
        self.disk.layout.content(DIGEST, held=True).write_bytes(DATA[:-1] + b"x")
        self.assertRaises(WrongDigest, self.publish)
        self.assertFalse(self.disk.layout.content(DIGEST, held=True).exists())
        self.assertNotIn(self.keys.content(DIGEST, held=True), self.s3.names())
