"""Namespaces that nobody has configured, where they may be asked (RULES B6, F1)."""

from __future__ import annotations

from typing import Literal

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers
from twisted.web.iweb import IResponse

from tests.doubles import InlineWorkers
from tests.upstreams.fakes import Answer, FakeNet, answer, pull_of
from txociproxy.interfaces import ANONYMOUS
from txociproxy.oci.errors import OCIError
from txociproxy.oci.names import Repository, Tag
from txociproxy.upstreams.connecting.agents import Line
from txociproxy.upstreams.entries.entry import Entry
from txociproxy.upstreams.entries.table import LiveTable, UpstreamTable, shipped_entries
from txociproxy.upstreams.entries.unlisted import MAX_ASKS, MAX_BODIES, MAX_UNLISTED
from txociproxy.upstreams.registry import Upstreams
from txociproxy.upstreams.upstream import Upstream


def table(*entries: Entry, unlisted: Literal["public", "deny"] = "public") -> UpstreamTable:
    """Return the shipped table and some more."""
    return UpstreamTable((*shipped_entries(), *entries), unlisted=unlisted)


class TableTests(SynchronousTestCase):
    """Which names are asked."""

    def test_a_public_name_is_asked_as_a_stranger(self) -> None:
        """However it was written; by ``ns=`` it is bound, in the path it is not."""
        entry = Entry("reg.example", ("https://reg.example",), client_credentials="ignore", is_listed=False)
        for name, ns, bound in (("a/b", "Reg.Example.:443", True), ("reg.example/a/b", None, False)):
            route = table().route(name, ns, None)
            self.assertEqual((route.namespace, str(route.repository), route.bound), ("reg.example", "a/b", bound))
            self.assertEqual((route.entry.urls, route.entry.is_listed), (entry.urls, False))
            self.assertEqual(route.entry.client_credentials, "ignore")
        found = table().bound("reg.example", None)
        self.assertEqual(None if found is None else found.namespace, "reg.example")

    def test_configured_names_are_what_they_were(self) -> None:
        """B3 and B4: what says no namespace belongs to the default one, what is configured is configured."""
        corp = Entry("corp", ("http://10.0.0.1:5000",))
        for name, namespace in (
            ("ghcr.io/a", "ghcr.io"),
            ("corp/a", "corp"),
            ("a/b", "docker.io"),
            ("a.b", "docker.io"),
        ):
            self.assertEqual(table(corp).route(name, None, None), table(corp, unlisted="deny").route(name, None, None))
            self.assertEqual(table(corp).route(name, None, None).namespace, namespace)

    def test_dotted_repositories_are_none(self) -> None:
        """The looks of a first segment do not count there."""
        dotted = Entry("corp", ("http://corp",), dotted_repositories=True)
        found = UpstreamTable((dotted,), "corp", "public").route("my.team/a", None, None)
        self.assertEqual((found.namespace, str(found.repository)), ("corp", "my.team/a"))

    def test_docker_hub_is_docker_hub_also_where_it_is_not_listed(self) -> None:
        """Its name is not its host."""
        corp = Entry("corp", ("http://corp",))
        found = UpstreamTable((corp,), "corp", "public").route("alpine", "docker.io", None)
        self.assertEqual(
            (found.entry.urls, str(found.repository)), (("https://registry-1.docker.io",), "library/alpine")
        )

    def test_deny_denies(self) -> None:
        """With the remedy."""
        error: OCIError = self.assertRaises(OCIError, table(unlisted="deny").route, "a", "reg.example", None)
        self.assertEqual(error.code, "DENIED")
        self.assertIn("{namespace: reg.example, urls: [https://reg.example]}", error.message)


class UpstreamsTests(SynchronousTestCase):
    """They are made when they are asked, and share their places."""

    def setUp(self) -> None:
        """Answers come when the test says so."""
        self.clock = Clock()
        self.waiting: list[Deferred[IResponse]] = []
        self.net = FakeNet(self.handle)
        self.live = LiveTable(table(Entry("corp.example", ("https://corp.example",), max_connections=1)))
        self.upstreams = Upstreams(self.clock, self.live, InlineWorkers(), lambda _: Line(self.net))

    def handle(self, method: str, url: str, headers: Headers) -> Answer:
        """Hang."""
        self.waiting.append(Deferred())
        return self.waiting[-1]

    def upstream(self, namespace: str) -> Upstream:
        """Return one that is there."""
        found = self.upstreams.upstream(namespace)
        assert found is not None
        return found

    def get(self, namespace: str, is_blob: bool = True) -> Deferred[IResponse]:
        """Ask for a blob or a manifest."""
        pull = pull_of() if is_blob else pull_of(Tag("1"))
        asked = Deferred.fromCoroutine(self.upstream(namespace).get(pull, ANONYMOUS, None, 99))
        asked.addErrback(lambda _: None)
        return asked

    def test_one_is_made_when_it_is_first_asked(self) -> None:
        """And is the same after that."""
        found = self.upstream("reg.example")
        self.assertIs(self.upstream("reg.example"), found)
        self.assertEqual((found.namespace, found.has_own_credentials), ("reg.example", False))
        entry = self.upstreams.entry("reg.example")
        self.assertEqual(None if entry is None else entry.is_listed, False)
        for namespace in ("localhost", "10.0.0.1", "reg.example:5000", "intranet"):
            self.assertIsNone(self.upstreams.upstream(namespace))
            self.assertIsNone(self.upstreams.entry(namespace))

    def test_none_is_made_where_they_are_denied(self) -> None:
        """As it was."""
        upstreams = Upstreams(self.clock, LiveTable(table(unlisted="deny")), InlineWorkers(), lambda _: Line(self.net))
        self.assertIsNone(upstreams.upstream("reg.example"))
        self.assertIsNone(upstreams.entry("reg.example"))

    def test_all_together_have_sixteen_places(self) -> None:
        """Twelve for bodies and four for short asks; configured ones have their own."""
        for number in range(MAX_BODIES + 5):
            self.get(f"r{number}.example")
        self.assertEqual(len(self.net.asked), MAX_BODIES)
        for number in range(MAX_ASKS + 5):
            self.get(f"s{number}.example", is_blob=False)
        self.assertEqual((len(self.net.asked), MAX_BODIES + MAX_ASKS), (16, 16))
        self.get("corp.example")
        self.assertEqual(len(self.net.asked), 17)
        self.waiting[0].callback(answer(404))
        self.assertEqual(len(self.net.asked), 18)

    def test_so_many_are_known_and_the_one_asked_longest_ago_is_forgotten(self) -> None:
        """A body of a forgotten one goes on, and keeps its place until it ends."""
        first = self.upstream("first.example")
        body = answer(200, b"x", open_ended=True)
        got = self.get("first.example")
        self.waiting[0].callback(body)
        second = self.upstream("second.example")
        for number in range(MAX_UNLISTED - 2):
            self.upstream(f"r{number}.example")
        self.assertIs(self.upstream("first.example"), first)
        self.upstream("one-more.example")
        self.assertIsNot(self.upstream("second.example"), second)
        for number in range(MAX_UNLISTED):
            self.upstream(f"q{number}.example")
        self.assertIsNot(self.upstream("first.example"), first)
        self.assertFalse(body.closed)
        self.assertEqual(self.successResultOf(got).code, 200)
        for number in range(MAX_BODIES):
            self.get(f"r{number}.example")
        self.assertEqual(len(self.net.asked), MAX_BODIES)

    def test_a_listing_of_one_works_as_of_any(self) -> None:
        """Everything an upstream can do."""
        asked = Deferred.fromCoroutine(
            self.upstream("reg.example").listing(Repository("a/b"), "tags/list", "n=1", ANONYMOUS, "")
        )
        self.waiting[0].callback(answer(200, b"{}"))
        self.assertEqual(self.successResultOf(asked).code, 200)
        self.assertEqual(self.net.asked, [("GET", "https://reg.example/v2/a/b/tags/list?n=1", None)])
