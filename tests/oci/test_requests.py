"""Targets in, values or OCIErrors out."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.oci import strategies
from txociproxy.oci.errors import OCIError
from txociproxy.oci.names import Digest, Repository, Tag, canonical_namespace
from txociproxy.oci.requests import (
    BlobPull,
    ManifestPull,
    Page,
    Ping,
    Referrers,
    TagList,
    Target,
    TokenAsk,
    parse,
)

D = "sha256:" + "0a" * 32
DIGEST = Digest.parse(D)
LATEST = Tag("latest")


def parsed(target: str, method: str = "GET") -> Target:
    """Parse a whole target, as the door splits it."""
    path, _, query = target.encode().partition(b"?")
    return parse(method, path, query)


class TargetTests(SynchronousTestCase):
    """One table of what is understood."""

    def test_targets_are_values(self) -> None:
        """Each endpoint of the spec that pulls, and our own two."""
        table: tuple[tuple[str, Target], ...] = (
            ("/healthz", Page("healthz")),
            ("/readyz", Page("readyz")),
            ("/metrics", Page("metrics")),
            ("/v2", Ping()),
            ("/v2/", Ping()),
            ("/v2/?ns=docker.io", Ping("docker.io")),
            ("/v2/?ns=", Ping()),
            ("/v2/?ns", Ping()),
            ("/v2/_token", TokenAsk()),
            ("/v2/_token/?scope=repository:a:pull,push&service=x", TokenAsk()),
            ("/v2/_token/ghcr.io", TokenAsk("ghcr.io")),
            ("/v2/_token?ns=ghcr.io", TokenAsk("ghcr.io")),
            ("/v2/_token/hub?ns=ghcr.io", TokenAsk("hub")),
            ("/v2/alpine/manifests/latest", ManifestPull("alpine", LATEST)),
            ("/v2/library/alpine/manifests/latest?ns=docker.io", ManifestPull("library/alpine", LATEST, "docker.io")),
            (f"/v2/a/manifests/{D}", ManifestPull("a", DIGEST)),
            ("/v2/a/manifests/V1?ns=GHCR.io:443", ManifestPull("a", Tag("V1"), "GHCR.io:443")),
            ("/v2/ghcr.io/a/b/manifests/latest", ManifestPull("ghcr.io/a/b", LATEST)),
            ("/v2/localhost:5000/a/manifests/latest", ManifestPull("localhost:5000/a", LATEST)),
            ("/v2/GHCR.io/a/manifests/latest", ManifestPull("GHCR.io/a", LATEST)),
            ("/v2/a_b.c/d/manifests/latest", ManifestPull("a_b.c/d", LATEST)),
            (f"/v2/a/b/c/d/e/blobs/{D}?x=y", BlobPull("a/b/c/d/e", DIGEST)),
            ("/v2/a/tags/list", TagList("a")),
            ("/v2/a/tags/list?n=2&ns=hub&last=b%2Fc", TagList("a", "hub", "n=2&last=b%2Fc")),
            (f"/v2/a/referrers/{D}?artifactType=x%2Fy", Referrers("a", DIGEST, None, "artifactType=x%2Fy")),
        )
        for target, value in table:
            self.assertEqual(value, parsed(target), target)
            self.assertEqual(value, parsed(str(value), "HEAD"), target)

    def test_names_are_read_from_the_right(self) -> None:
        """A repository may have segments that read like endpoints."""
        self.assertEqual(ManifestPull("tags/list", LATEST), parsed("/v2/tags/list/manifests/latest"))
        self.assertEqual(TagList("a/manifests/b"), parsed("/v2/a/manifests/b/tags/list"))
        self.assertEqual(BlobPull("manifests/blobs", DIGEST), parsed(f"/v2/manifests/blobs/blobs/{D}"))

    def test_one_percent_decoding(self) -> None:
        """An encoded slash or colon is the character itself, once."""
        self.assertEqual(ManifestPull("a/b", LATEST), parsed("/v2/a%2Fb/manifests/latest"))
        self.assertEqual(BlobPull("a", DIGEST), parsed(f"/v2/a/blobs/{D.replace(':', '%3A')}"))
        self.assertEqual(ManifestPull("a", LATEST, "h:5000"), parsed("/v2/a/manifests/latest?ns=h%3A5000"))
        self.assertEqual(Ping("hub"), parsed("/v2/?n%73=hub"))


class RefusalTests(SynchronousTestCase):
    """Everything else is an OCIError with the right code."""

    def assertRefused(self, code: str, status: int, *targets: str) -> None:
        """Fail unless each target gets this code and status."""
        for target in targets:
            error = self.assertRaises(OCIError, parsed, target)
            self.assertEqual((code, status), (error.code, error.status), target)

    def test_odd_targets_are_400(self) -> None:
        """Absolute form, authority form, what is left of an encoding, and control bytes (RULES A1)."""
        self.assertRefused(
            "NAME_INVALID", 400, "", "*", "example.com:443", "http://example.com/v2/", "/v2/a%252Fb/manifests/x",
            "/v2/a/manifests/x%25", "/v2/a/manifests/%zz", "/v2/%", "/v2/a%00/manifests/x", "/v2/a/manifests/x%0a",
            "/v2/a\t/manifests/x", "/v2/\x7f", "/healthz%0d", "/v2/%c3%a4/manifests/x", "/v2/\u00e4/manifests/x",
            "/v2/?a=\x01", "/v2/?a=b c", "/v2/a/tags/list?x=<y>", "/v2/a/tags/list?x=\u00e4", '/v2/?"', "/v2/?a#b",
        )  # fmt: skip

    def test_two_namespaces_are_400(self) -> None:
        """One ``ns=`` at most, however it is written (RULES A1)."""
        self.assertRefused(
            "NAME_INVALID",
            400,
            "/v2/?ns=a&ns=b",
            "/v2/?ns=a&ns=a",
            "/v2/?ns=&ns=a",
            "/v2/?ns=a&%6es=b",
            "/healthz?ns&ns",
        )

    def test_a_namespace_must_be_a_host(self) -> None:
        """What could not be a directory name is refused here already."""
        self.assertRefused(
            "NAME_INVALID", 400, "/v2/?ns=..", "/v2/?ns=a/b", "/v2/?ns=a%2fb", "/v2/?ns=a%00", "/v2/?ns=%c3%a4",
            "/v2/?ns=a+b", "/v2/_token/..", "/v2/_token/a_b", "/v2/a/manifests/x?ns=a:99999",
        )  # fmt: skip

    def test_names_out_of_grammar_are_400(self) -> None:
        """No traversal, no empty segment, no upper case; a host needs a repository behind it."""
        self.assertRefused(
            "NAME_INVALID", 400, "/v2/../manifests/x", "/v2/a/../b/manifests/x", "/v2/a%2f..%2fb/manifests/x",
            "/v2//manifests/x", "/v2/manifests/x", "/v2/a//b/manifests/x", "/v2/A/manifests/x", "/v2/A/b/manifests/x",
            "/v2/a/B:1/manifests/x", "/v2/localhost:5000/manifests/x", "/v2/a:99999/b/manifests/x",
            "/v2/h:1//manifests/x", "/v2/h:1/B/manifests/x", f"/v2//blobs/{D}", "/v2/tags/list",
            f"/v2/_token/referrers/{D}", f"/v2/{'a' * 256}/tags/list",
        )  # fmt: skip

    def test_references_out_of_grammar(self) -> None:
        """A bad tag is unknown, a bad digest invalid."""
        self.assertRefused("MANIFEST_UNKNOWN", 404, "/v2/a/manifests/", "/v2/a/manifests/..", "/v2/a/manifests/a+b")
        self.assertRefused(
            "DIGEST_INVALID",
            400,
            "/v2/a/blobs/latest",
            "/v2/a/blobs/uploads",
            "/v2/a/manifests/sha256:1",
            "/v2/a/referrers/x",
        )

    def test_what_is_not_served_is_404(self) -> None:
        """The catalog and unknown endpoints (RULES A4)."""
        self.assertRefused(
            "UNSUPPORTED", 404, "/v2/_catalog", "/", "//", "/v1/", "/V2/", "//v2/", "/v2//", "/v2/a",
            "/v2/a/tags/list/", "/v2/a/blobs/uploads/", "/healthz/", "/v2/_token/a/b", "/v2/a/manifests/x/",
        )  # fmt: skip

    def test_writes_are_405(self) -> None:
        """Other methods get the list of those that work (RULES A4)."""
        for method in ("PUT", "PATCH", "DELETE", "POST", "OPTIONS", "get", "", "CONNECT"):
            for target in ("/v2/a/blobs/uploads/", "/v2/a/manifests/x", "/v2/", "/healthz", "/v2/_catalog", "/x"):
                error = self.assertRaises(OCIError, parsed, target, method)
                self.assertEqual(("UNSUPPORTED", 405), (error.code, error.status))
                self.assertEqual((("Allow", "GET, HEAD"),), error.headers)

    def test_only_the_token_endpoint_takes_post(self) -> None:
        """containerd POSTs its token request first (RULES C4)."""
        self.assertEqual(TokenAsk("hub"), parsed("/v2/_token/hub", "POST"))
        error = self.assertRaises(OCIError, parsed, "/v2/_token", "PUT")
        self.assertEqual((405, (("Allow", "GET, HEAD, POST"),)), (error.status, error.headers))
        self.assertRaises(OCIError, parsed, "/v2/_token/manifests/x", "POST")


PIECES = st.sampled_from(
    (b"/", b"/v2", b"/v2/", b"_token", b"manifests", b"blobs", b"tags/list", b"referrers", b"latest", D.encode(), b"..",
     b"%2f", b"%2e", b"%25", b"%00", b"a", b"ghcr.io", b"h:5000", b"_catalog", b"healthz", b"//", b"\n", b"\xff", b"A")
)  # fmt: skip
QUERY_PIECES = st.sampled_from(
    (b"ns", b"=", b"&", b"ghcr.io", b"%3a", b"80", b"n=2", b"%6es", b"..", b"\r", b"+", b"<")
)


class TargetProperties(SynchronousTestCase):
    """Issue 2, G: every target parses to a value that prints back to itself, or to an OCIError."""

    def check(self, method: str, path: bytes, query: bytes) -> None:
        """Fail unless the target is a sound value or an OCIError."""
        try:
            value = parse(method, path, query)
        except OCIError:
            return
        again, _, rest = str(value).encode("ascii").partition(b"?")
        self.assertEqual(value, parse(method, again, rest))
        self.assertTrue(method in ("GET", "HEAD") or isinstance(value, TokenAsk))
        if not isinstance(value, Page) and value.namespace is not None:
            canonical_namespace(value.namespace)
        for segment in getattr(value, "name", "x").split("/"):
            self.assertNotIn(segment, ("", ".", ".."))

    @settings(deadline=None, max_examples=300)
    @given(
        st.sampled_from(("GET", "POST", "PUT")) | st.text(max_size=5), st.binary(max_size=60), st.binary(max_size=30)
    )
    def test_any_bytes(self, method: str, path: bytes, query: bytes) -> None:
        """Bytes of any kind."""
        self.check(method, path, query)
        self.check(method, b"/v2/" + path, query)

    @settings(deadline=None, max_examples=500)
    @given(
        st.sampled_from(("GET", "HEAD", "POST")),
        st.lists(PIECES, max_size=8).map(b"".join)
        | st.lists(PIECES, max_size=6).map(lambda parts: b"/v2/" + b"/".join(parts)),
        st.lists(QUERY_PIECES, max_size=6).map(b"".join),
    )
    def test_pieces_of_targets(self, method: str, path: bytes, query: bytes) -> None:
        """Pieces that mean something, in any order."""
        self.check(method, path, query)

    @settings(deadline=None, max_examples=300)
    @given(strategies.targets)
    def test_every_value_prints_to_a_target_that_reads_back(self, value: Target) -> None:
        """Printing loses nothing."""
        self.assertEqual(value, parsed(str(value)))
        self.assertEqual(str(value), str(parsed(str(value))))

    @settings(deadline=None, max_examples=100)
    @given(strategies.repositories, strategies.tags)
    def test_every_repository_can_be_asked_for(self, repository: Repository, tag: Tag) -> None:
        """No legal repository is out of reach, encoded or not."""
        for path in (repository.path, repository.path.replace("/", "%2F").replace(".", "%2e")):
            self.assertEqual(ManifestPull(repository.path, tag), parsed(f"/v2/{path}/manifests/{tag}"))
