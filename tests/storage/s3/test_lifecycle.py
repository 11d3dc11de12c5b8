"""Lifecycle rules: ours are where they belong, and nobody else's is touched."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.storage.s3.between import Between, refuse
from tests.storage.s3.server import fresh
from txociproxy.oci.names import Digest
from txociproxy.storage.s3.bucket import Bucket
from txociproxy.storage.s3.keys import Keys
from txociproxy.storage.s3.lifecycle import apply_lifecycle, merged
from txociproxy.storage.s3.trouble import S3Trouble

KEYS = Keys("cache")
OWNERS = [
    {"ID": "logs", "Filter": {"Prefix": "logs/"}, "Status": "Enabled", "Expiration": {"Days": 3}},
    {
        "ID": "versions",
        "Filter": {"Prefix": ""},
        "Status": "Disabled",
        "NoncurrentVersionExpiration": {"NoncurrentDays": 5},
    },
]
RULES = st.lists(
    st.fixed_dictionaries(
        {
            "Status": st.sampled_from(["Enabled", "Disabled"]),
            "Expiration": st.fixed_dictionaries({"Days": st.integers(1, 9)}),
        },
        optional={
            "ID": st.sampled_from(
                ["a", "txociproxy", "txociproxy cache/blobs/", "txociproxy cache/tags/", "txociproxy x/"]
            ),
            "Filter": st.fixed_dictionaries({"Prefix": st.sampled_from(["", "cache/blobs/"])}),
        },
    ),
    max_size=6,
)


def ours(rules: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rules that are ours by their names."""
    return [rule for rule in rules if rule.get("ID") in ("txociproxy cache/blobs/", "txociproxy cache/tags/")]


def others(rules: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return those that are not."""
    return [rule for rule in rules if rule not in ours(rules)]


class MergedTests(SynchronousTestCase):
    """The rules as they should be."""

    def test_ours_are_scoped_to_content_and_tags(self) -> None:
        """The marker and the leases are not let go; parts of uploads are, after a day."""
        self.assertEqual(
            merged([], KEYS, 28),
            [
                {
                    "ID": f"txociproxy {scope}",
                    "Filter": {"Prefix": scope},
                    "Status": "Enabled",
                    "Expiration": {"Days": 28},
                    "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 1},
                }
                for scope in ("cache/blobs/", "cache/tags/")
            ],
        )

    def test_two_stores_in_one_bucket_have_rules_of_their_own(self) -> None:
        """Their names hold their prefixes."""
        both = merged(merged(OWNERS, KEYS, 28), Keys(""), 7)
        self.assertEqual([rule["ID"] for rule in both[4:]], ["txociproxy blobs/", "txociproxy tags/"])
        self.assertEqual(merged(both, KEYS, 0), [*OWNERS, *both[4:]])

    def test_a_long_prefix_has_rules_that_s3_takes(self) -> None:
        """Their names are shortened, and are still its own."""
        found: list[dict[str, Any]] = []
        for prefix in ("a" * 512, "a" * 511 + "b", "ä" * 125, "a" * 200):
            found = merged(found, Keys(prefix), 28)
        names = [rule["ID"] for rule in found]
        self.assertEqual((len(names), len(set(names))), (8, 8))
        self.assertLessEqual(max(len(name.encode()) for name in names), 255)
        self.assertEqual(names[-1], f"txociproxy {'a' * 200}/tags/")
        self.assertEqual(merged(found, Keys("a" * 512), 0), found[2:])

    def test_a_prefix_that_another_begins_with_is_another_store(self) -> None:
        """No rule of one holds for a key of the other."""
        one, other = Keys("a"), Keys("ab")
        scopes = [rule["Filter"]["Prefix"] for rule in merged([], one, 28)]
        digest = Digest.of(b"x")
        for key in (other.content(digest), other.sidecar(digest), other.marker, other.lease(digest), one.marker):
            self.assertFalse(key.startswith(tuple(scopes)), key)

    @settings(deadline=None)
    @given(RULES, st.integers(0, 30))
    def test_nobody_elses_rule_is_touched(self, rules: list[dict[str, Any]], days: int) -> None:
        """Nor moved; ours are there once, and to merge again changes nothing."""
        found = merged(rules, KEYS, days)
        self.assertEqual(others(found), others(rules))
        self.assertEqual([rule["Expiration"]["Days"] for rule in ours(found)], [days, days] if days else [])
        self.assertEqual(merged(found, KEYS, days), found)

    def test_a_rule_of_ours_stays_in_its_place(self) -> None:
        """A server that sorts them shows no change."""
        rules = [*merged([], KEYS, 9)[::-1], *OWNERS]
        self.assertEqual([rule["ID"] for rule in merged(rules, KEYS, 28)], [rule["ID"] for rule in rules])

    def test_beside_rules_of_the_old_form_ours_are_too(self) -> None:
        """S3 takes no mixture."""
        old = {"ID": "old", "Prefix": "logs/", "Status": "Enabled", "Expiration": {"Days": 3}}
        found = merged([old], KEYS, 28)
        self.assertEqual(found[0], old)
        self.assertEqual(
            [(rule["Prefix"], "Filter" in rule) for rule in found[1:]],
            [("cache/blobs/", False), ("cache/tags/", False)],
        )

    def test_ours_in_the_old_form_become_new(self) -> None:
        """The owner's rules alone say which form it is to be."""
        old = [
            {**{name: rule[name] for name in rule if name != "Filter"}, "Prefix": "x"} for rule in merged([], KEYS, 9)
        ]
        self.assertEqual(merged(old, KEYS, 28), merged([], KEYS, 28))


class ApplyTests(SynchronousTestCase):
    """The rules in a bucket."""

    def setUp(self) -> None:
        """Make a bucket."""
        self.here = fresh()
        self.between = Between(self.here.client)
        self.bucket = Bucket(self.between, self.here.settings.bucket)

    def plant(self, rules: Any) -> None:
        """Put rules into the bucket as its owner does."""
        self.here.client.put_bucket_lifecycle_configuration(
            Bucket=self.bucket.name, LifecycleConfiguration={"Rules": rules}
        )

    def rules(self) -> list[dict[str, Any]]:
        """Return the rules in the bucket."""
        found = self.here.client.get_bucket_lifecycle_configuration(Bucket=self.bucket.name)["Rules"]
        assert isinstance(found, list)
        return found

    def test_ours_come_once(self) -> None:
        """A second start changes nothing, and puts nothing."""
        self.assertEqual([apply_lifecycle(self.bucket, KEYS, 28) for _ in range(2)], [True, False])
        self.assertEqual([rule["Expiration"]["Days"] for rule in self.rules()], [28, 28])
        self.assertEqual(self.between.operations.count("put_bucket_lifecycle_configuration"), 1)

    def test_the_owners_rules_survive(self) -> None:
        """Every change of ours, and their end."""
        self.plant(OWNERS)
        before = self.rules()
        for days in (28, 7, 0):
            self.assertTrue(apply_lifecycle(self.bucket, KEYS, days))
            self.assertEqual(self.rules()[:2], before)
            self.assertEqual([rule["Expiration"]["Days"] for rule in self.rules()[2:]], [days, days] if days else [])

    def test_the_last_rule_takes_the_configuration_with_it(self) -> None:
        """S3 takes no empty one; without any there is nothing to do."""
        self.assertFalse(apply_lifecycle(self.bucket, KEYS, 0))
        apply_lifecycle(self.bucket, KEYS, 28)
        self.assertTrue(apply_lifecycle(self.bucket, KEYS, 0))
        self.assertRaises(self.here.client.exceptions.ClientError, self.rules)
        self.assertFalse(apply_lifecycle(self.bucket, KEYS, 0))

    def told(self, change: Callable[[dict[str, Any]], Any]) -> None:
        """Let the server tell its rules in a form of its own."""

        def say(real: Callable[..., Any], parameters: dict[str, Any]) -> Any:
            answer = real(**parameters)
            return {**answer, "Rules": [change(rule) for rule in answer["Rules"]][::-1]}

        self.between.says["get_bucket_lifecycle_configuration"] = say

    def test_a_servers_own_form_is_no_change(self) -> None:
        """Some sort the rules, some tell the prefix without a filter."""
        apply_lifecycle(self.bucket, KEYS, 28)

        def flat(rule: dict[str, Any]) -> dict[str, Any]:
            return {**{name: rule[name] for name in rule if name != "Filter"}, "Prefix": rule["Filter"]["Prefix"]}

        self.told(flat)
        self.assertFalse(apply_lifecycle(self.bucket, KEYS, 28))

    def test_a_rule_of_ours_that_somebody_has_changed_is_mended(self) -> None:
        """Whatever was changed about it."""
        for change in (
            {"Status": "Disabled"},
            {"Expiration": {"Days": 1}},
            {"Filter": {"Prefix": ""}},
            {"Filter": {"And": {"Prefix": "cache/blobs/", "Tags": [{"Key": "a", "Value": "b"}]}}},
        ):
            apply_lifecycle(self.bucket, KEYS, 28)
            wanted = self.rules()
            self.plant([{**wanted[0], **change}, wanted[1]])
            self.assertTrue(apply_lifecycle(self.bucket, KEYS, 28), change)
            self.assertEqual(self.rules(), wanted)

    def test_a_tag_in_a_filter_of_ours_is_mended(self) -> None:
        """Ceph tells prefix and tag side by side; the rule would let nothing go."""
        apply_lifecycle(self.bucket, KEYS, 28)
        self.told(lambda rule: {**rule, "Filter": {**rule["Filter"], "Tag": {"Key": "a", "Value": "b"}}})
        self.assertTrue(apply_lifecycle(self.bucket, KEYS, 28))

    def test_what_else_the_configuration_says_is_kept(self) -> None:
        """It stands beside the rules, and would fall back to its default."""
        said = "varies_by_storage_class"
        self.between.says["get_bucket_lifecycle_configuration"] = lambda real, parameters: {
            "Rules": OWNERS,
            "TransitionDefaultMinimumObjectSize": said,
        }
        apply_lifecycle(self.bucket, KEYS, 28)
        put = self.between.parameters("put_bucket_lifecycle_configuration")[0]
        self.assertEqual(put["TransitionDefaultMinimumObjectSize"], said)

    def test_a_missing_right_changes_nothing(self) -> None:
        """Without knowing the owner's rules none is put."""
        self.between.says["get_bucket_lifecycle_configuration"] = refuse(403, "AccessDenied")
        self.assertRaises(S3Trouble, apply_lifecycle, self.bucket, KEYS, 28)
        self.assertEqual(self.between.operations, ["get_bucket_lifecycle_configuration"])
