"""The dashboard and the alert rules name what is measured, and nothing else."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import yaml
from prometheus_client import Gauge
from prometheus_client.metrics import MetricWrapperBase
from twisted.trial.unittest import SynchronousTestCase

from txociproxy.metrics import CAPS, Metrics
from txociproxy.upstreams.connecting.failures import REASONS

DEPLOY = Path(__file__).parent.parent / "deploy"
DASHBOARD = DEPLOY / "grafana" / "txociproxy.json"
ALERTS = DEPLOY / "prometheus" / "alerts.yml"
SCRAPE = DEPLOY / "prometheus" / "scrape.yml"
OF_PROMETHEUS = frozenset({"instance", "job"})
SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
WORDS = frozenset(
    {
        *("sum", "min", "max", "count", "rate", "increase", "deriv", "histogram_quantile", "vector"),
        *("by", "without", "on", "or", "and", "unless", "offset"),
    }
)
GROUPING = ("by", "without", "on")
# What must hold of a value that a matcher names: each is one of these.
VALUES = {
    "outcome": frozenset({"hit", "miss", "join", "stale", "relay", "bypass", "error"}),
    "status": frozenset({"2xx", "3xx", "4xx", "5xx", "none"}),
    "cap": frozenset(CAPS),
    "reason": frozenset(REASONS),
    "job": frozenset({"ociproxy"}),
}
TOKEN = re.compile(
    r"""
    (?P<space>\s+)
    | (?P<duration>\[(?:\d+[smhd]|\$__rate_interval|\$__range)\])
    | (?P<since>\d+[smhd])
    | (?P<number>\d+(?:\.\d+)?)
    | (?P<text>"[^"\n]*")
    | (?P<name>[a-zA-Z_][a-zA-Z0-9_]*)
    | (?P<operator>=~|!~|!=|==|<=|>=|[-+*/<>=])
    | (?P<mark>[(){},])
    """,
    re.VERBOSE,
)
PAIRS = {"(": ")", "{": "}"}


def samples() -> dict[str, frozenset[str]]:
    """Return the name of each sample that can be there, with its labels."""
    metrics = Metrics()
    found = {"up": frozenset[str]()}
    own = [getattr(metrics, each.name) for each in attrs.fields(Metrics)]
    for metric in own:
        if isinstance(metric, MetricWrapperBase):
            for suffix in SUFFIXES[str(metric._type)]:
                labels = {*metric._labelnames, *(["le"] if suffix == "_bucket" else [])}
                found[metric._name + suffix] = frozenset(labels)
    metrics.watch_process()
    for family in metrics.registry.collect():
        for sample in family.samples:
            if not sample.name.endswith("_created"):  # these are not given out
                found.setdefault(sample.name, frozenset(sample.labels))
    return found


def tokens(expression: str) -> Iterator[tuple[str, str]]:
    """Take PromQL apart: kind and text of each token but spaces.

    :raises ValueError: something is there that is no PromQL.
    """
    at = 0
    while at < len(expression):
        match = TOKEN.match(expression, at)
        if match is None:
            raise ValueError(f"what is this: {expression[at:]!r}")
        at = match.end()
        if match.lastgroup != "space":
            yield str(match.lastgroup), match.group()


def slips(expression: str, known: dict[str, frozenset[str]]) -> list[str]:
    """Return what is wrong with an expression: brackets, names, labels and values of labels."""
    try:
        found = list(tokens(expression))
    except ValueError as error:
        return [str(error)]
    wrong: list[str] = []
    open_marks: list[str] = []
    used: list[str] = []
    grouped: list[str] = []
    for position, (kind, text) in enumerate(found):
        before = found[position - 1][1] if position else ""
        if kind == "mark" and text in PAIRS:
            open_marks.append("group" if text == "(" and before in GROUPING else text)
        elif kind == "mark" and text in PAIRS.values():
            last = open_marks.pop() if open_marks else ""
            if PAIRS.get("(" if last == "group" else last) != text:
                wrong.append(f"{text} closes nothing")
        elif kind == "name" and open_marks[-1:] == ["group"]:
            grouped.append(text)
        elif kind == "name" and open_marks[-1:] == ["{"]:
            value = found[position + 2][1].strip('"')
            wrong += matcher_slips(used[-1] if used else "", text, value, known)
        elif kind == "name" and text in known:
            used.append(text)
        elif kind == "name" and text not in WORDS:
            wrong.append(f"{text} is not measured")
    labels = OF_PROMETHEUS.union(*(known[name] for name in used))
    wrong += [f"{each} is no label of {used}" for each in grouped if each not in labels]
    return wrong + [f"{each} is never closed" for each in open_marks] + ([] if used else ["it asks for nothing"])


def matcher_slips(metric: str, label: str, value: str, known: dict[str, frozenset[str]]) -> list[str]:
    """Return what is wrong with one matcher of a selector."""
    if label not in known.get(metric, frozenset()) | OF_PROMETHEUS:
        return [f"{label} is no label of {metric}"]
    values = VALUES.get(label)
    return [] if values is None else [f"{label} is never {each}" for each in value.split("|") if each not in values]


class ExpressionTests(SynchronousTestCase):
    """The test's own reading of PromQL."""

    def test_what_is_right_passes(self) -> None:
        """All forms that are used."""
        for text in (
            'sum by (le, namespace) (rate(ociproxy_upstream_latency_seconds_bucket{instance=~"$instance"}[5m])) > 0.5',
            "ociproxy_bad_verdicts_total unless ociproxy_bad_verdicts_total offset 15m",
            'up{job="ociproxy"} == 0',
            "process_open_fds / process_max_fds",
        ):
            self.assertEqual(slips(text, samples()), [], text)

    def test_what_is_wrong_is_found(self) -> None:
        """Each kind of slip."""
        for text, word in (
            ("ociproxy_pulls", "not measured"),
            ("ociproxy_readers_total", "not measured"),
            ("ociproxy_upstream_latency_seconds", "not measured"),
            ("sum(ociproxy_readers", "never closed"),
            ("sum(ociproxy_readers))", "closes nothing"),
            ("sum(ociproxy_readers}", "closes nothing"),
            ('ociproxy_pulls_total{client="x"}', "no label"),
            ('ociproxy_pulls_total{outcome=~"hit|joined"}', "never joined"),
            ("sum by (outcome) (ociproxy_tokens_total)", "no label"),
            ("sum by (le) (ociproxy_time_to_first_byte_seconds_sum)", "no label"),
            ("rates(ociproxy_pulls_total[5m])", "not measured"),
            ("ociproxy_readers ; 1", "what is this"),
            ("1 > 0", "asks for nothing"),
        ):
            self.assertIn(word, " ".join(slips(text, samples())), text)


class DashboardTests(SynchronousTestCase):
    """deploy/grafana/txociproxy.json."""

    def setUp(self) -> None:
        """Read it."""
        self.dashboard: dict[str, Any] = json.loads(DASHBOARD.read_text("utf-8"))
        self.panels = [panel for panel in self.dashboard["panels"] if panel["type"] != "row"]

    def test_it_names_only_what_is_measured(self) -> None:
        """In every panel, and for its variables."""
        known = samples()
        for panel in self.panels:
            for target in panel["targets"]:
                self.assertEqual(slips(target["expr"], known), [], panel["title"])
                for label in re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]):
                    self.assertTrue(
                        any(label in known[name] | OF_PROMETHEUS for name in known if name in target["expr"])
                    )
        (variable,) = [each for each in self.dashboard["templating"]["list"] if each["type"] == "query"]
        metric, label = re.findall(r"\w+", variable["definition"])[1:]
        self.assertIn(label, known[metric] | OF_PROMETHEUS)

    def test_it_shows_everything_that_is_measured(self) -> None:
        """A metric that nobody sees is not worth its place."""
        shown = " ".join(target["expr"] for panel in self.panels for target in panel["targets"])
        hidden = [name for name in samples() if name.startswith("ociproxy_") and name not in shown]
        self.assertEqual([name for name in hidden if not name.endswith(("_sum", "_count"))], [])

    def test_grafana_can_read_it(self) -> None:
        """A schema that it knows, a data source to choose, and panels that lie side by side."""
        self.assertGreaterEqual(self.dashboard["schemaVersion"], 36)
        numbers = [panel["id"] for panel in self.dashboard["panels"]]
        self.assertEqual(len(set(numbers)), len(numbers))
        self.assertEqual([each["name"] for each in self.dashboard["templating"]["list"]], ["datasource", "instance"])
        for panel in self.panels:
            self.assertEqual(panel["datasource"]["uid"], "${datasource}")
            self.assertEqual({target["datasource"]["uid"] for target in panel["targets"]}, {"${datasource}"})
        taken: set[tuple[int, int]] = set()
        for panel in self.dashboard["panels"]:
            at = panel["gridPos"]
            self.assertLessEqual(at["x"] + at["w"], 24, panel["title"])
            cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
            self.assertFalse(cells & taken, panel["title"])
            taken |= cells


class AlertTests(SynchronousTestCase):
    """deploy/prometheus/."""

    def setUp(self) -> None:
        """Read the rules."""
        groups = yaml.safe_load(ALERTS.read_text("utf-8"))["groups"]
        self.rules: list[dict[str, Any]] = [rule for group in groups for rule in group["rules"]]

    def test_they_name_only_what_is_measured(self) -> None:
        """Every expression, and every label that a text names."""
        known = samples()
        for rule in self.rules:
            self.assertEqual(slips(rule["expr"], known), [], rule["alert"])
            used = [name for name in known if re.search(rf"\b{name}\b", rule["expr"])]
            labels = OF_PROMETHEUS.union(*(known[name] for name in used))
            for text in rule["annotations"].values():
                self.assertLessEqual(set(re.findall(r"\$labels\.(\w+)", text)), labels, rule["alert"])

    def test_each_says_what_is_wrong_and_what_to_do(self) -> None:
        """And how bad it is."""
        names = [rule["alert"] for rule in self.rules]
        self.assertEqual(len(set(names)), len(names))
        for rule in self.rules:
            self.assertEqual(set(rule["annotations"]), {"summary", "description"}, rule["alert"])
            self.assertIn(rule["labels"]["severity"], ("critical", "warning", "info"))
            self.assertTrue(all(rule["annotations"].values()))

    def test_the_texts_name_settings_that_exist(self) -> None:
        """Whoever reads them at night looks them up."""
        said = " ".join(rule["annotations"]["description"] for rule in self.rules)
        page = (DEPLOY.parent / "docs" / "configuration.md").read_text("utf-8")
        for name in ("min_free", "spool_max", "max_connections"):
            self.assertIn(name, said)
            self.assertIn(name, page)

    def test_the_example_scrapes_under_the_name_that_the_alerts_ask_for(self) -> None:
        """And reads the rules that lie beside it."""
        example = yaml.safe_load(SCRAPE.read_text("utf-8"))
        self.assertEqual(example["rule_files"], [ALERTS.name])
        (job,) = example["scrape_configs"]
        self.assertEqual((job["job_name"], job["metrics_path"]), ("ociproxy", "/metrics"))
        self.assertIn('job="ociproxy"', " ".join(rule["expr"] for rule in self.rules))

    def test_gauges_are_never_asked_for_their_rate(self) -> None:
        """It would mean nothing."""
        metrics = Metrics()
        gauges = {
            metric._name
            for metric in (getattr(metrics, each.name) for each in attrs.fields(Metrics))
            if isinstance(metric, Gauge)
        }
        dashboard = json.loads(DASHBOARD.read_text("utf-8"))
        asked = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
        for text in (*asked, *(rule["expr"] for rule in self.rules)):
            counted = re.findall(r"(?:rate|increase)\((\w+)", text)
            self.assertEqual([name for name in counted if name in gauges], [], text)
