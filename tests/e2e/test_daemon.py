"""A daemon that does not begin: who has started it is told, and nothing is left of it."""

from __future__ import annotations

import os
import signal
import socket
import sys
from pathlib import Path

from tests.e2e.processes import Process, accepts, free_port, wait_until
from tests.e2e.proxy import write_config
from tests.e2e.stopping import TWISTD, DrainTestCase


class DaemonTests(DrainTestCase):
    """``twistd ociproxy`` without ``-n``."""

    def daemon(self, port: int, *program: object) -> Process:
        """Start it; the process that is returned is who waits for the daemon."""
        self.folder = self.shop.directory("daemon")
        file = self.folder / "ociproxy.yaml"
        write_config(file, port, self.root, self.upstream.url, min_free=0)
        words = [f"--pidfile={self.folder}/pid", f"--logfile={self.folder}/log", "ociproxy", "--mode", "transparent"]
        return self.shop.start("starter", [sys.executable, *program, *words, "--config", file])

    @property
    def pid(self) -> int:
        """The number of the daemon; 0 before it is known."""
        file = Path(self.folder / "pid")
        return int(file.read_text() or 0) if file.exists() else 0

    def test_it_begins_and_ends(self) -> None:
        """The starter ends well when it listens; so does the daemon at SIGTERM, and its number goes with it."""
        port = free_port()
        self.assertEqual(self.ends(self.daemon(port, TWISTD), 20), 0)
        self.assertTrue(accepts(port))
        os.kill(self.pid, signal.SIGTERM)
        wait_until(lambda: not self.pid, 10, "has ended")
        self.assertIn("msg=stopped", (self.folder / "log").read_text())

    def test_a_port_that_is_taken_is_told(self) -> None:
        """The starter fails and says why, instead of waiting for ever."""
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            starter = self.daemon(other.getsockname()[1], TWISTD)
            self.assertEqual(self.ends(starter, 20), 1)
        self.assertIn("--listen: ", starter.log())
        self.assertEqual(self.pid, 0)

    def test_a_signal_before_it_begins_is_told(self) -> None:
        """While its disk hangs, say."""
        self.orders.write_text("hang")
        port = free_port()
        starter = self.daemon(port, *self.dying())
        wait_until(lambda: self.pid > 0 and accepts(port), 20, "the door is open")
        os.kill(self.pid, signal.SIGTERM)
        self.assertEqual(self.ends(starter, 10), 1)
        self.assertIn("ended by a signal", starter.log())
        self.assertEqual(self.pid, 0)
