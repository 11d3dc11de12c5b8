"""Pages for whoever runs the proxy: is it alive, would it serve, and what has it measured (RULES G5)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from attrs import frozen
from twisted.web.server import Request

from txociproxy.oci.errors import OCIError
from txociproxy.oci.requests import Page, Target
from txociproxy.web.access import Visit
from txociproxy.web.replies import NOT_KEPT
from txociproxy.web.sending import Reply, send_reply

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


@frozen
class PageDesk:
    """Answers at the door of whoever runs the proxy: pages, and nothing else."""

    _pages: Pages

    async def answer(self, request: Request, visit: Visit, target: Target) -> None:
        """Give a page.

        :raises OCIError: something else is wanted.
        """
        if not isinstance(target, Page):
            raise OCIError("UNSUPPORTED", "only /healthz, /readyz and /metrics are served here", status=404)
        send_reply(request, self._pages.answer(target))


def _text(status: int, body: bytes) -> Reply:
    return Reply(status, (_TEXT, NOT_KEPT), body, len(body))
