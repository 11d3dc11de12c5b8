"""Entries out of the configuration file."""

from __future__ import annotations

import contextlib

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txociproxy.upstreams.entry import Entry
from txociproxy.upstreams.table import entry_from_mapping, entry_from_url


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
            ({"namespace": "x", "url": []}, ("x", "`url`", "`urls`")),
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
        keys = st.sampled_from(["namespace", "urls", "hosts", "origins", "token_realm", "deadline_s", "library", "zz"])
        values = st.one_of(st.text(), st.none(), st.integers(), st.floats(), st.booleans(), st.lists(st.text()))

        @settings(deadline=None, max_examples=200)
        @given(st.dictionaries(keys, values))
        def holds(mapping: dict[str, object]) -> None:
            with contextlib.suppress(ValueError):
                entry_from_mapping(mapping)

        holds()
