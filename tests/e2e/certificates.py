"""Authorities and certificates, made anew for each test."""

from __future__ import annotations

import datetime
import ipaddress
from pathlib import Path

from attrs import field, frozen
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec


@frozen
class Certificate:
    """A certificate and its key, each in a file of PEM."""

    cert: str
    key: str
    _parsed: x509.Certificate = field(repr=False)
    _secret: ec.EllipticCurvePrivateKey = field(repr=False)

    def issue(self, directory: Path, name: str, *hosts: str) -> Certificate:
        """Return a certificate that this authority has signed; see :func:`self_signed`."""
        return _make(directory, name, hosts, self)


def self_signed(directory: Path, name: str, *hosts: str) -> Certificate:
    """Make a certificate that nobody else has signed; it may sign others.

    :param name: its common name, and the stem of its files.
    :param hosts: names and addresses that it is good for.
    """
    return _make(directory, name, hosts, None)


def _make(directory: Path, name: str, hosts: tuple[str, ...], authority: Certificate | None) -> Certificate:
    """Make a key and a certificate for it, and write both down."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    issuer = subject if authority is None else authority._parsed.subject
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now - datetime.timedelta(hours=1))
    builder = builder.not_valid_after(now + datetime.timedelta(days=1))
    builder = builder.add_extension(x509.BasicConstraints(ca=authority is None, path_length=None), critical=True)
    if hosts:
        names = x509.SubjectAlternativeName([_general_name(host) for host in hosts])
        builder = builder.add_extension(names, critical=False)
    certificate = builder.sign(key if authority is None else authority._secret, hashes.SHA256())
    cert_file, key_file = directory / f"{name}.pem", directory / f"{name}.key"
    cert_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    key_file.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain))
    return Certificate(str(cert_file), str(key_file), certificate, key)


def _general_name(host: str) -> x509.GeneralName:
    """Return a name or an address as certificates carry them (RFC 5280, section 4.2.1.6)."""
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
