"""What is measured from outside: gauges that are read when somebody asks, and how late timers fire."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import define

from txociproxy.config import Config

if TYPE_CHECKING:
    from txociproxy.building import House


@define(eq=False)
class Measuring:
    """Lets the gauges of a house tell its state."""

    _reactor: Any
    _config: Config

    def start(self, house: House) -> None:
        """Begin, once the reactor runs."""

    def stop(self) -> None:
        """End what goes on in the background."""
