"""The people of the laboratory, and what they show at a door."""

from __future__ import annotations

import base64

from attrs import evolve, field, frozen


@frozen
class User:
    """A name and a password."""

    name: str
    password: str = field(repr=False)

    @property
    def pair(self) -> str:
        """As command lines take it."""
        return f"{self.name}:{self.password}"

    @property
    def basic(self) -> str:
        """The value of an Authorization field (RFC 7617)."""
        return f"Basic {self.encoded}"

    @property
    def encoded(self) -> str:
        """As Authorization fields and Docker's config.json carry it."""
        return base64.b64encode(self.pair.encode()).decode()

    def mistyped(self) -> User:
        """Return the same name with a password that is not theirs."""
        return evolve(self, password="not-the-password")


# Signs that a shell, a URL and a form each treat in a way of their own.
ALICE = User("alice", "al1ce+pass/word=&%41")
BOB = User("bob", "b0b pass")
