"""A storm on what is private: 100 clients, 100 credentials, half of them no good (RULES D1, D2; laws 3 and 7)."""

from __future__ import annotations

import http.client
import json
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any
from urllib.parse import urlencode

from attrs import evolve, frozen
from twisted.trial.unittest import SynchronousTestCase

from tests.e2e.kinds import ECR, QUAY, STRANGER, TEAM, Kind, start_kind
from tests.e2e.processes import Workshop
from tests.e2e.proxy import Proxy, start_proxy
from tests.e2e.scripts import MIB
from tests.e2e.users import User

NAMESPACE = "private.test"
SECRET = f"{TEAM}/secret"
CLIENTS = 100
WITHIN_S = 40
BLOB_BYTES = 8 * MIB


def slowed(kind: Kind) -> Kind:
    """Return a kind whose blob takes 4 s, and whose every HEAD takes a while, so that many ask at once."""
    return evolve(kind, blob_bytes=BLOB_BYTES, pause_s=0.03, head_delay_s=0.2, redirect=None)


@frozen
class Person:
    """One client with an address and a credential of its own.

    Half of them are of the team; of the others every second one is known to the registry, but as a stranger.
    """

    number: int

    @property
    def user(self) -> User:
        """What it shows."""
        return User(f"person{self.number}", f"s3cret of {self.number}")

    @property
    def is_allowed(self) -> bool:
        """Whether the registry gives it the team's things."""
        return self.number < CLIENTS // 2

    @property
    def label(self) -> str | None:
        """What the registry calls it; None is unknown there."""
        if self.is_allowed:
            return f"member{self.number}"
        return f"{STRANGER}{self.number}" if self.number % 2 else None

    def ask(self, proxy: Proxy, target: str, shown: str, method: str = "GET") -> tuple[int, bytes]:
        """Ask from its own address, and read to the end."""
        address = (f"127.0.1.{self.number + 1}", 0)
        connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=WITHIN_S, source_address=address)
        try:
            connection.request(method, target, headers={"Authorization": shown} if shown else {})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def credential(self, proxy: Proxy, repository: str) -> str:
        """Return what it shows with a pull: a token of the cache, or what the registry itself takes or refuses."""
        query = urlencode({"scope": f"repository:{repository}:pull"})
        status, body = self.ask(proxy, f"/v2/_token/{NAMESPACE}?{query}", self.user.basic)
        return f"Bearer {json.loads(body)['token']}" if status == 200 else self.user.basic


Answers = dict[Person, "Future[tuple[int, bytes]]"]


class StormTests(SynchronousTestCase):
    """The upstream says for each one whether; it sends the content once."""

    def setUp(self) -> None:
        """Gather the people."""
        self.shop = Workshop()
        self.addCleanup(self.shop.close)
        people = [Person(number) for number in range(CLIENTS)]
        self.allowed = [person for person in people if person.is_allowed]
        self.refused = [person for person in people if not person.is_allowed]
        self.pool = ThreadPoolExecutor(CLIENTS)
        self.addCleanup(self.pool.shutdown)

    def start(self, kind: Kind) -> None:
        """Start the registry and the proxy, and let everybody get a credential."""
        known = {person.label: person.user for person in self.allowed + self.refused if person.label}
        self.upstream = start_kind(self.shop, slowed(kind), known)
        table = [{"namespace": NAMESPACE, "urls": [self.upstream.url]}]
        settings: dict[str, Any] = {
            "shipped_upstreams": False,
            "default_namespace": NAMESPACE,
            "upstreams": table,
            "auth_cache_s": 0,
        }
        self.proxy = start_proxy(self.shop, "", mode="authenticated", **settings)
        self.digest = self.upstream.blob_digest(SECRET)
        people = self.allowed + self.refused
        shown = self.pool.map(lambda person: person.credential(self.proxy, SECRET), people)
        self.shown = dict(zip(people, shown, strict=True))
        self.assertEqual(len(set(self.shown.values())), CLIENTS)
        self.answers: Answers = {}

    def send(self, people: Sequence[Person]) -> None:
        """Let these ask for the blob, all at once."""
        target = f"/v2/{SECRET}/blobs/{self.digest}?ns={NAMESPACE}"
        for person in people:
            self.answers[person] = self.pool.submit(person.ask, self.proxy, target, self.shown[person])

    def blob_asks(self) -> list[tuple[str, str]]:
        """Return method and person of each ask for the blob in its repository."""
        seen = self.upstream.seen()
        return [(ask.method, ask.who) for ask in seen if ask.target == f"/v2/{SECRET}/blobs/{self.digest}"]

    def wait_for(self, method: str) -> None:
        """Wait until such an ask has reached the upstream, whose answer may be on its way."""
        self.upstream.process.wait_for(lambda: method in dict(self.blob_asks()), 10, f"a {method}")

    def storm(self, leader: Person) -> None:
        """Let the leader come first, then all others: before, during and after the download."""
        allowed = [person for person in self.allowed if person is not leader]
        refused = [person for person in self.refused if person is not leader]
        self.send([leader])
        self.wait_for("HEAD")
        self.send([*refused[:10], *allowed[:20]])
        self.wait_for("GET")
        before = [self.answers[person] for person in allowed[:20]]
        self.send([*allowed[20:40], *refused[10:35]])
        self.assert_not_through_another_repository()
        for person in refused[:35]:
            self.answers[person].result(WITHIN_S)
        self.assertEqual([answer for answer in before if answer.done()], [], "they were told no while it ran")
        for answer in before:
            answer.result(WITHIN_S)
        self.send([*refused[35:], *allowed[40:]])
        self.assert_not_through_another_repository()

    def assert_storm(self, leader: Person, statuses: dict[bool, int]) -> None:
        """Exactly the allowed get it; the upstream has sent it once, and was asked for each one.

        :param statuses: of who is refused, by whether the registry knows him.
        """
        self.storm(leader)
        content = self.upstream.blob(SECRET)
        for person, answer in self.answers.items():
            status, body = answer.result(WITHIN_S)
            if person.is_allowed:
                self.assertTrue(status == 200 and body == content, f"{person}: {status}, {len(body)} bytes")
            else:
                self.assertEqual(status, statuses[person.label is not None], str(person))
                self.assertLess(len(body), 1000)
        self.assertEqual(len(self.answers), CLIENTS)
        self.assert_asked_for_each()
        lines = [line for line in self.proxy.pulls() if line["repository"] == SECRET and line["status"] == "200"]
        outcomes = Counter(line["outcome"] for line in lines)
        self.assertEqual(outcomes["miss"], 1)
        # 20 came before it, and waited for its end; the last ones came after that.
        self.assertEqual(outcomes["miss"] + outcomes["join"], len(self.allowed) - outcomes["hit"])
        self.assertGreaterEqual(outcomes["join"], 19)
        self.assertGreaterEqual(outcomes["hit"], 9)

    def assert_asked_for_each(self) -> None:
        """One body, in the name of one of the allowed, and 100 admissions, each in its own name."""
        asks = self.blob_asks()
        self.assertEqual(Counter(method for method, _ in asks), {"HEAD": CLIENTS, "GET": 1})
        self.assertIn("member", dict(asks)["GET"])
        names = Counter(who.partition(" ")[2] for method, who in asks if method == "HEAD")
        self.assertEqual({names[str(person.label)] for person in self.allowed}, {1})

    def assert_not_through_another_repository(self) -> None:
        """A stranger has a repository; the team's digest is not in it, whoever has brought it here (D1)."""
        stranger = next(person for person in self.refused if person.label)
        repository = f"{stranger.label}/app"
        shown = stranger.credential(self.proxy, repository)
        for method in ("HEAD", "GET"):
            target = f"/v2/{repository}/blobs/{self.digest}?ns={NAMESPACE}"
            self.assertEqual(stranger.ask(self.proxy, target, shown, method)[0], 404, method)
        status, _ = stranger.ask(self.proxy, f"/v2/{repository}/manifests/1?ns={NAMESPACE}", shown)
        self.assertEqual(status, 200, "what is his own")

    def test_a_refused_one_comes_first(self) -> None:
        """A registry that wants passwords; they travel in tokens of the cache."""
        self.start(ECR)
        self.assertTrue(all(shown.startswith("Bearer ociproxy1.") for shown in self.shown.values()))
        self.assert_storm(self.refused[0], {True: 403, False: 401})

    def test_an_allowed_one_comes_first(self) -> None:
        """A registry that wants its own tokens; who got none shows his password as it is."""
        self.start(QUAY)
        kinds = Counter(shown.partition(" ")[0] for shown in self.shown.values())
        self.assertEqual(kinds, {"Bearer": 75, "Basic": 25})
        self.assert_storm(self.allowed[0], {True: 401, False: 401})
