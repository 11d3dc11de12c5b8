"""The gate before the bucket: while S3 is out nobody waits for it, and one probe in the background asks after it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from txociproxy.oci.errors import StorageUnavailable
from txociproxy.storage.s3.trouble import S3Trouble

FAILURES = 3  # so many 5xx in a row are no accident
FIRST_WAIT_S = 1.0
LONGEST_WAIT_S = 30.0
PROBE_S = 30.0
# An outage so soon after the last one is the same one, seen by those whom the probe does not stand for.
STEADY_S = 10.0


async def _nothing() -> None:
    """Find S3 well, where nobody has said how to ask: then time alone opens the gate."""


@define(eq=False, repr=False)
class Gate:
    """Whether S3 is asked at all.

    :ivar _where: names the bucket in the log.
    :ivar is_open: False during an outage.
    :ivar probe: finds out whether S3 is well again: raises if it is not.
    :ivar outages: how many there were.
    :ivar trouble: what was heard last of an outage that goes on.
    :ivar on_open, on_close: called at the end and at the start of every outage; must not raise.
    """

    _clock: IReactorTime
    _where: str
    is_open: bool = field(init=False, default=True)
    outages: int = field(init=False, default=0)
    trouble: S3Trouble | None = field(init=False, default=None)
    probe: Callable[[], Awaitable[object]] = field(init=False, default=_nothing)
    on_open: list[Callable[[], None]] = field(init=False, factory=list)
    on_close: list[Callable[[], None]] = field(init=False, factory=list)
    _failures: int = field(init=False, default=0)
    _wait_s: float = field(init=False, default=FIRST_WAIT_S)
    _closed_at_s: float = field(init=False, default=0.0)
    _opened_at_s: float | None = field(init=False, default=None)
    _timer: IDelayedCall | None = field(init=False, default=None)
    _probing: Deferred[None] | None = field(init=False, default=None)
    _is_stopped: bool = field(init=False, default=False)
    log = Logger()

    def check(self) -> None:
        """Return if S3 may be asked.

        :raises S3Trouble: it is out.
        """
        if self.trouble is not None:
            raise S3Trouble(self.trouble.kind, self.trouble.code, f"{self._where} is left alone")

    def failed(self, trouble: S3Trouble) -> None:
        """Hear that S3 did not do what it was asked to; what is heard during an outage changes nothing."""
        if not self.is_open:
            return
        self._failures += 1
        if trouble.kind != "failing" or self._failures >= FAILURES:
            self._close(trouble)

    def worked(self) -> None:
        """Hear that S3 did what it was asked to; only the probe ends an outage."""
        self._failures = 0

    def stop(self) -> None:
        """Probe no more; the gate stays as it is."""
        self._is_stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._probing is not None:
            self._probing.cancel()

    def _close(self, trouble: S3Trouble) -> None:
        now_s = self._clock.seconds()
        if self._opened_at_s is None or now_s - self._opened_at_s > STEADY_S:
            self._wait_s = FIRST_WAIT_S
        self.is_open, self.trouble, self._closed_at_s = False, trouble, now_s
        self.outages += 1
        self.log.warn(
            "{where} is out, pulls go on from the upstream: {trouble}", where=self._where, trouble=str(trouble)
        )
        self._probe_later()
        for told in list(self.on_close):
            told()

    def _open(self) -> None:
        self.is_open, self.trouble, self._failures = True, None, 0
        self._opened_at_s = self._clock.seconds()
        self.log.info(
            "{where} is back after {seconds} seconds",
            where=self._where,
            seconds=round(self._opened_at_s - self._closed_at_s, 1),
        )
        for told in list(self.on_open):
            told()

    def _probe_later(self) -> None:
        if self._is_stopped:
            return
        self._timer = self._clock.callLater(self._wait_s, self._begin)
        self._wait_s = min(self._wait_s * 2, LONGEST_WAIT_S)

    def _begin(self) -> None:
        self._timer = None
        probing = self._probing = Deferred.fromCoroutine(self._probe())
        if not probing.called:
            probing.addTimeout(PROBE_S, self._clock)
        # A probe that was given up has been cancelled, and says so itself: nothing is left to tell.
        probing.addErrback(lambda _: None)

    async def _probe(self) -> None:
        try:
            await self.probe()
        except CancelledError:
            self.trouble = S3Trouble("unreachable", "Timeout", f"the probe of {self._where}")
        except StorageUnavailable as error:
            self.trouble = (
                error if isinstance(error, S3Trouble) else S3Trouble("refused", type(error).__name__, str(error))
            )
        except Exception as error:
            self.trouble = S3Trouble("failing", type(error).__name__, f"the probe of {self._where}")
        else:
            self._probing = None
            self._open()
            return
        self._probing = None
        self._probe_later()
