"""Keys, certificates and signed tokens, as docker-registry wants them (distribution: docs/spec/auth/jwt.md)."""

from __future__ import annotations

import base64
import datetime
import json
import time
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

ISSUER = "e2e-issuer"
SERVICE = "e2e-registry"
TOKEN_LIFE_S = 300
KEY_NAME = "key.pem"
CERTIFICATE_NAME = "cert.pem"


def make_pair(directory: Path) -> None:
    """Write a new key and a certificate for it that the registry is told to trust."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, ISSUER)])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now - datetime.timedelta(hours=1))
    builder = builder.not_valid_after(now + datetime.timedelta(days=1))
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    certificate = builder.sign(key, hashes.SHA256())
    plain = serialization.NoEncryption()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    (directory / KEY_NAME).write_bytes(pem)
    (directory / CERTIFICATE_NAME).write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


def signed_token(directory: Path, subject: str, access: list[dict[str, Any]]) -> str:
    """Return a JSON Web Token signed with RS256 that carries its certificate (RFC 7515, section 4.1.6).

    The pair is read each time: it may have been replaced since the last one.
    """
    key = serialization.load_pem_private_key((directory / KEY_NAME).read_bytes(), None)
    if not isinstance(key, rsa.RSAPrivateKey):
        raise TypeError("an RSA key is needed")
    certificate = x509.load_pem_x509_certificate((directory / CERTIFICATE_NAME).read_bytes())
    der = certificate.public_bytes(serialization.Encoding.DER)
    header = {"typ": "JWT", "alg": "RS256", "x5c": [base64.b64encode(der).decode()]}
    signed = ".".join(_text(json.dumps(part).encode()) for part in (header, _claims(subject, access)))
    return f"{signed}.{_text(key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256()))}"


def _claims(subject: str, access: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what the token says."""
    now_s = int(time.time())
    return {
        "iss": ISSUER,
        "sub": subject,
        "aud": SERVICE,
        "exp": now_s + TOKEN_LIFE_S,
        "nbf": now_s - 60,
        "iat": now_s,
        "jti": str(time.monotonic_ns()),
        "access": access,
    }


def _text(data: bytes) -> str:
    """Return base64url without padding (RFC 7515, section 2)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
