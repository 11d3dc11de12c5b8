"""What is measured: one object with every metric of a process, on a registry of its own.

Labels are bounded (RULES A6): namespaces are the configured ones, all others are ``unlisted``; everything else is one
of a few words.  Nothing that a client sends becomes a label.  Whoever measures calls a verb; gauges are read when
somebody asks (:mod:`txociproxy.measuring`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, TypeVar, cast

from attrs import define, field
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    Metric,
    PlatformCollector,
    ProcessCollector,
)
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

_T = TypeVar("_T", Counter, Histogram)
UNLISTED = "unlisted"
# From a hit on a fast disk to a registry that takes its time.
LATENCY_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
# Each cap of RULES A5, under the name of its option.
CAPS = (
    "max_connections",
    "max_connections_per_client",
    "max_ingests",
    "max_ingests_per_namespace",
    "max_ingests_per_client",
    "max_lonely_ingests",
    "max_ingest_memory",
    "max_carried",
    "max_range_relays",
    "max_range_relays_per_digest",
    "accept_classes",
    "tokens",
    "unlisted_namespaces",
)


@define(eq=False)
class Metrics:
    """Every metric, and the verbs that change them.

    :ivar known: the namespaces that may be labels.
    :ivar looks: called before everything is given out, to bring gauges up to date; must not raise.
    """

    registry: CollectorRegistry = field(factory=lambda: CollectorRegistry(auto_describe=False))
    known: frozenset[str] = frozenset()
    looks: list[Callable[[], None]] = field(init=False, factory=list)
    _series: dict[tuple[object, ...], Any] = field(init=False, factory=dict)

    def __attrs_post_init__(self) -> None:
        self._make_of_clients()
        self._make_of_upstreams()
        self._make_of_storage()
        self._make_of_process()

    # attrs with slots would need each of these as a field; they are made once, by name.
    pulls: Counter = field(init=False)
    requests: Counter = field(init=False)
    client_bytes: Counter = field(init=False)
    first_byte_s: Histogram = field(init=False)
    readers: Gauge = field(init=False)
    door_logins: Counter = field(init=False)
    cap_used: Gauge = field(init=False)
    cap_limit: Gauge = field(init=False)
    caps_reached: Counter = field(init=False)
    ingests: Gauge = field(init=False)
    upstream_requests: Counter = field(init=False)
    upstream_errors: Counter = field(init=False)
    upstream_latency_s: Histogram = field(init=False)
    upstream_bytes: Counter = field(init=False)
    tokens: Counter = field(init=False)
    quota_limit: Gauge = field(init=False)
    quota_remaining: Gauge = field(init=False)
    bad_verdicts: Counter = field(init=False)
    resumes: Counter = field(init=False)
    spools_dropped: Counter = field(init=False)
    storage_errors: Counter = field(init=False)
    storage_size_bytes: Gauge = field(init=False)
    storage_used_bytes: Gauge = field(init=False)
    storage_free_bytes: Gauge = field(init=False)
    s3_up: Gauge = field(init=False)
    s3_outages: Gauge = field(init=False)
    s3_queue: Gauge = field(init=False)
    s3_queue_bytes: Gauge = field(init=False)
    s3_tier_bytes: Gauge = field(init=False)
    loop_lag_s: Histogram = field(init=False)
    ready: Gauge = field(init=False)
    build_info: Gauge = field(init=False)

    def _make_of_clients(self) -> None:
        self.pulls = self._counter("pulls", "Pulls that are over, by how they were answered", "namespace kind outcome")
        self.requests = self._counter("requests", "Requests that are over, by class of status", "kind status")
        self.client_bytes = self._counter("client_bytes", "Bytes of bodies sent to clients", "namespace kind")
        self.first_byte_s = self._histogram(
            "time_to_first_byte_seconds", "From the head of a pull to the first byte of its answer", "kind outcome"
        )
        self.readers = self._gauge("readers", "Bodies that are on their way to clients")
        self.door_logins = self._counter("door_logins", "Passwords that were checked at the door", "result")
        self.cap_used = self._gauge("cap_used", "How much of a cap is taken, the fullest key of those per key", "cap")
        self.cap_limit = self._gauge("cap_limit", "How much a cap allows", "cap")
        self.caps_reached = self._counter("caps_reached", "How often a cap had its effect", "cap")

    def _make_of_upstreams(self) -> None:
        self.ingests = self._gauge("ingests", "Bodies that are arriving")
        self.upstream_requests = self._counter(
            "upstream_requests", "Requests that upstreams answered, by class of status", "namespace method status"
        )
        self.upstream_errors = self._counter(
            "upstream_errors", "Requests that brought no answer, or were not sent", "namespace reason"
        )
        self.upstream_latency_s = self._histogram(
            "upstream_latency_seconds", "From a request to the head of its answer", "namespace"
        )
        self.upstream_bytes = self._counter("upstream_bytes", "Bytes of content received from upstreams", "namespace")
        self.tokens = self._counter("tokens", "Tokens of upstreams that were wanted", "namespace result")
        self.quota_limit = self._gauge("upstream_quota_limit", "Pulls that an upstream allows", "namespace")
        self.quota_remaining = self._gauge("upstream_quota_remaining", "Pulls that an upstream has left", "namespace")
        self.bad_verdicts = self._counter("bad_verdicts", "Content whose digest was wrong", "namespace")
        self.resumes = self._counter("resumes", "Broken bodies that were asked for again from there on", "namespace")

    def _make_of_storage(self) -> None:
        self.spools_dropped = self._counter("spools_dropped", "Bodies that the storage lost while they arrived")
        self.storage_errors = self._counter("storage_errors", "What the storage could not do", "operation")
        self.storage_size_bytes = self._gauge("storage_size_bytes", "The file system of the storage or spool")
        self.storage_used_bytes = self._gauge("storage_used_bytes", "What is taken of it, by whomever")
        self.storage_free_bytes = self._gauge("storage_free_bytes", "What of it is free for us")
        self.s3_up = self._gauge("s3_up", "1 while the bucket answers, 0 in an outage")
        self.s3_outages = self._gauge("s3_outages", "How many outages of the bucket there have been")
        self.s3_queue = self._gauge("s3_upload_queue", "Content that waits for its upload")
        self.s3_queue_bytes = self._gauge("s3_upload_queue_bytes", "How much that is")
        self.s3_tier_bytes = self._gauge("s3_tier_bytes", "What stays on the disk before the bucket")

    def _make_of_process(self) -> None:
        self.loop_lag_s = self._histogram("event_loop_lag_seconds", "How much too late a timer of the reactor fired")
        self.ready = self._gauge("ready", "1 while /readyz says yes")
        self.build_info = self._gauge(
            "build_info", "1; what runs here is in the labels", "version python twisted mode storage"
        )

    # --- verbs

    def know(self, namespaces: Iterable[str]) -> None:
        """Let these namespaces be labels; what was counted for others before stays, what they had left does not."""
        gone, self.known = self.known, frozenset(namespaces)
        for namespace in gone - self.known:
            for gauge in (self.quota_limit, self.quota_remaining):
                with suppress(KeyError):  # it never said anything of a quota
                    gauge.remove(namespace)

    def label(self, namespace: str | None) -> str:
        """Return a namespace as a label."""
        return namespace if namespace is not None and namespace in self.known else UNLISTED

    def _of(self, metric: _T, *labels: str) -> _T:
        """Return one time series of what every request counts, remembered: to look it up costs more than to count."""
        key = (metric, *labels)
        found = self._series.get(key)
        if found is None:
            found = self._series[key] = metric.labels(*labels)
        return cast(_T, found)

    def pull_ended(self, namespace: str | None, kind: str, outcome: str, sent_bytes: int) -> None:
        """Count a pull, however it ended.

        :param kind: ``manifest`` or ``blob``.
        :param outcome: as in the log.
        """
        label = self.label(namespace)
        self._of(self.pulls, label, kind, outcome).inc()
        self._of(self.client_bytes, label, kind).inc(sent_bytes)

    def request_ended(self, kind: str, status: int | None) -> None:
        """Count a request.

        :param kind: what it was for, one of a few words.
        :param status: None where the client left before there was one.
        """
        self._of(self.requests, kind, status_class(status)).inc()

    def began_to_answer(self, kind: str, outcome: str, after_s: float) -> None:
        """Measure the time to the first byte of a pull."""
        self._of(self.first_byte_s, kind, outcome).observe(after_s)

    def cap_reached(self, cap: str) -> None:
        """Count that a cap had its effect; one of :data:`CAPS`."""
        self.caps_reached.labels(cap).inc()

    def upstream_answered(self, namespace: str, method: str, status: int, after_s: float) -> None:
        """Count and measure a request to an upstream that was answered."""
        self.upstream_requests.labels(self.label(namespace), method, status_class(status)).inc()
        self.upstream_latency_s.labels(self.label(namespace)).observe(after_s)

    def upstream_failed(self, namespace: str, reason: str) -> None:
        """Count a request to an upstream that brought no answer; the reason is one of a few words."""
        self.upstream_errors.labels(self.label(namespace), reason).inc()

    def receiver(self, namespace: str) -> Callable[[int], None]:
        """Return what counts bytes from an upstream; kept for a whole body, it makes a chunk cost one addition."""
        return self.upstream_bytes.labels(self.label(namespace)).inc

    def token(self, namespace: str, result: str) -> None:
        """Count a token: ``kept``, ``fetched``, ``refused`` or ``failed``; of several who wait for one, the one."""
        self.tokens.labels(self.label(namespace), result).inc()

    def quota(self, namespace: str, limit: int, remaining: int) -> None:
        """Remember what an upstream says of its quota; only those that are configured have one of their own."""
        if namespace in self.known:
            self.quota_limit.labels(namespace).set(limit)
            self.quota_remaining.labels(namespace).set(remaining)

    def bad_verdict(self, namespace: str) -> None:
        """Count content whose digest was wrong."""
        self.bad_verdicts.labels(self.label(namespace)).inc()

    def resumed(self, namespace: str) -> None:
        """Count a body that is asked for from where it broke."""
        self.resumes.labels(self.label(namespace)).inc()

    def spool_dropped(self) -> None:
        """Count a body that the storage lost while it arrived; its pulls go on unkept."""
        self.spools_dropped.inc()

    def storage_failed(self, operation: str) -> None:
        """Count what the storage could not do: ``find``, ``read``, ``spool``, ``commit``, ``tag`` or ``remove``."""
        self.storage_errors.labels(operation).inc()

    def without_bucket(self) -> None:
        """Have no numbers of a bucket where there is none; once."""
        for gauge in (self.s3_up, self.s3_outages, self.s3_queue, self.s3_queue_bytes, self.s3_tier_bytes):
            self.registry.unregister(gauge)

    def exposition(self) -> bytes:
        """Return everything in the text format of Prometheus."""
        for look in tuple(self.looks):
            look()
        return generate_latest(_Plain(self.registry))

    def watch_process(self) -> None:
        """Measure this process too: memory, processor, descriptors, garbage; once."""
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)

    # --- making

    def _counter(self, name: str, text: str, labels: str = "") -> Counter:
        return Counter(f"ociproxy_{name}", text, labels.split(), registry=self.registry)

    def _gauge(self, name: str, text: str, labels: str = "") -> Gauge:
        return Gauge(f"ociproxy_{name}", text, labels.split(), registry=self.registry)

    def _histogram(self, name: str, text: str, labels: str = "") -> Histogram:
        return Histogram(f"ociproxy_{name}", text, labels.split(), registry=self.registry, buckets=LATENCY_BUCKETS_S)


@define(eq=False)
class _Plain(Collector):
    """A registry without the ages of its series, which nobody asks for and which take as much room as the series."""

    _registry: CollectorRegistry

    def collect(self) -> Iterable[Metric]:
        """Give what is measured; each metric is made anew for whoever asks."""
        for metric in self._registry.collect():
            metric.samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
            yield metric


def status_class(status: int | None) -> str:
    """Return a status as a label: ``2xx`` to ``5xx``, ``none`` where there was none."""
    return "none" if status is None else f"{status // 100}xx"
