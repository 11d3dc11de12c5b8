"""Places: where content of a bucket is had, and what keeps it there."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred
from zope.interface.verify import verifyObject

from tests.doubles import FakeResponse
from tests.storage.s3.finding_case import DAY_S, FindingCase
from tests.storage.s3.scripted import DIGEST, NOW_S, PATIENCE_S, REFUSED, Reading
from txociproxy.interfaces import IPlace
from txociproxy.oci.errors import StorageUnavailable
from txociproxy.oci.names import Digest
from txociproxy.storage.s3.settings import S3Settings


class PlaceTests(FindingCase):
    """Where content is had."""

    def setUp(self) -> None:
        """There is some."""
        super().setUp()
        self.reading.publish()

    def test_it_is_a_place(self) -> None:
        """As the core knows it."""
        verifyObject(IPlace, self.found().place)

    def test_an_address_is_public_and_lives_as_long_as_it_says(self) -> None:
        """It is the whole of the right to read."""
        address = self.found().place.address()
        self.assertTrue(address.url.startswith(f"https://public.test/bucket/{self.content}?"))
        self.assertIn("X-Amz-Expires=900&", address.url)
        self.assertEqual(address.expires_s, 900)

    def test_all_clients_of_a_minute_get_the_same_address(self) -> None:
        """One signature; each is told what remains of it."""
        self.found()
        signed = self.reading.signer.count
        first = self.found().place.address()
        self.clock.advance(0.5)
        again = self.found("ghcr.io").place.address()
        self.assertEqual((again.url, again.expires_s), (first.url, 899.5))
        self.assertEqual(self.reading.signer.count, signed + 1)
        self.clock.advance(59.4)
        place, signed = self.found().place, self.reading.signer.count
        self.assertEqual((place.address().url, round(place.address().expires_s, 1)), (first.url, 840.1))
        self.assertEqual(self.reading.signer.count, signed)
        self.clock.advance(0.2)
        self.assertGreater(place.address().expires_s, 899)
        self.assertNotEqual(place.address().url, first.url)
        self.assertEqual(self.reading.signer.count, signed + 1)

    def test_each_object_has_an_address_of_its_own(self) -> None:
        """Also the same content, open and held."""
        first = self.found().place.address()
        self.s3.objects.clear()
        self.objects.forget(DIGEST)
        self.reading.publish(held=("docker.io",))
        second = self.found().place.address()
        self.assertIn(self.held, second.url)
        self.assertNotEqual(first.url, second.url)

    def test_a_short_address_is_not_handed_out_when_it_is_half_over(self) -> None:
        """A client needs time to use it."""
        self.use(Reading(S3Settings(patience_s=PATIENCE_S, url_life_s=20)))
        self.reading.publish()
        place = self.found().place
        url = place.address().url
        self.clock.advance(9.9)
        self.assertEqual(place.address().url, url)
        self.clock.advance(0.1)
        self.assertEqual(place.address().expires_s, 20)

    def test_an_address_lives_no_longer_than_the_credentials(self) -> None:
        """And there is none when they have ended."""
        self.reading.identity = evolve(self.reading.identity, ends_at_s=NOW_S + 100)
        self.reading.signer.refresh()
        place = self.found().place
        self.assertEqual(place.address().expires_s, 100)
        self.clock.advance(40)
        self.assertEqual(place.address().expires_s, 60)
        self.clock.advance(60)
        self.assertRaises(StorageUnavailable, place.address)

    def test_an_outage_forgets_the_addresses(self) -> None:
        """The credentials may be others afterwards."""
        place = self.found().place
        url = place.address().url
        self.gate.failed(REFUSED)
        self.clock.advance(1)
        self.assertNotEqual(place.address().url, url)

    def read(self, place: IPlace, byte_range: str | None) -> Deferred[Any]:
        """Begin to read."""

        async def wait(reading: Awaitable[Any]) -> Any:
            return await reading

        return Deferred.fromCoroutine(wait(place.read(byte_range)))

    def test_it_is_read_by_ourselves_over_the_inner_address(self) -> None:
        """Whole or in part."""
        place = self.found().place
        self.asked()
        self.assertEqual(self.successResultOf(self.read(place, None)).code, 200)
        self.assertEqual(self.successResultOf(self.read(place, "bytes=3-")).length, 4)
        self.assertTrue(self.s3.asked[0].url.startswith("http://s3.test/"))
        self.assertEqual(self.asked(), [f"GET {self.content}"] * 2)

    def test_what_is_not_as_it_was_found_is_no_longer_believed(self) -> None:
        """Gone, or of another size."""
        for data in (None, b"conten"):
            self.setUp()
            place = self.found().place
            self.s3.objects.pop(self.content)
            if data is not None:
                self.s3.put(self.content, data)
            self.failureResultOf(self.read(place, None), StorageUnavailable)
            self.assertIsNone(self.find())

    def test_addresses_are_not_printed(self) -> None:
        """They are the right to read."""
        place = self.found().place
        address = place.address()
        for value in (address, place, self.objects, self.objects._addresses, self.found()):
            self.assertFalse("X-Amz" in repr(value), type(value))


class RenewalTests(FindingCase):
    """What is asked for outlives the lifecycle (RULES G4)."""

    def renewed(self, age_s: float, days: int = 28, held: tuple[str, ...] | None = None) -> list[tuple[Digest, bool]]:
        """Return what is renewed after a hit on content of that age."""
        self.use(Reading(S3Settings(patience_s=PATIENCE_S, lifecycle_days=days)))
        self.reading.publish(age_s=age_s, held=held)
        self.found()
        return self.reading.renewals

    def test_what_is_older_than_half_the_lifecycle_is_renewed(self) -> None:
        """By the server's clock, open or held."""
        self.assertEqual(self.renewed(14 * DAY_S), [])
        self.assertEqual(self.renewed(14 * DAY_S + 1), [(DIGEST, False)])
        self.assertEqual(self.renewed(15 * DAY_S, held=("docker.io",)), [(DIGEST, True)])
        self.assertEqual(self.renewed(15 * DAY_S, days=0), [])

    def test_it_is_renewed_once(self) -> None:
        """However often it is hit; but once more if that did not help."""
        self.renewed(15 * DAY_S)
        for _ in range(3):
            self.found()
            self.clock.advance(1.5)
            self.found("ghcr.io")
        self.assertEqual(len(self.reading.renewals), 1)
        self.clock.advance(3600)
        self.found()
        self.assertEqual(len(self.reading.renewals), 2)

    def test_an_unknown_age_is_none(self) -> None:
        """It is not renewed at each hit."""
        self.reading.publish()
        self.script(f"HEAD {self.content}", FakeResponse(200, {"Content-Length": "7"}, b"", 0))
        self.found()
        self.assertEqual(self.reading.renewals, [])
