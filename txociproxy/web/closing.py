"""How long the end of a connection may take, whatever is spoken on it.

Closing with unread input would send a reset, and the other side might never read our last words (RFC 9112 §9.6): so
our side is closed first, and what still comes is swallowed for a moment, up to a bound.
"""

from __future__ import annotations

from typing import Final

LINGER_S: Final = 2.0
LINGER_BYTES: Final = 16 * 1024 * 1024
# The kernel may hold megabytes for a slow client when we are done; it has until then to take them.
CLOSING_S: Final = 300.0
# All is lost anyway.
CUT_S: Final = 15.0
