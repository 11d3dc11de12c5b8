"""One registry of some kind, a proxy in front of it, and clients by plain HTTP."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode

from twisted.trial.unittest import SynchronousTestCase

from tests.e2e.kind_table import Mode
from tests.e2e.kinds import Kind, Running
from tests.e2e.processes import Workshop
from tests.e2e.proxy import Proxy, start_proxy
from tests.e2e.users import ALICE, User

Answer = tuple[int, dict[str, str], bytes]
OWN = User("robot", "r0bot+own/pw=&%41")
# The user is always AWS; the password is a token for twelve hours.
AWS_CLIENT, AWS_OWN = User("AWS", "eyJ+client/token=="), User("AWS", "eyJ+own/token==")
PLAIN, WITH_OWN = "plain.test", "own.test"


def people(kind: Kind) -> dict[str, User]:
    """Return whom a registry knows."""
    client, own = (AWS_CLIENT, AWS_OWN) if kind.scheme == "basic" else (ALICE, OWN)
    return {"client": client, "own": own}


class KindsTestCase(SynchronousTestCase):
    """One registry, which two namespaces lead to: with credentials of the proxy's own, and without."""

    def setUp(self) -> None:
        """Open the workshop."""
        self.shop = Workshop()
        self.addCleanup(self.shop.close)

    def proxy_for(self, upstream: Running, mode: Mode = "transparent", **more: object) -> Proxy:
        """Start a proxy.

        :param more: further keys of both entries.
        """
        own = people(upstream.kind)["own"]
        login = {"username": own.name, "password": own.password}
        common = {"urls": [upstream.url], **more}
        table = [{"namespace": PLAIN, **common}, {"namespace": WITH_OWN, **common, "credentials": login}]
        return self.proxy_of(table, mode)

    def proxy_of(self, table: list[dict[str, object]], mode: Mode = "transparent", **settings: object) -> Proxy:
        """Start a proxy with this table."""
        rest: dict[str, Any] = {
            "shipped_upstreams": False,
            "default_namespace": PLAIN,
            "log_level": "debug",
            **settings,
        }
        return start_proxy(self.shop, "", mode=mode, upstreams=table, **rest)

    def token(self, proxy: Proxy, namespace: str, repository: str, user: User) -> tuple[int, str]:
        """Ask for a token of ours; return the status and, if there is one, the value for Authorization."""
        query = urlencode({"service": "ociproxy", "scope": f"repository:{repository}:pull"})
        fields = {"Authorization": user.basic, "Cookie": "of=the-client"}
        status, _, body = proxy.ask("GET", f"/v2/_token/{namespace}?{query}", fields)
        return status, f"Bearer {json.loads(body)['token']}" if status == 200 else ""

    def pull(self, proxy: Proxy, namespace: str, target: str, shown: str = "", method: str = "GET") -> Answer:
        """Ask for content.

        :param target: ``<repository>/manifests/...`` or ``<repository>/blobs/...``.
        """
        fields = {"Cookie": "of=the-client", **({"Authorization": shown} if shown else {})}
        return proxy.ask(method, f"/v2/{target}?ns={namespace}", fields)
