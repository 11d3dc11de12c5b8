"""Kinds of registries, as the big ones behave, and what a running one saw: values for both sides.

:mod:`tests.e2e.kind_server` plays them: each in one process, with its token server and its CDN on ports of their own.
"""

from __future__ import annotations

import functools
import hashlib
import json
import random
import sys
from collections.abc import Iterable, Mapping
from typing import Any, Literal
from urllib.parse import parse_qs, urlsplit

from attrs import asdict, define, field, frozen

from tests.e2e.processes import Process, Workshop, accepts, free_port
from tests.e2e.users import User

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
TAGS = tuple("12345678")
# Repositories of `public` are for everybody; those of `team` for all who are known but strangers; all others for whom
# they are named after.
PUBLIC, TEAM, STRANGER = "public", "team", "stranger"

Server = Literal["registry", "tokens", "cdn"]


@frozen
class Door:
    """TLS of one server.

    :ivar client: whether a client's certificate is asked for, or even required.
    """

    cert: str
    key: str
    client_ca: str | None = None
    client: Literal["ignored", "asked", "required"] = "ignored"


@frozen
class Kind:
    """How a registry behaves.

    :ivar scheme: what it wants to see.
    :ivar realm: the path of its token server.
    :ivar tokens_elsewhere: whether that is on another port.
    :ivar realm_host: how the challenge names the token server's host.
    :ivar placeholder: a scope that stands in every challenge; None is the right one.
    :ivar refuses_tokens: the status with which tokens for what is not allowed are refused; None gives an empty one.
    :ivar redirect: the status that sends a blob's client to the CDN; None sends the blob.
    :ivar cdn_head: what the CDN answers to HEAD when all is well.
    :ivar cdn_refuses: what the CDN answers for the blobs of some repositories, repeating its query, as S3 does.
    :ivar quota: how many manifests each user may GET; None has no quota.
    :ivar retry_after_s: what is said to who has no more.
    :ivar echoes: whether refusals of the token server repeat what they refuse.
    :ivar blob_bytes: the size of each blob; sent in pieces with ``pause_s`` between.
    :ivar head_delay_s: between a HEAD, which is seen at once, and its answer.
    :ivar doors: the servers that speak TLS.
    """

    name: str
    scheme: Literal["bearer", "basic"] = "bearer"
    realm: str = "/token"
    tokens_elsewhere: bool = False
    realm_host: str = "127.0.0.1"
    placeholder: str | None = None
    refuses_tokens: int | None = None
    redirect: int | None = None
    cdn_head: int = 200
    cdn_refuses: Mapping[str, int] = field(factory=dict)
    quota: int | None = None
    retry_after_s: int = 2
    echoes: bool = False
    blob_bytes: int = 100_000
    pause_s: float = 0
    head_delay_s: float = 0
    doors: Mapping[Server, Door] = field(factory=dict)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Kind:
        """Read what :func:`attrs.asdict` wrote."""
        doors = {server: Door(**door) for server, door in fields.pop("doors").items()}
        return cls(doors=doors, **fields)

    def url(self, server: Server, port: int) -> str:
        """Return where one of its servers is."""
        host = self.realm_host if server == "tokens" else "127.0.0.1"
        listener = "registry" if server == "tokens" and not self.tokens_elsewhere else server
        return f"{'https' if listener in self.doors else 'http'}://{host}:{port}"


# docs.docker.com, "Docker Hub usage and limits"; distribution: docs/spec/auth/token.md.
HUB = Kind("hub", tokens_elsewhere=True, redirect=307)
# What ghcr.io says at /v2/: `scope="repository:user/image:pull"`, whoever asks and for what; private things are 403.
GHCR = Kind("ghcr", placeholder="repository:user/image:pull", refuses_tokens=403, redirect=307)
# docs.aws.amazon.com, "Private registry authentication": Basic, user AWS; layers are in S3, signed for one method.
ECR = Kind("ecr", scheme="basic", redirect=307, cdn_head=403)
# docs.quay.io, "OAuth 2"; quay.io says `realm="https://quay.io/v2/auth"`.
QUAY = Kind("quay", realm="/v2/auth", redirect=302)


@functools.lru_cache(maxsize=64)
def blob_of(repository: str, size_bytes: int) -> bytes:
    """Return the one blob of a repository."""
    return random.Random(repository).randbytes(size_bytes)


def digest_of(data: bytes) -> str:
    """Return the sha256 digest."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def manifest_of(repository: str, tag: str, blob_bytes: int) -> bytes:
    """Return what a tag means: a manifest with the blob of its repository."""
    blob = blob_of(repository, blob_bytes)
    layer = {"mediaType": "application/octet-stream", "digest": digest_of(blob), "size": len(blob)}
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST_TYPE, "config": layer, "layers": [layer]}
    return json.dumps({**manifest, "annotations": {"repository": repository, "tag": tag}}).encode()


@frozen
class Seen:
    """One request that a server got, and what it answered.

    :ivar who: ``nobody``, or ``basic`` or ``bearer`` and whom the registry knows by that; ``?`` is nobody known.
    :ivar certificate: the common name of the client's certificate.
    :ivar issued: the secret that the answer carried: a token or a signature.
    """

    server: Server
    method: str
    target: str
    host: str | None
    who: str
    status: int
    cookie: str | None
    range: str | None
    certificate: str | None
    issued: str | None

    def line(self, repository: str) -> str:
        """Return it short, seen from one repository."""
        split = urlsplit(self.target)
        what = split.path.removeprefix(f"/v2/{repository}/")
        if "scope=" in split.query:
            what = " ".join(parse_qs(split.query)["scope"]).replace(f"repository:{repository}:pull", "scope")
        what = _short("data" if what == f"/data/{repository}" else what)
        words = [self.server, self.method, what, self.who, str(self.status), self.range, self.cookie and "COOKIE"]
        return " ".join(filter(None, words))


def _short(what: str) -> str:
    """Leave out the hexadecimal part of a digest."""
    place = what.find("sha256:")
    return what if place < 0 else f"{what[:place]}DIGEST"


@define(eq=False)
class Running:
    """A registry of some kind that runs, with its token server and CDN."""

    kind: Kind
    ports: Mapping[Server, int]
    process: Process
    _lines: int = field(default=0, init=False)

    @property
    def url(self) -> str:
        """Where the registry is."""
        return self.kind.url("registry", self.ports["registry"])

    def seen(self) -> list[Seen]:
        """Return every request, in the order of the answers."""
        # The last line may be on its way.
        lines = self.process.log().rpartition("\n")[0].splitlines()
        return [Seen(**json.loads(line)) for line in lines if line.startswith('{"server"')]

    def news(self) -> list[Seen]:
        """Return the requests since the last look."""
        everything = self.seen()
        news, self._lines = everything[self._lines :], len(everything)
        return news

    def lines(self, repository: str) -> list[str]:
        """Return the requests since the last look, short."""
        return [seen.line(repository) for seen in self.news()]

    def issued(self) -> list[str]:
        """Return all tokens and signatures that it has given out."""
        return [seen.issued for seen in self.seen() if seen.issued]

    def manifest(self, repository: str, tag: str = "1") -> bytes:
        """Return what a tag means."""
        return manifest_of(repository, tag, self.kind.blob_bytes)

    def blob(self, repository: str) -> bytes:
        """Return the blob of a repository."""
        return blob_of(repository, self.kind.blob_bytes)

    def blob_digest(self, repository: str) -> str:
        """Return its digest."""
        return digest_of(self.blob(repository))


def start_kind(
    shop: Workshop, kind: Kind, people: Mapping[str, User] | None = None, dead: Iterable[Server] = ()
) -> Running:
    """Start a registry.

    :param people: whom it knows, by the names that it has for them.
    :param dead: the servers that do not listen, though the others name them.
    """
    ports: dict[Server, int] = {"registry": free_port(), "cdn": free_port()}
    ports["tokens"] = free_port() if kind.tokens_elsewhere else ports["registry"]
    file = shop.directory(kind.name) / "kind.json"
    pairs = {user.pair: label for label, user in (people or {}).items()}
    file.write_text(json.dumps({"kind": asdict(kind), "ports": ports, "people": pairs, "dead": list(dead)}))
    process = shop.start(kind.name, [sys.executable, "-m", "tests.e2e.kind_server", file])
    alive = [port for server, port in ports.items() if server not in set(dead)]
    process.wait_for(lambda: all(accepts(port) for port in alive), 15, "listens")
    return Running(kind, ports, process)
