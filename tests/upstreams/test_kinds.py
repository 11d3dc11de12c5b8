"""What each kind of registry sees of us: one table of (kind, ask) and the requests it leads to, in order.

A request is (method, short URL, Authorization); ``short`` leaves out the scheme, the digest's tail and the query's
encoding, and a credential is named by whose it is.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from typing import Any
from urllib.parse import unquote

from attrs import define, field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers

from tests.upstreams.fakes import BLOB, LOGIN, Answer, FakeLogins, FakeNet, answer, pull_of, upstream_on
from txociproxy.interfaces import ANONYMOUS, OWN, Credentials, Exchanged, Relay
from txociproxy.oci.errors import OCIError
from txociproxy.oci.names import Repository, Tag
from txociproxy.upstreams.entries.entry import Entry
from txociproxy.upstreams.upstream import Upstream

THEIRS = "Basic dGhlbTp0aGVpcnM="
TAG = Tag("1")
NAMES = {LOGIN.authorization: "ours", THEIRS: "theirs", None: ""}


@define(eq=False)
class Kind:
    """A registry, its token server and its delivery network.

    :ivar ping: the challenge of ``/v2/``; empty lets everybody ping.
    :ivar challenge: of all else; ``{}`` stands for the repository that was asked for.
    :ivar realm: where tokens are given, to anybody, to us and to one client.
    :ivar cdn: where blobs are; it refuses a second credential, and its addresses are signed for GET.
    :ivar pulls_left: manifests that may still be had with GET, as its quota says.
    """

    entry: Entry
    ping: str
    challenge: str
    realm: str | None = None
    cdn: str | None = None
    pulls_left: int | None = None
    _issued: int = field(init=False, default=0)

    def __call__(self, method: str, url: str, headers: Headers) -> Answer:
        """Answer as one of the three."""
        shown = headers.getRawHeaders("authorization", [""])[0]
        if self.cdn and url.startswith(self.cdn):
            return answer(400 if shown else 403 if method == "HEAD" else 206)
        if self.realm and url.startswith(self.realm):
            return self._token(shown)
        if url.endswith("/v2/"):
            return answer(401, www_authenticate=self.ping) if self.ping else answer(200)
        if not shown.startswith("Bearer T" if self.realm else "Basic "):
            repository = url.split("/v2/")[1].split("/manifests/")[0].split("/blobs/")[0]
            return answer(401, www_authenticate=self.challenge.format(repository))
        if "/blobs/" in url and self.cdn:
            return answer(307, location=f"{self.cdn}x?sig=1")
        return self._content(method)

    def _token(self, shown: str) -> Answer:
        """Give a token that can be told apart."""
        if shown not in ("", LOGIN.authorization, THEIRS):
            return answer(401)
        self._issued += 1
        return answer(200, json.dumps({"token": f"T{self._issued}", "expires_in": 300}).encode())

    def _content(self, method: str) -> Answer:
        """Count GETs of manifests, as Docker Hub does."""
        if self.pulls_left is None:
            return answer(200)
        if method == "GET":
            if self.pulls_left == 0:
                return answer(429, retry_after="60")
            self.pulls_left -= 1
        return answer(200, RateLimit_Limit="100;w=21600", RateLimit_Remaining=f"{self.pulls_left};w=21600")


def hub() -> Kind:
    """Docker Hub (docs.docker.com, "Registry authentication" and "Pull usage and limits")."""
    bearer = 'Bearer realm="https://auth.docker.io/token",service="registry.docker.io"'
    return Kind(
        Entry("docker.io", ("https://registry-1.docker.io",)),
        bearer,
        bearer + ',scope="repository:{}:pull"',
        "https://auth.docker.io/token",
        "https://cdn.example.net/",
        12,
    )


def ghcr() -> Kind:
    """GHCR: the challenge of ``/v2/`` and of everything has a placeholder for its scope (RULES C7)."""
    bearer = 'Bearer realm="https://ghcr.io/token",service="ghcr.io",scope="repository:user/image:pull"'
    return Kind(Entry("ghcr.io", ("https://ghcr.io",)), bearer, bearer, "https://ghcr.io/token", "https://cdn.example/")


def ecr() -> Kind:
    """ECR: Basic with a password of 12 h, and blobs at S3 (Amazon ECR User Guide, "Using HTTP API authentication")."""
    host = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"
    basic = f'Basic realm="https://{host}/",service="ecr.amazonaws.com"'
    return Kind(Entry(host, (f"https://{host}",)), basic, basic, None, "https://s3.example/")


def quay() -> Kind:
    """Quay: tokens at its own host, the challenge without a scope, blobs behind a redirect."""
    bearer = 'Bearer realm="https://quay.io/v2/auth",service="quay.io"'
    return Kind(
        Entry("quay.io", ("https://quay.io",)), bearer, bearer, "https://quay.io/v2/auth", "https://cdn.example/"
    )


def open_ping() -> Kind:
    """A registry that lets everybody ping, and has a challenge per repository (distribution-spec, end-1)."""
    bearer = 'Bearer realm="https://reg.example.com/t",service="s"'
    return Kind(Entry("reg.example.com", ("https://reg.example.com",)), "", bearer, "https://reg.example.com/t")


def foreign(named: bool) -> Kind:
    """A registry whose token server belongs to somebody else (RULES C8)."""
    realm = "https://sso.example.org/t"
    entry = Entry("reg.example.com", ("https://reg.example.com",), token_realm=realm if named else None)
    return Kind(entry, f'Bearer realm="{realm}"', f'Bearer realm="{realm}"', realm)


def downgrade() -> Kind:
    """A registry whose token server is its own host, without TLS (RULES C8)."""
    realm = "http://reg.example.com/t"
    bearer = f'Bearer realm="{realm}"'
    return Kind(Entry("reg.example.com", ("https://reg.example.com",), token_realm=realm), bearer, bearer, realm)


def unlisted() -> Kind:
    """A registry that nobody has configured (RULES C6)."""
    kind = open_ping()
    kind.entry = Entry("reg.example.com", kind.entry.urls, is_listed=False)
    return kind


Ask = Callable[[Upstream], Coroutine[Any, Any, Any]]


def head(who: Credentials, repository: str = "team/app") -> Ask:
    """HEAD a tag."""
    return lambda upstream: upstream.head(pull_of(TAG, repository), who, None)


def get(who: Credentials, repository: str = "team/app") -> Ask:
    """GET a manifest by its tag."""
    return lambda upstream: upstream.get(pull_of(TAG, repository), who, None, None)


def blob(who: Credentials) -> Ask:
    """GET a blob."""
    return lambda upstream: upstream.get(pull_of(BLOB), who, None, None)


def probe(who: Credentials) -> Ask:
    """Probe a blob."""
    return lambda upstream: upstream.probe(pull_of(BLOB), who, None)


def exchange(*repositories: str) -> Ask:
    """Exchange what a client has shown."""
    return lambda upstream: upstream.exchange(tuple(map(Repository, repositories)), THEIRS)


CLIENT = Credentials(THEIRS)
MANIFEST = "/v2/team/app/manifests/1"
LAYER = "/v2/team/app/blobs/aaaa"
HUB, HUB_TOKEN = (
    "registry-1.docker.io",
    "auth.docker.io/token?service=registry.docker.io&scope=repository:team/app:pull",
)
GHCR_TOKEN = "ghcr.io/token?service=ghcr.io&scope=repository:team/app:pull"
QUAY_TOKEN = "quay.io/v2/auth?service=quay.io&scope=repository:team/app:pull"
ECR = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"
REG, REG_TOKEN = "reg.example.com", "reg.example.com/t?service=s&scope=repository:team/app:pull"
SSO_TOKEN = "sso.example.org/t?scope=repository:team/app:pull"


@frozen
class Row:
    """What is asked of a kind, and what comes of it.

    :ivar outcomes: the statuses, or ``(Authorization, seconds)`` of exchanges, or the code of an error.
    :ivar seen: what the network saw.
    """

    kind: Callable[[], Kind]
    asks: tuple[Ask, ...]
    outcomes: tuple[object, ...]
    seen: tuple[tuple[str, str, str], ...]


ROWS = (
    # Docker Hub, a blob as anybody: the token goes to the registry and not to the network behind it (distribution-
    # spec, "Pulling blobs": no Authorization across hosts; RULES F3).
    Row(
        hub,
        (blob(ANONYMOUS), blob(ANONYMOUS)),
        (206, 206),
        (
            ("GET", HUB + LAYER, ""),
            ("GET", HUB_TOKEN, ""),
            ("GET", HUB + LAYER, "Bearer T1"),
            ("GET", "cdn.example.net/x?sig=1", ""),
            ("GET", HUB + LAYER, "Bearer T1"),
            ("GET", "cdn.example.net/x?sig=1", ""),
        ),
    ),
    # Docker Hub with our account: auth.docker.io is of the same owner (RULES C8).
    Row(
        hub,
        (head(OWN), head(OWN), head(ANONYMOUS)),
        (200, 200, 200),
        (
            ("HEAD", HUB + MANIFEST, ""),
            ("GET", HUB_TOKEN, "ours"),
            ("HEAD", HUB + MANIFEST, "Bearer T1"),
            ("HEAD", HUB + MANIFEST, "Bearer T1"),
            ("GET", HUB_TOKEN, ""),
            ("HEAD", HUB + MANIFEST, "Bearer T2"),
        ),
    ),
    # Docker Hub, a client's password: our token endpoint shows it to Hub's (RULES C4), and an admission asks with
    # what came of it; the network's address is signed for GET (RULES D1).
    Row(
        hub,
        (exchange("team/app"), probe(Credentials("Bearer T1"))),
        (("Bearer T1", 270.0), 206),
        (
            ("GET", HUB + "/v2/", ""),
            ("GET", HUB_TOKEN, "theirs"),
            ("HEAD", HUB + LAYER, "Bearer T1"),
            ("HEAD", "cdn.example.net/x?sig=1", ""),
            ("GET", HUB + LAYER, "Bearer T1"),
            ("GET", "cdn.example.net/x?sig=1", ""),
        ),
    ),
    # GHCR: never the placeholder (RULES C7).
    Row(
        ghcr,
        (head(ANONYMOUS), exchange("team/app")),
        (200, ("Bearer T2", 270.0)),
        (
            ("HEAD", "ghcr.io" + MANIFEST, ""),
            ("GET", GHCR_TOKEN, ""),
            ("HEAD", "ghcr.io" + MANIFEST, "Bearer T1"),
            ("GET", GHCR_TOKEN, "theirs"),
        ),
    ),
    # ECR: the login itself, at once when it is known that it is wanted; S3 answers 400 to a second credential.
    Row(
        ecr,
        (blob(OWN), blob(OWN)),
        (206, 206),
        (
            ("GET", ECR + LAYER, ""),
            ("GET", ECR + LAYER, "ours"),
            ("GET", "s3.example/x?sig=1", ""),
            ("GET", ECR + LAYER, "ours"),
            ("GET", "s3.example/x?sig=1", ""),
        ),
    ),
    # ECR as anybody and as a client: its no is the answer; a client's own word goes as it is (RULES C4, C5).
    Row(
        ecr,
        (head(ANONYMOUS), exchange("team/app"), head(CLIENT)),
        (401, (THEIRS, None), 200),
        (
            ("HEAD", ECR + MANIFEST, ""),
            ("GET", ECR + "/v2/", ""),
            ("HEAD", ECR + MANIFEST, "theirs"),
        ),
    ),
    # Quay: our own scope where the challenge has none (RULES C7).
    Row(
        quay,
        (head(OWN), exchange("team/app")),
        (200, ("Bearer T2", 270.0)),
        (
            ("HEAD", "quay.io" + MANIFEST, ""),
            ("GET", QUAY_TOKEN, "ours"),
            ("HEAD", "quay.io" + MANIFEST, "Bearer T1"),
            ("GET", QUAY_TOKEN, "theirs"),
        ),
    ),
    # A ping that wants nothing: the repository is asked for its challenge (RULES C4).
    Row(
        open_ping,
        (exchange("team/app"),),
        (("Bearer T1", 270.0),),
        (
            ("GET", REG + "/v2/", ""),
            ("HEAD", REG + "/v2/team/app/manifests/latest", ""),
            ("GET", REG_TOKEN, "theirs"),
        ),
    ),
    # A realm of another owner: no credential goes there, an ask without one does (RULES C8).
    Row(
        lambda: foreign(named=False),
        (head(OWN), exchange("team/app"), head(ANONYMOUS)),
        (401, "DENIED", 200),
        (
            ("HEAD", REG + MANIFEST, ""),
            ("GET", REG + "/v2/", ""),
            ("HEAD", REG + MANIFEST, ""),
            ("GET", SSO_TOKEN, ""),
            ("HEAD", REG + MANIFEST, "Bearer T1"),
        ),
    ),
    # The same, named by `token_realm` (RULES C8).
    Row(
        lambda: foreign(named=True),
        (head(OWN), exchange("team/app")),
        (200, ("Bearer T2", 270.0)),
        (
            ("HEAD", REG + MANIFEST, ""),
            ("GET", SSO_TOKEN, "ours"),
            ("HEAD", REG + MANIFEST, "Bearer T1"),
            ("GET", SSO_TOKEN, "theirs"),
        ),
    ),
    # From https to http never, whoever names it (RULES C8).
    Row(
        downgrade,
        (head(OWN), exchange("team/app")),
        (401, "DENIED"),
        (("HEAD", REG + MANIFEST, ""), ("GET", REG + "/v2/", "")),
    ),
    # Not configured: nobody's credential goes anywhere (RULES C6).
    Row(
        unlisted,
        (head(OWN), head(CLIENT), exchange("team/app")),
        (200, 200, (None, None)),
        (
            ("HEAD", REG + MANIFEST, ""),
            ("GET", REG_TOKEN, ""),
            ("HEAD", REG + MANIFEST, "Bearer T1"),
            ("HEAD", REG + MANIFEST, "Bearer T1"),
        ),
    ),
)


def short(url: str) -> str:
    """Return a URL as the table writes it."""
    return unquote(url.partition("://")[2]).replace("sha256:" + "a" * 64, "aaaa")


def error_of(failure: Failure) -> OCIError:
    """Return the error that was raised, if it is one for the client."""
    failure.trap(OCIError)
    assert isinstance(failure.value, OCIError)
    return failure.value


class KindTests(SynchronousTestCase):
    """The table, row by row."""

    def outcome(self, upstream: Upstream, ask: Ask) -> object:
        """Return what came of an ask, as the table writes it."""
        deferred: Deferred[Any] = Deferred.fromCoroutine(ask(upstream))
        result = self.successResultOf(deferred.addErrback(error_of))
        if isinstance(result, Exchanged):
            return result.authorization, result.life_s
        return result.status if isinstance(result, Relay) else result.code

    def test_each_kind_sees_what_it_should(self) -> None:
        """No request more, none with another's credential."""
        for number, row in enumerate(ROWS):
            kind = row.kind()
            net = FakeNet(kind)
            upstream = upstream_on(net, Clock(), kind.entry, FakeLogins())
            outcomes = tuple(self.outcome(upstream, ask) for ask in row.asks)
            seen = tuple((method, short(url), NAMES.get(shown, shown)) for method, url, shown in net.asked)
            self.assertEqual(seen, row.seen, f"row {number}")
            self.assertEqual(outcomes, row.outcomes, f"row {number}")

    def test_hubs_quota_is_heard_and_its_pause_kept(self) -> None:
        """HEAD costs nothing; below a tenth no ask goes out that nobody waits for; 429 after the last."""
        kind, clock = hub(), Clock()
        net = FakeNet(kind)
        upstream = upstream_on(net, clock, kind.entry, FakeLogins())
        spare = []
        for _ in range(4):
            self.assertEqual([self.outcome(upstream, ask(ANONYMOUS)) for ask in (get, head)], [200, 200])
            spare.append(upstream.can_spare)
        self.assertEqual((spare, kind.pulls_left), ([True, True, False, False], 8))
        kind.pulls_left = 0
        self.assertEqual(self.outcome(upstream, get(ANONYMOUS)), 429)
        asked = len(net.asked)
        self.assertEqual([self.outcome(upstream, ask(ANONYMOUS)) for ask in (get, head, blob)], [429, 429, 429])
        self.assertEqual(len(net.asked), asked)
        # Neither our account nor a client's is meant.
        self.assertEqual(self.outcome(upstream, head(OWN)), 200)
        self.assertEqual(self.outcome(upstream, get(Credentials("Bearer T1"))), 429)
        clock.advance(60)
        self.assertEqual(self.outcome(upstream, head(ANONYMOUS)), 200)
