"""Uploads: what was committed locally is brought into the bucket, behind everybody's back and for as long as it takes.

One upload per digest runs, a few in all, the oldest first, and none while the gate is closed.  The local copy is let go
(``done``) only when an upload has seen all that was committed: whoever commits says so before and after, and what came
while an upload ran is uploaded once more.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from attrs import define, field
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from txociproxy.interfaces import IWorkers
from txociproxy.oci.names import Digest
from txociproxy.storage.s3.bucket import WrongDigest
from txociproxy.storage.s3.gate import Gate
from txociproxy.storage.s3.hands import Hands, Upload, Work, awaited
from txociproxy.storage.s3.line import Line
from txociproxy.storage.s3.setbacks import Setbacks, wait_s

STOP_S = 2.0
HOPELESS = 3  # failures in a row, of one upload or of whichever


@define(eq=False)
class Uploads:
    """What waits for its upload, and the uploads that run.

    :ivar _publish: brings one digest into the bucket; called in a thread with the digest and what says whether it is to
        be given up.
    :ivar _done: lets go of the local copy and then of its mark, with nobody else's hands on them.
    :ivar _at_once: how many run.
    """

    _publish: Callable[[Digest, Callable[[], bool]], None]
    _done: Callable[[Digest], Awaitable[object]]
    _workers: IWorkers
    _gate: Gate
    _clock: IReactorTime
    _at_once: int = 4
    _hands: Hands = field(init=False)
    _line: Line = field(factory=Line, init=False)
    _setbacks: Setbacks = field(init=False)
    _running: int = field(default=0, init=False)
    _state: str = field(default="new", init=False)  # then: started, stopped
    _pumping: bool = field(default=False, init=False)
    _timer: IDelayedCall | None = field(default=None, init=False)
    _stopping: Deferred[None] | None = field(default=None, init=False)

    log = Logger()

    def __attrs_post_init__(self) -> None:
        self._hands = Hands(self._ready)
        self._setbacks = Setbacks(self._gate, self._clock)

    @property
    def waiting(self) -> int:
        """How many contents wait, or are being committed or uploaded."""
        return len(self._hands.known)

    @property
    def waiting_bytes(self) -> int:
        """The size of all local copies that wait or are being uploaded."""
        return self._hands.waiting_bytes

    def holds(self, digest: Digest) -> bool:
        """Whether the local copy is still needed; may be asked in a thread that holds its directory's lock."""
        return digest in self._hands.known

    def is_coming(self, digest: Digest) -> bool:
        """Whether the content can be expected in the bucket soon: it is on its way, and does not fail every time."""
        upload = self._hands.known.get(digest)
        return upload is not None and max(upload.failures, self._setbacks.in_a_row) < HOPELESS

    def start(self) -> None:
        """Begin to upload; before that everything waits."""
        self._state = "started"
        self._gate.on_open.append(self._opened)
        self._pump()

    def stop(self) -> Deferred[None]:
        """Begin nothing more and give up what runs; fires when no thread is at work, in two seconds at the latest.

        What is unfinished stays marked.
        """
        if self._state == "started":
            self._gate.on_open.remove(self._opened)
        self._state = "stopped"
        self._set_timer(None)
        if not self._running:
            return succeed(None)
        self._stopping = Deferred()
        self._set_timer(STOP_S, self._stopped)
        return self._stopping

    def add(self, digest: Digest, size_bytes: int) -> None:
        """Upload what lies locally under this digest; once more, if an upload of it runs already."""
        self._hands.add(digest, size_bytes)

    def committing(self, digest: Digest) -> Deferred[None]:
        """Before the mark and the commit of this content: fires when nobody is about to remove them.

        Nobody will before :meth:`committed`, which must follow.
        """
        return self._hands.committing(digest)

    def committed(self, digest: Digest, size_bytes: int | None) -> None:
        """After the commit, also one that failed (0 bytes): what it left, if only a mark, is worked off.

        :param size_bytes: None: there was none, and nothing is to be done.
        """
        self._hands.committed(digest, size_bytes)

    def cancel(self, digest: Digest, work: Work | None = None) -> Deferred[None]:
        """Upload this digest no more; fires when no thread works for it.

        :param work: removes what is there, while neither an upload nor a commit of this digest runs (those that come
            wait).  If it fails the failure is passed on, and what is left is uploaded after all.
        """
        return self._hands.cancel(digest, work)

    # --- one upload

    def _begin(self, upload: Upload) -> None:
        upload.stage, upload.wanted, upload.cancelled = "publishing", False, False
        self._running += 1
        d = self._workers.run(self._publish, upload.digest, lambda: upload.cancelled or self._state == "stopped")
        d.addBoth(self._published, upload)

    def _published(self, result: object, upload: Upload) -> None:
        if upload.cancelled or self._state == "stopped":
            upload.wanted = upload.wanted or self._state == "stopped"  # its copy is still needed
            self._ended(upload)
        elif isinstance(result, Failure) and not isinstance(result.value, WrongDigest):
            self._failed(result, upload)
        else:
            self._succeeded(result, upload)

    def _succeeded(self, result: object, upload: Upload) -> None:
        if isinstance(result, Failure):
            self.log.error("{digest} had other bytes and was removed", digest=str(upload.digest))
        else:
            self._setbacks.worked()
        upload.failures, upload.due_s = 0, 0.0
        if upload.is_asked_for:
            self._ended(upload)
            return
        upload.stage = "removing"
        awaited(lambda: self._done(upload.digest)).addBoth(self._finished, upload)

    def _finished(self, result: object, upload: Upload) -> None:
        if isinstance(result, Failure):
            self._failed(result, upload)
            return
        self.log.debug("{digest} waits no more", digest=str(upload.digest))
        if not upload.wanted:
            self._hands.resize(upload, 0)
        self._ended(upload)

    def _failed(self, failure: Failure, upload: Upload) -> None:
        self._setbacks.failed(upload.digest, failure)
        upload.wanted = True
        upload.failures += 1
        upload.due_s = self._clock.seconds() + wait_s(upload.failures)
        self._ended(upload)

    def _ended(self, upload: Upload) -> None:
        upload.stage, upload.cancelled = "idle", False
        self._running -= 1
        self._hands.settle(upload)
        if self._state == "stopped" and not self._running:
            self._stopped()
        self._pump()

    # --- all of them

    def _ready(self, upload: Upload) -> None:
        self._line.push(upload)
        self._pump()

    def _opened(self) -> None:
        self._setbacks.forget_rest()
        self._pump()

    def _pump(self) -> None:
        """Begin what may begin, and come back when something is due."""
        if self._pumping or self._state != "started":
            return
        self._pumping = True
        try:
            while self._may_begin() and (upload := self._line.pop(self._clock.seconds())) is not None:
                self._begin(upload)
        finally:
            self._pumping = False
        self._come_back()

    def _may_begin(self) -> bool:
        is_resting = self._clock.seconds() < self._setbacks.rest_until_s
        return self._gate.is_open and self._running < self._at_once and not is_resting

    def _come_back(self) -> None:
        now_s = self._clock.seconds()
        if not self._gate.is_open or self._running >= self._at_once:
            self._set_timer(None)  # whoever opens it, or ends, pumps
            return
        due_s = self._line.due_s()
        when_s = self._setbacks.rest_until_s if now_s < self._setbacks.rest_until_s else due_s
        self._set_timer(None if when_s is None else max(0.0, when_s - now_s), self._pump)

    def _set_timer(self, delay_s: float | None, call: Callable[[], None] | None = None) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()
        if delay_s is not None and call is not None:
            self._timer = self._clock.callLater(delay_s, call)

    def _stopped(self) -> None:
        stopping, self._stopping = self._stopping, None
        self._set_timer(None)
        if stopping is not None:
            stopping.callback(None)
