"""Waiting for others, and for no longer than was said."""

from __future__ import annotations

import socket
import threading
import time
from typing import Any

from attrs import frozen


class WireError(Exception):
    """Nothing came, or not all of it; the text says why."""


class WantsCertificate(WireError):
    """TLS is spoken there, but only with clients that show a certificate."""


@frozen
class Deadline:
    """A moment at which everything is over.

    :ivar wait_s: how long that was from the start, for people.
    """

    wait_s: float
    end_s: float

    @classmethod
    def after(cls, wait_s: float) -> Deadline:
        """Begin to wait."""
        return cls(wait_s, time.monotonic() + wait_s)

    def left_s(self) -> float:
        """Return how long there is.

        :raises WireError: it is over.
        """
        left_s = self.end_s - time.monotonic()
        if left_s <= 0:
            raise WireError(f"not within {self.wait_s:g} s")
        return left_s


def resolve(host: str, port: int, deadline: Deadline) -> list[tuple[Any, ...]]:
    """Return the addresses of a name, as ``connect`` takes them, each behind its family.

    The system's resolver has time-outs of its own, which may add up to half a minute; so it is left to a thread that
    the process does not wait for.

    :raises WireError: there are none, or it takes too long.
    """
    found: list[tuple[Any, ...]] = []
    why = [f"{host}: not resolved within {deadline.wait_s:g} s"]

    def look() -> None:
        try:
            infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            found.extend((family, address) for family, _, _, _, address in infos)
        except (OSError, UnicodeError) as error:
            why[0] = f"{host}: {getattr(error, 'strerror', None) or 'not a name'}"

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    thread.join(deadline.left_s())
    if not found:
        raise WireError(why[0])
    return found
