"""Clients that are slow on purpose: they are closed in time, cost little, and hold up nobody (RULES A5)."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator

from attrs import define, field
from twisted.trial.unittest import SynchronousTestCase

from tests.e2e.law_wire import Answer, connect, get, request
from tests.e2e.processes import Workshop, wait_until
from tests.e2e.proxy import Proxy, start_proxy
from tests.e2e.scripts import MIB, Content, Step, blob, start_scripted

CLIENTS = 500
# From so many addresses, each below its cap of 256 connections.
ADDRESSES = 5
HEADER_S, IDLE_S, STALL_S = 4.0, 1.5, 2.0
# What a machine that has other things to do may be late by.
LATE_S = 4.0
MAX_BYTES_EACH = 32 * 1024
HEAD = request("/v2/library/slow/manifests/1", f"Authorization: Bearer {'x' * 4000}")
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
# What a client has sent before it becomes slow, and what it sends then, byte by byte.
WAYS = {
    "nothing at all": (b"", b""),
    "a head byte by byte": (b"", HEAD),
    "half a head": (HEAD[: len(HEAD) // 2], b""),
    "lines and no end of them": (HEAD[:-2], b"X-More: 1\r\n" * 100),
    "half a preface of HTTP/2": (PREFACE[:10], b""),
    "a preface byte by byte": (b"", PREFACE),
    "a preface and half its settings": (PREFACE + b"\x00\x00\x06\x04", b""),
}
BIG = blob("library/slow", Content(size_bytes=64 * MIB, seed=77), afterwards=Step(chunk_bytes=512 * 1024, pause_s=0.05))
KEPT = blob("library/kept", Content(size_bytes=64 * MIB, seed=78))


@define(eq=False)
class Slow:
    """One slow client.

    :ivar lived_s: how long its connection has lasted, once it is closed.
    """

    way: str
    sock: socket.socket
    began_s: float = field(factory=time.monotonic)
    lived_s: float | None = None
    _more: Iterator[int] = field(init=False)

    def __attrs_post_init__(self) -> None:
        first, more = WAYS[self.way]
        self._more = iter(more)
        self.sock.sendall(first)
        self.sock.setblocking(False)

    def go_on(self) -> None:
        """Send one byte more, if there is one, and see whether we are still welcome."""
        try:
            byte = next(self._more, None)
            if byte is not None:
                self.sock.send(bytes([byte]))
            while self.sock.recv(65536):
                pass
        except BlockingIOError:
            return
        except ConnectionError:
            pass
        self.lived_s = time.monotonic() - self.began_s
        self.sock.close()


class SlowTests(SynchronousTestCase):
    """A proxy with short times."""

    timeout = 120

    def setUp(self) -> None:
        """Start upstream and proxy."""
        self.shop = Workshop()
        self.addCleanup(self.shop.close)
        self.upstream = start_scripted(self.shop, BIG, KEPT)
        self.proxy = start_proxy(
            self.shop, self.upstream.url, header_timeout_s=HEADER_S, idle_timeout_s=IDLE_S, client_stall_s=STALL_S
        )

    def attack(self) -> list[Slow]:
        """Let all of them come."""
        slow: list[Slow] = []
        for number in range(CLIENTS):
            sock = socket.socket()
            self.addCleanup(sock.close)
            sock.bind((f"127.0.0.{2 + number % ADDRESSES}", 0))
            sock.settimeout(10)
            sock.connect(("127.0.0.1", self.proxy.port))
            slow.append(Slow(list(WAYS)[number % len(WAYS)], sock))
        return slow

    def test_500_of_them_are_closed_in_time_and_hold_up_nobody(self) -> None:
        """Memory and descriptors are as before; a big pull beside them comes whole and right."""
        self.assertEqual(get(self.proxy.port, "/healthz", "Connection: close").status, 200)
        answers: list[Answer] = []
        target = f"{BIG.target}?ns=docker.io"
        pull = threading.Thread(target=lambda: answers.append(get(self.proxy.port, target)), daemon=True)
        pull.start()
        wait_until(lambda: len(self.upstream.bodies_of(BIG.target)) == 1, 10, "the pull has begun")
        time.sleep(1)
        files, memory_bytes = _files(self.proxy), self.proxy.memory_bytes()
        slow = self.attack()
        wait_until(lambda: _files(self.proxy) >= files + CLIENTS, HEADER_S, "all are in")
        most_bytes = memory_bytes
        while waiting := [client for client in slow if client.lived_s is None]:
            for client in waiting:
                client.go_on()
            most_bytes = max(most_bytes, self.proxy.memory_bytes())
            late = [client.way for client in waiting if time.monotonic() - client.began_s > HEADER_S + LATE_S]
            self.assertEqual(set(late), set(), f"{len(late)} are still there")
            time.sleep(0.1)
        each_bytes = (most_bytes - memory_bytes) / CLIENTS
        self.assertLess(each_bytes, MAX_BYTES_EACH, "of memory for each of them")
        early = [client.way for client in slow if client.lived_s is not None and client.lived_s < HEADER_S - 0.5]
        self.assertEqual(set(early), set(), "everybody has the whole time for a head")
        self.assertTrue(pull.is_alive(), "it was too fast to show anything")
        pull.join(60)
        self.assertEqual([(answer.ended, answer.digest) for answer in answers], [("whole", BIG.content.digest)])
        wait_until(lambda: _files(self.proxy) <= files, 10, "descriptors are closed")
        self.assertEqual(self.proxy.complaints(), [])

    def test_a_connection_is_idle_only_for_a_while(self) -> None:
        """Between two requests there is another time than within a head."""
        wire = connect(self.proxy.port, silent_s=10)
        self.addCleanup(wire.close)
        for _ in range(2):
            wire.send(request("/healthz"))
            self.assertEqual(wire.read_answer().status, 200)
            time.sleep(IDLE_S / 3)
        began_s = time.monotonic()
        self.assertEqual((wire.read_rest(), wire.over), (b"", "closed"))
        self.assertLess(time.monotonic() - began_s, IDLE_S + LATE_S)
        self.assertGreater(time.monotonic() - began_s, IDLE_S / 2)

    def test_a_client_that_takes_nothing_of_its_body_is_cut(self) -> None:
        """However long the rest of the body may have to wait: one that takes a little now and then gets all."""
        self.assertEqual(get(self.proxy.port, f"{KEPT.target}?ns=docker.io").digest, KEPT.content.digest)
        still, slow = (connect(self.proxy.port, receive_buffer_bytes=64 * 1024) for _ in range(2))
        for wire in (still, slow):
            self.addCleanup(wire.close)
            wire.send(request(f"{KEPT.target}?ns=docker.io"))
        slow.whole_s, slow.whole_bytes = 2.5 * STALL_S, KEPT.content.size_bytes
        answer = slow.read_answer()
        self.assertEqual((answer.ended, answer.digest), ("whole", KEPT.content.digest))
        wait_until(lambda: "ended=cut" in self.proxy.process.log(), 5 * STALL_S, "the other is cut")
        self.assertIn(still.read_answer().ended, ("closed", "reset"))


def _files(proxy: Proxy) -> int:
    """Return how many descriptors the proxy has."""
    return len(os.listdir(f"/proc/{proxy.pid}/fd"))
