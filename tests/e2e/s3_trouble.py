"""Proxies on a bucket that can be taken away from them, an upstream that counts, a client that follows redirects."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

from attrs import frozen
from botocore.exceptions import ClientError
from twisted.trial.unittest import SynchronousTestCase

from tests.e2e import buckets
from tests.e2e.ceph import Account, running_ceph
from tests.e2e.faulty_s3 import FaultyS3
from tests.e2e.processes import E2EError, Process, Workshop, wait_until
from tests.e2e.proxy import Proxy, ask
from tests.e2e.recording_relay import Relay
from tests.e2e.s3_fault_kinds import PASS
from tests.e2e.s3_house import S3House
from tests.e2e.scripts import MIB, Content, Served, Step, blob, start_scripted

# A pull that S3 has no part in takes a few hundredths of a second; so much more may S3's trouble cost it, at most.
PATIENCE_S = 1.0
BOUND_S = 5.0
# What was found in the bucket is believed for a second.
BELIEF_S = 1.1
# The gate is tried again after one second, two, four ...; uploads too.
RECOVERY_S = 45.0


@frozen
class Pulled:
    """What a client got in the end.

    :ivar redirected: whether it came from S3 itself.
    """

    status: int
    body: bytes
    redirected: bool
    took_s: float


def pull(proxy: Proxy, served: Served) -> Pulled:
    """GET a blob, and GET it where the proxy says."""
    began_s = time.monotonic()
    status, headers, body = proxy.ask("GET", f"{served.target}?ns=docker.io")
    redirected = status == 307
    if redirected:
        place = urlsplit(headers["location"])
        status, headers, body = ask(place.port or 80, "GET", f"{place.path}?{place.query}")
    return Pulled(status, body, redirected, time.monotonic() - began_s)


class TroubleCase(SynchronousTestCase):
    """One bucket behind a faulty relay, one upstream, no proxy yet."""

    timeout = 120

    def setUp(self) -> None:
        """Make everything; it ends with the test, whatever happens."""
        self.shop = Workshop()
        self.addCleanup(self.shop.close)
        self.ceph = running_ceph()
        self.bucket = buckets.make_bucket(self.ceph)
        self.s3 = FaultyS3(self.ceph.port)
        self.addCleanup(self.s3.close)
        self.s3.turn(PASS)
        # Proxies and their clients come to the bucket by the same way.
        way = cast(Relay, self.s3)
        self.house = S3House(self.ceph, self.bucket, way, way)
        self.upstream = start_scripted(self.shop)
        self._seeds: Iterator[int] = itertools.count(1)

    def start(self, account: Account | None = None, spool_dir: Path | None = None, **more: Any) -> Proxy:
        """Start a proxy on the bucket; it is ready soon, whatever S3 does."""
        quick: dict[str, Any] = {"s3_patience_s": PATIENCE_S, "min_free": 0, "drain_timeout": 1}
        proxy = self.house.start_proxy(
            self.shop, self.upstream.url, spool_dir=spool_dir, account=account, **{**quick, **more}
        )
        # The door is open while the bucket is still being looked for.
        proxy.process.wait_for(lambda: "msg=listening" in proxy.process.log(), 20, "is ready")
        return proxy

    def blob(self, size_bytes: int = 2 * MIB, afterwards: Step | None = None) -> Served:
        """Let the upstream have a blob that nobody has asked for."""
        content = Content(size_bytes, seed=next(self._seeds))
        served = blob("library/thing", content, afterwards=afterwards or Step())
        self.upstream.serve(served)
        return served

    def warm(self, proxy: Proxy, size_bytes: int = 2 * MIB) -> Served:
        """Return a blob that is in the bucket and nowhere else, and that nobody has asked for lately."""
        served = self.blob(size_bytes)
        self.assert_right(proxy, served)
        self.wait_for_uploads(served)
        wait_until(lambda: not self.waiting(proxy), 10, "the local copy to go")
        return served

    def assert_right(self, proxy: Proxy, served: Served, within_s: float = BOUND_S) -> Pulled:
        """The client gets the right bytes, in time."""
        try:
            pulled = pull(proxy, served)
        except (OSError, http.client.HTTPException) as error:
            self.fail(f"{error!r}\n{proxy.process.log()[-6000:]}")
        self.assertEqual(pulled.status, 200, f"{pulled.body[:300]!r}\n{proxy.process.log()[-6000:]}")
        self.assertTrue(pulled.body == served.content.data(), f"wrong bytes of {served.target}")
        self.assertLess(pulled.took_s, within_s, f"too late\n{proxy.process.log()[-6000:]}")
        return pulled

    def asks(self, served: Served) -> int:
        """Return how often the upstream has sent a blob or a part of it."""
        return len(self.upstream.bodies_of(served.target))

    # --- the bucket

    def wait_for_uploads(self, *all_served: Served) -> None:
        """Return when all of it is in the bucket, and check every byte of it there."""
        wanted = {self.house.key_of(served.content.digest) for served in all_served}
        try:
            wait_until(lambda: wanted <= self.keys(), RECOVERY_S, "the uploads")
        except E2EError as error:
            logs = "\n---\n".join(proxy.process.log()[-4000:] for proxy in self.house.proxies)
            raise E2EError(f"{error}\n{logs}") from None
        for served in all_served:
            data = self.bucket.get(self.house.key_of(served.content.digest))
            self.assertTrue(data == served.content.data(), f"wrong bytes of {served.target} in the bucket")

    def keys(self) -> set[str]:
        """Return what is in the bucket; nothing when there is none."""
        try:
            return set(self.bucket.keys())
        except ClientError as error:
            if error.response["Error"]["Code"] == "NoSuchBucket":
                return set()
            raise

    def assert_redirected_soon(self, proxy: Proxy, served: Served) -> None:
        """S3 is believed in again."""
        wait_until(lambda: self.assert_right(proxy, served).redirected, RECOVERY_S, "a redirect")

    # --- the proxy

    def waiting(self, proxy: Proxy) -> list[Path]:
        """Return the marks of what is still to be uploaded."""
        return [path for path in (proxy.fs_root / "uploads").glob("*") if path.is_file()]

    def spooled_bytes(self, proxy: Proxy) -> int:
        """Return how much lies in the spool directory; a file that gets its name meanwhile counts once."""
        sizes_bytes: dict[int, int] = {}
        for path in proxy.fs_root.rglob("*"):
            with contextlib.suppress(FileNotFoundError):
                found = path.stat()
                if stat.S_ISREG(found.st_mode):
                    sizes_bytes[found.st_ino] = found.st_size
        return sum(sizes_bytes.values())

    def said(self, proxy: Proxy, level: str) -> list[str]:
        """Return the lines of a level."""
        return [line for line in proxy.process.log().splitlines() if f"level={level}" in line]

    def stop_clean(self, process: Process) -> None:
        """SIGTERM ends it well, in time."""
        began_s = time.monotonic()
        self.assertEqual(process.stop(15), 0, process.log()[-3000:])
        self.assertLess(time.monotonic() - began_s, 12)
