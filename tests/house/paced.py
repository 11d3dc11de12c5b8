"""A body from an upstream in memory that is not over, and does as it is told."""

from __future__ import annotations

from attrs import define, field

from tests.upstreams.fakes import FakeResponse


@define(eq=False, repr=False)
class Paced(FakeResponse):
    """A body that never ends, and can be paused.

    :ivar whole_bytes: how long it shall be.
    """

    whole_bytes: int = 0
    paused: bool = field(init=False, default=False)

    def __attrs_post_init__(self) -> None:
        self.open_ended, self.length = True, self.whole_bytes

    def pauseProducing(self) -> None:
        """Send nothing for now."""
        self.paused = True

    def resumeProducing(self) -> None:
        """Send again."""
        self.paused = False
