"""A client by plain HTTP: it asks for a token of the cache and shows it, as real clients do, step by step."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from urllib.parse import urlencode, urlsplit

from attrs import frozen

from tests.e2e.clients import Reference
from tests.e2e.proxy import Proxy, ask
from tests.e2e.users import User

Answer = tuple[int, dict[str, str], bytes]
_CHALLENGE = re.compile(r'(\w+)="([^"]*)"')


@frozen
class WireClient:
    """Asks the proxy; the namespace travels as ``ns=``."""

    proxy: Proxy

    def token(self, reference: Reference, user: User | None) -> tuple[int, str]:
        """Ask the cache for a token to pull from this repository; return the status and the token."""
        query = urlencode({"service": "ociproxy", "scope": f"repository:{reference.repository}:pull"})
        target = f"/v2/_token/{reference.namespace}?{query}"
        status, _, body = self.proxy.ask("GET", target, {"Authorization": user.basic} if user else {})
        return status, json.loads(body).get("token", "") if status == 200 else ""

    def get(self, reference: Reference, what: str, token: str = "", method: str = "GET") -> Answer:
        """Ask for ``manifests/...`` or ``blobs/...`` of a repository.

        :param token: of the cache; none is nobody.
        """
        headers = {"Accept": "*/*", **({"Authorization": f"Bearer {token}"} if token else {})}
        return self.proxy.ask(method, f"/v2/{reference.repository}/{what}?ns={reference.namespace}", headers)

    def get_as(self, user: User | None, reference: Reference, what: str) -> Answer:
        """Ask with a fresh token for this repository; a refusal of the token is the answer then."""
        status, token = self.token(reference, user)
        return self.get(reference, what, token) if status == 200 else (status, {}, b"")

    def challenge(self, headers: Mapping[str, str]) -> dict[str, str]:
        """Return the parameters of the one challenge that an answer has."""
        scheme, _, rest = headers["www-authenticate"].partition(" ")
        return {"scheme": scheme, **dict(_CHALLENGE.findall(rest))}

    def follow(self, headers: Mapping[str, str], user: User) -> str:
        """Ask for a token exactly as the challenge of an answer says."""
        challenge = self.challenge(headers)
        realm = urlsplit(challenge["realm"])
        query = urlencode([(name, value) for name, value in challenge.items() if name in ("service", "scope")])
        _, _, body = ask(realm.port or 0, "GET", f"{realm.path}?{query}", {"Authorization": user.basic})
        return str(json.loads(body)["token"])
