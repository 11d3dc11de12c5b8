"""Content on its way into the bucket: it appears proven and whole, or not at all, and never twice."""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Callable
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.storage.s3.between import Between, refuse
from tests.storage.s3.server import Fresh, fresh
from txociproxy.oci.errors import StorageUnavailable
from txociproxy.oci.names import Digest
from txociproxy.storage.s3.bucket import Bucket, UploadCancelled, WrongDigest
from txociproxy.storage.s3.trouble import S3Trouble

PART_BYTES = 5 * 2**20  # the smallest that S3 takes
SMALL = b"small content"
LARGE = secrets.token_bytes(2 * PART_BYTES + 17)
BOTH = (SMALL, LARGE)


class ContentTestCase(SynchronousTestCase):
    """Files, and a bucket with somebody between it and its server."""

    def setUp(self) -> None:
        """Make a bucket."""
        self.renew()

    def renew(self, **says: Callable[..., Any]) -> None:
        """Make another bucket."""
        self.here: Fresh = fresh()
        self.between = Between(self.here.client, says)
        self.bucket = Bucket(self.between, self.here.settings.bucket, part_bytes=PART_BYTES)

    def put(
        self, data: bytes, digest: Digest | None = None, size_bytes: int | None = None, is_cancelled: Any = None
    ) -> bool:
        """Put a file with these bytes."""
        with tempfile.TemporaryFile() as file:
            file.write(data)
            file.flush()
            size_bytes = len(data) if size_bytes is None else size_bytes
            is_cancelled = is_cancelled or (lambda: False)
            return self.bucket.put_content("k", file.fileno(), size_bytes, digest or Digest.of(data), is_cancelled)

    def assertNothing(self) -> None:
        """Nothing is there, and nothing is left over."""
        self.assertEqual((self.here.names(), self.here.uploads()), ([], []))

    def assertThere(self, data: bytes) -> None:
        """These bytes are there, and nothing is left over."""
        self.assertTrue(self.here.content("k") == data)
        self.assertEqual(self.here.uploads(), [])


class PublishingTests(ContentTestCase):
    """What goes well."""

    def test_small_content_goes_at_once(self) -> None:
        """Also when it is empty."""
        for data in (SMALL, b"", LARGE[:PART_BYTES]):
            self.renew()
            self.assertTrue(self.put(data))
            self.assertThere(data)
            self.assertEqual(self.between.operations, ["put_object"])
        said = self.here.client.head_object(Bucket=self.bucket.name, Key="k")
        self.assertEqual(said["ContentType"], "application/octet-stream")

    def test_large_content_goes_in_parts(self) -> None:
        """And appears with the last word only."""
        self.assertTrue(self.put(LARGE))
        self.assertThere(LARGE)
        sizes = [len(found["Body"]) for found in self.between.parameters("upload_part")]
        self.assertEqual(sizes, [PART_BYTES, PART_BYTES, 17])
        said = self.here.client.head_object(Bucket=self.bucket.name, Key="k")
        self.assertEqual(said["ContentType"], "application/octet-stream")

    def test_the_other_algorithm_is_proven_too(self) -> None:
        """In both ways."""
        for data in BOTH:
            self.renew()
            self.assertTrue(self.put(data, Digest.of(data, "sha512")))
            self.assertThere(data)

    def test_parts_grow_with_what_would_need_too_many(self) -> None:
        """S3 takes ten thousand."""
        answer = {"ETag": '"e"', "UploadId": "u"}
        for operation in ("create_multipart_upload", "upload_part", "complete_multipart_upload"):
            self.between.says[operation] = lambda real, parameters: answer
        self.bucket = Bucket(self.between, self.bucket.name, part_bytes=1)
        self.assertTrue(self.put(LARGE[:10_001]))
        sent = self.between.parameters("upload_part")
        self.assertEqual((len(sent), sent[-1]["PartNumber"]), (5001, 5001))
        self.assertEqual([part["PartNumber"] for part in sent], list(range(1, 5002)))


class FirstTests(ContentTestCase):
    """Somebody else puts the same content."""

    def test_the_second_is_told_that_somebody_was_first(self) -> None:
        """What is there is not sent again in parts."""
        for data in BOTH:
            self.renew()
            self.assertEqual((self.put(data), self.put(data)), (True, False))
            self.assertThere(data)
            self.assertLessEqual(self.between.operations.count("create_multipart_upload"), 1)

    def test_of_two_that_end_at_once_the_second_leaves_no_parts(self) -> None:
        """The other one came while the last part went up."""

        def overtaken(real: Callable[..., Any], parameters: dict[str, Any]) -> Any:
            self.here.plant("k", LARGE)
            return real(**parameters)

        self.between.says["upload_part"] = overtaken
        self.assertFalse(self.put(LARGE))
        self.assertThere(LARGE)

    def test_what_is_there_with_another_size_is_replaced(self) -> None:
        """It cannot be this content."""
        for data in BOTH:
            self.renew()
            self.here.plant("k", b"damaged")
            self.assertTrue(self.put(data))
            self.assertThere(data)

    def test_a_race_that_is_not_decided_is_looked_at(self) -> None:
        """S3 says 409, and then it may be there, or not."""
        for data, operation in zip(BOTH, ("put_object", "complete_multipart_upload"), strict=True):
            conflict = refuse(409, "ConditionalRequestConflict", only_if="IfNoneMatch")
            self.renew(**{operation: conflict})
            self.assertTrue(self.put(data))
            self.assertThere(data)
            self.assertEqual(self.bucket._plain, set())

    def test_one_that_is_removed_meanwhile_is_put_again(self) -> None:
        """The server said that it was there, and then it was not."""
        self.renew(put_object=refuse(412, "PreconditionFailed", only_if="IfNoneMatch"))
        self.assertTrue(self.put(SMALL))
        self.assertThere(SMALL)


class WithoutTheConditionTests(ContentTestCase):
    """Servers that do not know ``If-None-Match`` here."""

    def test_they_are_asked_without_it_and_that_is_remembered(self) -> None:
        """For each operation by itself: some know it for one of the two."""
        for data, operation in zip(BOTH, ("put_object", "complete_multipart_upload"), strict=True):
            self.renew(**{operation: refuse(501, "NotImplemented", only_if="IfNoneMatch")})
            self.assertTrue(self.put(data))
            self.assertThere(data)
            self.here.plant("k", b"damaged")
            self.assertTrue(self.put(data))
            self.assertThere(data)
            conditions = ["IfNoneMatch" in found for found in self.between.parameters(operation)]
            self.assertEqual(conditions, [True, False, False])
            self.assertEqual(self.bucket._plain, {operation})

    def test_what_is_there_stays_there_all_the_same(self) -> None:
        """They are asked before."""
        self.renew(put_object=refuse(501, "NotImplemented", only_if="IfNoneMatch"))
        self.assertEqual([self.put(SMALL) for _ in range(3)], [True, False, False])

    def test_a_completion_that_is_bad_in_itself_ends_the_upload(self) -> None:
        """A 400 is asked again once, and its parts do not stay."""
        self.renew(complete_multipart_upload=refuse(400, "InvalidPart"))
        self.assertRaises(S3Trouble, self.put, LARGE)
        self.assertNothing()
        self.assertEqual(self.bucket._plain, set())


class NothingTests(ContentTestCase):
    """What must not be published."""

    def test_other_bytes_than_the_name_says_never_appear(self) -> None:
        """Whatever happened to the file; the last word is not even tried."""
        for data in BOTH:
            self.renew()
            self.assertRaises(WrongDigest, self.put, data, Digest.of(b"other"))
            self.assertNothing()
            self.assertNotIn("complete_multipart_upload", self.between.operations)

    def test_a_file_of_another_length_never_appears(self) -> None:
        """Shorter or longer than was said."""
        for data in BOTH:
            for size_bytes in (len(data) + 1, len(data) - 1):
                self.renew()
                self.assertRaises(WrongDigest, self.put, data, None, size_bytes)
                self.assertNothing()

    def test_a_file_that_cannot_be_read_is_told_as_trouble_of_the_storage(self) -> None:
        """It is our disk and not S3."""
        fd = os.open(os.devnull, os.O_WRONLY)
        self.addCleanup(os.close, fd)
        for size_bytes in (1, PART_BYTES + 1):
            error = self.assertRaises(
                StorageUnavailable, self.bucket.put_content, "k", fd, size_bytes, Digest.of(b"x"), lambda: False
            )
            self.assertNotIsInstance(error, S3Trouble)
            self.assertNothing()

    def test_a_cancelled_upload_leaves_nothing(self) -> None:
        """At whatever moment: before, between the parts, before the last word."""
        for data, moments in ((SMALL, 1), (LARGE, 4)):
            for moment in range(moments):
                self.renew()
                answers = iter([False] * moment + [True])
                self.assertRaises(UploadCancelled, self.put, data, None, None, lambda answers=answers: next(answers))
                self.assertNothing()

    def test_an_error_on_the_way_leaves_nothing(self) -> None:
        """Wherever it comes."""
        for operation in ("create_multipart_upload", "upload_part", "complete_multipart_upload"):
            self.renew(**{operation: refuse(503, "SlowDown")})
            self.assertRaises(S3Trouble, self.put, LARGE)
            self.assertNothing()

    def test_an_upload_that_cannot_be_ended_hides_no_error(self) -> None:
        """Its parts are removed when they are old."""
        self.renew(upload_part=refuse(503, "SlowDown"), abort_multipart_upload=refuse(403, "AccessDenied"))
        error = self.assertRaises(S3Trouble, self.put, LARGE)
        assert isinstance(error, S3Trouble)
        self.assertEqual(error.code, "SlowDown")

    def test_a_lost_answer_to_the_last_word_harms_nothing(self) -> None:
        """It is there; who tries again finds it."""
        from botocore.exceptions import ReadTimeoutError

        def lost(real: Callable[..., Any], parameters: dict[str, Any]) -> Any:
            real(**parameters)
            raise ReadTimeoutError(endpoint_url="http://s3.test", error="x")

        self.renew(complete_multipart_upload=lost)
        self.assertTrue(self.put(LARGE))
        self.assertThere(LARGE)
        self.assertFalse(self.put(LARGE))

    def slow(self, after_looks: int) -> list[float]:
        """Let the server need longer for the last word than an answer is waited for; the list has the pauses."""
        from botocore.exceptions import ReadTimeoutError

        late: list[Callable[[], Any]] = []
        pauses: list[float] = []

        def lost(real: Callable[..., Any], parameters: dict[str, Any]) -> Any:
            late.append(lambda: real(**parameters))
            raise ReadTimeoutError(endpoint_url="http://s3.test", error="x")

        def pause(seconds: float) -> None:
            pauses.append(seconds)
            if len(pauses) == after_looks:
                late[0]()

        self.renew(complete_multipart_upload=lost)
        self.bucket = Bucket(self.between, self.here.settings.bucket, part_bytes=PART_BYTES, pause=pause)
        return pauses

    def test_a_server_that_takes_long_for_the_last_word_is_not_disturbed(self) -> None:
        """To end the upload would take it from under its hands; it is looked at for a minute."""
        pauses = self.slow(after_looks=3)
        self.assertTrue(self.put(LARGE))
        self.assertThere(LARGE)
        self.assertEqual(len(pauses), 3)
        pauses = self.slow(after_looks=10**6)
        error = self.assertRaises(S3Trouble, self.put, LARGE)
        assert isinstance(error, S3Trouble)
        self.assertEqual((error.code, sum(pauses)), ("ReadTimeoutError", 60.0))
        self.assertNothing()

    def test_what_appears_with_another_size_is_not_what_was_waited_for(self) -> None:
        """Somebody's who is wrong."""
        self.slow(after_looks=10**6)
        self.here.plant("k", LARGE[:-1])
        self.assertRaises(S3Trouble, self.put, LARGE)

    def test_one_that_is_given_up_waits_for_no_last_word(self) -> None:
        """The process ends."""
        pauses = self.slow(after_looks=10**6)
        answers = iter([False] * 5 + [True])
        self.assertRaises(S3Trouble, self.put, LARGE, None, None, lambda: next(answers))
        self.assertEqual(len(pauses), 1)
