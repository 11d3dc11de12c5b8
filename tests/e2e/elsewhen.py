"""A process that believes in another clock: its own, which a test puts while it runs.

The wall clock of Python is shifted before anything else is imported, by a ``sitecustomize`` that stands first on the
path.  All that asks Python for the time believes it: Twisted's timers, which go by the wall clock, and what the AWS SDK
signs with.  The monotonic clock goes on as it does when a real one is put.
"""

from __future__ import annotations

import datetime
import time
from pathlib import Path
from typing import Any

from attrs import field, frozen

from tests.e2e.ceph import Account
from tests.e2e.processes import ROOT


@frozen
class Elsewhen(Account):
    """An account whose process has a clock of its own.

    :ivar directory: a new one; the clock lies there.
    """

    directory: Path = field(kw_only=True)

    @property
    def clock(self) -> Path:
        """The file that says how many seconds the clock is ahead."""
        return self.directory / "ahead_s"

    def put(self, ahead_s: float) -> None:
        """Put the clock."""
        new = self.clock.with_suffix(".new")
        new.write_text(str(ahead_s))
        new.replace(self.clock)

    def environment(self) -> dict[str, str]:
        """Return the account's environment, and what begins before all else."""
        begin = f"from tests.e2e.elsewhen import begin\nbegin({str(self.clock)!r})\n"
        (self.directory / "sitecustomize.py").write_text(begin)
        return {**super().environment(), "PYTHONPATH": f"{self.directory}:{ROOT}"}


def begin(clock: str) -> None:
    """Let this process ask the file how wrong its clock is."""
    file, now, real = Path(clock), time.time, datetime.datetime

    def shifted() -> float:
        return now() + float(file.read_text())

    class Kind(type):
        """Every real one is one of ours."""

        def __instancecheck__(cls, value: object) -> bool:
            return isinstance(value, real)

    class Shifted(real, metaclass=Kind):  # type: ignore[misc, valid-type]
        """A date that knows what time this process believes it is."""

        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> Any:
            """Return the time of the clock."""
            return real.fromtimestamp(shifted(), tz)

        @classmethod
        def utcnow(cls) -> Any:
            """Return the time of the clock in UTC, without a zone."""
            return real.fromtimestamp(shifted(), datetime.UTC).replace(tzinfo=None)

    vars(time)["time"] = shifted
    vars(datetime)["datetime"] = Shifted
