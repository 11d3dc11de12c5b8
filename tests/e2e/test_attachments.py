"""What a verifying client asks after a pull still has its answers when the upstream is gone (RULES E8)."""

from __future__ import annotations

import hashlib
import json

from twisted.trial.unittest import SynchronousTestCase

from tests.e2e import attachments
from tests.e2e.attachments import BUNDLE_TYPE, SIGNATURE_TYPE, Artifact, make_artifact, referrers_index, signature_tag
from tests.e2e.images import INDEX_TYPE, MANIFEST_TYPE, make_image, push
from tests.e2e.processes import Workshop
from tests.e2e.proxy import Proxy, start_proxy
from tests.e2e.registry import start_registry
from tests.e2e.scripts import Content, Served, blob, start_scripted
from tests.e2e.tokens import start_tokens

REPOSITORY = "org/signed"
TAG = "1.0"


def steps_of(subject: str, *more: str) -> list[str]:
    """Return what a verifier asks about an image, in its order."""
    names = [f"manifests/{TAG}", f"manifests/{subject}", f"referrers/{subject}", f"manifests/{signature_tag(subject)}"]
    return [f"/v2/{REPOSITORY}/{name}?ns=ghcr.io" for name in (*names, *more)]


def content_of(artifact: Artifact) -> list[str]:
    """Return what is asked about one artifact: its manifest and its blobs, by digest."""
    return [f"manifests/{artifact.digest}", *(f"blobs/{digest}" for digest in artifact.blobs())]


class AttachmentsTests(SynchronousTestCase):
    """Transparent mode, by plain HTTP."""

    def setUp(self) -> None:
        """Open the workshop and make an image with a signature."""
        self.shop = Workshop()
        self.addCleanup(self.shop.close)
        self.image = make_image(self.shop.path / "layout", tag=TAG, sizes=(3_000,))
        payload = json.dumps({"critical": {"image": {"docker-manifest-digest": self.image.index_digest}}}).encode()
        self.signature = make_artifact(SIGNATURE_TYPE, payload)

    def answers(self, proxy: Proxy, targets: list[str]) -> list[tuple[str, int, str, str]]:
        """Ask for everything; return what came, with the bodies as their digests."""
        told = []
        for target in targets:
            status, headers, body = proxy.ask("GET", target, {"Accept": f"{INDEX_TYPE}, {MANIFEST_TYPE}, */*"})
            told.append((target, status, headers["content-type"], f"sha256:{hashlib.sha256(body).hexdigest()}"))
        return told

    def assert_content(self, told: list[tuple[str, int, str, str]]) -> None:
        """Whatever was named by its digest is that."""
        for target, status, _, digest in told:
            name = target.partition("?")[0].rpartition("/")[2]
            if status == 200 and name.startswith("sha256:") and "/referrers/" not in target:
                self.assertEqual(digest, name)

    def test_a_signature_by_tag_from_a_registry_without_referrers(self) -> None:
        """Its 404 stays a 404, up and down; the tag, its manifest and its blobs are there, up and down."""
        registry = start_registry(self.shop)
        push(self.image, registry.port, REPOSITORY)
        attachments.put(registry.port, REPOSITORY, signature_tag(self.image.index_digest), self.signature)
        registry.stop()
        tokens = start_tokens(self.shop, [REPOSITORY])
        registry = start_registry(self.shop, registry.storage, tokens)
        proxy = start_proxy(self.shop, registry.url)
        targets = steps_of(self.image.index_digest, *content_of(self.signature))
        there = self.answers(proxy, targets)
        self.assertEqual([status for _, status, _, _ in there], [200, 200, 404, 200, 200, 200, 200])
        self.assert_content(there)
        registry.stop_all()
        self.assertEqual(self.answers(proxy, targets), there)

    def test_attestations_from_a_registry_with_referrers(self) -> None:
        """The list, also by type, and what it names are there, up and down."""
        index = self.image.content(self.image.index_digest)
        subject = {"mediaType": INDEX_TYPE, "digest": self.image.index_digest, "size": len(index)}
        bundle = make_artifact(BUNDLE_TYPE, b'{"dsse": "in-toto"}', subject)
        listing = Content(text=referrers_index(bundle).decode())
        upstream = start_scripted(self.shop, *self.served(index.decode(), bundle, listing))
        proxy = start_proxy(self.shop, upstream.url)
        targets = steps_of(self.image.index_digest, *content_of(bundle), *content_of(self.signature))
        by_type = f"/v2/{REPOSITORY}/referrers/{self.image.index_digest}?artifactType={BUNDLE_TYPE}&ns=ghcr.io"
        there = self.answers(proxy, [*targets, by_type])
        self.assertEqual({status for _, status, _, _ in there}, {200}, there)
        self.assertEqual({there[2][2:], there[-1][2:]}, {(INDEX_TYPE, listing.digest)})
        self.assert_content(there)
        upstream.stop()
        self.assertEqual(self.answers(proxy, [*targets, by_type]), there)

    def served(self, index: str, bundle: Artifact, listing: Content) -> list[Served]:
        """Return what the upstream has; it wants no token, and its HEADs are honest."""
        manifests = {
            TAG: (index, INDEX_TYPE),
            self.image.index_digest: (index, INDEX_TYPE),
            signature_tag(self.image.index_digest): (self.signature.manifest.decode(), MANIFEST_TYPE),
            self.signature.digest: (self.signature.manifest.decode(), MANIFEST_TYPE),
            bundle.digest: (bundle.manifest.decode(), MANIFEST_TYPE),
        }
        served = [
            Served(f"/v2/{REPOSITORY}/manifests/{name}", Content(text=text), media_type)
            for name, (text, media_type) in manifests.items()
        ]
        blobs = {**bundle.blobs(), **self.signature.blobs()}
        served += [blob(REPOSITORY, Content(text=data.decode())) for data in blobs.values()]
        return [*served, Served(f"/v2/{REPOSITORY}/referrers/{self.image.index_digest}", listing, INDEX_TYPE)]
