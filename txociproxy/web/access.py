"""One line per pull, written when its answer is over, however it ended."""

from __future__ import annotations

import re
from typing import Final

from attrs import define, field
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.logger import Logger
from twisted.web.server import Request

from txociproxy.oci.requests import BlobPull, ManifestPull, Referrers, TagList, Target

_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_MAPPED: Final = "::ffff:"


def client_address(address: IAddress) -> str:
    """Return a client's IP address, ``-`` for a Unix socket.

    A socket of both families shows IPv4 clients as mapped addresses; they are written as what they are.
    """
    if not isinstance(address, IPv4Address | IPv6Address):
        return "-"
    host = str(address.host)
    return host.removeprefix(_MAPPED) if "." in host else host


@define(eq=False)
class Visit:
    """One request, from its head to its end, as the log will tell it.

    :ivar kind: what was asked, once it is known.
    :ivar namespace: the upstream it was routed to.
    :ivar reason: what its client was told instead of content.
    :ivar repository: as the upstream names it; as the client did, until it is routed.
    """

    _request: Request
    _clock: IReactorTime
    _log: Logger
    outcome: str | None = None
    namespace: str | None = None
    repository: str | None = None
    reference: str | None = None
    kind: str | None = None
    reason: str | None = None
    client: str = field(init=False)
    _began_s: float = field(init=False)
    _over: bool = False

    def __attrs_post_init__(self) -> None:
        self.client = client_address(self._request.getClientAddress())
        self._began_s = self._clock.seconds()

    def asks(self, target: Target) -> None:
        """Remember what is asked."""
        if isinstance(target, ManifestPull | BlobPull | TagList | Referrers):
            self.repository = target.name
        if isinstance(target, ManifestPull):
            self.kind, self.reference = "manifest", str(target.reference)
        elif isinstance(target, BlobPull):
            self.kind, self.reference = "blob", str(target.digest)

    def end(self, how: str) -> None:
        """Write the line, once.

        :param how: ``finished``, ``cut`` or ``left``; only what is not the rule is written.
        """
        if self._over:
            return
        self._over = True
        request = self._request
        fields: dict[str, object] = {
            "method": request.method,
            "namespace": self.namespace,
            "repository": self.repository,
            "reference": self.reference,
            # A client that left before its answer began got none.
            "status": request.code if request.startedWriting or how == "finished" else None,
            "outcome": self.outcome or (None if self.kind is None else "error"),
            "reason": self.reason,
            "bytes": request.sentLength,
            "duration": f"{self._clock.seconds() - self._began_s:.3f}",
            "client": self.client,
            "ended": None if how == "finished" else how,
            "request_id": self._request_id(),
        }
        if self.kind is None:
            self._log.debug("request", target=request.uri.partition(b"?")[0], **fields)
        else:
            self._log.info("pull", kind=self.kind, **fields)

    def _request_id(self) -> str | None:
        """Return the client's own name for this request, if it is fit for a log (RULES A6)."""
        text = self._request.getHeader("X-Request-Id")
        return text if text is not None and _REQUEST_ID.fullmatch(text) else None
