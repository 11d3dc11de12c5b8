"""The bucket: what is listed, what is renewed, and what is let go."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import timedelta
from email.utils import format_datetime, parsedate_to_datetime
from typing import Any

from tests.storage.s3.between import BucketTestCase, refuse
from txociproxy.storage.s3.bucket import Bucket

MIB = 2**20


class ListingTests(BucketTestCase):
    """All that is there, a page at a time."""

    def test_every_key_is_on_one_page(self) -> None:
        """Whatever its name; only those with the prefix."""
        keys = sorted(["p/a b", "p/c:d", "p/e+f", "p/g/é", "p/h%20"])
        for key in [*keys, "q/other"]:
            self.bucket.put(key, key.encode(), "text/plain")

        def two(real: Callable[..., Any], parameters: dict[str, Any]) -> Any:
            self.assertEqual(parameters["MaxKeys"], 1000)
            return real(**{**parameters, "MaxKeys": 2})

        self.between.says["list_objects_v2"] = two
        pages, after = [self.bucket.page("p/", None)], None
        while (after := pages[-1][1]) is not None:
            pages.append(self.bucket.page("p/", after))
        self.assertEqual([len(rows) for rows, _ in pages], [2, 2, 1])
        self.assertEqual([row for rows, _ in pages for row in rows], [(key, len(key.encode())) for key in keys])

    def test_an_empty_bucket_has_one_page(self) -> None:
        """Without anything on it."""
        self.assertEqual(self.bucket.page("", None), ([], None))


class DeleteTests(BucketTestCase):
    """Removing."""

    def test_keys_go_in_the_order_in_which_they_are_given(self) -> None:
        """Content goes before its sidecar; what was not there is fine."""
        for key in "abc":
            self.bucket.put(key, b"x", "text/plain")
        self.bucket.delete("c", "nothing", "a")
        self.assertEqual(self.here.names(), ["b"])
        self.assertEqual([found["Key"] for found in self.between.parameters("delete_object")], ["c", "nothing", "a"])

    def test_what_cannot_be_removed_keeps_the_rest(self) -> None:
        """The sidecar does not go while the content is there."""
        for key in "ab":
            self.bucket.put(key, b"x", "text/plain")
        self.between.says["delete_object"] = refuse(503, "SlowDown", times=1)
        self.assertEqual(self.trouble(self.bucket.delete, "a", "b").code, "SlowDown")
        self.assertEqual(self.here.names(), ["a", "b"])

    def test_a_server_that_minds_a_missing_key_is_fine(self) -> None:
        """S3 does not, some do."""
        self.bucket.put("b", b"x", "text/plain")
        self.between.says["delete_object"] = refuse(404, "NoSuchKey", times=1)
        self.bucket.delete("a", "b")
        self.assertEqual(self.here.names(), [])


class AgeTests(BucketTestCase):
    """How old objects are, and how they become young again."""

    def test_the_age_is_counted_by_the_servers_clock(self) -> None:
        """Ours may be wrong by hours."""
        self.bucket.put("k", b"0123", "text/plain")
        self.later(7200, "head_object")
        found = self.bucket.head("k")
        assert found is not None
        self.assertEqual(found[0], 4)
        self.assertApproximates(found[1], 7200, 5)

    def test_a_server_without_a_clock_has_young_objects_only(self) -> None:
        """So nothing is renewed or let go by mistake; nor is an age ever below zero."""
        self.bucket.put("k", b"0123", "text/plain")

        def silent(real: Callable[..., Any], parameters: dict[str, Any]) -> Any:
            answer = real(**parameters)
            del answer["ResponseMetadata"]["HTTPHeaders"]["date"]
            return answer

        self.between.says["head_object"] = silent
        self.assertEqual(self.bucket.head("k"), (4, 0.0))
        self.later(-3600, "head_object")
        self.assertEqual(self.bucket.head("k"), (4, 0.0))

    def test_a_renewed_object_is_young_and_otherwise_the_same(self) -> None:
        """RULES G4: S3 counts the lifecycle from the last copy."""
        self.bucket.put("k:1 +é", b"0123", "application/x-test")
        self.here.make_old("k:1 +é", 86400)
        self.assertApproximates((self.bucket.head("k:1 +é") or (0, 0))[1], 86400, 5)
        self.bucket.renew("k:1 +é")
        self.assertApproximates((self.bucket.head("k:1 +é") or (0, -99))[1], 0, 5)
        self.assertEqual(self.here.content("k:1 +é"), b"0123")
        said = self.here.client.head_object(Bucket=self.bucket.name, Key="k:1 +é")
        self.assertEqual(said["ContentType"], "application/x-test")
        self.assertEqual(self.between.parameters("copy_object")[0]["MetadataDirective"], "REPLACE")

    def test_a_large_object_is_renewed_in_parts(self) -> None:
        """S3 copies no more than 5 GiB at once."""
        data = secrets.token_bytes(11 * MIB + 1)
        self.here.plant("k", data, "application/x-test")
        self.here.make_old("k", 86400)
        bucket = Bucket(self.between, self.bucket.name, most_copied_bytes=11 * MIB, copied_part_bytes=5 * MIB)
        bucket.renew("k")
        ranges = [found["CopySourceRange"] for found in self.between.parameters("upload_part_copy")]
        self.assertEqual(ranges, ["bytes=0-5242879", "bytes=5242880-10485759", "bytes=10485760-11534336"])
        self.assertEqual(self.here.content("k"), data)
        self.assertApproximates((self.bucket.head("k") or (0, -99))[1], 0, 5)
        said = self.here.client.head_object(Bucket=self.bucket.name, Key="k")
        self.assertEqual(said["ContentType"], "application/x-test")

    def test_5_gib_is_copied_at_once(self) -> None:
        """That is S3's own limit."""
        said = {"ContentLength": 5 * 2**30, "ContentType": "text/plain"}
        self.between.says["head_object"] = lambda real, parameters: said
        self.between.says["copy_object"] = lambda real, parameters: {}
        self.bucket.renew("k")
        self.assertEqual(self.between.operations, ["head_object", "copy_object"])

    def test_a_copy_that_fails_leaves_no_parts(self) -> None:
        """And the object as it was."""
        self.here.plant("k", bytes(11 * MIB))
        self.between.says["complete_multipart_upload"] = refuse(500, "InternalError")
        bucket = Bucket(self.between, self.bucket.name, most_copied_bytes=5 * MIB, copied_part_bytes=5 * MIB)
        self.assertEqual(self.trouble(bucket.renew, "k").kind, "failing")
        self.assertEqual((self.here.uploads(), len(self.here.content("k"))), ([], 11 * MIB))

    def test_what_is_gone_needs_no_renewal(self) -> None:
        """Before it was asked for, or meanwhile."""
        self.bucket.renew("k")
        self.here.plant("k", b"x")
        self.between.says["copy_object"] = refuse(404, "NoSuchKey")
        self.bucket.renew("k")
        self.between.says["copy_object"] = refuse(403, "AccessDenied")
        self.assertEqual(self.trouble(self.bucket.renew, "k").kind, "refused")


class OldUploadTests(BucketTestCase):
    """Multipart uploads that nobody ends (RULES G4)."""

    def begin(self, key: str) -> None:
        """Begin one."""
        self.here.client.create_multipart_upload(Bucket=self.bucket.name, Key=key)

    def ages(self, **ages_s: float) -> None:
        """Let uploads be so old by the server's clock, by the last letter of their keys."""

        def say(real: Callable[..., Any], parameters: dict[str, Any]) -> Any:
            answer = real(**{**parameters, "Prefix": ""})  # some servers know no prefix here
            now = parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"]) + timedelta(hours=5)
            answer["ResponseMetadata"]["HTTPHeaders"]["date"] = format_datetime(now)
            for upload in answer.get("Uploads", ()):
                upload["Initiated"] = now - timedelta(seconds=ages_s[upload["Key"][-1]])
            return answer

        self.between.says["list_multipart_uploads"] = say

    def test_old_ones_end_and_young_ones_go_on(self) -> None:
        """Those may be another proxy's; what has another prefix is somebody else's."""
        for key in ("p/old_a", "p/young_b", "q/old_c", "p/just_d"):
            self.begin(key)
        self.ages(a=86401, b=3600, c=10**6, d=86400)
        self.assertEqual(self.bucket.abort_old_uploads("p/", 86400), 1)
        self.assertEqual(sorted(self.here.uploads()), ["p/just_d", "p/young_b", "q/old_c"])

    def test_a_server_without_a_clock_has_no_old_ones(self) -> None:
        """By our own clock they might be."""
        self.begin("p/a")

        def silent(real: Callable[..., Any], parameters: dict[str, Any]) -> Any:
            return {**real(**parameters), "ResponseMetadata": {"HTTPHeaders": {}}}

        self.between.says["list_multipart_uploads"] = silent
        self.assertEqual(self.bucket.abort_old_uploads("p/", 0), 0)

    def test_all_pages_are_looked_at(self) -> None:
        """A server gives a thousand at a time; one whose pages do not go on is left."""
        moves = iter([("k1", "u1", True), ("k2", "u2", True), ("k2", "u2", True), ("k3", "u3", True)])

        def say(real: Callable[..., Any], parameters: dict[str, Any]) -> Any:
            key, upload, more = next(moves)
            header = {"HTTPHeaders": {"date": "Sat, 01 Jan 2028 00:00:00 GMT"}}
            return {"ResponseMetadata": header, "NextKeyMarker": key, "NextUploadIdMarker": upload, "IsTruncated": more}

        self.between.says["list_multipart_uploads"] = say
        self.assertEqual(self.bucket.abort_old_uploads("p/", 0), 0)
        asked = [found.get("KeyMarker") for found in self.between.parameters("list_multipart_uploads")]
        self.assertEqual(asked, [None, "k1", "k2"])

    def test_one_that_is_gone_meanwhile_is_not_counted(self) -> None:
        """Another proxy was quicker."""
        for key in ("p/a", "p/b"):
            self.begin(key)
        self.ages(a=10**6, b=10**6)
        self.between.says["abort_multipart_upload"] = refuse(404, "NoSuchUpload", times=1)
        self.assertEqual(self.bucket.abort_old_uploads("p/", 86400), 1)
