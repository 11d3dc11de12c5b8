"""What the readers of running downloads have brought: in whose names those can be gone on with (RULES E5)."""

from __future__ import annotations

from attrs import define, field

from txociproxy.interfaces import Ask, Credentials
from txociproxy.oci.names import Digest, Reference, Repository

MAX_BROUGHT = 8  # readers of one download whose credentials are remembered
Key = tuple[str, Reference]


@define(eq=False)
class Brought:
    """Remembers credentials, for as long as a download runs."""

    _running: dict[Key, dict[tuple[Repository, Credentials], None]] = field(factory=dict, repr=False)

    def begin(self, key: tuple[str, Digest]) -> None:
        """Hear that a download runs now, of which nobody has brought anything yet."""
        self._running[key] = {}

    def end(self, key: tuple[str, Digest]) -> None:
        """Forget what was brought for it."""
        self._running.pop(key, None)

    def join(self, ask: Ask) -> None:
        """Remember in whose name the download can be gone on with, should its own token end."""
        brought = self._running.get((ask.pull.namespace, ask.pull.reference))
        if brought is not None and len(brought) < MAX_BROUGHT and not ask.credentials.is_anonymous:
            brought.setdefault((ask.pull.repository, ask.credentials))

    def of(self, ask: Ask) -> list[Credentials]:
        """Return what was brought for the same repository."""
        brought = self._running.get((ask.pull.namespace, ask.pull.reference), {})
        return [credentials for repository, credentials in brought if repository == ask.pull.repository]
