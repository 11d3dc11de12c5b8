"""The scripted upstream with a clock and labels: ``python -m tests.e2e.law_upstream PORT``.

A step that carries a label in a header field of its own is one fault of the law test; the log then says when it
happened, and how long each answer took.
"""

from __future__ import annotations

import http.client
import json
import re
import sys
import time
from http.server import ThreadingHTTPServer
from typing import Any

from attrs import frozen

from tests.e2e.book import Book
from tests.e2e.processes import Workshop, accepts, free_port
from tests.e2e.scripted import ScriptedHandler
from tests.e2e.scripts import CONTROL, Served, Step, Upstream

LABEL = "X-Law-Fault"
_SUFFIX = re.compile(r"bytes=-(\d+)$")


class LawHandler(ScriptedHandler):
    """Notes when each answer began and ended, and which fault it was; knows suffix ranges too."""

    seen: list[dict[str, Any]]

    def do_GET(self) -> None:
        """Answer by the script, and note it."""
        if self.path == f"{CONTROL}law":
            with self.book.lock:
                noted = json.dumps([note for note in self.seen if "entry" in note], default=str).encode()
            return self._answer(200, noted)
        self.note: dict[str, Any] = {"began_s": time.monotonic(), "ended_s": None, "fault": None}
        try:
            super().do_GET()
        finally:
            self.note["ended_s"] = time.monotonic()

    def _begin_entry(self) -> None:
        """Tie the note to the entry."""
        super()._begin_entry()
        self.note["entry"] = self.entry
        with self.book.lock:
            self.seen.append(self.note)

    def _take(self, served: Served, step: Step) -> None:
        """Read the label of the step."""
        self.note["fault"] = dict(step.headers).get(LABEL)
        super()._take(served, step)

    def _part(self, total: int, step: Step) -> tuple[int, int, int]:
        """Return start, stop and status for the Range that was asked."""
        suffix = _SUFFIX.match(self.headers.get("Range") or "")
        if suffix is None or step.on_range != "right" or not total:
            return super()._part(total, step)
        return max(0, total - int(suffix[1])), total, 206 if int(suffix[1]) else 416


@frozen
class Noted:
    """One request that the upstream got."""

    method: str
    target: str
    range: str | None
    status: int
    body_bytes: int
    ended: str
    fault: str | None
    began_s: float
    ended_s: float

    @property
    def is_whole_body(self) -> bool:
        """Whether a whole body was asked and its sending begun."""
        return self.method == "GET" and self.range is None and self.status == 200 and "/blobs/" in self.target


def start_law_upstream(shop: Workshop) -> Upstream:
    """Start it; it serves nothing yet."""
    port = free_port()
    process = shop.start("upstream", [sys.executable, "-m", "tests.e2e.law_upstream", str(port)])
    process.wait_for(lambda: accepts(port), 15, "listens")
    return Upstream(port, process)


def noted(upstream: Upstream) -> list[Noted]:
    """Return every request in the order in which they came; one that is still open ends never."""
    connection = http.client.HTTPConnection("127.0.0.1", upstream.port, timeout=30)
    try:
        connection.request("GET", f"{CONTROL}law")
        notes = json.loads(connection.getresponse().read())
    finally:
        connection.close()
    names = ("method", "target", "range", "status", "body_bytes", "ended")
    return [
        Noted(
            **{name: note["entry"][name] for name in names},
            fault=note["fault"],
            began_s=note["began_s"],
            ended_s=float("inf") if note["ended_s"] is None else note["ended_s"],
        )
        for note in notes
    ]


def main(port: int) -> None:
    """Serve until the process is ended."""
    LawHandler.book = Book(port)
    LawHandler.seen = []
    ThreadingHTTPServer.request_queue_size = 256
    server = ThreadingHTTPServer(("127.0.0.1", port), LawHandler)
    server.daemon_threads = True
    server.serve_forever()


if __name__ == "__main__":
    main(int(sys.argv[1]))
