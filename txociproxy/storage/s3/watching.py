"""Spools whose end somebody wants to know."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.python.components import proxyForInterface

from txociproxy.interfaces import HeaderList, ISpool
from txociproxy.oci.names import Descriptor


class WatchedSpool(proxyForInterface(ISpool, "_inner")):  # type: ignore[misc]  # made while this runs
    """A spool that tells its end once: True is committed.

    :param ended: called in the reactor when a commit has ended, or when it is certain that there will be none.
    """

    _inner: ISpool

    def __init__(self, inner: ISpool, ended: Callable[[bool], None]) -> None:
        super().__init__(inner)
        self._ended: Callable[[bool], None] | None = ended
        self._is_committing = False

    def commit(self, descriptor: Descriptor, headers: HeaderList, namespace: str, held: bool) -> Deferred[None]:
        """See :meth:`ISpool.commit`."""
        is_first, self._is_committing = not self._is_committing, True
        return Deferred.fromCoroutine(self._commit(descriptor, headers, namespace, held, is_first))

    async def _commit(
        self, descriptor: Descriptor, headers: HeaderList, namespace: str, held: bool, is_first: bool
    ) -> None:
        is_done = False
        try:
            await self._inner.commit(descriptor, headers, namespace, held)
            is_done = True
        finally:
            if is_first:
                self._end(is_done)

    def abandon(self) -> None:
        """See :meth:`ISpool.abandon`."""
        self._inner.abandon()
        self._end_unless_committing()

    def close(self) -> None:
        """See :meth:`ISpool.close`."""
        self._inner.close()
        self._end_unless_committing()

    def _end_unless_committing(self) -> None:
        if not self._is_committing:
            self._end(False)

    def _end(self, is_done: bool) -> None:
        ended, self._ended = self._ended, None
        if ended is not None:
            ended(is_done)
