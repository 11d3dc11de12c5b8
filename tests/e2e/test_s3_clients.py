"""Two proxies on one bucket: what a client pulls cold through one, another pulls warm through the other.

The second is redirected to the bucket for every blob, gets its manifests from the proxy, and nobody asks the upstream.
"""

from __future__ import annotations

from tests.e2e import clients, login_clients
from tests.e2e.clients import Client, Reference
from tests.e2e.images import Image, make_image, push
from tests.e2e.laboratory import LIBRARY, ORGANISATION, SHORT, TAG
from tests.e2e.login_clients import LoginClient, as_user
from tests.e2e.private_laboratory import ALICES, TEAMS, PrivateLaboratoryTestCase
from tests.e2e.processes import E2EError
from tests.e2e.proxy import Proxy
from tests.e2e.recording_relay import Seen
from tests.e2e.registry import start_registry
from tests.e2e.s3_house import S3House, S3HouseTestCase, make_house, who_asks
from tests.e2e.users import ALICE, BOB, User

# The last one takes two parts to upload.
SIZES = (3_000, 300_000, 20_000_000)


def blobs_of(proxy: Proxy) -> list[dict[str, str]]:
    """Return the line of every GET of a blob since the last look."""
    return [line for line in proxy.pulls() if line["kind"] == "blob" and line["method"] == "GET"]


def told(asked: list[Seen]) -> set[str]:
    """Return the names of all fields in these requests that tell who asks."""
    return {name for one in asked for name in who_asks(one.headers)}


class FleetTests(S3HouseTestCase):
    """A registry for anybody, and two proxies in front of it that share a bucket and nothing else."""

    def setUp(self) -> None:
        """Start everything."""
        super().setUp()
        self.image = make_image(self.shop.path / "layout", tag=TAG, sizes=SIZES)
        self.registry = start_registry(self.shop)
        for repository in ("library/sample", "org/sample"):
            push(self.image, self.registry.port, repository)
        self.registry.news()
        self.first, self.second = (self.house.start_proxy(self.shop, self.registry.url) for _ in range(2))

    def pull(self, proxy: Proxy, client: Client, reference: Reference, when: str) -> None:
        """The client holds the image: index, config and all layers, packed or unpacked."""
        try:
            held = client(self.shop, proxy.port, reference)
        except E2EError as error:
            raise type(error)(f"{when}: {error}\n--- proxy\n{proxy.process.log()[-6000:]}") from None
        platform = self.image.platform("amd64")
        self.assertLessEqual({self.image.index_digest, platform.config_digest}, held, when)
        layers = held.issuperset(platform.layer_digests) or held.issuperset(platform.diff_ids)
        self.assertTrue(layers, f"{when}: the layers, in {sorted(held)}")

    def assert_cold_and_warm(self, client: Client, reference: Reference) -> None:
        """Cold through the first, everything is fetched once; warm through the second, nothing is asked."""
        self.pull(self.first, client, reference, "cold")
        sent = [ask.content_name for ask in self.registry.news() if ask.method == "GET" and ask.status == 200]
        digests = [name for name in sent if name.startswith("sha256:")]
        self.assertEqual(sorted(digests), sorted(set(digests)))
        self.house.wait_for_content(self.image.index_digest, *digests)
        self.house.wait_for_tags(1)
        self.house.forget_requests()
        self.pull(self.second, client, reference, "warm")
        self.assert_redirected(client is clients.skopeo_path)
        self.assertEqual(self.registry.news(), (), "the upstream was asked")
        self.assertEqual(self.first.complaints() + self.second.complaints(), [])

    def assert_redirected(self, all_platforms: bool) -> None:
        """Every blob came from the bucket, none of them through the proxy; every manifest came from the proxy."""
        lines = self.second.pulls()
        self.assertEqual({line["outcome"] for line in lines}, {"hit"})
        found = {(line["kind"], line["status"]) for line in lines}
        self.assertEqual(found, {("manifest", "200"), ("blob", "307")})
        blobs = {line["reference"] for line in lines if line["kind"] == "blob"}
        self.assertEqual(blobs, blobs_in(self.image, all_platforms))
        asked, paths = self.house.public.news(), {self.house.path_of(digest) for digest in blobs}
        self.assertEqual({(one.method, one.path) for one in asked}, {("GET", path) for path in paths})
        self.assertTrue(all(one.is_presigned and one.status in (200, 206) for one in asked), asked)
        self.assertEqual(told(asked), set())
        carried = [one for one in self.house.private.news() if one.method == "GET" and one.path in paths]
        self.assertEqual(carried, [], "blobs went through the proxy")

    def test_docker_with_the_cache_as_mirror(self) -> None:
        """The Docker engine follows from its registry mirror to the bucket."""
        self.assert_cold_and_warm(clients.docker_mirror, LIBRARY)

    def test_docker_with_the_namespace_in_the_path(self) -> None:
        """The Docker engine follows from the cache, which is its registry, to the bucket."""
        self.assert_cold_and_warm(clients.docker_path, ORGANISATION)

    def test_skopeo_copies_all_images_of_the_index(self) -> None:
        """Every byte of every platform arrives from the bucket."""
        self.assert_cold_and_warm(clients.skopeo_path, SHORT)

    def test_podman_with_the_namespace_in_the_path(self) -> None:
        """The cache is a registry for podman."""
        self.assert_cold_and_warm(clients.podman_path, SHORT)

    def test_containerd_with_ns(self) -> None:
        """The namespace comes as ``ns=``; the tag, only ever asked by HEAD, is in the bucket too."""
        self.assert_cold_and_warm(clients.containerd_ns, LIBRARY)


def blobs_in(image: Image, all_platforms: bool) -> set[str]:
    """Return the digests of the configs and layers that a client fetches."""
    platforms = image.platforms if all_platforms else (image.platform("amd64"),)
    return {digest for each in platforms for digest in (each.config_digest, *each.layer_digests)}


class PrivateFleetTests(PrivateLaboratoryTestCase):
    """Authenticated: every pull is the upstream's to allow, and what a client shows for it never reaches the bucket."""

    mode = "authenticated"

    def setUp(self) -> None:
        """Start everything; the first proxy fills the bucket, the second redirects."""
        super().setUp()
        self.second = self.on_the_bucket()

    def start_proxy(self) -> Proxy:
        """Start the first proxy on a bucket of its own."""
        self.house: S3House = make_house()
        self.addCleanup(self.house.close)
        return self.on_the_bucket()

    def on_the_bucket(self) -> Proxy:
        """Start a proxy on the bucket that keeps no admission."""
        url, table = self.upstreams.bearer.url, self.upstreams.table()
        return self.house.start_proxy(self.shop, url, mode=self.mode, upstreams=table, auth_cache_s=0)

    def assert_private(self, client: LoginClient, reference: Reference, user: User = ALICE) -> None:
        """Warm through the second: allowed by the upstream, fetched from the bucket, with no credentials there."""
        image, allowed = self.upstreams.images[reference], as_user(client, user)
        self.assert_pulls(allowed, reference, "cold")
        self.house.wait_for_content(image.index_digest, *blobs_in(image, all_platforms=False))
        self.house.forget_requests()
        self.content_asks(reference)
        self.proxy = self.second
        self.assert_fails(as_user(client, user.mistyped()), reference, "wrong password")
        self.assertEqual(self.house.public.news(), [], "wrong password")
        self.content_asks(reference)
        self.assert_pulls(allowed, reference, "warm")
        self.assert_only_admissions(reference)
        asked, blobs = self.house.public.news(), blobs_of(self.second)
        self.assertEqual({line["status"] for line in blobs}, {"307"})
        self.assertEqual({one.path for one in asked}, {self.house.path_of(line["reference"], True) for line in blobs})
        self.assertEqual(told(asked), set())
        self.assertEqual(self.second.complaints(), [])

    def test_docker_login(self) -> None:
        """``docker login`` at the cache, a Bearer upstream."""
        self.assert_private(login_clients.docker_login, ALICES)

    def test_skopeo_creds(self) -> None:
        """``skopeo --src-creds``, a Bearer upstream."""
        self.assert_private(login_clients.skopeo_creds, ALICES)

    def test_podman_login(self) -> None:
        """``podman login``, an upstream with passwords only."""
        self.assert_private(login_clients.podman_login, TEAMS, BOB)

    def test_containerd_user(self) -> None:
        """``ctr --user``, which shows the password to whoever asks for it."""
        self.assert_private(login_clients.containerd_user, ALICES)
