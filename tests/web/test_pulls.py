"""Pulls at the door: status and fields of every kind of answer (distribution-spec; RULES A4, B, C3, E)."""

from __future__ import annotations

import json

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.web.doubles import Line, Registry, serve
from txociproxy.bodies.lending import MemoryBody
from txociproxy.interfaces import Redirect, Relay, Serve
from txociproxy.oci.accept import EVERYTHING
from txociproxy.oci.errors import OCIError, StorageUnavailable, UpstreamUnreachable
from txociproxy.oci.names import Descriptor, Digest, Tag
from txociproxy.oci.ranges import ByteRange, RangeSpec
from txociproxy.upstreams.entries.table import Entry
from txociproxy.web.site import Census, DoorLimits, DoorSite

DATA = bytes(range(256)) * 4
DIGEST = Digest.of(DATA)
BLOB = f"/v2/library/alpine/blobs/{DIGEST}"
TAG = "/v2/library/alpine/manifests/3.20"
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"


class ServingTests(SynchronousTestCase):
    """Content that the cache has or gets."""

    def setUp(self) -> None:
        """A cache that has one blob."""
        self.registry = Registry()
        self.registry.cache.verdict = serve(DATA)

    def test_a_blob_comes_whole_with_the_fields_of_the_spec(self) -> None:
        """200, its length, its digest in two fields, and how long it is good."""
        answer = self.registry.get(BLOB)
        self.assertEqual((answer.status, answer.body), (200, DATA))
        for name, value in (
            ("Content-Length", "1024"),
            ("Content-Type", "application/octet-stream"),
            ("Docker-Content-Digest", str(DIGEST)),
            ("ETag", f'"{DIGEST}"'),
            ("Accept-Ranges", "bytes"),
            ("Docker-Distribution-Api-Version", "registry/2.0"),
            ("Cache-Control", "public, max-age=31536000, immutable"),
            ("Vary", None),
            ("OCI-Namespace", None),
        ):
            self.assertEqual(answer.get(name), value, name)

    def test_a_head_has_the_fields_of_the_get_and_no_body(self) -> None:
        """Also when the cache gives no body, only the descriptor."""
        whole = self.registry.get(BLOB)
        for verdict in (serve(DATA), serve(DATA, body=None)):
            self.registry.cache.verdict = verdict
            answer = self.registry.ask("HEAD", BLOB)
            self.assertEqual((answer.status, answer.body), (200, b""))
            for name in ("Content-Length", "Content-Type", "ETag", "Docker-Content-Digest", "Accept-Ranges"):
                self.assertEqual(answer.get(name), whole.get(name), name)
            self.assertEqual(self.registry.cache.asked[-1].method, "HEAD")

    def test_a_body_that_nobody_reads_is_closed(self) -> None:
        """A HEAD and a 304 leave no descriptor open."""
        for method, fields in (("HEAD", ()), ("GET", (("If-None-Match", f'"{DIGEST}"'),))):
            body = ClosingBody(DATA, promised=1)
            self.registry.cache.verdict = serve(DATA, body=body)
            self.registry.ask(method, BLOB, *fields)
            self.assertEqual(body.closed, 1)

    def test_a_body_that_was_read_is_closed(self) -> None:
        """The Reader lets go of it."""
        body = ClosingBody(DATA, promised=1)
        self.registry.cache.verdict = serve(DATA, body=body)
        self.registry.get(BLOB)
        self.assertEqual(body.closed, 1)

    def test_if_none_match_gives_304_without_asking_for_a_body(self) -> None:
        """Quoted, unquoted, weak, a list and a star; another tag gets the body (RFC 9110, section 13.1.2)."""
        for field in (f'"{DIGEST}"', str(DIGEST), f'W/"{DIGEST}"', f'"x", "{DIGEST}"', "*"):
            self.registry.cache.verdict = serve(DATA, body=None)
            answer = self.registry.get(BLOB, ("If-None-Match", field))
            self.assertEqual((answer.status, answer.body), (304, b""), field)
            self.assertEqual(answer.get("ETag"), f'"{DIGEST}"')
            self.assertEqual(self.registry.cache.asked[-1].method, "HEAD")
        self.registry.cache.verdict = serve(DATA)
        self.assertEqual(self.registry.get(BLOB, ("If-None-Match", '"other"')).status, 200)

    def test_if_none_match_on_a_tag_is_judged_by_what_the_tag_means(self) -> None:
        """The cache is asked for the manifest, since only it knows."""
        self.registry.cache.verdict = serve(DATA, INDEX_TYPE, vary_accept=True)
        answer = self.registry.get(TAG, ("If-None-Match", f'"{DIGEST}"'))
        self.assertEqual((answer.status, answer.get("Vary")), (304, "Accept"))
        self.assertEqual(self.registry.cache.asked[-1].method, "GET")

    def test_a_200_to_a_head_in_place_of_a_get_is_a_304(self) -> None:
        """An upstream's own word that it is there has no body to pass on."""
        self.registry.cache.verdict = Relay(200, (), b"", content_length=1024)
        answer = self.registry.get(BLOB, ("If-None-Match", f'"{DIGEST}"'))
        self.assertEqual((answer.status, answer.body), (304, b""))

    def test_a_tag_varies_by_accept_and_has_the_manifests_type(self) -> None:
        """E7; a manifest has no ranges."""
        self.registry.cache.verdict = serve(DATA, INDEX_TYPE, vary_accept=True, cache_control="no-cache")
        answer = self.registry.get(TAG, ("Range", "bytes=0-1"))
        self.assertEqual((answer.status, answer.body), (200, DATA))
        self.assertEqual(answer.get("Vary"), "Accept")
        self.assertEqual(answer.get("Content-Type"), INDEX_TYPE)
        self.assertEqual(answer.get("Cache-Control"), "no-cache")
        self.assertIsNone(answer.get("Accept-Ranges"))

    def test_kept_fields_are_replayed(self) -> None:
        """What the upstream said itself comes back (RULES E10)."""
        self.registry.cache.verdict = serve(DATA, headers=(("X-Note", "from upstream"),))
        self.assertEqual(self.registry.get(BLOB).get("X-Note"), "from upstream")

    def test_kept_fields_that_must_not_be_replayed_are_not(self) -> None:
        """G1: whatever stands in a sidecar, the content is served, and as one answer."""
        registry = Registry()
        odd = (("a b", "c"), ("", "d"), ("X-Two", "e\r\nf: g"), ("X-Far", "\u2603"))
        denied = (("Transfer-Encoding", "chunked"), ("Content-Length", "1"), ("WWW-Authenticate", "Basic"))
        registry.cache.verdict = serve(DATA, headers=(*odd, *denied, ("X-Kept", "h")))
        answer = registry.get(BLOB)
        self.assertEqual((answer.status, answer.body, answer.get("X-Kept")), (200, DATA, "h"))
        for name in ("X-Two", "X-Far", "Transfer-Encoding", "WWW-Authenticate"):
            self.assertIsNone(answer.get(name))

    def test_a_head_that_cannot_be_sent_lets_go_of_the_body(self) -> None:
        """An error of ours keeps no file open."""
        body = ClosingBody(DATA, promised=1)
        self.registry.cache.verdict = serve(DATA, body=body, cache_control="\u2603")
        self.registry.ask("GET", BLOB)
        self.assertEqual((body.closed, len(self.flushLoggedErrors(UnicodeEncodeError))), (1, 1))

    def test_a_body_of_unknown_length_is_chunked(self) -> None:
        """HTTP/1.1 needs no length."""
        body = UnknownBody(DATA, promised=1)
        self.registry.cache.verdict = serve(DATA, body=body)
        answer = self.registry.get(BLOB)
        self.assertEqual((answer.status, answer.body), (200, DATA))
        self.assertIsNone(answer.get("Content-Length"))

    def test_a_redirect_has_no_length_of_the_blob_and_no_long_life(self) -> None:
        """A client is sent elsewhere with nothing of the content but its digest."""
        descriptor = Descriptor(DIGEST, 1024, "application/octet-stream")
        self.registry.cache.verdict = Redirect(
            descriptor, "https://store.example/x?sig=1", 120.0, "hit", "private, max-age=110"
        )
        answer = self.registry.get(BLOB)
        self.assertEqual(answer.status, 307)
        self.assertEqual(answer.get("Location"), "https://store.example/x?sig=1")
        self.assertEqual(answer.get("Content-Length"), "0")
        self.assertEqual(answer.get("Docker-Content-Digest"), str(DIGEST))
        self.assertEqual(answer.get("Cache-Control"), "private, max-age=110")


class ClosingBody(MemoryBody):
    """Counts how often it was let go."""

    closed = 0

    def _let_go(self) -> None:
        self.closed += 1


class UnknownBody(MemoryBody):
    """Does not say its length until its last byte was read."""

    read = False

    @property
    def size_bytes(self) -> int | None:  # type: ignore[override]
        """Whole length, once it is known."""
        return len(self.data) if self.read else None

    def read_at(self, offset_bytes: int, max_bytes: int) -> bytes:
        """Read."""
        self.read = True
        return super().read_at(offset_bytes, max_bytes)


class RangeTests(SynchronousTestCase):
    """Parts of blobs (RFC 9110, section 14)."""

    def setUp(self) -> None:
        """A cache that has one blob."""
        self.registry = Registry()

    def ask(self, *fields: tuple[str, str], method: str = "GET") -> tuple[int, bytes, str | None]:
        """Return status, body and Content-Range."""
        self.registry.cache.verdict = serve(DATA)
        answer = self.registry.ask(method, BLOB, *fields)
        if answer.status == 206 and answer.get("Content-Length") != str(len(answer.body)):
            self.fail("a wrong length")
        return answer.status, answer.body, answer.get("Content-Range")

    def test_one_range_gives_206(self) -> None:
        """First to last, open, suffix, and beyond the end."""
        for field, first, last in (
            ("bytes=0-0", 0, 0),
            ("bytes=10-19", 10, 19),
            ("bytes=1000-", 1000, 1023),
            ("bytes=-24", 1000, 1023),
            ("bytes=1000-5000", 1000, 1023),
            ("bytes=-5000", 0, 1023),
        ):
            answer = self.ask(("Range", field))
            self.assertEqual(answer, (206, DATA[first : last + 1], f"bytes {first}-{last}/1024"), field)

    def test_a_range_beyond_the_end_gives_416_with_the_length(self) -> None:
        """The body is the spec's."""
        self.registry.cache.verdict = serve(DATA)
        answer = self.registry.get(BLOB, ("Range", "bytes=1024-"))
        self.assertEqual((answer.status, answer.get("Content-Range")), (416, "bytes */1024"))
        self.assertEqual(answer.error(), "RANGE_INVALID")

    def test_what_is_no_single_range_gives_the_whole(self) -> None:
        """Several ranges, another unit, nonsense, two fields."""
        for field in ("bytes=0-1,5-6", "lines=0-1", "bytes=5-1", "bytes=", "bytes=a-b"):
            self.assertEqual(self.ask(("Range", field)), (200, DATA, None), field)
        self.assertEqual(self.ask(("Range", "bytes=0-1"), ("Range", "bytes=0-1")), (200, DATA, None))

    def test_if_range_is_honoured(self) -> None:
        """The right tag gives the part; a wrong or weak one, or a date, the whole."""
        part = (206, DATA[:2], "bytes 0-1/1024")
        self.assertEqual(self.ask(("Range", "bytes=0-1"), ("If-Range", f'"{DIGEST}"')), part)
        for field in ('"other"', f'W/"{DIGEST}"', "Sun, 22 Nov 2026 00:00:00 GMT"):
            self.assertEqual(self.ask(("Range", "bytes=0-1"), ("If-Range", field)), (200, DATA, None), field)

    def test_a_head_ignores_ranges(self) -> None:
        """Ranges are defined for GET alone (RFC 9110, section 14.2)."""
        self.assertEqual(self.ask(("Range", "bytes=0-1"), method="HEAD"), (200, b"", None))
        self.assertIsNone(self.registry.cache.asked[-1].range_spec)

    def test_the_cache_is_told_which_part_is_wanted(self) -> None:
        """If-Range has been judged already."""
        self.ask(("Range", "bytes=10-19"))
        self.assertEqual(self.registry.cache.asked[-1].range_spec, RangeSpec(10, 19))
        self.ask(("Range", "bytes=10-19"), ("If-Range", '"other"'))
        self.assertIsNone(self.registry.cache.asked[-1].range_spec)

    def test_a_relayed_part_is_sent_as_it_lies(self) -> None:
        """Its offsets are those of the content."""
        body = MemoryBody(DATA, promised=1)
        self.registry.cache.verdict = serve(DATA, body=body, partial=ByteRange(512, 520, 1024), outcome="relay")
        answer = self.registry.get(BLOB, ("Range", "bytes=512-519"))
        self.assertEqual((answer.status, answer.body), (206, DATA[512:520]))
        self.assertEqual(answer.get("Content-Range"), "bytes 512-519/1024")

    def test_an_upstream_that_cannot_satisfy_gives_416(self) -> None:
        """The cache says how long the content is."""
        self.registry.cache.verdict = serve(DATA, body=None, unsatisfiable_total_bytes=1024)
        answer = self.registry.get(BLOB, ("Range", "bytes=5000-"))
        self.assertEqual((answer.status, answer.get("Content-Range")), (416, "bytes */1024"))


class AskingTests(SynchronousTestCase):
    """What the cache is asked, by the words of the request (RULES B, E7)."""

    def setUp(self) -> None:
        """A cache that always says no."""
        self.registry = Registry()
        self.registry.cache.verdict = Relay(404, (), b"")

    def test_routes(self) -> None:
        """Default, path, ns=, both."""
        for path, namespace, repository, fallback in (
            ("/v2/alpine/manifests/3", "docker.io", "library/alpine", False),
            ("/v2/ghcr.io/a/b/manifests/3", "ghcr.io", "a/b", False),
            ("/v2/a/b/manifests/3?ns=ghcr.io", "ghcr.io", "a/b", True),
            ("/v2/ghcr.io/a/b/manifests/3?ns=ghcr.io", "ghcr.io", "a/b", True),
        ):
            self.registry.get(path)
            ask = self.registry.cache.asked[-1]
            self.assertEqual((ask.pull.namespace, str(ask.pull.repository)), (namespace, repository), path)
            self.assertEqual((ask.pull.reference, ask.has_fallback), (Tag("3"), fallback), path)

    def test_a_namespace_in_the_query_comes_back(self) -> None:
        """B1."""
        answer = self.registry.get("/v2/a/b/manifests/3?ns=ghcr.io")
        self.assertEqual(answer.get("OCI-Namespace"), "ghcr.io")

    def test_a_claimed_host_means_its_upstream(self) -> None:
        """B2: the whole path is the repository."""
        claimed = Entry("ghcr.io", ("https://ghcr.io",), hosts=("ghcr.cache.example",))
        self.registry = Registry(claimed, Entry("docker.io", ("https://registry-1.docker.io",)))
        self.registry.cache.verdict = Relay(404, (), b"")
        self.registry.get("/v2/quay.io/b/manifests/3", ("Host", "ghcr.cache.example:8080"))
        pull = self.registry.cache.asked[-1].pull
        self.assertEqual((pull.namespace, str(pull.repository)), ("ghcr.io", "quay.io/b"))

    def test_an_unlisted_namespace_is_denied_with_the_remedy(self) -> None:
        """B6; nothing is asked."""
        answer = self.registry.get("/v2/evil.example/a/manifests/3")
        self.assertEqual((answer.status, answer.error()), (403, "DENIED"))
        self.assertIn("upstreams", json.loads(answer.body)["errors"][0]["message"])
        self.assertEqual(self.registry.cache.asked, [])

    def test_refused_repositories_are_denied(self) -> None:
        """B7: before anything else."""
        registry = Registry(Entry("docker.io", ("https://registry-1.docker.io",), refused=("library/*",)))
        answer = registry.get("/v2/alpine/manifests/3")
        self.assertEqual((answer.status, answer.error()), (403, "DENIED"))

    def test_all_accept_lines_count(self) -> None:
        """Docker sends six; of a blob none counts."""
        lines = (
            ("Accept", "application/vnd.oci.image.index.v1+json"),
            ("Accept", "application/vnd.oci.image.manifest.v1+json;q=0.5"),
        )
        self.registry.get(TAG, *lines)
        wanted = frozenset({"application/vnd.oci.image.index.v1+json", "application/vnd.oci.image.manifest.v1+json"})
        self.assertEqual(self.registry.cache.asked[-1].pull.accept_class, wanted)
        self.registry.get(BLOB, *lines)
        self.assertEqual(self.registry.cache.asked[-1].pull.accept_class, EVERYTHING)

    def test_the_clients_address_is_told(self) -> None:
        """For the caps per address."""
        self.registry.get(BLOB)
        self.assertEqual(self.registry.cache.asked[-1].client, "127.0.0.1")


class RelayTests(SynchronousTestCase):
    """Answers of the upstream that are passed on (RULES C3, E11)."""

    def setUp(self) -> None:
        """A door."""
        self.registry = Registry()

    def test_a_refusal_keeps_status_and_body_and_loses_what_must_not_pass(self) -> None:
        """No cookie, no place, but how long to wait; and no sniffing."""
        headers = (
            ("Content-Type", "application/json"),
            ("Set-Cookie", "a=b"),
            ("Retry-After", "7"),
            ("Location", "/elsewhere"),
        )
        self.registry.cache.verdict = Relay(429, headers, b'{"errors":[]}')
        answer = self.registry.get(TAG)
        self.assertEqual((answer.status, answer.body), (429, b'{"errors":[]}'))
        self.assertEqual(answer.get("Retry-After"), "7")
        self.assertEqual(answer.get("Set-Cookie"), None)
        self.assertEqual(answer.get("Location"), None)
        self.assertEqual(answer.get("X-Content-Type-Options"), "nosniff")

    def test_a_401_carries_exactly_one_challenge_and_it_is_ours(self) -> None:
        """Whatever scheme the upstream wants; the scope names the repository as the client did."""
        headers = (("WWW-Authenticate", 'Basic realm="x"'), ("WWW-Authenticate", 'Bearer realm="https://y/"'))
        self.registry.cache.verdict = Relay(401, headers, b"")
        for path, namespace, name in (
            ("/v2/alpine/manifests/3", "docker.io", "alpine"),
            ("/v2/ghcr.io/a/b/manifests/3", "ghcr.io", "ghcr.io/a/b"),
        ):
            self.assertEqual(
                self.registry.get(path).get("WWW-Authenticate"),
                f'Bearer realm="http://cache.example:8080/v2/_token/{namespace}",service="ociproxy",'
                f'scope="repository:{name}:pull"',
            )

    def test_the_public_url_is_the_base_of_the_realm(self) -> None:
        """Behind another server the Host says little."""
        registry = Registry(public_url="https://cache.public.example")
        registry.cache.verdict = Relay(401, (), b"")
        self.assertIn('realm="https://cache.public.example/v2/_token/docker.io"', str(registry.get(TAG).headers))

    def test_an_error_without_a_body_gets_the_one_of_the_spec(self) -> None:
        """The upstream answered a HEAD; docker takes an empty body for a broken registry."""
        registry = Registry()
        for path, status, code in (
            (BLOB, 404, "BLOB_UNKNOWN"),
            (TAG, 404, "MANIFEST_UNKNOWN"),
            ("/v2/library/alpine/tags/list", 404, "NAME_UNKNOWN"),
            (TAG, 403, "DENIED"),
            (TAG, 401, "UNAUTHORIZED"),
            (TAG, 429, "TOOMANYREQUESTS"),
        ):
            registry.cache.verdict = Relay(status, (("Content-Type", "text/html"), ("Retry-After", "7")), b"")
            answer = registry.get(path)
            self.assertEqual((answer.status, answer.error(), answer.get("Retry-After")), (status, code, "7"))
            self.assertEqual(answer.get("Cache-Control"), "no-store")
            self.assertEqual(registry.ask("HEAD", path).get("Content-Type"), "text/html")

    def test_a_failing_upstream_is_a_bad_gateway(self) -> None:
        """502 with its status in words of the spec, and with its wait; its page stays here (RULES E11)."""
        registry = Registry()
        fields = (("Content-Type", "text/html"), ("Retry-After", "7"), ("Content-Encoding", "gzip"))
        for path in (TAG, BLOB, "/v2/library/alpine/tags/list"):
            for status in (500, 502, 503, 504, 599):
                registry.cache.verdict = Relay(status, fields, b"<html>oops</html>")
                answer = registry.get(path)
                self.assertEqual((answer.status, answer.error(), answer.get("Retry-After")), (502, "UNAVAILABLE", "7"))
                self.assertIn(str(status).encode(), answer.body)
                self.assertIsNone(answer.get("Content-Encoding"))
                self.assertEqual(registry.ask("HEAD", path).status, 502)

    def test_a_wait_is_told_in_words_of_the_spec(self) -> None:
        """429 with a page for people; one that has the words already is passed on as it is."""
        registry = Registry()
        for page, is_ours in ((b"<html>slow down</html>", True), (b'{"errors":[{"code":"X"}]}', False), (b"[]", True)):
            registry.cache.verdict = Relay(429, (("Retry-After", "7"), ("Content-Type", "application/json")), page)
            answer = registry.get(TAG)
            self.assertEqual((answer.status, answer.get("Retry-After")), (429, "7"))
            self.assertEqual(answer.body != page, is_ours)
            self.assertEqual(answer.error(), "TOOMANYREQUESTS" if is_ours else "X")

    def test_an_outage_is_told_with_the_namespace_that_was_asked(self) -> None:
        """B1: whoever asked for one is answered for it."""
        registry = Registry()
        registry.cache.verdict = UpstreamUnreachable("no connection")
        answer = registry.get(f"{TAG}?ns=docker.io")
        self.assertEqual((answer.status, answer.get("OCI-Namespace")), (502, "docker.io"))

    def test_a_head_says_the_length_of_the_get(self) -> None:
        """A relayed HEAD has no body of its own."""
        self.registry.cache.verdict = Relay(200, (("Content-Type", INDEX_TYPE),), b"", content_length=77)
        answer = self.registry.ask("HEAD", TAG)
        self.assertEqual((answer.status, answer.get("Content-Length"), answer.body), (200, "77", b""))

    def test_lists_lead_to_their_next_page_here(self) -> None:
        """Link is rewritten, with the client's own name and namespace."""
        link = '<https://registry-1.docker.io/v2/library/alpine/tags/list?n=2&last=b>; rel="next"'
        self.registry.cache.verdict = Relay(200, (("Link", link), ("Content-Type", "application/json")), b"{}")
        answer = self.registry.get("/v2/alpine/tags/list?n=2")
        self.assertEqual(answer.get("Link"), '</v2/alpine/tags/list?n=2&last=b>; rel="next"')
        answer = self.registry.get("/v2/alpine/tags/list?n=2&ns=docker.io")
        self.assertEqual(answer.get("Link"), '</v2/alpine/tags/list?n=2&last=b&ns=docker.io>; rel="next"')
        self.assertEqual(
            self.registry.cache.listings[-1], ("docker.io", "library/alpine", "tags/list", "n=2", "application/json")
        )

    def test_referrers_are_asked_by_digest_and_type(self) -> None:
        """The filter passes on."""
        self.registry.cache.verdict = Relay(200, (("OCI-Filters-Applied", "artifactType"),), b"{}")
        answer = self.registry.get(f"/v2/a/b/referrers/{DIGEST}?artifactType=x")
        self.assertEqual(answer.get("OCI-Filters-Applied"), "artifactType")
        self.assertEqual(
            self.registry.cache.listings,
            [("docker.io", "a/b", f"referrers/{DIGEST}", "artifactType=x", INDEX_TYPE)],
        )


class ErrorTests(SynchronousTestCase):
    """What goes wrong is told in the form of the spec."""

    def test_each_error_has_its_status(self) -> None:
        """Refused, late, storage, ours, and the unforeseen, of which nothing is told."""
        registry = Registry()
        for error, status, code in (
            (UpstreamUnreachable("no connection to docker.io"), 502, "UNAVAILABLE"),
            (UpstreamUnreachable("no answer from docker.io", timed_out=True), 504, "UNAVAILABLE"),
            (StorageUnavailable("disk"), 503, "UNAVAILABLE"),
            (OCIError("BLOB_UNKNOWN", "gone"), 404, "BLOB_UNKNOWN"),
            (OCIError("TOOMANYREQUESTS", "later", status=503), 503, "TOOMANYREQUESTS"),
        ):
            registry.cache.verdict = error
            answer = registry.get(BLOB)
            self.assertEqual((answer.status, answer.error()), (status, code))
        registry.cache.verdict = RuntimeError("secret")
        answer = registry.get(BLOB)
        self.assertEqual((answer.status, answer.error()), (500, "UNAVAILABLE"))
        self.assertNotIn(b"secret", answer.body)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_an_error_of_ours_that_wants_a_token_has_our_challenge(self) -> None:
        """A 401 from anywhere carries one."""
        registry = Registry()
        registry.cache.verdict = OCIError("UNAUTHORIZED", "no")
        self.assertIn('scope="repository:library/alpine:pull"', str(registry.get(TAG).get("WWW-Authenticate")))

    def test_paths_that_are_none(self) -> None:
        """A4, and what the parser says."""
        registry = Registry()
        for method, path, status, code in (
            ("PUT", "/v2/a/manifests/x", 405, "UNSUPPORTED"),
            ("DELETE", BLOB, 405, "UNSUPPORTED"),
            ("GET", "/v2/_catalog", 404, "UNSUPPORTED"),
            ("GET", "/", 404, "UNSUPPORTED"),
            ("GET", "/v2/a/manifests/%2525", 400, "NAME_INVALID"),
            ("GET", "/v2/a/manifests/x?ns=a.b&ns=c.d", 400, "NAME_INVALID"),
            ("GET", "/v2/UPPER/manifests/x", 400, "NAME_INVALID"),
            ("GET", "/v2/a/blobs/sha256:xyz", 400, "DIGEST_INVALID"),
        ):
            answer = registry.ask(method, path)
            self.assertEqual((answer.status, answer.error()), (status, code), path)
        self.assertEqual(registry.ask("PUT", "/v2/a/manifests/x").get("Allow"), "GET, HEAD")
        self.assertEqual(registry.cache.asked, [])

    def test_a_path_that_can_be_read_in_two_ways_ends_the_connection(self) -> None:
        """A1: what follows it is not read."""
        registry = Registry()
        site = DoorSite(registry.root, registry.clock, Census(DoorLimits()))
        for path in (b"/v2/a/manifests/%2525", b"/v2/a/manifests/x?ns=a.b&ns=c.d"):
            line = Line(site=site)
            answer = line.send((b"GET " + path + b" HTTP/1.1\r\nHost: cache.example\r\n\r\n") * 2)
            self.assertEqual((line.status, answer.count(b"HTTP/1.1 ")), (400, 1))
            self.assertIn(b"Connection: close", answer)
            self.assertTrue(line.wire.disconnecting)

    def test_the_date_is_that_of_the_wall_clock(self) -> None:
        """Timers go by another one, which nobody puts right; also at a listener beside."""
        registry = Registry()
        site = DoorSite(registry.root, registry.clock, Census(DoorLimits()), now=lambda: 1_800_000_000.9)
        for each in (site, site.beside("tcp:1")):
            answer = Line(site=each).send(b"GET /healthz HTTP/1.1\r\nHost: cache.example\r\n\r\n")
            self.assertIn(b"\r\nDate: Fri, 15 Jan 2027 08:00:00 GMT\r\n", answer)

    def test_healthz_says_ok(self) -> None:
        """For whoever watches."""
        answer = Registry().get("/healthz")
        self.assertEqual((answer.status, answer.body), (200, b"ok"))


class LeavingTests(SynchronousTestCase):
    """A client that leaves."""

    def test_its_answer_is_cancelled(self) -> None:
        """Nobody waits for an upstream on its behalf."""
        registry = Registry()
        cancelled: list[object] = []
        registry.cache.waiting = Deferred(cancelled.append)
        asked = registry.agent.request(b"GET", f"http://cache.example{BLOB}".encode())
        registry.agent.flush()
        asked.cancel()
        self.failureResultOf(asked)
        registry.agent.flush()
        self.assertEqual(len(cancelled), 1)

    def test_content_is_typed_by_the_interface(self) -> None:
        """The doubles speak the cache's own words."""
        self.assertIsInstance(serve(b""), Serve)
