"""What knocks at the door: requests that must not pass, and the proxy that they are sent to."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.e2e.law_upstream import start_law_upstream
from tests.e2e.law_wire import Answer, Wire, connect, get, request
from tests.e2e.processes import Workshop
from tests.e2e.proxy import Proxy, start_proxy
from tests.e2e.scripts import Content, Served

BLOB = Content(size_bytes=1000, seed=1)
TARGET = f"/v2/library/door/blobs/{BLOB.digest}"
HIDDEN = Content(size_bytes=1000, seed=2)
HIDDEN_TARGET = f"/v2/library/hidden/blobs/{HIDDEN.digest}"
# What must never be taken for a request: it stands where a body, or nothing at all, is.
SMUGGLED = request(HIDDEN_TARGET)
FORM = "POST /v2/_token HTTP/1.1\r\nHost: cache.example\r\n"
PULL = f"GET {TARGET} HTTP/1.1\r\nHost: cache.example\r\n"
TWO_IN_ONE = {
    "chunks and a length": f"{FORM}Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
    "a length and chunks": f"{FORM}Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": f"{FORM}Content-Length: 0\r\nContent-Length: {len(SMUGGLED)}\r\n\r\n",
    "two lengths in one": f"{FORM}Content-Length: 0, {len(SMUGGLED)}\r\n\r\n",
    "chunks that are not": f"{FORM}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "chunks of HTTP/1.0": f"{FORM.replace('HTTP/1.1', 'HTTP/1.0')}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a folded length": f"{PULL}X-A: b\r\n Content-Length: {len(SMUGGLED)}\r\n\r\n",
    "lines without CR": f"GET {TARGET} HTTP/1.1\nHost: cache.example\n\n",
    "one line without CR": f"{PULL}X-A: b\nContent-Length: {len(SMUGGLED)}\r\n\r\n",
    "a space before the colon": f"{PULL}Content-Length : {len(SMUGGLED)}\r\n\r\n",
    "a GET with a body": f"{PULL}Content-Length: {len(SMUGGLED)}\r\n\r\n",
    "a GET with chunks": f"{PULL}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a PUT with a body": f"{PULL.replace('GET', 'PUT', 1)}Content-Length: {len(SMUGGLED)}\r\n\r\n",
}
NOT_A_PATH = {
    "absolute form": PULL.replace("GET ", "GET http://cache.example", 1),
    "absolute form of another": PULL.replace("GET ", "GET http://other.example", 1),
    "CONNECT": "CONNECT registry.example:443 HTTP/1.1\r\nHost: registry.example:443\r\n",
    "asterisk": "OPTIONS * HTTP/1.1\r\nHost: cache.example\r\n",
    "two Hosts": f"{PULL}Host: other.example\r\n",
    "no Host": f"GET {TARGET} HTTP/1.1\r\n",
    "no valid Host": f"GET {TARGET} HTTP/1.1\r\nHost: a b\r\n",
}


def files_of(proxy: Proxy) -> set[str]:
    """Return what files the proxy has open, removed ones included; sockets and the like left out."""
    names = set()
    for entry in Path(f"/proc/{proxy.pid}/fd").iterdir():
        try:
            names.add(os.readlink(entry))
        except FileNotFoundError:
            continue
    return {name for name in names if name.startswith("/") and not name.startswith("/dev/")}


def is_kept(proxy: Proxy, digest: str) -> bool:
    """Whether the storage has this content and is done with it: it is there before its directory is synced."""
    encoded = digest.partition(":")[2]
    there = (proxy.fs_root / "blobs" / "sha256" / encoded[:2] / encoded).exists()
    return there and not any(name.startswith(str(proxy.fs_root)) for name in files_of(proxy))


class DoorTestCase(SynchronousTestCase):
    """A proxy whose door is knocked at."""

    def start(self, **more: Any) -> Proxy:
        """Start the proxy before an upstream that has one blob that is asked for and one that is not."""
        self.shop = Workshop()
        self.addCleanup(self.shop.close)
        self.upstream = start_law_upstream(self.shop)
        self.upstream.serve(Served(TARGET, BLOB), Served(HIDDEN_TARGET, HIDDEN))
        return start_proxy(self.shop, self.upstream.url, **more)

    def connect(self, proxy: Proxy) -> Wire:
        """Connect, and close when the test ends."""
        wire = connect(proxy.port, silent_s=10)
        self.addCleanup(wire.close)
        return wire

    def only_answer(self, wire: Wire, what: str) -> Answer:
        """Read one answer and the end of the connection behind it."""
        answer = wire.read_answer()
        self.assertEqual(answer.ended, "whole", f"{what}: {answer}")
        self.assertEqual((wire.read_rest(), wire.over), (b"", "closed"), f"{what}: nothing follows")
        return answer

    def assert_refused(self, answer: Answer, status: int, what: str) -> None:
        """The refusal has this status and the spec's form."""
        self.assertEqual(answer.status, status, f"{what}: {answer} {answer.body!r}")
        self.assertTrue(answer.is_oci_error, f"{what}: {answer.body!r}")

    def assert_works(self, proxy: Proxy) -> None:
        """A good client gets the blob."""
        self.assertEqual(get(proxy.port, TARGET).digest, BLOB.digest)
