"""What is held beside open content goes when nobody can have its address any more, and only then."""

from __future__ import annotations

from attrs import define, field
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.doubles import ManualWorkers
from txociproxy.oci.names import Digest
from txociproxy.storage.s3.gate import Gate
from txociproxy.storage.s3.keys import Keys
from txociproxy.storage.s3.leftovers import AT_ONCE, EVERY_S, MARGIN_S, MAX_LEFT, Leftovers
from txociproxy.storage.s3.trouble import S3Trouble

KEYS = Keys("p")
LIFE_S = 900.0
DIGESTS = [Digest.of(str(number).encode()) for number in range(3)]
SLOW = S3Trouble("failing", "SlowDown", "a request")
DENIED = S3Trouble("refused", "AccessDenied", "a request")


@define(eq=False)
class FakeBucket:
    """Keys, and what was asked for.

    :ivar troubles: by key: what to remove it raises.
    """

    keys: set[str] = field(factory=set)
    deleted: list[str] = field(factory=list)
    troubles: dict[str, Exception] = field(factory=dict)

    def delete(self, *keys: str) -> None:
        """Remove."""
        for key in keys:
            if key in self.troubles:
                raise self.troubles[key]
            self.deleted.append(key)
            self.keys.discard(key)

    def head(self, key: str) -> tuple[int, float] | None:
        """Look."""
        return (3, 0.0) if key in self.keys else None

    def put(self, digest: Digest) -> None:
        """Have it open, and held beside it."""
        for held in (False, True):
            self.keys |= {KEYS.content(digest, held), KEYS.sidecar(digest, held)}


class LeftoverTests(SynchronousTestCase):
    """A bucket with three contents, each open and held."""

    def setUp(self) -> None:
        """All of them were opened just now."""
        self.clock, self.workers, self.bucket = Clock(), ManualWorkers(), FakeBucket()
        self.gate = Gate(self.clock, "the bucket")
        self.is_made = True
        self.left = Leftovers(self.have, KEYS, self.workers, self.gate, self.clock, LIFE_S)
        self.left.start()
        for digest in DIGESTS:
            self.bucket.put(digest)
            self.left.add(digest)
        self.clock.advance(EVERY_S)

    def have(self) -> FakeBucket | None:
        """Return the bucket, if there is one."""
        return self.bucket if self.is_made else None

    def pass_time(self, seconds: float) -> None:
        """Let rounds pass, and the threads work."""
        for _ in range(int(seconds // EVERY_S)):
            self.clock.advance(EVERY_S)
            self.workers.work()

    def held(self) -> list[bool]:
        """Whether each is still held."""
        return [KEYS.content(digest, held=True) in self.bucket.keys for digest in DIGESTS]

    def test_it_stays_as_long_as_an_address_is_good(self) -> None:
        """Then it goes, content before sidecar; what is open stays."""
        self.pass_time(LIFE_S + MARGIN_S - EVERY_S)
        self.assertEqual(self.held(), [True] * 3)
        self.pass_time(2 * EVERY_S)
        self.assertEqual(self.held(), [False] * 3)
        about = (KEYS.content(DIGESTS[0], held=True), KEYS.sidecar(DIGESTS[0], held=True))
        self.assertEqual(tuple(self.bucket.deleted[:2]), about)
        self.assertEqual(len(self.bucket.keys), 6)
        self.assertEqual(self.left._due_s, {})

    def test_one_that_is_all_there_is_stays(self) -> None:
        """What was opened was removed, or has expired, and it is held anew."""
        self.bucket.keys.discard(KEYS.content(DIGESTS[1]))
        self.pass_time(LIFE_S + MARGIN_S + 2 * EVERY_S)
        self.assertEqual(self.held(), [False, True, False])

    def test_one_that_is_opened_again_begins_anew(self) -> None:
        """It was held anew in between."""
        self.pass_time(LIFE_S)
        self.left.add(DIGESTS[0])
        self.pass_time(MARGIN_S + EVERY_S)
        self.assertEqual(self.held(), [True, False, False])

    def test_a_server_that_is_busy_is_asked_again_and_one_that_refuses_is_not(self) -> None:
        """What stays does no harm."""
        self.bucket.troubles = {
            KEYS.content(DIGESTS[0], held=True): DENIED,
            KEYS.content(DIGESTS[1], held=True): SLOW,
        }
        self.pass_time(LIFE_S + MARGIN_S + EVERY_S)
        self.assertEqual((self.held(), list(self.left._due_s)), ([True] * 3, DIGESTS[1:]))
        self.bucket.troubles.clear()
        self.pass_time(EVERY_S)
        self.assertEqual((self.held(), self.left._due_s), ([True, False, False], {}))

    def test_nothing_is_asked_while_s3_is_out(self) -> None:
        """Or before there is a bucket."""
        self.is_made = False
        self.pass_time(LIFE_S + MARGIN_S + EVERY_S)
        self.is_made = True
        self.gate.stop()
        self.gate.failed(S3Trouble("unreachable", "Timeout", "a request"))
        self.pass_time(EVERY_S)
        self.assertEqual(self.held(), [True] * 3)

    def test_it_is_bounded_and_takes_a_thread_for_a_few_at_a_time(self) -> None:
        """The oldest are forgotten; no round begins while another runs."""
        many = [Digest.of(f"many {number}".encode()) for number in range(MAX_LEFT + 1)]
        for digest in many:
            self.left.add(digest)
        self.clock.advance(EVERY_S)
        self.assertEqual((len(self.left._due_s), next(iter(self.left._due_s))), (MAX_LEFT, many[1]))
        self.clock.advance(LIFE_S + MARGIN_S)
        self.clock.advance(EVERY_S)
        self.assertEqual(len(self.workers.jobs), 1)
        self.workers.work()
        self.assertEqual(len(self.left._due_s), MAX_LEFT - AT_ONCE)

    def test_after_the_end_nothing_is_asked(self) -> None:
        """Nor stays on the clock."""
        self.left.stop()
        self.left.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_what_nobody_expects_is_logged_and_tried_again(self) -> None:
        """The next round comes."""
        self.bucket.troubles = {KEYS.content(DIGESTS[0], held=True): ValueError("broken")}
        self.pass_time(LIFE_S + MARGIN_S + EVERY_S)
        self.assertGreater(len(self.flushLoggedErrors(ValueError)), 0)
        self.bucket.troubles.clear()
        self.pass_time(EVERY_S)
        self.assertEqual(self.held(), [False] * 3)
