"""What the scripted upstream is told to do, and what it saw: values that both sides of its control door share."""

from __future__ import annotations

import functools
import hashlib
import http.client
import json
import random
import sys
from collections.abc import Iterable
from typing import Any, Literal

from attrs import asdict, field, frozen

from tests.e2e.processes import Process, Workshop, accepts, free_port

MIB = 1 << 20
CONTROL = "/_e2e/"


@functools.lru_cache(maxsize=4)
def random_bytes(seed: int, size_bytes: int) -> bytes:
    """Return content that every process can make for itself."""
    blocks = (random.Random(f"{seed}:{start}").randbytes(MIB) for start in range(0, size_bytes, MIB))
    return b"".join(blocks)[:size_bytes]


def _pairs(pairs: Iterable[Iterable[str]]) -> tuple[tuple[str, str], ...]:
    """Return header fields as JSON lost their types."""
    return tuple((name, value) for name, value in pairs)


@frozen
class Content:
    """Bytes by description: a text, or random ones."""

    size_bytes: int = 0
    seed: int = 1
    text: str | None = None

    def data(self) -> bytes:
        """Return the bytes."""
        return random_bytes(self.seed, self.size_bytes) if self.text is None else self.text.encode()

    @property
    def digest(self) -> str:
        """The sha256 digest of the bytes."""
        return _digest_of(self)


@functools.lru_cache(maxsize=1024)
def _digest_of(content: Content) -> str:
    """Return a digest that tests ask for again and again."""
    return f"sha256:{hashlib.sha256(content.data()).hexdigest()}"


@frozen
class Step:
    """How one GET is answered; a default step is honest.

    :ivar status: in place of 200 or 206; from 400 on an OCI error is the body, and 401 makes all tokens worthless.
    :ivar on_range: what a Range is answered with: the right part, a part that starts elsewhere, or the whole.
    :ivar break_at: the offset in the content at which the connection ends, by FIN or by RST.
    :ivar stall_at: the offset at which nothing is sent for ``stall_s``.
    :ivar flip_at: the offset of a byte that is sent wrong.
    :ivar declared_extra: what Content-Length says beyond the truth; ``sent_extra``: what is sent beyond it.
    :ivar chunk_bytes: how much is sent before the next ``pause_s``.
    :ivar page: an HTML page, as a captive portal sends it.
    """

    status: int | None = None
    on_range: Literal["right", "wrong_start", "whole"] = "right"
    headers: tuple[tuple[str, str], ...] = field(default=(), converter=_pairs)
    etag: str | None = None
    delay_s: float = 0
    break_at: int | None = None
    break_by: Literal["fin", "rst"] = "fin"
    stall_at: int | None = None
    stall_s: float = 0
    flip_at: int | None = None
    declared_extra: int = 0
    sent_extra: int = 0
    chunk_bytes: int = 256 * 1024
    pause_s: float = 0
    chunked: bool = False
    page: bool = False


HONEST = Step()


@frozen
class Served:
    """One target of the upstream: each GET takes the next step, and when they are used up ``afterwards`` holds."""

    target: str
    content: Content
    media_type: str = "application/octet-stream"
    steps: tuple[Step, ...] = ()
    afterwards: Step = HONEST
    head: Step = HONEST
    needs_token: bool = False

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Served:
        """Read what :func:`attrs.asdict` wrote."""
        steps = tuple(Step(**step) for step in fields.pop("steps"))
        afterwards, head = Step(**fields.pop("afterwards")), Step(**fields.pop("head"))
        return cls(content=Content(**fields.pop("content")), steps=steps, afterwards=afterwards, head=head, **fields)


def blob(repository: str, content: Content, *steps: Step, **more: Any) -> Served:
    """Return the target of a blob."""
    return Served(f"/v2/{repository}/blobs/{content.digest}", content, steps=steps, **more)


@frozen
class Asked:
    """One request that the upstream got, and how far its answer went."""

    method: str
    target: str
    range: str | None
    authorization: str | None
    accept: str | None
    status: int
    body_bytes: int
    ended: Literal["open", "whole", "broken", "left"]


@frozen
class Upstream:
    """A running scripted upstream, seen from the test."""

    port: int
    process: Process

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}"

    def serve(self, *targets: Served) -> None:
        """Add targets, or replace those that are there; their steps begin again."""
        self._control("POST", "serve", json.dumps([asdict(target) for target in targets]))

    def asked(self) -> list[Asked]:
        """Return every request but those of the control door, in the order in which they came."""
        return [Asked(**fields) for fields in json.loads(self._control("GET", "log"))]

    def bodies_of(self, target: str) -> list[Asked]:
        """Return the GETs of one target that were answered with content."""
        return [ask for ask in self.asked() if ask.method == "GET" and ask.target == target and ask.status < 300]

    def stop(self) -> None:
        """Take it away: connections are refused from now on."""
        self.process.stop()

    def _control(self, method: str, name: str, body: str = "") -> bytes:
        """Send one request to the control door."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, f"{CONTROL}{name}", body)
            return connection.getresponse().read()
        finally:
            connection.close()


def start_scripted(shop: Workshop, *targets: Served, port: int | None = None) -> Upstream:
    """Start a scripted upstream that serves these targets."""
    port = port or free_port()
    process = shop.start("scripted", [sys.executable, "-m", "tests.e2e.scripted", str(port)])
    process.wait_for(lambda: accepts(port), 15, "listens")
    upstream = Upstream(port, process)
    upstream.serve(*targets)
    return upstream
