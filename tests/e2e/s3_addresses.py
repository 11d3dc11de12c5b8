"""Two blobs and proxies on one bucket, asked by plain HTTP; a redirect is taken apart."""

from __future__ import annotations

import datetime
from urllib.parse import parse_qsl, urlsplit

from attrs import frozen

from tests.e2e.proxy import Proxy, ask
from tests.e2e.recording_relay import Seen
from tests.e2e.s3_house import S3HouseTestCase, who_asks
from tests.e2e.scripts import MIB, Content, Served, blob, start_scripted

Answer = tuple[int, dict[str, str], bytes]
SMALL = blob("library/thing", Content(size_bytes=100_000, seed=1))
# Takes two parts to upload.
LARGE = blob("library/thing", Content(size_bytes=18 * MIB + 5, seed=2))


@frozen
class Sent:
    """A redirect, taken apart."""

    location: str
    cache_control: str

    @property
    def parameters(self) -> dict[str, str]:
        """The parameters of the address."""
        return dict(parse_qsl(urlsplit(self.location).query))

    @property
    def life_s(self) -> int:
        """How long the signature is good."""
        return int(self.parameters["X-Amz-Expires"])

    @property
    def ends_s(self) -> float:
        """When the signature ends, in seconds since the epoch."""
        signed = datetime.datetime.strptime(self.parameters["X-Amz-Date"], "%Y%m%dT%H%M%S%z")
        return signed.timestamp() + self.life_s

    @property
    def max_age_s(self) -> int:
        """How long caches may believe the redirect."""
        return int(self.cache_control.partition("max-age=")[2].partition(",")[0])

    def get(self, method: str = "GET", **headers: str) -> Answer:
        """Follow it as a client does."""
        return follow(self.location, method, headers)


def follow(location: str, method: str = "GET", headers: dict[str, str] | None = None) -> Answer:
    """Ask at an address."""
    parts = urlsplit(location)
    return ask(parts.port or 0, method, f"{parts.path}?{parts.query}", headers)


class AddressTestCase(S3HouseTestCase):
    """An upstream with two blobs, and proxies on one bucket."""

    def setUp(self) -> None:
        """Start the upstream."""
        super().setUp()
        self.upstream = start_scripted(self.shop, SMALL, LARGE)

    def start(self, **more: object) -> Proxy:
        """Start a proxy on the bucket."""
        return self.house.start_proxy(self.shop, self.upstream.url, **more)  # type: ignore[arg-type]

    def ask(self, proxy: Proxy, served: Served, method: str = "GET", **headers: str) -> Answer:
        """Ask a proxy for a blob."""
        return proxy.ask(method, f"{served.target}?ns=docker.io", headers)

    def fill(self, proxy: Proxy, *wanted: Served) -> None:
        """Pull what is not in the bucket yet, and wait until it is there and no longer here."""
        for served in wanted:
            self.assertTrue(self.ask(proxy, served)[2] == served.content.data())
        self.house.wait_for_content(*(served.content.digest for served in wanted))
        self.house.wait_for_uploads(proxy)
        self.house.forget_requests()

    def sent(self, proxy: Proxy, served: Served, **headers: str) -> Sent:
        """Return where a client is sent: to the public address of the content, with nothing else in the answer."""
        status, fields, body = self.ask(proxy, served, **headers)
        digest = served.content.digest
        self.assertEqual((status, fields["content-length"], body), (307, "0", b""))
        self.assertEqual(fields["docker-content-digest"], digest)
        self.assertEqual(fields["location"].partition("?")[0], f"{self.house.public.url}{self.house.path_of(digest)}")
        return Sent(fields["location"], fields["cache-control"])

    def assert_carried(self, proxy: Proxy, served: Served) -> None:
        """The proxy sends the body itself, whole and in parts, and asks the bucket for no more than that."""
        data = served.content.data()
        status, fields, body = self.ask(proxy, served)
        self.assertEqual((status, fields["content-length"]), (200, str(len(data))))
        self.assertTrue(body == data)
        self.house.private.news()
        first, last = len(data) // 2, len(data) // 2 + 9_999
        part = {"Range": f"bytes={first}-{last}", "Authorization": "Bearer of-the-client", "Cookie": "c=1"}
        status, fields, body = self.ask(proxy, served, **part)
        self.assertEqual((status, fields["content-range"]), (206, f"bytes {first}-{last}/{len(data)}"))
        self.assertTrue(body == data[first : last + 1])
        asked = self.contents_asked(served)
        self.assertEqual([(one.body_bytes, who_asks(one.headers)) for one in asked], [(10_000, set())])
        self.assertEqual(self.house.public.news(), [])

    def contents_asked(self, served: Served) -> list[Seen]:
        """Return the GETs of a content with which the proxy itself has asked the bucket since the last look."""
        path = self.house.path_of(served.content.digest)
        return [one for one in self.house.private.news() if one.method == "GET" and one.path == path]
