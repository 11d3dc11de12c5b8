"""A proxy on a bucket is killed at the worst moments: nothing wrong is ever served, and nothing is lost."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

from tests.e2e.processes import wait_until
from tests.e2e.proxy import Proxy
from tests.e2e.s3_fault_kinds import HANG, PASS, REFUSE, S3Request
from tests.e2e.s3_trouble import RECOVERY_S, TroubleCase
from tests.e2e.scripts import MIB, Served

PART_BYTES = 16 * MIB
# Three parts, the last one short.
LARGE_BYTES = 2 * PART_BYTES + 5 * MIB


class KillTests(TroubleCase):
    """``kill -9``, and what the next process makes of it."""

    def kill_at(self, proxy: Proxy, served: Served, where: Callable[[S3Request], bool]) -> None:
        """Pull, and kill the proxy when a request of its upload has come to this point; S3 never sees that one."""
        seen: list[S3Request] = []

        def is_there(request: S3Request) -> bool:
            if where(request):
                seen.append(request)
            return where(request)

        self.s3.turn(HANG, is_there)
        self.assert_right(proxy, served)
        wait_until(lambda: bool(seen), RECOVERY_S, "the upload to come to this point")
        self.kill(proxy)

    def kill(self, proxy: Proxy) -> None:
        """End it as a lost machine does."""
        proxy.process.kill()
        self.assertEqual(proxy.process.popen.returncode, -signal.SIGKILL)

    def restart(self, proxy: Proxy) -> Proxy:
        """Start another process on what the killed one left on its disk."""
        return self.start(spool_dir=proxy.fs_root)

    def assert_ends_well(self, killed: Proxy, *all_served: Served) -> None:
        """The next process brings everything into the bucket, and asks nobody for it again."""
        asks = [self.asks(served) for served in all_served]
        self.s3.turn(PASS)
        proxy = self.restart(killed)
        self.wait_for_uploads(*all_served)
        wait_until(lambda: not self.waiting(proxy), RECOVERY_S, "the marks to go")
        for served in all_served:
            self.assert_redirected_soon(proxy, served)
        self.assertEqual([self.asks(served) for served in all_served], asks)
        self.assertEqual(self.said(proxy, "error"), [])

    def local_path(self, proxy: Proxy, served: Served) -> Path:
        """Return where a blob waits on the disk of its proxy."""
        hexadecimal = served.content.digest.removeprefix("sha256:")
        return proxy.fs_root / "blobs" / "sha256" / hexadecimal[:2] / hexadecimal

    def content_keys(self, served: Served) -> list[str]:
        """Return what the bucket has of a blob, by the ends of the keys."""
        start = self.house.key_of(served.content.digest)
        return sorted(key.removeprefix(start) for key in self.keys() if key.startswith(start))

    def test_between_the_sidecar_and_the_content(self) -> None:
        """A sidecar alone is a miss for everybody, and the next process puts the content beside it."""
        proxy, other, served = self.start(), self.start(), self.blob()
        self.warm(other)
        self.kill_at(proxy, served, lambda request: request.method == "PUT" and request.is_content)
        self.assertEqual(self.content_keys(served), [".meta.json"])
        pulled = self.assert_right(other, served)
        self.assertFalse(pulled.redirected)
        self.assertEqual(self.asks(served), 2)
        self.kill(other)
        self.assert_ends_well(proxy, served)

    def test_in_the_middle_of_a_multipart_upload(self) -> None:
        """Nothing is there before the completion; nobody else's upload is touched, and so nor is one that died."""
        proxy, other, served, known = self.start(), self.start(), self.blob(LARGE_BYTES), self.blob()
        theirs = self.bucket.begin_upload(self.house.key_of(known.content.digest))
        self.kill_at(proxy, served, lambda request: request.is_part and "partNumber=2" in request.target)
        self.assertNotIn("", self.content_keys(served))
        self.assertEqual(len(self.bucket.uploads()), 2)
        self.assertFalse(self.assert_right(other, served).redirected)
        self.kill(other)
        self.assert_ends_well(proxy, served)
        self.assertIn(theirs, self.bucket.uploads())

    def test_between_the_last_part_and_the_completion(self) -> None:
        """All bytes are with S3, and still it is a miss."""
        proxy, served = self.start(), self.blob(LARGE_BYTES)
        self.kill_at(proxy, served, lambda request: request.method == "POST" and "uploadId=" in request.target)
        self.assertNotIn("", self.content_keys(served))
        self.assert_ends_well(proxy, served)

    def test_before_the_upload_began(self) -> None:
        """S3 is out; what waits is served by the next process too, and comes into the bucket when S3 is back."""
        proxy = self.start()
        self.s3.turn(REFUSE)
        all_served = [self.blob() for _ in range(4)]
        for served in all_served:
            self.assert_right(proxy, served)
            # The pull is over a moment before.
            wait_until(self.local_path(proxy, served).exists, 10, "the local commit")
        self.kill(proxy)
        between = self.restart(proxy)
        for served in all_served:
            self.assert_right(between, served)
        self.kill(between)
        self.assert_ends_well(proxy, *all_served)
        self.assertEqual([self.asks(served) for served in all_served], [1, 1, 1, 1])

    def test_a_second_upload_that_is_killed_hides_nothing(self) -> None:
        """What is in the bucket is a hit before, during and after it."""
        first, second, served = self.start(), self.start(), self.blob(LARGE_BYTES)
        self.s3.turn(HANG, lambda request: request.is_part)
        self.assert_right(first, served)
        self.assert_right(second, served)
        wait_until(lambda: sum(request.is_part for request in self.s3.asked) >= 2, RECOVERY_S, "both uploads")
        self.kill(first)
        self.kill(second)
        self.assert_ends_well(first, served)
        self.assert_ends_well(second, served)
