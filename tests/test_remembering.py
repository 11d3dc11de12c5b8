"""Tables that have a cap (law 8)."""

from __future__ import annotations

from collections import OrderedDict

from twisted.trial.unittest import SynchronousTestCase

from txociproxy.remembering import remember


class RememberTests(SynchronousTestCase):
    """What was put in longest ago makes room."""

    def test_the_oldest_makes_room(self) -> None:
        """What is put in again is not old."""
        table: OrderedDict[str, int] = OrderedDict()
        for key, value in (("a", 1), ("b", 2), ("a", 3), ("c", 4)):
            remember(table, key, value, most=2)
        self.assertEqual(list(table.items()), [("a", 3), ("c", 4)])
