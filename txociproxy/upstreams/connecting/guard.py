"""The guard inside the endpoint: what it lets pass is the very address that is connected to (RULES F).

There is no second look-up between judging and connecting, so a name that changes its address meanwhile gains nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from attrs import define, field
from twisted.internet.interfaces import (
    IAddress,
    IConnector,
    IDelayedCall,
    IHostnameResolver,
    IHostResolution,
    IListeningPort,
    IProtocolFactory,
    IReactorPluggableNameResolver,
    IReactorTCP,
    IReactorTime,
    IResolutionReceiver,
)
from twisted.internet.protocol import ClientFactory
from zope.interface import implementer

from txociproxy.oci.errors import OCIError
from txociproxy.upstreams.connecting.reach import Reach, forbidden_reason, is_local_name, literal_reach, reach_of
from txociproxy.upstreams.entries.entry import Entry
from txociproxy.upstreams.origins import Origin


@define(eq=False)
class Guard:
    """Judges every address that one entry leads to, and learns how far its own URLs reach.

    :ivar _own: by host of its URLs, how far the addresses reach that were seen for it.
    """

    _entry: Entry
    _own: dict[str, set[Reach]] = field(init=False)

    @_own.default
    def _told_by_the_urls(self) -> dict[str, set[Reach]]:
        # A URL with an address in it says how far it reaches before anything was resolved.
        told = ((host, _told_by(host)) for host in self._entry.own_hosts)
        return {host: set() if reach is None else {reach} for host, reach in told}

    def forbids(self, origin: Origin) -> str | None:
        """Say why this origin must not be asked, as far as its URL tells; None is for the address to decide."""
        if not self._entry.is_listed and (origin.scheme, origin.port) != ("https", 443):
            return "not https on port 443"
        return None

    def reason(self, origin: Origin, address: str) -> str | None:
        """Say why this origin must not be reached at this address; None allows it (RULES F1, F2)."""
        return self._reason(origin, reach_of(address))

    def literal_reason(self, origin: Origin) -> str | None:
        """Say why this origin must not be reached, where somebody else resolves its name: an outbound proxy.

        Names cannot be judged then; addresses in URLs can.
        """
        reach = _told_by(origin.host)
        return None if reach is None else self._reason(origin, reach)

    def _reason(self, origin: Origin, reach: Reach) -> str | None:
        if not self._entry.is_listed:
            return forbidden_reason(reach)
        if origin.host in self._entry.own_hosts:
            self._own[origin.host].add(reach)
            return None
        return forbidden_reason(
            reach,
            named=origin in self._entry.named_origins,
            # Whoever sends us on from a global address could give his name a private one as well (rebinding).
            private=any(seen and "global" not in seen for seen in self._own.values()),
            # What this machine is does not hang on what a name server says.
            loopback=any(_told_by(host) == "loopback" for host in self._own),
        )

    def refusal(self, origin: Origin, reason: str) -> OCIError:
        """Return the answer for a client whose pull led to a forbidden place; it names the key to set."""
        name = self._entry.namespace
        if self._entry.is_listed:
            remedy = f"with `origins: [{origin}]` in the upstream {name}"
        else:
            remedy = (
                f"by adding {{namespace: {name}, urls: {list(self._entry.urls)}, origins: [{origin}]}} to `upstreams`"
            )
        return OCIError(
            "DENIED", f"{name} leads to {origin}, which is {reason}; the owner of this proxy can allow it {remedy}"
        )


def _told_by(host: str) -> Reach | None:
    """Return how far a host reaches, as far as its name tells."""
    return "loopback" if is_local_name(host) else literal_reach(host)


@implementer(IReactorTCP, IReactorTime, IReactorPluggableNameResolver)
@define(eq=False)
class GuardedReactor:
    """As much of a reactor as an endpoint needs, with a resolver that hides forbidden addresses.

    :ivar forbidden: why the last address that was hidden was hidden.
    """

    _reactor: Any
    _judge: Callable[[str], str | None]
    forbidden: str | None = field(default=None, init=False)

    @property
    def nameResolver(self) -> IHostnameResolver:
        """Return the filtering resolver; literals pass through it too."""
        return _FilteringResolver(self._reactor.nameResolver, self.lets_pass)

    def lets_pass(self, address: str) -> bool:
        """Judge an address, and remember why it was refused."""
        reason = self._judge(address)
        if reason is not None:
            self.forbidden = reason
        return reason is None

    def installNameResolver(self, resolver: IHostnameResolver) -> IHostnameResolver:
        """Refuse: the resolver belongs to the reactor."""
        raise NotImplementedError("install it in the reactor")

    def connectTCP(
        self,
        host: str,
        port: int,
        factory: ClientFactory[Any],
        timeout: float = 30,
        bindAddress: tuple[str, int] | None = None,
    ) -> IConnector:
        """Connect to an address that has passed."""
        connector: IConnector = self._reactor.connectTCP(host, port, factory, timeout, bindAddress)
        return connector

    def listenTCP(self, port: int, factory: IProtocolFactory, backlog: int = 50, interface: str = "") -> IListeningPort:
        """Refuse: upstreams do not call us."""
        raise NotImplementedError("for outgoing connections only")

    def seconds(self) -> float:
        """Return the reactor's time."""
        return float(self._reactor.seconds())

    def callLater(self, delay: float, callable: Callable[..., Any], *args: object, **kwargs: object) -> IDelayedCall:
        """Call later, by the reactor's clock."""
        call: IDelayedCall = self._reactor.callLater(delay, callable, *args, **kwargs)
        return call

    def getDelayedCalls(self) -> Sequence[IDelayedCall]:
        """Return the reactor's delayed calls."""
        calls: Sequence[IDelayedCall] = self._reactor.getDelayedCalls()
        return calls


@implementer(IHostnameResolver)
@define(eq=False)
class _FilteringResolver:
    _resolver: IHostnameResolver
    _lets_pass: Callable[[str], bool]

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Sequence[type[IAddress]] | None = None,
        transportSemantics: str = "TCP",
    ) -> IHostResolution:
        receiver = _FilteringReceiver(resolutionReceiver, self._lets_pass)
        return self._resolver.resolveHostName(receiver, hostName, portNumber, addressTypes, transportSemantics)


@implementer(IResolutionReceiver)
@define(eq=False)
class _FilteringReceiver:
    _receiver: IResolutionReceiver
    _lets_pass: Callable[[str], bool]

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
        self._receiver.resolutionBegan(resolutionInProgress)

    def addressResolved(self, address: IAddress) -> None:
        if self._lets_pass(getattr(address, "host", "")):
            self._receiver.addressResolved(address)

    def resolutionComplete(self) -> None:
        self._receiver.resolutionComplete()
