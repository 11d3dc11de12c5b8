"""Would a pull be served now?

Little is counted here, since little makes pulls fail: without disk or bucket they go on unkept (RULES G2), a lost
upstream fails its own misses only, and a thread that waits for the disk turns a hit into a miss.  Before the storage is
ready nobody is answered at all, and who finds no connection free does not get here.
"""

from __future__ import annotations

from typing import Final

from attrs import define

from txociproxy.interfaces import IWorkers

# A batch of an ingest hashes within milliseconds, also on a machine that is busy with other things.
HASHING_S: Final = 10.0


@define(eq=False)
class Readiness:
    """Knows why pulls would fail, without looking anything up.

    :ivar _hashers: no content has a verdict, and no manifest a type, without them; None where there are none.
    :ivar draining: the process is about to end.
    """

    _hashers: IWorkers | None = None
    draining: bool = False

    def trouble(self) -> str | None:
        """Return why pulls would fail now, in a few words; None says that they would not."""
        if self.draining:
            return "draining"
        if self._hashers is not None and self._hashers.stuck(HASHING_S):
            return "no content can be checked: all threads for digests hang"
        return None
