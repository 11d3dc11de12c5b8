"""Several doors at once, sockets of systemd, and what is left of Unix sockets (A)."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import stat
import sys
from pathlib import Path
from typing import Any
from unittest import SkipTest

import yaml
from twisted.trial.unittest import SynchronousTestCase

from tests.e2e.certificates import self_signed
from tests.e2e.processes import E2EError, Process, Workshop, accepts, free_port, run
from tests.e2e.scripts import MIB, Content, blob, start_scripted
from tests.e2e.tls_clients import listens

BIG = blob("library/big", Content(size_bytes=64 * MIB, seed=52))
PATH = f"{BIG.target}?ns=docker.io"


class ListeningTestCase(SynchronousTestCase):
    """A proxy that is started as each test wants it."""

    timeout = 120

    def setUp(self) -> None:
        """Start the upstream, and make a certificate."""
        self.shop = Workshop()
        self.addCleanup(self.shop.close)
        self.upstream = start_scripted(self.shop, BIG)
        self.directory = self.shop.directory("l")
        self.certificate = self_signed(self.directory, "door", "127.0.0.1", "localhost", "::1")
        self.port, self.socket = free_port(), self.directory / "s"

    def words(self, *listen: str, tls: bool = True, **more: object) -> list[str]:
        """Write a configuration and return the command of the proxy."""
        config: dict[str, Any] = {
            "listen": list(listen),
            "fs_root": str(self.directory / "store"),
            "upstreams": [{"namespace": "docker.io", "urls": [self.upstream.url]}],
            **more,
        }
        if tls:
            config |= {"tls_cert": self.certificate.cert, "tls_key": self.certificate.key}
        file = self.directory / "c.yaml"
        file.write_text(yaml.safe_dump(config))
        twistd = Path(sys.executable).with_name("twistd")
        words = [sys.executable, twistd, "-n", "--pidfile=", "ociproxy", "--mode=transparent", "--config", file]
        return [str(word) for word in words]

    def start(self, *words: str, before: tuple[str, ...] = ()) -> Process:
        """Start it and wait until it says where it listens."""
        process = self.shop.start("proxy", [*before, *words])
        process.wait_for(lambda: "msg=listening" in process.log(), 20, "listens")
        return process

    def doors(self, process: Process) -> set[str]:
        """Return where it says that it listens."""
        (line,) = [line for line in process.log().splitlines() if "msg=listening" in line]
        return set(line.partition(" doors=")[2].split(" ")[0].split(","))

    def assert_pull(self, base: str, *options: object) -> None:
        """The large blob and a range of it, both right."""
        data, out = BIG.content.data(), self.directory / "out"
        curl = ["curl", "-sS", "-g", "--fail", "--cacert", self.certificate.cert, "-o", out, *options]
        run([*curl, f"{base}{PATH}"], 60)
        self.assertEqual(hashlib.sha256(out.read_bytes()).hexdigest(), hashlib.sha256(data).hexdigest(), base)
        run([*curl, "-r", "5000000-", f"{base}{PATH}"], 60)
        self.assertEqual(out.read_bytes(), data[5_000_000:], base)


class DoorsTests(ListeningTestCase):
    """What one process listens on."""

    def test_tls_and_plain_on_both_families_and_a_unix_socket(self) -> None:
        """Each is what was said, or what follows from there being a certificate."""
        other = free_port()
        process = self.start(*self.words(f":{self.port}", f"http://:{other}", f"unix:{self.socket}"))
        expected = {f"https://[::]:{self.port}", f"[::]:{other}", f"unix:{self.socket}"}
        self.assertEqual(self.doors(process), expected)
        for host in ("127.0.0.1", "[::1]"):
            self.assert_pull(f"https://{host}:{self.port}")
            self.assert_pull(f"http://{host}:{other}")
        self.assert_pull("http://cache", "--unix-socket", self.socket)

    def test_tls_on_a_unix_socket_and_by_a_description_of_twisted(self) -> None:
        """Where it is said."""
        twisted = f"https://tcp:{self.port}:interface=127.0.0.1"
        self.start(*self.words(twisted, f"https://unix:{self.socket}"))
        self.assert_pull(f"https://127.0.0.1:{self.port}")
        self.assert_pull("https://localhost", "--unix-socket", self.socket)

    def test_a_unix_socket_goes_at_the_end_and_one_that_was_left_is_no_obstacle(self) -> None:
        """Also if nobody could clean up."""
        words = self.words(f"unix:{self.socket}", tls=False)
        self.start(*words).kill()
        self.assertTrue(self.socket.exists())
        process = self.start(*words)
        self.assert_pull("http://cache", "--unix-socket", self.socket)
        self.assertEqual(stat.S_IMODE(self.socket.stat().st_mode), 0o666)
        self.assertEqual(process.stop(), 0)
        self.assertFalse(self.socket.exists())

    def test_the_admin_socket_is_its_owners_only(self) -> None:
        """0600, plain although there is a certificate, and gone at the end (RULES G5)."""
        admin = self.directory / "admin"
        process = self.start(*self.words(f":{self.port}", admin_listen=f"unix:{admin}"))
        self.assertEqual(stat.S_IMODE(admin.stat().st_mode), 0o600)
        self.assertIn(f"unix:{admin}", self.doors(process))
        metrics = run(["curl", "-sS", "--fail", "--unix-socket", admin, "http://admin/metrics"], 20)
        self.assertIn("ociproxy_", metrics)
        self.assertEqual(process.stop(), 0)
        self.assertFalse(admin.exists())

    def test_the_door_of_one_upstream(self) -> None:
        """What is said about doors holds for it too: TLS where there is a certificate (RULES B2)."""
        own = free_port()
        entry = {"namespace": "docker.io", "urls": [self.upstream.url], "listen": f"127.0.0.1:{own}"}
        self.start(*self.words(f"127.0.0.1:{self.port}", upstreams=[entry]))
        out = self.directory / "own"
        curl = ["curl", "-sS", "--fail", "--cacert", self.certificate.cert, "-o", out]
        run([*curl, f"https://127.0.0.1:{own}{BIG.target}"], 60)
        self.assertEqual(out.read_bytes(), BIG.content.data())

    def test_a_door_that_cannot_be_opened_is_one_line(self) -> None:
        """A port that is taken, and sockets that nobody has handed over."""
        with socket.create_server(("127.0.0.1", self.port)):
            line = self.refusal(f"127.0.0.1:{self.port}")
        self.assertIn("choose another address or port", line)
        line = self.refusal("systemd:")
        self.assertIn("--listen: 'systemd:': systemd has handed no such socket to this process", line)

    def refusal(self, *listen: str) -> str:
        """Return the last line of a start that failed."""
        process = self.shop.start("proxy", self.words(*listen, tls=False))
        self.assertEqual(process.popen.wait(20), 1, process.log())
        return process.log().strip().splitlines()[-1]


class ActivationTests(ListeningTestCase):
    """Sockets that were opened before the process began."""

    def activated(self, names: str, *words: str) -> Process:
        """Start it by somebody who hands over a Unix socket, one of IPv4 and one of IPv6."""
        self.port6 = free_port()
        child = (sys.executable, "-m", "tests.e2e.activated_child")
        given = (str(self.socket), str(self.port), str(self.port6), names)
        return self.start(*words, before=(*child, *given))

    def test_all_sockets_that_are_handed_over(self) -> None:
        """TLS on those of TCP, and none on the Unix socket, which keeps its rights and stays at the end."""
        for names in ("ociproxy.socket:ociproxy.socket:ociproxy.socket", "-"):
            self.socket.unlink(missing_ok=True)
            process = self.activated(names, *self.words("systemd:"))
            tcp = {f"https://127.0.0.1:{self.port}", f"https://[::1]:{self.port6}"}
            self.assertEqual(self.doors(process), {f"unix:{self.socket}", *tcp})
            self.assertEqual(stat.S_IMODE(self.socket.stat().st_mode), 0o640)
            self.assert_pull(f"https://127.0.0.1:{self.port}")
            self.assert_pull(f"https://[::1]:{self.port6}")
            self.assert_pull("http://cache", "--unix-socket", self.socket)
            self.assertEqual(process.stop(), 0)
            self.assertTrue(self.socket.exists())
            self.assertFalse(accepts(self.port))
            self.assertFalse(listens(self.socket))

    def test_a_door_for_each_name(self) -> None:
        """One plain, one with TLS, one for whoever runs the proxy."""
        words = self.words("http://systemd:web", "https://systemd:safe", admin_listen="systemd:admin")
        process = self.activated("admin:web:safe", *words)
        expected = {f"unix:{self.socket}", f"127.0.0.1:{self.port}", f"https://[::1]:{self.port6}"}
        self.assertEqual(self.doors(process), expected)
        self.assert_pull(f"http://127.0.0.1:{self.port}")
        self.assert_pull(f"https://[::1]:{self.port6}")
        metrics = run(["curl", "-sS", "--fail", "--unix-socket", self.socket, "http://admin/metrics"], 20)
        self.assertIn("ociproxy_", metrics)

    def test_as_twisted_writes_it(self) -> None:
        """Its descriptions go on to work, whatever domain they name."""
        self.activated("a:b:c", *self.words("systemd:domain=INET:index=1", "systemd:domain=INET:name=c", tls=False))
        self.assert_pull(f"http://127.0.0.1:{self.port}")
        self.assert_pull(f"http://[::1]:{self.port6}")

    def test_a_name_that_nobody_has_is_one_line(self) -> None:
        """The others do not make up for it."""
        error = self.assertRaises(E2EError, self.activated, "a:b:c", *self.words("systemd:d", tls=False))
        self.assertIn("--listen: 'systemd:d': systemd has handed no such socket", str(error))

    def test_systemds_own_tool(self) -> None:
        """The process begins with the first connection, which is answered."""
        tool = shutil.which("systemd-socket-activate")
        if tool is None:
            raise SkipTest("systemd-socket-activate is not here")
        keep = [f"--setenv={name}" for name in ("PATH", "PYTHONPATH", "HOME") if name in os.environ or name != "HOME"]
        before = (tool, f"--listen=127.0.0.1:{self.port}", f"--listen={self.socket}", *keep)
        process = self.shop.start("activate", [*before, *self.words("systemd:")])
        process.wait_for(lambda: listens(self.socket), 10, "listens")
        self.assert_pull(f"https://127.0.0.1:{self.port}")
        self.assert_pull("http://cache", "--unix-socket", self.socket)
        self.assertIn("msg=listening", process.log())
