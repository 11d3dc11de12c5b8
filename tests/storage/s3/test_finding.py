"""Finding: what is in a bucket, for whom, and how long that is believed."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from tests.doubles import FakeResponse
from tests.storage.s3.finding_case import DAY_S, OTHER, FindingCase
from tests.storage.s3.scripted import DIGEST, UNREACHABLE, Answer, refused
from txociproxy.oci.errors import StorageUnavailable
from txociproxy.storage.layout import BLOB_TYPE
from txociproxy.storage.s3.trouble import S3Trouble
from txociproxy.storage.shelf import MAX_SIDECAR_BYTES


class LookTests(FindingCase):
    """What is found, by what is there."""

    def test_nothing_is_a_miss(self) -> None:
        """And it is asked again each time."""
        for _ in range(2):
            self.assertIsNone(self.find())
            self.assertEqual(self.asked(), [f"HEAD {self.content}", f"GET {self.sidecar}", f"GET {self.held_sidecar}"])

    def test_open_content_is_found_by_all(self) -> None:
        """With what is said of it."""
        self.reading.publish()
        for namespace in ("docker.io", "ghcr.io", ""):
            found = self.found(namespace)
            self.assertEqual((found.descriptor.digest, found.descriptor.size_bytes), (DIGEST, 7))
            self.assertEqual((found.descriptor.media_type, found.namespace), ("text/plain", "docker.io"))
            self.assertEqual((found.headers, found.kept_at_s), ((("X-Origin", "west"),), 5.0))
            self.assertEqual(self.path(found), self.content)

    def test_content_of_no_bytes_is_found(self) -> None:
        """No length is also one."""
        self.reading.publish(b"")
        self.assertEqual(self.found().descriptor.size_bytes, 0)

    def test_open_content_of_which_nothing_is_said_is_found(self) -> None:
        """Missing, broken, failing, cut, too long: its type is not known, that is all."""
        cases: tuple[Answer, ...] = (
            refused(404, "NoSuchKey"),
            FakeResponse(200, {}, b"{broken", 7),
            refused(500, "InternalError"),
            FakeResponse(200, {}, b"x" * (MAX_SIDECAR_BYTES + 1), MAX_SIDECAR_BYTES + 1),
            FakeResponse(200, {"Content-Encoding": "gzip"}, b"x", 1),
        )
        for answer in cases:
            self.setUp()
            self.reading.publish()
            self.script(f"GET {self.sidecar}", answer)
            found = self.found()
            self.assertEqual(
                (found.descriptor.media_type, found.descriptor.size_bytes, found.headers, found.namespace),
                (BLOB_TYPE, 7, (), None),
            )

    def test_open_content_with_a_sidecar_that_is_cut_is_found(self) -> None:
        """As with one that is missing."""
        self.reading.publish()
        response = FakeResponse(200, {}, b"{", 50, ends=False)
        self.script(f"GET {self.sidecar}", response)
        d = self.begin()
        response.break_off()
        found = self.successResultOf(d)
        assert found is not None
        self.assertEqual(found.descriptor.media_type, BLOB_TYPE)

    def test_content_of_another_size_than_is_said_is_a_miss(self) -> None:
        """It was cut short, and will be published over."""
        for held in (None, ("docker.io",)):
            self.setUp()
            self.reading.publish(held=held)
            self.assertIsNotNone(self.find())
            self.objects.forget(DIGEST)
            self.s3.put(self.keys.content(DIGEST, held is not None), b"conten")
            self.assertIsNone(self.find())

    def test_a_sidecar_alone_is_a_miss(self) -> None:
        """Content is the one commit point."""
        for held in (None, ("docker.io",)):
            self.reading.publish(held=held)
            del self.s3.objects[self.keys.content(DIGEST, held is not None)]
        self.assertIsNone(self.find())

    def test_held_content_is_found_by_its_holders(self) -> None:
        """Nobody else learns of it (RULES D3)."""
        self.reading.publish(held=("docker.io", "quay.io"))
        for namespace, sees in (("docker.io", True), ("ghcr.io", False), ("quay.io", True), ("", False)):
            found = self.find(namespace)
            self.assertEqual(found is not None, sees, namespace)
            if found is not None:
                self.assertEqual(self.path(found), self.held)
                self.assertEqual(found.descriptor.media_type, "text/plain")

    def test_held_content_of_which_it_is_not_said_for_whom_is_found_by_nobody(self) -> None:
        """Whatever is lost or damaged hides it, and never opens it."""
        cases: tuple[Answer, ...] = (
            refused(404, "NoSuchKey"),
            refused(500, "InternalError"),
            FakeResponse(200, {}, b"{broken", 7),
            FakeResponse(200, {}, b'{"held": null}', 14),
            FakeResponse(200, {}, b'{"held": "docker.io"}', 21),
        )
        for answer in cases:
            self.setUp()
            self.reading.publish(held=("docker.io",))
            self.script(f"GET {self.held_sidecar}", answer)
            self.assertIsNone(self.find())

    def test_open_content_comes_first(self) -> None:
        """Also for those for whom it was held."""
        self.reading.publish(held=("docker.io",))
        self.reading.publish()
        self.assertEqual(self.path(self.found()), self.content)

    def test_open_content_that_is_cut_leaves_what_is_held(self) -> None:
        """For its holders."""
        self.reading.publish()
        self.reading.publish(held=("docker.io",))
        self.s3.put(self.content, b"")
        self.assertEqual(self.path(self.found()), self.held)
        self.assertIsNone(self.find("ghcr.io"))

    def test_what_is_opened_while_we_look_is_found(self) -> None:
        """The open name is made before the held one goes."""
        self.reading.publish(held=("docker.io",))
        self.s3.is_manual = True
        d = self.begin()
        self.s3.answer(f"HEAD {self.content}")
        self.s3.answer(f"GET {self.held_sidecar}")
        self.reading.publish()
        del self.s3.objects[self.held]
        self.s3.answer_all()
        found = self.successResultOf(d)
        assert found is not None
        self.assertEqual(self.path(found), self.content)

    def test_trouble_with_open_content_is_told(self) -> None:
        """Unless it is there for this namespace, held."""
        self.script(f"HEAD {self.content}", refused(500, "", "HEAD"))
        self.failureResultOf(self.begin(), StorageUnavailable)
        self.reading.publish(held=("docker.io",))
        self.assertEqual(self.path(self.found()), self.held)
        self.failureResultOf(self.begin("ghcr.io"), StorageUnavailable)

    def test_trouble_with_held_content_is_a_miss(self) -> None:
        """There is no open content, that is known."""
        self.reading.publish(held=("docker.io",))
        self.script(f"HEAD {self.held}", refused(500, "", "HEAD"))
        self.assertIsNone(self.find())

    def test_one_refusal_closes_the_gate_for_all(self) -> None:
        """And nothing more is asked."""
        self.script(f"GET {self.held_sidecar}", refused(403, "AccessDenied"))
        self.find()
        self.asked()
        self.assertEqual(self.failureResultOf(self.begin(), S3Trouble).value.kind, "refused")
        self.assertEqual(self.asked(), [])


class BeliefTests(FindingCase):
    """How long what was found is believed."""

    def test_a_hit_is_believed_for_a_second(self) -> None:
        """It needs no request meanwhile."""
        self.reading.publish()
        self.found()
        self.asked()
        self.clock.advance(1)
        self.found("ghcr.io")
        self.assertEqual(self.asked(), [])
        self.clock.advance(0.01)
        self.found()
        self.assertEqual(self.asked(), [f"HEAD {self.content}"])

    def test_what_is_said_of_open_content_is_believed_for_a_minute(self) -> None:
        """Only whether it is there is asked."""
        self.reading.publish()
        for at_s, asks in ((0, 3), (30, 1), (60, 1), (60.5, 0), (61.5, 3), (63, 1)):
            self.clock.advance(at_s - self.clock.seconds())
            self.assertEqual(self.found().descriptor.media_type, "text/plain")
            self.assertEqual(len(self.asked()), asks, f"at {at_s}")

    def test_what_is_not_said_is_not_believed(self) -> None:
        """Whoever publishes next says it."""
        self.reading.publish()
        del self.s3.objects[self.sidecar]
        self.assertEqual(self.found().descriptor.media_type, BLOB_TYPE)
        self.reading.publish()
        self.clock.advance(1.5)
        self.assertEqual(self.found().descriptor.media_type, "text/plain")

    def test_what_is_said_is_read_again_when_the_size_is_another(self) -> None:
        """It was published anew, by another proxy."""
        self.reading.publish(b"conten")
        self.found()
        self.reading.publish()
        self.clock.advance(1.5)
        self.assertEqual(self.found().descriptor.size_bytes, 7)

    def test_what_is_believed_of_open_content_hides_nothing_held(self) -> None:
        """Where it is gone, what is held is looked for."""
        self.reading.publish()
        self.found()
        self.s3.objects.clear()
        self.reading.publish(held=("docker.io",))
        self.clock.advance(1.5)
        self.assertEqual(self.path(self.found()), self.held)

    def test_a_held_hit_is_believed_by_its_holders_only(self) -> None:
        """Each other namespace asks, and so sees what has been opened meanwhile."""
        self.reading.publish(held=("docker.io",))
        self.found()
        self.asked()
        self.found()
        self.assertEqual(self.asked(), [])
        self.assertIsNone(self.find("ghcr.io"))
        self.assertEqual(len(self.asked()), 4)
        self.reading.publish()
        self.assertEqual(self.path(self.found("ghcr.io")), self.content)

    def test_what_another_namespace_finds_gone_is_gone_for_all(self) -> None:
        """Though its holders would have been believed for a moment longer."""
        self.reading.publish(held=("docker.io",))
        self.found()
        self.s3.objects.clear()
        self.assertIsNone(self.find("ghcr.io"))
        self.assertIsNone(self.find())

    def test_what_is_said_of_held_content_is_not_believed(self) -> None:
        """Who may see it is asked each time."""
        self.reading.publish(held=("docker.io",))
        self.found()
        self.reading.publish(held=("ghcr.io",))
        self.clock.advance(1.5)
        self.assertIsNone(self.find())

    def test_forgetting_asks_again(self) -> None:
        """Of one, or of all."""
        self.reading.publish()
        for forget in (lambda: self.objects.forget(DIGEST), self.objects.forget_all):
            self.found()
            self.asked()
            forget()
            self.found()
            self.assertEqual(len(self.asked()), 3)
        self.objects.forget(OTHER)
        self.found()
        self.assertEqual(self.asked(), [])

    def test_what_was_asked_before_it_was_forgotten_is_not_believed(self) -> None:
        """Nor is it what those are told who ask afterwards."""
        for forget in (lambda: self.objects.forget(DIGEST), lambda: self.objects.forget_all()):
            self.setUp()
            self.reading.publish()
            self.s3.is_manual = True
            before = self.begin()
            self.s3.answer_all()
            self.objects.forget(DIGEST)
            before = self.begin()
            self.s3.answer(f"HEAD {self.content}")
            forget()
            self.s3.objects.clear()
            after = self.begin()
            self.s3.answer_all()
            self.assertIsNone(self.successResultOf(after))
            self.assertIsNotNone(self.successResultOf(before))
            again = self.begin()
            self.s3.answer_all()
            self.assertIsNone(self.successResultOf(again))

    def test_a_hit_is_told_within_a_second(self) -> None:
        """What is said of it may take longer; then it is looked at once more."""
        for is_gone in (False, True):
            self.setUp()
            self.reading.publish()
            self.s3.is_manual = True
            d = self.begin()
            self.s3.answer(f"HEAD {self.content}")
            if is_gone:
                del self.s3.objects[self.content]
            self.clock.advance(1.5)
            self.s3.answer_all()
            self.assertEqual(self.successResultOf(d) is None, is_gone)

    def test_an_outage_ends_all_belief(self) -> None:
        """Nothing is handed out that clients cannot reach; afterwards it is asked anew."""
        self.reading.publish()
        found = self.found()
        self.gate.failed(UNREACHABLE)
        self.failureResultOf(self.begin(), S3Trouble)
        self.assertRaises(StorageUnavailable, found.place.address)
        self.asked()
        self.clock.advance(1)
        self.assertTrue(self.gate.is_open)
        self.found()
        self.assertEqual(len(self.asked()), 3)

    def test_tables_are_bounded(self) -> None:
        """Ten thousand and no more; what was put in first makes room."""
        own = self.objects
        tables: list[OrderedDict[Any, Any]] = [own._believed, own._sidecars, own._renewed_s, own._addresses._signed]
        for table in tables:
            table.update((number, None) for number in range(10_000))
        self.reading.publish(age_s=20 * DAY_S)
        self.found().place.address()
        self.assertEqual([(len(table), 0 in table, 1 in table) for table in tables], [(10_000, False, True)] * 4)
