"""Each cap of RULES A5, reached in the whole house at the figure that it has by default, and what comes of it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from hashlib import sha256
from typing import cast

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers

from tests.cache.place import manifest
from tests.doubles import ManualWorkers
from tests.house.paced import Paced
from tests.house.whole import WholeHouse
from tests.upstreams.fakes import Answer, TokenRegistry, answer
from tests.web.doubles import Line, client
from txociproxy.caps import IngestCaps
from txociproxy.metrics import CAPS
from txociproxy.oci.manifests import OCI_MANIFEST
from txociproxy.parts import RangeRules
from txociproxy.upstreams.entries.entry import Entry
from txociproxy.upstreams.entries.unlisted import MAX_UNLISTED
from txociproxy.upstreams.tokens import MAX_TOKENS
from txociproxy.web.site import Census, DoorLimits, DoorSite

SIZE, MIB = 70_000, 1024 * 1024
NAMESPACES = tuple(f"n{number}.example" for number in range(5))
FAR = "Range: bytes=999000000-999000999"


def path(number: int, namespace: str = NAMESPACES[0]) -> str:
    """Return the target of one of many blobs."""
    return f"/v2/team/app/blobs/sha256:{sha256(b'%d' % number).hexdigest()}?ns={namespace}"


class CapsCase(SynchronousTestCase):
    """A house with five upstreams, whose bodies never end."""

    def setUp(self) -> None:
        """Nobody is here yet."""
        self.size_bytes = SIZE
        entries = (Entry(name, (f"https://{name}",), max_connections=1000) for name in NAMESPACES)
        self.house = WholeHouse(self.answer, *entries, unlisted="public")
        self.net, self.clock = self.house.net, self.house.clock
        self.site = DoorSite(
            self.house.root, self.clock, Census(DoorLimits(), self.house.metrics.cap_reached), now=self.clock.seconds
        )

    def answer(self, method: str, url: str, headers: Headers) -> Answer:
        """Begin a body."""
        return Paced(200, bytes(SIZE // 2), whole_bytes=self.size_bytes)

    def connect(self, host: str) -> Line:
        """Let a client come."""
        return Line(site=self.site, peer=client(host))

    def ask(self, target: str, *fields: str, host: str = "192.0.2.1") -> Line:
        """Let a client ask for something on a connection of its own."""
        line = self.connect(host)
        line.send("\r\n".join([f"GET {target} HTTP/1.1", "Host: cache.example", *fields, "", ""]).encode())
        return line

    def asks(self, targets: Iterable[str], host: str) -> list[Line]:
        """Let a client ask for several things at once, all of which begin to come."""
        lines = [self.ask(target, host=host) for target in targets]
        self.assertEqual({line.status for line in lines}, {200})
        return lines

    def assert_come_again(self, line: Line) -> None:
        """The answer is 503 in the form of the spec, and says when to come again."""
        head, _, body = line.wire.value().partition(b"\r\n\r\n")
        self.assertEqual(line.status, 503, head)
        self.assertIn(b"\r\nretry-after: 1", head.lower())
        self.assertEqual(json.loads(body)["errors"][0]["code"], "TOOMANYREQUESTS")

    def assert_waits_and_comes_again(self, late: Line) -> None:
        """Nothing is said for five seconds, then that there are too many."""
        self.clock.advance(4.9)
        self.assertEqual(late.wire.value(), b"")
        self.clock.advance(0.2)
        self.assert_come_again(late)

    def reached(self) -> dict[str, float]:
        """Return how often each cap had its effect; those that had none are left out."""
        value = self.house.metrics.registry.get_sample_value
        counts = {cap: value("ociproxy_caps_reached_total", {"cap": cap}) for cap in CAPS}
        return {cap: count for cap, count in counts.items() if count}


class FiguresTests(SynchronousTestCase):
    """What the rule says."""

    def test_the_figures_are_those_of_the_rule(self) -> None:
        """RULES A5, each by the name that it has here."""
        self.assertEqual(DoorLimits(), DoorLimits(max_connections=4096, max_connections_per_client=256))
        caps = IngestCaps(total=256, per_namespace=64, per_client=32, lonely=16, memory_bytes=256 * MIB, wait_s=5.0)
        self.assertEqual(IngestCaps(), caps)
        self.assertEqual((RangeRules().relays_per_digest, RangeRules().relays), (4, 32))
        self.assertEqual((MAX_TOKENS, MAX_UNLISTED), (10_000, 256))


class ConnectionTests(CapsCase):
    """Too many are answered and closed."""

    def test_256_connections_of_one_client(self) -> None:
        """Another client is let in."""
        for _ in range(256):
            self.connect("192.0.2.1")
        late = self.ask("/healthz")
        self.assert_come_again(late)
        self.assertTrue(late.wire.half_closed)
        self.assertEqual(self.ask("/healthz", host="192.0.2.2").status, 200)
        self.assertEqual(self.reached(), {"max_connections_per_client": 1})

    def test_4096_connections_in_all(self) -> None:
        """Whoever leaves makes room."""
        lines = [self.connect(f"192.0.2.{number % 200}") for number in range(4096)]
        self.assertEqual(self.site.census.connections, 4096)
        late = self.ask("/healthz", host="198.51.100.1")
        self.assert_come_again(late)
        self.assertTrue(late.wire.half_closed)
        lines[0].hang_up()
        self.assertEqual(self.ask("/healthz", host="198.51.100.1").status, 200)
        self.assertEqual(self.reached(), {"max_connections": 1})


class IngestTests(CapsCase):
    """Who is one too many waits for five seconds."""

    def test_32_downloads_of_one_client(self) -> None:
        """Another client is served at once; a place that comes free is taken."""
        lines = self.asks((path(number) for number in range(32)), "192.0.2.1")
        late, later = self.ask(path(32)), self.ask(path(33))
        self.assertEqual(self.ask(path(34), host="192.0.2.2").status, 200)
        lines[0].hang_up()
        self.assertEqual(late.wire.value(), b"", "the download goes on without its reader")
        self.house.core.ingests.alive[0].abandon()
        self.assertEqual(late.status, 200)
        self.assert_waits_and_comes_again(later)
        self.assertEqual(self.reached(), {"max_ingests_per_client": 2})

    def test_64_downloads_of_one_namespace(self) -> None:
        """Another namespace has its own."""
        for number in range(2):
            self.asks((path(32 * number + each) for each in range(32)), f"192.0.2.{number}")
        late = self.ask(path(64), host="192.0.2.3")
        self.asks([path(64, NAMESPACES[1])], "192.0.2.3")
        self.assert_waits_and_comes_again(late)
        self.assertEqual(self.reached(), {"max_ingests_per_namespace": 1})

    def test_256_downloads_in_all(self) -> None:
        """Whoever they are for, and wherever they come from."""
        for number in range(8):
            self.asks((path(32 * number + each, NAMESPACES[number // 2]) for each in range(32)), f"192.0.2.{number}")
        self.assertEqual(len(self.house.core.ingests.alive), 256)
        self.assert_waits_and_comes_again(self.ask(path(256, NAMESPACES[4]), host="192.0.2.9"))
        self.assertEqual(self.reached(), {"max_ingests": 1})

    def test_16_downloads_that_nobody_reads(self) -> None:
        """Of one more, the one with most left is given up."""
        lines = []
        for number in range(17):
            self.size_bytes = 2 * SIZE if number == 5 else SIZE
            lines += self.asks([path(number)], "192.0.2.1")
        for line in lines[:16]:
            line.hang_up()
        self.assertEqual(len(self.house.core.ingests.alive), 17)
        lines[16].hang_up()
        self.assertEqual([found.closed for found in self.net.answered], [number == 5 for number in range(17)])
        self.assertEqual(self.reached(), {"max_lonely_ingests": 1})


class MemoryTests(CapsCase):
    """What all downloads hold in memory."""

    def answer(self, method: str, url: str, headers: Headers) -> Answer:
        """Begin a body that can be paused."""
        return Paced(200, bytes(2 * MIB), whole_bytes=8 * MIB)

    def test_256_mib_of_windows(self) -> None:
        """The upstream whose bytes are too many waits until they are hashed; no client is told anything of it."""
        ingests, hashers = self.house.core.ingests, ManualWorkers()
        # A test need not take the real figure, of which the default is another.
        ingests._caps, ingests._hashers = evolve(ingests._caps, memory_bytes=8 * MIB), hashers
        self.asks((path(number) for number in range(5)), "192.0.2.1")
        self.assertEqual(self.paused(), [False, False, False, False, True])
        self.assertEqual(self.reached(), {"max_ingest_memory": 1})
        hashers.work()
        self.assertEqual(self.paused(), [False] * 5)

    def paused(self) -> list[bool]:
        """Return which upstreams are paused."""
        return [cast(Paced, found).paused for found in self.net.answered]


class RelayTests(CapsCase):
    """Parts that are far from where a download is."""

    def answer(self, method: str, url: str, headers: Headers) -> Answer:
        """Begin a part of a very big blob."""
        first, _, last = headers.getRawHeaders("Range", ["bytes=0-999999999"])[0][6:].partition("-")
        fields = Headers({"Content-Range": [f"bytes {first}-{last}/1000000000"]})
        return Paced(206, bytes(500), fields, whole_bytes=1001)

    def test_4_parts_of_one_blob(self) -> None:
        """The fifth waits for its turn, and is told to come again."""
        lines = [self.ask(path(1), FAR) for _ in range(4)]
        self.assertEqual({line.status for line in lines}, {206})
        late, later = self.ask(path(1), FAR), self.ask(path(1), FAR)
        self.assertEqual(self.ask(path(2), FAR).status, 206)
        self.assertEqual(late.wire.value(), b"")
        lines[0].hang_up()
        self.assertEqual(late.status, 206)
        self.assert_waits_and_comes_again(later)
        self.assertEqual(self.reached(), {"max_range_relays_per_digest": 2})

    def test_32_parts_in_all(self) -> None:
        """Of whatever blobs, for whomever."""
        lines = [self.ask(path(number // 4), FAR, host=f"192.0.2.{number}") for number in range(32)]
        self.assertEqual({line.status for line in lines}, {206})
        late = self.ask(path(8), FAR, host="192.0.2.99")
        self.assertEqual(late.wire.value(), b"")
        lines[0].hang_up()
        self.assertEqual(late.status, 206)
        self.assertEqual(self.reached(), {"max_range_relays": 1})


class MemoriesTests(CapsCase):
    """Tables in which the oldest makes room."""

    def setUp(self) -> None:
        """The registry wants tokens."""
        self.registry = TokenRegistry(content=self.manifest)
        super().setUp()

    def answer(self, method: str, url: str, headers: Headers) -> Answer:
        """Answer as the registry."""
        return self.registry(method, url, headers)

    def manifest(self, method: str, url: str, headers: Headers) -> Answer:
        """Serve the same manifest under each tag."""
        return answer(200, manifest("one"), content_type=OCI_MANIFEST)

    def pull(self, repository: str, namespace: str = NAMESPACES[0], accept: str = "*/*", tag: str = "1") -> int:
        """Pull a tag; return how often upstream was asked for it."""
        before = len(self.net.asked)
        line = self.ask(f"/v2/{repository}/manifests/{tag}?ns={namespace}", f"Accept: {accept}, {OCI_MANIFEST}")
        self.assertEqual(line.status, 200)
        line.hang_up()
        return len(self.net.asked) - before

    def test_4_accept_classes_of_a_tag(self) -> None:
        """The one that was asked longest ago is asked for again."""
        classes = [f"application/vnd.example.{number}" for number in range(5)]
        for each in classes[:4]:
            self.assertGreater(self.pull("a", accept=each), 0)
        self.assertEqual([self.pull("a", accept=each) for each in classes[:4]], [0] * 4)
        self.assertGreater(self.pull("a", accept=classes[4]), 0)
        self.assertEqual([self.pull("a", accept=each) for each in classes[1:]], [0] * 4)
        self.assertGreater(self.pull("a", accept=classes[0]), 0)

    def test_10_000_tokens(self) -> None:
        """The one that was used longest ago is fetched again; a small table shows it, its size is compared."""
        tokens = self.house.upstreams._tokens
        self.assertEqual(tokens.use, (0, 10_000))
        tokens._max_tokens = 3
        for repository in "abcd":
            self.pull(repository)
        self.assertEqual((tokens.use, self.registry.issued), ((3, 3), 4))
        self.assertEqual(self.reached(), {"tokens": 1})
        # What is learned of a place stays: a token is asked for before the manifest.
        self.assertEqual([self.pull(repository, tag="2") for repository in "bcda"], [1, 1, 1, 2])
        self.assertEqual(self.registry.issued, 5)

    def test_256_namespaces_that_are_not_listed(self) -> None:
        """The one that was asked longest ago is forgotten, which nobody notices but by its connections."""
        upstreams = self.house.upstreams
        for number in range(256):
            self.pull("a", f"u{number}.example")
        self.assertEqual(self.reached(), {})
        first = upstreams.upstream("u0.example")
        self.pull("b", "u0.example")
        self.pull("a", "another.example")
        self.assertEqual(self.reached(), {"unlisted_namespaces": 1})
        self.assertIs(upstreams.upstream("u0.example"), first)
        self.assertEqual(len(upstreams._unlisted.namespaces()), 256)
        self.assertNotIn("u1.example", upstreams._unlisted.namespaces())
        self.pull("b", "u1.example")
