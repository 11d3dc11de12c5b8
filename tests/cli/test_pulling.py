"""One pull of the smoke test, against a registry in memory."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from attrs import define, field
from twisted.trial.unittest import SynchronousTestCase

from txociproxy.cli.fetching import Refused
from txociproxy.cli.pulling import Image, Puller, Wrong
from txociproxy.cli.wire import Reply
from txociproxy.oci.names import Digest, Tag

NAME = "docker.io/library/sample"


def digest_of(data: bytes) -> str:
    """Return a sha256 digest."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@define(eq=False)
class Store:
    """A registry: bodies by target, and what was asked."""

    bodies: dict[str, bytes] = field(factory=dict)
    asked: list[str] = field(factory=list)
    told: dict[str, str] = field(factory=dict)

    def blob(self, data: bytes) -> dict[str, Any]:
        """Keep a blob and return its descriptor."""
        self.bodies[f"/v2/{NAME}/blobs/{digest_of(data)}"] = data
        return {"mediaType": "application/octet-stream", "digest": digest_of(data), "size": len(data)}

    def manifest(self, value: object, tag: str | None = None) -> dict[str, Any]:
        """Keep a manifest under its digest, and a tag for it."""
        data = json.dumps(value).encode()
        for reference in filter(None, (digest_of(data), tag)):
            self.bodies[f"/v2/{NAME}/manifests/{reference}"] = data
        return {"digest": digest_of(data), "size": len(data)}

    def image(self, content: bytes, tag: str | None = None) -> dict[str, Any]:
        """Keep an image of one layer."""
        return self.manifest({"config": self.blob(b"{}"), "layers": [self.blob(content)]}, tag)

    def get(self, target: str, headers: Mapping[str, str] | None = None, logs_in: bool = True) -> Reply:
        """Answer in two pieces."""
        self.asked.append(target)
        body = self.bodies.get(target)
        pieces = [b"", b"not here"] if body is None else [b"", body[1:], body[:1]]
        fields = {} if body is None else {"docker-content-digest": digest_of(body)}
        fields.update(self.told)
        return Reply(404 if body is None else 200, fields, lambda: pieces.pop() if pieces else b"")


class ImageTests(SynchronousTestCase):
    """What people call images."""

    def test_names(self) -> None:
        """A tag, a digest, both (the digest counts), neither, and a port."""
        digest = Digest.of(b"x")
        self.assertEqual(Image.parse("a/b:1"), Image("a/b", Tag("1")))
        self.assertEqual(Image.parse("alpine"), Image("alpine", Tag("latest")))
        self.assertEqual(Image.parse(f"a/b@{digest}"), Image("a/b", digest))
        self.assertEqual(Image.parse(f"a/b:1@{digest}"), Image("a/b", digest))
        self.assertEqual(Image.parse("r.x:5000/b"), Image("r.x:5000/b", Tag("latest")))
        self.assertEqual(Image.parse("r.x:5000/b:2"), Image("r.x:5000/b", Tag("2")))

    def test_what_is_none(self) -> None:
        """Nothing of it could reach the target of a request."""
        for text in ("", ":1", "a b", "a\r\nb:1", "a:", "a/:1", "/a", "a//b", "a:.x", "a@sha256:1", "a?b", "a%41", "é"):
            self.assertIn("is no image", str(self.assertRaises(ValueError, Image.parse, text)))


class PullerTests(SynchronousTestCase):
    """Everything that was asked for comes, and is what it should be."""

    def setUp(self) -> None:
        """An index of two platforms."""
        self.store = Store()
        entries = [
            {**self.store.image(b"amd64 layer"), "platform": {"os": "linux", "architecture": "amd64"}},
            {**self.store.image(b"arm layer"), "platform": {"os": "linux", "architecture": "arm", "variant": "v7"}},
        ]
        self.store.manifest({"manifests": entries}, "1")

    def pull(self, platform: str = "linux/amd64", image: str = f"{NAME}:1") -> list[str]:
        """Pull, and return what was asked for: kind and content."""
        self.store.asked.clear()
        Puller(self.store, Image.parse(image), platform).pull()
        return [self.store.bodies[target].decode()[:11] for target in self.store.asked if "/blobs/" in target]

    def test_one_platform(self) -> None:
        """Its manifest, its config and its layers, and nothing of the others."""
        self.assertEqual(self.pull(), ["{}", "amd64 layer"])
        self.assertEqual([target.split("/")[5] for target in self.store.asked], [*["manifests"] * 2, *["blobs"] * 2])

    def test_variants(self) -> None:
        """Named or not; half a name is none."""
        self.assertEqual(self.pull("linux/arm"), ["{}", "arm layer"])
        self.assertEqual(self.pull("linux/arm/v7"), ["{}", "arm layer"])
        for platform in ("linux/arm/v8", "linux/ar", "linux/arm64", "windows/amd64"):
            self.assertIn(platform, str(self.assertRaises(Wrong, self.pull, platform)))

    def test_all_platforms(self) -> None:
        """What two images share is fetched once."""
        self.assertEqual(self.pull("all"), ["{}", "amd64 layer", "arm layer"])

    def test_a_plain_image(self) -> None:
        """Without an index the platform does not matter; by digest it is the same."""
        descriptor = self.store.image(b"only layer", "2")
        self.assertEqual(self.pull("none/none", f"{NAME}:2"), ["{}", "only layer"])
        self.assertEqual(self.pull("none/none", f"{NAME}@{descriptor['digest']}"), ["{}", "only layer"])

    def test_foreign_layers(self) -> None:
        """They are to be had elsewhere only."""
        foreign = {"digest": digest_of(b"?"), "size": 1, "urls": ["https://elsewhere.example/"]}
        self.store.manifest({"config": self.store.blob(b"{}"), "layers": [foreign]}, "3")
        self.assertEqual(self.pull(image=f"{NAME}:3"), ["{}"])

    def test_other_bytes(self) -> None:
        """Of a blob, longer, shorter or just others; of a manifest by digest, and by tag against what is told."""
        target = f"/v2/{NAME}/blobs/{digest_of(b'amd64 layer')}"
        for body in (b"amd64 layer!", b"amd64 laye", b"AMD64 layer", b""):
            self.store.bodies[target] = body
            self.assertRaises(Wrong, self.pull)
        self.store.told["docker-content-digest"] = digest_of(b"something else")
        self.assertIn("the bytes are not those of", str(self.assertRaises(Wrong, self.pull)))

    def test_a_size_that_is_wrong(self) -> None:
        """The digest being right does not make it right."""
        layer = {**self.store.blob(b"layer"), "size": 4}
        self.store.manifest({"layers": [layer]}, "4")
        self.assertRaises(Wrong, self.pull, image=f"{NAME}:4")

    def test_other_bytes_by_digest(self) -> None:
        """What is told does not count then."""
        digest = digest_of(b"{}")
        self.store.bodies[f"/v2/{NAME}/manifests/{digest}"] = b'{"x":1}'
        self.assertRaises(Wrong, self.pull, image=f"{NAME}@{digest}")

    def test_what_is_not_there(self) -> None:
        """The status is told."""
        self.assertEqual(self.assertRaises(Refused, self.pull, image=f"{NAME}:9").status, 404)
        del self.store.bodies[f"/v2/{NAME}/blobs/{digest_of(b'{}')}"]
        self.assertEqual(self.assertRaises(Refused, self.pull).status, 404)

    def test_malformed_manifests(self) -> None:
        """No surprise of any kind."""
        values: list[object] = [
            [],
            1,
            None,
            {"manifests": [1]},
            {"layers": [{}]},
            {"config": 5},
            {"layers": [{"digest": "x"}]},
        ]
        for value in values:
            self.store.manifest(value, "5")
            self.assertRaises(Wrong, self.pull, image=f"{NAME}:5")
        self.store.bodies[f"/v2/{NAME}/manifests/6"] = b"\xff{"
        self.assertRaises(Wrong, self.pull, image=f"{NAME}:6")
