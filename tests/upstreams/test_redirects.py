"""Redirects are followed inside (RULES F3)."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers

from tests.upstreams.fakes import Answer, FakeNet, answer, wire_on
from txociproxy.collect import collect
from txociproxy.oci.errors import UpstreamUnreachable
from txociproxy.upstreams.connecting.wire import Budget, Outgoing
from txociproxy.upstreams.redirects import Followed, follow, without_page

FROM = "https://reg.example.com/v2/a/blobs/x"


class FollowTests(SynchronousTestCase):
    """One answer comes out."""

    def follow(self, routes: dict[str, Answer], url: str = FROM, method: str = "GET") -> Deferred[Followed]:
        """Ask with a credential and a cookie."""

        def handler(method: str, url: str, headers: Headers) -> Answer:
            self.cookies.append(headers.hasHeader("cookie"))
            return routes[url]

        self.cookies: list[bool] = []
        self.clock = Clock()
        self.net = FakeNet(handler)
        fields = (("Authorization", "Bearer s"), ("Cookie", "c"), ("Range", "bytes=1-"))
        outgoing = Outgoing(method, url, fields)  # type: ignore[arg-type]  # two methods are enough here
        return Deferred.fromCoroutine(follow(wire_on(self.net, self.clock), outgoing, Budget(10), self.clock))

    def failure_text(self, routes: dict[str, Answer], url: str = FROM) -> str:
        """Return why it was not followed."""
        failure: Failure = self.failureResultOf(self.follow(routes, url), UpstreamUnreachable)
        return str(failure.value)

    def test_credentials_stay_with_their_origin(self) -> None:
        """They are dropped at the first other one, and do not come back with the way back."""
        found = self.successResultOf(
            self.follow(
                {
                    FROM: answer(307, b"page", location="/same"),
                    "https://reg.example.com/same": answer(307, location="https://cdn.example.net/y"),
                    "https://cdn.example.net/y": answer(302, location=FROM + "2"),
                    FROM + "2": answer(200, b"body"),
                }
            )
        )
        self.assertEqual((found.response.code, found.foreign), (200, True))
        self.assertEqual([asked[2] for asked in self.net.asked], ["Bearer s", "Bearer s", None, None])
        self.assertEqual(self.cookies, [True, True, False, False])

    def test_scheme_and_port_make_another_origin(self) -> None:
        """The same host is not enough (RFC 6454 §4)."""
        for start, there in (
            ("http://reg/x", "https://reg/x"),
            ("http://reg/x", "http://reg:8080/x"),
            ("https://reg/x", "https://reg:444/x"),
        ):
            found = self.follow({start: answer(307, location=there), there: answer(200)}, start)
            self.assertTrue(self.successResultOf(found).foreign)
            self.assertIsNone(self.net.asked[1][2])

    def test_the_default_port_is_the_same_origin(self) -> None:
        """However it is written."""
        there = "https://REG.example.com:443/x"
        found = self.successResultOf(self.follow({FROM: answer(307, location=there), there: answer(200)}))
        self.assertFalse(found.foreign)

    def test_head_stays_head(self) -> None:
        """On all five kinds."""
        for code in (301, 302, 303, 307, 308):
            routes: dict[str, Answer] = {FROM: answer(code, location="/x")}
            routes["https://reg.example.com/x"] = answer(200)
            self.successResultOf(self.follow(routes, method="HEAD"))
            self.assertEqual([asked[0] for asked in self.net.asked], ["HEAD", "HEAD"])

    def test_five_hops_and_no_more(self) -> None:
        """A circle ends."""
        self.assertIn("more than 5", self.failure_text({FROM: answer(307, location=FROM)}))
        self.assertEqual(len(self.net.asked), 6)

    def test_no_way_from_https_to_http(self) -> None:
        """Nor to what is not a place of the web."""
        self.assertIn("https to http", self.failure_text({FROM: answer(307, location="http://reg.example.com/x")}))
        for location in ("ftp://x/", "file:///etc/passwd", "https://u:p@x/", "https://[::1", "//x:99999/"):
            self.assertIn("not a usable URL", self.failure_text({FROM: answer(307, location=location)}))
        self.assertEqual(len(self.net.asked), 1)

    def test_bodies_of_redirects_are_read_or_closed(self) -> None:
        """Else their connections stay open for ever."""
        page, endless = answer(307, b"moved", location="/x"), answer(307, b"moved", open_ended=True, location="/x")
        for redirect in (page, endless):
            self.successResultOf(self.follow({FROM: redirect, "https://reg.example.com/x": answer(200)}))
            self.assertIsNotNone(redirect.protocol)
        self.assertTrue(endless.closed)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_redirect_without_a_place_is_an_answer(self) -> None:
        """It is relayed as any other."""
        self.assertEqual(self.successResultOf(self.follow({FROM: answer(307)})).response.code, 307)
        self.assertEqual(self.successResultOf(self.follow({FROM: answer(300, location="/x")})).response.code, 300)

    def test_a_refusal_from_elsewhere_is_passed_on_without_its_page(self) -> None:
        """S3 repeats the signed address in it; what is of use in its fields stays."""
        for code in (400, 404, 416, 429, 500):
            there = "https://cdn.example.net/x?sig=secret"
            refusal = answer(code, b"?sig=secret", content_range="bytes */7", retry_after="5", link="?sig=secret")
            found = self.successResultOf(self.follow({FROM: answer(307, location=there), there: refusal}))
            passed = without_page(found)
            fields = {name.lower(): values for name, values in passed.headers.getAllRawHeaders()}
            self.assertEqual(fields, {b"content-range": [b"bytes */7"], b"retry-after": [b"5"]})
            self.assertEqual((passed.code, self.successResultOf(collect(passed, 100, self.clock, 1))), (code, b""))
            self.assertIsNotNone(refusal.protocol)

    def test_every_other_answer_is_passed_on_whole(self) -> None:
        """The registry's own refusals, and content from elsewhere."""
        there = "https://cdn.example.net/x"
        for routes in ({FROM: answer(404, b"page")}, {FROM: answer(307, location=there), there: answer(206, b"page")}):
            found = self.successResultOf(self.follow(dict(routes)))
            self.assertIs(without_page(found), found.response)

    def test_signatures_arrive_as_they_were_signed(self) -> None:
        """Percent, plus and a fragment; bytes that cannot stand in a URL are encoded."""
        there = "https://cdn/y?sig=a%2Fb+c%20d&e=[1]|2"
        self.successResultOf(self.follow({FROM: answer(307, location=there + "#f"), there: answer(200)}))
        encoded = "https://cdn/%C3%BC%20x"
        self.successResultOf(self.follow({FROM: answer(307, location="https://cdn/ü x"), encoded: answer(200)}))

    def test_all_hops_share_one_deadline(self) -> None:
        """The second has what the first left."""
        waiting: Deferred[object] = Deferred()
        first: Deferred[object] = Deferred()
        routes: dict[str, Answer] = {FROM: first, "https://reg.example.com/x": waiting}  # type: ignore[dict-item]
        found = self.follow(routes)
        self.clock.advance(7)
        first.callback(answer(307, location="/x"))
        self.clock.advance(2.9)
        self.assertNoResult(found)
        self.clock.advance(0.2)
        self.assertTrue(self.failureResultOf(found, UpstreamUnreachable).value.timed_out)
