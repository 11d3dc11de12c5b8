"""Pages for whoever runs the proxy: is it alive, would it serve, and what has it measured (RULES G5)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from attrs import frozen

from txociproxy.oci.errors import OCIError
from txociproxy.oci.requests import Page
from txociproxy.web.replies import NOT_KEPT
from txociproxy.web.sending import Reply

_TEXT: Final = ("Content-Type", "text/plain; charset=utf-8")
_EXPOSITION: Final = ("Content-Type", "text/plain; version=0.0.4; charset=utf-8")


def _always() -> str | None:
    """Find nothing wrong."""
    return None


@frozen
class Pages:
    """Answers for pages.

    :ivar _unready: why pulls would fail now, in a few words; None says that they would not.
    :ivar _exposition: everything that is measured, as Prometheus reads it; None where that page is not to be had.
    """

    _unready: Callable[[], str | None] = _always
    _exposition: Callable[[], bytes] | None = None

    def answer(self, page: Page) -> Reply:
        """Return a page.

        :raises OCIError: it is not here.
        """
        if page.name == "healthz":
            return _text(200, b"ok")
        if page.name == "readyz":
            why = self._unready()
            return _text(200, b"ready") if why is None else _text(503, why.encode("utf-8"))
        if self._exposition is None:
            raise OCIError("UNSUPPORTED", "metrics are served at another address (admin_listen)", status=404)
        body = self._exposition()
        return Reply(200, (_EXPOSITION, NOT_KEPT), body, len(body))


def _text(status: int, body: bytes) -> Reply:
    return Reply(status, (_TEXT, NOT_KEPT), body, len(body))
