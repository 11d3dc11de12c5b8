"""The OpenRC script, run by Debian's OpenRC in a Debian of our own: start, status, reload, crash, stop."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import yaml
from attrs import frozen
from twisted.trial.unittest import SynchronousTestCase

from tests.e2e.debian import installed_tree, want_root
from tests.e2e.processes import ROOT, Process, Workshop, accepts, free_port, run, wait_until
from tests.e2e.proxy import ask
from tests.e2e.scripts import Content, Step, blob, start_scripted

SCRIPT = ROOT / "deploy/openrc/txociproxy.initd"
NAME = "txociproxy"
CACHE, LOG = f"var/cache/{NAME}", f"var/log/{NAME}/{NAME}.log"
# What `openrc` makes at boot, and what says that somebody has booted.
STATES = "daemons exclusive failed hotplugged inactive options scheduled started starting stopping tmp wasinactive"
# A process number one that waits for orphans, as init does; the mounts below the root of its namespace end with it.
ROOM = """
set -e
mount -t proc proc {tree}/proc
mount -t tmpfs tmpfs {tree}/run
mkdir {tree}/run/openrc && cd {tree}/run/openrc && mkdir {states} && : >softlevel
while :; do sleep 1; done
"""


@frozen
class Said:
    """What a command in the room answered."""

    status: int
    text: str


class OpenRCTests(SynchronousTestCase):
    """``rc-service txociproxy`` with the script and files as docs/operations.md installs them."""

    def setUp(self) -> None:
        """Install the script into a fresh machine, with an upstream on loopback."""
        want_root("unshare", "nsenter", "chroot")
        self.tree = installed_tree()
        self.shop = Workshop()
        self.addCleanup(self.shop.close)
        self.install()
        self.room = self.open_room()
        self.content = Content(300_000, 5)
        self.upstream = start_scripted(self.shop, blob("library/sample", self.content))
        self.port = free_port()
        file = "/etc/txociproxy/c.yaml"
        self.tell(PROXY_MODE="transparent", LISTEN_ADDR=f"127.0.0.1:{self.port}", OCIPROXY_CONFIG=file)
        table = [{"namespace": "docker.io", "urls": [self.upstream.url]}]
        Path(f"{self.tree}{file}").write_text(yaml.safe_dump({"upstreams": table}))

    def install(self) -> None:
        """Put the script in, and remove what an earlier test has left."""
        for left in (CACHE, Path(LOG).parent, "etc/txociproxy"):
            shutil.rmtree(self.tree / left, ignore_errors=True)
        (self.tree / "etc/txociproxy").mkdir()
        (self.tree / "etc/conf.d").mkdir(exist_ok=True)
        shutil.copyfile(SCRIPT, self.tree / "etc/init.d" / NAME)
        shutil.copyfile(SCRIPT.with_suffix(".confd"), self.tree / "etc/conf.d" / NAME)
        (self.tree / "etc/init.d" / NAME).chmod(0o755)
        if NAME not in (self.tree / "etc/passwd").read_text():
            adding = [
                "useradd",
                "--system",
                "--no-create-home",
                "--home-dir",
                f"/{CACHE}",
                "--shell",
                "/usr/sbin/nologin",
            ]
            run(["chroot", self.tree, *adding, NAME], 30)

    def open_room(self) -> Process:
        """Start what holds the namespaces; all that runs in them ends with it."""
        script = ROOM.format(tree=self.tree, states=STATES)
        unshare = ["unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child"]
        room = self.shop.start("room", [*unshare, "sh", "-c", script])
        self.addCleanup(room.kill)
        room.wait_for(lambda: self.do("test -e /run/openrc/softlevel").status == 0, 10, "is furnished")
        return room

    def do(self, command: str) -> Said:
        """Type a command as root in the room."""
        holder = self.shop.processes[0].pid
        children = Path(f"/proc/{holder}/task/{holder}/children").read_text().split()
        enter = ["nsenter", "--target", *children[:1], "--mount", "--pid"]
        words = [*enter, "chroot", str(self.tree), "/bin/sh", "-c", command]
        env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
        done = subprocess.run(words, env=env, capture_output=True, check=False, timeout=60, stdin=subprocess.DEVNULL)
        return Said(done.returncode, (done.stdout + done.stderr).decode("utf-8", "replace"))

    def service(self, verb: str, status: int = 0) -> str:
        """Type ``rc-service txociproxy VERB``, and have it end as it should."""
        said = self.do(f"rc-service {NAME} {verb}")
        log = self.tree / LOG
        self.assertEqual(said.status, status, f"{verb}: {said.text}\n{log.read_text() if log.exists() else ''}")
        return said.text

    def tell(self, **variables: str) -> None:
        """Write /etc/txociproxy/env, for root only."""
        file = self.tree / "etc/txociproxy/env"
        file.write_text("".join(f"{name}={value}\n" for name, value in variables.items()))
        file.chmod(0o600)

    def ids(self, name: str = NAME) -> tuple[int, int]:
        """Return user and group of an account of the machine."""
        line = next(line for line in (self.tree / "etc/passwd").read_text().splitlines() if line.startswith(f"{name}:"))
        return int(line.split(":")[2]), int(line.split(":")[3])

    def assert_owned(self, path: Path | str, mode: int) -> None:
        """The service owns the file, and others may do just this with it."""
        facts = (self.tree / path).stat()
        self.assertEqual(((facts.st_uid, facts.st_gid), oct(facts.st_mode & 0o777)), (self.ids(), oct(mode)), path)

    def pull(self) -> bytes:
        """Fetch the blob through the cache."""
        status, _, body = ask(self.port, "GET", f"/v2/docker.io/library/sample/blobs/{self.content.digest}")
        self.assertEqual(status, 200)
        return body

    def test_it_starts_serves_reloads_and_stops(self) -> None:
        """Each verb does what it says and tells the truth, and the cache runs as a user that owns nothing else."""
        self.assertIn("stopped", self.service("status", 3))
        self.service("start")
        self.assertIn("started", self.service("status"))
        self.assertEqual(self.pull(), self.content.data())
        process = self.do("cat /proc/$(cat /run/txociproxy.pid)/status").text
        uid, gid = self.ids()
        self.assertEqual(re.findall(r"^Uid:\s+(\d+)\s+(\d+)", process, re.M), [(str(uid), str(uid))])
        self.assertEqual(re.findall(r"^Groups:\s+([\d ]+?)\s*$", process, re.M), [str(gid)])
        self.assertEqual(re.findall(r"^Umask:\s+(\d+)", process, re.M), ["0077"])
        self.assert_owned(CACHE, 0o700)
        digest = self.content.digest.partition(":")[2]
        kept = f"{CACHE}/blobs/sha256/{digest[:2]}/{digest}"
        wait_until((self.tree / kept).exists, 10, "is kept")
        self.assert_owned(kept, 0o600)
        self.service("reload")
        log = self.tree / LOG
        wait_until(lambda: "configuration reloaded" in log.read_text(), 10, "reloads")
        self.service("stop")
        self.assertIn("stopped", self.service("status", 3))
        self.assertFalse(accepts(self.port))
        self.assertEqual(self.do("pgrep -f twistd || ls /run/txociproxy.pid").status, 2)

    def test_a_log_that_root_has_begun_does_not_keep_it_from_starting(self) -> None:
        """What a run by hand as root has left is given to the service, with what is in it."""
        log = self.tree / LOG
        log.parent.mkdir(parents=True)
        log.write_text("of an earlier run\n")
        log.chmod(0o600)
        self.service("start")
        self.assertEqual(self.pull(), self.content.data())
        self.assert_owned(LOG, 0o640)
        self.assertTrue(log.read_text().startswith("of an earlier run\n"))
        self.assertIn("msg=listening", log.read_text())

    def test_a_storage_that_root_has_begun_is_not_started_on_and_the_remedy_is_said(self) -> None:
        """The command that it prints is one that helps; lost+found, which is root's on every disk, is no trouble."""
        (self.tree / CACHE / "lost+found").mkdir(parents=True)
        (self.tree / CACHE / "blobs/sha256").mkdir(parents=True)
        text = self.service("start", 1)
        remedy = re.search(r"chown -Rh txociproxy:txociproxy /var/cache/txociproxy$", text, re.M)
        assert remedy is not None, text
        self.assertEqual((self.tree / LOG).read_text(), "")
        self.assertEqual(self.do(remedy[0]).status, 0)
        shutil.rmtree(self.tree / CACHE / "lost+found")
        (self.tree / CACHE / "lost+found").mkdir()
        self.service("start")
        self.assertEqual(self.pull(), self.content.data())

    def test_a_configuration_that_is_wrong_is_said_by_start(self) -> None:
        """Nobody has to look into a log to learn that the mode is missing, and the service is not called started."""
        self.tell(LISTEN_ADDR=f"127.0.0.1:{self.port}")
        self.assertIn("PROXY_MODE", self.service("start", 1))
        self.assertIn("stopped", self.service("status", 3))

    def test_a_crash_is_seen_and_restart_mends_it(self) -> None:
        """SIGKILL leaves nothing that stands in the way."""
        self.service("start")
        self.assertEqual(self.do("kill -9 $(cat /run/txociproxy.pid)").status, 0)
        wait_until(lambda: not accepts(self.port), 10, "is gone")
        self.assertIn("crashed", self.service("status", 32))
        self.service("restart")
        self.assertEqual(self.pull(), self.content.data())

    def test_a_dead_process_that_nobody_has_waited_for_is_dead(self) -> None:
        """In a container whose first process does not care for orphans they stay in /proc."""
        self.service("start")
        self.assertEqual(self.do("kill -9 $(cat /run/txociproxy.pid)").status, 0)
        zombie = "sleep 0.2 & echo $! >/run/txociproxy.pid; exec sleep 30"
        self.assertEqual(self.do(f"sh -c '{zombie}' >/dev/null 2>&1 & sleep 0.5").status, 0)
        self.assertIn("Z", self.do("cut -d' ' -f3 /proc/$(cat /run/txociproxy.pid)/stat").text)
        self.assertIn("crashed", self.service("status", 32))

    def test_the_number_of_a_dead_process_may_be_another_s_by_now(self) -> None:
        """What is left of a crash neither keeps it from starting nor lets it end somebody else."""
        other = "/opt/txociproxy/bin/python -c 'import time; time.sleep(30)' >/dev/null 2>&1"
        self.assertEqual(self.do(f"{other} & echo $! | tee /run/other >/run/txociproxy.pid").status, 0)
        self.service("start")
        self.assertEqual(self.pull(), self.content.data())
        self.service("stop")
        self.assertEqual(self.do("kill -0 $(cat /run/other)").status, 0)

    def test_stop_waits_for_a_pull(self) -> None:
        """A pull that runs when the service is stopped gets its whole body, and the stop comes after that."""
        slow = Content(2_000_000, 6)
        target = blob("library/slow", slow, Step(chunk_bytes=100_000, pause_s=0.1))
        self.upstream.serve(target)
        self.service("start")
        url = f"http://127.0.0.1:{self.port}/v2/docker.io/library/slow/blobs/{slow.digest}"
        out = self.shop.path / "slow"
        curl = self.shop.start("curl", ["curl", "-sS", "--fail", "-o", out, url])
        curl.wait_for(lambda: out.exists() and out.stat().st_size > 0, 10, "has begun")
        self.service("stop")
        self.assertEqual(curl.popen.wait(5), 0)
        self.assertEqual(out.read_bytes(), slow.data())
        self.assertIn("stopped", self.service("status", 3))
