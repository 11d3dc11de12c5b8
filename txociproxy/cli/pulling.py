"""One pull: a manifest, the images behind it that are wanted, and every blob, all of it checked and thrown away."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final, Protocol

from attrs import define, field, frozen

from txociproxy.cli.fetching import Refused
from txociproxy.cli.wire import Reply
from txociproxy.oci.errors import OCIError
from txociproxy.oci.names import Digest, Tag, parse_reference

MAX_MANIFEST_BYTES: Final = 4 * 1024 * 1024
MAX_DESCRIPTORS: Final = 10_000
_TYPES: Final = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
_ACCEPT: Final = {"Accept": ", ".join(_TYPES)}


class IGet(Protocol):
    """What a pull needs of whoever fetches."""

    def get(self, target: str, headers: Mapping[str, str] | None = None, logs_in: bool = True) -> Reply:
        """Return the answer to a GET; without ``logs_in`` a challenge is an answer like others."""


class Wrong(Exception):
    """What came is not what was asked for; the text says what."""


@frozen
class Image:
    """What a person calls an image.

    :ivar name: as it stands behind ``/v2/``: with the registry, if that was named.
    """

    name: str
    reference: Tag | Digest

    @classmethod
    def parse(cls, text: str) -> Image:
        """Read ``docker.io/library/alpine:3.20``, or the same with ``@sha256:…``; without a tag it is ``latest``.

        :raises ValueError: it is none.
        """
        name, _, digest = text.partition("@")
        head, colon, tag = name.rpartition(":")
        if not colon or "/" in tag:  # a port of the registry
            head, tag = name, "latest"
        try:
            reference = parse_reference(digest or tag)
        except OCIError:
            reference = None
        plain = head.replace("/", "").replace("-", "").replace("_", "").replace(".", "").replace(":", "")
        if reference is None or not plain.isascii() or not plain.isalnum() or "//" in f"/{head}/":
            raise ValueError(f"--image: {text[:200]!r} is no image; write docker.io/library/alpine:latest")
        return cls(head, reference)


@define(eq=False)
class Puller:
    """Pulls one image.

    :ivar _platform: ``os/architecture``, ``os/architecture/variant`` or ``all``.
    """

    _fetcher: IGet
    _image: Image
    _platform: str
    _seen: set[str] = field(factory=set, init=False)

    def manifest(self) -> dict[str, Any]:
        """Return the manifest that the reference means.

        :raises Refused: there is none.
        :raises Wrong: its bytes are not those of its digest.
        :raises WireError: nothing came in time.
        """
        return self._manifest(self._image.reference)

    def pull(self) -> None:
        """Fetch everything; raises as :meth:`manifest`."""
        for manifest in self._images(self.manifest()):
            for blob in self._blobs(manifest):
                self._check_blob(*blob)

    def _manifest(self, reference: Tag | Digest) -> dict[str, Any]:
        reply = self._fetcher.get(f"/v2/{self._image.name}/manifests/{reference}", _ACCEPT)
        body = reply.whole(MAX_MANIFEST_BYTES)
        if reply.status != 200:
            raise Refused(reply.status, f"manifest {reference}")
        told = reply.fields.get("docker-content-digest")
        digest = reference if isinstance(reference, Digest) else _digest(told or "")
        if Digest.of(body, digest.algorithm) != digest:
            raise Wrong(f"manifest {reference}: the bytes are not those of {digest}")
        try:
            manifest = json.loads(body)
        except (ValueError, RecursionError):
            manifest = None
        if not isinstance(manifest, dict):
            raise Wrong(f"manifest {reference}: not JSON")
        return manifest

    def _images(self, manifest: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Give the manifests of the wanted platforms."""
        if "manifests" not in manifest:
            yield manifest
            return
        wanted = [entry for entry in _descriptors(manifest["manifests"]) if self._wants(entry)]
        if not wanted:
            raise Wrong(f"there is no image for {self._platform}; name another --platform")
        for entry in wanted:
            yield self._manifest(_digest(entry.get("digest")))

    def _wants(self, entry: Mapping[str, Any]) -> bool:
        """Say whether an entry of an index is for the platform; without a variant all of them are."""
        if self._platform == "all":
            return True
        platform = entry.get("platform")
        has = platform if isinstance(platform, dict) else {}
        whole = "/".join(str(has.get(name, "")) for name in ("os", "architecture", "variant"))
        return f"{whole}/".startswith(f"{self._platform}/")

    def _blobs(self, manifest: dict[str, Any]) -> Iterator[tuple[Digest, int | None]]:
        """Give what a manifest consists of, each once; what is to be had elsewhere only is left out (``urls``)."""
        parts = [manifest.get("config"), *_list(manifest.get("layers"))]
        for entry in _descriptors([part for part in parts if part is not None]):
            digest = _digest(entry.get("digest"))
            if str(digest) not in self._seen and not entry.get("urls"):
                self._seen.add(str(digest))
                size = entry.get("size")
                yield digest, size if isinstance(size, int) else None

    def _check_blob(self, digest: Digest, size_bytes: int | None) -> None:
        """Fetch one blob and hash it as it comes."""
        reply = self._fetcher.get(f"/v2/{self._image.name}/blobs/{digest}")
        if reply.status != 200:
            reply.whole(MAX_MANIFEST_BYTES)
            raise Refused(reply.status, f"blob {digest}")
        hasher, length_bytes = digest.hasher(), 0
        while piece := reply.read():
            hasher.update(piece)
            length_bytes += len(piece)
            if size_bytes is not None and length_bytes > size_bytes:
                break
        if hasher.hexdigest() != digest.hex or length_bytes != (length_bytes if size_bytes is None else size_bytes):
            raise Wrong(f"blob {digest}: other bytes have come")


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _descriptors(value: object) -> list[dict[str, Any]]:
    """Return a manifest's list of descriptors.

    :raises Wrong: it has too many, or something else in it.
    """
    entries = _list(value)
    if len(entries) > MAX_DESCRIPTORS or not all(isinstance(entry, dict) for entry in entries):
        raise Wrong("the manifest is malformed")
    return entries


def _digest(text: object) -> Digest:
    """Read a digest of the other side.

    :raises Wrong: it is none.
    """
    try:
        return Digest.parse(str(text))
    except OCIError:
        raise Wrong("the manifest has no digest that can be checked") from None
