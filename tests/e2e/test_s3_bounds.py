"""What S3's trouble may cost: a bounded spool and memory; and bodies that are on their way from S3 when it comes."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

from tests.e2e.processes import wait_until
from tests.e2e.s3_fault_kinds import HANG, PASS, REFUSE, Fault, S3Request
from tests.e2e.s3_trouble import BELIEF_S, RECOVERY_S, TroubleCase
from tests.e2e.scripts import MIB


class BoundTests(TroubleCase):
    """A long outage costs neither the disk nor the memory."""

    def test_the_spool_and_the_memory_stay_bounded(self) -> None:
        """Three times as much as may wait is pulled: all of it is right, what is too much is not kept."""
        room_bytes, blob_bytes, number = 24 * MIB, 4 * MIB, 20
        proxy = self.start(spool_max=str(room_bytes))
        self.assert_right(proxy, self.warm(proxy))
        self.s3.turn(HANG)
        all_served = [self.blob(blob_bytes) for _ in range(number)]
        before_bytes = proxy.memory_bytes()
        proxy.forget_peak()
        proxy.pulls()
        most_bytes = 0
        with ThreadPoolExecutor(3) as clients:
            for _ in clients.map(lambda served: self.assert_right(proxy, served), all_served):
                most_bytes = max(most_bytes, self.spooled_bytes(proxy))
        self.assertLessEqual(most_bytes, room_bytes + MIB)
        self.assertGreaterEqual(most_bytes, room_bytes - 3 * blob_bytes)
        self.assertLess(proxy.memory_bytes("VmHWM") - before_bytes, 64 * MIB)
        outcomes = proxy.outcomes()
        self.assertEqual(len(outcomes), number)
        self.assertGreaterEqual(outcomes.count("bypass"), number - room_bytes // blob_bytes)
        self.assertGreaterEqual(outcomes.count("miss"), room_bytes // blob_bytes - 3)
        self.s3.turn(PASS)
        wait_until(lambda: not self.waiting(proxy), RECOVERY_S, "the uploads")
        wait_until(lambda: self.spooled_bytes(proxy) < MIB, 10, "the spool to be empty")
        kept = [served for served in all_served if self.house.key_of(served.content.digest) in self.keys()]
        self.assertEqual(len(kept), outcomes.count("miss"))
        self.wait_for_uploads(*kept)
        last = self.blob(blob_bytes)
        self.assert_right(proxy, last)
        self.wait_for_uploads(last)
        self.assertLessEqual(len(self.said(proxy, "warn")), 3, self.said(proxy, "warn"))


class CarriedTests(TroubleCase):
    """Bodies that go from S3 through the proxy (``redirect: never``), and S3 lets it down on the way."""

    size_bytes = 8 * MIB

    def setUp(self) -> None:
        """A proxy that redirects nobody, and a blob in the bucket."""
        super().setUp()
        self.proxy = self.start(redirect="never", silence_timeout_s=2)
        self.served = self.warm(self.proxy, self.size_bytes)
        time.sleep(BELIEF_S)
        self.s3.news()

    def content_asks(self) -> list[S3Request]:
        """Return the GETs of content since the last call."""
        return [ask for ask in self.s3.news() if is_content_get(ask)]

    def test_a_body_that_is_not_cut_touches_no_upstream(self) -> None:
        """As it should be."""
        self.assert_right(self.proxy, self.served)
        self.assertEqual((len(self.content_asks()), self.asks(self.served)), (1, 1))

    def test_a_body_that_is_cut_again_and_again_is_resumed(self) -> None:
        """Each connection brings three MiB at most."""
        self.s3.turn(Fault(cut_at=3 * MIB), is_content_get)
        self.assert_right(self.proxy, self.served, 15)
        asks = self.content_asks()
        self.assertTrue(self.asks(self.served) > 1 or len(asks) >= 3, asks)

    def test_a_body_that_falls_silent_is_gone_on_with(self) -> None:
        """Each connection brings three MiB and then nothing, without an end."""
        self.s3.turn(Fault(stall_at=3 * MIB), is_content_get)
        self.assert_right(self.proxy, self.served, 20)

    def test_s3_that_is_lost_in_mid_body_is_followed_by_the_upstream(self) -> None:
        """Not one more byte comes from S3; the client has the whole body."""
        self.s3.turn(Fault(bytes_per_s=3 * MIB), is_content_get)
        lost = threading.Timer(1.0, self.s3.turn, [REFUSE])
        lost.start()
        self.addCleanup(lost.cancel)
        pulled = self.assert_right(self.proxy, self.served, 15)
        self.assertGreaterEqual(pulled.took_s, 1.0, "it was here before S3 was lost")
        self.assertEqual(self.asks(self.served), 2)

    def test_many_at_once_come_through_and_memory_stays_bounded(self) -> None:
        """Eight clients that follow one cut body, each on its own way."""
        self.s3.turn(Fault(cut_at=5 * MIB), is_content_get)
        self.proxy.forget_peak()
        before_bytes = self.proxy.memory_bytes()
        with ThreadPoolExecutor(8) as clients:
            list(clients.map(lambda _: self.assert_right(self.proxy, self.served, 30), range(8)))
        self.assertLess(self.proxy.memory_bytes("VmHWM") - before_bytes, 64 * MIB)


def is_content_get(request: S3Request) -> bool:
    """Say whether content itself is fetched."""
    return request.method == "GET" and request.is_content
