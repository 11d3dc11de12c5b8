"""How the way to the bucket comes to be: at the start, later, or never."""

from __future__ import annotations

import json
from threading import Event

from attrs import define, evolve, field
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from tests.storage.s3.proxies import Proxy, connect_to_tests, proxy_of
from tests.storage.s3.server import BlockingAgent, Fresh, fresh
from txociproxy.oci.errors import StorageUnavailable
from txociproxy.oci.names import Digest
from txociproxy.storage.marker import NotOurs
from txociproxy.storage.s3.connecting import Connection
from txociproxy.storage.s3.keys import Keys
from txociproxy.storage.s3.opening import Opening, claim, place_of
from txociproxy.storage.s3.settings import S3Settings
from txociproxy.storage.s3.signing import Identity
from txociproxy.storage.s3.trouble import S3Trouble

KEYS = Keys("fleet")
DOWN = S3Trouble("unreachable", "ConnectionRefused", "head_bucket")
REFUSED = S3Trouble("refused", "NoCredentials", "the AWS SDK finds no credentials")


@define(eq=False)
class FakeBucket:
    """One object, the marker."""

    marker: bytes | None = None
    name: str = "oci-cache"
    late_marker: bytes | None = None
    puts: int = 0

    def ensure(self) -> None:
        """It is there."""

    def read(self, key: str, max_bytes: int) -> bytes | None:
        """Return the marker; whoever else begins puts his just after."""
        assert key == KEYS.marker
        found = self.marker
        self.marker = self.late_marker or self.marker
        return found

    def put(self, key: str, data: bytes, media_type: str, if_absent: bool = False) -> bool:
        """Put the marker."""
        assert key == KEYS.marker
        if if_absent and self.marker is not None:
            return False
        self.marker, self.puts = data, self.puts + 1
        return True


class UndecidedBucket(FakeBucket):
    """Another's marker is on its way."""

    def put(self, key: str, data: bytes, media_type: str, if_absent: bool = False) -> bool:
        """Let nobody pass."""
        return False


def marker(mode: str = "transparent", layout: object = 1) -> bytes:
    """Return a marker."""
    return json.dumps({"layout": layout, "mode": mode}).encode()


class ClaimTests(SynchronousTestCase):
    """Whose the bucket is (RULES D4)."""

    def test_an_unmarked_bucket_becomes_ours(self) -> None:
        """A second start changes nothing."""
        bucket = FakeBucket()
        for _ in range(2):
            claim(bucket, KEYS, "transparent")
        self.assertEqual((json.loads(bucket.marker or b""), bucket.puts), ({"layout": 1, "mode": "transparent"}, 1))

    def test_one_of_the_other_mode_is_refused(self) -> None:
        """The text names bucket, prefix and the way out."""
        bucket = FakeBucket(marker())
        text = str(self.assertRaises(NotOurs, claim, bucket, KEYS, "authenticated"))
        for part in ("belongs to transparent mode", "oci-cache", "fleet/", "--adopt-store true", "S3_BUCKET"):
            self.assertIn(part, text)
        self.assertEqual((bucket.marker, bucket.puts), (marker(), 0))

    def test_an_adopted_one_belongs_to_the_new_mode(self) -> None:
        """One line says so; the old mode is refused from then on."""
        bucket = FakeBucket(marker())
        with capturedLogs() as lines:
            claim(bucket, KEYS, "authenticated", adopt=True)
            claim(bucket, KEYS, "authenticated", adopt=True)
        self.assertEqual([line["owner"] for line in lines], ["transparent"])
        self.assertRaises(NotOurs, claim, bucket, KEYS, "transparent")

    def test_of_two_that_begin_at_once_the_second_sees_the_marker(self) -> None:
        """Which was put between its look and its own."""
        claim(FakeBucket(late_marker=marker()), KEYS, "transparent")
        self.assertRaises(NotOurs, claim, FakeBucket(late_marker=marker()), KEYS, "authenticated")

    def test_a_marker_that_is_just_being_written_is_waited_for(self) -> None:
        """Nobody knows whose it is: the server lets ours not pass and shows no other yet."""
        self.assertRaises(S3Trouble, claim, UndecidedBucket(), KEYS, "transparent")

    def test_a_marker_that_cannot_be_believed_is_refused(self) -> None:
        """Also with adoption: nobody knows what would be taken over."""
        broken = (b"", b"nonsense", b"[]", b"{}", b"[" * 100_000, marker("relaxed"), marker(layout=2))
        for data in broken:
            for adopt in (False, True):
                self.assertRaises(NotOurs, claim, FakeBucket(data), KEYS, "transparent", adopt)

    def test_a_store_is_named_for_people(self) -> None:
        """With its prefix, if it has one."""
        names = [place_of("b", Keys(prefix)) for prefix in ("", "a/b")]
        self.assertEqual(names, ["the S3 bucket b", "the S3 bucket b under a/b/"])


@define(eq=False)
class Road:
    """The way to the server, which the test can close.

    :ivar trouble: what every new connection fails with.
    :ivar count: how many connections were made.
    """

    trouble: Exception | None = None
    count: int = 0
    settings: list[S3Settings] = field(factory=list)

    def connect(self, settings: S3Settings) -> Connection:
        """Connect, or fail."""
        self.count += 1
        if self.trouble is not None:
            raise self.trouble
        return connect_to_tests(settings)


class OpeningCase(SynchronousTestCase):
    """One proxy, and the way to its bucket."""

    def setUp(self) -> None:
        """A bucket that is not there yet."""
        self.there: Fresh = fresh(is_made=False)
        self.road, self.agent = Road(), BlockingAgent()

    def proxy(self, **more: object) -> Proxy:
        """Make a proxy on this road."""
        proxy = proxy_of(self.there, self.mktemp(), connect=self.road.connect, agent=self.agent, **more)
        self.addCleanup(proxy.stop)
        return proxy

    def refused(self, proxy: Proxy) -> None:
        """Nothing can be told about what is in the bucket."""
        self.assertRaises(StorageUnavailable, proxy.find, Digest.of(b"anything"))


class StartTests(OpeningCase):
    """Before the reactor runs."""

    def test_the_server_is_said_once(self) -> None:
        """The SDK may have found it where our settings do not name it; new credentials for it are no news."""
        proxy = self.proxy()
        with capturedLogs() as lines:
            proxy.begin()
            proxy.storage.far.gate.failed(S3Trouble("refused", "InvalidAccessKeyId", "HEAD"))
            proxy.pass_time(20)
        self.assertEqual(self.road.count, 2)
        said = [formatEvent(line) for line in lines if "endpoint" in line]
        endpoint = connect_to_tests(self.there.settings).endpoint_url
        self.assertEqual(said, [f"the S3 bucket {self.there.settings.bucket} is used at {endpoint}"])

    def test_a_missing_bucket_is_made_and_marked(self) -> None:
        """That is no trouble."""
        with capturedLogs() as lines:
            self.proxy().begin()
        self.assertEqual(self.there.names(), [".txociproxy.json"])
        self.assertEqual(json.loads(self.there.content(".txociproxy.json")), {"layout": 1, "mode": "transparent"})
        self.assertEqual([line for line in lines if line["log_level"] > LogLevel.info], [])

    def test_s3_that_is_out_is_one_warning_and_the_start_goes_on(self) -> None:
        """Refused, unreachable, failing, or something nobody thought of."""
        for trouble in (DOWN, REFUSED, S3Trouble("failing", "SlowDown", "head_bucket"), ValueError("bad answer")):
            self.road.trouble = trouble
            proxy = self.proxy()
            with capturedLogs() as lines:
                proxy.begin()
            warnings = [line for line in lines if line["log_level"] == LogLevel.warn]
            self.assertEqual((len(warnings), proxy.storage.far.gate.is_open), (1, False), repr(trouble))
            self.refused(proxy)
            self.assertEqual(self.agent.asked, [])

    def test_a_server_that_hangs_is_waited_for_within_bounds(self) -> None:
        """What it says later is not waited for, and the next try opens it."""
        going_on = Event()
        self.addCleanup(going_on.set)

        def hang(settings: S3Settings) -> Connection:
            going_on.wait(30)
            return connect_to_tests(settings)

        proxy = proxy_of(self.there, self.mktemp(), connect=hang, start_patience_s=0.05)
        self.addCleanup(proxy.stop)
        with capturedLogs() as lines:
            proxy.storage.prepare("transparent")
        self.assertIn("did not answer in time", str(lines[-1]["trouble"]))
        self.assertIsNone(proxy.storage.far.bucket())
        going_on.set()
        proxy.start()
        proxy.pass_time(2)
        self.assertTrue(proxy.storage.far.gate.is_open)

    def test_without_the_sdk_the_start_ends(self) -> None:
        """It would never open."""
        self.road.trouble = S3Trouble("refused", "SdkMissing", "S3 needs the AWS SDK: pip install 'txociproxy[aws]'")
        error = self.assertRaises(StorageUnavailable, self.proxy().storage.prepare, "transparent")
        self.assertIn("pip install", str(error))

    def test_a_bucket_of_the_other_mode_ends_the_start(self) -> None:
        """Unless it is adopted; the local disk was asked before."""
        self.proxy().begin()
        other = self.proxy(mode="authenticated")
        text = str(self.assertRaises(StorageUnavailable, other.storage.prepare, "authenticated"))
        self.assertIn("--adopt-store true", text)
        other.begin(adopt=True)
        self.assertTrue(other.storage.far.gate.is_open)

    def test_a_local_disk_of_the_other_mode_ends_the_start_before_s3_is_asked(self) -> None:
        """What waits there was brought for others."""
        proxy = self.proxy()
        proxy.local.prepare("authenticated")
        self.assertRaises(StorageUnavailable, proxy.storage.prepare, "transparent")
        self.assertEqual(self.road.count, 0)

    def test_nothing_opens_before_it_was_prepared(self) -> None:
        """Nobody knows the mode."""
        opening = Opening(self.there.settings, KEYS, self.road.connect)
        self.assertRaises(S3Trouble, opening.open)
        self.assertEqual(self.road.count, 0)


class LaterTests(OpeningCase):
    """While the process runs."""

    def down(self, **more: object) -> Proxy:
        """Start while S3 is out."""
        self.road.trouble = DOWN
        return self.proxy(**more).begin()

    def well(self, proxy: Proxy, seconds: float = 40) -> None:
        """Let S3 come back, and time pass."""
        self.road.trouble = None
        proxy.pass_time(seconds)

    def test_it_opens_by_itself_when_s3_is_back(self) -> None:
        """No restart; what was kept meanwhile is uploaded."""
        proxy = self.down()
        digest = proxy.keep(b"kept while S3 was out")
        proxy.pass_time(60)
        self.assertEqual(proxy.read(digest), b"kept while S3 was out")
        self.well(proxy)
        self.assertTrue(proxy.storage.far.gate.is_open)
        self.assertIn(proxy.storage.far.keys.content(digest), self.there.names())
        self.assertEqual(proxy.read(digest), b"kept while S3 was out")

    def test_a_bucket_of_the_other_mode_is_never_used(self) -> None:
        """One error line; nothing of it is read or written, and nothing more is kept for it."""
        self.proxy(mode="authenticated").begin()
        proxy = self.down()
        kept = proxy.keep(b"kept before anybody knew")
        self.agent.asked.clear()
        with capturedLogs() as lines:
            self.well(proxy, 120)
        errors = [line for line in lines if line["log_level"] == LogLevel.error]
        self.assertEqual(len(errors), 1)
        self.assertIn("--adopt-store", str(errors[0]["reason"]))
        self.refused(proxy)
        self.assertRaises(StorageUnavailable, proxy.storage.open_spool, Digest.of(b"more"), 4)
        self.assertRaises(StorageUnavailable, proxy.ask, proxy.storage.remove(kept))
        count = self.road.count
        proxy.pass_time(120)
        self.assertEqual((self.road.count, self.agent.asked), (count, []))
        self.assertEqual(self.there.names(), [".txociproxy.json"])

    def test_one_that_was_to_be_adopted_is_adopted_later(self) -> None:
        """Once: two that take it from each other would never end."""
        transparent = self.proxy().begin()
        self.road.trouble = DOWN
        proxy = self.proxy(mode="authenticated").begin(adopt=True)
        self.well(proxy)
        self.assertTrue(proxy.storage.far.gate.is_open)
        claim(self.there.bucket, self.there.keys, "transparent", adopt=True)
        proxy.storage.far.gate.failed(DOWN)
        proxy.pass_time(5)
        self.assertIsNotNone(proxy.storage.far.opening.not_ours)
        self.assertTrue(transparent.storage.far.gate.is_open)

    def test_credentials_that_were_refused_are_taken_anew(self) -> None:
        """And the connection that is well is used again after any other outage."""
        proxy = self.proxy().begin()
        proxy.storage.far.gate.failed(DOWN)
        proxy.pass_time(2)
        self.assertEqual((self.road.count, proxy.storage.far.gate.is_open), (1, True))
        proxy.storage.far.gate.failed(S3Trouble("refused", "InvalidAccessKeyId", "HEAD"))
        proxy.pass_time(20)
        self.assertEqual((self.road.count, proxy.storage.far.gate.is_open), (2, True))
        self.assertIsNone(proxy.find(Digest.of(b"anything")))

    def test_the_way_of_reads_is_probed_too(self) -> None:
        """It has its own trust and its own signatures."""
        proxy = self.proxy().begin()
        self.agent.trouble = OSError("no way")
        self.refused(proxy)
        proxy.pass_time(60)
        self.assertFalse(proxy.storage.far.gate.is_open)
        self.agent.trouble = None
        proxy.pass_time(40)
        self.assertTrue(proxy.storage.far.gate.is_open)

    def test_one_that_was_never_prepared_in_time_asks_nothing(self) -> None:
        """Started without a bucket: it opens behind."""
        proxy = self.proxy()
        proxy.local.prepare("transparent")
        proxy.start()
        self.refused(proxy)
        proxy.pass_time(40)
        self.assertEqual(self.road.count, 0)


class ChoreTests(OpeningCase):
    """What is done once it is open, and once a day."""

    def lifecycle(self) -> list[str]:
        """Return the names of the rules of the bucket."""
        try:
            found = self.there.client.get_bucket_lifecycle_configuration(Bucket=self.there.settings.bucket)
        except self.there.client.exceptions.ClientError:
            return []
        return [rule["ID"] for rule in found["Rules"]]

    def test_the_lifecycle_is_set_when_it_opens(self) -> None:
        """At the start, or later."""
        self.road.trouble = DOWN
        proxy = self.proxy().begin()
        self.road.trouble = None
        proxy.pass_time(40)
        self.assertEqual(self.lifecycle(), ["txociproxy blobs/", "txociproxy tags/"])

    def test_it_is_set_again_once_a_day(self) -> None:
        """Whoever has removed it may not have meant to."""
        proxy = self.proxy().begin()
        self.there.client.delete_bucket_lifecycle(Bucket=self.there.settings.bucket)
        proxy.pass_time(24 * 3600 - 60, 3600)
        self.assertEqual(self.lifecycle(), [])
        proxy.pass_time(60, 60)
        self.assertEqual(len(self.lifecycle()), 2)

    def test_a_right_that_is_missing_is_one_warning(self) -> None:
        """The store works without; nobody is told twice."""
        proxy = self.proxy()

        def refuse(**_: object) -> None:
            raise S3Trouble("refused", "AccessDenied", "put_bucket_lifecycle_configuration")

        proxy.storage.prepare("transparent")
        connection = proxy.storage.far.opening.connection
        assert connection is not None
        connection.client.get_bucket_lifecycle_configuration = refuse
        with capturedLogs() as lines:
            proxy.start()
            proxy.pass_time(24 * 3600 * 2, 3600 * 12)
        warnings = [line for line in lines if line["log_level"] == LogLevel.warn]
        self.assertEqual((len(warnings), proxy.storage.far.gate.is_open), (1, True))
        self.assertIn("lifecycle", str(warnings[0]["what"]))
        self.assertEqual(proxy.read(proxy.keep(b"works")), b"works")

    def test_credentials_are_refreshed_every_minute(self) -> None:
        """Ahead of their end, in a thread; trouble with that is told once."""
        proxy = self.proxy().begin()
        connection = proxy.storage.far.opening.connection
        assert connection is not None
        taken: list[float] = []
        take = connection.signer._take

        def count() -> Identity:
            taken.append(proxy.clock.seconds())
            return take()

        connection.signer._take = count
        proxy.pass_time(180, 60)
        self.assertEqual(len(taken), 3)

    def test_after_the_end_nothing_is_done(self) -> None:
        """And nothing stays on the clock."""
        proxy = self.proxy(settings=evolve(self.there.settings, lease_wait_s=5.0)).begin()
        proxy.storage.stop()
        self.assertEqual(proxy.clock.getDelayedCalls(), [])
