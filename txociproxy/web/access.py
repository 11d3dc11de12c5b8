"""One line and one count per request, made when its answer is over, however it ended."""

from __future__ import annotations

import re
from collections.abc import Callable
from secrets import token_hex
from typing import Final

from attrs import define, field
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.logger import Logger
from twisted.web.server import Request

from txociproxy.interfaces import Outcome
from txociproxy.logs import RequestName, Seconds
from txociproxy.metrics import Metrics
from txociproxy.oci.requests import BlobPull, ManifestPull, Page, Ping, Referrers, TagList, Target, TokenAsk

REQUEST_ID_FIELD: Final = b"X-Request-Id"
_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._-]{1,64}")
# What a request is for, as metrics call it.
_KINDS: Final[tuple[tuple[type, str], ...]] = (
    (ManifestPull, "manifest"),
    (BlobPull, "blob"),
    (TagList, "tags"),
    (Referrers, "referrers"),
    (Ping, "ping"),
    (TokenAsk, "token"),
    (Page, "page"),
)
_MAPPED: Final = "::ffff:"


def client_address(address: IAddress) -> str:
    """Return a client's IP address, ``-`` for a Unix socket.

    A socket of both families shows IPv4 clients as mapped addresses; they are written as what they are.
    """
    if not isinstance(address, IPv4Address | IPv6Address):
        return "-"
    host = str(address.host)
    return host.removeprefix(_MAPPED) if "." in host else host


def name_of(request: Request) -> str:
    """Return the name of a request: the client's own if it is fit for a log, else one that we make (RULES A6)."""
    lines = request.requestHeaders.getRawHeaders(REQUEST_ID_FIELD, [])
    if len(lines) == 1 and _REQUEST_ID.fullmatch(lines[0]):
        return str(lines[0], "ascii")
    return token_hex(8)


@define(eq=False)
class Visit:
    """One request, from its head to its end, as the log and the metrics will tell it.

    :ivar client: the address of the client; ``-`` for a Unix socket.
    :ivar name: what lines about this request call it, and what its client is told.
    :ivar target: what was asked, once it is known.
    :ivar kind: ``manifest`` or ``blob`` for a pull, once that is known.
    :ivar what: what it was for, in a word.
    :ivar namespace: the upstream it was routed to.
    :ivar reason: what its client was told instead of content.
    :ivar repository: as the upstream names it; as the client did, until it is routed.
    """

    _request: Request
    _clock: IReactorTime
    _log: Logger
    _metrics: Metrics
    client: str
    name: RequestName
    outcome: Outcome | None = None
    namespace: str | None = None
    repository: str | None = None
    reference: str | None = None
    kind: str | None = None
    what: str = "other"
    target: Target | None = None
    reason: str | None = None
    _began_s: float = field(init=False)
    _over: bool = False

    def __attrs_post_init__(self) -> None:
        self._began_s = self._clock.seconds()
        at_first_byte(self._request, self._begin_to_answer)

    @property
    def is_over(self) -> bool:
        """Whether its line is written."""
        return self._over

    def asks(self, target: Target) -> None:
        """Remember what is asked."""
        self.target = target
        self.what = next(word for kind, word in _KINDS if isinstance(target, kind))
        if isinstance(target, ManifestPull | BlobPull | TagList | Referrers):
            self.repository = target.name
        if isinstance(target, ManifestPull):
            self.kind, self.reference = self.what, str(target.reference)
        elif isinstance(target, BlobPull):
            self.kind, self.reference = self.what, str(target.digest)

    def fails(self, reason: str) -> None:
        """Remember that its client is told an error of ours, whatever the cache had promised before."""
        self.reason, self.outcome = reason, None

    def _begin_to_answer(self) -> None:
        """Measure how long a pull has waited for its answer."""
        if self.kind is not None:
            self._metrics.began_to_answer(self.kind, self._outcome, self._clock.seconds() - self._began_s)

    @property
    def _outcome(self) -> Outcome:
        return self.outcome or "error"

    def _seconds(self) -> Seconds:
        """How long it has taken so far, as it is written."""
        return Seconds(round(self._clock.seconds() - self._began_s, 3))

    def end(self, how: str) -> None:
        """Write the line and count, once.

        :param how: ``finished``, ``cut`` or ``left``; only what is not the rule is written.
        """
        if self._over:
            return
        self._over = True
        request = self._request
        request.__dict__.pop("write", None)
        # A client that left before its answer began got none.
        status = request.code if request.startedWriting or how == "finished" else None
        self._write(how, status)
        self.name.over = True
        self._metrics.request_ended(self.what, status)
        if self.kind is not None:
            self._metrics.pull_ended(self.namespace, self.kind, self._outcome, request.sentLength)

    def _write(self, how: str, status: int | None) -> None:
        """Write the line."""
        request = self._request
        agents = request.requestHeaders.getRawHeaders(b"User-Agent", [])
        fields: dict[str, object] = {
            "method": request.method,
            "namespace": self.namespace,
            "repository": self.repository,
            "reference": self.reference,
            "status": status,
            "outcome": self.outcome if self.kind is None else self._outcome,
            "reason": self.reason,
            "bytes": request.sentLength,
            "duration": self._seconds(),
            "client": self.client,
            "user_agent": agents[0] if agents else None,
            "ended": None if how == "finished" else how,
            "request_id": self.name.id,
        }
        if self.kind is None:
            self._log.debug("request", target=request.uri.partition(b"?")[0], **fields)
        else:
            self._log.info("pull", kind=self.kind, **fields)


def at_first_byte(request: Request, tell: Callable[[], None]) -> None:
    """Tell once when the first byte of an answer leaves, or its head without a body.

    Every answer begins with a write, those of files and those without a body too; so the first one is looked at, on
    this one request, and then no more.
    """

    def first(data: bytes) -> None:
        request.__dict__.pop("write", None)
        request.write(data)
        if request.startedWriting:
            tell()

    request.__dict__["write"] = first
