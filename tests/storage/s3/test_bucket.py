"""The bucket: whether it is there, what is small, and who is first."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

from attrs import evolve
from twisted.logger import capturedLogs, formatEvent

from tests.storage.s3.between import Between, BucketTestCase, refusal, refuse
from tests.storage.s3.server import fresh, make_session
from txociproxy.storage.s3.bucket import Bucket
from txociproxy.storage.s3.connecting import connect


class EnsureTests(BucketTestCase):
    """A bucket that may be missing."""

    def missing(self, region: str | None = None) -> Bucket:
        """Return a bucket that does not exist."""
        settings = evolve(self.here.settings, bucket=f"test-{secrets.token_hex(8)}", region=region)
        self.between = Between(connect(settings, make_session).client)
        return Bucket(self.between, settings.bucket)

    def test_a_missing_bucket_is_made(self) -> None:
        """Whoever asks next finds it; whoever has misspelt its name reads of it, once."""
        bucket = self.missing()
        with capturedLogs() as lines:
            bucket.ensure()
            bucket.put("k", b"x", "text/plain")
            bucket.ensure()
        self.assertEqual(self.between.operations.count("create_bucket"), 1)
        self.assertEqual(
            [formatEvent(line) for line in lines], [f"the S3 bucket {bucket.name} was missing and has been made"]
        )

    def test_a_bucket_is_made_in_its_region(self) -> None:
        """AWS wants to be told, but for the first region, where it must not be."""
        bucket = self.missing("eu-west-1")
        bucket.ensure()
        where = self.between.parameters("create_bucket")[0]["CreateBucketConfiguration"]
        self.assertEqual(where, {"LocationConstraint": "eu-west-1"})
        self.assertEqual(self.between.meta.region_name, "eu-west-1")

    def test_the_right_that_is_missing_is_named(self) -> None:
        """So that its owner knows what to allow."""
        self.between.says["list_objects_v2"] = refuse(403, "AccessDenied")
        found = self.trouble(self.bucket.ensure)
        self.assertEqual((found.kind, found.code), ("refused", "AccessDenied"))
        self.assertIn(f"the S3 bucket {self.bucket.name} ", str(found))
        self.assertIn("lack the right s3:ListBucket", str(found))
        bucket = self.missing()
        self.between.says["create_bucket"] = refuse(403, "AccessDenied")
        found = self.trouble(bucket.ensure)
        self.assertEqual((found.kind, found.code), ("refused", "AccessDenied"))
        self.assertIn("lack the right s3:CreateBucket, and the bucket is missing", str(found))

    def test_wrong_keys_are_no_missing_right(self) -> None:
        """The server says which it is."""
        self.between.says["list_objects_v2"] = refuse(403, "SignatureDoesNotMatch")
        found = self.trouble(self.bucket.ensure)
        self.assertEqual((found.kind, found.code), ("refused", "SignatureDoesNotMatch"))
        self.assertNotIn("right", str(found))

    def test_another_proxy_may_make_it_at_the_same_time(self) -> None:
        """Then it is there."""
        bucket = self.missing()

        def lose(real: Callable[..., Any], parameters: dict[str, Any]) -> Any:
            real(**parameters)
            raise refusal(409, "BucketAlreadyOwnedByYou")

        self.between.says["create_bucket"] = lose
        bucket.ensure()
        bucket.put("k", b"x", "text/plain")

    def test_a_bucket_of_somebody_else_is_refused(self) -> None:
        """Its name is taken, and we see nothing of it."""
        self.between.says["list_objects_v2"] = refuse(404, "NoSuchBucket", times=1)
        self.between.says["create_bucket"] = refuse(409, "BucketAlreadyExists")
        self.bucket.ensure()
        self.between.says["list_objects_v2"] = refuse(404, "NoSuchBucket")
        self.assertEqual(self.trouble(self.bucket.ensure).code, "NoSuchBucket")

    def test_a_server_that_fails_makes_no_bucket(self) -> None:
        """Nobody knows whether it is there."""
        self.between.says["list_objects_v2"] = refuse(503, "SlowDown")
        self.assertEqual(self.trouble(self.bucket.ensure).kind, "failing")
        self.assertNotIn("create_bucket", self.between.operations)


class SmallTests(BucketTestCase):
    """Sidecars, tags, leases and markers."""

    def test_what_is_put_is_read(self) -> None:
        """With its type, and over what was there."""
        self.assertTrue(self.bucket.put("a/k:1 +", b"one", "text/plain"))
        self.assertTrue(self.bucket.put("a/k:1 +", b"three", "application/json"))
        self.assertEqual(self.bucket.read("a/k:1 +", 100), b"three")
        said = self.here.client.head_object(Bucket=self.bucket.name, Key="a/k:1 +")
        self.assertEqual(said["ContentType"], "application/json")

    def test_no_more_is_read_than_was_asked_for(self) -> None:
        """However long it has become."""
        self.bucket.put("k", b"0123456789", "text/plain")
        self.assertEqual(self.bucket.read("k", 4), b"0123")

    def test_what_is_not_there_is_none(self) -> None:
        """Not an error."""
        self.assertEqual((self.bucket.read("k", 4), self.bucket.head("k")), (None, None))

    def test_a_bucket_that_is_gone_is_an_error(self) -> None:
        """It is no miss."""
        self.here.client.delete_bucket(Bucket=self.bucket.name)
        for call in (lambda: self.bucket.read("k", 4), lambda: self.bucket.page("", None)):
            self.assertEqual(self.trouble(call).code, "NoSuchBucket")
        self.assertEqual(self.trouble(self.bucket.put, "k", b"", "text/plain").kind, "refused")
        self.assertEqual(self.trouble(self.bucket.delete, "k").kind, "refused")

    def test_a_body_that_breaks_off_is_told_as_trouble(self) -> None:
        """It comes out of the SDK after the answer; the connection is let go of."""
        from botocore.exceptions import IncompleteReadError

        class Broken:
            is_closed = False

            def read(self, _: int) -> bytes:
                raise IncompleteReadError(actual_bytes=1, expected_bytes=2)

            def close(self) -> None:
                self.is_closed = True

        body = Broken()
        self.between.says["get_object"] = lambda real, parameters: {"Body": body}
        self.assertEqual(self.trouble(self.bucket.read, "k", 4).kind, "failing")
        self.assertTrue(body.is_closed)

    def test_an_answer_that_says_nothing_is_trouble(self) -> None:
        """And no KeyError in a thread."""
        self.between.says["head_object"] = lambda real, parameters: {"ResponseMetadata": {}}
        found = self.trouble(self.bucket.head, "k")
        self.assertEqual((found.kind, found.code), ("failing", "MissingLastModified"))

    def test_a_refused_head_is_no_miss(self) -> None:
        """Only 404 is."""
        self.between.says["head_object"] = refuse(403)
        self.assertEqual(self.trouble(self.bucket.head, "k").code, "Forbidden")


class IfAbsentTests(BucketTestCase):
    """Whoever is first stays."""

    def put(self, data: bytes) -> bool:
        """Put it if nothing is there."""
        return self.bucket.put("lease", data, "text/plain", if_absent=True)

    def test_the_first_stays(self) -> None:
        """The second is told."""
        self.assertEqual((self.put(b"first"), self.put(b"second")), (True, False))
        self.assertEqual(self.here.content("lease"), b"first")
        self.assertNotIn("head_object", self.between.operations)

    def test_a_race_that_is_not_decided_is_lost(self) -> None:
        """S3 says 409 to one of two that write at once; to hold a lease that another holds as well would be worse."""
        self.between.says["put_object"] = refuse(409, "ConditionalRequestConflict", only_if="IfNoneMatch")
        self.assertFalse(self.put(b"first"))
        self.assertEqual(self.here.names(), [])

    def test_a_server_without_the_condition_is_looked_at_first(self) -> None:
        """It says so once; after that it is not sent any more."""
        for status in (400, 501):
            self.here = fresh()
            self.between = Between(self.here.client, {"put_object": refuse(status, "NotIt", only_if="IfNoneMatch")})
            self.bucket = Bucket(self.between, self.here.settings.bucket)
            self.assertEqual((self.put(b"first"), self.put(b"second")), (True, False))
            self.assertEqual(self.here.content("lease"), b"first")
            conditions = ["IfNoneMatch" in parameters for parameters in self.between.parameters("put_object")]
            self.assertEqual(conditions, [True, False])

    def test_a_bad_request_for_another_reason_is_not_remembered(self) -> None:
        """The condition was not what the server minded."""
        self.between.says["put_object"] = refuse(400, "ExpiredToken", times=2)
        self.assertEqual(self.trouble(self.put, b"first").code, "ExpiredToken")
        self.assertEqual((self.put(b"first"), self.put(b"second")), (True, False))
        self.assertIn("IfNoneMatch", self.between.parameters("put_object")[-1])

    def test_trouble_is_not_taken_for_somebody_else(self) -> None:
        """Nobody was first."""
        self.between.says["put_object"] = refuse(503, "SlowDown")
        self.assertEqual(self.trouble(self.put, b"first").code, "SlowDown")
        self.assertEqual(self.between.operations, ["put_object"])
