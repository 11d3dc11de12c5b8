"""The keys ``tags`` and ``manifest_invalidation_time`` of an upstream."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from txociproxy.upstreams.entries.entry import TagRule
from txociproxy.upstreams.entries.read_keys import Reader, WrongValue, read_keys
from txociproxy.upstreams.entries.read_values import flag, one_of, patience, seconds, text

MAX_RULES = 256


def _match(value: object) -> str:
    """Read a glob; one that no tag can have is a slip."""
    glob = text(value)
    if not any(sign in glob for sign in ":*?["):
        raise ValueError("must be a glob over <repository>:<tag>, for example team/*:v* or *:latest")
    return glob


_READERS: Mapping[str, Reader] = MappingProxyType(
    {
        "match": _match,
        "keep": flag,
        "fresh_s": seconds,
        "swr_s": seconds,
        "stale_if_error_s": patience,
        "on_upstream_404": one_of("keep", "drop"),
    }
)
KEYS = tuple(_READERS)
_EXAMPLE = '{match: "team/*:v*", fresh_s: 1d}'


def read_tag_rules(value: object) -> tuple[TagRule, ...]:
    """Read the rules in their order.

    :raises WrongValue: something is wrong.
    """
    if not isinstance(value, list | tuple):
        raise ValueError(f"must be a list, for example [{_EXAMPLE}]")
    if len(value) > MAX_RULES:
        raise WrongValue(f"has {len(value)} rules; {MAX_RULES} are the most")
    rules = []
    for place, item in enumerate(value):
        try:
            rules.append(_rule(item))
        except WrongValue as error:
            raise error.below(place) from None
    return tuple(rules)


def _rule(item: object) -> TagRule:
    """Read one rule; a time for which a tag is believed means that it is."""
    values = read_keys(item, _READERS, _EXAMPLE)
    if "match" not in values:
        raise WrongValue(f"needs `match`, for example {_EXAMPLE}")
    if values.get("fresh_s", 0) > 0:
        values.setdefault("keep", True)
    return TagRule(**values)


def read_manifest_invalidation(value: object) -> TagRule:
    """Read for how long a tag's manifest is believed, where the settings let it be believed at all."""
    return TagRule("*", fresh_s=seconds(value))
