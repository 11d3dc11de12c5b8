"""The address that a client is sent to, by plain HTTP and a server that checks signatures: good for what it says."""

from __future__ import annotations

import time

from tests.e2e.processes import wait_until
from tests.e2e.s3_addresses import LARGE, SMALL, AddressTestCase, follow
from tests.e2e.s3_signer import signed
from tests.e2e.scripts import MIB

PART = (17 * MIB, 17 * MIB + 9_999)
# What a signature may add to an address, and nothing else may.
SIGNATURE = {f"X-Amz-{name}" for name in ("Algorithm", "Credential", "Date", "Expires", "SignedHeaders", "Signature")}


class RedirectTests(AddressTestCase):
    """Each blob that is in the bucket is a redirect to it."""

    def setUp(self) -> None:
        """Fill the bucket."""
        super().setUp()
        self.proxy = self.start()
        self.fill(self.proxy, SMALL, LARGE)

    def test_the_address_is_good_for_the_whole_and_for_parts(self) -> None:
        """Exactly the bytes that were asked for, multipart upload or not."""
        for served in (SMALL, LARGE):
            status, _, body = self.sent(self.proxy, served).get()
            self.assertEqual(status, 200)
            self.assertTrue(body == served.content.data())
        # As clients do who want a part: the field goes with them.
        field = f"bytes={PART[0]}-{PART[1]}"
        status, fields, body = self.sent(self.proxy, LARGE, Range=field).get(Range=field)
        total = LARGE.content.size_bytes
        self.assertEqual((status, fields["content-range"]), (206, f"bytes {PART[0]}-{PART[1]}/{total}"))
        self.assertTrue(body == LARGE.content.data()[PART[0] : PART[1] + 1])
        self.assertEqual([one.status for one in self.house.public.news()], [200, 200, 206])

    def test_one_signature_a_minute_serves_everybody(self) -> None:
        """One address for some seconds, two when a minute ends meanwhile; each redirect says what is left of it.

        By default it is good for 15 minutes, and still good when a redirect that somebody keeps as long as he may is
        followed.  He keeps it for himself, since ``no_redirect`` may send the next one elsewhere.
        """
        locations = set()
        for _ in range(3):
            now_s, sent = time.time(), [self.sent(self.proxy, SMALL) for _ in range(30)][-1]
            locations.add(sent.location)
            self.assertEqual((sent.life_s, sent.cache_control), (900, f"private, max-age={sent.max_age_s}"))
            self.assertGreater(sent.max_age_s, sent.life_s - 90)
            self.assertLess(now_s + sent.max_age_s + 9, sent.ends_s)
            # Signatures of the same second are the same by themselves.
            time.sleep(1.5)
        self.assertIn(len(locations), (1, 2))

    def test_nothing_of_the_client_is_in_the_address(self) -> None:
        """The signature covers the host and nothing else, and whoever follows needs to say nothing more."""
        word = "a-word-of-the-client"
        fields = {"Authorization": f"Bearer {word}", "Cookie": word, "User-Agent": word, "X-Amz-Meta-Word": word}
        sent = self.sent(self.proxy, SMALL, **fields, **{"X-Request-Id": word, "Accept": f"*/*;q={word}"})
        self.assertEqual(set(sent.parameters), SIGNATURE)
        self.assertEqual(sent.parameters["X-Amz-SignedHeaders"], "host")
        self.assertNotIn(word, sent.location)
        self.assertEqual(sent.get()[0], 200)
        self.assertEqual(self.sent(self.proxy, SMALL).location, sent.location)
        for one in self.house.private.news():
            self.assertFalse([name for name, value in one.headers.items() if word in value], one)

    def test_a_changed_address_is_refused(self) -> None:
        """Another object, a longer life, another method, or a signature that is not its own."""
        sent = self.sent(self.proxy, SMALL)
        other = self.house.path_of(LARGE.content.digest)
        changed = {
            "object": sent.location.replace(self.house.path_of(SMALL.content.digest), other),
            "life": sent.location.replace("X-Amz-Expires=900", "X-Amz-Expires=901"),
            "signature": sent.location[:-1] + ("0" if sent.location[-1] != "0" else "1"),
            "nothing": sent.location.partition("?")[0],
        }
        self.assertNotIn(sent.location, changed.values())
        self.assertEqual({what: follow(url)[0] for what, url in changed.items()}, dict.fromkeys(changed, 403))
        self.assertEqual([sent.get(method)[0] for method in ("PUT", "DELETE")], [403, 403])
        self.assertEqual(sent.get()[0], 200)

    def test_an_address_ends(self) -> None:
        """The product's own signer, with a life that a test can wait for."""
        house, key = self.house, self.house.key_of(SMALL.content.digest)
        url = signed(house.ceph.account, house.public.url, house.bucket.name, key, 4)
        self.assertEqual(follow(url)[0], 200)
        wait_until(lambda: follow(url)[0] == 403, 10, "the address has ended")

    def test_head_is_answered_here(self) -> None:
        """With the right length, no redirect, and nobody sent anywhere."""
        status, fields, body = self.ask(self.proxy, LARGE, "HEAD")
        self.assertEqual((status, fields["content-length"], body), (200, str(LARGE.content.size_bytes), b""))
        self.assertEqual(fields["docker-content-digest"], LARGE.content.digest)
        self.assertNotIn("location", fields)
        self.assertEqual((self.contents_asked(LARGE), self.house.public.news()), ([], []))


class AuthenticatedRedirectTests(AddressTestCase):
    """Whoever loses the right to an image has an address for two minutes at most (RULES D4)."""

    def test_no_store_and_two_minutes(self) -> None:
        """Each client is asked about."""
        proxy = self.start(mode="authenticated")
        self.fill(proxy, SMALL)
        sent = self.sent(proxy, SMALL)
        self.assertIn("no-store", sent.cache_control)
        self.assertNotIn("public", sent.cache_control)
        self.assertEqual((sent.life_s, sent.get()[0]), (120, 200))


class CarriedTests(AddressTestCase):
    """Who is not redirected gets the same bytes from the proxy."""

    def test_never(self) -> None:
        """``redirect: never``."""
        proxy = self.start(redirect="never")
        self.fill(proxy, SMALL, LARGE)
        for served in (SMALL, LARGE):
            self.assert_carried(proxy, served)
        self.assertEqual(proxy.complaints(), [])

    def test_only_what_is_large(self) -> None:
        """``redirect: ">1MiB"``."""
        proxy = self.start(redirect=">1MiB")
        self.fill(proxy, SMALL, LARGE)
        self.assert_carried(proxy, SMALL)
        self.assertTrue(self.sent(proxy, LARGE).get()[2] == LARGE.content.data())

    def test_networks_that_do_not_reach_the_bucket(self) -> None:
        """``no_redirect`` counts for the clients in it only."""
        inside, outside = self.start(no_redirect=["10.1.0.0/16", "127.0.0.0/8"]), self.start(no_redirect=["10.0.0.0/8"])
        self.fill(inside, LARGE)
        self.assert_carried(inside, LARGE)
        self.assertEqual(self.sent(outside, LARGE).get()[0], 200)
