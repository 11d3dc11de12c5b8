"""Doors that speak TLS: HTTP/1.1 and h2, renewed certificates, and who does not speak it (A)."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import socket
import ssl
import sys
import time
from pathlib import Path
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from tests.e2e.certificates import Certificate, self_signed
from tests.e2e.processes import Workshop, run, wait_until
from tests.e2e.proxy import start_proxy
from tests.e2e.scripts import MIB, Content, blob, start_scripted
from tests.e2e.tls_clients import OnlyH2, shown

BIG = blob("library/big", Content(size_bytes=64 * MIB, seed=51))


class DoorTests(SynchronousTestCase):
    """One door that speaks TLS, before an upstream with a large blob."""

    timeout = 120

    def setUp(self) -> None:
        """Start it."""
        self.shop = Workshop()
        self.addCleanup(self.shop.close)
        self.directory = self.shop.directory("certificates")
        self.authority = self_signed(self.directory, "authority")
        self.base: str | None = None
        self.right = self.authority.issue(self.directory, "right", "127.0.0.1")
        self.cert, self.key = self.directory / "tls.crt", self.directory / "tls.key"
        self.put(self.right)
        self.upstream = start_scripted(self.shop, BIG)
        self.proxy = start_proxy(
            self.shop, self.upstream.url, tls_cert=str(self.cert), tls_key=str(self.key), header_timeout_s=2
        )

    def put(self, certificate: Certificate) -> None:
        """Put a pair where the door looks for it, each file in one step."""
        for source, target in ((certificate.cert, self.cert), (certificate.key, self.key)):
            fresh = target.with_suffix(".new")
            fresh.write_bytes(Path(source).read_bytes())
            fresh.replace(target)

    def url(self) -> str:
        """Return the address of the large blob."""
        return f"{self.base or f'https://127.0.0.1:{self.proxy.port}'}{BIG.target}?ns=docker.io"

    def curl(self, *options: object) -> bytes:
        """Fetch the large blob, and return what has arrived."""
        out = self.shop.path / "out"
        run(["curl", "-sS", "--fail", "--cacert", self.authority.cert, "-o", out, *options, self.url()], 60)
        return out.read_bytes()

    def assert_whole_and_part(self, *options: object) -> None:
        """The whole blob, as a miss and as a hit, and a range of it."""
        data = BIG.content.data()
        for _ in range(2):
            self.assertEqual(hashlib.sha256(self.curl(*options)).hexdigest(), hashlib.sha256(data).hexdigest())
        self.assertEqual(self.curl("-r", "1000000-33000000", *options), data[1_000_000:33_000_001])

    def test_http_1_1(self) -> None:
        """64 MiB and a range."""
        self.assert_whole_and_part("--http1.1")

    def test_http_2(self) -> None:
        """64 MiB and a range, agreed upon by ALPN with a client that has nothing else."""
        if shutil.which("openssl") is None:
            raise SkipTest("openssl is not here")
        bridge = OnlyH2(self.proxy.port, self.authority.cert)
        self.addCleanup(bridge.close)
        bridge.start()
        self.base = f"http://127.0.0.1:{bridge.port}"
        self.assert_whole_and_part("--http2-prior-knowledge")

    def test_alpn(self) -> None:
        """A client has one of the two that it offers; what we do not speak counts for nothing."""
        for offered, expected in ((["h2"], "h2"), (["http/1.1"], "http/1.1"), (["h2", "http/1.1"], None), ([], None)):
            context = ssl.create_default_context(cafile=self.authority.cert)
            if offered:
                context.set_alpn_protocols(offered)
            raw = socket.create_connection(("127.0.0.1", self.proxy.port), timeout=10)
            with context.wrap_socket(raw, server_hostname="127.0.0.1") as wrapped:
                chosen = wrapped.selected_alpn_protocol()
            if expected is not None or not offered:
                self.assertEqual(chosen, expected)
            else:
                self.assertIn(chosen, offered)

    def test_another_certificate_on_disk_is_served_without_a_restart(self) -> None:
        """A slow pull of 64 MiB that began before goes on to its end."""
        self.curl()
        first = shown(self.proxy.port)
        out = self.shop.path / "slow"
        words = ["curl", "-sS", "--fail", "--cacert", self.authority.cert, "--limit-rate", "6M", "-o", out, self.url()]
        slow = self.shop.start("curl", words)
        slow.wait_for(lambda: out.exists() and out.stat().st_size > MIB, 10, "has begun")
        self.put(self.authority.issue(self.directory, "second", "127.0.0.1", "second.test"))
        wait_until(lambda: shown(self.proxy.port) != first, 9, "the second certificate")
        self.assertIsNone(slow.popen.poll(), "the slow pull goes on")
        second = shown(self.proxy.port)
        self.key.write_bytes(b"half a k")
        self.put(self.authority.issue(self.directory, "third", "127.0.0.1"))
        self.proxy.reload()
        wait_until(lambda: shown(self.proxy.port) not in (first, second), 3, "the third, at a signal")
        self.assertIsNone(slow.popen.poll(), "the slow pull goes on")
        self.assertEqual(slow.popen.wait(30), 0, slow.log())
        self.assertEqual(out.read_bytes(), BIG.content.data())
        self.assertEqual(self.proxy.complaints(), [])

    def test_a_broken_pair_leaves_the_old_one(self) -> None:
        """One warning; the door goes on."""
        first = shown(self.proxy.port)
        self.cert.write_bytes(Path(self.authority.cert).read_bytes())

        def told() -> list[str]:
            return [line["msg"] for line in self.proxy.lines() if "is not taken" in line.get("msg", "")]

        wait_until(lambda: bool(told()), 9, "a warning")
        self.assertIn("tls_key", told()[0])
        self.assertEqual((len(told()), shown(self.proxy.port)), (1, first))

    def test_who_does_not_finish_the_handshake_is_gone(self) -> None:
        """Nothing at all, or half a record: closed at the header deadline."""
        for first in (b"", b"\x16\x03\x01\x02\x00\x01"):
            began_s = time.monotonic()
            with socket.create_connection(("127.0.0.1", self.proxy.port), timeout=10) as silent:
                silent.sendall(first)
                with contextlib.suppress(ConnectionResetError):
                    self.assertEqual(silent.recv(1), b"")
            self.assertTrue(1.5 < time.monotonic() - began_s < 4)

    def test_plain_http_is_told_what_to_do(self) -> None:
        """400 and one line."""
        answer = run(["curl", "-sS", "-i", self.url().replace("https", "http")], 20)
        self.assertTrue(answer.startswith("HTTP/1.1 400 "), answer)
        self.assertTrue(answer.endswith("this door speaks TLS; use https://\n"), answer)

    def test_challenges_say_https(self) -> None:
        """The address of the token server is one that clients can use."""
        url = f"https://127.0.0.1:{self.proxy.port}/v2/"
        answer = run(["curl", "-sS", "-i", "--http1.1", "--cacert", self.authority.cert, url], 20)
        self.assertIn(f'realm="https://127.0.0.1:{self.proxy.port}/v2/_token"', answer)


class StartTests(SynchronousTestCase):
    """What a start says about files that are of no use."""

    timeout = 60

    def test_one_line(self) -> None:
        """It names the option and the remedy, and the process ends with 1; config check says the same."""
        shop = Workshop()
        self.addCleanup(shop.close)
        directory = shop.directory("certificates")
        one, other = self_signed(directory, "one", "localhost"), self_signed(directory, "other", "localhost")
        config = directory / "c.yaml"
        config.write_text(f"tls_cert: {one.cert}\ntls_key: {other.key}\nfs_root: {directory}/store\n")
        start = [Path(sys.executable).with_name("twistd"), "-n", "--pidfile=", "ociproxy", "--mode=transparent"]
        for words in (
            [*start, "--config", config],
            ["-c", "from txociproxy.cli.main import main; raise SystemExit(main())", "config", "check", config],
        ):
            process = shop.start("start", [sys.executable, *words])
            self.assertEqual(process.popen.wait(20), 1, process.log())
            last = process.log().strip().splitlines()[-1]
            self.assertIn(f"{config}:2: tls_key: '{other.key}' is not the key of the first certificate", last)
