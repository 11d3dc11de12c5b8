"""Header values that are made here: ETag, Cache-Control, Link."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txociproxy.oci.headers import cache_control, etag, etag_matches, if_range_holds, rewrite_link
from txociproxy.oci.names import Digest
from txociproxy.oci.requests import TagList, parse

DIGEST = Digest.of(b"content")
OTHER = Digest.of(b"other")


class EntityTagTests(SynchronousTestCase):
    """Conditional requests."""

    def test_the_tag_is_the_quoted_digest(self) -> None:
        """The quotes belong to an entity tag (RFC 9110 §8.8.3)."""
        self.assertEqual(f'"{DIGEST}"', etag(DIGEST))

    def test_if_none_match(self) -> None:
        """Quoted, unquoted, weak, in a list, or a star."""
        for field in (
            f'"{DIGEST}"',
            str(DIGEST),
            f'W/"{DIGEST}"',
            f'"a, b", W/"x" ,"{DIGEST}"',
            f" {DIGEST} ",
            "*",
            " * ",
        ):
            self.assertTrue(etag_matches(field, DIGEST), field)
        for other in (None, "", '"', f'"{OTHER}"', f'"x,{DIGEST}"', f'"{DIGEST} "', DIGEST.hex, '"*"'):
            self.assertFalse(etag_matches(other, DIGEST), other)

    def test_if_range(self) -> None:
        """A strong match or no field at all; dates and weak tags give the whole."""
        for field in (None, etag(DIGEST), str(DIGEST), f" {DIGEST} "):
            self.assertTrue(if_range_holds(field, DIGEST), field)
        for other in (
            "",
            "*",
            f'W/"{DIGEST}"',
            etag(OTHER),
            f"{etag(DIGEST)}, {etag(OTHER)}",
            "Wed, 21 Oct 2015 07:28:00 GMT",
        ):
            self.assertFalse(if_range_holds(other, DIGEST), other)

    def test_a_long_hostile_field_is_read_in_no_time(self) -> None:
        """128 KiB of quotes cost linear time; a square of it would hang this test."""
        for piece in ('"', 'W/"', "W/", ',"', "a ", '" '):
            self.assertFalse(etag_matches(piece * 65536, DIGEST))


class CacheControlTests(SynchronousTestCase):
    """What clients may keep, and how long (RULES E8)."""

    def test_table(self) -> None:
        """Digests never change, tags do; private stands for public."""
        self.assertEqual("public, max-age=31536000, immutable", cache_control("digest", "public"))
        self.assertEqual("public, max-age=2419200", cache_control("tag", "public"))
        self.assertEqual("public, max-age=3600", cache_control("latest", "public"))
        self.assertEqual("no-cache", cache_control("revalidate", "public"))
        self.assertEqual("private, max-age=31536000, immutable", cache_control("digest", "private"))
        self.assertEqual("private, max-age=2419200", cache_control("tag", "private"))
        self.assertEqual("private, max-age=3600", cache_control("latest", "private"))
        self.assertEqual("private, no-cache", cache_control("revalidate", "private"))


class RewriteLinkTests(SynchronousTestCase):
    """The next page leads through here."""

    def test_only_the_query_is_the_upstreams(self) -> None:
        """Absolute and relative targets lead to our path; ours is appended."""
        for target in (
            "/v2/x/tags/list?last=b&n=2",
            "https://evil.example:5000/v2/x?last=b&n=2#f",
            "?last=b&n=2&",
            "x?ns=z&last=b&n=2",
        ):
            self.assertEqual(
                '</v2/a/tags/list?last=b&n=2&ns=hub>; rel="next"',
                rewrite_link(f'<{target}>; rel="next"', "/v2/a/tags/list", "ns=hub"),
            )

    def test_queries_may_be_empty(self) -> None:
        """Either part, or both."""
        self.assertEqual('</p?a>; rel="next"', rewrite_link("</x?a>; rel=next", "/p", ""))
        self.assertEqual('</p?ns=b>; rel="next"', rewrite_link('</x>;REL = "NEXT"', "/p", "ns=b"))
        self.assertEqual('</p>; rel="next"', rewrite_link('</x>; a=b; rel="next"; c', "/p", ""))

    def test_the_next_page_is_found_among_others(self) -> None:
        """A field may have several links."""
        self.assertEqual('</p?b>; rel="next"', rewrite_link('</x?a>; rel="first", </x?b>; rel="next"', "/p", ""))

    def test_no_next_page(self) -> None:
        """Other relations, nonsense, and queries that would break the field."""
        for value in (
            "", "nonsense", '</x?a>; rel="prev"', "</x?a>", '</x?a; rel="next"', '</x?a b>; rel="next"',
            '</x?"a>; rel="next"',
            '</x?a\n>; rel="next"', '</x?\u00e4>; rel="next"', '</x?a>; rel="nextish"', '</x?a>; xrel="next"',
            "<" * 8192, "<>" * 4096, "; " * 4096,
        ):  # fmt: skip
            self.assertIsNone(rewrite_link(value, "/p", "ns=b"), value[:40])

    @settings(deadline=None, max_examples=200)
    @given(st.text('a=&?/#%<>;,"ns xz.'), st.sampled_from(("", "hub")))
    def test_every_link_comes_back_as_a_request(self, target: str, namespace: str) -> None:
        """What a client follows is a target that parses to the same listing."""
        link = rewrite_link(f'<{target}>; rel="next"', "/v2/a/tags/list", f"ns={namespace}" if namespace else "")
        if link is None:
            return
        path, _, query = link.removeprefix("<").removesuffix('>; rel="next"').encode().partition(b"?")
        value = parse("GET", path, query)
        self.assertIsInstance(value, TagList)
        self.assertEqual(namespace or None, value.namespace if isinstance(value, TagList) else "?")
