"""How long content lies in a bucket: rules beside those of others, and what is asked for outlives them."""

from __future__ import annotations

import time

from tests.e2e.buckets import expiration
from tests.e2e.processes import wait_until
from tests.e2e.proxy import Proxy
from tests.e2e.s3_addresses import LARGE, SMALL, AddressTestCase
from tests.e2e.s3_house import PREFIX
from tests.e2e.scripts import Served

DAY_S = 24 * 3600


class LifecycleTests(AddressTestCase):
    """The bucket's rules belong to its owner, but for ours."""

    def test_the_owners_rules_outlive_every_start(self) -> None:
        """Ours come, change and go; theirs stay as they are."""
        # In the order in which Ceph tells them.
        owners = [expiration("another proxy", "fleet/two/blobs/", 7), expiration("owner", "logs/", 3)]
        self.house.bucket.set_lifecycle(owners)
        for days in (28, 28, 9, 0):
            proxy = self.start(s3_lifecycle_days=days)
            scopes = (f"{PREFIX}/blobs/", f"{PREFIX}/tags/") if days else ()
            wanted = dict.fromkeys(scopes, days)
            # Where nothing is to be changed, that it stays so is seen after the next start.
            wait_until(lambda wanted=wanted: self.ours() == wanted, 15, f"rules for {days} days")  # type: ignore[misc]
            proxy.stop()
            rules = self.house.bucket.lifecycle()
            self.assertEqual([rule for rule in rules if "txociproxy" not in rule["ID"]], owners)

    def ours(self) -> dict[str, int]:
        """Return the days of the rules that the proxy has made, by what they are for."""
        rules = [rule for rule in self.house.bucket.lifecycle() if "txociproxy" in rule["ID"]]
        return {rule["Filter"]["Prefix"]: rule["Expiration"]["Days"] for rule in rules}

    def test_only_abandoned_uploads_of_ours_are_ended(self) -> None:
        """One that may be another proxy's running one is left alone, and so is what lies elsewhere (RULES G4)."""
        bucket, key = self.house.bucket, self.house.key_of(LARGE.content.digest)
        ours, theirs = bucket.begin_upload(key), bucket.begin_upload("elsewhere/thing")
        self.house.private.date_shift_s = 23 * 3600
        self.start()
        wait_until(
            lambda: "uploads" in [name for one in self.house.private.seen for name in one.parameters], 15, "swept"
        )
        self.start().stop()
        self.assertEqual(bucket.uploads(), {ours: key, theirs: "elsewhere/thing"})
        self.house.private.date_shift_s = 25 * 3600
        self.start()
        wait_until(lambda: ours not in bucket.uploads(), 15, "the abandoned one is ended")
        self.assertEqual(bucket.uploads(), {theirs: "elsewhere/thing"})

    def test_what_is_asked_for_is_renewed(self) -> None:
        """A hit on what is older than half of the lifecycle makes it new, once (RULES G4).

        The server's clock, by which ages are told, is put forward on the way.
        """
        proxy = self.start(s3_lifecycle_days=2)
        self.fill(proxy, SMALL, LARGE)
        for served in (SMALL, LARGE):
            self.sent(proxy, served)
        self.assertEqual(self.copies(), [])
        self.house.private.date_shift_s = DAY_S + 60
        for served in (SMALL, LARGE):
            self.assert_renewed(proxy, served)

    def assert_renewed(self, proxy: Proxy, served: Served) -> None:
        """The object and its sidecar are written anew, once, and it is the same content."""
        keys = [self.house.key_of(served.content.digest, end) for end in ("", ".meta.json")]
        before = [self.house.bucket.modified(key) for key in keys]
        # Times of objects are told in whole seconds, and what was found is believed for one.
        time.sleep(1.1)
        self.sent(proxy, served)
        for key, then in zip(keys, before, strict=True):
            wait_until(lambda key=key, then=then: self.house.bucket.modified(key) > then, 10, key)  # type: ignore[misc]
        copies = self.copies()
        time.sleep(1.1)
        self.assertTrue(self.sent(proxy, served).get()[2] == served.content.data())
        self.assertEqual((len(copies), self.copies()), (2, []))

    def copies(self) -> list[str]:
        """Return what has been copied since the last look."""
        return [one.path for one in self.house.private.news() if "x-amz-copy-source" in one.headers]
