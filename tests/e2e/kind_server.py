"""Plays a registry: ``python -m tests.e2e.kind_server FILE``; :mod:`tests.e2e.kinds` says of what kinds."""

from __future__ import annotations

import json
import re
import secrets
import sys
import threading
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from tests.e2e.kind_house import House
from tests.e2e.kind_listener import Answering, Fields, Listener
from tests.e2e.kinds import MANIFEST_TYPE, TAGS, Kind, digest_of

_CONTENT = re.compile(r"/v2/(?P<repository>.+)/(?P<what>manifests|blobs|tags)/(?P<reference>[^/]+)")
_SERVICE = "e2e"


class Handler(Answering):
    """Answers by the role of the server."""

    def do_HEAD(self) -> None:
        """Answer without the body."""
        self.do_GET()

    def do_GET(self) -> None:
        """Answer by the role of this server."""
        path = urlsplit(self.path).path
        if self.server.role == "cdn":
            return self._cdn()
        if path == self.house.kind.realm:
            return self._token()
        if self.server.role == "registry":
            return self._registry(path)
        self.say(404)

    # --- the registry

    def _registry(self, path: str) -> None:
        """Answer a ping, or a question for content."""
        asked = _CONTENT.fullmatch(path)
        if asked is None:
            return self.say(200) if path == "/v2/" and self.name() is not None else self._challenge(None)
        repository = asked["repository"]
        refusal = self._refusal(repository)
        if refusal == 401:
            return self._challenge(repository)
        if refusal is not None:
            return self.say(refusal, code="DENIED")
        if asked["what"] == "manifests":
            return self._manifest(repository, asked["reference"])
        if asked["what"] == "tags":
            body = json.dumps({"name": repository, "tags": TAGS}).encode()
            return self.send(200, body, (("Content-Type", "application/json"),))
        self._blob(repository, asked["reference"])

    def _refusal(self, repository: str) -> int | None:
        """Return with what status somebody may not pull."""
        name = self.name()
        if self.house.kind.scheme == "basic":
            return 401 if name is None else None if self.house.may_pull(name, repository) else 403
        grant = self.house.grant(self.headers.get("Authorization"))
        return None if grant is not None and repository in grant[1] else 401

    def _challenge(self, repository: str | None) -> None:
        """Refuse, and say what is wanted."""
        kind = self.house.kind
        if kind.scheme == "basic":
            return self.say(401, (("WWW-Authenticate", f'Basic realm="{kind.name}",service="{_SERVICE}"'),))
        scope = kind.placeholder or (f"repository:{repository}:pull" if repository else None)
        realm = f'Bearer realm="{self.house.url("tokens")}{kind.realm}",service="{_SERVICE}"'
        self.say(401, (("WWW-Authenticate", realm + (f',scope="{scope}"' if scope else "")),))

    def _manifest(self, repository: str, reference: str) -> None:
        """Answer a manifest; GET costs a pull, HEAD costs nothing."""
        kind, name = self.house.kind, self.name() or ""
        data = self.house.manifest(repository, reference)
        if data is None:
            return self.say(404, code="MANIFEST_UNKNOWN")
        fields: Fields = (("Docker-Content-Digest", digest_of(data)),)
        if kind.quota is not None:
            left = self.house.take(name) if self.command == "GET" else self.house.left(name)
            fields = (
                *fields,
                ("RateLimit-Limit", f"{kind.quota};w=21600"),
                ("RateLimit-Remaining", f"{left or 0};w=21600"),
            )
            if left is None:
                retry = ("Retry-After", str(kind.retry_after_s))
                return self.say(429, (*fields[1:], retry), code="TOOMANYREQUESTS")
        self.send(200, data, (("Content-Type", MANIFEST_TYPE), *fields))

    def _blob(self, repository: str, digest: str) -> None:
        """Answer a blob, or send its client to the CDN."""
        data = self.house.blob(repository)
        if digest != digest_of(data):
            return self.say(404, code="BLOB_UNKNOWN")
        if self.house.kind.redirect is None:
            return self._content(data, digest)
        signature = secrets.token_hex(20)
        self.house.signatures.add(signature)
        location = f"{self.house.url('cdn')}/data/{repository}?Expires=9&X-Amz-Signature={signature}"
        self.send(self.house.kind.redirect, b"", (("Location", location),), issued=signature)

    def _content(self, data: bytes, digest: str) -> None:
        """Send a blob, or its first byte."""
        fields: Fields = (("Content-Type", "application/octet-stream"), ("Docker-Content-Digest", digest))
        if self.headers.get("Range") == "bytes=0-0":
            return self.send(206, data[:1], (*fields, ("Content-Range", f"bytes 0-0/{len(data)}")))
        self.send(200, data, fields)

    # --- the CDN and the token server

    def _cdn(self) -> None:
        """Answer a signed address; a second credential is an error (docs.aws.amazon.com, "S3 error responses")."""
        split, kind = urlsplit(self.path), self.house.kind
        signature = parse_qs(split.query).get("X-Amz-Signature", [""])[0]
        if self.headers.get("Authorization") or self.headers.get("Cookie"):
            return self.say(400, code="InvalidArgument")
        repository = split.path.removeprefix("/data/")
        if repository in kind.cdn_refuses:
            return self.say(kind.cdn_refuses[repository], code=f"SignatureDoesNotMatch: {split.query}")
        if signature not in self.house.signatures:
            return self.say(403, code="AccessDenied")
        if self.command == "HEAD" and kind.cdn_head != 200:
            return self.say(kind.cdn_head, code="SignatureDoesNotMatch")
        data = self.house.blob(repository)
        self._content(data, digest_of(data))

    def _token(self) -> None:
        """Give a token, or none."""
        kind, query = self.house.kind, parse_qs(urlsplit(self.path).query)
        shown = self.headers.get("Authorization")
        name = "" if shown is None else self.house.name_of(shown)
        if name is None:
            return self.say(kind.refuses_tokens or 401, code=self._echo("DENIED"))
        asked = {scope.split(":")[1] for scope in query.get("scope", []) if scope.endswith(":pull")}
        granted = frozenset(repository for repository in asked if self.house.may_pull(name, repository))
        if kind.refuses_tokens is not None and granted != asked:
            return self.say(kind.refuses_tokens, code=self._echo("DENIED"))
        if query.get("service") != [_SERVICE]:
            granted = frozenset()
        token = f"{kind.name}.{secrets.token_urlsafe(40)}"
        self.house.tokens[token] = (name, granted)
        body = json.dumps({"token": token, "expires_in": 300}).encode()
        self.send(200, body, (("Content-Type", "application/json"),), issued=token)

    def _echo(self, code: str) -> str:
        """Return a code, with what was shown if this kind is so careless."""
        return f"{code} {self.headers.get('Authorization')}" if self.house.kind.echoes else code


def main(file: Path) -> None:
    """Serve until the process is ended."""
    orders = json.loads(file.read_text())
    house = House(Kind.from_json(orders["kind"]), orders["ports"], orders["people"])
    servers = {port: server for server, port in reversed(house.ports.items()) if server not in orders["dead"]}
    listeners = [Listener(server, house, Handler) for server in servers.values()]
    threads = [threading.Thread(target=listener.serve_forever) for listener in listeners]
    for thread in threads:
        thread.start()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
