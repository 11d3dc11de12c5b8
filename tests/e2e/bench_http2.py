"""What a large hit costs over HTTP/1.1 and HTTP/2, plain and under TLS: ``python -m tests.e2e.bench_http2``.

Not a test: it prints figures, which mean something as ratios of one run only.  All four ways take turns before one
proxy with two doors; each row gives the time of the client and the proxy's own CPU time (proc(5), stat).  Then the
same with several bodies at once: over as many connections, or as streams of one.

The client throws away what comes.  It is none of curl, which always offers HTTP/1.1 as well, so that the order of our
own preference would decide what is measured.
"""

from __future__ import annotations

import argparse
import socket
import ssl
import statistics
import threading
import time
from collections.abc import Sequence

from attrs import frozen
from h2.config import H2Configuration
from h2.connection import H2Connection

from tests.e2e.bench_redirects import cpu_s
from tests.e2e.processes import Workshop, free_port
from tests.e2e.proxy import Proxy, start_proxy
from tests.e2e.scripts import MIB, Content, Served, blob, start_scripted

# Scheme and protocol.
WAYS = (("http", "http/1.1"), ("http", "h2"), ("https", "http/1.1"), ("https", "h2"))
MAX_WINDOW_BYTES = (1 << 31) - 1
RECEIVED_BYTES = 256 * 1024
DATA, HEADERS, END_STREAM = 0, 1, 0x1


@frozen
class Cost:
    """What one round took."""

    client_s: float
    proxy_s: float


@frozen
class Doors:
    """One proxy, its plain door and its TLS door."""

    proxy: Proxy
    tls_port: int

    def connect(self, scheme: str, protocol: str) -> socket.socket:
        """Connect, and agree on a protocol."""
        plain = socket.create_connection(("127.0.0.1", self.proxy.port if scheme == "http" else self.tls_port), 60)
        if scheme == "http":
            return plain
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_alpn_protocols([protocol])
        secure = context.wrap_socket(plain)
        assert secure.selected_alpn_protocol() == protocol
        return secure


def take_http1(connection: socket.socket, target: str, size_bytes: int) -> None:
    """Ask for a body and throw it away."""
    connection.sendall(f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
    head = b""
    while b"\r\n\r\n" not in head:
        head += connection.recv(1024)
    assert head.startswith(b"HTTP/1.1 200"), head
    left_bytes = size_bytes - len(head.partition(b"\r\n\r\n")[2])
    buffer = bytearray(RECEIVED_BYTES)
    while left_bytes > 0:
        received_bytes = connection.recv_into(buffer)
        assert received_bytes, "closed"
        left_bytes -= received_bytes


def take_http2(connection: socket.socket, target: str, size_bytes: int, streams: int) -> None:
    """Ask for bodies on one connection, with windows for all of them, and throw them away frame by frame."""
    machine = H2Connection(H2Configuration(client_side=True))
    machine.initiate_connection()
    machine.update_settings({4: MAX_WINDOW_BYTES})
    machine.increment_flow_control_window(MAX_WINDOW_BYTES - 65_535)
    for _ in range(streams):
        head = [(":method", "GET"), (":path", target), (":scheme", "http"), (":authority", "127.0.0.1")]
        machine.send_headers(machine.get_next_available_stream_id(), head, end_stream=True)
    connection.sendall(machine.data_to_send())
    buffer = bytearray(RECEIVED_BYTES)
    head_bytes, skip_bytes, body_bytes, ended = b"", 0, 0, 0
    while ended < streams:
        received_bytes = connection.recv_into(buffer)
        assert received_bytes, "closed"
        position = 0
        while position < received_bytes:
            if skip_bytes:
                step = min(skip_bytes, received_bytes - position)
                skip_bytes -= step
                position += step
                continue
            step = 9 - len(head_bytes)
            head_bytes += buffer[position : min(position + step, received_bytes)]
            position += step
            if len(head_bytes) == 9:
                skip_bytes = int.from_bytes(head_bytes[:3], "big")
                body_bytes += skip_bytes if head_bytes[3] == DATA else 0
                ended += head_bytes[3] in (DATA, HEADERS) and bool(head_bytes[4] & END_STREAM)
                head_bytes = b""
    assert body_bytes == size_bytes * streams, body_bytes


def fetch(doors: Doors, served: Served, scheme: str, protocol: str, at_once: int) -> Cost:
    """Fetch a blob, or several at once."""
    target, size_bytes = f"{served.target}?ns=docker.io", served.content.size_bytes
    connections = [doors.connect(scheme, protocol) for _ in range(at_once if protocol == "http/1.1" else 1)]
    before_s, began_s = cpu_s(doors.proxy.pid), time.monotonic()
    if protocol == "h2":
        take_http2(connections[0], target, size_bytes, at_once)
    else:
        threads = [threading.Thread(target=take_http1, args=(each, target, size_bytes)) for each in connections]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    cost = Cost(time.monotonic() - began_s, cpu_s(doors.proxy.pid) - before_s)
    for connection in connections:
        connection.close()
    return cost


def median(costs: Sequence[Cost]) -> Cost:
    """Return the middle of each figure."""
    return Cost(statistics.median(each.client_s for each in costs), statistics.median(each.proxy_s for each in costs))


def compare(doors: Doors, served: Served, at_once: int, rounds: int) -> None:
    """Let all ways take turns and print a row for each scheme: HTTP/1.1, h2, and the ratio of the second."""
    costs: dict[tuple[str, str], list[Cost]] = {way: [] for way in WAYS}
    for _ in range(rounds):
        for way in WAYS:
            costs[way].append(fetch(doors, served, *way, at_once))
    for scheme in ("http", "https"):
        one, two = median(costs[scheme, "http/1.1"]), median(costs[scheme, "h2"])
        print(
            f"{scheme:>6} {at_once:>8} {one.client_s:>7.2f} {two.client_s:>7.2f} {two.client_s / one.client_s:>6.2f}"
            f" {one.proxy_s:>9.2f} {two.proxy_s:>7.2f} {two.proxy_s / max(one.proxy_s, 0.01):>6.2f}",
            flush=True,
        )


def main() -> None:
    """Start a proxy, fill it, and compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=256, help="size of the blob")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--at-once", type=int, nargs="*", default=[1, 4])
    options = parser.parse_args()
    shop = Workshop()
    try:
        served = blob("library/big", Content(size_bytes=options.mib * MIB, seed=71))
        upstream = start_scripted(shop, served)
        port, tls_port = free_port(), free_port()
        doors = [f"http://127.0.0.1:{port}", f"https://127.0.0.1:{tls_port}"]
        proxy = start_proxy(shop, upstream.url, port, listen=doors, generate_self_signed_tls=True)
        assert proxy.ask("HEAD", f"{served.target}?ns=docker.io")[0] == 200
        assert len(proxy.ask("GET", f"{served.target}?ns=docker.io")[2]) == served.content.size_bytes
        print("scheme  at once   1.1 s    h2 s  ratio 1.1 CPU s h2 CPU s  ratio")
        for at_once in options.at_once:
            compare(Doors(proxy, tls_port), served, at_once, options.rounds)
    finally:
        shop.close()


if __name__ == "__main__":
    main()
