"""Real clients pull by TLS: a made certificate, one of an authority, and with a certificate of their own (A)."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any
from unittest import SkipTest

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from tests.e2e import tls_clients
from tests.e2e.certificates import self_signed
from tests.e2e.laboratory import LIBRARY, LaboratoryTestCase
from tests.e2e.processes import CommandFailed, free_port
from tests.e2e.proxy import Proxy, start_proxy
from tests.e2e.registry import Registry
from tests.e2e.tls_clients import TlsClient, Trust, own_address, shown

CHECKING: tuple[TlsClient, ...] = (tls_clients.skopeo, tls_clients.podman, tls_clients.containerd)


class ClientTests(LaboratoryTestCase):
    """Every client pulls an image by TLS, and none believes whom it should not."""

    timeout = 240

    def proxy_before(self, registry: Registry) -> Proxy:
        """Make certificates; each test starts its own proxy."""
        self.directory = self.shop.directory("certificates")
        self.authority = self_signed(self.directory, "authority")
        own = own_address()
        hosts = ["127.0.0.1", *([] if own is None else [own])]
        self.right = self.authority.issue(self.directory, "right", *hosts)
        self.ours = self.authority.issue(self.directory, "somebody")
        return self.start(registry, generate_self_signed_tls=True, tls_san=hosts)

    def start(self, registry: Registry, **more: Any) -> Proxy:
        """Start a proxy whose door is at all addresses."""
        port = free_port()
        return start_proxy(self.shop, registry.url, port, listen=[f":{port}"], **more)

    def with_files(self, **more: Any) -> None:
        """Put a proxy with the certificate of the authority in place of the first."""
        self.proxy.stop()
        self.proxy = self.start(self.registry, tls_cert=self.right.cert, tls_key=self.right.key, **more)

    def assert_pulls(self, trust: Trust, *clients: TlsClient) -> None:
        """Each of them holds the image then."""
        for client in clients:
            held = self.pull(lambda shop, port, name, client=client: client(shop, port, name, trust), LIBRARY)  # type: ignore[misc]
            self.assert_whole(held, client.__name__)

    def assert_refused(self, trust: Trust, *clients: TlsClient) -> None:
        """None of them gets anything; the proxy is not to blame for it."""
        for client in clients:
            self.assertRaises(CommandFailed, client, self.shop, self.proxy.port, LIBRARY, trust)
        self.assertEqual(self.proxy.complaints(), [])

    def test_a_certificate_that_is_made_at_the_start(self) -> None:
        """Clients that check nothing pull; those that have it as their authority pull; others do not."""
        pem = Path(self.directory / "shown.crt")
        pem.write_text(shown(self.proxy.port))
        known, stranger = Trust(str(pem)), Trust(self.authority.cert)
        self.assert_pulls(Trust(), tls_clients.docker_insecure, *CHECKING)
        self.assert_pulls(known, *CHECKING)
        self.assert_refused(stranger, *CHECKING)
        told = next(line for line in self.proxy.lines() if line.get("msg") == "certificate of the doors")
        made = x509.load_pem_x509_certificate(pem.read_bytes())
        self.assertEqual(told["sha256"].replace(":", "").lower(), _sha256(made))
        self.assertIn("host.docker.internal", told["names"])
        for path in (*self.proxy.fs_root.rglob("*"), *self.proxy.config.parent.rglob("*")):
            self.assertFalse(path.is_file() and b"PRIVATE KEY" in path.read_bytes(), path)

    def test_a_certificate_of_an_authority(self) -> None:
        """Believed by who knows the authority, and by nobody else."""
        self.with_files()
        self.assert_pulls(Trust(self.authority.cert), *CHECKING)
        self.assert_refused(Trust(self_signed(self.directory, "other").cert), tls_clients.skopeo)

    def test_clients_that_need_a_certificate(self) -> None:
        """With one of the authority they pull; without one, or with a stranger's, they get an alert and no more."""
        self.with_files(tls_client_ca=self.authority.cert)
        self.assert_pulls(Trust(self.authority.cert, self.ours), *CHECKING)
        self.registry.news()
        for trust in (Trust(self.authority.cert), Trust(self.authority.cert, self_signed(self.directory, "stranger"))):
            self.assert_refused(trust, *CHECKING)
        self.assertEqual([line for line in self.proxy.lines() if line.get("status") not in (None, "200")], [])
        self.assert_not_asked(self.registry.news())

    def test_docker(self) -> None:
        """By its certs.d: the made certificate, one of an authority, and with a certificate of its own."""
        if own_address() is None or os.geteuid():
            raise SkipTest("the engine checks no certificate on loopback, and reads its own from /etc")
        pem = self.directory / "shown.crt"
        pem.write_text(shown(self.proxy.port))
        self.assert_pulls(Trust(str(pem)), tls_clients.docker)
        self.with_files(tls_client_ca=self.authority.cert)
        self.assert_pulls(Trust(self.authority.cert, self.ours), tls_clients.docker)
        self.assert_refused(Trust(self.authority.cert), tls_clients.docker)


def _sha256(certificate: x509.Certificate) -> str:
    return hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest()
