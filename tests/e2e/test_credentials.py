"""Real clients with and without credentials, upstreams of three kinds in one proxy, both modes (RULES C, D)."""

from __future__ import annotations

from tests.e2e import clients, login_clients
from tests.e2e.clients import Client, Reference
from tests.e2e.login_clients import LoginClient, as_user
from tests.e2e.private_laboratory import ALICES, OPEN, PUBLIC, TEAMS, PrivateLaboratoryTestCase
from tests.e2e.users import ALICE, BOB, User


class CredentialsTestCase(PrivateLaboratoryTestCase):
    """Who uses which client in these stories."""

    def assert_refused(self, client: LoginClient, reference: Reference, anonymous: Client | None, when: str) -> None:
        """Neither a wrong password nor none brings anything."""
        self.assert_fails(as_user(client, ALICE.mistyped()), reference, f"wrong password, {when}")
        if anonymous is not None:
            self.assert_fails(anonymous, reference, f"no password, {when}")

    def default_is_down(self) -> None:
        """Take docker.io and its token server away, to which nothing leads but names without a namespace."""
        self.upstreams.bearer.stop_all()


class AuthenticatedTests(CredentialsTestCase):
    """Every pull is the upstream's to allow, kept or not."""

    mode = "authenticated"

    def assert_private(
        self, client: LoginClient, reference: Reference, anonymous: Client | None = None, user: User = ALICE
    ) -> None:
        """Only the right password gets it, cold and warm; once the upstream is lost nobody does."""
        allowed = as_user(client, user)
        self.assert_refused(client, reference, anonymous, "cold")
        self.content_asks(reference)
        self.assert_pulls(allowed, reference, "cold")
        self.assert_fetched_once(reference)
        self.assert_refused(client, reference, anonymous, "warm")
        self.content_asks(reference)
        self.assert_pulls(allowed, reference, "warm")
        self.assert_only_admissions(reference)
        self.upstreams.of(reference).stop()
        self.assert_fails(allowed, reference, "without upstream")
        self.assertEqual(self.proxy.complaints(), [])

    def assert_open(self, client: Client, reference: Reference) -> None:
        """Everybody gets it while the upstream is there to say so."""
        self.assert_pulls(client, reference, "cold")
        self.assert_fetched_once(reference)
        self.assert_pulls(client, reference, "warm")
        self.assert_only_admissions(reference)
        self.upstreams.of(reference).stop()
        self.assert_fails(client, reference, "without upstream")
        self.assertEqual(self.proxy.complaints(), [])

    # --- Bearer

    def test_docker_login_at_the_cache_for_a_bearer_upstream(self) -> None:
        """The password for the cache is the one for the upstream behind it."""
        self.assert_private(login_clients.docker_login, ALICES)

    def test_docker_with_the_cache_as_mirror_and_a_saved_password(self) -> None:
        """The engine shows the password of Docker Hub to the mirror, which changes it for a token of Hub."""
        self.assert_private(login_clients.docker_mirror_with_hub_password, ALICES)

    def test_skopeo_creds_for_a_bearer_upstream(self) -> None:
        """``--src-creds``."""
        self.assert_private(login_clients.skopeo_creds, ALICES, clients.skopeo_path)

    def test_podman_login_for_a_bearer_upstream(self) -> None:
        """``podman login``."""
        self.assert_private(login_clients.podman_login, ALICES, clients.podman_path)

    def test_containerd_user_for_a_bearer_upstream(self) -> None:
        """``ctr --user`` posts the password; that reaches the upstream's token server, and no other namespace."""
        self.assert_private(login_clients.containerd_user, ALICES, clients.containerd_ns)

    def test_docker_without_a_password_for_what_is_public(self) -> None:
        """Anybody gets an anonymous token, which is asked about at the upstream each time."""
        self.assert_open(clients.docker_path, PUBLIC)

    # --- Basic only, with the default upstream down

    def test_docker_login_at_the_cache_for_a_basic_upstream(self) -> None:
        """Docker, which cannot do Basic after an anonymous ping, gets a token from the cache."""
        self.default_is_down()
        self.assert_private(login_clients.docker_login, TEAMS, user=BOB)

    def test_skopeo_login_for_a_basic_upstream(self) -> None:
        """``skopeo login``."""
        self.default_is_down()
        self.assert_private(login_clients.skopeo_login, TEAMS, clients.skopeo_path)

    def test_podman_creds_for_a_basic_upstream(self) -> None:
        """``podman pull --creds``."""
        self.default_is_down()
        self.assert_private(login_clients.podman_creds, TEAMS, clients.podman_path)

    def test_containerd_user_for_a_basic_upstream(self) -> None:
        """``ctr --user`` with ``ns=``."""
        self.default_is_down()
        self.assert_private(login_clients.containerd_user, TEAMS, clients.containerd_ns)

    # --- anonymous, with and without a password that nobody asked for

    def test_an_anonymous_upstream(self) -> None:
        """Whoever comes gets what is open, also with a password that means nothing there."""
        self.default_is_down()
        self.assert_pulls(as_user(login_clients.docker_login, ALICE), OPEN, "cold")
        self.assert_fetched_once(OPEN)
        for client in (login_clients.skopeo_creds, login_clients.podman_creds, login_clients.containerd_user):
            self.assert_pulls(as_user(client, ALICE), OPEN, client.__name__)
        self.assert_only_admissions_of_one_platform()
        self.assert_open_to(clients.docker_path, clients.podman_path, clients.containerd_ns)

    def assert_only_admissions_of_one_platform(self) -> None:
        """Skopeo takes the other platform too, which docker had not pulled: whatever was sent was sent once."""
        sent = [ask.content_name for ask in self.content_asks(OPEN) if ask.method == "GET"]
        self.assertEqual(sorted(sent), sorted(set(sent)))
        self.assertFalse({*self.upstreams.images[OPEN].platform("amd64").layer_digests} & {*sent})

    def assert_open_to(self, *anonymous: Client) -> None:
        """All of these get it, by asking and nothing more, until the upstream is lost."""
        for client in anonymous:
            self.assert_pulls(client, OPEN, "anonymous")
        self.assert_only_admissions(OPEN)
        self.upstreams.free.stop()
        self.assert_fails(clients.containerd_ns, OPEN, "without upstream")


class TransparentTests(CredentialsTestCase):
    """What was pulled once is for everybody who reaches the cache; what was not is the upstream's to allow."""

    def assert_private_until_kept(self, client: LoginClient, reference: Reference, anonymous: Client) -> None:
        """Cold, only the right password gets it; then everybody does, with and without the upstream."""
        self.assert_refused(client, reference, anonymous, "cold")
        self.content_asks(reference)
        self.assert_pulls(as_user(client, ALICE), reference, "cold")
        self.assert_fetched_once(reference)
        self.assert_pulls(anonymous, reference, "warm, no password")
        self.assert_not_asked(reference)
        self.upstreams.of(reference).stop_all()
        self.proxy.pulls()
        self.assert_pulls(anonymous, reference, "without upstream, no password")
        self.assert_pulls(as_user(client, ALICE), reference, "without upstream")
        self.assertEqual({line["outcome"] for line in self.proxy.pulls() if line["status"] == "200"}, {"hit"})
        self.assertEqual(self.proxy.complaints(), [])

    def test_docker_login_at_the_cache_for_a_bearer_upstream(self) -> None:
        """The password for the cache is the one for the upstream behind it."""
        self.assert_private_until_kept(login_clients.docker_login, ALICES, clients.docker_path)

    def test_docker_with_the_cache_as_mirror_and_a_saved_password(self) -> None:
        """The engine shows the password of Docker Hub to the mirror, which changes it for a token of Hub."""
        self.assert_private_until_kept(login_clients.docker_mirror_with_hub_password, ALICES, clients.docker_mirror)

    def test_skopeo_login_for_a_bearer_upstream(self) -> None:
        """``skopeo login``."""
        self.assert_private_until_kept(login_clients.skopeo_login, ALICES, clients.skopeo_path)

    def test_podman_creds_for_a_bearer_upstream(self) -> None:
        """``podman pull --creds``."""
        self.assert_private_until_kept(login_clients.podman_creds, ALICES, clients.podman_path)

    def test_containerd_user_for_a_bearer_upstream(self) -> None:
        """``ctr --user`` posts the password."""
        self.assert_private_until_kept(login_clients.containerd_user, ALICES, clients.containerd_ns)

    def test_docker_login_at_the_cache_for_a_basic_upstream(self) -> None:
        """Docker, which cannot do Basic after an anonymous ping, gets a token from the cache."""
        self.default_is_down()
        self.assert_private_until_kept(login_clients.docker_login, TEAMS, clients.docker_path)

    def test_skopeo_creds_for_a_basic_upstream(self) -> None:
        """``--src-creds``."""
        self.default_is_down()
        self.assert_private_until_kept(login_clients.skopeo_creds, TEAMS, clients.skopeo_path)

    def test_podman_login_for_a_basic_upstream(self) -> None:
        """``podman login``."""
        self.default_is_down()
        self.assert_private_until_kept(login_clients.podman_login, TEAMS, clients.podman_path)

    def test_containerd_user_for_a_basic_upstream(self) -> None:
        """``ctr --user`` with ``ns=``."""
        self.default_is_down()
        self.assert_private_until_kept(login_clients.containerd_user, TEAMS, clients.containerd_ns)

    def test_an_anonymous_upstream(self) -> None:
        """A password that nobody asked for does no harm, up or down.

        Containerd, which takes every media type, comes first: what was asked more narrowly is not for it (RULES E7).
        """
        self.default_is_down()
        self.assert_pulls(as_user(login_clients.containerd_user, ALICE), OPEN, "cold")
        self.assert_fetched_once(OPEN)
        self.assert_pulls(as_user(login_clients.podman_creds, ALICE), OPEN, "warm")
        self.upstreams.free.stop()
        self.assert_pulls(as_user(login_clients.docker_login, ALICE), OPEN, "without upstream")
        self.assert_pulls(clients.containerd_ns, OPEN, "without upstream, no password")
        self.assert_not_asked(OPEN)
