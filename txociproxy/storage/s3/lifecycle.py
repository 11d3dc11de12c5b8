"""How long a bucket keeps what nobody asks for: our rules, among those of the bucket's owner."""

from __future__ import annotations

import hashlib
from typing import Any

from txociproxy.storage.s3.bucket import Bucket
from txociproxy.storage.s3.connecting import Answered
from txociproxy.storage.s3.keys import Keys

Rule = dict[str, Any]
# After so many days parts that nobody has put together are let go; our own sweep comes earlier (RULES G4).
PARTS_DAYS = 1
# S3 takes no longer name of a rule (S3 API reference, LifecycleRule); a prefix may be longer.
MOST_NAME_BYTES = 255
_NAME = "txociproxy"


def merged(rules: list[Rule], keys: Keys, days: int) -> list[Rule]:
    """Return the bucket's rules with ours among them, in their place; those of others stay as they are.

    :param days: for which content and tags are kept; 0 takes our rules out.
    """
    ours = {_id(scope): scope for scope in (keys.content_scope, keys.tag_scope)}
    # S3 takes no configuration that has rules of the old form, with a prefix and no filter, beside those of the new.
    is_old = any("Prefix" in rule for rule in rules if rule.get("ID") not in ours)
    missing = {name: _rule(name, scope, days, is_old) for name, scope in ours.items()} if days else {}
    kept = []
    for rule in rules:
        name = rule.get("ID")
        if name not in ours:
            kept.append(rule)
        elif name in missing:
            kept.append(missing.pop(name))
    return [*kept, *missing.values()]


def apply_lifecycle(bucket: Bucket, keys: Keys, days: int) -> bool:
    """Bring our rules into the bucket; False says that they were there already.  Blocks.

    :raises S3Trouble: it could not be done.
    """
    found = _configuration(bucket)
    rules = found.get("Rules", [])
    wanted = merged(rules, keys, days)
    if [_meaning(rule) for rule in wanted] == [_meaning(rule) for rule in rules]:
        return False
    if wanted:
        more = {name: found[name] for name in ("TransitionDefaultMinimumObjectSize",) if name in found}
        bucket.ask("put_bucket_lifecycle_configuration", LifecycleConfiguration={"Rules": wanted}, **more)
    else:
        bucket.ask("delete_bucket_lifecycle")
    return True


def _configuration(bucket: Bucket) -> dict[str, Any]:
    """Return what the bucket has; empty if it has none."""
    try:
        found = bucket.ask("get_bucket_lifecycle_configuration")
    except Answered as no:
        if no.code != "NoSuchLifecycleConfiguration":
            raise
        return {}
    return dict(found)


def _id(scope: str) -> str:
    """Return the name of the rule for a scope, which no other scope has."""
    name = f"{_NAME} {scope}"
    if len(name.encode()) > MOST_NAME_BYTES:
        name = f"{_NAME} {hashlib.sha256(scope.encode()).hexdigest()}"
    return name


def _rule(name: str, scope: str, days: int, is_old: bool) -> Rule:
    """Make one of our rules."""
    where = {"Prefix": scope} if is_old else {"Filter": {"Prefix": scope}}
    return {
        "ID": name,
        **where,
        "Status": "Enabled",
        "Expiration": {"Days": days},
        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": PARTS_DAYS},
    }


def _meaning(rule: Rule) -> Rule:
    """Return a rule with its prefix in one form: servers give it back in the one that they like best."""
    where = rule.get("Filter", {})
    if set(where) - {"Prefix"}:
        return rule
    rest = {name: value for name, value in rule.items() if name != "Filter"}
    return {**rest, "Prefix": where.get("Prefix", rule.get("Prefix"))}
