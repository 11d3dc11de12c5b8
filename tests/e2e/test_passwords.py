"""A door with a lock: real clients with names and passwords of the proxy's own (RULES C6)."""

from __future__ import annotations

import os
from urllib.request import Request as Asked
from urllib.request import urlopen

from tests.e2e import clients, login_clients
from tests.e2e.clients import Client
from tests.e2e.laboratory import LIBRARY, SHORT, LaboratoryTestCase
from tests.e2e.login_clients import LoginClient, as_user
from tests.e2e.processes import E2EError
from tests.e2e.proxy import Proxy, ask, start_proxy
from tests.e2e.registry import Registry, password_file
from tests.e2e.users import ALICE, BOB


class LockedDoorTests(LaboratoryTestCase):
    """Alice may come in; the upstream is open to everybody, and hears of nobody."""

    def proxy_before(self, registry: Registry) -> Proxy:
        """Start a proxy that knows Alice."""
        self.users = password_file(self.shop.directory("users"), [ALICE])
        return start_proxy(self.shop, registry.url, htpasswd_file=str(self.users))

    def assert_fails(self, client: Client, when: str) -> None:
        """A pull is refused."""
        with self.assertRaises(E2EError, msg=when):
            client(self.shop, self.proxy.port, LIBRARY)

    def assert_locked(self, client: LoginClient, anonymous: Client) -> None:
        """Only the right password pulls, cold and warm."""
        self.assert_fails(as_user(client, ALICE.mistyped()), "a wrong password")
        self.assert_fails(as_user(client, BOB), "a stranger")
        self.assert_fails(anonymous, "no password")
        self.assert_not_asked(self.registry.news())
        self.assert_whole(self.pull(as_user(client, ALICE), LIBRARY), "cold")
        self.registry.news()
        self.assert_whole(self.pull(as_user(client, ALICE), LIBRARY), "warm")
        self.assert_not_asked(self.registry.news())
        self.assert_fails(anonymous, "no password, and all is kept")
        self.assertNotIn(ALICE.password, self.proxy.process.log())
        self.assertNotIn(ALICE.encoded, self.proxy.process.log())

    def test_docker_login(self) -> None:
        """Docker's engine takes a Basic challenge when it is logged in."""
        self.assert_locked(login_clients.docker_login, clients.docker_path)

    def test_skopeo_creds(self) -> None:
        """``--src-creds``."""
        self.assert_locked(login_clients.skopeo_creds, clients.skopeo_path)

    def test_podman_login(self) -> None:
        """``podman login``."""
        self.assert_locked(login_clients.podman_login, clients.podman_path)

    def test_containerd_user(self) -> None:
        """``ctr --user``, with the namespace beside the path."""
        self.assert_locked(login_clients.containerd_user, clients.containerd_ns)

    def test_a_changed_file_counts_without_a_restart(self) -> None:
        """Bob is let in by the next check, Alice is out at the next reload."""
        self.assertEqual(self.status(ALICE.basic), 200)
        self.assertEqual(self.status(BOB.basic), 401)
        os.replace(password_file(self.shop.directory("others"), [BOB]), self.users)
        self.assertEqual(self.status(BOB.basic), 200)
        self.assertEqual(self.status(ALICE.basic), 200)
        self.proxy.reload()
        self.proxy.process.wait_for(lambda: self.status(ALICE.basic) == 401, 15, "turns Alice away")

    def test_who_asks_whether_it_lives_needs_no_password(self) -> None:
        """Metrics do: they tell what is pulled."""
        self.assertEqual(self.proxy.ask("GET", "/healthz")[0], 200)
        self.assertEqual(self.proxy.ask("GET", "/readyz")[0], 200)
        self.assertEqual(self.proxy.ask("GET", "/metrics")[0], 401)
        asked = Asked(f"http://127.0.0.1:{self.proxy.port}/metrics", headers={"Authorization": ALICE.basic})
        with urlopen(asked, timeout=30) as answer:
            self.assertIn(b"ociproxy_door_logins_total", answer.read())

    def test_the_short_name_is_behind_it_too(self) -> None:
        """Also a name that the proxy completes."""
        self.assert_whole(self.pull(as_user(login_clients.skopeo_creds, ALICE), SHORT), "by its short name")

    def status(self, authorization: str) -> int:
        """Ping with a credential."""
        return ask(self.proxy.port, "GET", "/v2/", {"Authorization": authorization})[0]
