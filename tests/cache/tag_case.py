"""A tag that upstream has: the ground of all tests of tags."""

from __future__ import annotations

from typing import Any

from tests.cache.house import CacheCase, manifest
from txociproxy.assembly import CoreRules
from txociproxy.meanings import TagRules
from txociproxy.oci.names import Digest

OLD, NEW = manifest("old"), manifest("new")

HOUR = 3600.0
LONG = "public, max-age=2419200"


class TagCase(CacheCase):
    """A tag that means an old manifest."""

    def setUp(self) -> None:
        """Upstream has it."""
        super().setUp()
        self.old = self.hub.tag("1", OLD)

    def rule(self, **rules: Any) -> None:
        """Choose rules."""
        self.build(CoreRules(tags=TagRules(**rules)))

    def learn(self, name: str = "1") -> None:
        """Pull the tag for the first time."""
        self.get(self.ask(name))
        self.hub_asked.requests.clear()

    def grow_old(self, age_s: float = HOUR + 1) -> None:
        """Let the pointer age."""
        self.clock.advance(age_s)

    def move(self) -> Digest:
        """Let the tag mean the new manifest."""
        return self.hub.tag("1", NEW)
