"""Something hangs, or is short: the real process ends all the same when it is told to, and goes on until then."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import time
from pathlib import Path
from unittest import SkipTest

from tests.e2e.law_wire import connect, get, request
from tests.e2e.processes import accepts, free_port, run, wait_until
from tests.e2e.proxy import Proxy
from tests.e2e.scripts import MIB, Step
from tests.e2e.stopping import KEPT, SLOW, Client, DrainTestCase
from tests.storage.disks import Disk

# The product, with a thread of the reactor's own pool that never ends, as one that asks a dead name server.
HANGING = """
import sys, threading
from twisted.internet import reactor
from twisted.scripts import twistd
reactor.callWhenRunning(reactor.callInThread, threading.Event().wait)
twistd.run()
"""


class HangingTests(DrainTestCase):
    """What never ends does not keep the process from it."""

    def hung(self) -> Proxy:
        """Return a proxy of which a thread hangs in a write."""
        proxy = self.start(program=self.dying(), drain_timeout=2, spool_stall_s=2)
        self.orders.write_text("hang")
        served = self.new(110, Step(), size_bytes=MIB)
        self.assertEqual(get(proxy.port, f"{served.target}?ns=docker.io").digest, served.content.digest)
        return proxy

    def test_a_thread_that_hangs_on_the_disk_does_not_hold_up_the_end(self) -> None:
        """It ends well by itself, within the bounds of what is published."""
        proxy = self.hung()
        os.kill(proxy.pid, signal.SIGTERM)
        self.assertEqual(self.ends(proxy.process, 15), 0)
        self.assertIn("threads that hang are left behind", proxy.process.log())
        self.orders.unlink()
        Disk(self.root).storage.prepare("transparent")
        self.assertEqual(self.kept(), set())

    def test_the_second_signal_does_not_wait_for_a_disk(self) -> None:
        """Neither while it drains, nor while it waits for the threads."""
        for text in ("msg=draining", "goes on unkept"):
            proxy = self.hung()
            os.kill(proxy.pid, signal.SIGTERM)
            proxy.process.wait_for(lambda: text in proxy.process.log(), 10, text)  # noqa: B023
            os.kill(proxy.pid, signal.SIGTERM)
            self.assertEqual(self.ends(proxy.process, 5), 143)
            self.orders.unlink()

    def test_a_start_that_hangs_is_ended_by_the_first_signal(self) -> None:
        """There is nobody who could be served."""
        self.orders.write_text("hang")
        proxy = self.begin(program=self.dying())
        proxy.process.wait_for(lambda: accepts(proxy.port), 20, "the door is open")
        time.sleep(0.3)
        self.assertNotIn("msg=listening", proxy.process.log())
        os.kill(proxy.pid, signal.SIGTERM)
        self.assertEqual(self.ends(proxy.process, 3), 143)

    def test_threads_of_the_reactor_that_hang_do_not_hold_up_the_end(self) -> None:
        """The process leaves with 0 some seconds later, or at the second signal, though the reactor is blocked."""
        for second, status in ((False, 0), (True, 143)):
            proxy = self.start(program=("-c", HANGING))
            os.kill(proxy.pid, signal.SIGTERM)
            proxy.process.wait_for(lambda: "msg=stopped" in proxy.process.log(), 5, "all else has ended")  # noqa: B023
            began_s = time.monotonic()
            if second:
                os.kill(proxy.pid, signal.SIGTERM)
            self.assertEqual(self.ends(proxy.process, 10), status)
            self.assertEqual(time.monotonic() - began_s > 3, not second)
            self.assertEqual("something hangs at the end" in proxy.process.log(), not second)


class DeafTests(DrainTestCase):
    """Clients that do not hear that we close."""

    def test_idle_clients_that_do_not_look_are_not_waited_for_until_the_drain_timeout(self) -> None:
        """Under TLS both sides say goodbye, and some clients look at a connection only when they need it."""
        for scheme, within_s in (("http", 15), ("https", 18)):
            port = free_port()
            proxy = self.start(generate_self_signed_tls=True, listen=[f"{scheme}://127.0.0.1:{port}"], drain_timeout=60)
            idle = self.idle(scheme, port)
            os.kill(proxy.pid, signal.SIGTERM)
            self.assertEqual(self.ends(proxy.process, within_s), 0)
            idle.close()

    def idle(self, scheme: str, port: int) -> socket.socket:
        """Return an idle connection of a client that does not look whether it is still there."""
        sock = socket.create_connection(("127.0.0.1", port), 10)
        if scheme == "https":
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            sock = context.wrap_socket(sock)
        self.addCleanup(sock.close)
        sock.sendall(request("/healthz"))
        self.assertTrue(sock.recv(1).startswith(b"H"))
        return sock


class FirstOfItsContainerTests(DrainTestCase):
    """As process 1, which gets no signal that it has no handler for."""

    def test_signals_work_as_process_1(self) -> None:
        """Also during the start, when a disk hangs."""
        within = ("unshare", "--pid", "--fork", "--kill-child")
        try:
            run([*within, "true"], 10)
        except AssertionError as error:
            raise SkipTest("no namespace can be made here") from error
        proxy = self.start(within)
        os.kill(self.inner(proxy), signal.SIGTERM)
        self.assertEqual(self.ends(proxy.process, 10), 0)
        self.orders.write_text("hang")
        proxy = self.begin(within, program=self.dying())
        proxy.process.wait_for(lambda: accepts(proxy.port), 20, "the door is open")
        os.kill(self.inner(proxy), signal.SIGTERM)
        self.assertEqual(self.ends(proxy.process, 5), 143)

    def inner(self, proxy: Proxy) -> int:
        """Return the process that is number 1 where it runs."""
        children = Path(f"/proc/{proxy.pid}/task/{proxy.pid}/children").read_text().split()
        return int(children[0])


class FilesTests(DrainTestCase):
    """Fewer descriptors than the caps may need."""

    def test_too_few_files_are_said_and_do_no_harm(self) -> None:
        """A warning at the start; when none is left others are turned away, who is served goes on, nothing spins."""
        proxy = self.start(("sh", "-c", 'ulimit -n 100; exec "$@"', "sh"))
        warning = next(line for line in proxy.lines() if "files may be open" in line.get("msg", ""))
        self.assertEqual((warning["level"], warning["allowed"]), ("warn", "100"))
        self.assertGreater(int(warning["needed"]), 8192)
        self.assertIn("LimitNOFILE=", warning["msg"])
        client = Client(proxy.port, self.new(120, SLOW))
        client.start()
        wait_until(lambda: len(self.upstream.bodies_of(client.served.target)) == 1, 10, "the miss arrives")
        crowd = [connect(proxy.port) for _ in range(150)]
        wait_until(lambda: len(os.listdir(f"/proc/{proxy.pid}/fd")) >= 98, 10, "no descriptor is left")
        self.assertTrue(client.is_alive(), "it was too fast to show anything")
        client.join(40)
        self.assertEqual((client.answer.ended, client.answer.digest), ("whole", client.served.content.digest))
        before_s, before = time.monotonic(), _cpu_s(proxy.pid)
        time.sleep(1)
        self.assertLess(_cpu_s(proxy.pid) - before, 0.5 * (time.monotonic() - before_s))
        for wire in crowd:
            wire.close()
        wait_until(lambda: len(os.listdir(f"/proc/{proxy.pid}/fd")) < 60, 10, "the crowd has gone")
        self.assertEqual(get(proxy.port, f"{KEPT.target}?ns=docker.io").digest, KEPT.content.digest)


def _cpu_s(pid: int) -> float:
    """Return how long a process has been busy."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
