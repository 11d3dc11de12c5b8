"""Sockets that systemd hands over."""

from __future__ import annotations

import os
import socket
import stat
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from twisted.internet import unix
from twisted.internet.defer import maybeDeferred
from twisted.internet.interfaces import IListeningPort, IProtocolFactory
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from tests.doubles import InlineWorkers
from txociproxy.web.doors import door, place_of
from txociproxy.web.inherited import DoorTrouble, Inherited, InheritedEndpoint, Wanted
from txociproxy.web.ports import Ports, UnixFileServer, is_secure
from txociproxy.web.tls.certificates import DoorTls
from txociproxy.web.tls.files import TlsPaths
from txociproxy.web.tls.selfmade import self_made
from txociproxy.web.tls.transport import TlsFactory

PID = 4711


class HandedOverTests(SynchronousTestCase):
    """What the process was given, and who takes it."""

    def inherited(self, *words: str) -> Inherited:
        """Read an environment."""
        path = Path(self.mktemp())
        path.write_bytes(b"\0".join(word.encode() for word in ("HOME=/", "X=a=b", *words)) + b"\0")
        return Inherited.of_process(PID, path)

    def test_descriptors_begin_at_three_and_have_names(self) -> None:
        """One name may stand for several sockets."""
        given = ("LISTEN_PID=4711", "LISTEN_FDS=3", "LISTEN_FDNAMES=web:admin:web")
        self.assertEqual(self.inherited(*given).take(Wanted()), [3, 4, 5])
        self.assertEqual(self.inherited(*given).take(Wanted(name="web")), [3, 5])
        self.assertEqual(self.inherited(*given).take(Wanted(index=1)), [4])
        self.assertEqual(self.inherited(*given).take(Wanted(index=3)), [])

    def test_names_are_not_needed(self) -> None:
        """Whoever is not systemd may leave them out."""
        self.assertEqual(self.inherited("LISTEN_PID=4711", "LISTEN_FDS=2").take(Wanted()), [3, 4])

    def test_each_socket_has_one_taker(self) -> None:
        """The door that names one comes first; the other takes what is left."""
        inherited = self.inherited("LISTEN_PID=4711", "LISTEN_FDS=2", "LISTEN_FDNAMES=admin:web")
        self.assertEqual(inherited.take(Wanted(name="admin")), [3])
        self.assertEqual(inherited.take(Wanted()), [4])
        self.assertEqual(inherited.take(Wanted()), [])

    def test_what_was_meant_for_another_is_not_ours(self) -> None:
        """Nor is what makes no sense, or a system that tells nothing."""
        for words in (
            ("LISTEN_PID=4712", "LISTEN_FDS=1"),
            ("LISTEN_FDS=1",),
            ("LISTEN_PID=4711",),
            ("LISTEN_PID=4711", "LISTEN_FDS=-1"),
            ("LISTEN_PID=4711", "LISTEN_FDS=99999999999"),
        ):
            self.assertEqual(self.inherited(*words).take(Wanted()), [], words)
        self.assertEqual(Inherited.of_process(PID, Path(self.mktemp())).take(Wanted()), [])

    def test_which_are_wanted(self) -> None:
        """All, those of a name, or as Twisted writes it."""
        for text, expected in (
            ("systemd:", Wanted()),
            ("systemd:ociproxy.socket", Wanted(name="ociproxy.socket")),
            ("systemd:domain=INET:index=2", Wanted(index=2)),
            ("systemd:index=2:domain=INET6", Wanted(index=2)),
            ("systemd:domain=UNIX:name=admin", Wanted(name="admin")),
            ("systemd:index=x", None),
            ("systemd:domain=INET", None),
            ("systemd", None),
            ("tcp:80", None),
        ):
            self.assertEqual(Wanted.read(text), expected, text)


class AdoptTests(SynchronousTestCase):
    """From descriptors to ports."""

    def setUp(self) -> None:
        """Make a directory for sockets."""
        self.reactor = MemoryReactorClock()
        self.folder = Path(self.mktemp())
        self.folder.mkdir()

    def given(self, made: socket.socket) -> int:
        """Return a descriptor of this socket that nobody else has."""
        self.addCleanup(made.close)
        return os.dup(made.fileno())

    def tcp(self, family: int = socket.AF_INET) -> int:
        """Return a listening TCP socket."""
        made = socket.socket(family)
        made.bind(("127.0.0.1" if family == socket.AF_INET else "::1", 0))
        made.listen()
        return self.given(made)

    def unix(self, name: str = "s") -> int:
        """Return a listening Unix socket, which only its owner may use."""
        made = socket.socket(socket.AF_UNIX)
        path = f"/proc/self/fd/{self.directory()}/{name}"
        made.bind(path)
        os.chmod(self.folder / name, 0o600)
        made.listen()
        return self.given(made)

    def directory(self) -> int:
        """Return the directory's descriptor, by which its path is short enough for a socket."""
        descriptor = os.open(self.folder, os.O_RDONLY)
        self.addCleanup(os.close, descriptor)
        return descriptor

    def listen(self, *descriptors: int, dressed: Any = lambda factory, is_unix: factory) -> IListeningPort:
        """Listen on all of them."""
        inherited = Inherited([("", each) for each in descriptors])
        listening = InheritedEndpoint(self.reactor, inherited, Wanted(), dressed).listen(Factory())
        port: IListeningPort = self.successResultOf(listening)
        self.addCleanup(self.close, port)
        return port

    def close(self, port: IListeningPort) -> None:
        """Close a door that may be closed already."""
        port.stopListening()
        self.reactor.advance(0)

    def trouble(self, *descriptors: int) -> str:
        """Return why they cannot be listened on."""
        inherited = Inherited([("", each) for each in descriptors])
        listening = door(self.reactor, "systemd:", inherited=inherited).listen(Factory())
        return str(self.failureResultOf(listening, DoorTrouble).value)

    def test_the_family_is_the_sockets_own(self) -> None:
        """IPv4, IPv6 and Unix, all in one door; the copies that were handed over are closed."""
        given = (self.tcp(), self.tcp(socket.AF_INET6), self.unix())
        port = self.listen(*given)
        assert isinstance(port, Ports)
        self.assertEqual([family for _, family, _ in self.reactor.adoptedPorts], [socket.AF_INET, socket.AF_INET6])
        self.assertIsInstance(port.ports[2], unix.Port)
        self.assertTrue(place_of(port.ports[2]).endswith("/s"))
        for descriptor in given[:2]:
            self.assertRaises(OSError, os.fstat, descriptor)

    def test_programs_that_we_start_do_not_inherit_them(self) -> None:
        """systemd hands them over as everybody's; a credential helper could take our clients' connections."""
        given = (self.tcp(), self.unix())
        for descriptor in given:
            os.set_inheritable(descriptor, True)
        port = self.listen(*given)
        assert isinstance(port, Ports)
        self.assertFalse(os.get_inheritable(cast(unix.Port, port.ports[1]).fileno()))
        self.assertRaises(OSError, os.fstat, given[0])

    def test_what_listens_knows_whether_the_socket_is_local(self) -> None:
        """TLS is for the others."""
        told: list[bool] = []

        def dressed(factory: IProtocolFactory, is_unix: bool) -> IProtocolFactory:
            told.append(is_unix)
            return factory

        self.listen(self.tcp(), self.unix(), dressed=dressed)
        self.assertEqual(told, [False, True])

    def test_a_unix_socket_is_left_as_it_was(self) -> None:
        """Its rights at the start, its file and its listening at the end: systemd goes on holding it."""
        kept = socket.socket(socket.AF_UNIX)
        self.addCleanup(kept.close)
        path = f"/proc/self/fd/{self.directory()}/k"
        kept.bind(path)
        os.chmod(self.folder / "k", 0o600)
        kept.listen()
        port = self.listen(os.dup(kept.fileno()))
        self.assertEqual(stat.S_IMODE((self.folder / "k").stat().st_mode), 0o600)
        stopped = maybeDeferred(port.stopListening)
        self.reactor.advance(0)
        self.successResultOf(stopped)
        self.assertTrue((self.folder / "k").exists())
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)

    def test_a_unix_socket_sends_from_files(self) -> None:
        """As others do."""
        inherited = Inherited([("", self.unix())])
        port: Any = self.successResultOf(door(self.reactor, "systemd:", inherited=inherited).listen(Factory()))
        self.addCleanup(self.close, port)
        self.assertIs(port.transport, UnixFileServer)

    def test_tls_is_spoken_where_it_was_said_and_else_on_tcp_only(self) -> None:
        """A Unix socket is local."""
        made = self_made([], datetime.now(UTC))
        tls = DoorTls(TlsPaths(), made, InlineWorkers(), Clock(), time.time, 20)
        for text, expected in (
            ("systemd:", (True, False)),
            ("https://systemd:", (True, True)),
            ("http://systemd:", (False, False)),
        ):
            inherited = Inherited([("", self.tcp()), ("", self.unix(f"s{len(text)}"))])
            port = self.successResultOf(door(self.reactor, text, tls, inherited).listen(Factory()))
            assert isinstance(port, Ports)
            self.addCleanup(self.close, port)
            found = isinstance(self.reactor.adoptedPorts[-1][2], TlsFactory), is_secure(port.ports[1])
            self.assertEqual(found, expected, text)

    def test_none_is_one_line_with_the_remedy(self) -> None:
        """Whoever reads it knows what to write where."""
        text = self.trouble()
        self.assertIn("LISTEN_FDS", text)
        self.assertIn(".socket unit with ListenStream=", text)

    def test_what_takes_no_connections_is_an_error(self) -> None:
        """A connection itself (Accept=yes), datagrams, a file; nothing stays open of what was opened before."""
        one, other = socket.socketpair()
        self.addCleanup(other.close)
        datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        for descriptor in (self.given(one), self.given(datagrams)):
            local = self.unix(f"u{descriptor}")
            self.assertIn("ListenStream= and Accept=no", self.trouble(local, descriptor))
            self.assertRaises(OSError, os.fstat, descriptor)
            self.reactor.advance(0)
            self.assertRaises(OSError, os.fstat, local)
        file = os.open(self.folder, os.O_RDONLY)
        self.addCleanup(os.close, file)
        self.assertIn("is no socket", self.trouble(file))
