"""Upstreams over TLS: whom we believe, whom we tell who we are, and that neither holds elsewhere (RULES F3)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from tests.e2e.certificates import Certificate, self_signed
from tests.e2e.kinds import HUB, QUAY, Door, Kind, Running, Server, start_kind
from tests.e2e.processes import Workshop
from tests.e2e.proxy import Proxy, start_proxy

Entry = dict[str, object]
MANIFEST, OTHER_TAG = "public/app/manifests/1", "public/app/manifests/2"
# Nobody is redirected.
PLAIN = evolve(QUAY, redirect=None)
CLIENT = "proxy-of-ours"


class TlsTestCase(SynchronousTestCase):
    """A private authority, a client's certificate that it has signed, and one that nobody has signed."""

    def setUp(self) -> None:
        """Make the certificates."""
        self.shop = Workshop()
        self.addCleanup(self.shop.close)
        self.directory: Path = self.shop.directory("certificates")
        self.authority = self_signed(self.directory, "authority")
        self.right = self.authority.issue(self.directory, "right", "127.0.0.1")
        self.elsewhere = self.authority.issue(self.directory, "elsewhere", "registry.example", "127.0.0.2")
        self.unsigned = self_signed(self.directory, "unsigned", "127.0.0.1")
        self.client = self.authority.issue(self.directory, CLIENT)

    def door(self, certificate: Certificate, client: str = "ignored") -> Door:
        """Return a door with this certificate."""
        return Door(certificate.cert, certificate.key, self.authority.cert, client)  # type: ignore[arg-type]

    def registry(self, certificate: Certificate, client: str = "ignored") -> Running:
        """Start a registry over TLS."""
        return start_kind(self.shop, evolve(PLAIN, doors={"registry": self.door(certificate, client)}))

    def ours(self) -> dict[str, object]:
        """Return who we are, for an entry."""
        return {"cert": self.client.cert, "key": self.client.key}

    def start(self, **entries: Entry) -> Proxy:
        """Start a proxy; the namespaces are the names of the entries."""
        table = [{"namespace": f"{name}.test", **entry} for name, entry in entries.items()]
        settings: dict[str, Any] = {"shipped_upstreams": False, "default_namespace": table[0]["namespace"]}
        return start_proxy(self.shop, "", upstreams=table, **settings)

    def entry(self, upstream: Running, **tls: object) -> Entry:
        """Return an entry for an upstream."""
        return {"urls": [upstream.url], **({"tls": tls} if tls else {})}

    def assert_statuses(self, proxy: Proxy, target: str, **expected: int) -> None:
        """Ask each namespace for the same."""
        found = {name: self.status(proxy, name, target) for name in expected}
        self.assertEqual(found, expected, proxy.process.log()[-3000:])

    def status(self, proxy: Proxy, name: str, target: str) -> int:
        """Ask for content; an error is one of ours."""
        status, _, body = proxy.ask("GET", f"/v2/{target}?ns={name}.test")
        if status == 502:
            self.assertIn(json.loads(body)["errors"][0]["code"], ("UNAVAILABLE", "UNKNOWN"), body)
        return status


class TrustTests(TlsTestCase):
    """Whom we believe at the registry itself."""

    def test_a_private_authority(self) -> None:
        """It is believed where it is named, and nowhere else: not without, not if it is another."""
        upstream = self.registry(self.right)
        proxy = self.start(
            named=self.entry(upstream, ca=self.authority.cert),
            without=self.entry(upstream),
            another=self.entry(upstream, ca=self.unsigned.cert),
        )
        self.assert_statuses(proxy, MANIFEST, without=502, another=502)
        self.assertEqual(upstream.news(), [], "no request went to whom we do not believe")
        self.assert_statuses(proxy, MANIFEST, named=200)
        # What is kept of one entry opens nothing for another, whose connections are its own.
        self.assert_statuses(proxy, OTHER_TAG, without=502, another=502, named=200)

    def test_a_certificate_that_nobody_has_signed(self) -> None:
        """Refused, unless nothing is verified, or the certificate itself is trusted."""
        upstream = self.registry(self.unsigned)
        proxy = self.start(
            strict=self.entry(upstream),
            other=self.entry(upstream, ca=self.authority.cert),
            trusting=self.entry(upstream, verify=False),
            pinned=self.entry(upstream, ca=self.unsigned.cert),
        )
        self.assert_statuses(proxy, MANIFEST, strict=502, other=502)
        self.assertEqual(upstream.news(), [])
        self.assert_statuses(proxy, MANIFEST, trusting=200, pinned=200)

    def test_a_wrong_host_name(self) -> None:
        """A certificate of the right authority for another name and address is refused."""
        upstream = self.registry(self.elsewhere)
        proxy = self.start(
            strict=self.entry(upstream, ca=self.authority.cert),
            trusting=self.entry(upstream, ca=self.authority.cert, verify=False),
        )
        self.assert_statuses(proxy, MANIFEST, strict=502)
        self.assertEqual(upstream.news(), [])
        self.assert_statuses(proxy, MANIFEST, trusting=200)

    def test_a_name_is_no_address(self) -> None:
        """The same server: a certificate for its name is good for its name only."""
        named = self.authority.issue(self.directory, "named", "localhost")
        kind = evolve(PLAIN, realm_host="localhost", doors={"registry": self.door(named)})
        upstream = start_kind(self.shop, kind)
        by_name: Entry = {"urls": [upstream.url.replace("127.0.0.1", "localhost")], "tls": {"ca": self.authority.cert}}
        proxy = self.start(address=self.entry(upstream, ca=self.authority.cert), name=by_name)
        self.assert_statuses(proxy, MANIFEST, address=502, name=200)


class IdentityTests(TlsTestCase):
    """Who we are, where a certificate is wanted."""

    def test_a_registry_that_requires_a_certificate(self) -> None:
        """It sees ours, if there is one; without, and with one that nobody has signed, it is 502."""
        upstream = self.registry(self.right, "required")
        stranger = {"cert": self.unsigned.cert, "key": self.unsigned.key}
        proxy = self.start(
            known=self.entry(upstream, ca=self.authority.cert, **self.ours()),
            nobody=self.entry(upstream, ca=self.authority.cert),
            stranger=self.entry(upstream, ca=self.authority.cert, **stranger),
            trusting=self.entry(upstream, verify=False, **self.ours()),
        )
        self.assert_statuses(proxy, MANIFEST, nobody=502, stranger=502)
        self.assertEqual(upstream.news(), [])
        self.assert_statuses(proxy, MANIFEST, known=200, trusting=200)
        self.assertEqual({seen.certificate for seen in upstream.news()}, {CLIENT})


class ElsewhereTests(TlsTestCase):
    """Another port is another origin: what is configured for the registry does not count there."""

    def hub(self, tokens: Door, cdn: Door) -> Running:
        """Start a registry that asks for our certificate, with a token server and a CDN behind doors of their own."""
        doors: dict[Server, Door] = {"registry": self.door(self.right, "required"), "tokens": tokens, "cdn": cdn}
        return start_kind(self.shop, evolve(HUB, doors=doors))

    def blob(self, upstream: Running) -> str:
        """Return the target of its blob."""
        return f"public/app/blobs/{upstream.blob_digest('public/app')}"

    def test_a_token_server_and_a_cdn_that_ask_for_our_certificate_get_none(self) -> None:
        """The registry gets it; the others go without, and by the entry's authority they are believed."""
        asking = self.door(self.right, "asked")
        upstream = self.hub(asking, asking)
        proxy = self.start(known=self.entry(upstream, ca=self.authority.cert, **self.ours()))
        self.assert_statuses(proxy, MANIFEST, known=200)
        self.assert_statuses(proxy, self.blob(upstream), known=200)
        seen = {(seen.server, seen.certificate) for seen in upstream.news()}
        self.assertEqual(seen, {("registry", CLIENT), ("tokens", None), ("cdn", None)})

    def test_one_that_insists_is_not_reached_unless_it_is_named(self) -> None:
        """502 at the CDN; with its origin in `origins` it is one of the entry's own, and sees the certificate."""
        upstream = self.hub(self.door(self.right), self.door(self.right, "required"))
        entry = self.entry(upstream, ca=self.authority.cert, **self.ours())
        cdn = f"https://127.0.0.1:{upstream.ports['cdn']}"
        proxy = self.start(plain=entry, named={**entry, "origins": [cdn]})
        self.assert_statuses(proxy, self.blob(upstream), plain=502)
        self.assertNotIn("cdn", {seen.server for seen in upstream.news()})
        self.assert_statuses(proxy, self.blob(upstream), named=200)
        self.assertEqual({seen.certificate for seen in upstream.news() if seen.server == "cdn"}, {CLIENT})

    def trusting(self, upstream: Running, **more: object) -> Entry:
        """Return an entry that verifies nothing."""
        return {**self.entry(upstream, verify=False, **self.ours()), **more}

    def test_unverified_is_the_registry_alone_not_the_cdn(self) -> None:
        """The CDN's certificate that nobody has signed is refused."""
        upstream = start_kind(self.shop, self.unsigned_at("cdn"))
        proxy = self.start(trusting=self.trusting(upstream))
        self.assert_statuses(proxy, MANIFEST, trusting=200)
        self.assert_statuses(proxy, self.blob(upstream), trusting=502)
        self.assertNotIn("cdn", {seen.server for seen in upstream.news()})

    def test_unverified_is_the_registry_alone_not_the_token_server(self) -> None:
        """Not the token server's either; no token was asked for, and no password shown."""
        upstream = start_kind(self.shop, self.unsigned_at("tokens"))
        login = {"username": "robot", "password": "r0bot"}
        realm = f"https://127.0.0.1:{upstream.ports['tokens']}/token"
        proxy = self.start(
            nobody=self.trusting(upstream),
            own=self.trusting(upstream, credentials=login),
            # Where credentials may go says nothing about whom we believe.
            realm=self.trusting(upstream, credentials=login, token_realm=realm),
        )
        self.assert_statuses(proxy, MANIFEST, nobody=502, own=502, realm=502)
        self.assertNotIn("tokens", {seen.server for seen in upstream.news()})

    def test_an_origin_that_is_named_is_trusted_as_the_registry(self) -> None:
        """With the CDN in `origins`, `verify: false` counts there too."""
        upstream = start_kind(self.shop, self.unsigned_at("cdn"))
        cdn = f"https://127.0.0.1:{upstream.ports['cdn']}"
        proxy = self.start(trusting=self.trusting(upstream, origins=[cdn]))
        self.assert_statuses(proxy, self.blob(upstream), trusting=200)

    def unsigned_at(self, server: Server) -> Kind:
        """Return a kind in which the registry and one other have a certificate that nobody has signed."""
        door = self.door(self.unsigned)
        return evolve(HUB, doors={"registry": door, server: door})

    def test_no_redirect_leads_out_of_tls(self) -> None:
        """From https to http: 502, and the CDN is not asked."""
        upstream = start_kind(self.shop, evolve(HUB, tokens_elsewhere=False, doors={"registry": self.door(self.right)}))
        proxy = self.start(known=self.entry(upstream, ca=self.authority.cert))
        self.assert_statuses(proxy, self.blob(upstream), known=502)
        self.assertNotIn("cdn", {seen.server for seen in upstream.news()})
