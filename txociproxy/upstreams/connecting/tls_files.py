"""What stands in the files that an entry's ``tls`` names: certificates and a key, read once and whole."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, TypeVar

from attrs import field, frozen
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from twisted.internet.ssl import CertificateOptions

from txociproxy.upstreams.entries.entry import Tls
from txociproxy.upstreams.logins.secret_files import read_regular

MAX_FILE_BYTES = 1024 * 1024

T = TypeVar("T")


@frozen
class TlsFiles:
    """What stood in the files of an entry when they were read.

    :ivar fingerprint: a hash of all of it, by which a renewed certificate is seen.
    """

    fingerprint: str
    authorities: tuple[x509.Certificate, ...] = field(default=(), repr=False, eq=False)
    chain: tuple[x509.Certificate, ...] = field(default=(), repr=False, eq=False)
    key: PrivateKeyTypes | None = field(default=None, repr=False, eq=False)

    @classmethod
    def read(cls, tls: Tls) -> TlsFiles:
        """Read them; blocks, but not for long.

        :raises ValueError: one line with key and file; never what stands in it.
        """
        if tls.key is not None and tls.cert is None:
            raise ValueError("tls.key: needs `cert`, the certificate of this key")
        key_path = tls.cert if tls.key is None else tls.key
        texts = tuple(_content(*item) for item in (("ca", tls.ca), ("cert", tls.cert), ("key", key_path)))
        files = cls(
            hashlib.sha256(b"".join(hashlib.sha256(text).digest() for text in texts)).hexdigest(),
            _parsed("ca", tls.ca, _certificates, texts[0]) or (),
            _parsed("cert", tls.cert, _certificates, texts[1]) or (),
            _parsed("key", key_path, _private_key, texts[2]),
        )
        files._check_pair(key_path)
        return files

    def _check_pair(self, key_path: str | None) -> None:
        try:
            CertificateOptions(**self.identity()).getContext()
        except Exception:  # SSL.Error, or that a kind of key is none that OpenSSL takes
            raise ValueError(f"tls.key: {key_path} is not the key of the first certificate in `cert`") from None

    def identity(self) -> dict[str, Any]:
        """Return who we are, as the arguments of Twisted's CertificateOptions; nothing for nobody."""
        if not self.chain:
            return {}
        return {"privateKey": self.key, "certificate": self.chain[0], "extraCertChain": list(self.chain[1:])}


def _content(key: str, path: str | None) -> bytes:
    if path is None:
        return b""
    try:
        data = read_regular(path, MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        raise ValueError(f"tls.{key}: {path}: {getattr(error, 'strerror', None) or 'cannot be read'}") from None
    if len(data) > MAX_FILE_BYTES:
        raise ValueError(f"tls.{key}: {path} is longer than {MAX_FILE_BYTES} bytes")
    return data


def _parsed(key: str, path: str | None, parse: Callable[[bytes], T], data: bytes) -> T | None:
    if path is None:
        return None
    try:
        return parse(data)
    except Exception:  # what the parsers raise differs between releases, and may repeat what stands there
        what = "an unencrypted private key" if key == "key" else "certificates"
        raise ValueError(f"tls.{key}: {path} does not hold {what} in PEM") from None


def _certificates(data: bytes) -> tuple[x509.Certificate, ...]:
    return tuple(x509.load_pem_x509_certificates(data))


def _private_key(data: bytes) -> PrivateKeyTypes:
    return load_pem_private_key(data, None)
