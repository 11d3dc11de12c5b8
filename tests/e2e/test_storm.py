"""A storm: 32 clients want one big blob that nobody has pulled yet."""

from __future__ import annotations

import json
import sys

from twisted.trial.unittest import SynchronousTestCase

from tests.e2e.processes import Workshop, run
from tests.e2e.proxy import start_proxy
from tests.e2e.scripts import MIB, Content, blob, start_scripted

CLIENTS = 32
BLOB = Content(size_bytes=256 * MIB, seed=32)
WITHIN_S = 100


class StormTests(SynchronousTestCase):
    """Promise 2, laws 3 and 8 with real sockets."""

    def setUp(self) -> None:
        """Start the upstream and the proxy."""
        self.shop = Workshop()
        self.addCleanup(self.shop.close)
        self.served = blob("org/big", BLOB)
        self.upstream = start_scripted(self.shop, self.served)
        self.proxy = start_proxy(self.shop, self.upstream.url)

    def test_32_clients_one_body_and_one_that_stops_reading_stops_nobody(self) -> None:
        """Upstream sends one body, everybody gets it right, and the proxy's memory stays small."""
        self.assertEqual(self.proxy.ask("GET", "/healthz")[0], 200)
        self.proxy.forget_peak()
        before_bytes = self.proxy.memory_bytes()
        events = self.storm(stall_bytes=MIB)
        grown_bytes = self.proxy.memory_bytes("VmHWM") - before_bytes
        order = [(event["event"], event["number"]) for event in events]
        stopped = order.index(("stopped", 0))
        self.assertEqual(len(order), CLIENTS + 1)
        self.assertEqual(order[-1], ("finished", 0), "the one that stopped finishes last")
        others = {number for event, number in order[stopped:-1] if event == "finished"}
        self.assertEqual(others, set(range(1, CLIENTS)), "all others finish while it is stopped")
        whole = {"status": 200, "body_bytes": BLOB.size_bytes, "digest": BLOB.digest}
        for event in events:
            if event["event"] == "finished":
                self.assertEqual({name: event[name] for name in whole}, whole, event)
        bodies = self.upstream.bodies_of(self.served.target)
        self.assertEqual([(ask.body_bytes, ask.ended) for ask in bodies], [(BLOB.size_bytes, "whole")])
        self.assertLess(grown_bytes, 40 * MIB)

    def storm(self, stall_bytes: int) -> list[dict[str, object]]:
        """Let the clients loose from a process of their own and return what happened to them, in order."""
        target = f"{self.served.target}?ns=ghcr.io"
        words = [sys.executable, "-m", "tests.e2e.storm_client", str(self.proxy.port), target]
        printed = run([*words, str(CLIENTS), str(stall_bytes)], WITHIN_S)
        return [json.loads(line) for line in printed.splitlines()]
