"""Which token server may see a credential that is meant for an upstream (RULES C8)."""

from __future__ import annotations

from ipaddress import ip_address

from attrs import define, field
from publicsuffixlist import PublicSuffixList

from txociproxy.upstreams.entry import Entry
from txociproxy.upstreams.origins import Origin


def _bundled() -> PublicSuffixList:
    # The list that comes with the package; it is never fetched.  Names under no known suffix share nothing.
    return PublicSuffixList(accept_unknown=False)


@define(eq=False)
class Realms:
    """Knows which hosts have one owner."""

    _suffixes: PublicSuffixList = field(factory=_bundled)

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
            domain: str | None = self._suffixes.privatesuffix(host)
            return domain
        return None
