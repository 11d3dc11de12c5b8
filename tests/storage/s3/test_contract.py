"""The contract of IStorage over a bucket: while content waits for its upload, when it is there, and with a tier."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from hypothesis import HealthCheck, given, settings
from twisted.trial.unittest import SynchronousTestCase

from tests import contracts
from tests.storage.recording import RecordingFiles
from tests.storage.s3.proxies import Proxy
from tests.storage.s3.server import fresh
from txociproxy.interfaces import Elsewhere, Local
from txociproxy.oci.names import Digest
from txociproxy.storage.s3.settings import S3Settings


class S3Contract(contracts.RootContract):
    """The contract over any S3 server; whoever mixes this in says how to get to a new bucket.

    :ivar answers_from: what ``find`` returns for content that was kept just before.
    """

    answers_from: type[Local | Elsewhere] = Elsewhere
    uploads_wait = False
    tier_max_bytes = 0
    lease_wait_s = 0.0
    proxy: Proxy

    def setUp(self) -> None:
        """A prepared proxy over a bucket that nobody else knows."""
        wanted = S3Settings(tier_max_bytes=self.tier_max_bytes, lease_wait_s=self.lease_wait_s)
        self.proxy = self.make_proxy(Path(self.mktemp()), wanted)
        self.proxy.uploads_wait = self.uploads_wait
        self.proxy.begin()
        self.storage = self.proxy.storage
        self.addCleanup(self.files.bury)
        self.addCleanup(self.check)
        self.addCleanup(self.proxy.stop)

    def make_proxy(self, root: Path, wanted: S3Settings) -> Proxy:
        """Make a proxy with these settings, but for bucket, endpoint and region."""
        raise NotImplementedError

    @property
    def files(self) -> RecordingFiles:
        """The file operations of the proxy."""
        return cast(RecordingFiles, self.proxy.files)

    @property
    def root(self) -> Path:
        """Where the proxy keeps what waits."""
        return self.proxy.root

    def work(self) -> None:
        """Let the threads work."""
        self.proxy.work()

    def find(self, digest: Digest, namespace: str = contracts.NAMESPACE) -> Local | None:
        """Look for content, and bring it here if it is elsewhere."""
        found = self.proxy.find(digest, namespace)
        return self.proxy.here(found) if isinstance(found, Elsewhere) else found

    @given(contracts.STORIES)
    @settings(deadline=None, max_examples=8, suppress_health_check=[HealthCheck.differing_executors])
    def test_any_story_ends_as_its_rules_say(self, story: list[tuple[str, str]]) -> None:
        """Fewer of them than elsewhere: each step is many requests."""
        self.live_through(story)

    def test_it_is_found_where_this_shape_has_it(self) -> None:
        """So that the facts above are about what they seem to be about."""
        found = self.proxy.find(self.keep(), contracts.NAMESPACE)
        self.assertIsInstance(found, self.answers_from)
        if isinstance(found, Local):
            found.body.close()


class MotoContract(S3Contract):
    """Over the server in this process."""

    def make_proxy(self, root: Path, wanted: S3Settings) -> Proxy:
        """Make one over a new bucket."""
        return Proxy(root, fresh(wanted).settings)


class UploadedTests(MotoContract, SynchronousTestCase):
    """Content in the bucket, and nowhere else."""

    def test_nothing_of_it_stays_on_the_local_disk(self) -> None:
        """No copy, no mark."""
        self.keep()
        self.assertEqual([path for path in self.proxy.root.rglob("*") if path.is_file()], [self.proxy.layout.marker])


class WaitingTests(MotoContract, SynchronousTestCase):
    """Content on the local disk, while uploads do not begin."""

    answers_from = Local
    uploads_wait = True


class TierTests(MotoContract, SynchronousTestCase):
    """Content in the bucket, with a copy in the tier."""

    answers_from = Local
    tier_max_bytes = 1 << 30


class LeaseTests(MotoContract, SynchronousTestCase):
    """Content in the bucket, by proxies that let each other be first."""

    lease_wait_s = 5.0


class PrefixTests(SynchronousTestCase):
    """What the bucket looks like."""

    def test_keys_are_those_of_files_behind_a_prefix(self) -> None:
        """Content, its sidecar, and the marker."""
        there = fresh(S3Settings(prefix="fleet/a"))
        proxy = Proxy(Path(self.mktemp()), there.settings).begin()
        self.addCleanup(proxy.stop)
        digest = proxy.keep(b"content")
        name = f"fleet/a/blobs/sha256/{digest.hex[:2]}/{digest.hex}"
        self.assertEqual(there.names(), ["fleet/a/.txociproxy.json", name, f"{name}.meta.json"])
        self.assertEqual(there.content(name), b"content")
