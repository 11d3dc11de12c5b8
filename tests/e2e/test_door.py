"""The door of the real process, knocked at with bare sockets (RULES A1-A3, A5)."""

from __future__ import annotations

import os
import select
from functools import partial

from tests.e2e.law_door import (
    BLOB,
    HIDDEN,
    HIDDEN_TARGET,
    NOT_A_PATH,
    SMUGGLED,
    TARGET,
    TWO_IN_ONE,
    DoorTestCase,
    files_of,
    is_kept,
)
from tests.e2e.law_upstream import noted
from tests.e2e.law_wire import Wire, get, request
from tests.e2e.processes import wait_until
from tests.e2e.proxy import Proxy
from tests.e2e.scripts import MIB

GIB = 1024 * MIB


class BodiesTests(DoorTestCase):
    """Rule A2: nobody's body is received."""

    def test_a_put_of_10_gib_is_answered_before_its_second_mib(self) -> None:
        """Whoever announces a body reads the refusal while still sending it, and no file is opened for it."""
        proxy = self.start()
        self.assert_works(proxy)
        wait_until(lambda: is_kept(proxy, BLOB.digest), 10, "kept")
        before = files_of(proxy)
        upload = "/v2/library/door/blobs/uploads/1"
        for method, target, framing, status in (
            ("PUT", upload, f"Content-Length: {10 * GIB}", 405),
            ("PATCH", upload, "Transfer-Encoding: chunked", 405),
            ("POST", "/v2/library/door/blobs/uploads/", f"Content-Length: {10 * GIB}", 405),
            ("PUT", "/v2/library/door/manifests/x", f"Content-Length: {10 * GIB}", 405),
            ("POST", "/v2/_token", f"Content-Length: {10 * GIB}", 413),
            ("GET", TARGET, f"Content-Length: {10 * GIB}", 413),
        ):
            wire = self.connect(proxy)
            wire.send(request(target, framing, method=method))
            sent_bytes = self.send_until_answered(wire)
            self.assertEqual(files_of(proxy) - before, set(), method)
            self.assertLess(sent_bytes, 2 * MIB, method)
            answer = wire.read_answer()
            self.assert_refused(answer, status, method)
        self.assertEqual(files_of(proxy) - before, set())
        self.assert_works(proxy)

    def send_until_answered(self, wire: Wire) -> int:
        """Send a body until something comes back; return how much that took."""
        sent_bytes = 0
        while sent_bytes < 4 * MIB and not select.select([wire.sock], [], [], 0.2)[0]:
            wire.send(b"x" * 65536)
            sent_bytes += 65536
        return sent_bytes

    def test_whoever_sends_on_after_the_refusal_still_reads_it(self) -> None:
        """A client that sends 8 MiB before it reads finds the refusal and a clean end."""
        wire = self.connect(self.start())
        wire.send(request(TARGET, f"Content-Length: {8 * MIB}", method="PUT"))
        for _ in range(8):
            wire.send(bytes(MIB))
        self.assert_refused(self.only_answer(wire, "PUT"), 405, "PUT")


class HeadsTests(DoorTestCase):
    """Rules A1 and A3: what a head may be."""

    def test_60_kib_of_authorization_pass(self) -> None:
        """The field arrives at the upstream as it is."""
        proxy, token = self.start(), "x" * 60 * 1024
        answer = get(proxy.port, f"{TARGET}?ns=docker.io", f"Authorization: Bearer {token}")
        self.assertEqual((answer.status, answer.digest), (200, BLOB.digest))
        seen = {ask.authorization for ask in self.upstream.asked() if ask.target == TARGET}
        self.assertEqual(seen, {f"Bearer {token}"})

    def test_a_head_beyond_the_limit_gets_431_also_when_it_is_sent_whole(self) -> None:
        """One line of 10 MiB, many long lines, many short ones: the client sends all, and reads the 431."""
        proxy = self.start()
        heads = {
            "one line": [f"X-A: {'a' * 10 * MIB}"],
            "long lines": [f"X-{number}: {'a' * 60_000}" for number in range(6)],
            "short lines": [f"X-{number}: a" for number in range(20_000)],
        }
        for what, fields in heads.items():
            wire = self.connect(proxy)
            wire.send(request(TARGET, *fields))
            self.assert_refused(self.only_answer(wire, what), 431, what)
        self.assert_works(proxy)

    def test_a_target_beyond_the_limit_gets_414(self) -> None:
        """A first line of 1 MiB."""
        wire = self.connect(self.start())
        wire.send(request(f"/v2/{'a' * MIB}/blobs/{BLOB.digest}"))
        self.assert_refused(self.only_answer(wire, "target"), 414, "target")

    def test_what_is_not_a_path_of_ours_gets_400(self) -> None:
        """Targets of a forward proxy, and requests that do not say to whom they are sent."""
        proxy = self.start()
        for what, head in NOT_A_PATH.items():
            wire = self.connect(proxy)
            wire.send(f"{head}\r\n".encode() + SMUGGLED)
            self.assert_refused(self.only_answer(wire, what), 400, what)
        self.assertEqual(noted(self.upstream), [])

    def test_one_request_never_becomes_two(self) -> None:
        """What two machines could read differently is one refusal; nothing behind it is ever a request."""
        proxy = self.start()
        for what, head in TWO_IN_ONE.items():
            wire = self.connect(proxy)
            wire.send(head.encode() + SMUGGLED)
            answer = self.only_answer(wire, what)
            self.assertIn(answer.status, (400, 405, 413), f"{what}: {answer}")
            self.assertTrue(answer.is_oci_error, f"{what}: {answer.body!r}")
        self.assertEqual(noted(self.upstream), [])
        self.assertNotIn("hidden", proxy.process.log())

    def test_requests_one_behind_the_other_are_answered_in_order(self) -> None:
        """Pipelined GETs are as many as they are; each leaves one line in the log."""
        proxy = self.start()
        wire = self.connect(proxy)
        wire.send(request(TARGET) * 2 + request(HIDDEN_TARGET) + request("/healthz", "Connection: close"))
        answers = [wire.read_answer() for _ in range(4)]
        self.assertEqual([answer.status for answer in answers], [200] * 4)
        self.assertEqual([answer.digest for answer in answers[:3]], [BLOB.digest, BLOB.digest, HIDDEN.digest])
        self.assertEqual((wire.read_rest(), wire.over), (b"", "closed"))
        wait_until(lambda: len(proxy.outcomes()) == 3, 5, "three lines in the log")


class CapsTests(DoorTestCase):
    """Rule A5: how much a client may hold, and what it does to others."""

    def test_a_client_with_too_many_connections_gets_503(self) -> None:
        """The one too many is answered and closed; a place that is given back can be taken."""
        for name in ("max_connections_per_client", "max_connections"):
            proxy = self.start(**{name: 4})
            get(proxy.port, "/healthz", "Connection: close")
            wires: list[Wire] = []
            wait_until(partial(self.holds, proxy, wires, 4), 5, "four connections")
            answer = self.only_answer(self.connect(proxy), name)
            self.assert_refused(answer, 503, name)
            self.assertEqual(answer.fields.get("retry-after"), "1")
            wires.pop().close()
            wait_until(partial(self.lets_in, proxy), 5, "a place is free")

    def holds(self, proxy: Proxy, wires: list[Wire], count: int) -> bool:
        """Hold one more connection, if it is let in; those of the start may not be closed yet."""
        wire = self.connect(proxy)
        wire.send(request("/healthz"))
        if wire.read_answer().status == 200:
            wires.append(wire)
        return len(wires) == count

    def lets_in(self, proxy: Proxy) -> bool:
        """Whether one more connection is answered."""
        return get(proxy.port, "/healthz").status == 200

    def test_clients_that_are_slow_to_ask_hold_up_nobody(self) -> None:
        """Heads that come byte by byte, or never to their end; others are served, and the slow one too."""
        proxy = self.start()
        wires = [self.connect(proxy) for _ in range(30)]
        head = request(TARGET)
        for number in range(len(head) - 1):
            for wire in wires[:3]:
                wire.send(head[number : number + 1])
        for wire in wires[3:]:
            wire.send(head[:20])
        self.assert_works(proxy)
        for wire in wires[:3]:
            wire.send(head[-1:])
            self.assertEqual(wire.read_answer().digest, BLOB.digest)

    def test_a_client_that_half_closes_leaves_nothing_behind(self) -> None:
        """It gets its answer or an end, soon; its connection is closed and the next client is served."""
        proxy = self.start()
        self.assert_works(proxy)
        before = len(os.listdir(f"/proc/{proxy.pid}/fd"))
        for _ in range(10):
            wire = self.connect(proxy)
            wire.send(request(TARGET))
            wire.sock.shutdown(1)
            wire.read_rest()
            self.assertIn(wire.over, ("closed", "reset"))
        wait_until(lambda: len(os.listdir(f"/proc/{proxy.pid}/fd")) <= before, 10, "descriptors are closed")
        self.assert_works(proxy)
