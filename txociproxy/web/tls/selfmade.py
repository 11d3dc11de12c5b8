"""A certificate that nobody else has signed, kept in memory only (``generate_self_signed_tls``)."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from ipaddress import ip_address

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from txociproxy.web.tls.identity import Identity

# Where somebody who tries this out reaches it; the second is how containers of Docker Desktop name their host.
NAMES = ("localhost", "host.docker.internal", "127.0.0.1", "::1")
LIFE = timedelta(days=3650)
# Clocks of two machines differ.
BEFORE = timedelta(hours=1)


def self_made(more_names: Iterable[str], now: datetime) -> Identity:
    """Make a key (ECDSA P-256) and a certificate for ten years.

    It is no authority: a client that trusts it trusts this proxy, and nobody who gets hold of the key can sign for
    others; and some TLS libraries refuse a server that shows the certificate of an authority.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ociproxy self-signed")])
    names = dict.fromkeys((*NAMES, *more_names))
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BEFORE)
        .not_valid_after(now + LIFE)
        .add_extension(x509.SubjectAlternativeName([_general(each) for each in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return Identity((builder.sign(key, SHA256()),), key)


def _general(name: str) -> x509.GeneralName:
    """Return a name or an address as certificates carry them (RFC 5280 §4.2.1.6)."""
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)
