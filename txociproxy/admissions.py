"""Admissions that are kept for a while, so that not every hit asks the upstream again (RULES D2)."""

from __future__ import annotations

import hmac
from collections import OrderedDict
from collections.abc import Callable

from attrs import define, field, frozen

from txociproxy.interfaces import Credentials, Pull
from txociproxy.oci.names import Digest, Repository
from txociproxy.remembering import remember

MAX_ADMISSIONS = 10_000
# The token specification's own default: a token of which nothing else is known is not believed for longer.
UNKNOWN_LIFE_S = 60.0


@frozen
class _Key:
    """Who may have what: the credential itself is not kept."""

    credential: bytes
    namespace: str
    repository: Repository
    digest: Digest


@define(eq=False)
class Admissions:
    """Remembers yes, never no, and never what a tag means.

    :ivar _now: seconds since the epoch.
    :ivar _keep_s: how long; 0 keeps nothing.
    :ivar _secret: keys the hash of credentials; made at each start.
    """

    _now: Callable[[], float]
    _keep_s: float
    _secret: bytes = field(repr=False)
    _until_s: OrderedDict[_Key, float] = field(init=False, factory=OrderedDict)

    def has(self, pull: Pull, credentials: Credentials) -> bool:
        """Whether this client was admitted to this content of this repository a short while ago."""
        key = self._key(pull, credentials)
        return key is not None and self._until_s.get(key, 0.0) > self._now()

    def keep(self, pull: Pull, credentials: Credentials) -> None:
        """Remember an admission, never longer than the token lives."""
        key = self._key(pull, credentials)
        if key is None:
            return
        until_s = min(self._now() + self._keep_s, self._ends_s(credentials))
        remember(self._until_s, key, until_s, MAX_ADMISSIONS)

    def forget(self, pull: Pull, credentials: Credentials) -> None:
        """Hear that the answer is no by now."""
        key = self._key(pull, credentials)
        if key is not None:
            self._until_s.pop(key, None)

    def forget_all(self) -> None:
        """Hear that the upstreams may be others now."""
        self._until_s.clear()

    def _key(self, pull: Pull, credentials: Credentials) -> _Key | None:
        if self._keep_s <= 0 or not isinstance(pull.reference, Digest):
            return None
        shown = (credentials.authorization or "").encode("utf-8", "surrogateescape")
        hashed = hmac.digest(self._secret, shown, "sha256")
        return _Key(hashed, pull.namespace, pull.repository, pull.reference)

    def _ends_s(self, credentials: Credentials) -> float:
        if credentials.expires_at_s is not None:
            return credentials.expires_at_s
        scheme = (credentials.authorization or "").partition(" ")[0].lower()
        # A password does not end by itself.
        return float("inf") if scheme in ("", "basic") else self._now() + UNKNOWN_LIFE_S
