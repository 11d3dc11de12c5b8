"""Looks for secrets in every form in which they are wont to appear."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import quote, quote_plus

from attrs import define, field

from tests.e2e.users import User

# A shorter piece of a secret would be found everywhere.
MIN_BYTES = 8
# What of a long secret is enough, and how all secrets of its kind may begin.
PIECE, SAME = 20, 12


def forms(secret: str) -> set[bytes]:
    """Return a secret as given, in JSON, in URLs and in base64, and the pieces of a long one."""
    encoded = base64.b64encode(secret.encode()).decode()
    texts = {secret, json.dumps(secret)[1:-1], repr(secret)[1:-1], quote(secret), quote(secret, safe="")}
    texts |= {quote_plus(secret), quote(secret, safe="").lower(), encoded, encoded.rstrip("=")}
    texts |= {secret[start : start + PIECE] for start in range(SAME, len(secret) - PIECE, PIECE)}
    texts |= {encoded.replace("+", "-").replace("/", "_").rstrip("="), quote(encoded, safe=""), secret.encode().hex()}
    return {text.encode() for text in texts}


@define(eq=False)
class Secrets:
    """Everything that must be found nowhere, by what it is."""

    _forms: dict[bytes, str] = field(factory=dict)

    def add(self, what: str, *secrets: str) -> None:
        """Add secrets that come alone."""
        for secret in secrets:
            if len(secret) < MIN_BYTES:
                raise ValueError(f"{what} is too short to be looked for")
            self._forms.update(dict.fromkeys(forms(secret), what))

    def add_login(self, what: str, user: User) -> None:
        """Add a password, alone and as Basic credentials carry it."""
        self.add(what, user.password, user.pair, user.encoded)

    def found_in(self, places: Mapping[str, bytes]) -> list[str]:
        """Return what was found where."""
        return [
            f"{what} in {place}"
            for place, data in places.items()
            for what in sorted({what for form, what in self._forms.items() if form in data})
        ]


def files_below(directory: Path) -> dict[str, bytes]:
    """Return every file below a directory, names included: a name can tell as much as content."""
    found = {}
    for file in sorted(directory.rglob("*")):
        name = str(file.relative_to(directory))
        found[name] = name.encode() + b"\n" + (file.read_bytes() if file.is_file() else b"")
    return found


def numbered(bodies: Iterable[tuple[str, bytes]]) -> dict[str, bytes]:
    """Return answers as places."""
    return {f"answer {number} to {asked}": data for number, (asked, data) in enumerate(bodies)}
