"""A strict token server: anonymous tokens, and access only to repositories that it knows.

distribution: docs/spec/auth/jwt.md.  Run as ``python -m tests.e2e.token_server PORT KEY_FILE CERT_FILE REPOSITORY…``;
each ask is printed as one line of JSON.
"""

from __future__ import annotations

import base64
import datetime
import json
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from attrs import frozen
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

ISSUER = "e2e-issuer"
SERVICE = "e2e-registry"
TOKEN_LIFE_S = 300


def make_pair(key_file: Path, cert_file: Path) -> None:
    """Write a key and a certificate for it that the registry is told to trust."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, ISSUER)])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now - datetime.timedelta(hours=1))
    builder = builder.not_valid_after(now + datetime.timedelta(days=1))
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    certificate = builder.sign(key, hashes.SHA256())
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    cert_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


def _text(data: bytes) -> str:
    """Return base64url without padding (RFC 7515, section 2)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@frozen
class Signer:
    """Makes tokens for the repositories that exist."""

    key: rsa.RSAPrivateKey
    certificate: x509.Certificate
    repositories: frozenset[str]

    def access(self, scopes: list[str]) -> list[dict[str, Any]]:
        """Return what is granted: pull of known repositories; anything else is left out without a word."""
        granted = []
        for scope in scopes:
            kind, _, rest = scope.partition(":")
            name, _, actions = rest.rpartition(":")
            if kind == "repository" and name in self.repositories and "pull" in actions.split(","):
                granted.append({"type": kind, "name": name, "actions": ["pull"]})
        return granted

    def token(self, access: list[dict[str, Any]], now_s: int) -> str:
        """Return a JSON Web Token signed with RS256 that carries its certificate (RFC 7515, section 4.1.6)."""
        der = self.certificate.public_bytes(serialization.Encoding.DER)
        header = {"typ": "JWT", "alg": "RS256", "x5c": [base64.b64encode(der).decode()]}
        claims = {
            "iss": ISSUER,
            "sub": "",
            "aud": SERVICE,
            "exp": now_s + TOKEN_LIFE_S,
            "nbf": now_s - 60,
            "iat": now_s,
            "jti": str(time.monotonic_ns()),
            "access": access,
        }
        signed = ".".join(_text(json.dumps(part).encode()) for part in (header, claims))
        return f"{signed}.{_text(self.key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256()))}"


class TokenHandler(BaseHTTPRequestHandler):
    """Answers GET of the realm."""

    protocol_version = "HTTP/1.1"
    signer: Signer

    def do_GET(self) -> None:
        """Give a token for the scopes of the query, as far as they are known."""
        query = parse_qs(urlsplit(self.path).query)
        scopes = [word for value in query.get("scope", []) for word in value.split()]
        access = self.signer.access(scopes)
        print(json.dumps({"scopes": scopes, "granted": [entry["name"] for entry in access]}), flush=True)
        answer = {"token": self.signer.token(access, int(time.time())), "expires_in": TOKEN_LIFE_S}
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing beside the lines of JSON."""


def main(port: int, key_file: Path, cert_file: Path, repositories: list[str]) -> None:
    """Serve until the process is ended."""
    key = serialization.load_pem_private_key(key_file.read_bytes(), None)
    if not isinstance(key, rsa.RSAPrivateKey):
        raise TypeError("an RSA key is needed")
    certificate = x509.load_pem_x509_certificate(cert_file.read_bytes())
    TokenHandler.signer = Signer(key, certificate, frozenset(repositories))
    ThreadingHTTPServer(("127.0.0.1", port), TokenHandler).serve_forever()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4:])
