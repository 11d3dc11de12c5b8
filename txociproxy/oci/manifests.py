"""What a manifest is, and of which media type (RULES E3)."""

from __future__ import annotations

import json
import re

# Clients and registries must take manifests up to here (distribution-spec, "Pushing Manifests").
MAX_MANIFEST_BYTES = 4 * 1024 * 1024

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"

# The modern types: an upstream that has several forms of a tag should give the first that it has.
MANIFEST_TYPES = (OCI_INDEX, DOCKER_LIST, OCI_MANIFEST, DOCKER_MANIFEST)

SCHEMA1 = "application/vnd.docker.distribution.manifest.v1+json"
SCHEMA1_SIGNED = "application/vnd.docker.distribution.manifest.v1+prettyjws"
SCHEMA1_TYPES = frozenset({SCHEMA1, SCHEMA1_SIGNED})

# An artifact manifest (image-spec 1.1 release candidates) is told by its mediaType alone: it has no schemaVersion.
_TELLING_TYPES = frozenset({*MANIFEST_TYPES, "application/vnd.oci.artifact.manifest.v1+json"})

# RFC 6838 §4.2 names below application/.  Others are not believed: a "manifest" that calls itself text/html would
# be a page in a browser.
_APPLICATION = re.compile(r"application/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}")


def bare_media_type(text: str) -> str:
    """Return a media type without parameters, in lower case, for comparison (RFC 9110 §8.3.1)."""
    return text.partition(";")[0].strip().lower()


def is_schema1(media_type: str) -> bool:
    """Say whether this is the type of the old manifests, whose digest is not the hash of their bytes."""
    return bare_media_type(media_type) in SCHEMA1_TYPES


def manifest_media_type(data: bytes, header_type: str | None) -> str | None:
    """Return the media type of a manifest, or None for bytes that are no manifest.

    :param header_type: the Content-Type that came with it.
    """
    document = _object(data)
    if document is None:
        return None
    own, version = document.get("mediaType"), _version(document)
    if version == 1:
        return SCHEMA1_SIGNED if "signatures" in document else SCHEMA1
    own = own if isinstance(own, str) and _APPLICATION.fullmatch(own) else None
    if version != 2 and own not in _TELLING_TYPES:
        return None
    return own or _told_by_header(header_type) or (OCI_INDEX if "manifests" in document else OCI_MANIFEST)


def _version(document: dict[str, object]) -> int | None:
    """Return the schemaVersion; ``true`` and ``2.0`` are none, though they equal one in Python."""
    version = document.get("schemaVersion")
    return version if type(version) is int else None


def _object(data: bytes) -> dict[str, object] | None:
    """Return the JSON object in these bytes, if there is one."""
    if len(data) > MAX_MANIFEST_BYTES:
        return None
    try:
        # Decoded here, for json.loads would guess UTF-16 and UTF-32 as well.
        document = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def _told_by_header(header_type: str | None) -> str | None:
    """Return the header's type if it tells something; application/json and octet-stream are said of anything."""
    bare = bare_media_type(header_type or "")
    return bare if bare.endswith("+json") and _APPLICATION.fullmatch(bare) else None
