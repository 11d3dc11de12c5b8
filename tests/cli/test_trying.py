"""The lines of the smoke test: which there are, which keys they have, and what makes them fail."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field
from twisted.trial.unittest import SynchronousTestCase

from tests.cli.commands import run_command
from tests.cli.test_pulling import NAME, Store
from tests.readback import parse_logfmt as parse
from txociproxy.cli.places import place_of_url
from txociproxy.cli.pulling import IGet, Image
from txociproxy.cli.trying import KEYS, Smoke, Subject
from txociproxy.cli.waiting import WireError
from txociproxy.cli.wire import Reply

IMAGE = f"{NAME}:1"
# As the seed of this test has them.
PROBE = (
    "ts=2026-05-04T08:42:11Z host=client01 result=pass event=v2_probe target=cache_ghcr "
    "endpoint=cache-ghcr.home.arpa:8080 code=401"
)
EFFECT = (
    "ts=2026-05-04T08:42:11Z host=client01 result=pass event=cache_eff target=cache_ghcr "
    f"image={IMAGE} ms1=16194 ms2=5160 speedup_pct=68"
)


@define(eq=False)
class Bench:
    """A cache in memory, its clock, and what is written about it."""

    store: Store = field(factory=Store)
    ping: int = 401
    lines: list[str] = field(factory=list)
    sentences: list[str] = field(factory=list)
    even_s: float = 100.0
    takes_s: list[float] = field(factory=list)
    closed: int = 0

    def fetch(self) -> tuple[IGet, Callable[[], None]]:
        """Make what fetches; each one lasts as long as the test has said."""
        if self.takes_s:
            self.even_s += self.takes_s.pop(0)
        bench = self

        class Answering:
            def get(self, target: str, headers: object = None, logs_in: bool = True) -> Reply:
                if target == "/v2/":
                    assert not logs_in
                    return Reply(bench.ping, {}, lambda: b"")
                return bench.store.get(target)

        return Answering(), self.close

    def close(self) -> None:
        """Count."""
        self.closed += 1

    def run(self, *images: str, look_up: Callable[[], object] = lambda: ["addresses"]) -> bool:
        """Run the test at the time of the seed."""
        subject = Subject(place_of_url("http://cache-ghcr.home.arpa:8080"), "cache_ghcr", "linux/amd64")
        writers = (self.lines.append, self.sentences.append)
        smoke = Smoke(subject, self.fetch, *writers, "client01", lambda: 1777884131.9, lambda: self.even_s)
        return smoke.run({name: Image.parse(name) for name in images}, look_up)

    def events(self) -> list[tuple[str, str]]:
        """Return result and event of each line."""
        return [(fields["result"], fields["event"]) for fields in map(parse, self.lines)]


class SmokeTests(SynchronousTestCase):
    """One line per event, and the truth in it."""

    def setUp(self) -> None:
        """An image of one layer."""
        self.bench = Bench()
        self.bench.store.image(b"layer", "1")

    def test_the_lines_of_the_seed(self) -> None:
        """Letter by letter."""
        self.bench.takes_s = [0.01, 0.02, 16.1949, 5.1601]
        self.assertTrue(self.bench.run(IMAGE))
        self.assertIn(PROBE, self.bench.lines)
        self.assertEqual(self.bench.lines[-1], EFFECT)

    def test_all_events_of_one_image(self) -> None:
        """In order; each has exactly its keys, in the order of the seed."""
        self.bench.run(IMAGE)
        events = ["dns", "v2_probe", "manifest", "pull", "pull", "cache_eff"]
        self.assertEqual(self.bench.events(), [("pass", event) for event in events])
        keys = [list(parse(line)) for line in self.bench.lines]
        common = ["ts", "host", "result", "event", "target"]
        self.assertEqual(
            [each[5:] for each in keys],
            [
                ["endpoint"],
                ["endpoint", "code"],
                ["code", "image"],
                ["image", "ms1"],
                ["image", "ms2"],
                ["image", "ms1", "ms2", "speedup_pct"],
            ],
        )
        for each in keys:
            self.assertEqual(each[:5], common)
            self.assertEqual(each, [key for key in KEYS if key in each])
        self.assertEqual(self.bench.closed, 4)
        self.assertEqual(self.bench.sentences, [])

    def test_a_slower_second_pull_is_a_fact_too(self) -> None:
        """The first may have been a hit already; nothing is divided by nothing."""
        self.bench.takes_s = [0, 0, 1.0, 1.5]
        self.assertTrue(self.bench.run(IMAGE))
        self.assertIn("ms1=1000 ms2=1500 speedup_pct=-50", self.bench.lines[-1])
        self.bench.takes_s = []
        self.assertTrue(self.bench.run(IMAGE))
        self.assertIn("ms1=0 ms2=0 speedup_pct=0", self.bench.lines[-1])

    def test_an_unknown_name_ends_it(self) -> None:
        """Nothing else can be tried; the reason is not among the facts."""

        def fail() -> None:
            raise WireError("cache-ghcr.home.arpa: Name or service not known")

        self.assertFalse(self.bench.run(IMAGE, look_up=fail))
        self.assertEqual(self.bench.events(), [("fail", "dns")])
        self.assertEqual(self.bench.sentences, ["dns: cache-ghcr.home.arpa: Name or service not known"])

    def test_what_is_no_registry(self) -> None:
        """The status is told; 200 and 401 are registries."""
        for status, good in ((200, True), (401, True), (404, False), (502, False), (302, False)):
            bench = Bench(self.bench.store, status)
            self.assertEqual(bench.run(IMAGE), good)
            self.assertEqual(parse(bench.lines[1])["code"], str(status))
        self.assertEqual(bench.events(), [("pass", "dns"), ("fail", "v2_probe")])

    def test_each_image_for_itself(self) -> None:
        """One that is not there keeps no other from being tried, and is not forgotten."""
        self.bench.store.image(b"other", "2")
        self.assertFalse(self.bench.run(f"{NAME}:0", f"{NAME}:2"))
        self.assertEqual(
            self.bench.events()[2:],
            [("fail", "manifest"), *[("pass", event) for event in ("manifest", "pull", "pull", "cache_eff")]],
        )
        self.assertIn(f"code=404 image={NAME}:0", self.bench.lines[2])

    def test_a_pull_that_fails(self) -> None:
        """Has no milliseconds that a sum would count, and no second one."""
        blobs = [target for target in self.bench.store.bodies if "/blobs/" in target]
        self.bench.store.bodies[blobs[-1]] = b"wrong"
        self.assertFalse(self.bench.run(IMAGE))
        self.assertEqual(self.bench.events()[2:], [("pass", "manifest"), ("fail", "pull")])
        self.assertEqual(list(parse(self.bench.lines[-1]))[5:], ["image"])
        self.assertIn("other bytes have come", self.bench.sentences[0])


class CommandTests(SynchronousTestCase):
    """The words of the command."""

    def refused(self, *words: str, **environ: str) -> str:
        """Return why nothing is tried."""
        status, out, err = run_command("smoke", *words, **environ)
        self.assertEqual((status, out, err.count("\n")), (1, "", 1))
        return err

    def test_what_cannot_be(self) -> None:
        """One sentence each, before anything is asked."""
        good = ("--url", "http://127.0.0.1:1", "--image", "alpine")
        self.assertIn("--url", self.refused("--url", "nonsense", "--image", "alpine"))
        self.assertIn("--url", self.refused("--url", "unix:/run/x", "--image", "alpine"))
        self.assertIn("--image", self.refused("--url", "http://127.0.0.1:1", "--image", "al pine"))
        self.assertIn("--ca", self.refused(*good, "--ca", "/nowhere.pem"))
        self.assertIn("--ca", self.refused(*good, "--ca", __file__))
        self.assertIn("SMOKE_PASSWORD", self.refused(*good, "--user", "ci"))
        self.assertIn("No such file", self.refused(*good, "--user", "ci", "--password-file", "/nowhere"))
        self.assertIn("--user only", self.refused(*good, "--password-file", "/nowhere"))
