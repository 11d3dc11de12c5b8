"""What is measured from outside: gauges that are brought up to date when somebody asks, and how late timers fire."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from math import ceil, nan
from shutil import disk_usage
from typing import TYPE_CHECKING, Any, cast

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

import twisted
from txociproxy import __version__
from txociproxy.config import Config
from txociproxy.metrics import Metrics

if TYPE_CHECKING:  # which makes us
    from txociproxy.building import House

DISK_EVERY_S = 15.0
BEAT_S = 0.5
Uses = Callable[[], Mapping[str, tuple[float, float]]]
# A path to (bytes in all, taken, free for us), as shutil.disk_usage; blocks.
LookAtDisk = Callable[[str], tuple[int, int, int]]


@define(eq=False)
class Measuring:
    """Lets the gauges of a house tell its state.

    :ivar _look_at_disk: called in a thread, one call at a time: a disk that hangs holds one thread and no more.
    :ivar _due_s: when the next beat should be; how late it comes is how long the reactor was held up.
    """

    _reactor: Any
    _config: Config
    _look_at_disk: LookAtDisk = disk_usage
    _house: House | None = field(default=None, init=False)
    _uses: tuple[Uses, ...] = field(default=(), init=False)
    _due_s: float = field(default=0.0, init=False)
    _timers: dict[str, IDelayedCall] = field(factory=dict, init=False)
    _is_looking: bool = field(default=False, init=False)

    log = Logger()

    def start(self, house: House) -> None:
        """Begin, once the reactor runs."""
        self._house = house
        self._uses = (house.uses, house.upstreams.uses, house.site.census.uses)
        metrics, config = house.metrics, self._config
        storage = "fs" if config.s3 is None else "s3"
        about = (__version__, platform.python_version(), twisted.__version__, config.mode, storage)
        metrics.build_info.labels(*about).set(1)
        for gauge in (metrics.storage_size_bytes, metrics.storage_used_bytes, metrics.storage_free_bytes):
            gauge.set(nan)  # nobody has looked yet, and 0 would be a full disk
        if config.s3 is None:
            metrics.without_bucket()
        metrics.looks.append(self.look)
        self._due_s = self._reactor.seconds() + BEAT_S
        self._later("beat", BEAT_S, self._beat)
        self._later("disk", 0.0, self._begin_to_look_at_disk)

    def stop(self) -> None:
        """End what goes on in the background; gauges stay as they were last."""
        house, self._house = self._house, None
        if house is not None:
            house.metrics.looks.remove(self.look)
        for timer in self._timers.values():
            if timer.active():
                timer.cancel()
        self._timers.clear()

    def look(self) -> None:
        """Bring the gauges up to date; what cannot be read leaves the others as they are."""
        house = self._house
        if house is None:
            return
        try:
            self._look_at(house, house.metrics)
        except Exception:
            self.log.failure("not everything could be measured")

    def _look_at(self, house: House, metrics: Metrics) -> None:
        metrics.ready.set(house.readiness.trouble() is None)
        for uses in self._uses:
            for cap, (used, limit) in uses().items():
                metrics.cap_used.labels(cap).set(used)
                metrics.cap_limit.labels(cap).set(limit)
        if self._config.s3 is not None:
            _look_at_bucket(house.storage, metrics)

    # --- the disk

    def _begin_to_look_at_disk(self) -> None:
        """Look in a thread, unless the last look has not come back."""
        self._later("disk", DISK_EVERY_S, self._begin_to_look_at_disk)
        if self._house is None or self._is_looking:
            return
        self._is_looking = True
        path = self._config.fs_root if self._config.s3 is None else self._config.spool_dir
        looking = cast("Deferred[tuple[int, int, int]]", self._house.aside.run(self._look_at_disk, str(path)))
        looking.addBoth(self._looked, self._house.metrics)

    def _looked(self, result: tuple[int, int, int] | Failure, metrics: Metrics) -> None:
        self._is_looking = False
        if isinstance(result, Failure):  # what was seen last stays
            self.log.debug("the disk could not be looked at: {reason}", reason=result.getErrorMessage())
            return
        gauges = (metrics.storage_size_bytes, metrics.storage_used_bytes, metrics.storage_free_bytes)
        for gauge, size_bytes in zip(gauges, result, strict=True):
            gauge.set(size_bytes)

    # --- the reactor

    def _beat(self) -> None:
        """Measure how late this is; the next beat is due by the first one's time, so that nothing adds up."""
        if self._house is None:
            return
        late_s = max(0.0, self._reactor.seconds() - self._due_s)
        self._house.metrics.loop_lag_s.observe(late_s)
        self._due_s += BEAT_S * max(1, ceil(late_s / BEAT_S))  # beats that were missed are part of this one
        self._later("beat", max(0.0, self._due_s - self._reactor.seconds()), self._beat)

    def _later(self, name: str, delay_s: float, call: Callable[[], None]) -> None:
        self._timers[name] = self._reactor.callLater(delay_s, call)


def _look_at_bucket(storage: Any, metrics: Metrics) -> None:
    """Ask both sides of an S3Storage."""
    gate, near = storage.far.gate, storage.near
    metrics.s3_up.set(gate.is_open)
    metrics.s3_outages.set(gate.outages)
    metrics.s3_queue.set(near.uploads.waiting)
    metrics.s3_queue_bytes.set(near.uploads.waiting_bytes)
    metrics.s3_tier_bytes.set(near.tier.used_bytes)
