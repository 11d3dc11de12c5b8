"""What stands in the files of ``tls_cert``, ``tls_key`` and ``tls_client_ca``: read whole, and judged."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TypeVar

from attrs import evolve, frozen
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from txociproxy.upstreams.logins.secret_files import read_regular
from txociproxy.web.tls.identity import Identity

MAX_FILE_BYTES = 1024 * 1024

T = TypeVar("T")


class TlsTrouble(ValueError):
    """A file cannot be used; the text says which one, why, and the remedy, and nothing of what stands in it.

    :ivar setting: the name of the setting that names the file.
    """

    def __init__(self, setting: str, text: str) -> None:
        super().__init__(text)
        self.setting = setting


@frozen
class TlsPaths:
    """Where the files are.

    :ivar cert, key: None, both, where the certificate is in no file.
    :ivar client_ca: None lets everybody in.
    """

    cert: str | None = None
    key: str | None = None
    client_ca: str | None = None

    def read(self) -> Contents:
        """Read all of them; blocks.

        :raises TlsTrouble: one cannot be read.
        """
        named = (("tls_cert", self.cert), ("tls_key", self.key), ("tls_client_ca", self.client_ca))
        return Contents(self, *(b"" if path is None else _content(setting, path) for setting, path in named))


@frozen(repr=False)
class Contents:
    """What stood in the files at one moment.

    Each is empty where there is no file.
    """

    paths: TlsPaths
    cert: bytes
    key: bytes
    client_ca: bytes

    def mark(self) -> bytes:
        """Return a hash of all of it, by which a change is seen; the dates of files may lie."""
        each = (hashlib.sha256(text).digest() for text in (self.cert, self.key, self.client_ca))
        return hashlib.sha256(b"".join(each)).digest()

    def identity(self, made: Identity | None = None) -> Identity:
        """Make of it what a door needs.

        One that has expired is taken: a proxy that starts again at night must come up, and clients say what is wrong.

        :param made: the certificate, where it is in no file.
        :raises TlsTrouble: it cannot be used.
        """
        cert, key = self.paths.cert, self.paths.key
        if made is not None:
            return evolve(made, authorities=self.authorities())
        assert cert is not None and key is not None
        chain = _parsed("tls_cert", cert, "certificate", _certificates, self.cert)
        found = Identity(chain, _private_key(key, self.key), self.authorities())
        self._check(found)
        return found

    def authorities(self) -> tuple[x509.Certificate, ...]:
        """Return whose clients are let in; empty for everybody's.

        :raises TlsTrouble: the file has no certificates.
        """
        path = self.paths.client_ca
        return () if path is None else _parsed("tls_client_ca", path, "certificate", _certificates, self.client_ca)

    def _check(self, found: Identity) -> None:
        """Refuse what cannot be served at all."""
        cert, key = self.paths.cert, self.paths.key
        if not found.fits():
            raise TlsTrouble(
                "tls_key",
                f"{key!r} is not the key of the first certificate in {cert!r}; name the key that belongs to it, and "
                "put the server's own certificate before its chain",
            )
        try:
            found.options().getContext()
        except Exception:  # a kind of key or signature that OpenSSL does not take
            why = "take a key of ECDSA P-256, or RSA with at least 2048 bits"
            raise TlsTrouble("tls_cert", f"{cert!r} is nothing that OpenSSL serves; {why}") from None


def _content(setting: str, path: str) -> bytes:
    try:
        data = read_regular(path, MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "not a path"
        raise TlsTrouble(setting, f"{path!r} cannot be read ({why}); name a file that this user may read") from None
    if len(data) > MAX_FILE_BYTES:
        raise TlsTrouble(setting, f"{path!r} is longer than {MAX_FILE_BYTES} bytes; name a file in PEM")
    return data


def _parsed(setting: str, path: str, what: str, parse: Callable[[bytes], T], data: bytes) -> T:
    try:
        return parse(data)
    except Exception:  # what the parsers raise differs between releases, and may repeat what stands there
        raise TlsTrouble(setting, f"{path!r} does not hold a {what} in PEM; name a file that does") from None


def _certificates(data: bytes) -> tuple[x509.Certificate, ...]:
    return tuple(x509.load_pem_x509_certificates(data))


def _private_key(path: str, data: bytes) -> PrivateKeyTypes:
    if b"ENCRYPTED" in data:
        raise TlsTrouble(
            "tls_key",
            f"{path!r} has a passphrase, and nobody is there to type it; write it without one "
            "(openssl pkey -in OLD -out NEW)",
        )
    return _parsed("tls_key", path, "private key", lambda text: load_pem_private_key(text, None), data)
