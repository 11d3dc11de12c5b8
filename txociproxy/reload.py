"""Reload: another table of upstreams while everything goes on (SIGHUP).

What is new is made before what is old goes: a file that is wrong, or a door that cannot be opened, leaves everything
as it was.  Connections, running bodies and the upstreams that did not change are not touched.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from attrs import define, evolve, field, fields
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IListeningPort
from twisted.logger import Logger
from twisted.python.failure import Failure

from txociproxy.config import Config, ConfigError
from txociproxy.introduction import trust_lines
from txociproxy.upstreams.entries.table import UpstreamTable

# These are taken over; every other setting needs a new start.
RELOADED = frozenset({"upstreams", "default_namespace", "unlisted", "connect_timeout_s", "silence_timeout_s"})

Reread = Callable[[], Awaitable[Config]]


class DoorClosed(Exception):
    """A listener cannot be opened; the text says which one and why."""


@define(eq=False)
class Reload:
    """Reads the configuration again when it is told to, once at a time.

    :ivar config: what holds now; settings that need a new start as they were at the last.
    :ivar _reread: reads and checks it; what blocks in that is done in a thread.
    :ivar _turn: puts another table in place of the one that holds.
    :ivar _open: opens the listener of an upstream.
    :ivar doors: the listeners of single upstreams, by what is configured.
    """

    config: Config
    _reread: Reread
    _turn: Callable[[UpstreamTable], None]
    _open: Callable[[str], IListeningPort]
    doors: dict[str, IListeningPort] = field(factory=dict)
    _running: Deferred[None] | None = field(default=None, init=False)
    _again: bool = field(default=False, init=False)

    log = Logger()

    def begin(self) -> None:
        """Read again; a wish that comes meanwhile is fulfilled afterwards."""
        if self._running is not None:
            self._again = True
            return
        running = self._running = Deferred.fromCoroutine(self._reload())
        running.addBoth(self._ended)

    def stop(self) -> None:
        """Give up what is running."""
        self._again = False
        if self._running is not None:
            self._running.cancel()

    def _ended(self, result: object) -> None:
        self._running = None
        if isinstance(result, Failure) and not result.check(CancelledError):
            self.log.failure("the reload failed; what was there stays", result)
        if self._again:
            self._again = False
            self.begin()

    async def _reload(self) -> None:
        try:
            config = await self._reread()
            if config.mode != self.config.mode:
                # What is not said follows the mode: `unlisted` would open under an authenticated mode that goes on.
                raise ConfigError(f"the mode is {config.mode} there, which needs a new start")
            self._take(config)
        except (ConfigError, DoorClosed, ValueError) as error:
            self.log.error("the configuration is not taken, what was there stays: {reason}", reason=str(error))

    def _take(self, config: Config) -> None:
        opened: dict[str, IListeningPort] = {}
        wanted = [entry.listen for entry in config.upstreams if entry.listen is not None]
        try:
            for place in wanted:
                if place not in self.doors:
                    opened[place] = self._open(place)
            self._turn(table_of(config))
        except BaseException:
            for port in opened.values():
                port.stopListening()
            raise
        self._tell(config)
        for place in [place for place in self.doors if place not in wanted]:
            self.doors.pop(place).stopListening()
        self.doors.update(opened)
        held = {name: getattr(self.config, name) for name in changed_settings(self.config, config)}
        self.config = evolve(config, **held)

    def _tell(self, config: Config) -> None:
        """Say what has been taken, and what has not."""
        left = changed_settings(self.config, config)
        if left:
            self.log.warn("these settings need a new start: {names}", names=",".join(left))
        told = trust_lines(self.config)
        for level, text, namespaces in trust_lines(config):
            if (level, text, namespaces) not in told:
                self.log.emit(level, text, namespaces=",".join(namespaces))
        before, after = ({entry.namespace: entry for entry in each.upstreams} for each in (self.config, config))
        self.log.info(
            "configuration reloaded",
            upstreams=len(after),
            added=",".join(sorted(set(after) - set(before))),
            removed=",".join(sorted(set(before) - set(after))),
            changed=",".join(sorted(name for name in set(after) & set(before) if after[name] != before[name])),
        )


def table_of(config: Config) -> UpstreamTable:
    """Return the table that a configuration says."""
    return UpstreamTable(config.upstreams, config.default_namespace, config.unlisted)


def changed_settings(before: Config, after: Config) -> list[str]:
    """Return the names of settings that differ and are not taken over while running."""
    names: list[Any] = [each.name for each in fields(Config) if each.name not in RELOADED]
    return [name for name in names if getattr(before, name) != getattr(after, name)]
