"""A registry that counts pulls: what is not asked when few are left, or none (RULES D8, E8)."""

from __future__ import annotations

import json
import time

from attrs import evolve

from tests.e2e.kind_laboratory import PLAIN, WITH_OWN, KindsTestCase, people
from tests.e2e.kinds import HUB, Running, start_kind
from tests.e2e.processes import wait_until
from tests.e2e.proxy import Proxy
from tests.e2e.users import ALICE


class QuotaTests(KindsTestCase):
    """E8, D8: a registry that counts pulls."""

    def start(self, quota: int, retry_after_s: int = 2) -> Running:
        """Start one."""
        return start_kind(self.shop, evolve(HUB, quota=quota, retry_after_s=retry_after_s), people(HUB))

    def test_head_never_costs_a_pull(self) -> None:
        """After many HEADs, kept and not kept, both pulls of the quota are still there; then it is 429."""
        upstream = self.start(2)
        proxy = self.proxy_for(upstream)
        for tag in "123456":
            self.assertEqual(self.pull(proxy, PLAIN, f"public/app/manifests/{tag}", method="HEAD")[0], 200)
        self.assertEqual({seen.method for seen in upstream.news() if "/manifests/" in seen.target}, {"HEAD"})
        self.assertEqual(self.statuses(proxy, PLAIN, "123"), [200, 200, 429])

    def statuses(self, proxy: Proxy, namespace: str, tags: str, shown: str = "") -> list[int]:
        """GET manifests by tag."""
        return [self.pull(proxy, namespace, f"public/app/manifests/{tag}", shown)[0] for tag in tags]

    def test_a_quota_that_runs_low_ends_revalidation_behind(self) -> None:
        """While there is enough, a tag is confirmed behind its answer; below the mark only clients' own asks go."""
        upstream = self.start(10)
        table: list[dict[str, object]] = [{"namespace": PLAIN, "urls": [upstream.url], "quota_low": 0.5}]
        proxy = self.proxy_of(table, tag_fresh_s=1, tag_swr_s="1h")
        self.assertEqual(self.statuses(proxy, PLAIN, "1"), [200])
        upstream.news()
        time.sleep(1.1)
        seen = len(upstream.seen())
        self.assertEqual(self.statuses(proxy, PLAIN, "1"), [200])
        wait_until(lambda: len(upstream.seen()) > seen, 5, "the tag is confirmed")
        self.assertEqual(upstream.lines("public/app"), ["registry HEAD manifests/1 bearer nobody 200"])
        # Nine are left; four is less than half of ten.
        self.assertEqual(self.statuses(proxy, PLAIN, "23456"), [200] * 5)
        upstream.news()
        time.sleep(1.1)
        self.assertEqual(self.statuses(proxy, PLAIN, "1123"), [200] * 4)
        time.sleep(0.4)
        self.assertEqual(upstream.lines("public/app"), [])
        self.assertEqual(self.statuses(proxy, PLAIN, "7"), [200])
        self.assertEqual(upstream.lines("public/app"), ["registry GET manifests/7 bearer nobody 200"])

    def assert_pause(self, namespace: str, name: str) -> None:
        """After a 429 nothing is asked in this name until the time is over, whatever it is for; a client's goes."""
        upstream = self.start(1, retry_after_s=3)
        proxy = self.proxy_for(upstream)
        _, shown = self.token(proxy, namespace, "public/app", ALICE)
        self.assertEqual(self.statuses(proxy, namespace, "1"), [200])
        upstream.news()
        status, headers, body = self.pull(proxy, namespace, "public/app/manifests/2")
        began_s = time.monotonic()
        self.assertEqual((status, headers["retry-after"]), (429, "3"))
        self.assertEqual(json.loads(body)["errors"][0]["code"], "TOOMANYREQUESTS")
        self.assertEqual(upstream.lines("public/app"), [f"registry GET manifests/2 {name} 429"])
        self.assert_paused(proxy, namespace, f"public/app/blobs/{upstream.blob_digest('public/app')}")
        self.assertEqual(self.statuses(proxy, namespace, "1"), [200], "what is kept is served")
        self.assertEqual(upstream.lines("public/app"), [], "the pause")
        self.assertLess(time.monotonic() - began_s, 2.5, "too slow a machine for this test")
        self.assertEqual(self.statuses(proxy, namespace, "34", shown), [200, 429])
        asked = [f"registry GET manifests/{tag} bearer client {status}" for tag, status in ((3, 200), (4, 429))]
        self.assertEqual(upstream.lines("public/app"), asked, "a client's own quota is its own affair")
        time.sleep(max(0.0, 3.1 - (time.monotonic() - began_s)))
        self.assertEqual(self.statuses(proxy, namespace, "2"), [429])
        self.assertEqual(upstream.lines("public/app"), [f"registry GET manifests/2 {name} 429"], "asked again")

    def assert_paused(self, proxy: Proxy, namespace: str, blob: str) -> None:
        """Manifest, HEAD and blob are 429, with how long it is still to wait."""
        for target, method in (("public/app/manifests/5", "GET"), ("public/app/manifests/5", "HEAD"), (blob, "GET")):
            status, headers, _ = self.pull(proxy, namespace, target, method=method)
            self.assertEqual(status, 429, target)
            self.assertIn(headers["retry-after"], ("1", "2", "3"))

    def test_a_pause_of_nobody(self) -> None:
        """Anonymous asks wait."""
        self.assert_pause(PLAIN, "bearer nobody")

    def test_a_pause_of_our_own(self) -> None:
        """So do those with our own login."""
        self.assert_pause(WITH_OWN, "bearer own")
