"""Sockets that systemd has opened and hands over when it starts us (sd_listen_fds(3), systemd.socket(5)).

This room knows private names of :class:`twisted.internet.unix.Port`; no other does.
"""

# Twisted leaves these base classes untyped, and mypy takes their methods for ours.
# mypy: allow-untyped-calls

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from attrs import define, field, frozen
from twisted.internet import unix
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamServerEndpoint
from zope.interface import implementer

from txociproxy.web.ports import BACKLOG, Ports

FIRST_DESCRIPTOR: Final = 3
MAX_SOCKETS: Final = 1024
# What the process was started with.  Twisted takes these variables out of its environment as soon as it is imported.
ENVIRONMENT: Final = Path("/proc/self/environ")

_WORDS: Final = re.compile(r"systemd:([A-Za-z0-9_.@\\-]*)")
_TWISTED: Final = re.compile(r"systemd:(?:domain=[A-Z0-9]+:)?(index|name)=([^:=]+)(?::domain=[A-Z0-9]+)?")


class DoorTrouble(OSError):
    """A door cannot be opened; the text says why, and the remedy."""


@frozen
class Wanted:
    """Which sockets a door takes: one by its number, those of a name, or all that are left.

    :ivar name: what ``FileDescriptorName=`` says; unless said, the name of the ``.socket`` unit.
    """

    index: int | None = None
    name: str | None = None

    @classmethod
    def read(cls, text: str) -> Wanted | None:
        """Read ``systemd:``, ``systemd:NAME``, or as Twisted writes it: ``systemd:domain=INET:index=0``.

        What Twisted calls the domain is not needed: a socket knows it.
        """
        found = _WORDS.fullmatch(text)
        if found is not None:
            return cls(name=found[1] or None)
        found = _TWISTED.fullmatch(text)
        if found is None or (found[1] == "index" and not re.fullmatch(r"[0-9]{1,4}", found[2])):
            return None
        return cls(index=int(found[2])) if found[1] == "index" else cls(name=found[2])


@define(eq=False)
class Inherited:
    """The sockets that were handed over, until a door takes them.

    :ivar _sockets: name and descriptor; None where one has been taken.
    """

    _sockets: list[tuple[str, int] | None] = field(factory=list)

    @classmethod
    def of_process(cls, pid: int | None = None, environment: Path = ENVIRONMENT) -> Inherited:
        """Find what this process was given; nothing if it was meant for another, or the system tells nothing."""
        try:
            words = environment.read_bytes().split(b"\0")
        except OSError:
            return cls()
        said = dict(word.decode("utf-8", "replace").split("=", 1) for word in words if b"=" in word)
        number = said.get("LISTEN_FDS", "")
        if said.get("LISTEN_PID") != str(pid or os.getpid()) or not re.fullmatch(r"[0-9]{1,4}", number):
            return cls()
        names = said.get("LISTEN_FDNAMES", "").split(":")
        count = min(int(number), MAX_SOCKETS)
        names += [""] * (count - len(names))
        return cls([(name, FIRST_DESCRIPTOR + index) for index, name in enumerate(names[:count])])

    def take(self, wanted: Wanted) -> list[int]:
        """Return the descriptors that are wanted and have not been taken; nobody else gets them."""
        taken: list[int] = []
        for index, each in enumerate(self._sockets):
            if each is not None and wanted.index in (None, index) and wanted.name in (None, each[0]):
                taken.append(each[1])
                self._sockets[index] = None
        return taken


@implementer(IStreamServerEndpoint)
@frozen
class InheritedEndpoint:
    """Listens on sockets that are open already, TCP and Unix, however many there are.

    :ivar _dressed: returns what listens in place of the factory; it is told whether the socket is a Unix socket.
    """

    _reactor: Any
    _inherited: Inherited
    _wanted: Wanted
    _dressed: Callable[[IProtocolFactory, bool], IProtocolFactory]

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        """Listen on all that is wanted.

        :raises DoorTrouble: there is none, or one is no listening socket.
        """
        return maybeDeferred(self._listen, protocolFactory)

    def _listen(self, factory: IProtocolFactory) -> IListeningPort:
        descriptors = self._inherited.take(self._wanted)
        if not descriptors:
            raise DoorTrouble(
                "systemd has handed no such socket to this process (LISTEN_FDS, LISTEN_FDNAMES), or another door has "
                "it; start it by a .socket unit with ListenStream= (and twistd with -n), or give an address"
            )
        ports: list[IListeningPort] = []
        try:
            for descriptor in descriptors:
                ports.append(self._adopted(descriptor, factory))
        except BaseException:
            for port in ports:
                port.stopListening()
            raise
        return ports[0] if len(ports) == 1 else Ports(tuple(ports))

    def _adopted(self, descriptor: int, factory: IProtocolFactory) -> IListeningPort:
        """Make a port of a descriptor, whatever its family; the port owns it then."""
        listening = _listening(descriptor)
        if listening.family == socket.AF_UNIX:
            local = InheritedUnixPort(listening, self._dressed(factory, True), self._reactor)
            local.startListening()
            return local
        with listening:  # Twisted keeps a copy
            port: IListeningPort = self._reactor.adoptStreamPort(
                listening.fileno(), listening.family, self._dressed(factory, False)
            )
        return port


def _listening(descriptor: int) -> socket.socket:
    """Return the socket of a descriptor, which tells its family itself.

    :raises DoorTrouble: it is no socket that connections can be taken from.
    """
    try:
        found = socket.socket(fileno=descriptor)
    except OSError as error:
        raise DoorTrouble(f"descriptor {descriptor} is no socket ({error.strerror}); see the .socket unit") from None
    if found.type != socket.SOCK_STREAM or not found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        found.close()
        raise DoorTrouble(
            f"descriptor {descriptor} is no socket that takes connections; write ListenStream= and Accept=no into "
            "the .socket unit"
        )
    found.setblocking(False)
    found.set_inheritable(False)
    return found


class InheritedUnixPort(unix.Port):
    """A Unix socket that belongs to somebody else, who goes on listening when we end.

    Twisted would give its file to everybody at the start, and at the end remove it and shut the socket down for all
    who hold it.  It leaves a socket alone whose name begins with NUL, since that has no file.
    """

    _shouldShutdown = False

    def __init__(self, listening: socket.socket, factory: IProtocolFactory, reactor: Any) -> None:
        super().__init__(b"\0", factory, BACKLOG, reactor=reactor)
        self._preexistingSocket: socket.socket | None = listening
