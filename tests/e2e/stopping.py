"""What it takes to see a proxy stop: one that can be told to, and clients that are served meanwhile."""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from attrs import define, field
from twisted.trial.unittest import SynchronousTestCase

from tests.e2e.law_wire import Answer, Wire, connect, get, request
from tests.e2e.processes import Process, Workshop, free_port, wait_until
from tests.e2e.proxy import Proxy, write_config
from tests.e2e.scripts import MIB, Content, Served, Step, blob, start_scripted
from tests.soundness import assert_store_sound

TWISTD = Path(sys.executable).with_name("twistd")
KEPT = blob("library/kept", Content(size_bytes=64 * MIB, seed=81))
# 128 chunks, 7 s in all.
SLOW = Step(chunk_bytes=512 * 1024, pause_s=0.05)
# Content that arrives for a minute.
ENDLESS = Step(chunk_bytes=16 * 1024, pause_s=0.1)


@define(eq=False)
class Client(threading.Thread):
    """A client that pulls on a connection of its own.

    :ivar whole_s: how long it takes for 64 MiB at least.
    """

    port: int
    served: Served
    whole_s: float = 0
    answer: Answer = field(factory=Answer)

    def __attrs_post_init__(self) -> None:
        super().__init__(daemon=True)
        self.wire: Wire = connect(self.port, receive_buffer_bytes=256 * 1024 if self.whole_s else None)
        self.wire.whole_s, self.wire.whole_bytes = self.whole_s, 64 * MIB

    def run(self) -> None:
        """Pull."""
        self.wire.send(request(f"{self.served.target}?ns=docker.io"))
        self.answer = self.wire.read_answer()
        self.wire.close()


class DrainTestCase(SynchronousTestCase):
    """A proxy before a scripted upstream."""

    timeout = 120

    def setUp(self) -> None:
        """Start the upstream."""
        self.shop = Workshop()
        self.addCleanup(self.shop.close)
        self.upstream = start_scripted(self.shop, KEPT)
        self.root = self.shop.directory("store")
        self.orders = self.shop.path / "orders"

    def start(self, before: Sequence[str] = (), program: Sequence[object] = (TWISTD,), **more: object) -> Proxy:
        """Start the product and wait until it listens.

        :param before: words before its own.
        :param program: what Python runs; :meth:`dying` is one with a disk that can be told to hang.
        """
        proxy = self.begin(before, program, **more)
        proxy.process.wait_for(lambda: "msg=listening" in proxy.process.log(), 30, "is ready")
        return proxy

    def begin(self, before: Sequence[str] = (), program: Sequence[object] = (TWISTD,), **more: object) -> Proxy:
        """Start the product."""
        port, file = free_port(), self.shop.directory("config") / "ociproxy.yaml"
        write_config(file, port, self.root, self.upstream.url, **{"min_free": 0, **more})
        words = [sys.executable, *program, "-n", "--pidfile=", "ociproxy", "--mode", "transparent", "--config", file]
        return Proxy(port, self.root, self.shop.start("proxy", [*before, *words]), file)

    def dying(self) -> Sequence[object]:
        """Return the program whose disk can be told to hang."""
        return ("-m", "tests.e2e.durability_child", self.orders)

    def keep(self, proxy: Proxy) -> None:
        """Let the proxy keep the content that is served as a hit."""
        self.assertEqual(get(proxy.port, f"{KEPT.target}?ns=docker.io").digest, KEPT.content.digest)
        digest = KEPT.content.digest.removeprefix("sha256:")
        wait_until((self.root / "blobs" / "sha256" / digest[:2] / digest).exists, 10, "kept")

    def new(self, seed: int, step: Step, size_bytes: int = 64 * MIB) -> Served:
        """Serve content that nobody has pulled yet."""
        served = blob("library/new", Content(size_bytes=size_bytes, seed=seed), afterwards=step)
        self.upstream.serve(served)
        return served

    def ends(self, process: Process, within_s: float) -> int:
        """Wait for the end of a process, and return its status."""
        return process.popen.wait(within_s)

    def kept(self) -> set[str]:
        """Return what is kept; nothing unfinished lies beside it, though nobody has cleaned up."""
        return {str(digest) for digest in assert_store_sound(self.root, is_at_rest=True)}
