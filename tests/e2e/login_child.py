"""Asks a real source of logins, on the real reactor: ``python -m tests.e2e.login_child JSON``.

JSON says what is asked: ``account`` (name of the class and its arguments), ``url``, ``asks`` (how many at once),
and ``stop_after_s``.  It prints one JSON object: ``answers``, each
``[username, password]`` or a text, ``took_s``, and ``children``, the states of those that were not reaped.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater, react

from txociproxy.upstreams.logins import accounts
from txociproxy.upstreams.logins.sources import source_of
from txociproxy.workers import Workers


def children() -> list[str]:
    """Return the states of this process's children."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
        except (OSError, ValueError):  # it has ended meanwhile
            continue
        if int(parent) == os.getpid():
            found.append(state)
    return found


async def answer_of(source: accounts.LoginSource) -> object:
    """Ask once."""
    try:
        login = await source.login()
    except accounts.LoginUnavailable as error:
        return str(error)
    return [login.username, login.password]


async def run(orders: dict[str, Any]) -> dict[str, Any]:
    """Do what is asked."""
    os.set_inheritable(os.open("/dev/null", os.O_RDONLY), True)  # which no helper may see
    name, arguments = orders["account"]
    if "environment" in arguments:
        arguments["environment"] = tuple(arguments["environment"].items())
    workers = Workers.make(reactor, 2, "logins")
    source = source_of(getattr(accounts, name)(**arguments), orders["url"], reactor, workers)
    began_s = time.monotonic()
    asks = [Deferred.fromCoroutine(answer_of(source)) for _ in range(orders.get("asks", 1))]
    if "stop_after_s" in orders:
        await deferLater(reactor, orders["stop_after_s"], source.stop)
    answers = await gatherResults(asks)
    took_s = time.monotonic() - began_s
    await deferLater(reactor, 0.5, lambda: None)  # for the reactor to reap
    workers.stop()
    return {"answers": answers, "took_s": took_s, "children": children()}


def main(_: object, text: str) -> Deferred[None]:
    """Run and print."""
    return Deferred.fromCoroutine(run(json.loads(text))).addCallback(lambda found: print(json.dumps(found)))


if __name__ == "__main__":
    react(main, sys.argv[1:])
