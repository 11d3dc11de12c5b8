"""Envelopes: what clients get from our token endpoint in place of an upstream's token (RULES C5).

An envelope is sealed with AES-GCM.  The client cannot look into it or change it, and the envelope itself never goes
upstream: it is opened here, and what lies inside goes.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
from collections.abc import Callable

from attrs import field, frozen
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from txociproxy.oci.errors import OCIError

PREFIX = "ociproxy1."
# A token that carries an upstream's own of some KiB still fits a header line (RULES A3).
MAX_ENVELOPE_BYTES = 96 * 1024
MIN_KEY_BYTES = 16

_NONCE_BYTES = 12
# A key file may serve other purposes too; this one has a name.
_PURPOSE = b"txociproxy envelope v1\0"


@frozen
class Envelope:
    """What lies inside.

    :ivar repositories: as the upstream names them; the envelope is good for these only.
    :ivar authorization: the value for the upstream's Authorization, or None for an anonymous client.
    :ivar expires_at_s: seconds since the epoch.
    """

    namespace: str
    repositories: tuple[str, ...]
    authorization: str | None = field(repr=False)
    expires_at_s: float

    def covers(self, namespace: str, repository: str) -> bool:
        """Say whether it is good for a repository of a namespace."""
        return self.namespace == namespace and repository in self.repositories


class Envelopes:
    """Seals and opens with one key.

    :param key: any bytes, for example those of ``--token-key-file``, at least 16; see :func:`random_key`.
    :param now: gives seconds since the epoch.
    :raises ValueError: the key is too short.
    """

    def __init__(self, key: bytes, now: Callable[[], float], random_bytes: Callable[[int], bytes] = os.urandom) -> None:
        if len(key) < MIN_KEY_BYTES:
            raise ValueError(f"a token key needs at least {MIN_KEY_BYTES} bytes")
        self._cipher = AESGCM(hashlib.sha256(_PURPOSE + key).digest())
        self._now = now
        self._random_bytes = random_bytes

    def seal(
        self, namespace: str, repositories: tuple[str, ...], authorization: str | None, expires_at_s: float
    ) -> str:
        """Return the text that a client gets as its token.

        :raises OCIError: it would be longer than what is taken back here, and so be good for nothing.
        """
        content = json.dumps([namespace, repositories, authorization, expires_at_s]).encode("ascii")
        nonce = self._random_bytes(_NONCE_BYTES)
        sealed = nonce + self._cipher.encrypt(nonce, content, PREFIX.encode("ascii"))
        text = PREFIX + base64.urlsafe_b64encode(sealed).decode("ascii").rstrip("=")
        if len(text) > MAX_ENVELOPE_BYTES:
            raise OCIError("UNAVAILABLE", "the upstream's token is too long to be handed on", status=502)
        return text

    def open(self, text: str) -> Envelope | None:
        """Return what is inside; None for one that is not ours, was changed, or has expired."""
        sealed = _decoded(text)
        if sealed is None:
            return None
        try:
            content = self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], PREFIX.encode("ascii"))
        except (InvalidTag, ValueError):
            return None
        namespace, repositories, authorization, expires_at_s = json.loads(content)
        if expires_at_s <= self._now():
            return None
        return Envelope(namespace, tuple(repositories), authorization, expires_at_s)


def is_envelope(text: str) -> bool:
    """Say whether a token claims to be ours; then it must never go upstream, opened or not."""
    return text.startswith(PREFIX)


def random_key() -> bytes:
    """Return a key for the life of one process."""
    return os.urandom(32)


def _decoded(text: str) -> bytes | None:
    if not is_envelope(text) or len(text) > MAX_ENVELOPE_BYTES or not text.isascii():
        return None
    encoded = text.removeprefix(PREFIX).encode("ascii")
    try:
        return base64.b64decode(encoded + b"=" * (-len(encoded) % 4), altchars=b"-_", validate=True)
    except binascii.Error:
        return None
