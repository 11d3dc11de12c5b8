"""Two proxies on one bucket that miss the same content at the same moment."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.e2e.processes import wait_until
from tests.e2e.s3_trouble import RECOVERY_S, TroubleCase
from tests.e2e.scripts import MIB, Served, Step


class AtOnceTests(TroubleCase):
    """Two proxies miss the same content at the same moment."""

    slow = Step(chunk_bytes=256 * 1024, pause_s=0.05)

    def assert_both_right(self, **more: Any) -> Served:
        """Pull the same blob through two proxies at once."""
        proxies = [self.start(**more) for _ in range(2)]
        for proxy in proxies:
            self.warm(proxy)  # both know the bucket
        served = self.blob(6 * MIB, self.slow)
        with ThreadPoolExecutor(2) as clients:
            list(clients.map(lambda proxy: self.assert_right(proxy, served, 20), proxies))
        self.wait_for_uploads(served)
        for proxy in proxies:
            wait_until(lambda p=proxy: not self.waiting(p), RECOVERY_S, "the marks to go")  # type: ignore[misc]
            self.assertTrue(self.assert_right(proxy, served).redirected)
            self.assertEqual(self.said(proxy, "error"), [])
        return served

    def test_two_that_miss_at_once_both_end_right(self) -> None:
        """Each may ask the upstream once; the second upload finds the first and is content."""
        self.assertLessEqual(self.asks(self.assert_both_right()), 2)

    def test_with_a_lease_the_second_waits_and_upstream_is_asked_once(self) -> None:
        """And is served from the bucket then."""
        self.assertEqual(self.asks(self.assert_both_right(s3_lease_wait_s=15)), 1)
