"""What every command gives back."""

from __future__ import annotations

from attrs import frozen


@frozen
class Answer:
    """What a command says at its end.

    :ivar status: of the process.
    :ivar text: without the last line end; empty where everything has been said.
    """

    status: int
    text: str
