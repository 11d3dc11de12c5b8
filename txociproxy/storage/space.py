"""How much may still be written: space is claimed before the first byte and ``--min-free`` is left alone (RULES G2)."""

from __future__ import annotations

from itertools import takewhile
from pathlib import Path

from attrs import define, field
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from txociproxy.oci.errors import NoSpace, StorageUnavailable
from txociproxy.storage.files import Files

WARN_EVERY_S = 3600.0
TRUST_S = 5.0


@define(eq=False)
class Space:
    """Claims of unfinished content on one file system.

    :ivar _min_free_fraction: of the file system, 0 to 1.
    :ivar _min_free_bytes: the floor is the larger of the two.
    """

    _root: Path
    _files: Files
    _clock: IReactorTime
    _min_free_fraction: float
    _min_free_bytes: int
    _claims: dict[int, int] = field(factory=dict, init=False)
    _seen: tuple[int, int] | None = field(default=None, init=False)
    _seen_s: float = field(default=float("-inf"), init=False)
    _due_s: float = field(default=float("-inf"), init=False)
    _warned_s: dict[type[StorageUnavailable], float] = field(factory=dict, init=False)

    log = Logger()

    def claim(self, owner: int, size_bytes: int) -> None:
        """Promise space to an owner, or change what is promised.  Reactor only."""
        self._claims[owner] = size_bytes

    def give_back(self, owner: int) -> None:
        """Forget a promise.  Reactor only."""
        self._claims.pop(owner, None)

    def check_known(self, size_bytes: int) -> None:
        """Raise NoSpace if the last look says that ``size_bytes`` more cannot fit; never blocks.

        A pull that is refused for an old look goes on unkept, and the owner looks again for the next one.
        """
        if self._seen is not None:
            self._check(*self._seen, size_bytes + sum(list(self._claims.values())))

    def is_due(self) -> bool:
        """Whether it is time to look again; says so once.  Reactor only."""
        due = self._clock.seconds() - max(self._seen_s, self._due_s) >= TRUST_S
        if due:
            self._due_s = self._clock.seconds()
        return due

    def look(self) -> tuple[int, int]:
        """See how much is free: (bytes for us, bytes in all).  Threads only."""
        seen = self._seen = self._files.space(self._root)
        self._seen_s = self._clock.seconds()
        return seen

    def check(self, others_bytes: int, size_bytes: int) -> None:
        """Look, and raise NoSpace if ``size_bytes`` more cannot fit beside the others' claims.  Threads only."""
        self._check(*self.look(), others_bytes + size_bytes)

    def before(self, owner: int) -> int:
        """Return what is promised to those who came before this owner, in bytes.

        Later ones do not count: of several that cannot all fit, the first ones still do.
        """
        claims = list(self._claims.items())
        return sum(size_bytes for _, size_bytes in takewhile(lambda claim: claim[0] != owner, claims))

    def warn(self, error: StorageUnavailable) -> None:
        """Tell the owner of the machine, once an hour for each kind of trouble."""
        now_s = self._clock.seconds()
        if now_s - self._warned_s.get(type(error), float("-inf")) >= WARN_EVERY_S:
            self._warned_s[type(error)] = now_s
            self.log.warn("nothing more is kept, pulls go on unkept: {reason}", reason=str(error))

    def _check(self, free_bytes: int, total_bytes: int, wanted_bytes: int) -> None:
        floor_bytes = max(int(total_bytes * self._min_free_fraction), self._min_free_bytes)
        if free_bytes - wanted_bytes < floor_bytes:
            raise NoSpace(
                f"{free_bytes} bytes are free at {self._root}, {wanted_bytes} are wanted and {floor_bytes} must stay"
                " free (--min-free)"
            )
