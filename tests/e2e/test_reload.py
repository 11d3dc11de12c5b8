"""SIGHUP: another table of upstreams while pulls go on, or the old one when the file is wrong."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.e2e.law_wire import connect, get, request
from tests.e2e.processes import Workshop, environment, free_port, wait_until
from tests.e2e.proxy import start_proxy, write_config
from tests.e2e.scripts import MIB, Content, Step, blob, start_scripted

BIG = Content(size_bytes=2 * MIB, seed=61)
SMALL = Content(size_bytes=100_000, seed=62)
# About 3 s for the whole: the reload happens in its middle.
SLOW = Step(chunk_bytes=64 * 1024, pause_s=0.1)
TAKEN = "configuration reloaded"
LEFT = "the configuration is not taken"
# As the installed command does; what is tested is this checkout.
COMMAND = "from txociproxy.cli.main import main; raise SystemExit(main())"


class ReloadTests(SynchronousTestCase):
    """One upstream is in the file at the start, another one comes later."""

    def setUp(self) -> None:
        """Start two upstreams and a proxy that knows the first."""
        self.shop = Workshop()
        self.addCleanup(self.shop.close)
        self.slow, self.quick = blob("org/big", BIG, SLOW), blob("org/small", SMALL)
        self.old, self.new = start_scripted(self.shop, self.slow), start_scripted(self.shop, self.quick)
        table = [{"namespace": "docker.io", "urls": [self.old.url]}, {"namespace": "ghcr.io", "urls": [self.old.url]}]
        self.proxy = start_proxy(self.shop, self.old.url, unlisted="deny", upstreams=table)

    def write(self, *more: Mapping[str, object], **settings: object) -> None:
        """Write the file anew: the first upstream, and these."""
        table = [{"namespace": "docker.io", "urls": [self.old.url]}, *more]
        proxy = self.proxy
        write_config(proxy.config, proxy.port, proxy.fs_root, "", unlisted="deny", upstreams=table, **settings)

    def reload(self, said: str) -> str:
        """Send SIGHUP and return the line that says how it went."""
        before = len(self.proxy.process.log())
        self.proxy.reload()
        self.proxy.process.wait_for(lambda: said in self.proxy.process.log()[before:], 10, f"says {said!r}")
        return next(line for line in self.proxy.process.log()[before:].splitlines() if said in line)

    def bodies(self) -> list[str]:
        """Return how far each slow body of the first upstream has come."""
        return [ask.ended for ask in self.old.bodies_of(self.slow.target)]

    def status_of(self, namespace: str) -> int:
        """Return how the new upstream's blob is answered in a namespace."""
        return get(self.proxy.port, f"{self.quick.target}?ns={namespace}").status

    def test_a_signal_in_the_first_moment_is_heard(self) -> None:
        """Whoever can connect can signal; a process that says nothing about SIGHUP would end."""
        self.reload(TAKEN)
        self.assertEqual(self.status_of("docker.io"), 404, "asked at its upstream")

    def test_a_new_upstream_works_and_a_running_pull_goes_on(self) -> None:
        """Also when the upstream that it comes from is no longer in the file."""
        wire = connect(self.proxy.port)
        wire.send(request(f"{self.slow.target}?ns=ghcr.io"))
        self.assertEqual(self.status_of("fresh.example"), 403)
        self.write({"namespace": "fresh.example", "urls": [self.new.url]})
        self.assertIn("fresh.example", self.reload(TAKEN))
        self.assertEqual(self.status_of("fresh.example"), 200)
        self.assertEqual(self.bodies(), ["open"], "it was still running")
        answer = wire.read_answer()
        self.assertEqual((answer.status, answer.ended, answer.digest), (200, "whole", BIG.digest))
        # The upstream rests after its last piece too.
        wait_until(lambda: self.bodies() == ["whole"], 5, "one body, whole")
        wire.send(request("/healthz"))
        self.assertEqual(wire.read_answer().status, 200, "the connection is still there")
        wire.close()

    def test_another_address_of_the_same_upstream_counts_at_once(self) -> None:
        """What is asked after the reload goes to the new address; nothing more goes to the old one."""
        self.assertEqual(self.status_of("docker.io"), 404)
        seen = len(self.old.asked())
        table = [{"namespace": "docker.io", "urls": [self.new.url]}]
        proxy = self.proxy
        write_config(proxy.config, proxy.port, proxy.fs_root, "", unlisted="deny", upstreams=table)
        self.assertIn("docker.io", self.reload(TAKEN))
        self.assertEqual(self.status_of("docker.io"), 200)
        self.assertEqual(len(self.old.asked()), seen)

    def test_a_listener_comes_and_goes(self) -> None:
        """An upstream's own door is opened by a reload and closed by the next."""
        port = free_port()
        own_door = {"namespace": "fresh.example", "urls": [self.new.url], "listen": f"127.0.0.1:{port}"}
        self.write(own_door)
        self.reload(TAKEN)
        self.assertEqual(get(port, self.quick.target).status, 200)
        self.write()
        self.reload(TAKEN)
        with socket.socket() as probe:
            self.assertNotEqual(probe.connect_ex(("127.0.0.1", port)), 0)

    def test_a_wrong_file_changes_nothing_and_says_where_it_is_wrong(self) -> None:
        """Each kind of error: the file, the line and the key are in the log, and the old table serves on."""
        for text, line, key in self.wrong_tables():
            self.proxy.config.write_text(text)
            said = self.reload(LEFT)
            self.assertIn(f"{self.proxy.config}:{line}:", said)
            self.assertIn(key, said)
            self.assertEqual(self.status_of("fresh.example"), 403)
            self.assertEqual(self.status_of("docker.io"), 404, "asked at its upstream")
        self.write({"namespace": "fresh.example", "urls": [self.new.url]})
        self.reload(TAKEN)
        self.assertEqual(self.status_of("fresh.example"), 200)

    def wrong_tables(self) -> list[tuple[str, int, str]]:
        """Return texts of files, the line that is wrong in each, and the key."""
        head = f"listen: ['127.0.0.1:{self.proxy.port}']\nfs_root: {self.proxy.fs_root}\nunlisted: deny\n"
        entry = f"upstreams:\n  - namespace: docker.io\n    urls: ['{self.new.url}']\n"
        fresh = "  - namespace: fresh.example\n"
        return [
            (f"{head}{entry}    library_prefix: true\n", 7, "library_prefix"),
            (f"{head}{entry}{fresh}    urls: [7]\n", 8, "urls"),
            (f"{head}{entry}{fresh}    client_credentials: perhaps\n", 8, "client_credentials"),
            (f"{head}{entry}{fresh}    credentials: {{username: a, password_file: /nowhere}}\n", 8, "password_file"),
            (f"{head}tag_fresh_s: soon\n{entry}", 4, "tag_fresh_s"),
            (f"{head}{entry}{fresh}    urls: ['{self.new.url}'\n", 9, ""),
        ]

    # --- the same judged beforehand

    def test_config_check_judges_as_the_reload_does(self) -> None:
        """Exit 0 for what is served now; 1, with file, line and key, for each wrong one; nothing is connected."""
        asked = len(self.old.asked()) + len(self.new.asked())
        right = self.check(self.proxy.config)
        self.assertEqual(right.returncode, 0, right)
        for number, (text, line, key) in enumerate(self.wrong_tables()):
            file = self.shop.path / f"wrong{number}.yaml"
            file.write_text(text)
            wrong = self.check(file)
            self.assertEqual(wrong.returncode, 1, wrong)
            self.assertIn(f"{file}:{line}:", wrong.stderr)
            self.assertIn(key, wrong.stderr)
            self.assertEqual(wrong.stderr.count("\n"), 1, wrong.stderr)
        self.assertEqual(len(self.old.asked()) + len(self.new.asked()), asked)

    def check(self, file: Path) -> subprocess.CompletedProcess[str]:
        """Type ``ociproxy config check FILE``."""
        words = [sys.executable, "-c", COMMAND, "config", "check", str(file)]
        return subprocess.run(words, env=environment(), capture_output=True, text=True, timeout=30, check=False)
