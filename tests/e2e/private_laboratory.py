"""Upstreams as they really are, in front of them one proxy: Bearer tokens, Basic only, and for anybody.

Every repository has an image of its own, so that nothing is kept by accident under another name.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from attrs import define
from twisted.trial.unittest import SynchronousTestCase

from tests.e2e.clients import Client, Reference
from tests.e2e.images import Image, make_image, push
from tests.e2e.processes import CommandFailed, E2EError, Workshop
from tests.e2e.proxy import Proxy, start_proxy
from tests.e2e.registry import Registry, Request, start_registry
from tests.e2e.tokens import TokenServer, start_tokens
from tests.e2e.users import ALICE, BOB

TAG = "1.0"
SIZES = (3_000, 60_000, 400_000)
# docker.io wants Bearer tokens, and gives them to anybody for its public repositories.
PUBLIC = Reference("docker.io", "library/sample", TAG)
ALICES = Reference("docker.io", "alice/app", TAG)
BOBS = Reference("docker.io", "bob/app", TAG)
# ghcr.io wants Basic credentials, whatever is asked.
TEAMS = Reference("ghcr.io", "org/app", TAG)
# quay.io wants nothing.
OPEN = Reference("quay.io", "org/open", TAG)
REFERENCES = (PUBLIC, ALICES, BOBS, TEAMS, OPEN)

Mode = Literal["transparent", "authenticated"]


@define(eq=False)
class Upstreams:
    """The three registries, which share one storage, and the token server of the first."""

    images: dict[Reference, Image]
    bearer: Registry
    basic: Registry
    free: Registry
    tokens: TokenServer

    def of(self, reference: Reference) -> Registry:
        """Return the registry that a namespace leads to."""
        return {"docker.io": self.bearer, "ghcr.io": self.basic, "quay.io": self.free}[reference.namespace]

    def table(self) -> list[dict[str, object]]:
        """Return the proxy's table."""
        urls = {"docker.io": self.bearer.url, "ghcr.io": self.basic.url, "quay.io": self.free.url}
        return [{"namespace": namespace, "urls": [url]} for namespace, url in urls.items()]


def start_upstreams(shop: Workshop) -> Upstreams:
    """Make the images and start everything but the proxy."""
    images = {reference: _image(shop.path, seed) for seed, reference in enumerate(REFERENCES, start=1)}
    free = start_registry(shop)
    for reference, image in images.items():
        push(image, free.port, reference.repository)
    free.news()
    tokens = start_tokens(shop, [PUBLIC.repository], {ALICE: [ALICES.repository], BOB: [BOBS.repository]})
    bearer = start_registry(shop, free.storage, tokens)
    return Upstreams(images, bearer, start_registry(shop, free.storage, users=[ALICE, BOB]), free, tokens)


def _image(directory: Path, seed: int) -> Image:
    """Make the image of one repository."""
    return make_image(directory / f"layout{seed}", seed, TAG, SIZES)


class PrivateLaboratoryTestCase(SynchronousTestCase):
    """What the tests with credentials have in common."""

    mode: Mode = "transparent"

    def setUp(self) -> None:
        """Start the upstreams and the proxy; they end with the test, whatever happens."""
        self.shop = Workshop()
        self.addCleanup(self.shop.close)
        self.upstreams = start_upstreams(self.shop)
        self.proxy = self.start_proxy()

    def start_proxy(self) -> Proxy:
        """Start a proxy with an empty store that keeps no admission."""
        url, table = self.upstreams.bearer.url, self.upstreams.table()
        return start_proxy(self.shop, url, mode=self.mode, upstreams=table, auth_cache_s=0)

    # --- pulls

    def pull(self, client: Client, reference: Reference) -> frozenset[str]:
        """Pull through the proxy and return the digests that the client holds then."""
        try:
            return client(self.shop, self.proxy.port, reference)
        except E2EError as error:
            raise type(error)(f"{error}\n--- proxy\n{self.proxy.process.log()[-6000:]}") from None

    def assert_pulls(self, client: Client, reference: Reference, when: str) -> None:
        """The client gets the original: index, config and all layers, packed or unpacked."""
        held, image = self.pull(client, reference), self.upstreams.images[reference]
        platform = image.platform("amd64")
        self.assertLessEqual({image.index_digest, platform.config_digest}, held, when)
        layers = held.issuperset(platform.layer_digests) or held.issuperset(platform.diff_ids)
        self.assertTrue(layers, f"{when}: the layers, in {sorted(held)}")

    def assert_fails(self, client: Client, reference: Reference, when: str) -> None:
        """The client fails, and no answer of the proxy had content of this repository, or news about it."""
        self.proxy.pulls()
        with self.assertRaises(CommandFailed, msg=when):
            client(self.shop, self.proxy.port, reference)
        self.assertEqual(self.served(reference), [], when)

    def served(self, reference: Reference) -> list[dict[str, str]]:
        """Return the answers since the last look that said anything but no about this repository."""
        return [line for line in self.proxy.pulls() if _is_yes(line) and line["repository"] == reference.repository]

    # --- what the upstream saw

    def content_asks(self, reference: Reference) -> list[Request]:
        """Return how the registry was asked for this image since the last look: its manifests and blobs.

        What a registry wants to see may be found out by asking for a name that there is not.
        """
        names = {TAG, *self.upstreams.images[reference].digests()}
        asks = [ask for ask in self.upstreams.of(reference).news() if ask.is_content and ask.content_name in names]
        return [ask for ask in asks if ask.target.startswith(f"/v2/{reference.repository}/")]

    def assert_fetched_once(self, reference: Reference) -> None:
        """Everything that the image consists of was sent once by the upstream."""
        digests = [name for name in _sent(self.content_asks(reference)) if name.startswith("sha256:")]
        self.assertEqual(sorted(digests), sorted(set(digests)))
        platform = self.upstreams.images[reference].platform("amd64")
        self.assertLessEqual({platform.config_digest, *platform.layer_digests}, set(digests))

    def assert_only_admissions(self, reference: Reference) -> None:
        """The upstream was asked whether, never for what."""
        asks = self.content_asks(reference)
        self.assertEqual({ask.method for ask in asks}, {"HEAD"}, asks)
        self.assertNotEqual([ask for ask in asks if ask.status == 200], [])

    def assert_not_asked(self, reference: Reference) -> None:
        """The upstream was asked for no manifest and no blob of this image."""
        self.assertEqual(self.content_asks(reference), [])


def _sent(asks: Iterable[Request]) -> list[str]:
    """Return the names of the content that the upstream has sent."""
    return [ask.content_name for ask in asks if ask.method == "GET" and ask.status in (200, 206)]


def _is_yes(line: dict[str, str]) -> bool:
    """Say whether a pull was answered with anything but a refusal or an error; HEAD counts too."""
    return line.get("status", "").isdigit() and int(line["status"]) < 400
