"""A disk that is really full: a small tmpfs under the store (issue F, RULES G2)."""

from __future__ import annotations

import contextlib
import subprocess
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.e2e.processes import Workshop, wait_until
from tests.e2e.proxy import Proxy, start_proxy
from tests.e2e.scripts import MIB, Content, Served, Step, Upstream, blob, start_scripted
from tests.soundness import assert_store_sound

DISK_BYTES = 12 * MIB
BIG = Content(size_bytes=24 * MIB, seed=24)
SMALL = Content(size_bytes=2 * MIB, seed=2)
OTHER = Content(size_bytes=3 * MIB, seed=3)
REASONS = ("No space left on device", "--min-free")


class FullDiskTests(SynchronousTestCase):
    """The body is right, upstream sees one GET, one line of the log says what happened."""

    timeout = 60

    def setUp(self) -> None:
        """Mount the disk, or say why not."""
        self.shop = Workshop()
        self.addCleanup(self.shop.close)
        self.mount = self.shop.directory("disk")
        words = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=0700", "tmpfs", str(self.mount)]
        try:
            mounted = subprocess.run(words, capture_output=True, timeout=20, check=False)
        except OSError as error:
            raise SkipTest(f"no mount here: {error}") from error
        if mounted.returncode:
            raise SkipTest(f"mounting a tmpfs is not permitted here: {mounted.stderr.decode().strip()}")
        self.addCleanup(subprocess.run, ["umount", "-l", str(self.mount)], timeout=20, check=False)
        self.root = self.mount / "store"

    def upstream(self, *targets: Served) -> Upstream:
        """Start the upstream."""
        return start_scripted(self.shop, *targets)

    def proxy(self, upstream: Upstream, min_free: object = 0) -> Proxy:
        """Start the product over the disk."""
        return start_proxy(self.shop, upstream.url, fs_root=self.root, min_free=min_free)

    def assert_pulls(self, proxy: Proxy, served: Served) -> None:
        """The body is right."""
        status, _, body = proxy.ask("GET", f"{served.target}?ns=docker.io")
        self.assertEqual(status, 200)
        self.assertTrue(body == served.content.data(), "wrong bytes")

    def said(self, proxy: Proxy) -> list[str]:
        """Return the lines that say that the disk is full."""
        return [line for line in proxy.process.log().splitlines() if any(reason in line for reason in REASONS)]

    def unfinished(self) -> list[Path]:
        """Return what lies in the directory of unfinished content."""
        return list((self.root / "ingest").iterdir())

    def test_a_disk_that_fills_up_during_a_pull_costs_nobody_anything(self) -> None:
        """Of unknown length, so that nobody could know before; afterwards there is room again for what fits."""
        big, small = blob("library/big", BIG, afterwards=Step(chunked=True)), blob("library/small", SMALL)
        upstream = self.upstream(big, small)
        proxy = self.proxy(upstream)
        self.assert_pulls(proxy, big)
        self.assertEqual([ask.ended for ask in upstream.bodies_of(big.target)], ["whole"])
        wait_until(lambda: not self.unfinished(), 10, "the unfinished file to go")
        self.assertEqual(len(self.said(proxy)), 1, self.said(proxy))
        self.assertIn("goes on unkept", self.said(proxy)[0])
        self.assertIn(big.content.digest, self.said(proxy)[0])
        for _ in range(2):
            self.assert_pulls(proxy, small)
            wait_until(lambda: not self.unfinished(), 10, "the commit")
        self.assertEqual(len(upstream.bodies_of(small.target)), 1)
        proxy.stop()
        self.assertEqual([str(digest) for digest in assert_store_sound(self.root, True)], [small.content.digest])

    def test_a_disk_below_the_floor_keeps_nothing_and_says_so_once(self) -> None:
        """The default floor is larger than this disk: every pull is a download, none is disturbed."""
        small, other = blob("library/small", SMALL), blob("library/other", OTHER)
        upstream = self.upstream(small, other)
        proxy = self.proxy(upstream, "5%")
        for number in range(1, 3):
            self.assert_pulls(proxy, small)
            self.assert_pulls(proxy, other)
            self.assertEqual([len(upstream.bodies_of(served.target)) for served in (small, other)], [number] * 2)
        self.assertEqual(len(self.said(proxy)), 1, self.said(proxy))
        self.assertIn("nothing more is kept", self.said(proxy)[0])
        self.assertEqual(proxy.outcomes(), ["bypass"] * 4)
        self.assertEqual(self.unfinished(), [])
        self.assertEqual(assert_store_sound(self.root, True), [])

    def test_a_full_disk_is_no_reason_not_to_start_and_serve_what_is_kept(self) -> None:
        """Somebody else has filled it."""
        small, other = blob("library/small", SMALL), blob("library/other", OTHER)
        upstream = self.upstream(small, other)
        proxy = self.proxy(upstream)
        self.assert_pulls(proxy, small)
        wait_until(lambda: not self.unfinished(), 10, "the commit")
        proxy.stop()
        with (self.mount / "filler").open("wb", buffering=0) as filler, contextlib.suppress(OSError):
            for _ in range(DISK_BYTES // 4096):
                filler.write(bytes(4096))
        proxy = self.proxy(upstream)
        self.assert_pulls(proxy, small)
        self.assert_pulls(proxy, other)
        self.assertEqual([len(upstream.bodies_of(served.target)) for served in (small, other)], [1, 1])
        self.assertEqual(self.unfinished(), [])
