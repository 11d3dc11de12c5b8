"""Which token server may see a credential that is meant for an upstream (RULES C8)."""

from __future__ import annotations

from ipaddress import ip_address

from attrs import define, field
from publicsuffixlist import PublicSuffixList

from txociproxy.upstreams.entries.entry import Entry
from txociproxy.upstreams.origins import Origin

_MAX_ADDRESS = 200


def _bundled() -> PublicSuffixList:
    # The list that comes with the package; it is never fetched.  Names under no known suffix share nothing.
    return PublicSuffixList(accept_unknown=False)


@define(eq=False)
class Realms:
    """Knows which hosts have one owner; the list is read when it is first needed."""

    _list: PublicSuffixList | None = field(init=False, default=None, repr=False)

    def may_see_credentials(self, entry: Entry, url: str, realm: str) -> bool:
        """Say whether a credential for an upstream may go to this realm.

        An upstream that is hostile, or was taken over, names its own token server to collect credentials.

        :param url: the upstream's own URL that sent us to the realm.
        """
        try:
            here, there = Origin.of(url), Origin.of(realm)
        except ValueError:
            return False
        if (here.scheme, there.scheme) == ("https", "http"):
            return False
        return there in entry.named_origins or here.host == there.host or self._one_owner(here.host, there.host)

    def _one_owner(self, one: str, other: str) -> bool:
        domain = self._registrable(one)
        return domain is not None and domain == self._registrable(other)

    def _registrable(self, host: str) -> str | None:
        """Return the domain that somebody registered; None for addresses and single labels, which share nothing."""
        try:
            ip_address(host)
        except ValueError:
            if self._list is None:
                self._list = _bundled()
            domain: str | None = self._list.privatesuffix(host)
            return domain
        return None


def remedy(namespace: str, realm: str) -> str:
    """Return how the owner lets a realm see credentials; a realm's query may hold anything, and is left out."""
    origin = str(Origin.of(realm))
    address = realm.partition("#")[0].partition("?")[0]
    named = address if len(address) <= _MAX_ADDRESS else origin
    return (
        f"the token server {origin} may not see credentials for {namespace}; if it is the right one, its owner can "
        f"name it with `token_realm: {named}` in the upstream {namespace}"
    )
