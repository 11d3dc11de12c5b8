"""Building: everything that a configuration asks for is made here, leaves first."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

from attrs import define
from twisted.internet.interfaces import IReactorTime

from txociproxy.admissions import Admissions
from txociproxy.asking import Asking, Registry
from txociproxy.assembly import assemble
from txociproxy.config import Config
from txociproxy.envelopes import Envelopes, random_key
from txociproxy.ingests import Ingests
from txociproxy.interfaces import IMode
from txociproxy.modes import Authenticated, Transparent
from txociproxy.reload import table_of
from txociproxy.storage.disk import DiskStorage
from txociproxy.storage.files import Files
from txociproxy.storage.layout import Layout
from txociproxy.storage.space import Space
from txociproxy.upstreams.entries.table import LiveTable, UpstreamTable
from txociproxy.upstreams.registry import Upstreams
from txociproxy.web.making import make_site
from txociproxy.web.site import DoorSite
from txociproxy.wiring import core_rules, web_settings
from txociproxy.workers import Workers

DISK_THREADS = 8
# A slow cloud API or a hanging network file system must not take the threads of the disk.
ASIDE_THREADS = 4
T = TypeVar("T")


@define(eq=False)
class House:
    """What is made at the start and has to be ended.

    :ivar aside: threads for what may take long and belongs to no pull: configuration files, credentials.
    """

    storage: DiskStorage
    ingests: Ingests
    upstreams: Upstreams
    site: DoorSite
    admissions: Admissions
    aside: Workers
    pools: tuple[Workers, ...]

    def turn_to(self, table: UpstreamTable) -> None:
        """Put another table of upstreams in place of the one that holds.

        :raises ValueError: something in it cannot be used; then nothing has changed.
        """
        self.upstreams.turn_to(table)
        self.admissions.forget_all()

    async def in_thread(self, function: Callable[[], T]) -> T:
        """Call what blocks without blocking."""
        return cast(T, await self.aside.run(function))


def build(config: Config, reactor: Any) -> House:
    """Make everything, leaves first; starts threads and connects nothing."""
    hashers = Workers.make(reactor, os.cpu_count() or 1, "hash")
    readers = Workers.make(reactor, DISK_THREADS, "disk-read")
    writers = Workers.make(reactor, DISK_THREADS, "disk-write")
    aside = Workers.make(reactor, ASIDE_THREADS, "aside")
    files, layout = Files(), Layout(Path(config.fs_root))
    space = Space(layout.root, files, reactor, config.min_free_fraction, config.min_free_bytes)
    storage = DiskStorage(layout, files, readers, writers, reactor, space, time.time)
    table = LiveTable(table_of(config))
    upstreams = Upstreams(reactor, table, aside, proxies=config.outbound)
    admissions = Admissions(time.time, config.auth_cache_s, random_key())
    mode = mode_of(config, upstreams, reactor, admissions)
    core = assemble(storage, mode, upstreams, hashers, reactor, time.time, core_rules(config))
    key = Path(config.token_key_file).read_bytes() if config.token_key_file else random_key()
    site = make_site(reactor, core.cache, table, Envelopes(key, time.time), web_settings(config))
    return House(storage, core.ingests, upstreams, site, admissions, aside, (aside, hashers, readers, writers))


def mode_of(config: Config, registry: Registry, clock: IReactorTime, admissions: Admissions) -> IMode:
    """Make the mode that was chosen."""
    if config.mode == "transparent":
        return Transparent()
    return Authenticated(Asking(registry, clock, True, config.silence_timeout_s), admissions)
