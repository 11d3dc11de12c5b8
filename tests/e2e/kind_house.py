"""What the servers of one played registry know together: who is who, who may what, and what was given out."""

from __future__ import annotations

import base64
import binascii
import functools
import json
import threading
from typing import Any

from attrs import define, field

from tests.e2e.kinds import PUBLIC, STRANGER, TAGS, TEAM, Kind, Server, blob_of, digest_of, manifest_of


@define(eq=False)
class House:
    """What the servers of one registry know together.

    :ivar people: names by ``user:password``.
    :ivar tokens: whose a token is, and for which repositories; the empty name is nobody.
    :ivar used: how many manifests somebody has had.
    """

    kind: Kind
    ports: dict[Server, int]
    people: dict[str, str]
    tokens: dict[str, tuple[str, frozenset[str]]] = field(factory=dict)
    signatures: set[str] = field(factory=set)
    used: dict[str, int] = field(factory=dict)
    lock: threading.Lock = field(factory=threading.Lock)

    def url(self, server: Server) -> str:
        """Return where one of the servers is."""
        return self.kind.url(server, self.ports[server])

    def name_of(self, shown: str | None) -> str | None:
        """Return whom a Basic field names, if the password is right."""
        scheme, _, value = (shown or "").partition(" ")
        try:
            pair = base64.b64decode(value, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            return None
        return self.people.get(pair) if scheme == "Basic" else None

    def grant(self, shown: str | None) -> tuple[str, frozenset[str]] | None:
        """Return whose token this is, and what it is good for."""
        return self.tokens.get((shown or "").removeprefix("Bearer "))

    def may_pull(self, name: str, repository: str) -> bool:
        """Whether somebody may pull; the empty name is nobody."""
        owner = repository.partition("/")[0]
        is_team = bool(name) and not name.startswith(STRANGER)
        return owner == PUBLIC or (is_team and owner == TEAM) or (bool(name) and owner == name)

    def take(self, name: str) -> int | None:
        """Count a manifest that somebody GETs; return what is left then, None for one too many."""
        with self.lock:
            self.used[name] = self.used.get(name, 0) + 1
            left = (self.kind.quota or 0) - self.used[name]
        return left if left >= 0 else None

    def say(self, fields: dict[str, Any]) -> None:
        """Print one line."""
        with self.lock:
            print(json.dumps(fields), flush=True)

    def left(self, name: str) -> int:
        """Return what is left for somebody."""
        return max((self.kind.quota or 0) - self.used.get(name, 0), 0)

    @functools.lru_cache(maxsize=256)  # noqa: B019 - there is one house, and it lives as long as its process
    def manifest(self, repository: str, reference: str) -> bytes | None:
        """Return a manifest by tag or digest."""
        manifests = {tag: manifest_of(repository, tag, self.kind.blob_bytes) for tag in TAGS}
        digests = {digest_of(data): data for data in manifests.values()}
        return manifests.get(reference) or digests.get(reference)

    def blob(self, repository: str) -> bytes:
        """Return the blob of a repository."""
        return blob_of(repository, self.kind.blob_bytes)
