"""The S3 server and the relay in front of it by themselves: they refuse whom they should, and see what they should."""

from __future__ import annotations

import datetime
from email.utils import parsedate_to_datetime

from attrs import evolve
from botocore.exceptions import ClientError

from tests.e2e import buckets
from tests.e2e.buckets import expiration
from tests.e2e.ceph import Account
from tests.e2e.proxy import ask
from tests.e2e.s3_addresses import follow
from tests.e2e.s3_house import S3HouseTestCase, who_asks
from tests.e2e.s3_signer import signed

KEY = "some/thing"
DATA = bytes(range(256)) * 1000


class S3Tests(S3HouseTestCase):
    """If these say yes to everybody, or see nothing, the tests of the proxy prove nothing."""

    def code_for(self, account: Account) -> str:
        """Read the bucket as somebody and return what the server calls that."""
        try:
            buckets.connect(self.house.private.url, account).get_object(Bucket=self.house.bucket.name, Key=KEY)
        except ClientError as error:
            return str(error.response["Error"]["Code"])
        return "OK"

    def test_the_server_knows_who_may(self) -> None:
        """The owner; nobody else, nobody with another secret, and nobody at all."""
        self.house.bucket.put(KEY, DATA)
        owner, other = self.house.ceph.account, self.house.ceph.add_account("other")
        mistyped = evolve(owner, secret_key=other.secret_key)
        codes = [self.code_for(who) for who in (owner, other, mistyped)]
        self.assertEqual(codes, ["OK", "AccessDenied", "SignatureDoesNotMatch"])
        self.assertEqual(ask(self.house.public.port, "GET", f"/{self.house.bucket.name}/{KEY}")[0], 403)
        by_other = signed(other, self.house.public.url, self.house.bucket.name, KEY, 60)
        self.assertEqual(follow(by_other)[0], 403)

    def test_the_relay_notes_what_came_but_no_signature(self) -> None:
        """Who asks, which part, how much was sent; the bytes are the server's, and the Host is the client's."""
        self.house.bucket.put(KEY, DATA)
        url = signed(self.house.ceph.account, self.house.public.url, self.house.bucket.name, KEY, 60)
        status, _, body = follow(url, headers={"Range": "bytes=1000-1999", "Cookie": "c=1"})
        self.assertEqual((status, body), (206, DATA[1000:2000]))
        self.assertIn(follow(url, headers={"Authorization": "Bearer x"})[0], (200, 400, 403))
        first, second = self.house.public.news()
        self.assertEqual((first.method, first.path, first.status), ("GET", f"/{self.house.bucket.name}/{KEY}", 206))
        self.assertEqual((first.headers["range"], first.body_bytes), ("bytes=1000-1999", 1000))
        self.assertEqual(first.headers["host"], self.house.public.url.removeprefix("http://"))
        self.assertEqual((who_asks(first.headers), who_asks(second.headers)), ({"cookie"}, {"authorization"}))
        self.assertTrue(first.is_presigned)
        self.assertNotIn(url.rpartition("=")[2], repr(first) + repr(second))

    def test_the_relay_lets_the_server_look_older(self) -> None:
        """Only the Date of answers is another."""
        self.house.bucket.put(KEY, DATA)
        url = signed(self.house.ceph.account, self.house.public.url, self.house.bucket.name, KEY, 60)
        now, modified = (self.times(url), self.house.bucket.modified(KEY))
        self.house.public.date_shift_s = 86_400
        later = self.times(url)
        self.assertEqual((now[1], later[1]), (modified, modified))
        self.assertAlmostEqual((later[0] - now[0]).total_seconds(), 86_400, delta=30)

    def times(self, url: str) -> tuple[datetime.datetime, datetime.datetime]:
        """Return the Date of an answer and the age of its object."""
        _, fields, body = follow(url)
        self.assertEqual(body, DATA)
        date, modified = (parsedate_to_datetime(fields[name]) for name in ("date", "last-modified"))
        return date, modified

    def test_the_bucket_as_its_owner_sees_it(self) -> None:
        """Keys, rules and begun uploads."""
        bucket = self.house.bucket
        self.assertEqual((bucket.keys(), bucket.lifecycle(), bucket.uploads()), ([], [], {}))
        bucket.put(KEY, DATA)
        rules, upload = [expiration("mine", "logs/", 3)], bucket.begin_upload("begun")
        bucket.set_lifecycle(rules)
        self.assertEqual((bucket.keys(), bucket.lifecycle(), bucket.uploads()), ([KEY], rules, {upload: "begun"}))
        self.assertEqual(bucket.get(KEY), DATA)
        bucket.delete(KEY, "never was")
        self.assertEqual(bucket.keys(), [])
