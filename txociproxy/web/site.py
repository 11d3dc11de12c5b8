"""The site: one root resource behind our own channel, and a census of its connections."""

# Twisted leaves these base classes untyped, and mypy takes their methods for ours.
# mypy: allow-untyped-calls

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from io import BytesIO
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Any, Final

from attrs import define, field, frozen
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.web import server
from twisted.web.http import datetimeToString
from twisted.web.resource import IResource

from txociproxy.web.access import client_address
from txociproxy.web.channel import Channel
from txociproxy.web.heads import MAX_FORM_BYTES
from txociproxy.web.http2.stream import Stream
from txociproxy.web.switch import Switch

FULL_EVERY_S: Final = 60.0


@frozen
class DoorLimits:
    """How much clients may hold open (RULES A5)."""

    max_connections: int = 4096
    max_connections_per_client: int = 256


@frozen
class DoorTimes:
    """How long clients may take (the body has a time of its own).

    :ivar header_s: from the first byte of a request to the end of its head; also for a TLS handshake.
    :ivar idle_s: between two requests.
    """

    header_s: float = 20.0
    idle_s: float = 60.0


def _nobody_counts(_: str) -> None:
    """Take no note of a cap."""


@define(eq=False)
class Census:
    """Knows who is connected; a Unix socket's clients have no address and no limit of their own.

    :ivar _trusted: proxies that bring many clients, and have no limit of their own either.
    :ivar _reached: called with the name of a cap that turns somebody away.
    :ivar draining: no connection takes another request.
    """

    _limits: DoorLimits
    _reached: Callable[[str], object] = _nobody_counts
    _trusted: tuple[IPv4Network | IPv6Network, ...] = ()
    draining: bool = False
    _clients: dict[Switch, str] = field(factory=dict, init=False)
    _per_client: Counter[str] = field(factory=Counter, init=False)

    @property
    def connections(self) -> int:
        """How many there are."""
        return len(self._clients)

    def enter(self, connection: Switch) -> bool:
        """Take a place; False says that there is none."""
        client = self._counted_as(client_address(connection.getPeer()))
        limit = self._limits.max_connections if client == "-" else self._limits.max_connections_per_client
        is_full = self.connections >= self._limits.max_connections
        if is_full or self._per_client[client] >= limit:
            self._reached("max_connections" if is_full else "max_connections_per_client")
            return False
        self._clients[connection] = client
        self._per_client[client] += 1
        return True

    def _counted_as(self, client: str) -> str:
        """Return an address, or ``-`` for whoever has no limit of its own."""
        if client == "-" or not self._trusted:
            return client
        address = ip_address(client)
        return "-" if any(address in network for network in self._trusted) else client

    def uses(self) -> dict[str, tuple[float, float]]:
        """Return how much is taken of each cap, and how much there is; the fullest client's of those per client."""
        limits = self._limits
        fullest = max((count for client, count in self._per_client.items() if client != "-"), default=0)
        return {
            "max_connections": (self.connections, limits.max_connections),
            "max_connections_per_client": (fullest, limits.max_connections_per_client),
        }

    def leave(self, connection: Switch) -> None:
        """Give a place back, if this one had any."""
        client = self._clients.pop(connection, None)
        if client is not None:
            self._per_client[client] -= 1
            if not self._per_client[client]:
                del self._per_client[client]

    def drain(self) -> None:
        """Close what is idle, and everything else after the answer that it is getting."""
        self.draining = True
        for connection in list(self._clients):
            connection.drain()

    def reset_all(self) -> None:
        """Hang up on whoever is still here; a reset looks whole to nobody."""
        for connection in list(self._clients):
            connection.transport.abortConnection()


class DoorRequest(server.Request):
    """A request whose body, if it may have one, stays in memory, and which one resource answers."""

    channel: Channel | Stream  # type: ignore[assignment]
    content: BytesIO
    # An answer says what it is or has no body.
    defaultContentType = None

    def gotLength(self, length: int | None) -> None:
        """Keep the form in memory; Twisted would open a file for a long or unknown length."""
        self.content = BytesIO()

    def handleContentChunk(self, data: bytes) -> None:
        """Take a piece of a form, within its limit."""
        if self.content.tell() + len(data) > MAX_FORM_BYTES:
            self.channel.form_overflowed()
        else:
            self.content.write(data)

    def parseCookies(self) -> None:
        """There are no cookies here."""

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """Answer; target and form are read by whoever wants them, not here."""
        self.content.seek(0)
        self.method, self.uri, self.clientproto = command, path, version
        self.path = path.partition(b"?")[0]
        self.args = {}
        self.process()

    def process(self) -> None:
        """Give the request to the root; there is no tree to walk."""
        site = self.channel.site
        self.site = site
        self.setHeader(b"Date", site.date())
        self.render(site.resource)


class DoorSite(server.Site):
    """Makes channels; logs nothing by itself, since each answer writes its own line.

    :ivar census: who is connected; its ``drain`` is for the end of the process.
    :ivar listener: the configured name of its listener.
    """

    noisy = False
    requestFactory = DoorRequest
    protocol = Switch  # type: ignore[assignment]
    # ``log`` is a method of Twisted's own.
    _doors_log = Logger(namespace="txociproxy.doors")

    def __init__(
        self,
        resource: IResource,
        clock: IReactorTime,
        census: Census,
        listener: str | None = None,
        now: Callable[[], float] | None = None,
        times: DoorTimes | None = None,
    ) -> None:
        self.times = times or DoorTimes()
        super().__init__(resource, timeout=self.times.idle_s, reactor=clock, parsePOSTFormSubmission=False)
        self.census = census
        self.listener = listener
        self._now = now or clock.seconds
        self._date = (-1, b"")
        self._told_full_s = -FULL_EVERY_S

    def beside(self, listener: str) -> DoorSite:
        """Return the same site for a listener that an upstream claims (RULES B2); places are counted together."""
        return DoorSite(self.resource, self.reactor, self.census, listener, self._now, self.times)

    def date(self) -> bytes:
        """Return the value of a Date field, made once a second."""
        now_s = int(self._now())
        if self._date[0] != now_s:
            self._date = (now_s, datetimeToString(now_s))
        return self._date[1]

    def tell_full(self, connection: Switch) -> None:
        """Say that somebody was turned away, now and then only: whoever attacks would fill the log."""
        now_s = self.reactor.seconds()
        if now_s - self._told_full_s >= FULL_EVERY_S:
            self._told_full_s = now_s
            self._doors_log.warn(
                "too many connections; see max_connections and max_connections_per_client",
                client=client_address(connection.getPeer()),
                connections=self.census.connections,
            )

    def acceptableProtocols(self) -> list[bytes]:
        """Offer what a channel speaks; Twisted offers h2 as soon as it finds the package for it."""
        return [b"http/1.1", b"h2"]

    def startFactory(self) -> None:
        """Open no log file and start no clock of one."""

    def stopFactory(self) -> None:
        """There is nothing to close."""

    def log(self, request: Any) -> None:
        """Write nothing: an answer that is cut never gets here, so the line is written elsewhere."""
