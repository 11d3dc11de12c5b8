"""What is a manifest, and of which type (RULES E3)."""

from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txociproxy.oci.manifests import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    MANIFEST_TYPES,
    MAX_MANIFEST_BYTES,
    OCI_INDEX,
    OCI_MANIFEST,
    SCHEMA1,
    SCHEMA1_SIGNED,
    bare_media_type,
    is_schema1,
    manifest_media_type,
)


def typed(header_type: str | None = None, **members: object) -> str | None:
    """Return the type of a document with these members."""
    return manifest_media_type(json.dumps(members).encode(), header_type)


class MediaTypeTests(SynchronousTestCase):
    """Own word, header, shape: in this order."""

    def test_its_own_word_comes_first(self) -> None:
        """The mediaType inside beats the header."""
        for media_type in MANIFEST_TYPES:
            self.assertEqual(media_type, typed(OCI_INDEX, schemaVersion=2, mediaType=media_type))

    def test_then_the_header(self) -> None:
        """A header that says something is believed, without its parameters."""
        self.assertEqual(OCI_MANIFEST, typed(f"{OCI_MANIFEST}; charset=utf-8", schemaVersion=2, manifests=[]))
        self.assertEqual("application/vnd.acme+json", typed("Application/vnd.ACME+json", schemaVersion=2))

    def test_then_the_shape(self) -> None:
        """Headers that are said of anything tell nothing; then ``manifests`` makes an index."""
        for header in (None, "", "application/json", "application/octet-stream", "text/html", "text/html+json"):
            self.assertEqual(OCI_INDEX, typed(header, schemaVersion=2, manifests=[]), header)
            self.assertEqual(OCI_MANIFEST, typed(header, schemaVersion=2, layers=[]), header)

    def test_an_odd_own_word_is_not_believed(self) -> None:
        """A manifest cannot make itself a web page, or a field of its own."""
        odd: tuple[object, ...] = (
            "text/html",
            "application/x\r\nA: b",
            "",
            1,
            None,
            [],
            {},
            "application/" + "x" * 200,
        )
        for own in odd:
            self.assertEqual(DOCKER_LIST, typed(DOCKER_LIST, schemaVersion=2, mediaType=own), own)

    def test_an_artifact_manifest_needs_no_version(self) -> None:
        """Known types tell a manifest without schemaVersion."""
        for own in ("application/vnd.oci.artifact.manifest.v1+json", DOCKER_MANIFEST):
            self.assertEqual(own, typed(mediaType=own))

    def test_schema1_shows_itself(self) -> None:
        """The old manifests are told by their version, signed or not."""
        self.assertEqual(SCHEMA1, typed(OCI_MANIFEST, schemaVersion=1))
        self.assertEqual(SCHEMA1_SIGNED, typed(None, schemaVersion=1, signatures=[]))
        for media_type in (SCHEMA1, SCHEMA1_SIGNED, f"{SCHEMA1.upper()}; charset=utf-8"):
            self.assertTrue(is_schema1(media_type))
        self.assertFalse(is_schema1(OCI_MANIFEST))

    def test_other_bytes_are_no_manifest(self) -> None:
        """Blobs, web pages, error bodies, other encodings, and what would break the parser."""
        document = json.dumps({"schemaVersion": 2, "mediaType": OCI_MANIFEST})
        bad = (
            b"", b"\x1f\x8b", b"<html></html>", b"[]", b"2", b"null", b'"x"', b'{"errors": []}', b"{", b"[" * 100_000,
            b'{"schemaVersion": "2"}', b'{"schemaVersion": true}', b'{"schemaVersion": 2.0}', b'{"schemaVersion": 3}',
            b'{"architecture": "amd64", "config": {}, "rootfs": {}}', document.encode("utf-16"), b'{"a": "\xff"}',
            b'{"schemaVersion": ' + b"2" * 5000 + b"}", b'{"mediaType": ["x"]}',
        )  # fmt: skip
        for data in bad:
            self.assertIsNone(manifest_media_type(data, OCI_MANIFEST), data[:60])

    def test_four_mebibytes_are_the_limit(self) -> None:
        """A manifest of the greatest size is one, a longer one is not."""
        document = b'{"schemaVersion": 2}'
        padding = b" " * (MAX_MANIFEST_BYTES - len(document))
        self.assertEqual(OCI_MANIFEST, manifest_media_type(document + padding, None))
        self.assertIsNone(manifest_media_type(document + padding + b" ", None))

    def test_bare_media_type(self) -> None:
        """Parameters, blanks and case go."""
        self.assertEqual("a/b", bare_media_type(" A/b ; c=D"))

    @settings(deadline=None, max_examples=200)
    @given(
        st.binary(max_size=200)
        | st.dictionaries(
            st.sampled_from(("schemaVersion", "mediaType", "manifests", "layers", "signatures")),
            st.sampled_from((1, 2, None, OCI_INDEX, SCHEMA1, "text/html", [], {}, 2.0)),
        ).map(lambda document: json.dumps(document).encode()),
        st.none() | st.text(max_size=40) | st.sampled_from(MANIFEST_TYPES),
    )
    def test_any_bytes_have_a_harmless_type_or_none(self, data: bytes, header_type: str | None) -> None:
        """Nothing raises, and every type can stand in a field."""
        media_type = manifest_media_type(data, header_type)
        if media_type is not None:
            self.assertTrue(media_type.startswith("application/") and media_type.isascii() and media_type.isprintable())
