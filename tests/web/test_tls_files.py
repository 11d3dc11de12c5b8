"""What stands in the files of a certificate, and what is said when that is of no use."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from twisted.trial.unittest import SynchronousTestCase

from tests.upstreams.certificates import Authority, self_signed
from txociproxy.web.tls.files import MAX_FILE_BYTES, TlsPaths, TlsTrouble
from txociproxy.web.tls.identity import Identity
from txociproxy.web.tls.selfmade import self_made

NOW = datetime.now(UTC)


class FilesTests(SynchronousTestCase):
    """From files to an identity, or to one clear sentence."""

    def setUp(self) -> None:
        """Make a right pair."""
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.authority = Authority()
        self.issued = self.authority.issue("cache.test", "192.0.2.1")
        self.cert, self.key = self.issued.write(self.folder, "door")

    def identity(self, cert: str | None = None, key: str | None = None, ca: str | None = None) -> Identity:
        """Read."""
        return TlsPaths(cert or self.cert, key or self.key, ca).read().identity()

    def trouble(self, cert: str | None = None, key: str | None = None, ca: str | None = None) -> tuple[str, str]:
        """Return setting and text of what is wrong."""
        error = self.assertRaises(TlsTrouble, self.identity, cert, key, ca)
        return error.setting, str(error)

    def file(self, name: str, content: bytes) -> str:
        """Write a file."""
        path = self.folder / name
        path.write_bytes(content)
        return str(path)

    def test_a_pair_with_its_chain_and_the_authority_of_clients(self) -> None:
        """The server's own certificate is the first; names and addresses are told."""
        chained = self.file("chained.pem", self.issued.cert_pem + self.authority.own.cert_pem)
        ca = self.file("ca.pem", self.authority.own.cert_pem)
        found = self.identity(chained, ca=ca)
        self.assertEqual(found.chain, (self.issued.certificate, self.authority.own.certificate))
        self.assertEqual(found.authorities, (self.authority.own.certificate,))
        self.assertEqual(found.names(), ["cache.test", "192.0.2.1"])
        self.assertEqual(found.expires, self.issued.certificate.not_valid_after_utc)
        self.assertRegex(found.fingerprint(), r"^([0-9A-F]{2}:){31}[0-9A-F]{2}$")

    def test_a_certificate_without_names_tells_its_subject(self) -> None:
        """Old ones have none."""
        cert, key = self.authority.own.write(self.folder, "old")
        self.assertEqual(self.identity(cert, key).names(), ["CN=Test Authority"])

    def test_many_names_are_cut(self) -> None:
        """A line of the log is short."""
        cert, key = self.authority.issue(*(f"h{number}.test" for number in range(30))).write(self.folder, "many")
        self.assertEqual(self.identity(cert, key).names()[-2:], ["h7.test", "..."])

    def test_both_may_be_in_one_file(self) -> None:
        """As some tools write it."""
        both = self.file("both.pem", self.issued.cert_pem + self.issued.key_pem)
        self.assertEqual(self.identity(both, both).chain, (self.issued.certificate,))

    def test_the_key_is_in_no_repr(self) -> None:
        """Nor is what was read."""
        read = TlsPaths(self.cert, self.key).read()
        told = repr(read) + repr(read.identity())
        self.assertNotIn("BEGIN", told)
        self.assertNotIn("PrivateKey", told)

    def test_files_that_cannot_be_read(self) -> None:
        """Setting, file, reason and remedy."""
        nowhere, pipe = str(self.folder / "nowhere"), str(self.folder / "pipe")
        os.mkfifo(pipe)
        for setting, said in (
            ("tls_cert", {"cert": nowhere}),
            ("tls_key", {"key": nowhere}),
            ("tls_client_ca", {"ca": nowhere}),
            ("tls_cert", {"cert": pipe}),
            ("tls_key", {"key": str(self.folder)}),
            ("tls_key", {"key": "a\0b"}),
        ):
            found, text = self.trouble(**said)
            self.assertEqual(found, setting)
            self.assertRegex(text, r"^'.*' cannot be read \(.+\); name a file that this user may read$")

    def test_files_that_hold_something_else(self) -> None:
        """What they hold is not repeated."""
        junk = self.file("junk", b"s3cret")
        half = self.file("half", self.issued.key_pem[:80])
        for setting, said, what in (
            ("tls_cert", {"cert": junk}, "certificate"),
            ("tls_cert", {"cert": self.key}, "certificate"),
            ("tls_key", {"key": junk}, "private key"),
            ("tls_key", {"key": half}, "private key"),
            ("tls_key", {"key": self.cert}, "private key"),
            ("tls_client_ca", {"ca": junk}, "certificate"),
        ):
            found, text = self.trouble(**said)
            self.assertEqual(found, setting, said)
            self.assertIn(f"does not hold a {what} in PEM", text)
            self.assertNotIn("s3cret", text)

    def test_a_file_without_end_is_not_read_to_it(self) -> None:
        """A wrong path may lead to an image."""
        self.assertIn("longer than", self.trouble(cert=self.file("image", b"x" * (MAX_FILE_BYTES + 1)))[1])

    def test_a_key_with_a_passphrase(self) -> None:
        """Both ways in which it is written; the remedy is a command."""
        locked = BestAvailableEncryption(b"pw")
        for form in (PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL):
            pem = self.issued.key.private_bytes(Encoding.PEM, form, locked)
            setting, text = self.trouble(key=self.file("locked.key", pem))
            self.assertEqual(setting, "tls_key")
            self.assertIn("has a passphrase", text)
            self.assertIn("openssl pkey", text)

    def test_a_key_of_another_certificate(self) -> None:
        """Also where the chain stands before the server's own certificate."""
        turned = self.file("turned.pem", self.authority.own.cert_pem + self.issued.cert_pem)
        other = self_signed("other.test").write(self.folder, "other")[1]
        for said in ({"cert": turned}, {"key": other}):
            setting, text = self.trouble(**said)
            self.assertEqual(setting, "tls_key")
            self.assertIn("is not the key of the first certificate", text)

    def test_a_certificate_that_has_expired(self) -> None:
        """It is served: clients say what is wrong, and those that do not look go on."""
        old = self_made([], NOW - timedelta(days=5000))
        cert = self.file("old.crt", old.chain[0].public_bytes(Encoding.PEM))
        key = self.file("old.key", old.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        found = self.identity(cert, key)
        self.assertLess(found.expires, NOW)
        self.assertEqual(found.chain, old.chain)

    def test_a_mark_is_of_what_stands_there(self) -> None:
        """Each file counts, and a byte that moves from one to the other is a change."""
        marks = set()
        ca = self.file("ca", self.authority.own.cert_pem)
        for cert, key, authority in (
            (self.cert, self.key, None),
            (self.cert, self.key, ca),
            (self.key, self.cert, None),
            (ca, self.key, None),
        ):
            marks.add(TlsPaths(cert, key, authority).read().mark())
        self.assertEqual(len(marks), 4)
        copy = self.file("copy", Path(self.cert).read_bytes())
        self.assertIn(TlsPaths(copy, self.key).read().mark(), marks)
