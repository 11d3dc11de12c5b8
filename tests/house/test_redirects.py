"""Content that lies elsewhere, as a client sees it: the exact bytes of a redirect, and what comes from here."""

from __future__ import annotations

from attrs import evolve
from twisted.logger import ILogObserver, LogEvent, formatEventAsClassicLogText, globalLogPublisher
from zope.interface import provider

from tests.cache.far_case import CARRIED, DATA, TOTAL, FarCase
from tests.cache.house import manifest
from tests.house.test_paths import Door
from tests.web.doubles import Answer, Line
from txociproxy.admissions import Admissions
from txociproxy.asking import Asking
from txociproxy.modes import Authenticated
from txociproxy.oci.manifests import OCI_MANIFEST
from txociproxy.web.site import Census, DoorLimits, DoorSite

ONE = manifest("one")


class RedirectPathTests(FarCase):
    """A house whose storage has a blob and a manifest elsewhere; the upstream has them too."""

    def setUp(self) -> None:
        """Open the door."""
        super().setUp()
        self.digest = self.far.put(DATA, headers=(("X-Kept", "never on a redirect"),))
        self.manifest = self.far.put(ONE, OCI_MANIFEST)
        self.hub.add(DATA)
        self.hub.add(ONE)
        self.path = f"/v2/library/alpine/blobs/{self.digest}"
        self.door = Door(self.core, self)

    def raw(self, *fields: str) -> str:
        """Return the bytes of an answer on a connection, without its date."""
        site = DoorSite(self.door.root, self.clock, Census(DoorLimits()))
        head = "\r\n".join((f"GET {self.path} HTTP/1.1", "Host: cache.example", "X-Request-Id: r", *fields))
        told = Line(site=site).send(f"{head}\r\n\r\n".encode()).decode()
        return "".join(line for line in told.splitlines(keepends=True) if not line.startswith("Date: "))

    def expected(self, control: str) -> str:
        """Return what a redirect looks like."""
        return "\r\n".join(
            (
                "HTTP/1.1 307 Temporary Redirect",
                "Content-Length: 0",
                f"Location: https://bucket.test/{self.digest.hex}?signature=secret",
                f"Docker-Content-Digest: {self.digest}",
                f"Cache-Control: {control}",
                "Docker-Distribution-Api-Version: registry/2.0",
                "Cache-Status: txociproxy; hit; detail=redirect",
                "X-Request-Id: r",
                "\r\n",
            )
        )

    def sorted_fields(self, text: str) -> list[str]:
        """Return the lines in an order that does not matter; a body would be one of them."""
        return sorted(text.split("\r\n"), key=str.lower)

    def test_a_redirect_is_exactly_this(self) -> None:
        """No body, no kept field, nothing of the blob but its digest; for the whole and for a part."""
        expected = self.sorted_fields(self.expected("private, max-age=890"))
        self.assertEqual(self.sorted_fields(self.raw()), expected)
        self.assertEqual(self.sorted_fields(self.raw("Range: bytes=0-9")), expected)
        self.asked()

    def test_who_is_admitted_gets_one_that_nobody_keeps(self) -> None:
        """In authenticated mode, after the upstream's own yes."""
        asking = Asking(self.registry, self.clock, True)
        mode = Authenticated(asking, Admissions(self.clock.seconds, 0.0, b"k" * 32))
        self.door = Door(self.build(self.rules, self.far, mode), self)
        self.assertEqual(self.sorted_fields(self.raw()), self.sorted_fields(self.expected("no-store")))
        self.asked(f"HEAD {self.digest}")

    def test_who_has_it_already_is_sent_nowhere(self) -> None:
        """304 before any redirect."""
        answer = self.fetch("GET", ("If-None-Match", f'"{self.digest}"'))
        self.assertEqual((answer.status, answer.get("Location"), answer.get("ETag")), (304, None, f'"{self.digest}"'))
        self.far.unsigned = True
        self.assertEqual(self.fetch("GET", ("If-None-Match", "*")).status, 304)
        self.asked()

    def fetch(self, method: str, *fields: tuple[str, str]) -> Answer:
        """Ask for the blob."""
        return self.door.ask(method, self.path, *fields)

    def test_a_head_has_the_fields_of_the_blob(self) -> None:
        """And no address."""
        answer = self.fetch("HEAD")
        self.assertEqual((answer.status, answer.get("Location")), (200, None))
        self.assertEqual(answer.get("Content-Length"), str(TOTAL))
        self.assertEqual(answer.get("Content-Type"), "application/octet-stream")
        self.assertEqual(answer.get("Docker-Content-Digest"), str(self.digest))
        self.asked()

    def test_a_manifest_is_never_a_redirect(self) -> None:
        """It comes from here, by digest."""
        answer = self.door.ask("GET", f"/v2/library/alpine/manifests/{self.manifest}")
        self.assertEqual((answer.status, answer.body, answer.get("Location")), (200, ONE, None))
        self.assertEqual(answer.get("Content-Type"), OCI_MANIFEST)
        self.asked()

    def test_a_carried_blob_looks_like_one_that_is_here(self) -> None:
        """Whole, a part, and a part beyond the end."""
        rules = evolve(self.rules, redirects=CARRIED)
        self.door = Door(self.build(rules, self.far), self)
        whole = self.fetch("GET")
        self.assertEqual((whole.status, whole.body, whole.get("Content-Length")), (200, DATA, str(TOTAL)))
        self.assertEqual((whole.get("ETag"), whole.get("Last-Modified")), (f'"{self.digest}"', None))
        self.assertEqual(whole.get("X-Kept"), "never on a redirect")
        part = self.fetch("GET", ("Range", "bytes=10-19"))
        self.assertEqual((part.status, part.body), (206, DATA[10:20]))
        self.assertEqual(part.get("Content-Range"), f"bytes 10-19/{TOTAL}")
        beyond = self.fetch("GET", ("Range", f"bytes={TOTAL}-"))
        self.assertEqual((beyond.status, beyond.get("Content-Range")), (416, f"bytes */{TOTAL}"))
        self.asked()
        self.assert_at_rest()

    def test_without_storage_and_upstream_there_is_502(self) -> None:
        """As for a miss; never an error of the storage."""
        self.far.unsigned = self.hub.down = True
        answer = self.fetch("GET")
        self.assertEqual((answer.status, answer.error()), (502, "UNAVAILABLE"))

    def test_the_log_has_the_pull_and_not_the_signature(self) -> None:
        """RULES A6; with the outcome of a hit."""
        lines: list[str] = []

        @provider(ILogObserver)
        def observe(event: LogEvent) -> None:
            lines.append(f"{formatEventAsClassicLogText(event)} {event}")

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        self.fetch("GET")
        pulls = [line for line in lines if "'outcome': 'hit'" in line and "'status': 307" in line]
        self.assertEqual(len(pulls), 1)
        self.assertNotIn("signature", "".join(lines))
