"""How much of the local disk content may take that is not in the bucket yet."""

from __future__ import annotations

from attrs import define, field
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from txociproxy.oci.errors import NoSpace
from txociproxy.storage.s3.uploads import Uploads

MAX_WAITING = 10_000
WARN_EVERY_S = 3600.0


@define(eq=False)
class Budget:
    """What arrives and what waits for its upload, together.

    :ivar max_bytes: for both.
    :ivar _max_waiting: how many may wait.
    """

    max_bytes: int
    _uploads: Uploads
    _clock: IReactorTime
    _max_waiting: int = MAX_WAITING
    _claims: dict[int, int] = field(factory=dict, init=False)
    _claimed_bytes: int = field(default=0, init=False)
    _warned_s: float = field(default=float("-inf"), init=False)

    log = Logger()

    @property
    def used_bytes(self) -> int:
        """What is taken, or promised to what is arriving."""
        return self._claimed_bytes + self._uploads.waiting_bytes

    def check(self, size_bytes: int) -> None:
        """Say whether new content of this size may come; 0 is not known.

        :raises NoSpace: it does not fit, or too many wait already.
        """
        if self._uploads.waiting >= self._max_waiting:
            self._refuse(f"{self._uploads.waiting} wait for their upload already")
        if self.used_bytes + max(size_bytes, 1) > self.max_bytes:
            self._refuse(f"{size_bytes} bytes more do not fit")

    def claim(self, owner: int, size_bytes: int) -> None:
        """Promise so much to an owner, in place of what was promised.

        :raises NoSpace: it does not fit; what was promised stays.
        """
        if self.used_bytes - self._claims.get(owner, 0) + size_bytes > self.max_bytes:
            self._refuse(f"{size_bytes} bytes do not fit")
        self.give_back(owner)
        self._claims[owner] = size_bytes
        self._claimed_bytes += size_bytes

    def give_back(self, owner: int) -> None:
        """Forget what was promised."""
        self._claimed_bytes -= self._claims.pop(owner, 0)

    def _refuse(self, why: str) -> None:
        error = NoSpace(f"{why}: {self.used_bytes} of {self.max_bytes} bytes on the local disk wait for S3")
        now_s = self._clock.seconds()
        if now_s - self._warned_s >= WARN_EVERY_S:
            self._warned_s = now_s
            self.log.warn("nothing more is kept, pulls go on unkept: {reason}", reason=str(error))
        raise error
