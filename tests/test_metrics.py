"""What is measured: bounded labels (RULES A6), names that the docs know, and what it costs."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

from attrs import fields
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.parser import text_string_to_metric_families
from twisted.trial.unittest import SynchronousTestCase

from tests.numbers import numbers
from txociproxy.metrics import CAPS, UNLISTED, Metrics, status_class

PAGE = Path(__file__).parent.parent / "docs" / "metrics.md"
OUTCOMES = ("hit", "miss", "join", "stale", "relay", "bypass", "error")
# Whatever takes a namespace.
VERBS: tuple[Callable[[Metrics, str], object], ...] = (
    lambda metrics, namespace: metrics.pull_ended(namespace, "blob", "hit", 1),
    lambda metrics, namespace: metrics.upstream_answered(namespace, "GET", 200, 0.1),
    lambda metrics, namespace: metrics.upstream_failed(namespace, "dns"),
    lambda metrics, namespace: metrics.receiver(namespace)(1),
    lambda metrics, namespace: metrics.token(namespace, "kept"),
    lambda metrics, namespace: metrics.quota(namespace, 100, 50),
    lambda metrics, namespace: metrics.bad_verdict(namespace),
    lambda metrics, namespace: metrics.resumed(namespace),
)


def full(namespaces: int) -> Metrics:
    """Return metrics in which every label that may be there is there."""
    names = [f"registry-{number}.example" for number in range(namespaces)]
    metrics = Metrics()
    metrics.know(names)
    for name in (*names, UNLISTED):
        for verb in VERBS:
            verb(metrics, name)
        for kind in ("manifest", "blob"):
            for outcome in OUTCOMES:
                metrics.pull_ended(name, kind, outcome, 1)
                metrics.began_to_answer(kind, outcome, 0.1)
        for method in ("GET", "HEAD"):
            for status in (200, 300, 400, 500):
                metrics.upstream_answered(name, method, status, 0.1)
        for result in ("kept", "fetched", "refused", "failed"):
            metrics.token(name, result)
    for cap in CAPS:
        metrics.cap_reached(cap)
    return metrics


class LabelsTests(SynchronousTestCase):
    """Nothing that a client sends becomes a label."""

    def test_what_is_not_configured_is_unlisted(self) -> None:
        """One series for all of them, in each metric."""
        metrics = Metrics(known=frozenset({"docker.io"}))
        for name in ("docker.io", "evil.example", "evil.example:5000", UNLISTED, ""):
            metrics.pull_ended(name, "blob", "hit", 10)
        metrics.pull_ended(None, "blob", "error", 0)
        self.assertEqual(
            numbers(metrics.exposition()),
            {
                'pulls_total{kind="blob",namespace="docker.io",outcome="hit"}': 1,
                'pulls_total{kind="blob",namespace="unlisted",outcome="hit"}': 4,
                'pulls_total{kind="blob",namespace="unlisted",outcome="error"}': 1,
                'client_bytes_total{kind="blob",namespace="docker.io"}': 10,
                'client_bytes_total{kind="blob",namespace="unlisted"}': 40,
            },
        )

    @settings(deadline=None)
    @given(st.lists(st.text(), max_size=20))
    def test_no_namespace_adds_a_series(self, namespaces: list[str]) -> None:
        """Whatever it is called, and whoever counts it."""
        metrics = Metrics(known=frozenset({"docker.io"}))
        for verb in VERBS:
            verb(metrics, "evil.example")
        before = set(numbers(metrics.exposition()))
        for namespace in namespaces:
            for verb in VERBS:
                verb(metrics, namespace if namespace != "docker.io" else "")
        self.assertEqual(set(numbers(metrics.exposition())), before)

    def test_a_quota_of_what_is_not_configured_is_no_series(self) -> None:
        """Two of them would overwrite each other's."""
        metrics = Metrics(known=frozenset({"docker.io"}))
        metrics.quota("evil.example", 100, 50)
        metrics.quota("docker.io", 200, 180)
        self.assertEqual(
            numbers(metrics.exposition()),
            {
                'upstream_quota_limit{namespace="docker.io"}': 200,
                'upstream_quota_remaining{namespace="docker.io"}': 180,
            },
        )

    def test_what_is_configured_later_has_a_label_from_then_on(self) -> None:
        """And what was counted before stays where it was."""
        metrics = Metrics()
        metrics.bad_verdict("docker.io")
        metrics.know(["docker.io"])
        metrics.bad_verdict("docker.io")
        found = numbers(metrics.exposition())
        for namespace in ("docker.io", UNLISTED):
            self.assertEqual(found[f'bad_verdicts_total{{namespace="{namespace}"}}'], 1)

    def test_what_is_configured_no_more_has_no_quota(self) -> None:
        """Nobody asks it any more, so that its last word would stand for ever; the others keep theirs."""
        metrics = Metrics()
        metrics.know(["docker.io", "ghcr.io", "quay.io"])
        metrics.quota("docker.io", 100, 5)
        metrics.quota("ghcr.io", 100, 6)
        metrics.know(["ghcr.io"])
        found = {name: value for name, value in numbers(metrics.exposition()).items() if "quota" in name}
        labels = '{namespace="ghcr.io"}'
        self.assertEqual(found, {f"upstream_quota_limit{labels}": 100, f"upstream_quota_remaining{labels}": 6})

    def test_statuses_are_classes(self) -> None:
        """Six labels at most."""
        classes = [status_class(status) for status in (200, 206, 307, 404, 503)]
        self.assertEqual(classes, ["2xx", "2xx", "3xx", "4xx", "5xx"])
        self.assertEqual(status_class(None), "none")


class ExpositionTests(SynchronousTestCase):
    """The text that is scraped."""

    def test_it_has_no_ages(self) -> None:
        """As many series again, which nobody asks for."""
        text = full(2).exposition().decode()
        self.assertNotIn("_created", text)
        self.assertIn('ociproxy_tokens_total{namespace="unlisted",result="kept"}', text)
        self.assertIn("ociproxy_time_to_first_byte_seconds_count", text)

    def test_it_changes_nothing(self) -> None:
        """Two that are asked for one after the other are the same."""
        metrics = full(2)
        self.assertEqual(metrics.exposition(), metrics.exposition())

    def test_two_houses_share_nothing(self) -> None:
        """There is no registry of all."""
        one, other = Metrics(), Metrics()
        one.bad_verdict("docker.io")
        self.assertEqual(numbers(other.exposition()), {})

    def test_a_process_can_be_watched(self) -> None:
        """Memory, processor, descriptors, garbage, and the Python that runs."""
        metrics = Metrics()
        metrics.watch_process()
        names = {family.name for family in text_string_to_metric_families(metrics.exposition().decode())}
        for name in ("process_resident_memory_bytes", "process_cpu_seconds", "process_open_fds", "process_max_fds"):
            self.assertIn(name, names)
        self.assertTrue({"python_info", "python_gc_collections", "process_start_time_seconds"} <= names)

    def test_it_takes_little_time(self) -> None:
        """It is made on the reactor's thread: ten namespaces with every label there is."""
        metrics = full(10)
        metrics.watch_process()
        times = []
        for _ in range(5):
            began_s = time.perf_counter()
            metrics.exposition()
            times.append(time.perf_counter() - began_s)
        self.assertLess(min(times), 0.1, "about 10 ms on a machine that has nothing else to do")


class PageTests(SynchronousTestCase):
    """docs/metrics.md names what the code has, and nothing else."""

    def test_the_page_and_the_code_name_the_same(self) -> None:
        """Each metric with its kind and its labels."""
        rows = re.findall(r"^\| `(ociproxy_\w+)` \| (\w+) \|([^|]*)\|", PAGE.read_text("utf-8"), re.MULTILINE)
        told = {name: (kind, set(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}
        self.assertEqual(len(told), len(rows), "a metric stands there twice")
        self.assertEqual(told, _metrics())

    def test_the_page_names_every_cap(self) -> None:
        """By the words of its label."""
        text = PAGE.read_text("utf-8")
        self.assertEqual([cap for cap in CAPS if f"`{cap}`" not in text], [])


def _metrics() -> dict[str, tuple[str, set[str]]]:
    """Return kind and labels of each metric of ours, by the name that it is scraped under."""
    metrics = Metrics()
    held = (getattr(metrics, field.name) for field in fields(Metrics))
    return {
        name_of(metric): (str(metric._type), set(metric._labelnames))
        for metric in held
        if isinstance(metric, MetricWrapperBase)
    }


def name_of(metric: MetricWrapperBase) -> str:
    """Return the name that a metric is scraped under."""
    name = metric.describe()[0].name  # type: ignore[index]
    return f"{name}_total" if metric._type == "counter" else name
