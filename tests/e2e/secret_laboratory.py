"""Every secret that there can be, registries to show them to, and a client that keeps what it was told."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlencode

import yaml
from attrs import define, evolve, field
from twisted.trial.unittest import SynchronousTestCase

from tests.e2e.kinds import ECR, GHCR, HUB, Running, start_kind
from tests.e2e.processes import Workshop, accepts, free_port
from tests.e2e.proxy import Proxy
from tests.e2e.secret_search import Secrets, files_below, numbered
from tests.e2e.users import ALICE, BOB, User

# One per way to give a login of our own; a person would have to paste each of these by hand.
FILE = User("from-file", "file+p4ss/word=&%41 x")
INLINE = User("from-yaml", "yaml+p4ss/word=&%42 \"x'")
VARIABLE = User("from-variable", "env+p4ss/word=&%43 y")
JSON = User("from-json", "json+p4ss/word=&%44 z")
REFUSED = User("refused", "wrong+p4ss/word=&%45")
PASTED = "pasted+p4ss/word=&%46"
NATIVE = "native-bearer-t0ken-of-a-client"
COOKIE = "cookie-s3cret-of-a-client"
QUERY = "query-s3cret-of-a-client"
CLIENT, MISTYPED = ALICE, BOB.mistyped()
POSTED = User("poster", "p0st+form/word=&%47 ü")
LOGINS = {
    "password_file": FILE,
    "password": INLINE,
    "password_env": VARIABLE,
    "UPSTREAM_CREDENTIALS": JSON,
    "a refused login": REFUSED,
    "a client's password": CLIENT,
    "a client's wrong password": MISTYPED,
    "a posted password": POSTED,
}
TEAM = "team/app"
# A CDN that repeats in its refusal the address that it refuses, as S3 does.
CDN_REFUSES = {f"team/refused-{status}": status for status in (400, 403, 404, 500, 503)}


@define(eq=False)
class Told:
    """A client that keeps everything it was told."""

    proxy: Proxy
    bodies: list[tuple[str, bytes]] = field(factory=list)
    envelopes: list[str] = field(factory=list)

    def ask(
        self, target: str, shown: str = "", method: str = "GET", form: Mapping[str, str] | None = None
    ) -> tuple[int, bytes]:
        """Ask; every answer counts with its header fields, but not a token that was asked for, or content."""
        fields = {"Cookie": f"c={COOKIE}", **({"Authorization": shown} if shown else {})}
        if form is not None:
            fields["Content-Type"] = "application/x-www-form-urlencoded"
        body = None if form is None else urlencode(form)
        status, headers, answer = self.proxy.ask(method, target, fields, body)
        is_token = "/_token" in target and status == 200
        kept = str(headers).encode() + (b"" if is_token else answer)
        self.bodies.append((f"{method} {target.partition('?')[0]}", kept))
        return status, answer

    def token(self, namespace: str, user: User, repository: str = TEAM, posts: bool = False) -> str:
        """Ask for a token of ours; return the Authorization that it makes, empty for a refusal."""
        scope, target = f"repository:{repository}:pull", f"/v2/_token/{namespace}"
        if posts:
            login = {"grant_type": "password", "username": user.name, "password": user.password}
            status, body = self.ask(target, method="POST", form={**login, "service": "ociproxy", "scope": scope})
        else:
            status, body = self.ask(f"{target}?{urlencode({'scope': scope})}", user.basic)
        if status != 200:
            return ""
        self.envelopes.append(json.loads(body)["token"])
        return f"Bearer {self.envelopes[-1]}"

    def pull(self, namespace: str, upstream: Running, shown: str = "", repository: str = TEAM) -> list[int]:
        """Ask for manifest, blob, and by HEAD; return the statuses."""
        digest = upstream.blob_digest(repository)
        wanted = (("GET", "manifests/1"), ("GET", f"blobs/{digest}"), ("HEAD", "manifests/2"), ("GET", "tags/list"))
        return [
            self.ask(f"/v2/{repository}/{what}?ns={namespace}&token={QUERY}", shown, method)[0]
            for method, what in wanted
        ]


class SecretsTestCase(SynchronousTestCase):
    """Registries that get every secret there is, and some that answer as badly as they can."""

    def setUp(self) -> None:
        """Start them: one that works, and those that fail in ways that could make somebody talk."""
        self.shop = Workshop()
        self.addCleanup(self.shop.close)
        known = {label: user for label, user in LOGINS.items() if user not in (REFUSED, MISTYPED)}
        self.hub = start_kind(self.shop, evolve(HUB, echoes=True), known)
        self.basic = start_kind(self.shop, ECR, known)
        # Its token server repeats what it refuses.
        self.careless = start_kind(self.shop, evolve(GHCR, echoes=True), known)
        self.no_cdn = start_kind(self.shop, HUB, known, dead=["cdn"])
        self.bad_cdn = start_kind(self.shop, evolve(HUB, cdn_refuses=CDN_REFUSES), known)
        self.no_tokens = start_kind(self.shop, HUB, known, dead=["tokens"])
        self.upstreams = [self.hub, self.basic, self.careless, self.no_cdn, self.bad_cdn, self.no_tokens]

    def table(self) -> list[dict[str, object]]:
        """Return the upstreams; all of them with logins of our own, but for those that clients bring theirs to."""
        file = self.shop.path / "password"
        file.write_text(FILE.password)
        in_file = {"username": FILE.name, "password_file": str(file)}
        inline = {"username": INLINE.name, "password": INLINE.password}
        variable = {"username": VARIABLE.name, "password_env": "OUR_PASSWORD"}
        refused = {"username": REFUSED.name, "password": REFUSED.password}
        entries: list[tuple[str, Running | str, dict[str, str] | None]] = [
            ("hub.test", self.hub, None),
            ("basic.test", self.basic, None),
            ("careless.test", self.careless, None),
            ("file.test", self.hub, in_file),
            ("inline.test", self.basic, inline),
            ("variable.test", self.careless, variable),
            ("json.test", self.hub, None),
            ("refused.test", self.careless, refused),
            ("refused-basic.test", self.basic, refused),
            ("no-cdn.test", self.no_cdn, in_file),
            ("bad-cdn.test", self.bad_cdn, inline),
            ("no-tokens.test", self.no_tokens, variable),
            ("lost.test", f"http://127.0.0.1:{free_port()}", inline),
        ]
        return [
            {
                "namespace": namespace,
                "urls": [upstream if isinstance(upstream, str) else upstream.url],
                **({"credentials": login} if login else {}),
            }
            for namespace, upstream, login in entries
        ]

    def start(self, mode: str) -> Proxy:
        """Start the proxy as talkative as it can be, with secrets in its file and its environment."""
        port, fs_root, file = free_port(), self.shop.directory("store"), self.shop.directory("config") / "ociproxy.yaml"
        settings = {"listen": [f"127.0.0.1:{port}"], "fs_root": str(fs_root), "log_level": "trace"}
        rest = {"shipped_upstreams": False, "default_namespace": "hub.test", "upstreams": self.table()}
        file.write_text(yaml.safe_dump({**settings, **rest}))
        login = {"json.test": {"username": JSON.name, "password": JSON.password}}
        env = {"OUR_PASSWORD": VARIABLE.password, "UPSTREAM_CREDENTIALS": json.dumps(login)}
        twistd = Path(sys.executable).with_name("twistd")
        words = [sys.executable, twistd, "-n", "--pidfile=", "ociproxy", "--mode", mode, "--config", file]
        process = self.shop.start("proxy", words, env)
        process.wait_for(lambda: accepts(port), 30, "listens")
        return Proxy(port, fs_root, process, file)

    def secrets(self, told: Told) -> Secrets:
        """Return all there are, when everything has happened."""
        secrets = Secrets()
        for what, user in LOGINS.items():
            secrets.add_login(what, user)
        secrets.add("a pasted password", PASTED)
        secrets.add("a native token", NATIVE)
        secrets.add("a cookie", COOKIE)
        secrets.add("a query", QUERY)
        secrets.add("an envelope", *told.envelopes)
        for upstream in self.upstreams:
            secrets.add("a token or a signature", *upstream.issued())
        return secrets

    def places(self, proxy: Proxy, told: Told) -> dict[str, bytes]:
        """Return everything that somebody else may read."""
        files = files_below(proxy.fs_root)
        self.assertIn(".txociproxy.json", files)
        self.assertGreater(len(files), 5)
        return {
            "the log": proxy.process.log().encode(),
            "the process table": Path(f"/proc/{proxy.pid}/cmdline").read_bytes(),
            **files,
            **numbered(told.bodies),
        }
