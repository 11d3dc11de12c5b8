"""Entries out of the configuration file."""

from __future__ import annotations

import contextlib
import math
import os

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txociproxy.upstreams.entries.entry import Entry, TagRule, Tls
from txociproxy.upstreams.entries.reading import KEYS
from txociproxy.upstreams.entries.table import entry_from_mapping, entry_from_url


class EntryFromMappingTests(SynchronousTestCase):
    """What is right makes an entry."""

    def test_a_registry_of_the_shipped_table_needs_its_name_only(self) -> None:
        """Its URL is known, also under another of its names."""
        self.assertEqual(entry_from_mapping({"namespace": "index.docker.io"}).urls, ("https://registry-1.docker.io",))
        self.assertEqual(entry_from_mapping({"namespace": "index.docker.io"}).namespace, "docker.io")

    def test_any_other_name_leads_to_https(self) -> None:
        """As clients would go there."""
        self.assertEqual(entry_from_mapping({"namespace": "reg.corp:5000"}).urls, ("https://reg.corp:5000",))

    def test_a_url_is_a_namespace_of_its_host(self) -> None:
        """With its port, unless that is 443 with https."""
        self.assertEqual(entry_from_url("http://127.0.0.1:5000/"), Entry("127.0.0.1:5000", ("http://127.0.0.1:5000",)))
        self.assertEqual(entry_from_url("https://Reg.Corp:443").namespace, "reg.corp")
        self.assertEqual(entry_from_mapping({"urls": ["http://reg:5000/v2/"]}), Entry("reg:5000", ("http://reg:5000",)))

    def test_every_key_is_read(self) -> None:
        """One text alone is a list of one."""
        entry = entry_from_mapping(
            {
                "namespace": "corp",
                "urls": ["http://a:1/prefix/", "https://b"],
                "hosts": "Corp.Cache",
                "library": True,
                "client_credentials": "ignore",
                "origins": ["https://CDN.corp/x"],
                "token_realm": "https://sso.corp/token",
                "connect_timeout_s": 3,
                "max_connections": 8,
            }
        )
        self.assertEqual(entry.urls, ("http://a:1/prefix", "https://b"))
        self.assertEqual((entry.hosts, entry.library, entry.origins), (("corp.cache",), True, ("https://cdn.corp",)))
        self.assertEqual((entry.client_credentials, entry.connect_timeout_s), ("ignore", 3.0))

    def test_a_mistake_names_key_value_and_remedy(self) -> None:
        """One line each."""
        for mapping, words in (
            ({"namespace": "x", "urlls": []}, ("upstreams[x].urlls", "unknown", "did you mean `urls`?")),
            ({"namespace": "x", "zzzz": []}, ("upstreams[x].zzzz", "known keys are namespace, urls, hosts")),
            ({"namespace": "x", "urls": ["ftp://x"]}, ("upstreams[x].urls", "ftp://x", "http")),
            ({"namespace": "x", "urls": []}, ("upstreams[x].urls", "[]", "https://")),
            ({"namespace": "x", "connect_timeout_s": True}, ("connect_timeout_s", "True", "seconds")),
            ({"namespace": "x", "max_connections": 0}, ("max_connections", "0", "1 to")),
            ({"namespace": "x", "client_credentials": "yes"}, ("client_credentials", "yes", "`ignore`")),
            ({"namespace": "x", "hosts": ["https://cache.x/"]}, ("upstreams[x].hosts", "https://cache.x/", "hosts as")),
            (
                {"namespace": "x", "urls": ["http://x:port"]},
                ("upstreams[x].urls", "http://x:port", "a port that is none"),
            ),
            ({"namespace": "not a host"}, ("namespace", "not a host", "docker.io")),
            ({"namespace": "x", "urls": ["http://x?a=b"]}, ("urls", "query")),
            ({}, ("namespace", "docker.io")),
            ("docker.io", ("mapping", "{namespace: docker.io}")),
        ):
            message = str(self.assertRaises(ValueError, entry_from_mapping, mapping))
            self.assertNotIn("\n", message)
            for word in words:
                self.assertIn(word, message)

    def test_keys_of_other_programs_name_ours(self) -> None:
        """Their files are where people come from."""
        for key, ours in (
            ("host", "`urls`"),
            ("name", "`namespace`"),
            ("auth", "credentials: {username"),
            ("username", "credentials: {username"),
            ("password", "credentials: {username"),
            ("accept_invalid_certs", "tls: {verify: false}"),
            ("description", "#"),
            ("password:hunter2", "a space after its colon"),
            ("urls:hunter2", "a space after its colon"),
        ):
            message = str(self.assertRaises(ValueError, entry_from_mapping, {"namespace": "x", key: "hunter2"}))
            self.assertIn(f"upstreams[x].{key.partition(':')[0]}: unknown key; ", message)
            self.assertIn(ours, message)
            self.assertNotIn("hunter2", message)

    def test_durations_are_written_as_in_the_settings(self) -> None:
        """With or without a unit; nothing and more than an hour is no deadline."""
        for value, seconds in ((3, 3.0), (0.5, 0.5), ("3", 3.0), ("30s", 30.0), ("5m", 300.0), ("1h", 3600.0)):
            self.assertEqual(entry_from_mapping({"namespace": "x", "deadline_s": value}).deadline_s, seconds)
        for wrong in (0, "0s", "2h", -1, True, "soon", None, math.nan, math.inf, [3]):
            mapping = {"namespace": "x", "deadline_s": wrong}
            self.assertIn("up to 3600", str(self.assertRaises(ValueError, entry_from_mapping, mapping)))

    def test_a_part_of_a_quota(self) -> None:
        """A number from 0 to 1, or a percentage."""
        for value, part in ((0, 0.0), (1, 1.0), (0.25, 0.25), ("10%", 0.1), ("2.5 %", 0.025), ("100%", 1.0)):
            self.assertEqual(entry_from_mapping({"namespace": "x", "quota_low": value}).quota_low, part)
        for wrong in (2, -1, "10", "101%", "x%", True, None, math.nan):
            mapping = {"namespace": "x", "quota_low": wrong}
            self.assertIn("percentage", str(self.assertRaises(ValueError, entry_from_mapping, mapping)))

    def test_a_password_in_a_url_is_refused_and_not_shown(self) -> None:
        """Neither as namespace nor in urls, whatever characters it has."""
        for password in ("secret", "a/secret", "secret/b", "a@secret", "secret'b", "a secret", "9/secret"):
            url = f"https://u:{password}@x"
            for mapping in (
                {"namespace": url},
                {"namespace": "x", "urls": url},
                {"namespace": url, "urls": "https://x"},
            ):
                self.assertNotIn("secret", str(self.assertRaises(ValueError, entry_from_mapping, mapping)))

    def test_whatever_the_file_says_only_value_errors_come(self) -> None:
        """Nothing else reaches the person at the start."""
        keys = st.sampled_from([*KEYS, "zz"])
        leaves = st.one_of(st.text(), st.none(), st.integers(), st.floats(), st.booleans(), st.just("namespace"))
        inner = st.sampled_from(["username", "password", "ca", "verify", "match", "fresh_s", "ecr", "helper", "zz"])
        values = st.recursive(leaves, lambda below: st.lists(below) | st.dictionaries(inner, below), max_leaves=5)

        @settings(deadline=None, max_examples=200)
        @given(st.dictionaries(keys, values))
        def holds(mapping: dict[str, object]) -> None:
            with contextlib.suppress(ValueError):
                entry_from_mapping(mapping)

        holds()


class TlsTests(SynchronousTestCase):
    """The key ``tls``."""

    def tls(self, value: object) -> Tls | None:
        """Return what an upstream with this ``tls`` has."""
        return entry_from_mapping({"namespace": "x", "tls": value}).tls

    def test_paths_become_absolute(self) -> None:
        """The process may go elsewhere later."""
        tls = self.tls({"ca": "ca.pem", "cert": "/c.pem", "key": "/k.pem", "verify": False})
        self.assertEqual(tls, Tls(os.path.abspath("ca.pem"), "/c.pem", "/k.pem", False))

    def test_nothing_said_is_the_default(self) -> None:
        """Verified by the system's trust; a certificate may have its key in its own file."""
        self.assertEqual(self.tls({}), Tls())
        self.assertEqual(self.tls({"cert": "/c.pem"}), Tls(cert="/c.pem"))

    def test_the_other_spelling_of_verify(self) -> None:
        """``insecure_skip_verify`` is taken, in place of ``verify``."""
        self.assertEqual(self.tls({"insecure_skip_verify": True}), Tls(verify=False))
        self.assertEqual(self.tls({"insecure_skip_verify": False}), Tls(verify=True))
        error = str(self.assertRaises(ValueError, self.tls, {"insecure_skip_verify": True, "verify": False}))
        self.assertEqual(error, "upstreams[x].tls.insecure_skip_verify: says the same as `verify`; keep one of them")

    def test_a_mistake_names_its_key_and_no_value(self) -> None:
        """Somebody may have pasted a key."""
        for value, where in (
            ({"key": "/hunter2"}, "tls.key: needs `cert`"),
            ({"cert": "/c", "key": "-----BEGIN hunter2"}, "tls.key: must be the path"),
            ({"cert": "/c", "key": "hunter2\nhunter2"}, "tls.key: must be the path"),
            ({"ca": 7}, "tls.ca: must be the path"),
            ({"ca": ""}, "tls.ca: must be the path"),
            ({"verify": "hunter2"}, "tls.verify: must be true or false"),
            ({"hunter2": True}, "tls.?: unknown key; known keys are ca, cert, key, verify"),
            ({7: True}, "tls: has an unknown key"),
            (True, "tls: must be a mapping such as {ca: /etc/ociproxy/ca.pem}; whether TLS is spoken stands in `urls`"),
            ("hunter2", "tls: must be a mapping"),
            (None, "tls: must be a mapping"),
        ):
            error = str(self.assertRaises(ValueError, self.tls, value))
            self.assertIn(f"upstreams[x].{where}", error)
            self.assertNotIn("hunter2", error)


class TagRuleTests(SynchronousTestCase):
    """The keys ``tags``, ``manifest_invalidation_time`` and ``blob_invalidation_time``."""

    def rules(self, **keys: object) -> tuple[TagRule, ...]:
        """Return the rules of an upstream."""
        return entry_from_mapping({"namespace": "x", **keys}).tag_rules

    def test_rules_keep_their_order(self) -> None:
        """The first that matches counts."""
        tags = [
            {"match": "team/*:v*", "fresh_s": "1d", "swr_s": 60, "stale_if_error_s": "unlimited"},
            {"match": "*:latest", "keep": False, "on_upstream_404": "drop"},
            {"match": "*", "fresh_s": 0},
        ]
        self.assertEqual(
            self.rules(tags=tags),
            (
                TagRule("team/*:v*", True, 86400.0, 60.0, math.inf),
                TagRule("*:latest", keep=False, on_upstream_404="drop"),
                TagRule("*", fresh_s=0.0),
            ),
        )

    def test_a_time_of_belief_means_that_a_tag_is_kept(self) -> None:
        """Unless the rule says otherwise; no time of belief says nothing about it."""
        self.assertEqual(self.rules(tags=[{"match": "*", "fresh_s": 1}])[0].keep, True)
        self.assertEqual(self.rules(tags=[{"match": "*", "fresh_s": 1, "keep": False}])[0].keep, False)
        self.assertIsNone(self.rules(tags=[{"match": "*", "fresh_s": "0s"}])[0].keep)
        self.assertIsNone(self.rules(tags=[{"match": "*", "swr_s": 5}])[0].keep)

    def test_manifest_invalidation_time_is_the_last_rule(self) -> None:
        """Whether a tag is kept at all stays with the settings."""
        self.assertEqual(self.rules(manifest_invalidation_time="0s"), (TagRule("*", fresh_s=0.0),))
        rules = self.rules(manifest_invalidation_time="1h", tags=[{"match": "a:b", "fresh_s": 1}])
        self.assertEqual(rules, (TagRule("a:b", True, 1.0), TagRule("*", fresh_s=3600.0)))
        self.assertIsNone(rules[-1].keep)

    def test_blob_invalidation_time(self) -> None:
        """Never unless said."""
        self.assertIsNone(entry_from_mapping({"namespace": "x"}).blob_invalidation_time_s)
        entry = entry_from_mapping({"namespace": "x", "blob_invalidation_time": "30d"})
        self.assertEqual(entry.blob_invalidation_time_s, 30 * 86400.0)

    def test_a_mistake_names_the_rule_and_its_key(self) -> None:
        """Rules are counted from 0, as they stand."""
        for tags, where in (
            ({"match": "*"}, "tags: {'match': '*'} must be a list"),
            ([{"fresh_s": 1}], "tags[0]: needs `match`"),
            ([{"match": "*"}, "x"], "tags[1]: 'x' must be a mapping"),
            ([{"match": "v1.0"}], "tags[0].match: 'v1.0' must be a glob over <repository>:<tag>"),
            ([{"match": "*", "fresh": 1}], "tags[0].fresh: unknown key; did you mean `fresh_s`?"),
            ([{"match": "*", "fresh_s": "unlimited"}], "tags[0].fresh_s: 'unlimited' must be a duration"),
            ([{"match": "*", "swr_s": -1}], "tags[0].swr_s: -1 must be a duration"),
            ([{"match": "*", "on_upstream_404": True}], "tags[0].on_upstream_404: True must be `keep` or `drop`"),
            ([{"match": "*"}] * 257, "tags: has 257 rules; 256 are the most"),
        ):
            error = str(self.assertRaises(ValueError, self.rules, tags=tags))
            self.assertIn(f"upstreams[x].{where}", error)
