"""A core on a store whose content lies elsewhere."""

from __future__ import annotations

from ipaddress import ip_network

from attrs import evolve

from tests.cache.house import CacheCase, content
from tests.cache.places import FarStorage
from txociproxy.assembly import CoreRules
from txociproxy.caps import IngestCaps
from txociproxy.elsewhere import RedirectRules
from txociproxy.interfaces import Ask, Redirect
from txociproxy.storage.memory import MemoryStorage

CARRIED = RedirectRules(None)
DATA = content(200_000)
WRONG = content(200_000, seed=9)
SMALL, SMALL_WRONG = content(1000), content(1000, seed=9)
HALF, TOTAL = len(DATA) // 2, len(DATA)


class FarCase(CacheCase):
    """What the store has lies elsewhere; clients are sent there unless the test says something else."""

    rules = CoreRules()

    def setUp(self) -> None:
        """Put the core on a store that keeps nothing here."""
        super().setUp()
        self.far = FarStorage(now=self.clock.seconds)
        self.build(self.rules, self.far)

    def carry(self, fills: bool = False, caps: IngestCaps | None = None) -> None:
        """Send nobody there."""
        self.far.copies = MemoryStorage() if fills else None
        self.build(evolve(self.rules, redirects=CARRIED, caps=caps or IngestCaps()), self.far)

    def redirect(self, above_bytes: int | None, *networks: str) -> None:
        """Choose who is sent there."""
        not_for = tuple(ip_network(network) for network in networks)
        self.build(evolve(self.rules, redirects=RedirectRules(above_bytes, not_for)), self.far)

    def redirected(self, answer: object) -> Redirect:
        """Return an answer that must be a redirect."""
        assert isinstance(answer, Redirect), answer
        return answer

    def assert_at_rest(self) -> None:
        """Nothing runs, waits or is held any more, and no spool is open."""
        super().assert_at_rest()
        self.assertEqual([spool for spool in self.far.spools if not spool.is_closed], [])

    def read(self, *ranges: str) -> None:
        """Assert what was read from the place since the last time."""
        seen, self.far.reads = self.far.reads, []
        self.assertEqual(seen, list(ranges))


class CarryCase(FarCase):
    """A blob that lies elsewhere and is at the upstream, for clients that are not sent there."""

    def setUp(self) -> None:
        """Both have two."""
        super().setUp()
        self.digest, self.small = self.far.put(DATA), self.far.put(SMALL)
        self.hub.add(DATA)
        self.hub.add(SMALL)
        self.carry()

    def blob(self, byte_range: str | None = None, client: str = "192.0.2.1", namespace: str = "docker.io") -> Ask:
        """Return an ask for the large one."""
        return self.ask(self.digest, kind="blob", byte_range=byte_range, client=client, namespace=namespace)
