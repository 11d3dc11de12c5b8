"""Which repository of which upstream a request means (RULES B)."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txociproxy.oci.errors import OCIError
from txociproxy.oci.names import Repository
from txociproxy.upstreams.entries.table import Entry, UpstreamTable, shipped_entries


def shipped_with(*entries: Entry) -> UpstreamTable:
    """Return the shipped table and some more."""
    return UpstreamTable((*shipped_entries(), *entries))


class RouteTests(SynchronousTestCase):
    """B1 to B5, in their order."""

    def route(
        self, name: str, ns: str | None = None, host: str | None = None, table: UpstreamTable | None = None
    ) -> tuple[str, str, bool]:
        """Return namespace, repository and whether it was bound."""
        found = (table or shipped_with()).route(name, ns, host)
        self.assertEqual(found.entry.namespace, found.namespace)
        return found.namespace, str(found.repository), found.bound

    def refusal(self, name: str, ns: str | None = None, table: UpstreamTable | None = None) -> OCIError:
        """Return the error of a route that there is not."""
        error: OCIError = self.assertRaises(OCIError, (table or shipped_with()).route, name, ns, None)
        return error

    def test_b1_ns_wins_over_the_path(self) -> None:
        """``ns=`` names the upstream; the path is the repository."""
        self.assertEqual(self.route("prom/node", "quay.io", "cache"), ("quay.io", "prom/node", True))

    def test_b1_the_same_namespace_in_the_path_is_dropped(self) -> None:
        """containerd's override_path sends the namespace twice."""
        self.assertEqual(self.route("docker.io/alpine", "docker.io"), ("docker.io", "library/alpine", True))
        self.assertEqual(self.route("index.docker.io/alpine", "docker.io")[1], "library/alpine")

    def test_b1_a_namespace_alone_is_a_repository(self) -> None:
        """Nothing is dropped when nothing follows."""
        self.assertEqual(self.route("quay.io", "quay.io")[1], "quay.io")

    def test_b1_an_empty_ns_is_absent(self) -> None:
        """``?ns=`` says nothing."""
        self.assertEqual(self.route("alpine", ""), ("docker.io", "library/alpine", False))

    def test_b2_a_claimed_host_makes_the_whole_path_the_repository(self) -> None:
        """Even if the path begins like a host; the port of Host does not matter."""
        table = shipped_with(Entry("corp", ("http://corp:5000",), hosts=("Cache.Home.Arpa",)))
        self.assertEqual(self.route("quay.io/a", None, "cache.home.arpa", table), ("corp", "quay.io/a", True))
        self.assertEqual(self.route("a", None, "CACHE.home.arpa:8080", table), ("corp", "a", True))
        self.assertEqual(self.route("a/b", None, "other", table), ("docker.io", "a/b", False))

    def test_b2_a_listener_that_nobody_claims_any_more_means_nobody(self) -> None:
        """A connection that a reload has left open: what its client shows is not for the default upstream (C6)."""
        table = UpstreamTable(shipped_entries())
        for ask in (lambda: table.route("team/app", None, "h", "tcp:8081"), lambda: table.bound(None, "h", "tcp:8081")):
            error = self.assertRaises(OCIError, ask)
            self.assertEqual((error.code, error.status), ("DENIED", 403))
        self.assertEqual(table.route("team/app", "ghcr.io", "h", "tcp:8081").namespace, "ghcr.io")

    def test_b2_a_claimed_listener_means_its_upstream(self) -> None:
        """``listen:`` binds as a host does."""
        table = shipped_with(Entry("corp", ("http://corp",), listen="tcp:8081"))
        self.assertEqual(table.route("a", None, "x", "tcp:8081").namespace, "corp")
        self.assertEqual(table.bound(None, None, "tcp:8081"), table.entry("corp"))

    def test_b3_a_first_segment_that_is_configured_or_looks_like_a_host(self) -> None:
        """It is the namespace when something follows."""
        table = shipped_with(Entry("corp", ("http://corp",)))
        self.assertEqual(self.route("ghcr.io/a/b"), ("ghcr.io", "a/b", False))
        self.assertEqual(self.route("corp/a", table=table), ("corp", "a", False))
        self.assertEqual(self.route("quay.io"), ("docker.io", "library/quay.io", False))

    def test_b3_dotted_repositories_turns_the_looks_off(self) -> None:
        """Configured names still are names."""
        dotted = Entry("corp", ("http://corp",), dotted_repositories=True)
        table = UpstreamTable((dotted, *shipped_entries()), "corp")
        self.assertEqual(self.route("my.team/a", table=table), ("corp", "my.team/a", False))
        self.assertEqual(self.route("quay.io/a", table=table), ("quay.io", "a", False))

    def test_b4_everything_else_is_the_default(self) -> None:
        """A name without a namespace belongs to the default one."""
        self.assertEqual(self.route("grafana/grafana"), ("docker.io", "grafana/grafana", False))

    def test_b5_names_are_compared_in_canonical_form(self) -> None:
        """Case, dot, :443 and Docker Hub's other names."""
        for name in ("Docker.IO.", "docker.io:443", "registry-1.docker.io", "registry.hub.docker.com"):
            self.assertEqual(self.route("a", name), ("docker.io", "library/a", True))
            self.assertEqual(self.route(f"{name}/a"), ("docker.io", "library/a", False))

    def test_library_is_added_on_docker_hub_only(self) -> None:
        """One segment there is an official image."""
        self.assertEqual(self.route("a", "quay.io")[1], "a")

    def test_b6_an_unlisted_namespace_is_denied_with_the_remedy(self) -> None:
        """However it came."""
        for name, ns in (("a", "evil.example"), ("evil.example/a", None), ("localhost:5000/a", None)):
            error = self.refusal(name, ns)
            self.assertEqual((error.code, error.status), ("DENIED", 403))
            self.assertIn("upstreams", error.message)

    def test_bad_names_are_invalid(self) -> None:
        """In the namespace and in the repository."""
        for name, ns in (("UPPER/a", None), ("a", "not a host"), ("a..b/c", None), ("", None)):
            self.assertEqual(self.refusal(name, ns).code, "NAME_INVALID", name)

    def test_b7_repositories_are_allowed_and_refused_by_globs(self) -> None:
        """Refused wins; an empty list of allowed ones allows all."""
        entry = Entry("corp", ("http://corp",), allowed=("team/*",), refused=("*/secret",))
        table = shipped_with(entry)
        self.assertEqual(self.route("corp/team/a/b", table=table)[1], "team/a/b")
        for name in ("corp/team/secret", "corp/other/a"):
            self.assertEqual(self.refusal(name, table=table).code, "DENIED")


class TableTests(SynchronousTestCase):
    """The table as a whole."""

    def test_the_shipped_table_is_the_one_of_b6(self) -> None:
        """Eight registries, all over https; Docker Hub under its other name."""
        entries = {entry.namespace: entry for entry in shipped_entries()}
        self.assertEqual(len(entries), 8)
        self.assertEqual(entries["docker.io"].urls, ("https://registry-1.docker.io",))
        self.assertEqual([name for name, entry in entries.items() if entry.library], ["docker.io"])

    def test_c2_a_ping_is_bound_by_ns_host_or_being_the_only_one(self) -> None:
        """With several upstreams and nothing else it is not."""
        quay = Entry("quay.io", ("https://quay.io",), hosts=("q.local",))
        table = UpstreamTable((quay, *[e for e in shipped_entries() if e.namespace != "quay.io"]))
        self.assertIsNone(table.bound(None, "x"))
        self.assertEqual(table.bound(None, "q.local"), quay)
        self.assertEqual(table.bound("quay.io", None), quay)
        self.assertEqual(UpstreamTable((quay,), "quay.io").bound(None, None), quay)

    def test_two_entries_cannot_claim_the_same(self) -> None:
        """Neither a namespace nor a host."""
        one, other = Entry("a", ("http://a",), hosts=("h",)), Entry("b", ("http://b",), hosts=("H",))
        self.assertIn("'h'", str(self.assertRaises(ValueError, UpstreamTable, (one, other), "a")))
        self.assertIn("'a'", str(self.assertRaises(ValueError, UpstreamTable, (one, one), "a")))

    def test_the_default_is_in_the_table(self) -> None:
        """Else the error says what to add."""
        error = self.assertRaises(ValueError, UpstreamTable, (Entry("a", ("http://a",)),), "docker.io")
        self.assertIn("{namespace: docker.io}", str(error))

    def test_an_ipv6_host_is_looked_up_whole(self) -> None:
        """Brackets hide colons."""
        table = UpstreamTable((Entry("a", ("http://a",), hosts=("[::1]",)),), "a")
        self.assertEqual(table.by_host("[::1]:80"), table.by_host("[::1]"))
        self.assertIsNotNone(table.by_host("[::1]"))

    def test_a_route_is_a_repository_value(self) -> None:
        """What comes out is valid by its type."""
        self.assertEqual(shipped_with().route("a", None, None).repository, Repository("library/a"))
