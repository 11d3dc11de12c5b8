"""What looks for content are tried with: a bucket in memory, and who asks for what is in it."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.storage.s3.scripted import DIGEST, Answer, Reading
from txociproxy.interfaces import Elsewhere
from txociproxy.oci.names import Digest

DAY_S = 24 * 3600.0
OTHER = Digest.of(b"other")


class FindingCase(SynchronousTestCase):
    """A bucket in memory."""

    reading: Reading

    def setUp(self) -> None:
        """Nothing is in it."""
        self.use(Reading())

    def tearDown(self) -> None:
        """No timer outlives its ask."""
        self.gate.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def use(self, reading: Reading) -> None:
        """Read from this bucket."""
        self.reading = reading
        self.s3, self.gate, self.clock = reading.s3, reading.gate, reading.clock
        self.objects, self.keys = reading.objects, reading.keys
        self.content, self.sidecar = self.keys.content(DIGEST), self.keys.sidecar(DIGEST)
        self.held, self.held_sidecar = self.keys.content(DIGEST, True), self.keys.sidecar(DIGEST, True)

    def begin(self, namespace: str = "docker.io", digest: Digest = DIGEST) -> Deferred[Elsewhere | None]:
        """Begin to look."""
        return Deferred.fromCoroutine(self.objects.find(digest, namespace))

    def find(self, namespace: str = "docker.io", digest: Digest = DIGEST) -> Elsewhere | None:
        """Return what is found at once."""
        found = self.successResultOf(self.begin(namespace, digest))
        assert found is None or isinstance(found, Elsewhere)
        return found

    def found(self, namespace: str = "docker.io", digest: Digest = DIGEST) -> Elsewhere:
        """Return what is there."""
        found = self.find(namespace, digest)
        assert found is not None
        return found

    def script(self, what: str, answer: Answer) -> None:
        """Answer this in place of the truth."""
        self.s3.scripts[what] = lambda _: answer

    def path(self, found: Elsewhere) -> str:
        """Return under which key it is."""
        return found.place.address().url.partition("?")[0].partition("/bucket/")[2]

    def asked(self) -> list[str]:
        """Return what was asked since the last time."""
        seen = self.s3.seen
        self.s3.asked.clear()
        return seen
