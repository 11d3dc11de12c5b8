"""Certificates that are made for a test."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from attrs import define, field, frozen
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from OpenSSL import crypto
from twisted.internet.ssl import CertificateOptions
from twisted.trial.unittest import SynchronousTestCase


@frozen
class Issued:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def cert_pem(self) -> bytes:
        """The certificate, as it stands in files."""
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        """The key, as it stands in files."""
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    def serving(self, **more: Any) -> CertificateOptions:
        """Return the TLS of a server that has this certificate."""
        mine: dict[str, Any] = {"privateKey": self.key, "certificate": self.certificate}
        return CertificateOptions(**mine, **more)

    def write(self, folder: Path, name: str) -> tuple[str, str]:
        """Write both to files of their own."""
        cert, key = folder / f"{name}.crt", folder / f"{name}.key"
        cert.write_bytes(self.cert_pem)
        key.write_bytes(self.key_pem)
        return str(cert), str(key)


@define(eq=False)
class Authority:
    """Signs certificates; ``own`` is its own."""

    name: str = "Test Authority"
    own: Issued = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.own = _issued(self.name, (), None)

    def issue(self, *names: str) -> Issued:
        """Return a certificate for these names and addresses; the first is its common name too."""
        return _issued(names[0], names, self.own)

    def asking(self, server: Issued, is_required: bool) -> CertificateOptions:
        """Return the TLS of a server that asks its clients for a certificate from here."""
        mine = crypto.X509.from_cryptography(self.own.certificate)
        return server.serving(verify=True, caCerts=[mine], requireCertificate=is_required)


def trusted_by_the_system(test: SynchronousTestCase, authority: Authority) -> None:
    """Make the system's trust one authority, until the test ends; OpenSSL itself reads the variable."""
    folder = Path(test.mktemp())
    folder.mkdir()
    before = dict(os.environ)
    os.environ["SSL_CERT_FILE"] = authority.own.write(folder, "system")[0]
    test.addCleanup(os.environ.update, before)
    test.addCleanup(os.environ.pop, "SSL_CERT_FILE")


def self_signed(*names: str) -> Issued:
    """Return a certificate that nobody else has signed."""
    return _issued(names[0], names, None)


def _issued(common_name: str, names: tuple[str, ...], issuer: Issued | None) -> Issued:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=not names, path_length=None), critical=True)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName([_general(name) for name in names]), critical=False)
    return Issued(builder.sign(key if issuer is None else issuer.key, SHA256()), key)


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)
