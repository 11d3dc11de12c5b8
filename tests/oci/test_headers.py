"""Header fields that are kept, and those that are relayed (RULES E10, E11)."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txociproxy.oci.headers import LISTED, MAX_BYTES, MAX_FIELDS, NEVER_KEPT, RELAYED, kept, listed, relayed

# One field for each line of the rule; the test below fails for a line of the table without one here.
NEVER = (
    "Connection", "Keep-Alive", "TE", "Trailer", "Transfer-Encoding", "Upgrade", "Proxy-Authenticate", "Age", "Date",
    "Expires", "Pragma", "Retry-After", "Warning", "X-RateLimit-Limit", "X-Rate-Limit-Limit", "Vary", "Via", "Server",
    "Set-Cookie", "WWW-Authenticate", "Authentication-Info", "Location", "Content-Location", "Link", "Refresh",
    "Alt-Svc", "NEL", "Report-To", "Strict-Transport-Security", "Public-Key-Pins-Report-Only", "Clear-Site-Data",
    "Content-Security-Policy-Report-Only", "Access-Control-Allow-Origin", "Content-Disposition", "Content-Encoding",
    "Content-Range", "x-amz-request-id", "X-Cache-Hits", "Cache-Status", "CF-RAY", "X-Request-Id", "Traceparent",
    "X-Accel-Redirect", "X-Sendfile", "Content-Length", "Content-Type", "ETag", "Docker-Content-Digest",
    "Accept-Ranges", "Docker-Distribution-Api-Version", "OCI-Namespace", "Cache-Control",
)  # fmt: skip
MORE_NEVER = (
    "Proxy-Connection", "RateLimit-Limit", "RateLimit", "Docker-RateLimit-Source", "Set-Cookie2", "Public-Key-Pins",
    "Content-Security-Policy", "Access-Control-Expose-Headers", "X-Amz-Cf-Id", "x-amz-meta-anything", "X-Cache",
    "CF-Cache-Status", "Proxy-Authorization",
)  # fmt: skip
REPLAYED = ("Last-Modified", "OCI-Subject", "X-Acme", "Content-Language", "Docker-Upload-UUID", "Cf", "Xx-Amz-A")
PASSED = (
    "Content-Type", "Content-Encoding", "Content-Range", "Retry-After", "RateLimit-Remaining", "X-RateLimit-Limit",
    "Docker-RateLimit-Source", "Warning", "OCI-Filters-Applied", "Docker-Content-Digest",
    "Docker-Distribution-Api-Version",
)  # fmt: skip
STOPPED = (
    "Set-Cookie", "WWW-Authenticate", "Location", "Connection", "Transfer-Encoding", "Content-Length", "Server", "Via",
    "OCI-Namespace", "Strict-Transport-Security", "X-Accel-Redirect", "Proxy-Authenticate", "Cache-Control", "X-Acme",
    "Cache-Status", "X-Cache", "X-Request-Id",
)  # fmt: skip


class KeptTests(SynchronousTestCase):
    """What a sidecar holds."""

    def test_every_line_of_the_table_holds(self) -> None:
        """One field per line, in the order of the table, in any case."""
        self.assertEqual(len(NEVER_KEPT), len(NEVER))
        for name in (*NEVER, *MORE_NEVER):
            self.assertEqual((), kept(((name, "v"),)), name)
            self.assertEqual((), kept(((name.upper(), "v"), (name.lower(), "v"))), name)

    def test_every_line_has_a_reason_and_a_field_of_its_own(self) -> None:
        """No line is without reason, or without a field that no other line covers."""
        for (pattern, reason), name in zip(NEVER_KEPT, NEVER, strict=True):
            self.assertTrue(reason, pattern)
            self.assertIn(pattern.strip("*"), name.lower())

    def test_the_rest_is_kept_as_it_came(self) -> None:
        """Order, case, values and doubles stay."""
        headers = (*((name, "v") for name in REPLAYED), ("X-Acme", "caf\xe9"))
        self.assertEqual(headers, kept(headers))

    def test_what_connection_names_is_not_kept(self) -> None:
        """Fields of one hop name themselves in Connection, whatever they are (RFC 9110 §7.6.1)."""
        headers = (
            ("x-one", "1"),
            ("Connection", "close, X-One"),
            ("X-Two", "2"),
            ("connection", "x-three"),
            ("X-Three", "3"),
        )
        self.assertEqual((("X-Two", "2"),), kept(headers))

    def test_what_could_become_two_fields_is_not_kept(self) -> None:
        """Names are tokens, values have no controls."""
        for field in (
            ("X-A", "a\r\nSet-Cookie: b"),
            ("X A", "a"),
            ("X-A:", "a"),
            ("", "a"),
            ("X-A", "\0"),
            ("X-A", "\u0100"),
        ):
            self.assertEqual((), kept((field,)), field)

    def test_bounds(self) -> None:
        """At most 32 fields and 8 KiB; a field that is too long does not push others out."""
        many = tuple((f"X-{number}", "v") for number in range(100))
        self.assertEqual(many[:MAX_FIELDS], kept(many))
        long = (("X-Long", "v" * MAX_BYTES), ("X-Half", "v" * 5000), ("X-Other", "v" * 5000), ("X-Short", "v"))
        self.assertEqual((long[1], long[3]), kept(long))
        exact = (("X-Full", "v" * (MAX_BYTES - 6)),)
        self.assertEqual(exact, kept(exact))


class RelayedTests(SynchronousTestCase):
    """What goes on with an answer that is not kept."""

    def test_only_the_table_passes(self) -> None:
        """Inclusion: what is not named stays behind, challenges and cookies before all."""
        for name in PASSED:
            self.assertEqual(((name, "v"),), relayed(((name, "v"),)), name)
        for name in (*STOPPED, "Link"):
            self.assertEqual((), relayed(((name, "v"),)), name)

    def test_every_line_has_a_reason_and_a_field(self) -> None:
        """No line is without reason or test."""
        self.assertEqual(len(RELAYED), len(PASSED))
        for (pattern, reason), name in zip(RELAYED, PASSED, strict=True):
            self.assertTrue(reason)
            self.assertIn(pattern.strip("*"), name.lower())

    def test_listings_pass_link_too(self) -> None:
        """Tag lists and referrers have a next page."""
        self.assertEqual((*RELAYED, LISTED[-1]), LISTED)
        headers = (("Link", "v"), ("OCI-Filters-Applied", "v"))
        self.assertEqual(headers, listed((*headers, *((name, "v") for name in STOPPED))))

    def test_connection_and_bounds_hold_here_too(self) -> None:
        """What Connection names, malformed fields and too many are left out."""
        self.assertEqual((), relayed((("Connection", "Warning"), ("Warning", "v"), ("Retry-After", "1\n"))))
        self.assertEqual(MAX_FIELDS, len(relayed((("Warning", "v"),) * 100)))


class FieldProperties(SynchronousTestCase):
    """Whatever an upstream sends."""

    @settings(deadline=None, max_examples=200)
    @given(
        st.lists(
            st.tuples(st.sampled_from((*NEVER, *REPLAYED)) | st.text(max_size=9), st.text(max_size=40)), max_size=50
        )
    )
    def test_all_results_are_bounded_parts_of_what_came(self, fields: list[tuple[str, str]]) -> None:
        """No field is made up, none has a line end, and bounds hold."""
        headers = tuple(fields)
        for result in (kept(headers), relayed(headers), listed(headers)):
            self.assertLessEqual(set(result), set(headers))
            self.assertLessEqual(len(result), MAX_FIELDS)
            self.assertLessEqual(sum(len(name) + len(value) for name, value in result), MAX_BYTES)
            self.assertFalse({"\r", "\n", "\0"} & set("".join(name + value for name, value in result)))
            self.assertFalse({"set-cookie", "www-authenticate"} & {name.lower() for name, _ in result})
