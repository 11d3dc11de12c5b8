"""HTTP/2 by prior knowledge against a real proxy: whole bodies, lost ones, slow clients, and the end (A)."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import time

from twisted.trial.unittest import SynchronousTestCase

from tests.e2e.http2_wire import Wire2
from tests.e2e.processes import Workshop, run, wait_until
from tests.e2e.proxy import Proxy, start_proxy
from tests.e2e.scripts import MIB, Content, Served, Step, blob, start_scripted

INTERNAL_ERROR = 2
ENHANCE_YOUR_CALM = 11
BIG = blob("library/big", Content(size_bytes=64 * MIB, seed=61))
OTHER = blob("library/other", Content(size_bytes=64 * MIB, seed=62))
SMALL = blob("library/small", Content(size_bytes=2 * MIB, seed=63))
BAD = blob("library/bad", Content(size_bytes=8 * MIB, seed=64), afterwards=Step(flip_at=8 * MIB - 1))
SLOW = blob("library/slow", Content(size_bytes=16 * MIB, seed=65), Step(pause_s=0.05, chunk_bytes=256 * 1024))
RANGE = (1_000_000, 33_000_000)


class Http2Tests(SynchronousTestCase):
    """One proxy before an upstream that does as it is told."""

    timeout = 120

    def setUp(self) -> None:
        """Start both."""
        self.shop = Workshop()
        self.addCleanup(self.shop.close)
        self.upstream = start_scripted(self.shop, BIG, OTHER, SMALL, BAD, SLOW)
        self.proxy = start_proxy(self.shop, self.upstream.url)

    def curl(self, proxy: Proxy, served: Served, *options: object) -> tuple[bytes, str]:
        """Fetch with curl; return what has arrived, and which HTTP was spoken."""
        out = self.shop.path / "out"
        url = f"http://127.0.0.1:{proxy.port}{served.target}?ns=docker.io"
        version = run(["curl", "-sS", "--fail", "-o", out, "-w", "%{http_version}", *options, url], 60)
        return out.read_bytes(), version

    def connect(self, **more: int) -> Wire2:
        """Connect."""
        wire = Wire2(self.proxy.port, **more)
        self.addCleanup(wire.close)
        return wire

    def test_curl_gets_whole_bodies_and_ranges(self) -> None:
        """64 MiB, on a miss and on a hit, and a range of it, on a hit and on a miss; over both kinds of HTTP."""
        first, last = RANGE
        for option, version, served, cold in (
            ("--http1.1", "1.1", BIG, OTHER),
            ("--http2-prior-knowledge", "2", OTHER, BIG),
        ):
            proxy = start_proxy(self.shop, self.upstream.url)
            digest = hashlib.sha256(served.content.data()).hexdigest()
            for outcome in ("miss", "hit"):
                body, spoken = self.curl(proxy, served, option)
                self.assertEqual((hashlib.sha256(body).hexdigest(), spoken), (digest, version), outcome)
            for each in (served, cold):
                body, spoken = self.curl(proxy, each, option, "-r", f"{first}-{last}")
                self.assertEqual((body == each.content.data()[first : last + 1], spoken), (True, version))
            outcomes = proxy.outcomes()
            self.assertEqual(outcomes[:3], ["miss", "hit", "hit"])
            self.assertNotEqual(outcomes[3], "hit")
            self.assertEqual(proxy.complaints(), [])
            proxy.stop()

    def test_curl_sees_a_bad_verdict(self) -> None:
        """With the exit code for a stream that was reset."""
        url = f"http://127.0.0.1:{self.proxy.port}{BAD.target}?ns=docker.io"
        words = ["sh", "-c", f"curl -sS --http2-prior-knowledge -o /dev/null '{url}'; echo $?"]
        self.assertEqual(run(words, 60).split()[-1], "92")

    def test_a_bad_verdict_resets_its_stream_alone(self) -> None:
        """Another stream of the same connection completes, and a new one too."""
        wire = self.connect()
        other = wire.begin(f"{SLOW.target}?ns=docker.io")
        bad = wire.begin(f"{BAD.target}?ns=docker.io")
        wire.read_until(lambda: bad.reset is not None or bad.is_whole)
        self.assertEqual((bad.status, bad.reset, bad.is_whole), (200, INTERNAL_ERROR, False))
        self.assertLess(len(bad.body), BAD.content.size_bytes)
        self.assertFalse(other.is_whole)
        wire.read_until(lambda: other.is_whole)
        self.assertEqual(bytes(other.body), SLOW.content.data())
        again = wire.begin(f"{SMALL.target}?ns=docker.io")
        wire.read_until(lambda: again.is_whole)
        self.assertEqual((bytes(again.body), wire.goaway), (SMALL.content.data(), None))
        ended = [line.get("ended") for line in self.proxy.pulls() if line.get("repository") == "library/bad"]
        self.assertEqual(ended, ["cut"])

    def test_a_long_authorization_passes(self) -> None:
        """100 KiB; a list beyond 256 KiB ends the connection."""
        wire = self.connect()
        got = wire.begin("/healthz", ("authorization", "Bearer " + "x" * 100 * 1024))
        wire.read_until(lambda: got.is_whole)
        self.assertEqual((got.status, bytes(got.body), wire.goaway), (200, b"ok", None))
        wire.begin("/v2/", *[("x-a", "x" * 100 * 1024)] * 3)
        wire.read_until(lambda: wire.goaway is not None)
        self.assertEqual(wire.goaway, ENHANCE_YOUR_CALM)

    def test_slow_clients_cost_no_memory(self) -> None:
        """Eight that asked for a window of 64 MiB each and then read nothing; a pull beside them completes."""
        self.curl(self.proxy, BIG)
        before_bytes = self.proxy.memory_bytes()
        slow = []
        for _ in range(8):
            wire = self.connect(window_bytes=64 * MIB)
            wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
            wire.begin(f"{BIG.target}?ns=docker.io")
            slow.append(wire)
        time.sleep(1)
        self.assertLess(self.proxy.memory_bytes() - before_bytes, 16 * MIB)
        body, _ = self.curl(self.proxy, BIG, "--http2-prior-knowledge")
        self.assertEqual(body, BIG.content.data())
        self.assertLess(self.proxy.memory_bytes() - before_bytes, 16 * MIB)

    def test_a_stop_lets_a_stream_finish(self) -> None:
        """GOAWAY comes at once, the body is whole, then the connection is closed and the process ends well."""
        wire = self.connect()
        got = wire.begin(f"{SLOW.target}?ns=docker.io")
        wire.read_until(lambda: len(got.body) > MIB)
        idle = self.connect()
        idle.read_until(lambda: idle.machine.remote_settings.max_concurrent_streams == 100)
        os.kill(self.proxy.pid, signal.SIGTERM)
        idle.read_until(lambda: idle.goaway == 0)
        wire.read_until(lambda: wire.goaway == 0)
        self.assertFalse(got.is_whole)
        late = wire.begin(f"{SMALL.target}?ns=docker.io")
        wire.read_until(lambda: late.reset is not None)
        self.assertEqual((late.status, late.reset), (None, 7))
        wire.read_until(lambda: got.is_whole)
        self.assertEqual(bytes(got.body), SLOW.content.data())
        wire.read_until(lambda: wire.is_closed)
        wire.close()
        idle.close()
        wait_until(lambda: self.proxy.process.popen.poll() is not None, 20, "ended")
        self.assertEqual(self.proxy.process.popen.returncode, 0)

    def test_the_place_of_a_connection_is_given_back(self) -> None:
        """A hundred connections and their streams leave nothing open."""
        limited = start_proxy(self.shop, self.upstream.url, max_connections_per_client=20)
        for _ in range(100):
            wire = Wire2(limited.port)
            got = [wire.begin("/healthz") for _ in range(3)]
            wire.read_until(lambda: all(each.is_whole for each in got))  # noqa: B023
            wire.close()
        held = [Wire2(limited.port) for _ in range(25)]
        for wire in held:
            self.addCleanup(wire.close)
            wire.begin("/healthz")
        for wire in held[20:]:
            wire.read_until(lambda at=wire: at.goaway is not None)  # type: ignore[misc]
            self.assertEqual(wire.goaway, ENHANCE_YOUR_CALM)
        for wire in held[:20]:
            wire.close()
        wait_until(lambda: limited.ask("GET", "/healthz")[0] == 200, 10, "has room again")
        self.assertEqual(limited.complaints(), [])
