"""A bucket into which nothing more goes: what is there is read, what comes waits, and nobody notices."""

from __future__ import annotations

import time

from tests.e2e.s3_trouble import TroubleCase

# Uploads that are refused are tried again after one second, two, four.
ROUNDS_S = 8.0


class FullTests(TroubleCase):
    """The server says so to every write, and to no read."""

    def test_a_full_bucket_is_no_outage(self) -> None:
        """Hits come from it all the while; new content waits here, and goes up when there is room."""
        proxy = self.start()
        there = self.warm(proxy)
        self.ceph.bound(self.bucket.name, 1)
        fresh = [self.blob() for _ in range(3)]
        for served in fresh:
            self.assertFalse(self.assert_right(proxy, served).redirected)
        proxy.process.wait_for(lambda: "QuotaExceeded" in proxy.process.log(), 20, "is refused")
        ends_s = time.monotonic() + ROUNDS_S
        while time.monotonic() < ends_s:
            self.assertTrue(self.assert_right(proxy, there).redirected)
            time.sleep(0.3)
        for served in fresh:
            self.assertFalse(self.assert_right(proxy, served).redirected)
        told = [line for line in proxy.process.log().splitlines() if "QuotaExceeded" in line]
        self.assertEqual(len(told), 1, told)
        self.assertNotIn(" is out", proxy.process.log())
        self.ceph.unbound(self.bucket.name)
        self.wait_for_uploads(*fresh)
        for served in fresh:
            self.assertEqual(self.asks(served), 1)
