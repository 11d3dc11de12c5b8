"""The real process is told to stop: who is served gets all of it, or sees that it was cut; nothing partial is kept."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence

from attrs import evolve

from tests.e2e.law_wire import connect, get, request
from tests.e2e.processes import accepts, free_port, wait_until
from tests.e2e.scripts import MIB, Served, Step
from tests.e2e.stopping import ENDLESS, KEPT, SLOW, Client, DrainTestCase


class DrainTests(DrainTestCase):
    """What clients see of it."""

    def test_who_is_served_gets_all_of_it_and_nobody_else_gets_in(self) -> None:
        """A hit for a slow client and a miss from a slow upstream; idle connections end, the doors are closed."""
        proxy = self.start()
        self.keep(proxy)
        missing = self.new(82, SLOW)
        clients = [Client(proxy.port, KEPT, whole_s=8), Client(proxy.port, missing)]
        idle = connect(proxy.port, silent_s=5)
        idle.send(request("/healthz"))
        self.assertEqual(idle.read_answer().status, 200)
        for client in clients:
            client.start()
        wait_until(lambda: len(self.upstream.bodies_of(missing.target)) == 1, 10, "the miss arrives")
        time.sleep(0.5)
        os.kill(proxy.pid, signal.SIGTERM)
        self.assertEqual((idle.read_rest(), idle.over), (b"", "closed"))
        idle.close()
        wait_until(lambda: not accepts(proxy.port), 3, "the door is closed")
        self.assertTrue(all(client.is_alive() for client in clients), "it was too fast to show anything")
        for client in clients:
            client.join(40)
            self.assertEqual((client.answer.ended, client.answer.digest), ("whole", client.served.content.digest))
        self.assertEqual(self.ends(proxy.process, 10), 0)
        self.assertEqual(self.kept(), {KEPT.content.digest, missing.content.digest})
        self.assertEqual(proxy.complaints(), [])
        told = [line["msg"] for line in proxy.lines() if line.get("msg") in ("draining", "still draining", "stopped")]
        self.assertEqual((told[0], told[1], told[-1]), ("draining", "still draining", "stopped"))

    def test_at_the_drain_timeout_the_rest_is_cut(self) -> None:
        """With and without a length, hit and miss; who waits for an answer is refused; nothing partial is kept."""
        for number, drain_timeout in enumerate((1, 0)):
            proxy = self.start(drain_timeout=drain_timeout)
            self.keep(proxy)
            arriving = self.new(90 + number, ENDLESS, size_bytes=8 * MIB)
            chunked = self.new(92 + number, evolve(ENDLESS, chunked=True), size_bytes=8 * MIB)
            silent = self.new(94 + number, Step(delay_s=20), size_bytes=MIB)
            wanted = (KEPT, arriving, chunked, silent)
            clients = [Client(proxy.port, served, whole_s=20 if served is KEPT else 0) for served in wanted]
            for client in clients:
                client.start()
            wait_until(lambda: self.are_asked(wanted[1:]), 10, "asked")  # noqa: B023
            time.sleep(1)
            began_s = time.monotonic()
            os.kill(proxy.pid, signal.SIGTERM)
            self.assertEqual(self.ends(proxy.process, 15), 0)
            self.assertLess(time.monotonic() - began_s, drain_timeout + 6)
            for client in clients:
                client.join(70)
            self.assertEqual([client.answer.status for client in clients], [200, 200, 200, 503])
            for client in clients[:3]:
                self.assertIn(client.answer.ended, ("closed", "reset"), client.served)
                self.assertGreater(len(client.answer.body), 0, client.served)
            self.assertTrue(clients[3].answer.is_oci_error)
            self.assertEqual(self.kept(), {KEPT.content.digest})
            self.assertIn("cut 4 at the drain timeout", [line.get("msg") for line in proxy.lines()])
            self.assertEqual([line["ended"] for line in proxy.lines() if "ended" in line], ["cut"] * 3)
            self.assertEqual(proxy.complaints(), [])

    def test_over_http2_and_tls_it_is_the_same(self) -> None:
        """A body of unknown length comes whole; at the drain timeout no client takes the rest for it."""
        ways = (("--http2-prior-knowledge", "http"), ("--http2", "https"), ("--http1.1", "https"))
        for number, (how, scheme) in enumerate(ways):
            for drain_timeout in (30, 1):
                port = free_port()
                listen = [f"{scheme}://127.0.0.1:{port}"]
                proxy = self.start(drain_timeout=drain_timeout, generate_self_signed_tls=True, listen=listen)
                step = Step(chunk_bytes=256 * 1024, pause_s=0.05, chunked=True)
                size_bytes = (4 if drain_timeout > 1 else 8) * MIB
                served = self.new(130 + 10 * number + drain_timeout, step, size_bytes)
                file = self.shop.directory("body") / "body"
                url = f"{scheme}://127.0.0.1:{port}{served.target}?ns=docker.io"
                curl = self.shop.start("curl", ["curl", "-sSk", how, "--max-time", 30, "-o", file, url])
                wait_until(lambda: file.exists() and file.stat().st_size > MIB // 2, 10, "it comes")  # noqa: B023
                os.kill(proxy.pid, signal.SIGTERM)
                status = self.ends(curl, 20)
                self.assertEqual(self.ends(proxy.process, 10), 0)
                self.assertEqual(status == 0, drain_timeout == 30, (how, status, curl.log()))
                if status == 0:
                    self.assertEqual(file.read_bytes(), served.content.data())
                self.assertEqual(proxy.complaints(), [])

    def test_the_door_of_whoever_runs_it_stays_open(self) -> None:
        """It tells that the proxy is not ready any more, while somebody is still served."""
        admin = free_port()
        proxy = self.start(admin_listen=f"127.0.0.1:{admin}")
        served = self.new(140, Step(chunk_bytes=128 * 1024, pause_s=0.1), size_bytes=3 * MIB)
        client = Client(proxy.port, served)
        client.start()
        wait_until(lambda: self.are_asked([served]), 10, "the miss arrives")
        self.assertEqual([get(port, "/readyz").status for port in (proxy.port, admin)], [200, 200])
        os.kill(proxy.pid, signal.SIGTERM)
        wait_until(lambda: not accepts(proxy.port), 3, "the door is closed")
        answer = get(admin, "/readyz")
        self.assertEqual((answer.status, b"draining" in answer.body), (503, True))
        client.join(20)
        self.assertEqual(client.answer.digest, served.content.digest)
        self.assertEqual(self.ends(proxy.process, 5), 0)

    def are_asked(self, wanted: Sequence[Served]) -> bool:
        """Whether upstream was asked for all of these."""
        return {served.target for served in wanted} <= {ask.target for ask in self.upstream.asked()}

    def test_either_signal_ends_it_well_and_the_second_ends_it_at_once(self) -> None:
        """The status is that of a shell: 128 and the number of the second."""
        cases = (
            (signal.SIGTERM, None, 0),
            (signal.SIGINT, None, 0),
            (signal.SIGTERM, signal.SIGTERM, 143),
            (signal.SIGINT, signal.SIGTERM, 143),
            (signal.SIGTERM, signal.SIGINT, 130),
        )
        for number, (first, second, status) in enumerate(cases):
            proxy = self.start()
            served = self.new(100 + number, ENDLESS if second else Step(), size_bytes=MIB)
            client = Client(proxy.port, served)
            client.start()
            wait_until(lambda: len(self.upstream.bodies_of(served.target)) > 0, 10, "the miss arrives")  # noqa: B023
            os.kill(proxy.pid, first)
            if second is not None:
                proxy.process.wait_for(lambda: "msg=draining" in proxy.process.log(), 5, "drains")  # noqa: B023
                os.kill(proxy.pid, second)
            self.assertEqual(self.ends(proxy.process, 5), status, (first, second))
            client.join(10)
