"""Elsewhere: content that does not lie on this machine is left to the client to fetch, or comes through us."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from attrs import define, frozen

from txociproxy.carrying import Carrying
from txociproxy.interfaces import Address, Ask, Elsewhere, Redirect, Serve
from txociproxy.oci.errors import StorageUnavailable
from txociproxy.serving import Serving

MARGIN_S = 10  # a redirect to an address that is about to end would be followed too late, now or when it was kept


@frozen
class RedirectRules:
    """Which clients are sent to where content lies.

    :ivar above_bytes: blobs longer than this; 0 is every one that is not empty, None is none at all.
    :ivar not_for: networks whose clients never are: they do not reach that place.
    """

    above_bytes: int | None = 0
    not_for: tuple[IPv4Network | IPv6Network, ...] = ()

    def sends(self, client: str, size_bytes: int | None) -> bool:
        """Say whether a client is sent elsewhere for so many bytes.

        :param client: its address; what is none, as that of a Unix socket, lies in no network.
        :param size_bytes: None is not known, which counts as long.
        """
        if self.above_bytes is None or (size_bytes is not None and size_bytes <= self.above_bytes):
            return False
        address = _address(client) if self.not_for else None
        return address is None or not any(address in network for network in self.not_for)


@define(eq=False)
class Elsewheres:
    """Answers pulls of blobs that the storage has elsewhere; the client has been admitted."""

    _rules: RedirectRules
    _carrying: Carrying
    _serving: Serving

    async def answer(self, ask: Ask, found: Elsewhere) -> Serve | Redirect | None:
        """Return the answer; None says that the place gives nothing now, and upstream is to be asked.

        A HEAD is answered here: an address that is signed for GET is good for nothing else.

        :raises OCIError: too many at once.
        """
        if ask.method == "HEAD":
            return self._serving.described(ask, found)
        if not self._rules.sends(ask.client, found.descriptor.size_bytes):
            return await self._carrying.carry(ask, found)
        try:
            address = found.place.address()
        except StorageUnavailable:
            return None  # said by the storage
        if address.expires_s < MARGIN_S:
            return await self._carrying.carry(ask, found)
        return self._redirect(found, address)

    def _redirect(self, found: Elsewhere, address: Address) -> Redirect:
        """Send the client there; a range too, since it asks there with the same Range field."""
        control = "no-store"  # whom the upstream admits is asked anew each time (RULES D4)
        if self._serving.visibility == "public":
            control = f"private, max-age={int(address.expires_s) - MARGIN_S}"
        return Redirect(found.descriptor, address.url, address.expires_s, "hit", control)


def _address(client: str) -> IPv4Address | IPv6Address | None:
    """Read an address; IPv4 in the clothes of IPv6 is IPv4."""
    try:
        address = ip_address(client)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
