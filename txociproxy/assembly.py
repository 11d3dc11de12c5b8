"""The core, put together: everything between a storage, the upstreams and the door."""

from __future__ import annotations

from collections.abc import Callable

from attrs import field, frozen
from twisted.internet.interfaces import IReactorTime

from txociproxy.ages import Ages
from txociproxy.asking import Asking, Registry
from txociproxy.blobs import Blobs
from txociproxy.cache import Cache
from txociproxy.caps import IngestCaps
from txociproxy.carrying import Carrying
from txociproxy.elsewhere import Elsewheres, RedirectRules
from txociproxy.exchanges import Exchanges
from txociproxy.forgetting import Forgetting
from txociproxy.ingest.limits import IngestLimits
from txociproxy.ingests import Ingests
from txociproxy.interfaces import IMode, IStorage, IWorkers
from txociproxy.listings import Listings
from txociproxy.manifests import Manifests
from txociproxy.meanings import TagRules
from txociproxy.metrics import Metrics
from txociproxy.parts import RangeRules
from txociproxy.pings import Pings
from txociproxy.proving import Proving
from txociproxy.serving import Serving
from txociproxy.tagged import TagPulls
from txociproxy.tags import Tags
from txociproxy.turns import Turns


@frozen
class CoreRules:
    """The bounds and policies of the core."""

    limits: IngestLimits = field(factory=IngestLimits)
    caps: IngestCaps = field(factory=IngestCaps)
    tags: TagRules = field(factory=TagRules)
    ranges: RangeRules = field(factory=RangeRules)
    redirects: RedirectRules = field(factory=RedirectRules)


@frozen
class Core:
    """What the service holds on to.

    :ivar ingests: to be abandoned when the service stops.
    :ivar uses: tells of each cap of the core how much is taken, and how much there is (RULES A5).
    """

    cache: Cache
    ingests: Ingests
    uses: Callable[[], dict[str, tuple[float, float]]]


def assemble(
    storage: IStorage,
    mode: IMode,
    registry: Registry,
    hashers: IWorkers,
    clock: IReactorTime,
    now: Callable[[], float],
    rules: CoreRules,
    metrics: Metrics | None = None,
) -> Core:
    """Put the core together.

    :param hashers: for work of the processor; never the pool of the disk.
    :param now: seconds since the epoch.
    :param metrics: what is told of everything that happens.
    """
    metrics = metrics or Metrics()
    silence_s = rules.limits.silence_s
    survives = mode.survives_upstream_loss
    asking = Asking(registry, clock, not mode.uses_own_credentials, silence_s)
    forgetting, serving = Forgetting(storage, clock), Serving(mode.visibility)
    proving = Proving(forgetting, hashers, clock, metrics)
    manifests = Manifests(storage, asking, proving, hashers, clock, metrics, silence_s)
    ingests = Ingests(storage, hashers, clock, rules.limits, rules.caps, metrics)
    blobs = Blobs(asking, ingests, clock, rules.ranges, mode.visibility, metrics)
    carrying = Carrying(ingests, blobs.reopen, serving, forgetting, rules.ranges, metrics)
    elsewheres = Elsewheres(rules.redirects, carrying, serving)
    tags = Tags(storage, asking, manifests, rules.tags, clock, now, survives)
    cache = Cache(
        storage,
        mode,
        asking,
        manifests,
        TagPulls(manifests, tags, serving),
        blobs,
        Listings(asking, clock, survives),
        Pings(asking, clock, survives),
        Exchanges(asking, survives),
        Ages(asking, now),
        serving,
        elsewheres,
        Turns(storage),
    )
    return Core(cache, ingests, blobs.uses)
