"""Digests, tags, repositories, namespaces: parsed once, valid as long as they exist, printed back as they came."""

from __future__ import annotations

import hashlib
import re
from typing import Protocol

from attrs import frozen

from txociproxy.oci.errors import OCIError

# image-spec, "Digests": registered algorithms and the exact length of their lower-case hex.
HEX_LENGTHS = (("sha256", 64), ("sha512", 128))

# A path component of every common file system; no value of this module prints a longer one.
MAX_COMPONENT_BYTES = 255
# Clients refuse names above this (distribution-spec, "Pulling manifests").
MAX_REPOSITORY_BYTES = 255

_HEX = re.compile("[0-9a-f]+")
# distribution-spec, "Pulling manifests": the grammars of <name> and of <reference> as a tag.
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")

# RFC 1123 §2.1 host names, one label or many; one word may also be a configured name.  Underscores and brackets of
# IPv6 are out, as in the reference grammar of the clients.
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_NAMESPACE = re.compile(rf"({_LABEL}(?:\.{_LABEL})*)(:[1-9][0-9]{{0,4}})?")

# One registry under four names; tokens, tags and `library/` belong to the first.
_DOCKER_HUB = "docker.io"
_DOCKER_HUB_ALIASES = frozenset({"index.docker.io", "registry-1.docker.io", "registry.hub.docker.com"})


class Hasher(Protocol):
    """What hashlib's objects can do, as far as it is needed here."""

    def update(self, data: bytes | bytearray | memoryview, /) -> None:
        """Take the next bytes."""

    def hexdigest(self) -> str:
        """Return the hash of all bytes so far."""


@frozen
class Digest:
    """The name of content by its own bytes; a digest that exists is a valid one.

    :ivar algorithm: ``sha256`` or ``sha512``.
    :ivar hex: lower case, exactly as long as the algorithm says.
    :raises OCIError: DIGEST_INVALID.
    """

    algorithm: str
    hex: str

    def __attrs_post_init__(self) -> None:
        if (self.algorithm, len(self.hex)) not in HEX_LENGTHS or not _HEX.fullmatch(self.hex):
            raise OCIError("DIGEST_INVALID", "a digest is sha256: or sha512: and exactly as many hex digits as it has")

    @classmethod
    def parse(cls, text: str) -> Digest:
        """Read ``sha256:<hex>``.

        :raises OCIError: DIGEST_INVALID.
        """
        algorithm, _, encoded = text.partition(":")
        return cls(algorithm, encoded)

    @classmethod
    def of(cls, data: bytes, algorithm: str = "sha256") -> Digest:
        """Return the digest of these bytes."""
        return cls(algorithm, hashlib.new(algorithm, data).hexdigest())

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"

    def hasher(self) -> Hasher:
        """Return a new hash object; its ``hexdigest()`` equals :attr:`hex` for the right bytes."""
        return hashlib.new(self.algorithm)


@frozen
class Tag:
    """A movable name of a manifest; case counts.

    :raises OCIError: MANIFEST_UNKNOWN, since what cannot be a tag cannot be there (the conformance suite wants 404).
    """

    name: str

    def __attrs_post_init__(self) -> None:
        if not _TAG.fullmatch(self.name):
            raise OCIError(
                "MANIFEST_UNKNOWN", "a tag is up to 128 letters, digits, '_', '.' and '-'; no '.' or '-' first"
            )

    @classmethod
    def parse(cls, text: str) -> Tag:
        """Read a tag.

        :raises OCIError: MANIFEST_UNKNOWN.
        """
        return cls(text)

    def __str__(self) -> str:
        return self.name


@frozen
class Repository:
    """The path of a repository within its registry.

    :raises OCIError: NAME_INVALID.
    """

    path: str

    def __attrs_post_init__(self) -> None:
        # The length comes first: it also bounds the work of the match.
        if len(self.path) > MAX_REPOSITORY_BYTES or not _REPOSITORY.fullmatch(self.path):
            raise OCIError(
                "NAME_INVALID",
                "a repository is lower-case letters and digits, joined by '.', '_', '__', '-' or '/', up to 255 in all",
            )

    @classmethod
    def parse(cls, text: str) -> Repository:
        """Read a repository path.

        :raises OCIError: NAME_INVALID.
        """
        return cls(text)

    def __str__(self) -> str:
        return self.path


Reference = Digest | Tag


@frozen
class Descriptor:
    """What content is (image-spec, "Content Descriptors").

    :ivar size_bytes: None only while an upstream that did not say is arriving.
    """

    digest: Digest
    size_bytes: int | None
    media_type: str


def parse_reference(text: str) -> Reference:
    """Read what stands behind ``manifests/``; a colon makes it a digest, for no tag has one.

    :raises OCIError: DIGEST_INVALID or MANIFEST_UNKNOWN.
    """
    return Digest.parse(text) if ":" in text else Tag.parse(text)


def looks_like_host(segment: str) -> bool:
    """Say whether a first path segment reads as a registry's host, by the clients' own rule (RULES B3)."""
    return "." in segment or ":" in segment or segment == "localhost"


def canonical_namespace(text: str) -> str:
    """Return the form in which namespaces are compared and stored (RULES B5); safe as a directory name.

    :raises OCIError: NAME_INVALID.
    """
    # Checked before lower(), which turns a few letters beyond ASCII (the Kelvin sign) into ASCII ones.
    if not text.isascii():
        raise _invalid_namespace()
    host, colon, port = text.lower().partition(":")
    host = host.removesuffix(".")
    name = host if colon + port == ":443" else host + colon + port
    match = _NAMESPACE.fullmatch(name) if len(name) <= MAX_COMPONENT_BYTES else None
    if match is None or int((match[2] or ":1")[1:]) > 65535:
        raise _invalid_namespace()
    return _DOCKER_HUB if name in _DOCKER_HUB_ALIASES else name


def _invalid_namespace() -> OCIError:
    return OCIError("NAME_INVALID", "a namespace is a host name, with a port if need be")
