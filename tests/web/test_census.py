"""The census counts: who is turned away, and how much of each cap is taken (RULES A5)."""

from __future__ import annotations

from twisted.internet.address import UNIXAddress
from twisted.trial.unittest import SynchronousTestCase

from tests.web.doubles import Echo, Line, client
from txociproxy.web.site import Census, DoorLimits, DoorSite


class CensusTests(SynchronousTestCase):
    """Three in all, two per address."""

    def setUp(self) -> None:
        """Let nobody in yet."""
        self.reached: list[str] = []
        self.census = Census(DoorLimits(3, 2), self.reached.append)
        line = Line()
        self.site = DoorSite(Echo(), line.clock, self.census)

    def come(self, host: str) -> Line:
        """Connect from an address, or through a Unix socket."""
        return Line(site=self.site, peer=UNIXAddress(None) if host == "-" else client(host))

    def uses(self) -> tuple[tuple[float, float], ...]:
        """Return what is taken in all and by the fullest client, each with its limit."""
        self.assertEqual(list(self.census.uses()), ["max_connections", "max_connections_per_client"])
        return tuple(self.census.uses().values())

    def test_the_cap_that_turns_somebody_away_is_named(self) -> None:
        """Once for each who is."""
        self.come("192.0.2.1")
        self.come("192.0.2.1")
        self.assertEqual(self.reached, [])
        self.come("192.0.2.1")
        self.assertEqual(self.reached, ["max_connections_per_client"])
        self.come("192.0.2.2")
        self.come("192.0.2.2")
        self.assertEqual(self.reached[1:], ["max_connections"])

    def test_it_tells_how_much_is_taken(self) -> None:
        """By all, and by the one who has most; who was turned away has nothing."""
        self.assertEqual(self.uses(), ((0, 3), (0, 2)))
        lines = [self.come(host) for host in ("192.0.2.1", "192.0.2.1", "192.0.2.1", "192.0.2.2")]
        self.assertEqual(self.uses(), ((3, 3), (2, 2)))
        lines[0].hang_up()
        self.assertEqual(self.uses(), ((2, 3), (1, 2)))

    def test_clients_of_a_socket_are_no_client_of_many_connections(self) -> None:
        """They have no address; only the cap of all is theirs."""
        for _ in range(3):
            self.come("-")
        self.assertEqual(self.uses(), ((3, 3), (0, 2)))
        self.come("-")
        self.assertEqual(self.reached, ["max_connections"])
