"""The core, put together: everything between a storage, the upstreams and the door."""

from __future__ import annotations

from collections.abc import Callable

from attrs import field, frozen
from twisted.internet.interfaces import IReactorTime

from txociproxy.ages import Ages
from txociproxy.asking import Asking, Registry
from txociproxy.blobs import Blobs
from txociproxy.cache import Cache
from txociproxy.exchanges import Exchanges
from txociproxy.ingest.limits import IngestLimits
from txociproxy.ingests import IngestCaps, Ingests
from txociproxy.interfaces import IMode, IStorage, IWorkers
from txociproxy.listings import Listings
from txociproxy.manifests import Manifests
from txociproxy.meanings import TagRules
from txociproxy.parts import RangeRules
from txociproxy.pings import Pings
from txociproxy.serving import Serving
from txociproxy.tagged import TagPulls
from txociproxy.tags import Tags


@frozen
class CoreRules:
    """The bounds and policies of the core."""

    limits: IngestLimits = field(factory=IngestLimits)
    caps: IngestCaps = field(factory=IngestCaps)
    tags: TagRules = field(factory=TagRules)
    ranges: RangeRules = field(factory=RangeRules)


@frozen
class Core:
    """What the service holds on to.

    :ivar ingests: to be abandoned when the service stops.
    """

    cache: Cache
    ingests: Ingests


def assemble(
    storage: IStorage,
    mode: IMode,
    registry: Registry,
    hashers: IWorkers,
    clock: IReactorTime,
    now: Callable[[], float],
    rules: CoreRules,
) -> Core:
    """Put the core together.

    :param hashers: for work of the processor; never the pool of the disk.
    :param now: seconds since the epoch.
    """
    silence_s = rules.limits.silence_s
    asking = Asking(registry, clock, not mode.uses_own_credentials, silence_s)
    manifests = Manifests(storage, asking, hashers, clock, silence_s)
    ingests = Ingests(storage, hashers, clock, rules.limits, rules.caps)
    blobs = Blobs(asking, ingests, clock, rules.ranges, mode.visibility)
    tags = Tags(storage, asking, manifests, rules.tags, clock, now, mode.survives_upstream_loss)
    pings = Pings(asking, clock, mode.survives_upstream_loss)
    listings = Listings(asking, clock, mode.survives_upstream_loss)
    exchanges, ages = Exchanges(asking, mode.survives_upstream_loss), Ages(asking, now)
    serving = Serving(mode.visibility)
    tagged = TagPulls(manifests, tags, serving)
    cache = Cache(storage, mode, asking, manifests, tagged, blobs, listings, pings, exchanges, ages, serving)
    return Core(cache, ingests)
