"""What is told of the requests to upstreams: numbers, and lines for whoever follows single requests (RULES A6).

Every request that is sent on behalf of a namespace counts for it: to the registry, to its token server, and to the
servers that they redirect to.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from attrs import define, field
from twisted.logger import Logger
from twisted.web.http_headers import Headers
from twisted.web.iweb import IResponse

from txociproxy.logs import Seconds, trace
from txociproxy.metrics import Metrics

# Everything that is not named here may hold a credential, and stays out of the log.
SHOWN = (
    "Accept",
    "Range",
    "User-Agent",
    "Content-Type",
    "Content-Length",
    "Content-Range",
    "Docker-Content-Digest",
    "ETag",
    "Retry-After",
    "RateLimit-Limit",
    "RateLimit-Remaining",
    "RateLimit-Reset",
    "RateLimit-Policy",
)
_SCHEMES = frozenset({"basic", "bearer", "digest", "negotiate"})
_MAX_CHALLENGES = 8
_AUTHORITY = re.compile(r"((?:[A-Za-z][A-Za-z0-9+.-]*:)?[/\\]{2,})([^/\\]*)(.*)", re.DOTALL)
_Fields = dict[str, str]


@define(eq=False)
class Telling:
    """Tells of the requests of one entry.

    :ivar _traces: whether there is a line for each request and each answer.
    :ivar _asked: how many requests there were; a request and its answer have the same number in their lines.
    """

    namespace: str
    metrics: Metrics = field(factory=Metrics)
    _traces: bool = False
    _asked: int = field(default=0, init=False)

    log = Logger()

    def asked(self, method: str, url: str, headers: Headers) -> int:
        """Hear that a request is sent; returns its number."""
        self._asked += 1
        if self._traces:
            self._say("upstream request", self._asked, method, url, fields=shown(headers))
        return self._asked

    def answered(self, number: int, method: str, url: str, response: IResponse, after_s: float) -> None:
        """Hear that the head of an answer is in."""
        self.metrics.upstream_answered(self.namespace, method, response.code, after_s)
        if self._traces:
            fields = shown(response.headers)
            if method != "HEAD" and isinstance(response.length, int):
                # Of an answer with a body, Twisted takes this field for itself.
                fields.setdefault("content_length", str(response.length))
            self._say("upstream answer", number, method, url, after_s, fields, status=response.code)

    def failed(self, number: int, method: str, url: str, reason: str, after_s: float) -> None:
        """Hear that there is no answer that can be used.

        :param number: 0 for a request that was not sent.
        :param reason: see :func:`failures.reason`.
        """
        self.metrics.upstream_failed(self.namespace, reason)
        if self._traces:
            self._say("no upstream answer", number, method, url, after_s, reason=reason)

    def left(self, number: int, method: str, url: str, after_s: float) -> None:
        """Hear that nobody waits for the answer any more: no error, and no answer either."""
        if self._traces:
            self._say("no upstream answer", number, method, url, after_s, reason="left")

    def token(self, result: str) -> None:
        """Hear what became of an ask for a token; see :meth:`Metrics.token`."""
        self.metrics.token(self.namespace, result)

    def quota(self, limit: int, remaining: int) -> None:
        """Hear what the upstream says of its quota."""
        self.metrics.quota(self.namespace, limit, remaining)

    def _say(
        self,
        text: str,
        number: int,
        method: str,
        url: str,
        after_s: float | None = None,
        fields: _Fields | None = None,
        **more: object,
    ) -> None:
        duration = None if after_s is None else Seconds(after_s)
        about = {"namespace": self.namespace, "number": number, "method": method, "url": plain(url)}
        trace(self.log, text, **about, **more, duration=duration, **(fields or {}))


def shown(headers: Headers) -> _Fields:
    """Return the header fields that may be shown, by the names that they have in the log."""
    fields = {_word(name): ", ".join(values) for name in SHOWN if (values := _values(headers, name))}
    for value in _values(headers, "Location")[:1]:
        fields["location"] = plain(value)
    challenges = _values(headers, "WWW-Authenticate")
    if challenges:
        fields["www_authenticate"] = ",".join(map(_scheme, challenges[:_MAX_CHALLENGES]))
    return fields


def plain(url: str) -> str:
    """Return a URL, or what stands for one, without what signs it and without a user and password.

    A query and a fragment can be credentials, so all of them are left out.
    """
    text = re.split("[?#]", url, maxsplit=1)[0]
    parts = _AUTHORITY.fullmatch(text)
    if parts is None:
        return text.rpartition("@")[2]  # not meant as a path, then
    return f"{parts[1]}{parts[2].rpartition('@')[2]}{parts[3]}"


def _scheme(challenge: str) -> str:
    """Return the scheme of a challenge; realm and parameters may hold anything."""
    word = challenge.split(maxsplit=1)[0].lower() if challenge.strip() else ""
    return word if word in _SCHEMES else "other"


def _word(name: str) -> str:
    return name.lower().replace("-", "_")


def _values(headers: Headers, name: str) -> list[str]:
    raw: Sequence[bytes] = headers.getRawHeaders(name.encode("ascii"), [])
    return [value.decode("latin-1") for value in raw]
