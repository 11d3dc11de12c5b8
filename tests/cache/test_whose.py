"""In whose name upstream is asked, and who may see what came of it (RULES D3, E5, E8)."""

from __future__ import annotations

from attrs import evolve

from tests.cache.house import CacheCase, content, manifest
from tests.doubles import FakeResponse, Request
from txociproxy.interfaces import Ask, Serve
from txociproxy.oci.names import Repository
from txociproxy.upstreams.logins.accounts import LoginUnavailable

BLOB = content(300_000)
MANIFEST = manifest("one")
CLIENT, SECOND = "Bearer client", "Bearer second"


class WhoseCase(CacheCase):
    """docker.io has credentials of our own; evil.example has the same content behind nothing."""

    def setUp(self) -> None:
        """Upstream has a blob and a tag."""
        super().setUp()
        self.hub_asked.has_own_credentials = True
        self.digest = self.hub.add(BLOB)
        self.manifest_digest = self.hub.tag("1", MANIFEST)

    def blob(self, who: str | None = None, namespace: str = "docker.io") -> Ask:
        """Return an ask for the blob."""
        return self.ask(self.digest, kind="blob", authorization=who, namespace=namespace)

    def names(self) -> list[str]:
        """Return in whose names docker.io was asked since the last time."""
        names = ["own" if request.own else request.authorization or "nobody" for request in self.hub_asked.requests]
        self.hub_asked.requests.clear()
        return names


class OrderTests(WhoseCase):
    """Transparent mode: the client's, then ours, then nobody's."""

    def test_each_is_tried_until_one_is_not_refused(self) -> None:
        """401 and 403 go on; all else is the answer."""
        for refused, expected in (
            ({}, [CLIENT]),
            ({CLIENT: 401}, [CLIENT, "own"]),
            ({CLIENT: 403, "own": 401}, [CLIENT, "own", "nobody"]),
            ({CLIENT: 404}, [CLIENT]),
            ({CLIENT: 429}, [CLIENT]),
            ({CLIENT: 401, "own": 404}, [CLIENT, "own"]),
        ):
            self.storage.content.clear()
            self.hub.refuses_own = refused.get("own")
            self.hub.refuses = {who: status for who, status in refused.items() if who != "own"}
            answer = self.pull(self.blob(CLIENT))
            if isinstance(answer, Serve):
                self.follow(answer)
            self.clock.advance(0)
            self.assertEqual(self.names(), expected, refused)

    def test_a_client_without_credentials_is_asked_for_as_ours(self) -> None:
        """And as nobody where ours are refused; a HEAD and a list no other."""
        self.get(self.blob())
        self.assertEqual(self.names(), ["own"])
        self.hub.refuses_own = 401
        self.pull(self.ask("1", method="HEAD"))
        self.assertEqual(self.names(), ["own", "nobody"])

    def test_the_last_refusal_is_the_answer(self) -> None:
        """Everybody is refused."""
        self.hub.refuses, self.hub.refuses_own = {CLIENT: 403, None: 401}, 403
        self.assertEqual(self.relayed(self.blob(CLIENT)).status, 401)
        self.assert_at_rest()

    def test_where_we_have_none_only_two_are_tried(self) -> None:
        """The client's and nobody's."""
        self.hub_asked.has_own_credentials = False
        self.hub.refuses = {CLIENT: 401}
        self.get(self.blob(CLIENT))
        self.assertEqual(self.names(), [CLIENT, "nobody"])

    def test_our_own_that_cannot_be_had_are_passed_over(self) -> None:
        """A helper that fails is no reason not to give what everybody may have."""
        self.hub_asked.script = self.without_login
        self.assertEqual(self.get(self.blob()), ("miss", BLOB))
        self.assertEqual(self.names(), ["own", "nobody"])

    def test_what_only_ours_could_have_had_is_an_outage(self) -> None:
        """Not the client's fault, so not a 401."""
        self.hub_asked.script = self.without_login
        self.hub.refuses = {None: 401}
        self.failureResultOf(self.begin(self.blob()), LoginUnavailable)
        self.assert_at_rest()

    def test_that_ours_cannot_be_had_is_nobody_elses_affair(self) -> None:
        """Who brings his own and waits behind one without any asks for himself (law 7): blob, manifest, tag."""
        self.hub_asked.script = lambda request: self.without_login(request) if request.own else self.hub.script(request)
        self.hub.refuses = {None: 401}
        for leader, other in (
            (self.blob(), self.blob(CLIENT)),
            (self.ask(self.manifest_digest), self.ask(self.manifest_digest, authorization=CLIENT)),
            (self.ask("1"), self.ask("1", authorization=CLIENT)),
        ):
            self.hub.holding = True
            first, second = self.begin(leader), self.begin(other)
            self.hub.answer()
            self.hub.answer()
            self.failureResultOf(first, LoginUnavailable)
            self.assertEqual(self.serve_of(second).outcome, "miss")
            self.storage.content.clear()
            self.storage.tags.clear()

    def without_login(self, request: Request) -> FakeResponse | Exception:
        """Answer as docker.io whose login cannot be read."""
        return LoginUnavailable("the helper fails") if request.own else self.hub.respond(request)


class HeldTests(WhoseCase):
    """What came with our own credentials is for its namespace only."""

    def test_what_our_credentials_brought_is_found_from_its_own_namespace(self) -> None:
        """From another one it is a miss, whose upstream decides."""
        self.get(self.blob())
        self.assertEqual(self.get(self.blob()), ("hit", BLOB))
        self.assertEqual(self.relayed(self.blob(namespace="evil.example")).status, 404)

    def test_what_anybody_can_fetch_elsewhere_becomes_open(self) -> None:
        """The same bytes behind no door."""
        self.get(self.blob())
        self.other.add(BLOB)
        self.assertEqual(self.get(self.blob(namespace="evil.example")), ("miss", BLOB))
        self.registry.upstreams["third.example"] = self.other_asked
        self.assertEqual(self.get(self.blob(namespace="third.example")), ("hit", BLOB))

    def test_what_a_client_or_nobody_brought_is_open(self) -> None:
        """The store of a transparent proxy is for all who reach it."""
        for refuses_own, who in ((None, CLIENT), (401, None)):
            self.storage.content.clear()
            self.hub.refuses_own = refuses_own
            self.get(self.blob(who))
            self.assertEqual(self.get(self.blob(namespace="evil.example")), ("hit", BLOB))

    def test_manifests_are_held_too(self) -> None:
        """By tag and by digest."""
        self.assertEqual(self.get(self.ask("1")), ("miss", MANIFEST))
        self.assertEqual(self.get(self.ask(self.manifest_digest)), ("hit", MANIFEST))
        elsewhere = self.ask(self.manifest_digest, namespace="evil.example")
        self.assertEqual(self.relayed(elsewhere).status, 404)

    def test_a_join_is_for_the_same_namespace_only(self) -> None:
        """A running download is not lent to others."""
        self.hub.by_hand = True
        self.follow(self.served(self.blob()))
        self.assertEqual(self.relayed(self.blob(namespace="evil.example")).status, 404)
        self.hub.sent[0].send(BLOB)
        self.hub.sent[0].end()
        self.clock.advance(0)


class ResumeTests(WhoseCase):
    """A body that breaks off is gone on with in the name of whoever still may (RULES E5)."""

    def broken(self, *readers: str) -> None:
        """Let these clients read, and break in the middle."""
        self.hub_asked.has_own_credentials = False
        self.hub.refuses = {None: 401}
        self.hub.by_hand = True
        self.sinks = [self.follow(self.served(self.blob(who)))[1] for who in readers]
        self.hub.sent[0].send(BLOB[:200_000])
        self.names()

    def test_the_leaders_token_has_ended(self) -> None:
        """Another reader's is taken."""
        self.broken(CLIENT, SECOND)
        self.hub.refuses[CLIENT] = 401
        self.hub.sent[0].break_off()
        self.assertEqual(self.names(), [CLIENT, SECOND])
        self.hub.sent[1].send(BLOB[200_000:])
        self.hub.sent[1].end()
        self.assertEqual([bytes(sink.written) for sink in self.sinks], [BLOB, BLOB])
        self.assert_at_rest()

    def test_readers_of_another_repository_do_not_count(self) -> None:
        """What they may read there says nothing about here."""
        self.broken(CLIENT)
        other = self.blob(SECOND)
        elsewhere = evolve(other, pull=evolve(other.pull, repository=Repository.parse("second/app")))
        self.follow(self.served(elsewhere))
        self.hub.refuses[CLIENT] = 401
        self.hub.sent[0].break_off()
        self.clock.pump([1.0] * 200)
        self.assertNotIn(SECOND, self.names())
        self.assertEqual({sink.ending for sink in self.sinks}, {"cut"})

    def test_ours_go_on_where_nobody_elses_are_left(self) -> None:
        """In transparent mode."""
        self.broken(CLIENT)
        self.hub_asked.has_own_credentials = True
        self.hub.refuses[CLIENT] = 401
        self.hub.sent[0].break_off()
        self.assertEqual(self.names(), [CLIENT, "own"])
        self.hub.sent[1].send(BLOB[200_000:])
        self.hub.sent[1].end()
        self.assertEqual({sink.ending for sink in self.sinks}, {"finished"})
