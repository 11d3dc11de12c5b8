"""Registries as the big ones are: who is asked what in whose name, and what a client gets for it (RULES C, D, F3)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from urllib.parse import urlencode

from attrs import evolve

from tests.e2e.kind_laboratory import AWS_CLIENT, PLAIN, WITH_OWN, KindsTestCase, people
from tests.e2e.kind_table import ROWS, Mode, Row, Step
from tests.e2e.kinds import ECR, GHCR, HUB, QUAY, Kind, Running, start_kind
from tests.e2e.proxy import Proxy, ask
from tests.e2e.users import ALICE


class TableTests(KindsTestCase):
    """Every row of the table."""

    def assert_rows(self, kind: Kind) -> None:
        """Play all rows of a kind, each with a repository of its own."""
        upstream = start_kind(self.shop, kind, people(kind))
        modes: tuple[Mode, ...] = ("transparent", "authenticated")
        proxies = {mode: self.proxy_for(upstream, mode) for mode in modes}
        rows = [row for row in ROWS if row.kind is kind]
        self.assertGreater(len(rows), 7)
        for number, row in enumerate(rows):
            self.assert_row(row, upstream, proxies[row.mode], f"{row.owner}/app{number}")
        for seen in upstream.seen():
            self.assertEqual(seen.host, f"127.0.0.1:{upstream.ports[seen.server]}")
        for proxy in proxies.values():
            self.assertEqual(proxy.complaints(), [])
            log = proxy.process.log()
            self.assertEqual([secret for secret in upstream.issued() if secret in log], [])

    def assert_row(self, row: Row, upstream: Running, proxy: Proxy, repository: str) -> None:
        """Play one row cold, and once more warm."""
        namespace = WITH_OWN if row.own else PLAIN
        upstream.news()
        shown = self.assert_token(row, upstream, proxy, namespace, repository)
        digest = upstream.blob_digest(repository)
        parts = (
            (f"{repository}/manifests/1", row.manifest, upstream.manifest(repository)),
            (f"{repository}/blobs/{digest}", row.blob, upstream.blob(repository)),
        )
        for target, expected, content in parts:
            step = Step.parse(expected)
            status, headers, body = self.pull(proxy, namespace, target, shown)
            where = f"{row}: {target}"
            self.assertEqual((status, upstream.lines(repository)), (step.status, list(step.requests)), where)
            self.assert_answer(where, status, headers, body, content)
        self.assert_head_costs_no_get(row, upstream, proxy, namespace, repository, shown)
        self.assert_warm(row, upstream, proxy, namespace, [target for target, _, _ in parts], shown)

    def assert_token(self, row: Row, upstream: Running, proxy: Proxy, namespace: str, repository: str) -> str:
        """Ask for a token, if this row's client has something to show."""
        if row.who == "nobody":
            return ""
        client = people(row.kind)["client"]
        status, shown = self.token(proxy, namespace, repository, client if row.who == "client" else client.mistyped())
        step, lines = Step.parse(row.token), upstream.lines(repository)
        # What /v2/ wants is remembered for a minute, for all repositories.
        requests = [line for line in step.requests if "/v2/" not in line or line in lines]
        self.assertEqual((status, lines), (step.status, requests), str(row))
        return shown

    def assert_answer(self, where: str, status: int, headers: Mapping[str, str], body: bytes, content: bytes) -> None:
        """The original, or a refusal with our one challenge; never what upstream wants to be remembered by."""
        self.assertNotIn("set-cookie", headers, where)
        if status == 200:
            self.assertTrue(body == content, where)
            return
        self.assertEqual(headers["www-authenticate"].count("realm="), 1, where)
        self.assertIn("/v2/_token/", headers["www-authenticate"], where)
        self.assertIn(json.loads(body)["errors"][0]["code"], ("UNAUTHORIZED", "DENIED"), where)

    def assert_head_costs_no_get(
        self, row: Row, upstream: Running, proxy: Proxy, namespace: str, repository: str, shown: str
    ) -> None:
        """D5: HEAD of a tag that is not kept is HEAD upstream."""
        status, _, body = self.pull(proxy, namespace, f"{repository}/manifests/2", shown, "HEAD")
        self.assertEqual((status, body), (Step.parse(row.manifest).status, b""), str(row))
        methods = {line.split()[1] for line in upstream.lines(repository) if line.startswith("registry")}
        self.assertEqual(methods, {"HEAD"}, str(row))

    def assert_warm(
        self, row: Row, upstream: Running, proxy: Proxy, namespace: str, targets: list[str], shown: str
    ) -> None:
        """Transparent: no contact.  Authenticated: the upstream is asked whether, and never sends a body again."""
        for target in targets:
            cold = Step.parse(row.manifest).status
            self.assertEqual(self.pull(proxy, namespace, target, shown)[0], cold, str(row))
        seen = upstream.news()
        bodies = [ask for ask in seen if ask.status == 200 and ask.method == "GET" and ask.server != "tokens"]
        self.assertEqual(bodies, [], str(row))
        self.assertEqual(seen == [], row.mode == "transparent" and cold == 200, str(row))

    def test_hub(self) -> None:
        """The token server is elsewhere; blobs are at a CDN that takes no second credential."""
        self.assert_rows(HUB)

    def test_ghcr(self) -> None:
        """Every challenge has a placeholder for a scope."""
        self.assert_rows(GHCR)

    def test_quay(self) -> None:
        """The token server is at the registry."""
        self.assert_rows(QUAY)

    def test_ecr(self) -> None:
        """Basic only; redirects are signed for one method."""
        self.assert_rows(ECR)


class LaboratoryTests(KindsTestCase):
    """The registries themselves are as strict as is said of them."""

    def test_the_cdn_takes_no_second_credential(self) -> None:
        """400 with Authorization or Cookie, 403 without signature, content otherwise."""
        upstream = start_kind(self.shop, evolve(ECR, cdn_head=403), people(ECR))
        basic = {"Authorization": AWS_CLIENT.basic}
        target = f"/v2/team/app/blobs/{upstream.blob_digest('team/app')}"
        status, headers, _ = ask(upstream.ports["registry"], "GET", target, basic)
        self.assertEqual(status, 307)
        port, signed = upstream.ports["cdn"], headers["location"].partition(str(upstream.ports["cdn"]))[2]
        self.assertEqual(ask(port, "GET", signed, basic)[0], 400)
        self.assertEqual(ask(port, "GET", signed, {"Cookie": "a=b"})[0], 400)
        self.assertEqual(ask(port, "GET", signed[:-1])[0], 403)
        self.assertEqual(ask(port, "HEAD", signed)[0], 403)
        self.assertEqual(ask(port, "GET", signed)[2], upstream.blob("team/app"))
        lines = upstream.lines("team/app")
        self.assertEqual(lines[1:3], ["cdn GET data basic client 400", "cdn GET data nobody 400 COOKIE"])

    def test_only_the_right_scope_gives_a_useful_token(self) -> None:
        """The placeholder's does not; and a wrong service gives nothing either."""
        upstream = start_kind(self.shop, GHCR, people(GHCR))
        port = upstream.ports["tokens"]
        wanted = {
            "scope=repository:public/app:pull&service=e2e": 200,
            "scope=repository:public/image:pull&service=e2e": 401,
            "scope=repository:public/app:pull&service=other": 401,
        }
        for query, expected in wanted.items():
            token = json.loads(ask(port, "GET", f"/token?{query}")[2])["token"]
            shown = {"Authorization": f"Bearer {token}"}
            self.assertEqual(ask(port, "GET", "/v2/public/app/manifests/1", shown)[0], expected, query)
        _, headers, _ = ask(port, "GET", "/v2/public/app/manifests/1")
        self.assertIn('scope="repository:user/image:pull"', headers["www-authenticate"])
        self.assertEqual(ask(port, "GET", "/token?scope=repository:user/image:pull&service=e2e")[0], 403)


class RealmTests(KindsTestCase):
    """C8: a token server at another host is asked as nobody, unless it is configured."""

    def upstreams(self) -> Running:
        """Start a registry that names its token server by another name of this machine."""
        return start_kind(self.shop, evolve(HUB, realm_host="localhost"), people(HUB))

    def test_another_port_of_the_same_host_is_fine_and_another_host_is_not(self) -> None:
        """Nobody's pulls work, and no password goes there: not the client's, not ours."""
        upstream = self.upstreams()
        proxy = self.proxy_for(upstream)
        for namespace in (PLAIN, WITH_OWN):
            for owner, expected in (("public", 200), ("team", 401)):
                repository = f"{owner}/{namespace}"
                status, shown = self.token(proxy, namespace, repository, ALICE)
                self.assertEqual(status, 200, "of nobody, since transparent mode goes on")
                self.assertEqual(self.pull(proxy, namespace, f"{repository}/manifests/1", shown)[0], expected)
        self.assertEqual({seen.who for seen in upstream.seen()}, {"nobody", "bearer nobody"})
        self.assertIn("tokens", {seen.server for seen in upstream.seen()})

    def test_authenticated_mode_says_what_is_to_be_configured(self) -> None:
        """403 with the key, and the password stays here."""
        upstream = self.upstreams()
        proxy = self.proxy_for(upstream, "authenticated")
        query = urlencode({"scope": "repository:team/app:pull"})
        status, _, body = proxy.ask("GET", f"/v2/_token/{PLAIN}?{query}", {"Authorization": ALICE.basic})
        self.assertEqual(status, 403)
        self.assertIn("token_realm", json.loads(body)["errors"][0]["message"])
        self.assertEqual({seen.who for seen in upstream.seen()}, {"nobody"})

    def test_a_realm_that_is_named_sees_credentials(self) -> None:
        """The client's and ours."""
        upstream = self.upstreams()
        realm = f"http://localhost:{upstream.ports['tokens']}/token"
        proxy = self.proxy_for(upstream, token_realm=realm)
        _, shown = self.token(proxy, PLAIN, "team/app", ALICE)
        self.assertEqual(self.pull(proxy, PLAIN, "team/app/manifests/1", shown)[0], 200)
        self.assertEqual(self.pull(proxy, WITH_OWN, "team/other/manifests/1")[0], 200)
        asked = [seen.who for seen in upstream.seen() if seen.server == "tokens"]
        self.assertEqual(asked, ["basic client", "basic own"])
