"""The certificate that is made at the start."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime
from typing import cast

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.doubles import InlineWorkers
from tests.web.tls_client import Echoes, Talk, trusting
from txociproxy.web.tls.certificates import DoorTls
from txociproxy.web.tls.files import TlsPaths
from txociproxy.web.tls.selfmade import self_made

NOW = datetime.now(UTC).replace(microsecond=0)


class SelfMadeTests(SynchronousTestCase):
    """For whom it is good, and for what."""

    def test_names_key_and_life(self) -> None:
        """ECDSA P-256, ten years, this machine by all its names and what is added; each name once."""
        made = self_made(["cache.lan", "10.0.0.5", "localhost"], NOW)
        expected = ["localhost", "host.docker.internal", "127.0.0.1", "::1", "cache.lan", "10.0.0.5"]
        self.assertEqual(made.names(), expected)
        self.assertIsInstance(cast(ec.EllipticCurvePrivateKey, made.key).curve, ec.SECP256R1)
        self.assertEqual(made.expires.year, (NOW.year * 12 + NOW.month + 119) // 12)
        self.assertLess(made.chain[0].not_valid_before_utc, NOW)
        self.assertTrue(made.fits())

    def test_each_is_another(self) -> None:
        """No key is shared by two proxies."""
        self.assertNotEqual(self_made([], NOW).fingerprint(), self_made([], NOW).fingerprint())

    def test_it_is_no_authority(self) -> None:
        """Whoever trusts it trusts one proxy."""
        constraints = self_made([], NOW).chain[0].extensions.get_extension_for_class(x509.BasicConstraints)
        self.assertFalse(constraints.value.ca)

    def test_a_client_that_knows_it_believes_it(self) -> None:
        """By the strictest reading that OpenSSL has."""
        made = self_made(["cache.test"], NOW)
        clock = Clock()
        tls = DoorTls(TlsPaths(), made, InlineWorkers(), clock, NOW.timestamp, 20)
        context = trusting(made.chain[0].public_bytes(Encoding.PEM))
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        talk = Talk.begin(tls.wrapped(Echoes()), lambda: clock.advance(0), context)
        talk.shake_hands()
        self.assertEqual(talk.ask(b"hello"), b"hello")
