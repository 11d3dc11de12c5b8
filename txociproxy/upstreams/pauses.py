"""Pauses: whoever asked us to come again later is not asked meanwhile (RULES D8)."""

from __future__ import annotations

from collections import OrderedDict
from datetime import UTC
from email.utils import parsedate_to_datetime
from math import ceil

from attrs import define, field
from twisted.internet.interfaces import IReactorTime
from twisted.web.http_headers import Headers
from twisted.web.iweb import IResponse

from txociproxy.answers import field_of
from txociproxy.collect import KeptResponse
from txociproxy.oci.errors import OCIError
from txociproxy.remembering import remember

MAX_PAUSE_S = 300.0
# Upstreams choose their token servers, so there might be many.
MAX_PAUSES = 64


@define(eq=False)
class Pauses:
    """Which addresses of one upstream want to be left alone, and by whom: by us with our login, or by us as anybody.

    Clients' own credentials are not its affair: their 429 is theirs.
    """

    _clock: IReactorTime
    _until_s: OrderedDict[tuple[str, bool], float] = field(init=False, factory=OrderedDict)

    def note(self, address: str, own: bool, response: IResponse) -> float:
        """Hear an answer; returns for how many seconds it wants a pause.

        :param own: whether our own login was shown.
        """
        pause_s = retry_after_s(response, self._clock.seconds()) if response.code in (429, 503) else 0.0
        if pause_s > 0:
            remember(self._until_s, (address, own), self._clock.seconds() + pause_s, MAX_PAUSES)
        return pause_s

    def left_s(self, address: str, own: bool) -> float:
        """Return how much is left of a pause."""
        return max(self._until_s.get((address, own), 0.0) - self._clock.seconds(), 0.0)


def retry_after_s(response: IResponse, now_s: float) -> float:
    """Return how long Retry-After says to wait (RFC 9110 §10.2.3), at most five minutes; 0 if it says nothing.

    :param now_s: seconds since the epoch, for a date from a server that does not say its own time.
    """
    text = (field_of(response, "Retry-After") or "").strip()
    if text.isascii() and text.isdigit():
        wait_s = float(text[:18])
    else:
        until_s, sent_s = _date_s(text), _date_s(field_of(response, "Date") or "")
        wait_s = 0.0 if until_s is None else until_s - (now_s if sent_s is None else sent_s)
    return min(max(wait_s, 0.0), MAX_PAUSE_S)


def _date_s(text: str) -> float | None:
    """Return an HTTP-date as seconds since the epoch."""
    try:
        date = parsedate_to_datetime(text)
        return (date if date.tzinfo is not None else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def slow_down(text: str, retry_after: str | None) -> KeptResponse:
    """Return the 429 that is given in place of an answer.

    :param text: for the person at the client.
    """
    headers = Headers({b"content-type": [b"application/json"]})
    if retry_after is not None:
        headers.addRawHeader("retry-after", retry_after)
    return KeptResponse(429, headers, OCIError("TOOMANYREQUESTS", text).to_json())


def paused(who: object, left_s: float) -> KeptResponse:
    """Return the 429 for an ask that falls into a pause."""
    return slow_down(f"{who} has asked for a pause, which is not over", str(ceil(left_s)))
