"""What an upstream says about its quota (Docker Hub's RateLimit fields)."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.upstreams.fakes import NAMESPACE, URL, Answer, FakeLogins, FakeNet, answer, pull_of, upstream_on
from txociproxy.interfaces import ANONYMOUS, OWN, Credentials
from txociproxy.oci.names import Tag
from txociproxy.upstreams.entries.entry import Entry
from txociproxy.upstreams.quota import Quota


def said(limit: str, remaining: str) -> Answer:
    """Return an answer with both fields."""
    return answer(200, RateLimit_Limit=limit, RateLimit_Remaining=remaining)


class QuotaTests(SynchronousTestCase):
    """Whether there is room for asks that no client waits for."""

    def setUp(self) -> None:
        """An upstream whose next answer is set."""
        self.clock = Clock()
        self.next: Answer = answer(200)
        net = FakeNet(lambda method, url, headers: self.next)
        self.upstream = upstream_on(net, self.clock, Entry(NAMESPACE, (URL,), quota_low=0.1), FakeLogins())

    def hear(self, response: Answer, who: Credentials = ANONYMOUS) -> bool:
        """Ask once, and return whether there is room then."""
        self.next = response
        head = self.upstream.head(pull_of(Tag("latest")), who, None)
        self.successResultOf(Deferred.fromCoroutine(head))
        return self.upstream.can_spare

    def test_room_is_what_is_not_scarce(self) -> None:
        """Nothing said is room; the mark itself is room."""
        self.assertTrue(self.upstream.can_spare)
        self.assertTrue(self.hear(answer(200)))
        self.assertTrue(self.hear(said("100;w=21600", "10;w=21600")))
        self.assertFalse(self.hear(said("100;w=21600", "9;w=21600")))
        self.assertFalse(self.hear(said("100;w=21600", "0;w=21600")))

    def test_it_is_scarce_until_the_window_is_over(self) -> None:
        """Counted from when it was said; answers that say nothing change nothing."""
        self.hear(said("100;w=21600", "5"))
        self.clock.advance(21599)
        self.assertFalse(self.hear(answer(200)))
        self.clock.advance(1)
        self.assertTrue(self.upstream.can_spare)

    def test_a_newer_answer_counts(self) -> None:
        """Also one to our login."""
        self.hear(said("100;w=21600", "5;w=21600"))
        self.assertTrue(self.hear(said("100;w=21600", "50;w=21600"), OWN))
        self.assertFalse(self.hear(said("200;w=21600", "5;w=21600"), OWN))

    def test_clients_quotas_are_not_ours(self) -> None:
        """Each account has its own."""
        self.assertTrue(self.hear(said("100;w=21600", "5;w=21600"), Credentials("Bearer theirs")))

    def test_a_pause_is_no_room(self) -> None:
        """For as long as it lasts, whatever an answer says about the quota."""
        self.assertFalse(self.hear(answer(429, retry_after="30")))
        self.assertFalse(self.hear(said("100;w=21600", "100;w=21600"), OWN))
        self.clock.advance(29)
        self.assertFalse(self.upstream.can_spare)
        self.clock.advance(1)
        self.assertTrue(self.upstream.can_spare)
        self.assertTrue(self.hear(answer(429)))

    def test_other_forms(self) -> None:
        """A window that is not said is an hour, none is longer than a day; nonsense says nothing."""
        for limit, remaining, scarce_s in (
            ("100", "1", 3600),
            ("100", "1;w=60", 60),
            ("100;w=60", "1;w=90", 60),
            ("100 ; w = 60 ; comment", "1", 60),
            ("100, 100;w=60", "1", 3600),
            ("100;w=999999999", "1", 86400),
            ("0;w=60", "0;w=60", 0),
            ("-1;w=60", "0", 0),
            ("many", "0", 0),
            ("100;w=60", "", 0),
            ("1" * 50, "0", 0),
        ):
            quota = Quota(self.clock, 0.1)
            quota.note(said(limit, remaining))  # type: ignore[arg-type]  # an answer is a response
            self.assertEqual(quota.can_spare, scarce_s == 0, limit)
            self.clock.advance(max(scarce_s - 1, 0))
            self.assertEqual(quota.can_spare, scarce_s == 0, limit)
            self.clock.advance(1)
            self.assertTrue(quota.can_spare, limit)
