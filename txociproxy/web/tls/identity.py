"""Who a door says it is, and whose clients it lets in."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from attrs import field, frozen
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from OpenSSL import crypto
from twisted.internet.ssl import Certificate, CertificateOptions, TLSVersion, trustRootFromCertificates

MAX_NAMES = 8


@frozen
class Identity:
    """A certificate with its chain and its key.

    :ivar chain: the door's own certificate first; never empty.
    :ivar authorities: who has signed the certificates of clients; empty lets everybody in.
    """

    chain: tuple[x509.Certificate, ...] = field(repr=False)
    key: PrivateKeyTypes = field(repr=False)
    authorities: tuple[x509.Certificate, ...] = field(default=(), repr=False)

    @property
    def expires(self) -> datetime:
        """When the door's own certificate ends to be valid."""
        return self.chain[0].not_valid_after_utc

    def fingerprint(self) -> str:
        """Return the SHA-256 of the certificate as OpenSSL prints it."""
        return self.chain[0].fingerprint(SHA256()).hex(":").upper()

    def names(self) -> list[str]:
        """Return whom it is for: names and addresses; without any, its subject."""
        own = self.chain[0]
        try:
            names = own.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except (x509.ExtensionNotFound, ValueError):  # ValueError: extensions that cannot be read
            return [own.subject.rfc4514_string()]
        told = [str(name.value) for name in names if isinstance(name, x509.DNSName | x509.IPAddress)]
        return told if len(told) <= MAX_NAMES else [*told[:MAX_NAMES], "..."]

    def fits(self) -> bool:
        """Say whether the key is that of the certificate."""
        ours, theirs = (
            public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
            for public in (self.key.public_key(), self.chain[0].public_key())
        )
        return ours == theirs

    def options(self) -> CertificateOptions:
        """Return what makes the server's side of connections: TLS 1.2 and above, without renegotiation.

        Sessions are not resumed: a client whose authority is gone would go on, and no registry client asks for it.
        """
        how: dict[str, Any] = {
            "privateKey": self.key,
            "certificate": self.chain[0],
            "extraCertChain": list(self.chain[1:]),
            "raiseMinimumTo": TLSVersion.TLSv1_2,
        }
        if self.authorities:
            found = [Certificate(crypto.X509.from_cryptography(each)) for each in self.authorities]
            how["trustRoot"] = trustRootFromCertificates(found)
        return CertificateOptions(**how)
