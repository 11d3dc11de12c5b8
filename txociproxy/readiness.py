"""Would a pull be served now?"""

from __future__ import annotations

from attrs import define


@define(eq=False)
class Readiness:
    """Knows why pulls would fail.

    :ivar draining: the process is about to end.
    """

    draining: bool = False

    def trouble(self) -> str | None:
        """Return why pulls would fail now, in a few words; None says that they would not."""
        return "draining" if self.draining else None
