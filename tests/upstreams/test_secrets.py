"""Nothing secret gets out: not into the log, not into what is raised, not into what is printed."""

from __future__ import annotations

import base64
from collections.abc import Coroutine, Iterator
from itertools import product
from typing import Any, cast
from urllib.parse import quote, quote_plus

from twisted.internet import error as network
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers

from tests.upstreams.fakes import NAMESPACE, REALM, URL, Answer, FakeLogins, FakeNet, answer, pull_of, wire_on
from txociproxy.interfaces import ANONYMOUS, OWN, Credentials
from txociproxy.oci.names import Repository, Tag
from txociproxy.upstreams.entries.entry import Entry
from txociproxy.upstreams.logins.accounts import Login, Password
from txociproxy.upstreams.tokens import Tokens
from txociproxy.upstreams.upstream import Upstream

OURS, THEIRS = Login("robot$x", "p@ss/ wörd+1"), Login("alice$x", "th&irs/ =2")
SIGNATURE = "c2lnbmF0dXJl"
TOKENS = ("given-token-1", "shown-token-2")
ELSEWHERE = f"https://cdn.example.net/x?sig={SIGNATURE}"

# What the registry, its token server and whoever it redirects to may do, one answer each.
REGISTRY: tuple[Answer, ...] = (
    answer(200),
    answer(401, www_authenticate=f'Bearer realm="{REALM}"'),
    answer(401, www_authenticate=f'Bearer realm="https://sso.example.net/token?key={SIGNATURE}"'),
    answer(401, www_authenticate="Basic"),
    answer(307, location=ELSEWHERE),
    answer(307, location=f"http://cdn.example.net/?sig={SIGNATURE}"),
    answer(429, retry_after="5"),
    answer(503),
    network.ConnectionRefusedError(f"{SIGNATURE}"),
)
TOKEN_SERVER: tuple[Answer, ...] = (
    answer(200, f'{{"token":"{TOKENS[0]}"}}'.encode()),
    answer(200, f'{{"token":"{TOKENS[0]}" '.encode()),
    answer(401, OURS.password.encode()),
    answer(403),
    answer(429, retry_after="5"),
    answer(503),
    answer(307, location=ELSEWHERE),
    network.TimeoutError(f"{SIGNATURE}"),
)


def forms(login: Login) -> Iterator[str]:
    """Give the forms in which a login could get out."""
    pair = f"{login.username}:{login.password}"
    for text in (login.password, pair):
        yield from (text, quote(text), quote(text, safe=""), quote_plus(text), repr(text)[1:-1])
        yield base64.b64encode(text.encode()).decode().rstrip("=")


SECRETS = (*forms(OURS), *forms(THEIRS), *TOKENS, SIGNATURE)


class SecretTests(SynchronousTestCase):
    """Everything is asked of everything that can answer."""

    def setUp(self) -> None:
        """Listen to the log."""
        self.seen: list[str] = []
        observer = cast(ILogObserver, self.hear)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def hear(self, event: LogEvent) -> None:
        """Keep all that an event holds."""
        self.seen += [formatEvent(event), repr({key: value for key, value in event.items() if key != "log_logger"})]

    def asks(self, upstream: Upstream) -> Iterator[Coroutine[Any, Any, Any]]:
        """Give one ask of each sort, in everybody's name."""
        for who in (OWN, ANONYMOUS, Credentials(THEIRS.authorization), Credentials(f"Bearer {TOKENS[1]}")):
            self.seen.append(repr(who))
            yield upstream.get(pull_of(), who, None, None)
            yield upstream.head(pull_of(Tag("latest")), who, None)
            yield upstream.probe(pull_of(), who, None)
            yield upstream.listing(Repository("team/app"), "tags/list", "", who, "")
            yield upstream.ping(who)
        yield upstream.exchange((Repository("team/app"),), THEIRS.authorization)

    def try_all(self, registry: Answer, token_server: Answer) -> None:
        """Ask one pair of servers everything, twice, and keep all that comes out but good answers."""

        def handler(method: str, url: str, headers: Headers) -> Answer:
            if url.startswith(ELSEWHERE):
                return answer(500)
            return token_server if "/token" in url else registry

        net, clock = FakeNet(handler), Clock()
        entry = Entry(NAMESPACE, (URL, "https://two.example.com"), account=Password(OURS.username, OURS.password))
        tokens = Tokens(clock)
        upstream = Upstream(entry, wire_on(net, clock), tokens, clock, FakeLogins(OURS))
        for ask in (*self.asks(upstream), *self.asks(upstream)):
            result = self.successResultOf(Deferred.fromCoroutine(ask).addErrback(self.told))
            self.seen.append(repr(result))
        self.seen += [repr(upstream), repr(entry), repr(tokens)]

    def told(self, failure: Failure) -> None:
        """Keep what was raised, and its traceback."""
        assert failure.value is not None
        self.seen += [str(failure.value), repr(failure.value), repr(failure.value.args), failure.getTraceback()]

    def test_no_secret_gets_out(self) -> None:
        """As it is, in base64 and URL-encoded: logins, tokens and signed addresses."""
        for registry, token_server in product(REGISTRY, TOKEN_SERVER):
            self.try_all(registry, token_server)
        self.assertGreater(len(self.seen), 1000)
        everything = "\n".join(self.seen)
        self.assertEqual([secret for secret in SECRETS if secret in everything], [])

    def test_the_observer_would_have_seen_it(self) -> None:
        """The warnings are among what was searched."""
        self.try_all(REGISTRY[2], TOKEN_SERVER[0])
        self.try_all(REGISTRY[-1], TOKEN_SERVER[0])
        for text in ("token_realm: https://sso.example.net/token`", "trying the next URL"):
            self.assertTrue(any(text in seen for seen in self.seen), text)
