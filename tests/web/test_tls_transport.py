"""Connections that speak TLS, from the first byte on."""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from pathlib import Path
from typing import Any, cast

from OpenSSL import SSL
from twisted.internet.main import CONNECTION_DONE
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.doubles import InlineWorkers
from tests.upstreams.certificates import Authority
from tests.web.doubles import Registry
from tests.web.tls_client import Echoes, Line, Talk, trusting
from txociproxy.web.closing import LINGER_S
from txociproxy.web.site import Census, DoorLimits, DoorSite
from txociproxy.web.tls.certificates import DoorTls
from txociproxy.web.tls.files import TlsPaths
from txociproxy.web.tls.transport import CLOSE_S, DoorTransport


class TransportTestCase(SynchronousTestCase):
    """A door with a certificate of an authority of its own."""

    client_ca: bool = False

    def setUp(self) -> None:
        """Open it."""
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.authority = Authority()
        self.clock = Clock()
        cert, key = self.authority.issue("cache.test").write(self.folder, "door")
        ca = self.authority.own.write(self.folder, "ca")[0] if self.client_ca else None
        self.tls = DoorTls(TlsPaths(cert, key, ca), None, InlineWorkers(), self.clock, time.time, 20)
        self.factory = self.tls.wrapped(Echoes())

    def talk(self, identity: tuple[str, str] | None = None, **more: object) -> Talk:
        """Connect a client."""
        context = trusting(self.authority.own.cert_pem, identity, **more)
        return Talk.begin(self.factory, lambda: self.clock.advance(0), context)

    def connected(self) -> tuple[DoorTransport, Line]:
        """Connect without TLS on the other side."""
        server, line = cast(DoorTransport, self.factory.buildProtocol(None)), Line()
        server.makeConnection(line)
        return server, line


class HandshakeTests(TransportTestCase):
    """How long it may take, and what may be agreed upon."""

    def test_a_talk(self) -> None:
        """By the newest TLS; nothing waits for the handshake afterwards, however long the talk."""
        talk = self.talk()
        talk.shake_hands()
        self.assertEqual(talk.client.version(), "TLSv1.3")
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.clock.advance(1000)
        self.assertEqual(talk.ask(b"hello"), b"hello")
        self.assertFalse(talk.line.aborted)

    def test_tls_1_2_is_spoken_and_nothing_older(self) -> None:
        """The older ones are broken (RFC 8996)."""
        talk = self.talk(maximum_version=ssl.TLSVersion.TLSv1_2)
        talk.shake_hands()
        self.assertEqual((talk.client.version(), talk.ask(b"x")), ("TLSv1.2", b"x"))
        self.assertEqual(self.clock.getDelayedCalls(), [])
        context = SSL.Context(SSL.TLS_METHOD)
        context.set_min_proto_version(SSL.TLS1_VERSION)
        context.set_max_proto_version(SSL.TLS1_1_VERSION)
        context.set_cipher_list(b"ALL:@SECLEVEL=0")
        old = SSL.Connection(context)
        old.set_connect_state()
        self.assertRaises(SSL.WantReadError, old.do_handshake)
        server, line = self.connected()
        server.dataReceived(old.bio_read(65536))
        old.bio_write(line.value())
        self.assertIn("protocol version", str(self.assertRaises(SSL.Error, old.do_handshake)))
        self.assertTrue(line.disconnecting)

    def test_the_chain_is_shown(self) -> None:
        """A client may know the root only."""
        cert = self.folder / "chained.pem"
        cert.write_bytes((self.folder / "door.crt").read_bytes() + self.authority.own.cert_pem)
        tls = DoorTls(
            TlsPaths(str(cert), str(self.folder / "door.key")), None, InlineWorkers(), self.clock, time.time, 20
        )
        self.factory = tls.wrapped(Echoes())
        client = SSL.Connection(SSL.Context(SSL.TLS_METHOD))
        client.set_connect_state()
        server, line = self.connected()
        self.assertRaises(SSL.WantReadError, client.do_handshake)
        server.dataReceived(client.bio_read(65536))
        client.bio_write(line.value())
        client.do_handshake()
        self.assertEqual(len(client.get_peer_cert_chain() or ()), 2)

    def test_a_client_cannot_renegotiate(self) -> None:
        """It could make us work without end."""
        context = SSL.Context(SSL.TLS_METHOD)
        context.set_max_proto_version(SSL.TLS1_2_VERSION)
        client = SSL.Connection(context)
        client.set_connect_state()
        server, line = self.connected()

        def carry() -> None:
            with contextlib.suppress(SSL.WantReadError):
                server.dataReceived(client.bio_read(65536))
            if line.value():
                client.bio_write(line.value())
                line.clear()

        for _ in range(3):
            with contextlib.suppress(SSL.WantReadError):
                client.do_handshake()
            carry()
        client.do_handshake()
        self.assertTrue(client.renegotiate())
        self.assertRaises(SSL.WantReadError, client.do_handshake)
        carry()
        error = self.assertRaises(SSL.Error, client.do_handshake)
        self.assertIn("no renegotiation", str(error))

    def test_a_client_that_says_nothing_is_gone_at_the_deadline(self) -> None:
        """It counts from the accept."""
        _, line = self.connected()
        self.clock.advance(19.9)
        self.assertFalse(line.aborted)
        self.clock.advance(0.1)
        self.assertTrue(line.aborted)

    def test_a_byte_now_and_then_is_not_more_time(self) -> None:
        """A record that never ends."""
        server, line = self.connected()
        for byte in b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03":
            server.dataReceived(bytes([byte]))
            self.clock.advance(1.9)
        self.assertFalse(line.aborted)
        self.clock.advance(1)
        self.assertTrue(line.aborted)

    def test_half_a_handshake_is_none(self) -> None:
        """A client that has our certificate and says nothing more has the same deadline."""
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            talk = self.talk(maximum_version=version)
            self.assertRaises(ssl.SSLWantReadError, talk.client.do_handshake)
            talk.pump()
            self.assertEqual(len(self.clock.getDelayedCalls()), 1)
            self.clock.advance(20)
            self.assertTrue(talk.line.aborted, version)

    def test_a_client_that_leaves_leaves_nothing_behind(self) -> None:
        """No timer holds its connection in memory."""
        server, line = self.connected()
        server.connectionLost(Failure(CONNECTION_DONE))
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.clock.advance(100)
        self.assertFalse(line.aborted)


class EndTests(TransportTestCase):
    """We have said that it is over; a client may never say so too, and would hold a place until it does."""

    def ended(self, handle: socket.socket | None = None) -> Talk:
        """Return a talk that our side has ended."""
        talk = self.talk()
        talk.shake_hands()
        if handle is not None:
            cast(Any, talk.line).getHandle = lambda: handle
        cast(DoorTransport, talk.server).loseConnection()
        return talk

    def test_a_client_that_does_not_answer_the_end_is_closed_soon(self) -> None:
        """Not after minutes: that would be a cheap way to take all places."""
        talk = self.ended()
        talk.pump()
        self.assertEqual(talk.client.read(1), b"")
        self.clock.advance(CLOSE_S - 0.1)
        self.assertFalse(talk.line.disconnecting)
        self.clock.advance(0.2)
        self.assertTrue(talk.line.disconnecting)

    def test_a_slow_client_still_gets_what_is_on_its_way(self) -> None:
        """As long as the system holds bytes that it has not taken."""
        ours, theirs = socket.socketpair()
        self.addCleanup(ours.close)
        self.addCleanup(theirs.close)
        ours.send(b"the end of a body")
        talk = self.ended(ours)
        self.clock.pump([CLOSE_S] * 3)
        self.assertFalse(talk.line.disconnecting)
        theirs.recv(100)
        self.clock.advance(CLOSE_S)
        self.assertTrue(talk.line.disconnecting)

    def test_one_that_answers_the_end_leaves_nothing_behind(self) -> None:
        """Nor does one that is gone."""
        talk = self.ended()
        talk.pump()
        talk.client.unwrap()
        talk.pump()
        self.assertTrue(talk.line.disconnecting)
        cast(DoorTransport, talk.server).connectionLost(Failure(CONNECTION_DONE))
        self.assertEqual(self.clock.getDelayedCalls(), [])


class PlainTests(TransportTestCase):
    """Who comes with something else."""

    def test_plain_http_is_told_what_to_do(self) -> None:
        """400 in plain text; what still comes is swallowed for a moment, so that the answer is read."""
        server, line = self.connected()
        server.dataReceived(b"GET /v2/ HTTP/1.1\r\nHost: x\r\n")
        server.dataReceived(b"\r\n" + b"x" * 100_000)
        head, _, body = line.value().partition(b"\r\n\r\n")
        self.assertEqual(head.splitlines()[0], b"HTTP/1.1 400 Bad Request")
        self.assertIn(b"Content-Length: %d" % len(body), head)
        self.assertEqual(body, b"this door speaks TLS; use https://\n")
        self.assertEqual((line.half_closed, line.aborted), (True, False))
        self.clock.advance(LINGER_S)
        self.assertTrue(line.aborted)

    def test_one_that_leaves_then_leaves_nothing_behind(self) -> None:
        """As most do."""
        server, _ = self.connected()
        server.dataReceived(b"GET / HTTP/1.0\r\n\r\n")
        server.connectionLost(Failure(CONNECTION_DONE))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_anything_else_ends_at_once(self) -> None:
        """No answer would be understood."""
        for first in (b"\x80\x2e\x01", b"\x00", b"\x15\x03\x01\x00\x02\x01\x00", b"\n"):
            server, line = self.connected()
            server.dataReceived(first)
            self.assertEqual((line.value(), line.aborted), (b"", True), first)


class ClientCertificateTests(TransportTestCase):
    """Whose clients are let in (``tls_client_ca``)."""

    client_ca = True

    def refused(self, identity: tuple[str, str] | None, version: ssl.TLSVersion) -> None:
        """Try; an alert comes and nothing of a talk, and the connection ends."""
        talk = self.talk(identity, maximum_version=version)

        def try_it() -> None:
            talk.shake_hands()
            talk.ask(b"hello")

        self.assertIn("alert", str(self.assertRaises(ssl.SSLError, try_it)).lower())
        self.assertTrue(talk.line.disconnecting)
        self.clock.advance(20)
        self.assertTrue(talk.line.aborted, "who does not read its alert is gone at the deadline")

    def test_a_client_with_a_certificate_of_the_authority_is_let_in(self) -> None:
        """The handshake is then over for the deadline too."""
        talk = self.talk(self.authority.issue("client").write(self.folder, "client"))
        talk.shake_hands()
        self.assertEqual(talk.ask(b"hello"), b"hello")
        self.clock.advance(100)
        self.assertFalse(talk.line.aborted)

    def test_nobody_else_is(self) -> None:
        """Neither without a certificate nor with one of another authority, by both versions of TLS."""
        other = Authority().issue("client").write(self.folder, "other")
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            self.refused(None, version)
            self.refused(other, version)

    def test_nobody_takes_up_an_earlier_session(self) -> None:
        """Its certificate would not be judged again, by authorities that may have gone since."""
        identity = self.authority.issue("client").write(self.folder, "client")
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = trusting(self.authority.own.cert_pem, identity, maximum_version=version)
            first, second = (Talk.begin(self.factory, lambda: self.clock.advance(0), context) for _ in range(2))
            first.shake_hands()
            self.assertEqual(first.ask(b"hello"), b"hello")
            second.client.session = first.client.session
            second.shake_hands()
            self.assertEqual(second.ask(b"hello"), b"hello")
            self.assertFalse(second.client.session_reused)


class HttpTests(TransportTestCase):
    """Our own site behind TLS."""

    def test_challenges_say_https(self) -> None:
        """The address of the token server has the scheme of the connection (RULES C3)."""
        registry = Registry()
        self.factory = self.tls.wrapped(DoorSite(registry.root, self.clock, Census(DoorLimits())))
        talk = self.talk()
        talk.shake_hands()
        answer = talk.ask(b"GET /v2/ HTTP/1.1\r\nHost: cache.test:8443\r\n\r\n")
        self.assertIn(b'realm="https://cache.test:8443/v2/_token"', answer)
