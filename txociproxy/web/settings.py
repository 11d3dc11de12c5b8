"""What of the configuration the doors need."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network

from attrs import field, frozen

from txociproxy.web.site import DoorLimits, DoorTimes


@frozen
class WebSettings:
    """How the doors behave.

    :ivar public_url: the base of our own addresses in challenges, without a slash at its end; None takes scheme and
        Host of each request.
    :ivar is_transparent: whether a lost upstream and a bad token of ours are forgiven (RULES C2, C5).
    :ivar client_stall_s: how long a client may take nothing of a body.
    :ivar owns_authorization: what clients send as Authorization is for this proxy, and goes nowhere (RULES C6).
    :ivar trusted_proxies: whose X-Forwarded-* is believed (RULES A5).
    :ivar token_life_s: how long our tokens are good.
    """

    public_url: str | None = None
    is_transparent: bool = True
    client_stall_s: float = 300.0
    token_life_s: int = 3600
    limits: DoorLimits = field(factory=DoorLimits)
    times: DoorTimes = field(factory=DoorTimes)
    owns_authorization: bool = False
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = ()
