"""Which request a log line belongs to, for lines that do not say so themselves.

A coroutine carries its context along (:meth:`Deferred.fromCoroutine` copies it), so that everything that is logged
while it runs can be given the name of its request, and nothing else is.  What a request has begun and what outlives it
has the same context still; therefore a name ends with its request.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from attrs import define


@define(eq=False)
class RequestName:
    """The name of one request.

    :ivar over: the request has ended; what still runs in its context is not its own any more.
    """

    id: str
    over: bool = False


_CURRENT: ContextVar[RequestName | None] = ContextVar("txociproxy_request", default=None)


@contextmanager
def named(name: RequestName) -> Iterator[None]:
    """Let coroutines that are begun meanwhile belong to this request."""
    token = _CURRENT.set(name)
    try:
        yield
    finally:
        _CURRENT.reset(token)


def current_id() -> str | None:
    """Return the name of the request whose coroutine runs now."""
    name = _CURRENT.get()
    return None if name is None or name.over else name.id
