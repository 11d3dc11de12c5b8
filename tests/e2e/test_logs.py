"""Log lines of the real process: both forms, every place they can go, and the names of requests in them."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from tests.e2e.law_wire import get
from tests.e2e.processes import Process, Workshop, accepts, environment, free_port, run, wait_until
from tests.e2e.proxy import write_config
from tests.e2e.scripts import Content, blob, start_scripted
from tests.readback import parse_logfmt

BODY = Content(size_bytes=100_000, seed=71)
STATUS = {
    "miss": "txociproxy; fwd=uri-miss; stored",
    "join": "txociproxy; fwd=uri-miss; collapsed",
    "hit": "txociproxy; hit",
}
# A /dev of its own, in which somebody listens as syslog does.
OWN_DEV = """
set -e
for name in null zero random urandom; do : > "$0/$name"; mount --bind "/dev/$name" "$0/$name"; done
: > "$0/log"; mount --bind "$1" "$0/log"
mount --rbind "$0" /dev
shift
exec "$@"
"""


class LogCase(SynchronousTestCase):
    """A registry with one blob, and what listens in front of it."""

    def setUp(self) -> None:
        """Start the registry."""
        self.shop = Workshop()
        self.addCleanup(self.shop.close)
        self.blob = blob("org/blob", BODY)
        self.upstream = start_scripted(self.shop, self.blob)
        self.port = free_port()

    def start(self, *words: object, before: tuple[object, ...] = (), **settings: object) -> Process:
        """Start ``twistd`` with these words of its own, and the proxy with these settings."""
        file = self.shop.directory("config") / "ociproxy.yaml"
        write_config(file, self.port, self.shop.directory("store"), self.upstream.url, **settings)
        twistd = Path(sys.executable).with_name("twistd")
        argv = [*before, sys.executable, twistd, "-n", "--pidfile=", *words]
        process = self.shop.start("proxy", [*argv, "ociproxy", "--mode", "transparent", "--config", file])
        process.wait_for(lambda: accepts(self.port), 30, "listens")
        return process

    def pull(self, name: str) -> str:
        """Pull the blob under a request's name; returns what the answer says of the cache."""
        answer = get(self.port, f"{self.blob.target}?ns=docker.io", f"X-Request-Id: {name}", f"User-Agent: test {name}")
        self.assertEqual((answer.status, answer.digest), (200, BODY.digest))
        self.assertEqual(answer.fields["x-request-id"], name)
        # Its line is written behind its back; a later request is answered after that.
        get(self.port, "/healthz")
        return answer.fields["cache-status"]


class FormTests(LogCase):
    """What a line is."""

    def test_logfmt_names_the_request_that_its_client_named(self) -> None:
        """In the answer and in the line of the pull; Cache-Status says what the outcome says."""
        process = self.start()
        said = [self.pull("first.1"), self.pull("second.2")]
        lines = [parse_logfmt(line) for line in process.log().splitlines()]
        pulls = [line for line in lines if line["msg"] == "pull"]
        self.assertEqual([line["request_id"] for line in pulls], ["first.1", "second.2"])
        self.assertEqual([line["user_agent"] for line in pulls], ["test first.1", "test second.2"])
        self.assertEqual(said, [STATUS[line["outcome"]] for line in pulls])
        # It is kept behind its client's back, so that the second may still join the first.
        self.assertEqual((pulls[0]["outcome"], pulls[1]["outcome"] in ("hit", "join")), ("miss", True))

    def test_http2_names_requests_too(self) -> None:
        """A stream is one like any other."""
        process = self.start()
        words = ["curl", "-sS", "--http2-prior-knowledge", "-D", "-", "-H", "X-Request-Id: h2.1"]
        url = f"http://127.0.0.1:{self.port}{self.blob.target}?ns=docker.io"
        told = run([*words, "-o", "/dev/null", url], 30)
        said = re.findall(r"(?m)^(HTTP/2 200|x-request-id: .*?|cache-status: .*?)\s*$", told)
        self.assertEqual(said, ["HTTP/2 200", "x-request-id: h2.1", f"cache-status: {STATUS['miss']}"])
        get(self.port, "/healthz")
        lines = [parse_logfmt(line) for line in process.log().splitlines()]
        self.assertEqual([line["request_id"] for line in lines if line["msg"] == "pull"], ["h2.1"])

    def test_json_is_one_object_a_line_and_traces_name_their_request(self) -> None:
        """From the first line to the last; upstreams' lines belong to the pull that asked them."""
        process = self.start(log_format="json", log_level="trace")
        self.pull("n.1")
        self.assertEqual(process.stop(), 0)
        objects = [json.loads(line) for line in process.log().splitlines()]
        for each in objects:
            self.assertEqual(list(each)[:3], ["ts", "level", "msg"])
        (pull,) = (each for each in objects if each["msg"] == "pull")
        self.assertEqual((pull["status"], pull["bytes"], type(pull["duration"])), (200, BODY.size_bytes, float))
        traced = [each for each in objects if each["level"] == "trace"]
        self.assertEqual({each["request_id"] for each in traced}, {"n.1"})
        self.assertEqual({each["msg"] for each in traced}, {"upstream request", "upstream answer"})
        self.assertIsNone(next(each for each in objects if each["msg"] == "listening").get("request_id"))


class PlaceTests(LogCase):
    """Where lines go."""

    def test_a_log_file_may_be_moved_away(self) -> None:
        """What comes next, also of a reload, is in a new one; the signal that twistd rotates logs with ends nothing."""
        path = self.shop.directory("log") / "proxy.log"
        process = self.start("--logfile", path)
        self.pull("before")
        moved = path.rename(path.with_suffix(".1"))
        os.kill(process.pid, signal.SIGUSR1)
        os.kill(process.pid, signal.SIGHUP)
        self.pull("after")
        wait_until(lambda: "configuration reloaded" in path.read_text(), 10, "the reload is in the new file")
        for file, name in ((moved, "before"), (path, "after")):
            pulls = [line for line in map(parse_logfmt, file.read_text().splitlines()) if line["msg"] == "pull"]
            self.assertEqual([line["request_id"] for line in pulls], [name])
        self.assertEqual(process.log(), "")

    def test_a_standard_output_that_is_gone_stops_nothing(self) -> None:
        """Neither pulls nor a good end; and with none from the start no line gets anywhere else."""
        for closed in (False, True):
            read, write = os.pipe()
            words = ["sh", "-c", 'exec "$@" >&-' if closed else 'exec "$@"', "sh", *self.words()]
            child = subprocess.Popen(words, env=environment(), stdout=write, start_new_session=True)
            self.addCleanup(child.wait, 5)
            self.addCleanup(child.kill)
            os.close(write)
            try:
                wait_until(lambda: accepts(self.port), 30, "listens")
                os.close(read)
                read = -1
                for name in ("one", "two"):
                    self.pull(name)
                child.terminate()
                self.assertEqual(child.wait(20), 0)
            finally:
                if read >= 0:
                    os.close(read)

    def words(self) -> list[str]:
        """Return what starts a proxy."""
        file = self.shop.directory("config") / "ociproxy.yaml"
        write_config(file, self.port, self.shop.directory("store"), self.upstream.url)
        twistd = str(Path(sys.executable).with_name("twistd"))
        mode = ["--mode", "transparent", "--config", str(file)]
        return [sys.executable, twistd, "-n", "--pidfile=", "ociproxy", *mode]

    def test_journald_learns_each_lines_level(self) -> None:
        """By the number in front; only where its own stream is our output."""
        for offset, mark in ((0, "<6>ts="), (1, "ts=")):
            log = self.shop.path / f"journal-{len(self.shop.processes)}.log"
            log.touch()
            found = log.stat()
            stream = {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino + offset}"}
            process = self.shop.start("journal", self.words(), stream)
            process.wait_for(lambda: accepts(self.port), 30, "listens")
            process.stop()
            lines = process.log().splitlines()
            self.assertIn("starting", lines[0])
            self.assertEqual([line for line in lines if not line.startswith(mark)], [])

    def test_syslog_gets_the_same_lines(self) -> None:
        """One message each, from ``--prefix``, with the priority of its level; JSON too."""
        unshare = shutil.which("unshare")
        if unshare is None or subprocess.run([unshare, "-m", "true"], check=False, capture_output=True).returncode:
            raise SkipTest("needs a mount namespace of its own, so that nobody's syslog is touched")
        device = self.shop.directory("dev")
        place = str(device.with_name("syslog"))
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
            listener.bind(place)
            listener.settimeout(10)
            before = (unshare, "-m", "sh", "-c", OWN_DEV, device, place)
            process = self.start("--syslog", "--prefix", "cache", before=before, log_format="json")
            self.pull("s.1")
            found = None
            while found is None:
                message = listener.recv(8192).decode("ascii")
                number, rest = re.fullmatch(r"<(\d+)>... .. ..:..:.. cache\[\d+\]: (\{.*\})\n?\0?", message).groups()  # type: ignore[union-attr]
                said = json.loads(rest)
                self.assertEqual(int(number), 3 * 8 + 6, "LOG_DAEMON, LOG_INFO")
                found = said if said["msg"] == "pull" else None
            self.assertEqual(found["request_id"], "s.1")
            process.stop()
        self.assertEqual(process.log(), "")
