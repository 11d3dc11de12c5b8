"""What an exposition says, as numbers that can be compared: one per series, by its name and labels."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.parser import text_string_to_metric_families

PREFIX = "ociproxy_"
# How long things take is no matter of a test: of a histogram only the count is compared.
_TIMES = ("_bucket", "_sum")


def numbers(exposition: bytes) -> dict[str, float]:
    """Return the series of our own, each as ``name{label="value",...}``, labels by name, without the prefix.

    A series of zero is left out: a counter that nothing was counted by need not be there.
    """
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(exposition.decode("utf-8")):
        for sample in family.samples:
            if sample.name.startswith(PREFIX) and not sample.name.endswith(_TIMES) and sample.value:
                labels = ",".join(f'{name}="{value}"' for name, value in sample.labels.items())
                name = sample.name.removeprefix(PREFIX)
                found[f"{name}{{{labels}}}" if labels else name] = sample.value
    return found


def news(before: dict[str, float], now: dict[str, float], besides: Iterable[str] = ()) -> dict[str, float]:
    """Return how much each series has changed; those that have not are left out.

    :param besides: how the names of series begin that are not of interest.
    """
    changes = {name: now.get(name, 0) - before.get(name, 0) for name in {**before, **now}}
    return {name: by for name, by in changes.items() if by and not name.startswith(tuple(besides))}
