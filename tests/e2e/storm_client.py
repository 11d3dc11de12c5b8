"""Many GETs of one target at once by one process: ``python -m tests.e2e.storm_client PORT TARGET COUNT STALL_BYTES``.

The first connection stops reading after STALL_BYTES until all others are finished.  Prints one line of JSON per event.
"""

from __future__ import annotations

import hashlib
import json
import selectors
import socket
import sys
from typing import Any

from attrs import define, field

READ_BYTES = 256 * 1024
STALLED_READ_BYTES = 4096
STALLED_BUFFER_BYTES = 64 * 1024


@define(eq=False)
class Getter:
    """One GET on a socket of its own, hashed as it arrives."""

    number: int
    sock: socket.socket
    stall_bytes: int | None = None
    head: bytes = b""
    status: int = 0
    length: int | None = None
    body_bytes: int = 0
    hasher: Any = field(factory=hashlib.sha256)

    def read(self) -> bool:
        """Take what has arrived; False when there will be no more."""
        received = self.sock.recv(READ_BYTES if self.stall_bytes is None else STALLED_READ_BYTES)
        self._take(received)
        return bool(received) and self.body_bytes != self.length

    def _take(self, data: bytes) -> None:
        """Keep the head until it is whole; hash what follows it."""
        if not self.status:
            self.head += data
            head, end, data = self.head.partition(b"\r\n\r\n")
            if end:
                self._read_head(head.decode("latin-1"))
        self.hasher.update(data)
        self.body_bytes += len(data)

    def _read_head(self, head: str) -> None:
        """Take the status and the length from the head of the answer."""
        lines = head.split("\r\n")
        self.status = int(lines[0].split()[1])
        fields = dict(line.lower().split(": ", 1) for line in lines[1:])
        self.length = int(fields["content-length"])

    @property
    def must_stop(self) -> bool:
        """Whether this is the one that stops reading, and the time has come."""
        return self.stall_bytes is not None and self.body_bytes >= self.stall_bytes


def open_getter(number: int, port: int, target: str, stall_bytes: int | None) -> Getter:
    """Connect and send the request."""
    sock = socket.socket()
    sock.settimeout(60)
    if stall_bytes is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, STALLED_BUFFER_BYTES)
    sock.connect(("127.0.0.1", port))
    sock.sendall(f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAccept: */*\r\n\r\n".encode())
    return Getter(number, sock, stall_bytes)


def say(event: str, getter: Getter) -> None:
    """Print one line about a connection."""
    facts = {"status": getter.status, "body_bytes": getter.body_bytes, "digest": f"sha256:{getter.hasher.hexdigest()}"}
    print(json.dumps({"event": event, "number": getter.number, **facts}), flush=True)


def run(getters: list[Getter]) -> list[Getter]:
    """Read until every getter has finished or stopped; return those that have stopped."""
    stopped = []
    with selectors.DefaultSelector() as selector:
        for getter in getters:
            selector.register(getter.sock, selectors.EVENT_READ, getter)
        while selector.get_map():
            ready = selector.select(60)
            if not ready:
                break
            for key, _ in ready:
                getter = key.data
                going = getter.read()
                if going and not getter.must_stop:
                    continue
                selector.unregister(getter.sock)
                if going:
                    stopped.append(getter)
                say("stopped" if going else "finished", getter)
    return stopped


def main(port: int, target: str, count: int, stall_bytes: int) -> None:
    """Run the storm; the one that stopped goes on when the others have finished."""
    getters = [open_getter(number, port, target, stall_bytes if number == 0 else None) for number in range(count)]
    for getter in run(getters):
        getter.stall_bytes = None
        run([getter])
    for getter in getters:
        getter.sock.close()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
