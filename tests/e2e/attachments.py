"""What hangs on an image: a signature under a tag made of its digest, and attestations in its referrers list.

The shapes are cosign's (sigstore: SIGNATURE_SPEC) and the distribution-spec's (end-12a).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from attrs import frozen

from tests.e2e.images import INDEX_TYPE, MANIFEST_TYPE, OCI, digest_of
from tests.e2e.processes import E2EError
from tests.e2e.proxy import ask

SIGNATURE_TYPE = "application/vnd.dev.cosign.simplesigning.v1+json"
BUNDLE_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"


@frozen
class Artifact:
    """A manifest with its config and one layer; an artifact of another image if it says so."""

    config: bytes
    layer: bytes
    manifest: bytes

    @property
    def digest(self) -> str:
        """The digest of the manifest."""
        return digest_of(self.manifest)

    def blobs(self) -> dict[str, bytes]:
        """Return config and layer by their digests."""
        return {digest_of(data): data for data in (self.config, self.layer)}


def make_artifact(layer_type: str, layer: bytes, subject: Mapping[str, Any] | None = None) -> Artifact:
    """Make one.

    :param subject: the descriptor of what it belongs to (image-spec 1.1).
    """
    config = b"{}"
    manifest: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": _descriptor(f"{OCI}config.v1+json", config),
        "layers": [_descriptor(layer_type, layer)],
    }
    if subject is not None:
        manifest |= {"artifactType": layer_type, "subject": dict(subject)}
    return Artifact(config, layer, json.dumps(manifest).encode())


def referrers_index(*artifacts: Artifact) -> bytes:
    """Return the list that a registry makes of what belongs to an image."""
    manifests = [{**_descriptor(MANIFEST_TYPE, one.manifest), "artifactType": BUNDLE_TYPE} for one in artifacts]
    return json.dumps({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": manifests}).encode()


def signature_tag(digest: str) -> str:
    """Return the tag under which the signature of a digest is kept."""
    return f"{digest.replace(':', '-')}.sig"


def put(port: int, repository: str, tag: str, artifact: Artifact) -> None:
    """Upload an artifact to a registry."""
    for digest, data in artifact.blobs().items():
        _, headers, _ = _sent(port, "POST", f"/v2/{repository}/blobs/uploads/", b"")
        place = headers["location"].partition(f":{port}")[2]
        _sent(port, "PUT", f"{place}&digest={digest}", data)
    _sent(port, "PUT", f"/v2/{repository}/manifests/{tag}", artifact.manifest, MANIFEST_TYPE)


def _sent(
    port: int, method: str, target: str, data: bytes, media_type: str = "application/octet-stream"
) -> tuple[int, dict[str, str], bytes]:
    """Send a part of an upload; anything but a yes is an error."""
    answer = ask(port, method, target, {"Content-Type": media_type}, data.decode())
    if answer[0] not in (201, 202):
        raise E2EError(f"{method} {target}: {answer}")
    return answer


def _descriptor(media_type: str, data: bytes) -> dict[str, Any]:
    """Describe content (image-spec: descriptor)."""
    return {"mediaType": media_type, "digest": digest_of(data), "size": len(data)}
