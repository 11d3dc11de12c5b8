"""Building: everything that a configuration asks for is made here, leaves first."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from attrs import define, field, frozen
from twisted.internet.interfaces import IReactorTime

from txociproxy.admissions import Admissions
from txociproxy.asking import Asking, Registry
from txociproxy.assembly import assemble
from txociproxy.config import Config
from txociproxy.doorways import door_tls
from txociproxy.envelopes import Envelopes, random_key
from txociproxy.ingests import Ingests
from txociproxy.interfaces import IMode
from txociproxy.measured import MeasuredStorage
from txociproxy.measuring import Measuring
from txociproxy.metrics import Metrics
from txociproxy.modes import Authenticated, Transparent
from txociproxy.readiness import Readiness
from txociproxy.reload import table_of
from txociproxy.storage.disk import DiskStorage
from txociproxy.storage.files import Files
from txociproxy.storage.layout import Layout
from txociproxy.storage.space import Space
from txociproxy.upstreams.entries.table import LiveTable, UpstreamTable
from txociproxy.upstreams.registry import Upstreams
from txociproxy.ways import BucketWays
from txociproxy.web.lock import Lock
from txociproxy.web.making import make_admin, make_site
from txociproxy.web.pages import Pages
from txociproxy.web.passwords import UserFile
from txociproxy.web.site import DoorSite
from txociproxy.web.tls.certificates import DoorTls
from txociproxy.wiring import core_rules, web_settings
from txociproxy.workers import Workers

if TYPE_CHECKING:  # nobody who has no bucket pays for it
    from txociproxy.storage.s3.storage import S3Storage

DISK_THREADS = 8
# A slow cloud API or a hanging network file system must not take the threads of the disk.
ASIDE_THREADS = 4
# Beside the uploads: listings, tags, renewals, and the question whether the bucket is back.
BUCKET_THREADS = 4
# Each check is made to take a processor's time; pulls want theirs too.
PASSWORD_THREADS = 2
T = TypeVar("T")


@frozen
class Keeping:
    """A storage, and what it stands on.

    :ivar ways: the connections to its bucket; None without one.
    """

    storage: DiskStorage | S3Storage
    pools: tuple[Workers, ...]
    ways: BucketWays | None = None


@define(eq=False)
class House:
    """What is made at the start and has to be ended.

    :ivar aside: threads for what may take long and belongs to no pull: configuration files, credentials.
    :ivar ways: the connections to a bucket; None without one.
    :ivar door_tls: the certificate of the doors; None where no TLS is spoken.
    :ivar admin: answers on the door of whoever runs the proxy; None without one.
    :ivar uses: tells of each cap of the core how much is taken, and how much there is; connections are the census's.
    """

    storage: DiskStorage | S3Storage
    ingests: Ingests
    upstreams: Upstreams
    site: DoorSite
    admissions: Admissions
    aside: Workers
    pools: tuple[Workers, ...]
    ways: BucketWays | None = None
    admin: DoorSite | None = None
    metrics: Metrics = field(factory=Metrics)
    readiness: Readiness = field(factory=Readiness)
    measuring: Measuring | None = None
    uses: Callable[[], dict[str, tuple[float, float]]] = dict
    lock: Lock | None = None
    door_tls: DoorTls | None = None

    def turn_to(self, table: UpstreamTable) -> None:
        """Put another table of upstreams in place of the one that holds.

        :raises ValueError: something in it cannot be used; then nothing has changed.
        """
        self.upstreams.turn_to(table)
        self.metrics.know(entry.namespace for entry in table.entries)
        self.admissions.forget_all()
        if self.lock is not None:
            self.lock.forget()

    async def in_thread(self, function: Callable[[], T]) -> T:
        """Call what blocks without blocking."""
        return cast(T, await self.aside.run(function))


def build(config: Config, reactor: Any) -> House:
    """Make everything, leaves first; starts threads and connects nothing."""
    hashers = Workers.make(reactor, os.cpu_count() or 1, "hash")
    aside = Workers.make(reactor, ASIDE_THREADS, "aside")
    keeping = keeping_of(config, reactor)
    table = LiveTable(table_of(config))
    metrics, readiness = Metrics(), Readiness(hashers)
    metrics.know(entry.namespace for entry in config.upstreams)
    metrics.watch_process()
    traces = config.log_level == "trace"
    upstreams = Upstreams(reactor, table, aside, proxies=config.outbound, metrics=metrics, traces=traces)
    admissions = Admissions(time.time, config.auth_cache_s, random_key())
    mode = mode_of(config, upstreams, reactor, admissions)
    storage = MeasuredStorage(keeping.storage, metrics)
    core = assemble(storage, mode, upstreams, hashers, reactor, time.time, core_rules(config), metrics)
    key = Path(config.token_key_file).read_bytes() if config.token_key_file else random_key()
    pages = Pages(readiness.trouble, None if config.admin_listen else metrics.exposition)
    guests = Workers.make(reactor, PASSWORD_THREADS, "passwords") if config.htpasswd_file else None
    lock = None if guests is None else Lock(reactor, UserFile(str(config.htpasswd_file)), guests, metrics)
    envelopes, settings = Envelopes(key, time.time), web_settings(config)
    site = make_site(reactor, core.cache, table, envelopes, settings, time.time, metrics, pages, lock)
    pools = (aside, hashers, *keeping.pools, *filter(None, [guests]))
    house = House(keeping.storage, core.ingests, upstreams, site, admissions, aside, pools, keeping.ways)
    house.metrics, house.readiness, house.measuring = metrics, readiness, Measuring(reactor, config)
    house.uses = lambda: {**core.uses(), **storage.uses()}
    if config.admin_listen is not None:
        house.admin = make_admin(reactor, settings, time.time, metrics, Pages(readiness.trouble, metrics.exposition))
    house.lock, house.door_tls = lock, door_tls(config, reactor, aside)
    return house


def keeping_of(config: Config, reactor: Any) -> Keeping:
    """Make the storage that was chosen: a directory, or a bucket with a directory in front of it."""
    readers = Workers.make(reactor, DISK_THREADS, "disk-read")
    writers = Workers.make(reactor, DISK_THREADS, "disk-write")
    files, layout = Files(), Layout(Path(config.fs_root if config.s3 is None else config.spool_dir))
    space = Space(layout.root, files, reactor, config.min_free_fraction, config.min_free_bytes)
    disk = DiskStorage(layout, files, readers, writers, reactor, space, time.time)
    if config.s3 is None:
        return Keeping(disk, (readers, writers))
    from txociproxy.storage.s3.connecting import connect
    from txociproxy.storage.s3.storage import S3Storage

    workers = Workers.make(reactor, config.s3.uploads + BUCKET_THREADS, "s3")
    ways = BucketWays(reactor, config.s3, config.outbound)
    storage = S3Storage(
        config.s3, disk, files, layout, workers, reactor, time.time, connect, ways.agent_for, disk_workers=writers
    )
    return Keeping(storage, (readers, writers, workers), ways)


def mode_of(config: Config, registry: Registry, clock: IReactorTime, admissions: Admissions) -> IMode:
    """Make the mode that was chosen."""
    if config.mode == "transparent":
        return Transparent()
    return Authenticated(Asking(registry, clock, True, config.silence_timeout_s), admissions)
