"""Remembering: tables have a cap, and what was put in longest ago makes room (law 8)."""

from __future__ import annotations

from collections import OrderedDict
from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")


def remember(table: OrderedDict[K, V], key: K, value: V, most: int) -> bool:
    """Put into a table, in place of what was put in first; says whether anything had to go.

    :param most: how many it may hold.
    """
    table[key] = value
    table.move_to_end(key)
    is_full = len(table) > most
    while len(table) > most:
        table.popitem(last=False)
    return is_full
