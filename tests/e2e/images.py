"""Multi-arch images that are the same bytes for the same seed, made without any tool, as an OCI layout.

image-spec v1.1: image-layout, image-index, manifest, config, layer.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import random
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attrs import field, frozen

from tests.e2e.processes import run

OCI = "application/vnd.oci.image."
INDEX_TYPE = f"{OCI}index.v1+json"
MANIFEST_TYPE = f"{OCI}manifest.v1+json"
SMALL_LAYERS = (3_000, 300_000, 5_000_000)
FILE_BYTES = 8_000_000


def digest_of(data: bytes) -> str:
    """Return the sha256 digest as the spec writes it."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@frozen
class Platform:
    """One image of the index: its manifest, its config and the digests of its unpacked layers."""

    architecture: str
    manifest_digest: str
    config_digest: str
    layer_digests: tuple[str, ...]
    diff_ids: tuple[str, ...]


@frozen
class Image:
    """A multi-arch image that lies in an OCI layout."""

    layout: Path
    tag: str
    index_digest: str
    platforms: tuple[Platform, ...] = field()

    def digests(self) -> frozenset[str]:
        """Return the digests of everything in the layout."""
        return frozenset(f"sha256:{path.name}" for path in (self.layout / "blobs" / "sha256").iterdir())

    def content(self, digest: str) -> bytes:
        """Return the bytes of one blob of the layout."""
        return (self.layout / "blobs" / "sha256" / digest.removeprefix("sha256:")).read_bytes()

    def platform(self, architecture: str) -> Platform:
        """Return the image for one architecture."""
        return next(platform for platform in self.platforms if platform.architecture == architecture)


def layer_tar(seed: int, size_bytes: int) -> bytes:
    """Return a layer that every engine unpacks: a directory with files of random content."""
    dice = random.Random(seed)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        folder = tarfile.TarInfo(f"layer{seed}")
        folder.type, folder.mode = tarfile.DIRTYPE, 0o755
        tar.addfile(folder)
        for number, start in enumerate(range(0, max(size_bytes, 1), FILE_BYTES)):
            content = dice.randbytes(min(FILE_BYTES, size_bytes - start))
            member = tarfile.TarInfo(f"layer{seed}/{number}.bin")
            member.size, member.mode = len(content), 0o644
            tar.addfile(member, io.BytesIO(content))
    return out.getvalue()


def make_image(layout: Path, seed: int = 1, tag: str = "1.0", sizes: Sequence[int] = SMALL_LAYERS) -> Image:
    """Write an index for amd64 and arm64; the first layer is shared, as base layers are."""
    blobs = layout / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    made, descriptors = [], []
    for number, architecture in enumerate(("amd64", "arm64")):
        seeds = [seed * 100, *(seed * 100 + 10 * number + place for place in range(1, len(sizes)))]
        platform, descriptor = _platform(blobs, architecture, seeds, sizes)
        made.append(platform)
        descriptors.append({**descriptor, "platform": {"architecture": architecture, "os": "linux"}})
    index = _store_json(blobs, {"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": descriptors}, INDEX_TYPE)
    named = {**index, "annotations": {"org.opencontainers.image.ref.name": tag}}
    (layout / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [named]}))
    return Image(layout, tag, str(index["digest"]), tuple(made))


def _platform(
    blobs: Path, architecture: str, seeds: Sequence[int], sizes: Sequence[int]
) -> tuple[Platform, dict[str, Any]]:
    """Write one image and return it with the descriptor of its manifest."""
    tars = [layer_tar(seed, size) for seed, size in zip(seeds, sizes, strict=True)]
    diff_ids = tuple(digest_of(tar) for tar in tars)
    # Stored, not squeezed: random content does not shrink, and time is better spent elsewhere.
    layers = [_store(blobs, gzip.compress(tar, 0, mtime=0), f"{OCI}layer.v1.tar+gzip") for tar in tars]
    config = _store_json(blobs, _config(architecture, diff_ids), f"{OCI}config.v1+json")
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST_TYPE, "config": config, "layers": layers}
    descriptor = _store_json(blobs, manifest, MANIFEST_TYPE)
    digests = tuple(str(layer["digest"]) for layer in layers)
    return Platform(architecture, str(descriptor["digest"]), str(config["digest"]), digests, diff_ids), descriptor


def _config(architecture: str, diff_ids: Sequence[str]) -> dict[str, Any]:
    """Return an image config that says how it was made, as engines expect."""
    created = "2024-01-01T00:00:00Z"
    return {
        "architecture": architecture,
        "os": "linux",
        "created": created,
        "config": {"Cmd": ["/bin/true"], "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": list(diff_ids)},
        "history": [{"created": created, "created_by": f"layer {number}"} for number in range(len(diff_ids))],
    }


def _store(blobs: Path, data: bytes, media_type: str) -> dict[str, Any]:
    """Write one blob and return its descriptor."""
    digest = digest_of(data)
    (blobs / digest.removeprefix("sha256:")).write_bytes(data)
    return {"mediaType": media_type, "digest": digest, "size": len(data)}


def _store_json(blobs: Path, value: dict[str, Any], media_type: str) -> dict[str, Any]:
    """Write a value as one blob of JSON and return its descriptor."""
    return _store(blobs, json.dumps(value, sort_keys=True, indent=1).encode(), media_type)


def push(image: Image, port: int, repository: str, tag: str | None = None, docker_schema2: bool = False) -> None:
    """Send the whole image to a registry: byte for byte, or rewritten as Docker's schema 2."""
    keep = ["--format", "v2s2"] if docker_schema2 else ["--preserve-digests"]
    source = f"oci:{image.layout}:{image.tag}"
    target = f"docker://127.0.0.1:{port}/{repository}:{tag or image.tag}"
    run(["skopeo", "--insecure-policy", "copy", "--all", *keep, "--dest-tls-verify=false", source, target], 120)
