"""Every client pulls cold, warm, and with the upstream gone, each time with an empty root of its own."""

from __future__ import annotations

from tests.e2e import clients
from tests.e2e.clients import Client, Reference
from tests.e2e.laboratory import LIBRARY, ORGANISATION, REPOSITORIES, SCHEMA2, SHORT, LaboratoryTestCase
from tests.e2e.processes import Workshop

SCHEMA2_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
SCHEMA2_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"


class AnonymousUpstreamTests(LaboratoryTestCase):
    """The upstream wants nothing."""

    def assert_three_pulls(self, client: Client, reference: Reference) -> None:
        """Cold, everything is fetched once; warm, nothing is asked; and then there is no upstream any more."""
        self.assert_whole(self.pull(client, reference), "cold")
        self.assert_each_digest_once(self.registry.news())
        self.proxy.outcomes()
        self.assert_whole(self.pull(client, reference), "warm")
        self.assert_not_asked(self.registry.news())
        self.registry.stop_all()
        self.assert_whole(self.pull(client, reference), "without upstream")
        self.assertEqual(set(self.proxy.outcomes()), {"hit"})
        self.assertEqual(self.proxy.complaints(), [])

    def test_docker_with_the_cache_as_mirror(self) -> None:
        """The Docker engine pulls from its registry mirror; its tag, only ever asked by HEAD, survives."""
        self.assert_three_pulls(clients.docker_mirror, LIBRARY)

    def test_docker_with_the_namespace_in_the_path(self) -> None:
        """The Docker engine pulls from the cache as a registry; its tag, only ever asked by HEAD, survives."""
        self.assert_three_pulls(clients.docker_path, ORGANISATION)

    def test_containerd_with_ns(self) -> None:
        """The namespace comes as ``ns=``; the tag, only ever asked by HEAD, survives."""
        self.assert_three_pulls(clients.containerd_ns, LIBRARY)

    def test_containerd_with_override_path(self) -> None:
        """The namespace comes in the path and as ``ns=``; the tag, only ever asked by HEAD, survives."""
        self.assert_three_pulls(clients.containerd_override_path, ORGANISATION)

    def test_podman_with_the_namespace_in_the_path(self) -> None:
        """The cache is a registry for podman."""
        self.assert_three_pulls(clients.podman_path, SHORT)

    def test_podman_with_the_cache_as_mirror(self) -> None:
        """The cache is the mirror of a registry in registries.conf."""
        self.assert_three_pulls(clients.podman_mirror, ORGANISATION)

    def test_skopeo_copies_all_images_of_the_index(self) -> None:
        """Every byte of every platform arrives."""

        def whole_copy(shop: Workshop, port: int, reference: Reference) -> frozenset[str]:
            held = clients.skopeo_path(shop, port, reference)
            self.assertEqual(self.image.digests() - held, frozenset())
            return held

        self.assert_three_pulls(whole_copy, SHORT)


class BearerUpstreamTests(AnonymousUpstreamTests):
    """The upstream wants Bearer tokens and is strict about the repository in their scope."""

    wants_tokens = True

    def assert_three_pulls(self, client: Client, reference: Reference) -> None:
        """Tokens are asked for too, and for nothing but the upstream's own repositories."""
        super().assert_three_pulls(client, reference)
        asks = self.registry.tokens.asks() if self.registry.tokens else []
        scopes = {scope for ask in asks for scope in ask.scopes}
        self.assertEqual(scopes - {f"repository:{name}:pull" for name in REPOSITORIES}, set())
        self.assertNotEqual(scopes, set(), "no token was ever asked for")


class AcceptTests(LaboratoryTestCase):
    """One tag means different things to different clients (RULES E7)."""

    def test_a_narrow_client_spoils_nothing_for_those_that_come_after_it(self) -> None:
        """A client that takes no lists asks first and gets one image; docker, containerd and skopeo get the list."""
        target = f"/v2/{SCHEMA2.repository}/manifests/{SCHEMA2.tag}?ns={SCHEMA2.namespace}"
        status, narrow, _ = self.proxy.ask("GET", target, {"Accept": SCHEMA2_MANIFEST})
        self.assertEqual((status, narrow["content-type"]), (200, SCHEMA2_MANIFEST))
        _, wide, _ = self.proxy.ask("GET", target, {"Accept": f"{SCHEMA2_MANIFEST}, {SCHEMA2_LIST}"})
        self.assertEqual(wide["content-type"], SCHEMA2_LIST)
        for client in (clients.docker_mirror, clients.containerd_ns, clients.skopeo_path):
            self.assertIn(wide["docker-content-digest"], self.pull(client, SCHEMA2), client.__name__)
