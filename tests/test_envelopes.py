"""Envelopes: what clients get in place of an upstream's token (RULES C5)."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txociproxy.envelopes import MAX_ENVELOPE_BYTES, PREFIX, Envelope, Envelopes, is_envelope, random_key
from txociproxy.oci.errors import OCIError


class EnvelopesTests(SynchronousTestCase):
    """Sealed here, opened here, by nobody else."""

    def setUp(self) -> None:
        """Begin at 1000 s."""
        self.now_s = 1000.0
        self.envelopes = Envelopes(b"k" * 32, lambda: self.now_s)

    def test_what_was_sealed_comes_out(self) -> None:
        """With and without a credential; with a fleet's other process too."""
        for authorization in (None, "Bearer secret", "Basic \xfc"):
            sealed = self.envelopes.seal("docker.io", ("library/a", "b/c"), authorization, 1300.0)
            expected = Envelope("docker.io", ("library/a", "b/c"), authorization, 1300.0)
            self.assertEqual(self.envelopes.open(sealed), expected)
            self.assertEqual(Envelopes(b"k" * 32, lambda: 0.0).open(sealed), expected)

    def test_it_is_a_token_with_our_prefix_that_shows_nothing(self) -> None:
        """It fits a Bearer field (RFC 6750 §2.1), and no two are alike."""
        one, other = (self.envelopes.seal("docker.io", ("a",), "Bearer secret", 1300.0) for _ in range(2))
        self.assertRegex(one, r"\Aociproxy1\.[A-Za-z0-9_-]+\Z")
        self.assertNotEqual(one, other)
        self.assertTrue(is_envelope(one))
        self.assertFalse(is_envelope("eyJhbGciOi"))

    def test_an_expired_one_is_nothing(self) -> None:
        """At its very second."""
        sealed = self.envelopes.seal("docker.io", ("a",), None, 1300.0)
        self.now_s = 1299.0
        self.assertIsNotNone(self.envelopes.open(sealed))
        self.now_s = 1300.0
        self.assertIsNone(self.envelopes.open(sealed))

    def test_another_key_opens_nothing(self) -> None:
        """So tokens end with the process, unless the key is shared."""
        sealed = self.envelopes.seal("docker.io", ("a",), None, 1300.0)
        self.assertIsNone(Envelopes(random_key(), lambda: 0.0).open(sealed))

    def test_a_changed_or_invented_one_is_nothing(self) -> None:
        """One character is enough, and nothing raises."""
        sealed = self.envelopes.seal("docker.io", ("a",), None, 1300.0)

        @settings(deadline=None, max_examples=200)
        @given(st.one_of(st.text(), st.text().map(PREFIX.__add__), st.binary().map(lambda b: PREFIX + b.hex())))
        def invented(text: str) -> None:
            self.assertIsNone(self.envelopes.open(text))

        invented()
        for position in range(len(PREFIX), len(sealed) - 1):
            other = "A" if sealed[position] != "A" else "B"
            self.assertIsNone(self.envelopes.open(sealed[:position] + other + sealed[position + 1 :]))

    def test_it_is_good_for_its_repositories_only(self) -> None:
        """And for its namespace."""
        envelope = Envelope("docker.io", ("a", "b"), None, 0.0)
        self.assertTrue(envelope.covers("docker.io", "b"))
        self.assertFalse(envelope.covers("quay.io", "b"))
        self.assertFalse(envelope.covers("docker.io", "c"))

    def test_secrets_are_not_printed(self) -> None:
        """Not even by accident."""
        self.assertNotIn("secret", repr(Envelope("a", (), "Bearer secret", 0.0)))

    def test_a_short_key_is_refused(self) -> None:
        """An empty key file must not start the service."""
        self.assertRaises(ValueError, Envelopes, b"short", lambda: 0.0)

    def test_one_that_would_not_be_taken_back_is_not_made(self) -> None:
        """The longest that is made can be opened; one byte more is a clear error, not a useless token."""
        fits, authorization = 0, "Bearer "
        for length in range(MAX_ENVELOPE_BYTES * 3 // 4 - 200, MAX_ENVELOPE_BYTES * 3 // 4):
            try:
                sealed = self.envelopes.seal("docker.io", ("a",), authorization + "x" * length, 1300.0)
            except OCIError as error:
                self.assertEqual((error.code, error.status), ("UNAVAILABLE", 502))
                self.assertNotIn("xxx", str(error))
                break
            self.assertIsNotNone(self.envelopes.open(sealed))
            fits = len(sealed)
        self.assertIn(fits, range(MAX_ENVELOPE_BYTES - 2, MAX_ENVELOPE_BYTES + 1))
