"""A whole laboratory per test: a registry that holds images, and a proxy that has never seen them."""

from __future__ import annotations

from collections.abc import Iterable

from twisted.trial.unittest import SynchronousTestCase

from tests.e2e.clients import Client, Reference
from tests.e2e.images import Image, make_image, push
from tests.e2e.processes import E2EError, Workshop
from tests.e2e.proxy import Proxy, start_proxy
from tests.e2e.registry import Registry, Request, start_registry
from tests.e2e.tokens import start_tokens

TAG = "1.0"
LIBRARY = Reference("docker.io", "library/sample", TAG)
# As a person types it: Docker Hub's `library/` is for the proxy to add.
SHORT = Reference("docker.io", "sample", TAG)
ORGANISATION = Reference("ghcr.io", "org/sample", TAG)
SCHEMA2 = Reference("docker.io", "library/schema2", TAG)
REPOSITORIES = ("library/sample", "org/sample", "library/schema2")


class LaboratoryTestCase(SynchronousTestCase):
    """What the tests with real clients have in common."""

    wants_tokens = False

    def setUp(self) -> None:
        """Start the registry and the proxy; they end with the test, whatever happens."""
        self.shop = Workshop()
        self.addCleanup(self.shop.close)
        self.image = make_image(self.shop.path / "layout", tag=TAG)
        self.registry = self.filled_registry(self.image)
        self.proxy = self.proxy_before(self.registry)

    def proxy_before(self, registry: Registry) -> Proxy:
        """Start a proxy with an empty store."""
        return start_proxy(self.shop, registry.url)

    def filled_registry(self, image: Image) -> Registry:
        """Fill a registry; when tokens are wanted another one takes over its storage."""
        registry = start_registry(self.shop)
        push(image, registry.port, "library/sample")
        push(image, registry.port, "org/sample")
        push(image, registry.port, "library/schema2", docker_schema2=True)
        if self.wants_tokens:
            registry.stop()
            registry = start_registry(self.shop, registry.storage, start_tokens(self.shop, REPOSITORIES))
        registry.news()
        return registry

    def pull(self, client: Client, reference: Reference) -> frozenset[str]:
        """Pull through the proxy and return the digests that the client holds then."""
        try:
            return client(self.shop, self.proxy.port, reference)
        except E2EError as error:
            raise type(error)(f"{error}\n--- proxy\n{self.proxy.process.log()[-6000:]}") from None

    def assert_whole(self, held: frozenset[str], when: str) -> None:
        """The client holds the image: index, config and all layers, packed or unpacked."""
        platform = self.image.platform("amd64")
        self.assertIn(self.image.index_digest, held, f"{when}: the index")
        self.assertIn(platform.config_digest, held, f"{when}: the config")
        layers = held.issuperset(platform.layer_digests) or held.issuperset(platform.diff_ids)
        self.assertTrue(layers, f"{when}: the layers, in {sorted(held)}")

    def assert_each_digest_once(self, asks: Iterable[Request]) -> None:
        """Nothing that has a digest was sent twice by the upstream."""
        digests = [ask.content_name for ask in asks if ask.is_content and ask.method == "GET" and ask.status == 200]
        digests = [digest for digest in digests if digest.startswith("sha256:")]
        self.assertEqual(sorted(digests), sorted(set(digests)))
        self.assertNotEqual(digests, [], "the upstream was never asked")

    def assert_not_asked(self, asks: Iterable[Request]) -> None:
        """The upstream was asked for no manifest and no blob."""
        self.assertEqual([ask for ask in asks if ask.is_content], [])
