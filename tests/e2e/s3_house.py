"""Proxies whose content lies in a bucket: as many as a test wants on one bucket and prefix, behind recording relays."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from attrs import define, field
from twisted.trial.unittest import SynchronousTestCase

from tests.e2e import buckets
from tests.e2e.buckets import UPLOAD_S, Bucket
from tests.e2e.ceph import Account, Ceph, running_ceph
from tests.e2e.processes import Workshop, wait_until
from tests.e2e.proxy import Proxy, start_proxy
from tests.e2e.recording_relay import Relay, start_relay

PREFIX = "fleet/one"


@define(eq=False)
class S3House:
    """A bucket of its own, the way to it for proxies and the way to it for their clients.

    :ivar private: what proxies ask comes through here.
    :ivar public: what clients ask who were redirected comes through here.
    """

    ceph: Ceph
    bucket: Bucket
    private: Relay
    public: Relay
    prefix: str = PREFIX
    proxies: list[Proxy] = field(factory=list)

    def start_proxy(
        self,
        shop: Workshop,
        upstream_url: str,
        port: int | None = None,
        mode: str = "transparent",
        spool_dir: Path | None = None,
        account: Account | None = None,
        **more: object,
    ) -> Proxy:
        """Start a proxy on the bucket.

        :param spool_dir: one that was used before, or a fresh one; it is the proxy's ``fs_root`` for tests.
        :param account: whose keys it has; None is the owner's.
        :param more: further keys of the configuration file.
        """
        spool_dir = spool_dir or shop.directory("spool")
        keys = {**self.settings(spool_dir), **more}
        env = (account or self.ceph.account).environment()
        proxy = start_proxy(shop, upstream_url, port, spool_dir, mode, env, **keys)
        self.proxies.append(proxy)
        return proxy

    def settings(self, spool_dir: Path) -> dict[str, object]:
        """Return what the configuration file says about the bucket."""
        return {
            "storage_backend": "s3",
            "s3_bucket": self.bucket.name,
            "s3_prefix": self.prefix,
            "s3_endpoint_url": self.private.url,
            "s3_public_endpoint_url": self.public.url,
            "spool_dir": str(spool_dir),
        }

    # --- the bucket

    def key_of(self, digest: str, end: str = "") -> str:
        """Return under which key content lies."""
        algorithm, _, hexadecimal = digest.partition(":")
        return f"{self.prefix}/blobs/{algorithm}/{hexadecimal[:2]}/{hexadecimal}{end}"

    def path_of(self, digest: str, held: bool = False) -> str:
        """Return the path of its address; what came with somebody's credentials is held (RULES D3)."""
        return f"/{self.bucket.name}/{self.key_of(digest, '.held' if held else '')}"

    def wait_for_content(self, *digests: str) -> None:
        """Return when all of it has been brought into the bucket, open or held."""
        wait_until(lambda: self.kept().issuperset(digests), UPLOAD_S, f"{len(digests)} contents in the bucket")

    def wait_for_tags(self, number: int) -> None:
        """Return when this many tags are known in the bucket."""
        scope = f"{self.prefix}/tags/"
        self.bucket.wait_for(f"{number} tags", lambda keys: sum(key.startswith(scope) for key in keys) >= number)

    def wait_for_uploads(self, proxy: Proxy) -> None:
        """Return when nothing of this proxy's waits for its upload any more, so that the bucket alone has it."""
        marks = proxy.fs_root / "uploads"
        wait_until(lambda: not any(marks.glob("*")), UPLOAD_S, "everything is uploaded")

    def forget_requests(self) -> None:
        """Let the news of both relays begin now."""
        self.private.news()
        self.public.news()

    def kept(self) -> frozenset[str]:
        """Return the digests of all content in the bucket, open or held."""
        names = (key.rpartition("/")[2] for key in self.bucket.keys(f"{self.prefix}/blobs/"))
        return frozenset(f"sha256:{name.removesuffix('.held')}" for name in names if not name.endswith(".meta.json"))

    def close(self) -> None:
        """Close the relays."""
        self.private.close()
        self.public.close()


def make_house(prefix: str = PREFIX) -> S3House:
    """Make a bucket and the ways to it; the first call of a test process starts the server."""
    ceph = running_ceph()
    return S3House(ceph, buckets.make_bucket(ceph), start_relay(ceph.port), start_relay(ceph.port), prefix)


class S3HouseTestCase(SynchronousTestCase):
    """What the tests with a bucket have in common."""

    def setUp(self) -> None:
        """Make a workshop and a house without proxies; they end with the test, whatever happens."""
        self.shop = Workshop()
        self.addCleanup(self.shop.close)
        self.house = make_house()
        self.addCleanup(self.house.close)


def who_asks(headers: Mapping[str, str]) -> set[str]:
    """Return the names of the header fields that tell who asks, or with what right."""
    return {name for name in headers if name in ("authorization", "proxy-authorization", "cookie")}
