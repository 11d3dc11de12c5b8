"""The scripted upstream's memory."""

from __future__ import annotations

import threading
from typing import Any

from attrs import define, field

from tests.e2e.scripts import Served, Step


@define(eq=False)
class Book:
    """What is served and what was asked; shared by all threads."""

    port: int
    served: dict[str, Served] = field(factory=dict)
    used: dict[str, int] = field(factory=dict)
    log: list[dict[str, Any]] = field(factory=list)
    token: int = 1
    lock: threading.Lock = field(factory=threading.Lock)

    def serve(self, targets: list[dict[str, Any]]) -> None:
        """Add or replace targets; their content is made now, so that no first answer is late."""
        for fields in targets:
            served = Served.from_json(fields)
            served.content.data()
            with self.lock:
                self.served[served.target], self.used[served.target] = served, 0

    def next_step(self, served: Served) -> Step:
        """Return the step for this GET."""
        with self.lock:
            number = self.used[served.target]
            self.used[served.target] = number + 1
        return served.steps[number] if number < len(served.steps) else served.afterwards
