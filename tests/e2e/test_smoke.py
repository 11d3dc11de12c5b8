"""``ociproxy smoke`` against a real proxy, and the README's sum over its lines."""

from __future__ import annotations

import contextlib
import re
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import bcrypt
from twisted.trial.unittest import SynchronousTestCase

from tests.e2e.certificates import self_signed
from tests.e2e.commands import Done, ociproxy
from tests.e2e.laboratory import LIBRARY, SHORT, LaboratoryTestCase
from tests.e2e.private_laboratory import ALICES, PrivateLaboratoryTestCase
from tests.e2e.processes import ROOT
from tests.e2e.proxy import start_proxy
from tests.e2e.users import ALICE
from tests.readback import parse_logfmt
from txociproxy.cli.trying import KEYS

EVENTS = ("dns", "v2_probe", "manifest", "pull", "pull", "cache_eff")
# In the README the command stands behind a prompt, on one line, and reads the file of this name.
MARK, LINES = "$ awk ", "smoke.log"


def facts(done: Done) -> list[dict[str, str]]:
    """Return the lines of a run; each has only keys of the seed, in its order."""
    lines = [parse_logfmt(line) for line in done.out.splitlines()]
    for line in lines:
        assert list(line) == [key for key in KEYS if key in line], line
    return lines


def events(done: Done) -> list[tuple[str, str]]:
    """Return result and event of each line."""
    return [(line["result"], line["event"]) for line in facts(done)]


def summed(output: str, directory: Path) -> str:
    """Return what the README's command makes of these lines."""
    commands = [line.strip() for line in (ROOT / "README.md").read_text("utf-8").splitlines() if MARK in line]
    assert len(commands) == 1, f"README.md has {len(commands)} lines with {MARK!r}"
    (directory / LINES).write_text(output)
    shell = ["sh", "-c", commands[0].removeprefix("$ ")]
    return subprocess.run(shell, cwd=directory, check=True, capture_output=True, timeout=10, text=True).stdout


def until_over(talk: Callable[[socket.socket], None], connection: socket.socket) -> None:
    """Talk until the other side has gone."""
    with connection, contextlib.suppress(OSError):
        talk(connection)


class SmokeTests(LaboratoryTestCase):
    """Plain HTTP, an upstream without tokens."""

    def smoke(self, *words: object, images: tuple[object, ...] = (LIBRARY,)) -> Done:
        """Run it."""
        named = [word for image in images for word in ("--image", image)]
        return ociproxy("smoke", "--url", f"http://127.0.0.1:{self.proxy.port}", *named, *words)

    def test_two_pulls_and_their_sum(self) -> None:
        """Every line passes, the second pull costs the upstream nothing, and the README's command sums the lines."""
        done = self.smoke("--target", "cache")
        self.assertEqual((done.status, done.err), (0, ""))
        self.assertEqual(events(done), [("pass", event) for event in EVENTS])
        lines = facts(done)
        self.assertEqual({line["target"] for line in lines}, {"cache"})
        self.assertEqual(lines[1]["endpoint"], f"127.0.0.1:{self.proxy.port}")
        first_ms, second_ms = int(lines[3]["ms1"]), int(lines[4]["ms2"])
        self.assertEqual((lines[5]["ms1"], lines[5]["ms2"]), (str(first_ms), str(second_ms)))
        self.assertEqual(lines[5]["speedup_pct"], str(100 * (first_ms - second_ms) // first_ms))
        self.assert_each_digest_once(self.registry.news())
        self.assertEqual(self.proxy.complaints(), [])
        expected = f"pass=6 fail=0 speedup_pct={lines[5]['speedup_pct']}\n"
        self.assertEqual(summed(done.out, self.shop.directory("sum")), expected)

    def test_several_images_one_of_which_is_not_there(self) -> None:
        """Status 1; the sum says how many, and how much faster the others were."""
        done = self.smoke(images=(LIBRARY, "docker.io/library/nothing:1", SHORT))
        self.assertEqual(done.status, 1)
        failed = [line for line in facts(done) if line["result"] == "fail"]
        self.assertEqual([(line["event"], line["code"]) for line in failed], [("manifest", "404")])
        self.assertIn("manifest 1: status 404", done.err)
        gains = [int(line["speedup_pct"]) for line in facts(done) if line["event"] == "cache_eff"]
        self.assertEqual(len(gains), 2)
        total = sum(gains) / 2
        expected = f"pass=10 fail=1 speedup_pct={int(total)}\n"
        self.assertEqual(summed(done.out, self.shop.directory("sum")), expected)

    def test_every_blob_of_the_platform(self) -> None:
        """As a client would, and nothing of other platforms; ``all`` brings everything."""
        self.assertEqual(self.smoke("--platform", "linux/arm64").status, 0)
        asked = {ask.content_name for ask in self.registry.news() if ask.is_content}
        arm, amd = self.image.platform("arm64"), self.image.platform("amd64")
        self.assertLessEqual({arm.manifest_digest, arm.config_digest, *arm.layer_digests}, asked)
        self.assertNotIn(amd.manifest_digest, asked)
        self.assertEqual(self.smoke("--platform", "all").status, 0)
        asked |= {ask.content_name for ask in self.registry.news() if ask.is_content}
        self.assertLessEqual(self.image.digests() - {self.image.index_digest}, asked)

    def test_without_the_upstream_it_is_as_fast(self) -> None:
        """What was pulled once is pulled again."""
        self.assertEqual(self.smoke().status, 0)
        self.registry.stop_all()
        done = self.smoke()
        self.assertEqual(events(done), [("pass", event) for event in EVENTS])

    def test_without_the_proxy_there_is_nothing(self) -> None:
        """The address is known, the registry is not."""
        self.proxy.stop()
        done = self.smoke()
        self.assertEqual((done.status, events(done)), (1, [("pass", "dns"), ("fail", "v2_probe")]))
        self.assertIn("Connection refused", done.err)

    def test_tls(self) -> None:
        """A certificate that nobody has signed is refused, unless it is named or nothing is checked."""
        directory = self.shop.directory("certificates")
        ours, other = self_signed(directory, "ours", "127.0.0.1"), self_signed(directory, "other", "127.0.0.1")
        self.proxy.stop()
        proxy = start_proxy(self.shop, self.registry.url, tls_cert=ours.cert, tls_key=ours.key)
        words = ("smoke", "--url", f"https://127.0.0.1:{proxy.port}", "--image", LIBRARY)
        for trust in (("--ca", ours.cert), ("--insecure",)):
            done = ociproxy(*words, *trust)
            self.assertEqual((done.status, done.err), (0, ""))
        for wrong in ((), ("--ca", other.cert)):
            done = ociproxy(*words, *wrong)
            self.assertEqual((done.status, events(done)), (1, [("pass", "dns"), ("fail", "v2_probe")]))
            self.assertIn("the certificate is not good", done.err)


class PasswordTests(LaboratoryTestCase):
    """The cache has users of its own (htpasswd_file)."""

    def test_a_door_with_passwords(self) -> None:
        """Opens for who is named, and for nobody else."""
        users = self.shop.directory("users") / "htpasswd"
        users.write_text(f"ci:{bcrypt.hashpw(b'secret', bcrypt.gensalt(4)).decode()}\n")
        proxy = start_proxy(self.shop, self.registry.url, htpasswd_file=str(users))
        words = ("smoke", "--url", f"http://127.0.0.1:{proxy.port}", "--image", LIBRARY)
        done = ociproxy(*words, "--user", "ci", env={"SMOKE_PASSWORD": "secret"})
        self.assertEqual((done.status, events(done)), (0, [("pass", event) for event in EVENTS]), done.err)
        done = ociproxy(*words)
        self.assertEqual((done.status, events(done)[2:]), (1, [("fail", "manifest")]))
        self.assertEqual(facts(done)[2]["code"], "401")


class LoginTests(PrivateLaboratoryTestCase):
    """Authenticated mode: the cache's own token server, and the upstream's behind it."""

    mode = "authenticated"

    def smoke(self, *words: object, **env: str) -> Done:
        """Try an image of Alice's."""
        url = f"http://127.0.0.1:{self.proxy.port}"
        return ociproxy("smoke", "--url", url, "--image", ALICES, *words, env=env)

    def test_a_password_from_the_environment_or_a_file(self) -> None:
        """Opens what is Alice's, and is in no line, not of ours and not of the proxy's."""
        file = self.shop.directory("secret") / "password"
        file.write_text(f"{ALICE.password}\n")
        for done in (
            self.smoke("--user", ALICE.name, SMOKE_PASSWORD=ALICE.password),
            self.smoke("--user", ALICE.name, "--password-file", file),
        ):
            self.assertEqual((done.status, events(done)), (0, [("pass", event) for event in EVENTS]), done.err)
            self.assertNotIn(ALICE.password, done.out + done.err)
            self.assertEqual(facts(done)[1]["code"], "401")
        self.assertNotIn(ALICE.password, self.proxy.process.log())

    def test_a_wrong_password_and_none(self) -> None:
        """The manifest is refused."""
        for done in (self.smoke("--user", ALICE.name, SMOKE_PASSWORD="wrong"), self.smoke()):
            self.assertEqual(done.status, 1)
            self.assertEqual(events(done)[2:], [("fail", "manifest")])
            self.assertEqual(facts(done)[2]["code"], "401")
            self.assertNotIn("wrong", done.out + done.err)


class SlowTests(SynchronousTestCase):
    """Servers that keep a client waiting."""

    def serve(self, talk: Callable[[socket.socket], None]) -> int:
        """Take connections on a port until the test is over, each in a thread."""
        listening = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listening.close)

        def accept() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                threading.Thread(target=until_over, args=(talk, connection), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        return int(listening.getsockname()[1])

    def assert_over(self, scheme: str, talk: Callable[[socket.socket], None]) -> None:
        """The probe fails soon after a second, and says why."""
        url = f"{scheme}://127.0.0.1:{self.serve(talk)}"
        began_s = time.monotonic()
        done = ociproxy("smoke", "--url", url, "--image", "a", "--timeout", "1", within_s=20)
        self.assertLess(time.monotonic() - began_s, 6)
        self.assertEqual((done.status, events(done)), (1, [("pass", "dns"), ("fail", "v2_probe")]))
        self.assertIn("not within 1 s", done.err)

    def test_silence(self) -> None:
        """In the answer and in the handshake."""

        def listen(connection: socket.socket) -> None:
            while connection.recv(4096):
                pass

        self.assert_over("http", listen)
        self.assert_over("https", listen)

    def test_byte_by_byte(self) -> None:
        """Each byte comes in time, and the whole does not."""

        def drip(connection: socket.socket) -> None:
            connection.sendall(b"HTTP/1.1 200 OK\r\nX-Slow: ")
            while True:
                connection.sendall(b"x")
                time.sleep(0.05)

        self.assert_over("http", drip)

    def test_a_body_byte_by_byte(self) -> None:
        """The same behind the head."""

        def drip(connection: socket.socket) -> None:
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
            while True:
                connection.sendall(b"x")
                time.sleep(0.05)

        def drip_without_end(connection: socket.socket) -> None:
            connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            while True:
                connection.sendall(b"x")
                time.sleep(0.05)

        self.assert_over("http", drip)
        self.assert_over("http", drip_without_end)

    def test_a_name_that_nobody_knows(self) -> None:
        """Fails in time, whatever the resolver thinks of it."""
        began_s = time.monotonic()
        done = ociproxy("smoke", "--url", "http://nothing.invalid", "--image", "a", "--timeout", "2", within_s=20)
        self.assertLess(time.monotonic() - began_s, 6)
        self.assertEqual((done.status, events(done)), (1, [("fail", "dns")]))
        self.assertRegex(done.err, re.compile(r"^ociproxy smoke: dns: nothing\.invalid: "))
