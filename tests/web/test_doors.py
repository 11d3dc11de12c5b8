"""Where to listen (RULES A7), and connections that send from files."""

from __future__ import annotations

import os
import pathlib
import socket
import tempfile
import time
from datetime import UTC, datetime
from functools import partial
from typing import Any, cast

from attrs import define, frozen
from twisted.internet import tcp, unix
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IAddress, IListeningPort, IReactorFDSet
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import CertificateOptions
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.protocols.haproxy._wrapper import HAProxyWrappingFactory
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from tests.doubles import InlineWorkers
from txociproxy.bodies.reader import IFileTransport
from txociproxy.web.doors import check_listen, door, place_of, speaks_tls
from txociproxy.web.ports import FileServer, Ports, UnixFileServer, send_files
from txociproxy.web.tls.certificates import DoorTls
from txociproxy.web.tls.files import TlsPaths
from txociproxy.web.tls.selfmade import self_made
from txociproxy.web.tls.transport import TlsFactory


@implementer(IListeningPort)
@frozen
class _Port:
    """A port that is somewhere."""

    address: IAddress

    def startListening(self) -> None:
        """It does already."""

    def stopListening(self) -> None:
        """It is no real one."""

    def getHost(self) -> IAddress:
        """Say where."""
        return self.address


class ListenTests(SynchronousTestCase):
    """From words to sockets."""

    def listened(self, text: str) -> list[tuple[Any, ...]]:
        """Listen and return what the reactor was asked for, as (port, interface)."""
        reactor = MemoryReactorClock()
        self.successResultOf(door(reactor, text).listen(Factory()))
        return [(port, interface) for port, _, _, interface in reactor.tcpServers]

    def test_addresses(self) -> None:
        """A port alone is everywhere; with an address only there."""
        for text, expected in (
            (":8080", (8080, "::")),
            ("127.0.0.1:8080", (8080, "127.0.0.1")),
            ("[::1]:8080", (8080, "::1")),
            ("tcp:8081:interface=192.0.2.1", (8081, "192.0.2.1")),
            (" :8080 ", (8080, "::")),
        ):
            self.assertEqual(self.listened(text), [expected], text)

    def test_a_unix_socket(self) -> None:
        """By its path."""
        reactor = MemoryReactorClock()
        self.successResultOf(door(reactor, "unix:/run/ociproxy.sock").listen(Factory()))
        self.assertEqual(reactor.unixServers[0][0], "/run/ociproxy.sock")

    def test_who_may_connect_to_a_unix_socket_is_said_before_it_listens(self) -> None:
        """Twisted sets the rights between making and listening; without a word everybody may."""
        for mode, expected in ((None, 0o666), (0o600, 0o600)):
            reactor = MemoryReactorClock()
            self.successResultOf(door(reactor, "unix:/run/admin.sock", mode=mode).listen(Factory()))
            self.assertEqual(reactor.unixServers[0][3], expected)

    def test_rights_of_a_unix_socket_in_twisteds_words(self) -> None:
        """Theirs would be everybody's, also of a socket that is meant for its owner; what they say counts."""
        for words, mode, expected in (
            ("unix:run/admin", 0o600, 0o600),
            ("unix:/run/admin:lockfile=0", 0o600, 0o600),
            ("haproxy:unix:/run/admin", 0o600, 0o600),
            ("unix:/run/admin:mode=660", 0o600, 0o660),
            ("unix:run/s", None, 0o666),
        ):
            reactor = MemoryReactorClock()
            self.successResultOf(door(reactor, words, mode=mode).listen(Factory()))
            self.assertEqual(reactor.unixServers[0][3], expected, words)

    def test_a_socket_that_a_killed_process_left_is_no_obstacle(self) -> None:
        """One that somebody listens on is not taken away, nor is any other file."""
        with tempfile.TemporaryDirectory() as directory:
            path = os.path.join(directory, "s")
            endpoint = door(MemoryReactorClock(), f"unix:{path}")
            with socket.socket(socket.AF_UNIX) as other:
                other.bind(path)
                other.listen()
                self.successResultOf(endpoint.listen(Factory()))
                self.assertTrue(os.path.exists(path))
            self.successResultOf(endpoint.listen(Factory()))
            self.assertFalse(os.path.exists(path))
            pathlib.Path(path).touch()
            self.successResultOf(endpoint.listen(Factory()))
            self.assertTrue(os.path.exists(path))

    def test_a_place_is_told_in_the_words_of_the_option(self) -> None:
        """What is logged can be typed."""
        for address, words in (
            (IPv4Address("TCP", "127.0.0.1", 8080), "127.0.0.1:8080"),
            (IPv6Address("TCP", "::1", 8080), "[::1]:8080"),
            (UNIXAddress("/run/x.sock"), "unix:/run/x.sock"),
        ):
            self.assertEqual(place_of(_Port(address)), words)
            check_listen(words)

    def test_without_ipv6_a_port_listens_on_ipv4(self) -> None:
        """A kernel without IPv6 is no reason not to start."""

        class OldReactor(MemoryReactorClock):
            """Knows no IPv6."""

            def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> Any:
                """Refuse colons."""
                if ":" in interface:
                    raise CannotListenError(interface, port, OSError(97, "Address family not supported"))
                return super().listenTCP(port, factory, backlog, interface)

        reactor = OldReactor()
        self.successResultOf(door(reactor, ":8080").listen(Factory()))
        self.assertEqual([server[3] for server in reactor.tcpServers], ["0.0.0.0"])

    def test_a_port_in_use_is_an_error(self) -> None:
        """It is not taken for a lack of IPv6."""

        class BusyReactor(MemoryReactorClock):
            """Somebody else has the port."""

            def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> Any:
                """Refuse."""
                raise CannotListenError(interface, port, OSError(98, "Address already in use"))

        listening = door(BusyReactor(), ":8080").listen(Factory())
        self.failureResultOf(listening, CannotListenError)

    def test_an_ipv4_port_that_is_taken_leaves_no_half_of_a_door(self) -> None:
        """Where IPv6 sockets take no IPv4."""
        closed: list[int] = []

        class Half(MemoryReactorClock):
            """Has the port free for one family only."""

            def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> Any:
                """Refuse IPv4."""
                if ":" not in interface:
                    raise CannotListenError(interface, port, OSError(98, "Address already in use"))
                return _OnlyIPv6(closed)

        self.failureResultOf(door(Half(), ":8080").listen(Factory()), CannotListenError)
        self.assertEqual(closed, [1])

    def test_words_that_mean_nothing(self) -> None:
        """The error names them and what would do."""
        mistakes = ("systemd:x=y", "systemd:domain=INET:index=x", "https://ssl:443")
        for text in (
            "",
            "8080",
            "localhost:8080",
            ":70000",
            ":123456789",
            "300.0.0.1:80",
            "[::g]:80",
            "nosuch:1",
            *mistakes,
        ):
            error = self.assertRaises(ValueError, check_listen, text)
            self.assertIn(f'"{text}"', str(error))

    def test_good_words_are_judged_without_a_reactor(self) -> None:
        """The configuration is checked before there is one."""
        sockets = ("systemd:", "https://systemd:", "systemd:admin", "systemd:domain=INET:index=0")
        for text in (":8080", "127.0.0.1:0", "[::]:1", "unix:/x", "tcp:80", "http://:80", "https://unix:/x", *sockets):
            check_listen(text)


@define(eq=False)
class _OnlyIPv6:
    """A port whose socket refuses IPv4."""

    closed: list[int]

    @property
    def socket(self) -> _OnlyIPv6:
        """The same."""
        return self

    def getsockopt(self, *_: int) -> int:
        """IPV6_V6ONLY is set."""
        return 1

    def getHost(self) -> IAddress:
        """Say where."""
        return IPv6Address("TCP", "::", 8080)

    def stopListening(self) -> None:
        """Close."""
        self.closed.append(1)


class TlsTests(SynchronousTestCase):
    """Which doors speak TLS."""

    def setUp(self) -> None:
        """Make a certificate."""
        made = self_made([], datetime.now(UTC))
        self.tls = DoorTls(TlsPaths(), made, InlineWorkers(), Clock(), time.time, 20)

    def test_unless_said_those_of_tcp_do_where_there_is_a_certificate(self) -> None:
        """What is said wins; a Unix socket is local, and Twisted's own TLS is not wrapped again."""
        for text, with_one, without in (
            (":8443", True, False),
            ("127.0.0.1:8443", True, False),
            ("tcp:8443", True, False),
            ("haproxy:tcp:8443", True, False),
            ("systemd:", True, False),
            ("unix:/x", False, False),
            ("unix:/x:mode=600", False, False),
            ("haproxy:unix:/x", False, False),
            ("ssl:443", False, False),
            ("http://:80", False, False),
            ("https://unix:/x", True, True),
            (" https://:443", True, True),
        ):
            self.assertEqual((speaks_tls(text, True), speaks_tls(text, False)), (with_one, without), text)

    def opened(self, text: str, tls: DoorTls | None) -> Any:
        """Open a door and return the factory that listens."""
        reactor = MemoryReactorClock()
        self.successResultOf(door(reactor, text, tls).listen(Factory()))
        return [*(server[1] for server in reactor.tcpServers), *(server[1] for server in reactor.unixServers)][0]

    def test_a_door_is_what_was_said(self) -> None:
        """With a certificate, and without one."""
        for text, tls, is_secret in (
            (":8443", self.tls, True),
            (":8443", None, False),
            ("http://:8080", self.tls, False),
            ("https://127.0.0.1:1", self.tls, True),
            ("unix:/x", self.tls, False),
            ("https://unix:/x", self.tls, True),
        ):
            self.assertEqual(isinstance(self.opened(text, tls), TlsFactory), is_secret, text)

    def test_https_without_a_certificate_is_an_error(self) -> None:
        """It says what is missing."""
        error = self.assertRaises(ValueError, door, None, "https://:443")
        self.assertIn("--tls-cert", str(error))

    def test_a_place_says_that_tls_is_spoken_there(self) -> None:
        """And each address of a door with several."""
        reactor = cast(Any, MemoryReactorClock())
        secret = tcp.Port(0, self.tls.wrapped(Factory()), reactor=reactor)
        secret.getHost = lambda: IPv4Address("TCP", "127.0.0.1", 8443)  # type: ignore[method-assign]
        self.assertEqual(place_of(secret), "https://127.0.0.1:8443")
        both = Ports((secret, _Port(IPv6Address("TCP", "::", 8080))))
        self.assertEqual(place_of(both), "https://127.0.0.1:8443,[::]:8080")


class PortTests(SynchronousTestCase):
    """Which ports get connections that send from files."""

    def test_plain_ports_do_and_tls_does_not(self) -> None:
        """A wrapper passes on the interface of what it wraps; a file would leave unencrypted."""
        reactor = cast(Any, MemoryReactorClock())
        plain = tcp.Port(0, Factory(), reactor=reactor)
        local = unix.Port(cast(Any, "/nowhere"), Factory(), reactor=reactor)
        secret = tcp.Port(0, TLSMemoryBIOFactory(CertificateOptions(), False, Factory(), reactor), reactor=reactor)
        far = tcp.Port(0, HAProxyWrappingFactory(cast(Any, secret.factory)), reactor=reactor)
        send_files(local)
        send_files(Ports((plain, secret, far)))
        self.assertIs(plain.transport, FileServer)
        self.assertIs(local.transport, UnixFileServer)
        for port in (secret, far):
            self.assertIs(port.transport, tcp.Server)

    def test_both_send_from_files(self) -> None:
        """The interface says so; whoever sends asks it."""
        for cls in (FileServer, UnixFileServer):
            self.assertTrue(IFileTransport.implementedBy(cls))


class Descriptors(Clock):
    """A reactor of which only the sets are looked at."""

    def __init__(self) -> None:
        super().__init__()
        self.writers: set[object] = set()
        self.changes = 0

    def addReader(self, reader: object) -> None:
        """Nobody reads here."""

    def removeReader(self, reader: object) -> None:
        """Nobody reads here."""

    def addWriter(self, writer: object) -> None:
        """Remember."""
        self.changes += writer not in self.writers
        self.writers.add(writer)

    def removeWriter(self, writer: object) -> None:
        """Forget."""
        self.changes += writer in self.writers
        self.writers.discard(writer)


class FileServerTests(SynchronousTestCase):
    """One connection over a pair of sockets."""

    def setUp(self) -> None:
        """Make a connection and a file of 8 MiB."""
        self.reactor = Descriptors()
        ours, self.client = socket.socketpair()
        self.addCleanup(self.client.close)
        self.client.setblocking(False)
        self.protocol = Protocol()
        self.server = FileServer(
            ours, self.protocol, ("192.0.2.1", 1), cast(Any, None), 0, cast(IReactorFDSet, self.reactor)
        )
        self.protocol.makeConnection(self.server)
        self.data = os.urandom(1024) * 8192
        file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by the cleanup
        self.addCleanup(file.close)
        file.write(self.data)
        file.flush()
        self.fd = file.fileno()
        self.addCleanup(self.close)

    def close(self) -> None:
        """End the connection."""
        self.server.connectionLost(Failure(CONNECTION_DONE))

    def turn(self) -> object:
        """Do what the reactor would do."""
        return self.server.doWrite() if self.server in self.reactor.writers else None

    def send(self, start: int, stop: int) -> None:
        """Send a part of the file."""
        self.server.send_file(self.fd, start, stop - start)

    def received(self) -> bytes:
        """Return what the client can read now."""
        parts: list[bytes] = []
        while True:
            try:
                part = self.client.recv(1 << 20)
            except BlockingIOError:
                return b"".join(parts)
            if not part:
                return b"".join(parts)
            parts.append(part)

    def test_a_file_follows_the_bytes_before_it(self) -> None:
        """Nothing is sent from a file while bytes wait; order is kept."""
        self.server.write(b"head")
        self.assertEqual(self.server.send_file(self.fd, 0, 100), 0)
        self.server.when_writable(partial(self.send, 5, 105))
        self.turn()
        self.turn()
        self.assertEqual(self.received(), b"head" + self.data[5:105])

    def test_a_full_socket_takes_nothing_and_says_when_it_does(self) -> None:
        """The whole file arrives, and the reactor's sets change but twice: begin and end."""
        sent_bytes = 0

        def go_on() -> None:
            nonlocal sent_bytes
            sent_bytes += self.server.send_file(self.fd, sent_bytes, len(self.data) - sent_bytes)
            if sent_bytes < len(self.data):
                self.server.when_writable(go_on)

        go_on()
        received = b""
        while len(received) < len(self.data):
            received += self.received()
            self.assertIsNone(self.turn())
        self.assertEqual(received, self.data)
        self.assertEqual((self.reactor.changes, self.reactor.writers), (2, set()))

    def test_one_call_sends_at_most_256_kib(self) -> None:
        """Others want their turn."""
        self.assertLessEqual(self.server.send_file(self.fd, 0, len(self.data)), 256 * 1024)

    def test_a_close_does_not_wait_for_who_waits(self) -> None:
        """The callback is forgotten and the connection ends."""
        called: list[None] = []
        self.server.when_writable(lambda: called.append(None))
        self.server.loseConnection()
        self.assertIs(self.turn(), CONNECTION_DONE)
        self.assertEqual(called, [])
        self.assertEqual(self.server.send_file(self.fd, 0, 10), 0)
        self.server.when_writable(lambda: called.append(None))
        self.assertEqual(called, [])

    def test_forgetting_stops_the_waiting(self) -> None:
        """A Reader that ends asks for nothing more."""
        called: list[None] = []
        self.server.when_writable(lambda: called.append(None))
        self.server.when_writable(None)
        self.turn()
        self.assertEqual((called, self.reactor.writers), ([], set()))

    def test_a_dead_socket_ends_the_connection(self) -> None:
        """Nothing is raised; the reactor learns it in its next turn."""
        self.client.close()
        sent_bytes = self.server.send_file(self.fd, 0, 10)
        self.assertEqual(sent_bytes, 0)
        self.assertIs(self.turn(), CONNECTION_LOST)

    def test_a_file_that_became_shorter_ends_the_connection(self) -> None:
        """The client sees that the body is not whole."""
        self.assertEqual(self.server.send_file(self.fd, len(self.data), 10), 0)
        self.assertIs(self.turn(), CONNECTION_LOST)

    def test_writes_in_the_callback_leave_in_order(self) -> None:
        """A Reader may go from a file to memory."""
        self.server.when_writable(lambda: self.server.write(b"from memory"))
        self.turn()
        self.assertIn(self.server, self.reactor.writers)
        self.turn()
        self.assertEqual(self.received(), b"from memory")
        self.assertNotIn(self.server, self.reactor.writers)
