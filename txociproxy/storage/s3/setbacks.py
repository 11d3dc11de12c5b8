"""What a failed upload means: for the gate, for the other uploads, and for the log."""

from __future__ import annotations

from attrs import define, field
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from txociproxy.oci.errors import StorageUnavailable
from txociproxy.oci.names import Digest
from txociproxy.storage.s3.bucket import UploadCancelled
from txociproxy.storage.s3.connecting import FULL
from txociproxy.storage.s3.gate import Gate
from txociproxy.storage.s3.trouble import S3Trouble

FIRST_WAIT_S = 1.0
LONGEST_WAIT_S = 300.0
WARN_EVERY_S = 60.0
# What a refused write says of reads too.  All else may concern one object, or writes alone (no right to, a full
# store), and while the gate is closed for them nobody would read what is there.
REFUSED_ALL = frozenset(
    {
        *("InvalidAccessKeyId", "SignatureDoesNotMatch", "NoCredentials", "RequestTimeTooSkewed", "NoSuchBucket"),
        *("ExpiredToken", "ExpiredTokenException", "InvalidToken", "InvalidClientTokenId", "TokenRefreshRequired"),
    }
)


@define(eq=False)
class Setbacks:
    """Failures in a row, of whichever upload.

    :ivar in_a_row: how often uploads failed since one went well.
    :ivar rest_until_s: no upload begins before this time of the clock: thousands that wait must not ask by turns, each
        at its own pace, what is refused to all of them.
    """

    _gate: Gate
    _clock: IReactorTime
    rest_until_s: float = field(default=float("-inf"), init=False)
    in_a_row: int = field(default=0, init=False)
    _warned_s: float = field(default=float("-inf"), init=False)

    log = Logger()

    def worked(self) -> None:
        """Hear that an upload went well."""
        self.in_a_row = 0
        self._gate.worked()

    def forget_rest(self) -> None:
        """Let uploads begin at once; if they fail again they rest longer."""
        self.rest_until_s = float("-inf")

    def failed(self, digest: Digest, failure: Failure) -> None:
        """Hear that an upload failed; those who can do something about it are told."""
        error = failure.value
        if isinstance(error, S3Trouble):
            is_first = self._clock.seconds() >= self.rest_until_s  # several that failed together count once
            if is_first:
                self.in_a_row += 1
                self.rest_until_s = self._clock.seconds() + wait_s(self.in_a_row)
            # A server that is too busy for parts may be well for all else: those who read say so between the rounds.
            if concerns_all(error) and (is_first or error.kind != "failing"):
                self._gate.failed(error)
        if self._gate.is_open and not isinstance(error, UploadCancelled):  # an outage has a line of its own
            self._warn(digest, error)

    def _warn(self, digest: Digest, error: object) -> None:
        now_s = self._clock.seconds()
        if now_s - self._warned_s >= WARN_EVERY_S:
            self._warned_s = now_s
            what = str(error) if isinstance(error, StorageUnavailable) else type(error).__name__
            self.log.warn("the upload of {digest} will be tried again: {what}", digest=str(digest), what=what)


def concerns_all(trouble: S3Trouble) -> bool:
    """Say whether what a write met says something of reads too, so that the gate should hear of it."""
    return trouble.code not in FULL and (trouble.kind != "refused" or trouble.code in REFUSED_ALL)


def wait_s(failures: int) -> float:
    """Return how long is waited after so many failures in a row, at least one."""
    return min(FIRST_WAIT_S * 2.0 ** min(failures - 1, 30), LONGEST_WAIT_S)
