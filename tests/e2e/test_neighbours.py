"""Nobody is held up, or robbed of a kept download, by what another client or another namespace does."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

from twisted.trial.unittest import SynchronousTestCase

from tests.e2e.processes import Workshop, wait_until
from tests.e2e.proxy import Proxy, start_proxy
from tests.e2e.scripts import MIB, Content, Served, Step, Upstream, blob, start_scripted

BLOB = Content(size_bytes=8 * MIB, seed=8)
# 80 s for the whole: slow enough that nobody who depends on it would be in time.
DRIP = Step(chunk_bytes=10 * 1024, pause_s=0.1)
BRISK = Step(chunk_bytes=128 * 1024, pause_s=0.02)


@contextlib.contextmanager
def half_read(proxy: Proxy, target: str, read_bytes: int) -> Iterator[socket.socket]:
    """Begin a GET, read a little of it, and leave when the block ends."""
    with socket.create_connection(("127.0.0.1", proxy.port), 30) as sock:
        sock.sendall(f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1:{proxy.port}\r\n\r\n".encode())
        seen = 0
        while seen < read_bytes:
            data = sock.recv(4096)
            if not data:
                raise AssertionError(f"the answer ended after {seen} bytes")
            seen += len(data)
        yield sock


class NeighboursTests(SynchronousTestCase):
    """Rule E1 and law 9 with real sockets."""

    def setUp(self) -> None:
        """Open the workshop."""
        self.shop = Workshop()
        self.addCleanup(self.shop.close)

    def assert_pulls(self, proxy: Proxy, served: Served, namespace: str) -> None:
        """A GET through the proxy brings the blob."""
        status, _, body = proxy.ask("GET", f"{served.target}?ns={namespace}")
        self.assertEqual(status, 200)
        self.assertTrue(body == served.content.data(), "the bytes are not those of the blob")

    def wait_for_end(self, upstream: Upstream, served: Served, end: str) -> None:
        """Wait until the upstream's first body of this target has ended like this."""

        def ended() -> bool:
            return [ask.ended for ask in upstream.bodies_of(served.target)][:1] == [end]

        wait_until(ended, 30, f"the first body to be {end}")

    def test_a_namespace_that_drips_a_digest_holds_up_no_other(self) -> None:
        """The same digest is asked first from a hostile namespace; docker.io's client does not wait for it."""
        honest, hostile = blob("library/big", BLOB), blob("evil/big", BLOB, afterwards=DRIP)
        good, bad = start_scripted(self.shop, honest), start_scripted(self.shop, hostile)
        table = [{"namespace": "docker.io", "urls": [good.url]}, {"namespace": "ghcr.io", "urls": [bad.url]}]
        proxy = start_proxy(self.shop, good.url, upstreams=table)
        with half_read(proxy, f"{hostile.target}?ns=ghcr.io", 1):
            self.assert_pulls(proxy, honest, "docker.io")
            self.assertEqual([ask.ended for ask in bad.bodies_of(hostile.target)], ["open"])

    def test_a_client_that_leaves_does_not_end_the_download(self) -> None:
        """The only client leaves in the middle; the upstream's body comes to its end and the next pull is a hit."""
        served = blob("library/big", BLOB, BRISK)
        upstream = start_scripted(self.shop, served)
        proxy = start_proxy(self.shop, upstream.url)
        with half_read(proxy, f"{served.target}?ns=docker.io", 64 * 1024):
            pass
        self.wait_for_end(upstream, served, "whole")
        proxy.outcomes()
        self.assert_pulls(proxy, served, "docker.io")
        self.assertEqual(len(upstream.bodies_of(served.target)), 1)
