"""Errors and their answers."""

from __future__ import annotations

import json

from twisted.trial.unittest import SynchronousTestCase

from txociproxy.oci.errors import (
    CODES,
    BodyLost,
    NoSpace,
    OCIError,
    StorageUnavailable,
    TxOCIProxyError,
    UpstreamUnreachable,
    is_error,
    reason_phrase,
)


class OCIErrorTests(SynchronousTestCase):
    """An OCIError is an answer."""

    def test_status_comes_from_the_table(self) -> None:
        """Every code has its status, and only another given one replaces it."""
        for code, status in CODES.items():
            self.assertEqual(status, OCIError(code, "m").status)
        self.assertEqual(504, OCIError("UNAVAILABLE", "m", status=504).status)

    def test_codes_of_clients_faults_are_what_clients_expect(self) -> None:
        """The statuses that clients decide on."""
        expected = {"BLOB_UNKNOWN": 404, "UNAUTHORIZED": 401, "DENIED": 403, "RANGE_INVALID": 416, "UNAVAILABLE": 502}
        self.assertEqual(expected, {code: CODES[code] for code in expected})

    def test_every_status_has_words(self) -> None:
        """An upstream may say a number that nobody knows."""
        phrases = [reason_phrase(status) for status in (429, 431, 799)]
        self.assertEqual(["Too Many Requests", "Request Header Fields Too Large", "Unknown"], phrases)

    def test_json_is_the_form_of_the_spec(self) -> None:
        """The body is a list of one error, in ASCII whatever the message."""
        error = OCIError("DENIED", 'a "quoted" \u00fc', headers=(("Retry-After", "1"),))
        expected = {"errors": [{"code": "DENIED", "message": 'a "quoted" \u00fc'}]}
        self.assertEqual(expected, json.loads(error.to_json()))
        self.assertTrue(error.to_json().isascii())
        self.assertEqual((("Retry-After", "1"),), error.headers)
        self.assertEqual('DENIED: a "quoted" \u00fc', str(error))

    def test_an_unknown_code_is_a_mistake_of_ours(self) -> None:
        """A code that is not in the table shows itself at once."""
        self.assertRaises(KeyError, OCIError, "NO_SUCH_CODE", "m")


class OtherErrorTests(SynchronousTestCase):
    """The rest of the family."""

    def test_one_root(self) -> None:
        """All errors are caught by the root; no space is a storage trouble."""
        for error in (OCIError("DENIED", "m"), UpstreamUnreachable("m"), NoSpace("m"), BodyLost("m")):
            self.assertIsInstance(error, TxOCIProxyError)
        self.assertIsInstance(NoSpace("m"), StorageUnavailable)

    def test_unreachable_says_whether_time_ran_out(self) -> None:
        """502 and 504 are told apart by a flag."""
        self.assertFalse(UpstreamUnreachable("m").timed_out)
        self.assertTrue(UpstreamUnreachable("m", timed_out=True).timed_out)


class IsErrorTests(SynchronousTestCase):
    """Which bodies are errors of the spec's form."""

    def test_an_object_with_a_list_of_errors(self) -> None:
        """As ours are; nothing else is one, however strange."""
        self.assertTrue(is_error(OCIError("DENIED", "no").to_json()))
        self.assertTrue(is_error(b'{"errors": []}'))
        for body in (b"", b"<html>", b"[]", b"7", b'{"errors": 7}', b'{"error": []}', b"[" * 100_000, b"\xff"):
            self.assertFalse(is_error(body), body[:20])
