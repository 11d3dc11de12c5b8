"""Digests, tags, repositories and namespaces."""

from __future__ import annotations

import contextlib
import hashlib

from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.oci import strategies
from txociproxy.oci.errors import OCIError
from txociproxy.oci.names import (
    Descriptor,
    Digest,
    Repository,
    Tag,
    canonical_namespace,
    looks_like_host,
    parse_reference,
)

SHA256 = "sha256:" + "0a" * 32
SHA512 = "sha512:" + "0a" * 64


class DigestTests(SynchronousTestCase):
    """A digest that exists is a valid one."""

    def test_both_algorithms_print_back(self) -> None:
        """sha256 and sha512 digests print as they were written."""
        for text in (SHA256, SHA512):
            self.assertEqual(text, str(Digest.parse(text)))

    def test_everything_else_is_digest_invalid(self) -> None:
        """Only the two algorithms, the exact length and lower-case hex make a digest."""
        bad = (
            "", ":", "sha256", "sha256:", SHA256[:-1], SHA256 + "0", SHA256.upper(), SHA256.replace("a", "A"),
            SHA256 + "\n", SHA256.replace("a", "g"), "sha256:" + "0a" * 64, "sha512:" + "0a" * 32, "md5:" + "0a" * 16,
            "sha384:" + "0a" * 48, "0a" * 32, "x" + SHA512, "sha256:sha256:" + "0a" * 32, "sha256:" + "\u0660" * 64,
        )  # fmt: skip
        for text in bad:
            error = self.assertRaises(OCIError, Digest.parse, text)
            self.assertEqual(("DIGEST_INVALID", 400), (error.code, error.status), text)

    def test_hasher_and_of_agree_with_hashlib(self) -> None:
        """The hash object of a digest's algorithm proves bytes against its hex."""
        for algorithm in ("sha256", "sha512"):
            digest = Digest.of(b"content", algorithm)
            hasher = digest.hasher()
            hasher.update(b"con")
            hasher.update(memoryview(b"tent"))
            self.assertEqual(hashlib.new(algorithm, b"content").hexdigest(), digest.hex)
            self.assertEqual(digest.hex, hasher.hexdigest())
        self.assertEqual("sha256", Digest.of(b"").algorithm)

    def test_equal_texts_are_equal_values(self) -> None:
        """Digests and descriptors compare and hash by value."""
        self.assertEqual({Digest.parse(SHA256)}, {Digest.parse(SHA256), Digest("sha256", "0a" * 32)})
        self.assertEqual(Descriptor(Digest.parse(SHA256), 1, "a/b"), Descriptor(Digest.parse(SHA256), 1, "a/b"))


class TagTests(SynchronousTestCase):
    """Tags keep their case."""

    def test_case_is_kept(self) -> None:
        """A tag prints as it was written."""
        for text in ("latest", "V1.0-RC_1", "_", "0", "a" * 128, "manifests"):
            self.assertEqual(text, str(Tag.parse(text)))

    def test_what_cannot_be_a_tag_is_unknown(self) -> None:
        """The conformance suite wants 404 for a tag that cannot exist."""
        for text in ("", ".", "..", ".a", "-a", "a" * 129, "a/b", "a b", "a\n", "a%2Fb", "\u00e4", "a+b"):
            error = self.assertRaises(OCIError, Tag.parse, text)
            self.assertEqual(("MANIFEST_UNKNOWN", 404), (error.code, error.status), text)

    def test_a_colon_makes_a_digest_of_a_reference(self) -> None:
        """References are digests or tags; a bad digest is never taken for a tag."""
        self.assertEqual(Digest.parse(SHA512), parse_reference(SHA512))
        self.assertEqual(Tag("sha256"), parse_reference("sha256"))
        self.assertEqual("DIGEST_INVALID", self.assertRaises(OCIError, parse_reference, "sha256:1").code)


class RepositoryTests(SynchronousTestCase):
    """Repositories follow the grammar of the spec."""

    def test_grammar_of_the_spec(self) -> None:
        """Dots, underscores and any number of hyphens may join; segments are not limited."""
        for text in ("a", "library/alpine", "a.b/c_d/e__f/g---h", "0/1/2/3/4/5", "a" * 255):
            self.assertEqual(text, str(Repository.parse(text)))

    def test_everything_else_is_name_invalid(self) -> None:
        """No segment can be empty, special to a file system, or begin with a joiner."""
        bad = (
            "", "/", "a/", "/a", "a//b", ".", "..", "a/../b", "a/.", "A", "a/B", "_a", "-a", "a-", "a_", "a.", "a..b",
            "a___b", "a._b", "a:b", "a b", "a\n", "a\0", "a%2e", "\u00e4", "a" * 256, "a/" * 128 + "a", "_tags",
            "a/_tags",
        )  # fmt: skip
        for text in bad:
            error = self.assertRaises(OCIError, Repository.parse, text)
            self.assertEqual(("NAME_INVALID", 400), (error.code, error.status), text)


class NamespaceTests(SynchronousTestCase):
    """RULES B3 and B5."""

    def test_canonical_form(self) -> None:
        """Case, a last dot, the default port and the old names of Docker Hub make no difference (RULES B5)."""
        table = {
            "ghcr.io": ("ghcr.io", "GHCR.io", "ghcr.io.", "ghcr.io:443", "ghcr.io.:443"),
            "docker.io": ("docker.io", "index.docker.io", "Registry-1.Docker.IO", "registry.hub.docker.com:443"),
            "registry:5000": ("registry:5000", "Registry.:5000"),
            "hub": ("hub", "HUB"),
            "127.0.0.1:80": ("127.0.0.1:80",),
            "xn--mnchen-3ya.example": ("xn--mnchen-3ya.example",),
            "docker.io:5000": ("docker.io:5000",),
            "index.docker.io:80": ("index.docker.io:80",),
        }
        for expected, written in table.items():
            for text in written:
                self.assertEqual(expected, canonical_namespace(text), text)

    def test_what_is_no_host_is_refused(self) -> None:
        """A namespace is a directory name later; nothing odd gets that far."""
        bad = (
            "", ".", "..", "a..b", "a..", ".a", "-a", "a-", "a_b", "a/b", "a:", "a:0", "a:080", "a:65536", "a:443:443",
            "a:x", ":443", "a b", "a\n", "a\0b", "[::1]:5000", "user@a", "a?b", "\u212aa.example", "\u00e4.example",
            "a" * 64, ".".join(["a" * 63] * 4) + ":5000", "a%41", "a:\u0661", "a:123456",
        )  # fmt: skip
        for text in bad:
            error = self.assertRaises(OCIError, canonical_namespace, text)
            self.assertEqual(("NAME_INVALID", 400), (error.code, error.status), text)

    def test_the_longest_name_is_a_component(self) -> None:
        """Name and port together fit into one path component."""
        longest = ".".join(["a" * 63] * 3 + ["a" * 58]) + ":5000"
        self.assertEqual(255, len(longest))
        self.assertEqual(longest, canonical_namespace(longest))
        self.assertRaises(OCIError, canonical_namespace, "b" + longest)

    def test_hosts_look_like_hosts(self) -> None:
        """A dot, a colon or localhost tells a host from a repository's first segment (RULES B3)."""
        for text in ("ghcr.io", "registry:5000", "localhost", "localhost:5000"):
            self.assertTrue(looks_like_host(text), text)
        for text in ("library", "hub", "localhosts", ""):
            self.assertFalse(looks_like_host(text), text)


class NameProperties(SynchronousTestCase):
    """Whatever comes in: a value that prints back, or an OCIError."""

    @settings(deadline=None, max_examples=200)
    @given(st.text() | st.text("abAB019._-:/\n\u212a", max_size=20))
    def test_any_text_is_a_value_or_an_oci_error(self, text: str) -> None:
        """Every parser takes any text."""
        for parse in (Digest.parse, Tag.parse, Repository.parse, parse_reference):
            with contextlib.suppress(OCIError):
                self.assertEqual(text, str(parse(text)))
        try:
            once = canonical_namespace(text)
        except OCIError:
            return
        self.assertEqual(once, canonical_namespace(once))

    @settings(deadline=None, max_examples=200)
    @given(strategies.namespaces(), strategies.repositories, strategies.tags, strategies.digests)
    @example(
        ".".join(["a" * 63] * 3 + ["a" * 58]) + ":5000", Repository("a" * 255), Tag(".".join("_" * 60)), Digest.of(b"")
    )
    def test_every_value_is_a_safe_path(self, namespace: str, repository: Repository, tag: Tag, digest: Digest) -> None:
        """What a storage path is made of: components of at most 255 bytes, none of them special (issue 2, G)."""
        try:
            canonical = canonical_namespace(namespace)
        except OCIError:
            assume(False)
        for component in (canonical, *repository.path.split("/"), f"{tag.name}.json", digest.algorithm, digest.hex):
            self.assertNotIn(component, ("", ".", "..", "_tags"))
            self.assertTrue(component.isascii() and component.isprintable())
            self.assertNotIn("/", component)
            self.assertLessEqual(len(component.encode()), 255)
        self.assertLessEqual(len(repository.path), 255)

    @settings(deadline=None, max_examples=100)
    @given(strategies.namespaces())
    def test_equal_hosts_have_one_canonical_form(self, namespace: str) -> None:
        """Case and a last dot never make a second namespace."""
        canonical = canonical_namespace(namespace)
        self.assertEqual(canonical, canonical_namespace(namespace.upper()))
        self.assertEqual(canonical, canonical_namespace(canonical))
