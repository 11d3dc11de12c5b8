"""The contract of IStorage over real S3 servers: Ceph's gateway, which judges signatures and rights, and versitygw."""

from __future__ import annotations

import secrets
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

from attrs import evolve
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.e2e import buckets
from tests.e2e.ceph import REGION, Account, running_ceph
from tests.e2e.versity import running_versity
from tests.storage.s3.proxies import Proxy
from tests.storage.s3.server import make_session
from tests.storage.s3.test_contract import S3Contract
from txociproxy.oci.names import Digest
from txociproxy.storage.layout import BLOB_TYPE, Sidecar
from txociproxy.storage.s3.bucket import MOST_LISTED, WrongDigest
from txociproxy.storage.s3.connecting import Connection, connect
from txociproxy.storage.s3.settings import S3Settings

LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"
PUTS_AT_ONCE = 8
Place = tuple[str, Account]


@cache
def session_of(account: Account) -> Any:
    """Return the SDK's session of somebody; it takes long to make one."""
    return make_session(account.access_key, account.secret_key)


@cache
def bucket_on(place: Place) -> str:
    """Return the one bucket of these tests on a server; the first product that uses it makes it."""
    return buckets.fresh_name()


def proxy_on(place: Place, root: Path, wanted: S3Settings | None = None) -> Proxy:
    """Make a proxy over a prefix that nobody else uses.

    :param wanted: all other settings.
    """
    url, account = place
    settings = evolve(
        wanted or S3Settings(),
        bucket=bucket_on(place),
        prefix=f"fleet/{secrets.token_hex(4)}",
        region=REGION,
        endpoint_url=url,
    )

    def connect_as(settings: S3Settings) -> Connection:
        return connect(settings, lambda: session_of(account))

    return Proxy(root, settings, connect_as)


def ceph() -> Place:
    """Return where Ceph is."""
    server = running_ceph()
    return server.url, server.account


def versity() -> Place:
    """Return where versitygw is, if it is anywhere."""
    server = running_versity()
    if server is None:
        raise SkipTest("no versitygw here: neither on the path nor in .tools/bin, nor named by $VERSITYGW")
    return server.url, server.account


class CephTests(S3Contract, SynchronousTestCase):
    """Over Ceph, which proves every signature."""

    def make_proxy(self, root: Path, wanted: S3Settings) -> Proxy:
        """Make one."""
        return proxy_on(ceph(), root, wanted)


class VersityTests(S3Contract, SynchronousTestCase):
    """Over versitygw, whose objects are files."""

    def make_proxy(self, root: Path, wanted: S3Settings) -> Proxy:
        """Make one."""
        return proxy_on(versity(), root, wanted)


class ManyObjectsTests(SynchronousTestCase):
    """A bucket whose listing has several pages."""

    def test_a_walk_meets_all_of_more_than_a_thousand_objects(self) -> None:
        """With and without a sidecar, each digest once; what is no content is not met."""
        proxy = proxy_on(ceph(), Path(self.mktemp())).begin()
        self.addCleanup(proxy.stop)
        described = [Digest.of(b"described %d" % number) for number in range(MOST_LISTED // 2)]
        bare = [Digest.of(b"bare %d" % number) for number in range(MOST_LISTED // 2 + 100)]
        objects = [(proxy.storage.far.keys.content(digest), b"some") for digest in (*described, *bare)]
        sidecar = Sidecar(LAYER_TYPE, 4, "docker.io", ())
        objects += [(proxy.storage.far.keys.sidecar(digest), sidecar.to_json(digest)) for digest in described]
        objects += [(f"{proxy.settings.prefix}/blobs/sha256/no/content{number}", b"") for number in range(10)]
        bucket = buckets.Bucket(proxy.settings.bucket, buckets.connect(*ceph()))
        with ThreadPoolExecutor(PUTS_AT_ONCE) as pool:
            list(pool.map(lambda pair: bucket.put(*pair), objects))
        met = proxy.walked()
        self.assertEqual(len(met), len(described) + len(bare))
        types = {descriptor.digest: descriptor.media_type for descriptor in met}
        self.assertEqual(types, {**dict.fromkeys(described, LAYER_TYPE), **dict.fromkeys(bare, BLOB_TYPE)})
        self.assertEqual({descriptor.size_bytes for descriptor in met}, {4})


class PartsTests(SynchronousTestCase):
    """Content that goes up in parts, as each server puts it together."""

    def tried_on(self, place: Place) -> tuple[Proxy, bytes, Digest]:
        """Return a proxy and content of several parts."""
        proxy = proxy_on(place, Path(self.mktemp())).begin()
        self.addCleanup(proxy.stop)
        data = secrets.token_bytes((16 << 20) + 12345)
        return proxy, data, Digest.of(data)

    def assert_parts_are_right(self, place: Place) -> None:
        """Two proxies bring the same content at once; it is there once and right, and nothing is left over."""
        proxy, data, digest = self.tried_on(place)
        bucket, key = proxy.storage.far.bucket(), proxy.storage.far.keys.content(digest)
        assert bucket is not None
        path = Path(self.mktemp())
        path.write_bytes(data)
        with path.open("rb") as file, ThreadPoolExecutor(2) as pool:
            put = (key, file.fileno(), len(data), digest, lambda: False)
            ends = list(pool.map(lambda _: bucket.put_content(*put), range(2)))
            self.assertIn(True, ends)
            self.assertFalse(bucket.put_content(*put))
            wrong = Digest.of(b"something else")
            with self.assertRaises(WrongDigest):
                bucket.put_content(proxy.storage.far.keys.content(wrong), *put[1:3], wrong, put[4])
        there = buckets.Bucket(proxy.settings.bucket, buckets.connect(*place))
        self.assertTrue(there.get(key) == data)
        self.assertEqual(there.keys(f"{proxy.settings.prefix}/blobs/"), [key])
        self.assertEqual(there.uploads(), {})

    def test_parts_on_ceph(self) -> None:
        """Whose completion knows no condition."""
        self.assert_parts_are_right(ceph())

    def test_parts_on_versitygw(self) -> None:
        """Whose completion does."""
        self.assert_parts_are_right(versity())
