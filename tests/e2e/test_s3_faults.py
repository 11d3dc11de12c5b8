"""S3 refused, hanging, failing, slow, emptied, locked or elsewhen: pulls are right and in time, and S3 comes back."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

from tests.e2e.ceph import Account
from tests.e2e.elsewhen import Elsewhen
from tests.e2e.processes import wait_until
from tests.e2e.proxy import Proxy
from tests.e2e.s3_accounts import give_key, take_key
from tests.e2e.s3_fault_kinds import BUSY, CRAWL, HANG, PASS, REFUSE, Fault
from tests.e2e.s3_trouble import BELIEF_S, RECOVERY_S, TroubleCase
from tests.e2e.scripts import Served

QUICK_S = 0.7
HOUR_S = 3600.0


class OutageTests(TroubleCase):
    """Whatever S3 does, at the start or in between: bytes from the upstream meanwhile, and no restart afterwards."""

    def assert_survives(self, proxy: Proxy, begin: Callable[[], None], end: Callable[[], None]) -> None:
        """Pull before, during and after the trouble."""
        known = self.warm(proxy)
        time.sleep(BELIEF_S)
        begin()
        cold = self.assert_pulls_go_on(proxy, known)
        end()
        self.assert_heals(proxy, *cold, known)

    def assert_pulls_go_on(self, proxy: Proxy, *known: Served) -> list[Served]:
        """S3 is in trouble: whatever is asked comes from the upstream, or from what waits here; return what was new."""
        cold = [self.blob() for _ in range(3)]
        for served in (cold[0], *known):
            self.assertFalse(self.assert_right(proxy, served).redirected)
        self.assertEqual([self.asks(served) for served in known], [2] * len(known), "straight from upstream")
        for served in cold[1:]:
            self.assert_right(proxy, served)
        # By now it is known that S3 is out, and nobody waits for it any more.
        for served in cold:
            self.assertFalse(self.assert_right(proxy, served, QUICK_S).redirected)
        self.assertEqual([self.asks(served) for served in cold], [1, 1, 1], "what waits here is served from here")
        self.assertEqual(len(self.outages(proxy)), 1, "\n".join(self.outages(proxy)))
        return cold

    def assert_heals(self, proxy: Proxy, *waiting: Served) -> None:
        """What waited is brought into the bucket, and S3 serves again."""
        self.wait_for_uploads(*waiting)
        wait_until(lambda: not self.waiting(proxy), RECOVERY_S, "the marks to go")
        before = [self.asks(served) for served in waiting]
        for served in waiting:
            self.assert_redirected_soon(proxy, served)
        self.assertEqual([self.asks(served) for served in waiting], before, "upstream is asked for what is in S3")
        self.assertEqual(len(self.outages(proxy)), 1, "\n".join(self.outages(proxy)))
        self.assertEqual(len(self.ends(proxy)), 1, "\n".join(self.ends(proxy)))
        self.assertEqual(self.said(proxy, "error"), [])

    def outages(self, proxy: Proxy) -> list[str]:
        """Return the lines that say that S3 is out."""
        return [line for line in self.said(proxy, "warn") if "is out" in line]

    def ends(self, proxy: Proxy) -> list[str]:
        """Return the lines that say that S3 is back."""
        return [line for line in self.said(proxy, "info") if "is back" in line]

    def assert_survives_fault(self, fault: Fault) -> None:
        """The relay does it to every request."""
        self.assert_survives(self.start(), lambda: self.s3.turn(fault), lambda: self.s3.turn(PASS))

    def test_s3_that_refuses_connections(self) -> None:
        """Nobody listens, and the connections there were are reset."""
        self.assert_survives_fault(REFUSE)

    def test_s3_that_hangs(self) -> None:
        """Connections are taken and nothing is ever answered."""
        self.assert_survives_fault(HANG)

    def test_s3_that_says_503(self) -> None:
        """To everything, at once."""
        self.assert_survives_fault(BUSY)

    def test_s3_that_crawls(self) -> None:
        """Each answer comes, byte by byte, later than anybody waits."""
        self.assert_survives_fault(CRAWL)

    def test_a_bucket_that_is_deleted_under_it(self) -> None:
        """With all that was in it; later there is one again, whoever makes it."""
        name, client = self.bucket.name, self.bucket._client

        def delete() -> None:
            self.bucket.delete(*self.bucket.keys())
            client.delete_bucket(Bucket=name)

        def make() -> None:
            with contextlib.suppress(client.exceptions.BucketAlreadyOwnedByYou, client.exceptions.BucketAlreadyExists):
                client.create_bucket(Bucket=name)

        self.assert_survives(self.start(), delete, make)

    def test_credentials_that_are_wrong_at_the_start_and_right_later(self) -> None:
        """The secret is not the one that the server knows, until somebody tells it that one."""
        wrong = Account("AKFAULTS", "not the secret that it has")
        give_key(self.ceph, Account("AKFAULTS", "another secret"))
        proxy = self.start(wrong)
        cold = self.assert_pulls_go_on(proxy)
        self.assertNotIn(wrong.secret_key, proxy.process.log())
        give_key(self.ceph, wrong)
        self.assert_heals(proxy, *cold)

    def test_credentials_that_lose_their_right_and_get_it_back(self) -> None:
        """The server does not know the key any more, then it does."""
        account = Account("AKLOSES", "some secret")
        give_key(self.ceph, account)
        self.assert_survives(
            self.start(account), lambda: take_key(self.ceph, account), lambda: give_key(self.ceph, account)
        )

    def test_a_clock_that_goes_ahead_and_is_put_right(self) -> None:
        """Three hours: the server refuses what is written, though perhaps not what is read."""
        self.assert_survives_clock(3 * HOUR_S)

    def test_a_clock_that_falls_behind_and_is_put_right(self) -> None:
        """Three hours: everything that is signed has ended long ago."""
        self.assert_survives_clock(-3 * HOUR_S)

    def assert_survives_clock(self, ahead_s: float) -> None:
        """The proxy's own clock, not that of its clients or of S3."""
        owner = self.ceph.account
        who = Elsewhen(owner.access_key, owner.secret_key, directory=self.shop.directory("elsewhen"))
        who.put(0)
        proxy = self.start(who)

        def go_wrong() -> None:
            who.put(ahead_s)
            self.assert_right(proxy, self.blob())
            proxy.process.wait_for(lambda: bool(self.outages(proxy)), 10, "notices that S3 refuses")

        self.assert_survives(proxy, go_wrong, lambda: who.put(0))

    def test_a_start_while_s3_is_out(self) -> None:
        """Refused or hanging: it listens, pulls, and brings everything into the bucket later."""
        for fault in (REFUSE, HANG):
            self.s3.turn(fault)
            began_s = time.monotonic()
            proxy = self.start()
            self.assertLess(time.monotonic() - began_s, 15)
            cold = self.assert_pulls_go_on(proxy)
            self.s3.turn(PASS)
            self.assert_heals(proxy, *cold)
            self.stop_clean(proxy.process)

    def test_an_end_while_s3_hangs(self) -> None:
        """Uploads hang in their threads; SIGTERM ends the process all the same, and the next one takes over."""
        proxy = self.start()
        self.s3.turn(HANG)
        cold = self.assert_pulls_go_on(proxy)
        self.stop_clean(proxy.process)
        self.s3.turn(PASS)
        self.start(spool_dir=proxy.fs_root)
        self.wait_for_uploads(*cold)
        self.assertEqual([self.asks(served) for served in cold], [1, 1, 1])
