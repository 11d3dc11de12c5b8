"""The real process is killed at every step and at random moments; the store is sound afterwards (issue E)."""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import signal
import sys
import threading
import time

from twisted.trial.unittest import SynchronousTestCase

from tests.e2e.durability_child import PUBLISHED, STEPS
from tests.e2e.processes import Workshop, free_port
from tests.e2e.proxy import Proxy, write_config
from tests.e2e.scripts import MIB, Content, Served, Step, blob, start_scripted
from tests.soundness import assert_store_sound
from tests.storage.disks import Disk
from txociproxy.oci.names import Digest

SEED = 20261122
RANDOM_DEATHS = 20
# A pull takes a quarter of a second, so that random moments hit every part of it, and what comes after it.
PACED = Step(chunk_bytes=128 * 1024, pause_s=0.015)
WITHIN_S = 0.45
MANIFEST_TYPE = "application/vnd.oci.image.index.v1+json"


def manifest(name: str) -> Served:
    """Return a tag's target."""
    text = json.dumps({"schemaVersion": 2, "mediaType": MANIFEST_TYPE, "manifests": [], "annotations": {"n": name}})
    return Served(f"/v2/library/thing/manifests/{name}", Content(text=text), MANIFEST_TYPE)


class DurabilityTests(SynchronousTestCase):
    """One root, and one process after the other that is killed on it."""

    timeout = 120

    def setUp(self) -> None:
        """Start the upstream."""
        self.shop = Workshop()
        self.addCleanup(self.shop.close)
        self.root = self.shop.directory("store")
        self.orders = self.shop.path / "orders"
        self.upstream = start_scripted(self.shop)

    def start(self) -> Proxy:
        """Start the product over the root."""
        port = free_port()
        config = self.shop.directory("config") / "ociproxy.yaml"
        write_config(config, port, self.root, self.upstream.url, min_free=0)
        words = ["-n", "--pidfile=", "ociproxy", "--mode", "transparent", "--config", config]
        process = self.shop.start("dying", [sys.executable, "-m", "tests.e2e.durability_child", self.orders, *words])
        # The door is open before the store is ready; orders given meanwhile would meet the preparations.
        process.wait_for(lambda: "msg=listening" in process.log(), 30, "is ready")
        return Proxy(port, self.root, process, config)

    def blob(self, seed: int) -> Served:
        """Serve a new blob."""
        content = Content(size_bytes=2 * MIB + seed, seed=seed)
        served = blob("library/thing", content, afterwards=PACED)
        self.upstream.serve(served)
        return served

    def assert_answers(self, proxy: Proxy, *targets: Served) -> None:
        """What was being pulled when the last process was killed comes whole and right."""
        for served in targets:
            status, _, body = proxy.ask("GET", f"{served.target}?ns=docker.io")
            self.assertEqual(status, 200)
            self.assertTrue(body == served.content.data(), f"wrong bytes of {served.target}")

    def pull(self, proxy: Proxy, served: Served) -> None:
        """Pull as a client does whose cache may die."""
        with contextlib.suppress(OSError, http.client.HTTPException):
            status, _, body = proxy.ask("GET", f"{served.target}?ns=docker.io")
            if status == 200 and body != served.content.data():
                self.wrong.append(served.target)

    def bury(self, proxy: Proxy) -> list[Digest]:
        """Wait for the death, do what the next start does, and check what is left."""
        self.assertEqual(proxy.process.popen.wait(20), -signal.SIGKILL)
        self.orders.unlink(missing_ok=True)
        Disk(self.root).storage.prepare("transparent")
        return assert_store_sound(self.root, is_at_rest=True)

    wrong: list[str]

    def test_a_disk_that_never_answers_again_holds_up_neither_pulls_nor_the_end(self) -> None:
        """More threads hang than there are; bodies are right and in time, and SIGTERM ends the process well."""
        proxy = self.start()
        self.orders.write_text("hang")
        began_s = time.monotonic()
        for number in range(2000, 2012):
            self.assert_answers(proxy, self.blob(number))
        self.assertLess(time.monotonic() - began_s, 40)
        proxy.process.wait_for(lambda: "goes on unkept" in proxy.process.log(), 20, "the word that nothing is kept")
        began_s = time.monotonic()
        self.assertEqual(proxy.process.stop(15), 0)
        self.assertLess(time.monotonic() - began_s, 12)
        self.orders.unlink()
        Disk(self.root).storage.prepare("transparent")
        self.assertEqual(assert_store_sound(self.root, is_at_rest=True), [])

    def test_killed_at_each_step_the_store_is_sound_and_the_next_process_answers_right(self) -> None:
        """A miss up to the rename, a hit from then on; upstream is asked again exactly for the misses."""
        self.wrong, before = [], None
        for number, step in enumerate(STEPS):
            proxy = self.start()
            if before is not None:
                self.assert_answers(proxy, before)
            before = self.blob(number)
            self.orders.write_text(step)
            self.pull(proxy, before)
            kept = self.bury(proxy)
            self.assertEqual(Digest.parse(before.content.digest) in kept, step in PUBLISHED, step)
        last = self.start()
        assert before is not None
        self.assert_answers(last, before)
        asked = [len(self.upstream.bodies_of(self.blob(number).target)) for number in range(len(STEPS))]
        self.assertEqual(asked, [1 if step in PUBLISHED else 2 for step in STEPS])
        self.assertEqual(self.wrong, [])

    def test_killed_at_random_moments_the_store_is_sound_and_the_next_process_answers_right(self) -> None:
        """Two blobs and a tag on their way; the seed is fixed, the machine is not."""
        self.wrong = []
        moments = random.Random(SEED)
        targets: list[Served] = []
        kept: list[Digest] = []
        for number in range(RANDOM_DEATHS):
            proxy = self.start()
            self.assert_answers(proxy, *targets)
            targets = [self.blob(1000 + 2 * number), self.blob(1001 + 2 * number), manifest(f"v{number}")]
            self.upstream.serve(targets[2])
            clients = [threading.Thread(target=self.pull, args=(proxy, served)) for served in targets]
            for client in clients:
                client.start()
            time.sleep(moments.uniform(0, WITHIN_S))
            proxy.process.kill()
            for client in clients:
                client.join(30)
            before, kept = kept, self.bury(proxy)
            self.assertTrue(set(before) <= set(kept), "kept content has gone")
        self.assert_answers(self.start(), *targets)
        self.assertEqual(self.wrong, [])
