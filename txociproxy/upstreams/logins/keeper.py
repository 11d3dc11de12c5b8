"""Keeping a login for as long as it may be kept, with one reading for all who ask at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from attrs import define, field, frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

from txociproxy.interfaces import IWorkers
from txociproxy.upstreams.logins.accounts import Login, LoginUnavailable

T = TypeVar("T")

# A helper that fails is not started for every pull, and one that has recovered is soon heard.
FAILURE_S = 5.0
# A wrong password is not read again for every pull, and one that was replaced is soon found.
REFUSED_S = 10.0
# Longer than anything that is read here may take by its own bounds, but for a disk that hangs.
READING_S = 45.0
_TOO_LONG = f"our own login could not be read within {READING_S:g} s"
_ENDED = "the reading of our own login was stopped"


@frozen
class Reading:
    """A login as it was read, and how long it may be used."""

    login: Login
    lifetime_s: float


class Reader:
    """Knows where a login is, and keeps nothing; asked once at a time."""

    async def read(self) -> Reading:
        """Read the login; cancelling ends whatever runs for it.

        :raises LoginUnavailable: there is none now.
        """
        raise NotImplementedError

    def refused(self, login: Login) -> None:
        """Hear that this login was refused; for those who ask others that keep."""

    def stop(self) -> None:
        """End what runs elsewhere, and would not end with the reading."""


async def in_thread(workers: IWorkers, function: Callable[..., T], *args: Any) -> T:
    """Call ``function(*args)`` in a thread, unless the threads have hung for so long that it would only queue.

    :raises LoginUnavailable: they have.
    """
    if workers.stuck(READING_S):
        raise LoginUnavailable("our own login cannot be read: all threads are stuck", timed_out=True)
    result: T = await workers.run(function, *args)
    return result


@define(eq=False)
class Keeper:
    """A :class:`~txociproxy.upstreams.logins.accounts.LoginSource` that keeps what its reader finds.

    :ivar _until_s: until when the login is good, or the failure is repeated, by the clock.
    """

    _reader: Reader
    _clock: Any
    _kept: Login | LoginUnavailable | None = field(init=False, default=None)
    _read_at_s: float = field(init=False, default=0.0)
    _until_s: float = field(init=False, default=0.0)
    _running: Deferred[Reading] | None = field(init=False, default=None)
    _waiters: list[Deferred[Login]] = field(init=False, factory=list)

    async def login(self) -> Login:
        """See :meth:`LoginSource.login`."""
        if self._kept is None or self._clock.seconds() >= self._until_s:
            return await self._join()
        if isinstance(self._kept, LoginUnavailable):
            raise _again(self._kept)
        return self._kept

    def refused(self, login: Login) -> None:
        """See :meth:`LoginSource.refused`; one that is not kept any more is nothing to us."""
        if self._kept == login:
            self._until_s = min(self._until_s, self._read_at_s + REFUSED_S)
        self._reader.refused(login)

    def stop(self) -> None:
        """See :meth:`LoginSource.stop`; who waits is told, and who asks later starts anew."""
        self._reader.stop()
        if self._running is not None:
            self._running.cancel()

    def _join(self) -> Deferred[Login]:
        """Wait for the one reading, beginning it if there is none.

        It goes on when a waiter leaves, the first one included: it is short, and the next pull wants it.
        """
        waiter: Deferred[Login] = Deferred(self._waiters.remove)
        self._waiters.append(waiter)
        if self._running is None:
            running = self._running = Deferred.fromCoroutine(self._read())
            running.addBoth(self._settle)
        return waiter

    async def _read(self) -> Reading:
        """Read within the bound."""
        reading = Deferred.fromCoroutine(self._reader.read())
        bound: IDelayedCall = self._clock.callLater(READING_S, reading.cancel)
        try:
            return await reading
        except CancelledError:
            if bound.active():
                raise
            raise LoginUnavailable(_TOO_LONG, timed_out=True) from None
        finally:
            if bound.active():
                bound.cancel()

    def _settle(self, result: Reading | Failure) -> None:
        """Keep what was read, and tell everybody who waits."""
        self._running, self._read_at_s = None, self._clock.seconds()
        outcome = self._keep(result)
        # Whoever is told may cancel another, who then leaves this list, or ask again, and joins the next.
        waiters, self._waiters = self._waiters, []
        while waiters:
            _tell(waiters.pop(0), outcome)

    def _keep(self, result: Reading | Failure) -> Login | Failure:
        if isinstance(result, Reading):
            self._kept, self._until_s = result.login, self._read_at_s + result.lifetime_s
            return result.login
        if result.check(CancelledError):
            return Failure(LoginUnavailable(_ENDED))
        if isinstance(result.value, LoginUnavailable):
            self._kept, self._until_s = result.value, self._read_at_s + FAILURE_S
        return result


def _tell(waiter: Deferred[Login], outcome: Login | Failure) -> None:
    """Give a waiter what was read, or an error of his own, since a raised one collects tracebacks."""
    if isinstance(outcome, Login):
        waiter.callback(outcome)
    elif isinstance(outcome.value, LoginUnavailable):
        waiter.errback(_again(outcome.value))
    else:
        waiter.errback(outcome)


def _again(error: LoginUnavailable) -> LoginUnavailable:
    return LoginUnavailable(str(error), error.timed_out)
