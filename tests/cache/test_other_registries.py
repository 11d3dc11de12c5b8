"""What a registry says counts for what is its own: its yes, and its word for a type (RULES D1, D3, E3)."""

from __future__ import annotations

import json

from attrs import evolve

from tests.cache.house import CacheCase, content
from tests.cache.test_authenticated import ALICE, BLOB, MALLORY, MANIFEST, AuthenticatedCase
from tests.doubles import FakeResponse, Request
from txociproxy.interfaces import Ask, Relay, Serve
from txociproxy.oci.manifests import OCI_INDEX, OCI_MANIFEST
from txociproxy.oci.names import Digest

# Without a mediaType of its own, as many tools still write it.
PLAIN = json.dumps({"schemaVersion": 2, "config": {}, "layers": []}).encode()


class BorrowedYesTests(AuthenticatedCase):
    """Authenticated mode: docker.io's private content, and a registry that admits everybody to everything."""

    def setUp(self) -> None:
        """Alice has pulled a private blob and a private tag."""
        super().setUp()
        self.get(self.blob())
        self.get(self.tag())
        self.private = Digest.of(MANIFEST)

    def elsewhere(self, ask: Ask) -> Ask:
        """Return the same ask of the other registry, as nobody."""
        pull = evolve(ask.pull, namespace="evil.example")
        return evolve(ask, pull=pull, credentials=evolve(ask.credentials, authorization=None))

    def yes(self, request: Request) -> FakeResponse:
        """Say yes to each HEAD, and have nothing."""
        if request.method == "HEAD":
            return FakeResponse(200, {"Docker-Content-Digest": str(self.private), "Content-Type": OCI_INDEX}, b"")
        return FakeResponse(404, {}, b"")

    def test_another_registry_s_yes_opens_nothing(self) -> None:
        """By digest, blob and manifest, and by a tag that is said to mean it: what is not its own it must send."""
        self.other_asked.script = self.yes
        for ask in (self.blob(), self.ask(self.private), self.tag()):
            answer = self.pull(self.elsewhere(ask))
            assert isinstance(answer, Relay), type(answer)
            self.assertEqual(answer.status, 404)

    def test_nor_a_part_of_it(self) -> None:
        """A range is as good as the whole to who comes twice."""
        self.other_asked.script = self.yes
        ask = self.ask(self.digest, kind="blob", namespace="evil.example", byte_range="bytes=0-9")
        self.assertEqual(self.relayed(ask).status, 404)

    def test_its_own_registry_gives_it_to_all_whom_it_admits(self) -> None:
        """It is kept once for everybody there."""
        self.hub.refuses = {}
        for who in (ALICE, MALLORY, None):
            self.assertEqual(self.get(self.blob(who)), ("hit", BLOB))

    def test_what_anybody_may_fetch_is_kept_for_all_registries(self) -> None:
        """Content that came in nobody's name is no secret."""
        self.hub.refuses = {}
        digest = self.hub.add(content(300_000, seed=2))
        self.get(self.ask(digest, kind="blob"))
        self.other_asked.script = self.yes
        served = self.served(self.ask(digest, kind="blob", namespace="evil.example"))
        self.assertEqual((served.outcome, len(self.bytes_of(served))), ("hit", 300_000))


class BorrowedTypeTests(CacheCase):
    """A manifest that does not say what it is, fetched from a registry that calls it something else."""

    def test_another_registry_s_word_for_a_type_is_not_passed_on(self) -> None:
        """docker.io's clients get the type that the bytes tell; the registry's own get its own word."""
        digest = self.hub.add(PLAIN)
        self.other.add(PLAIN)
        self.other.fields = {"Content-Type": OCI_INDEX}
        self.assertEqual(self.type_of(self.ask(digest, namespace="evil.example")), ("miss", OCI_INDEX))
        self.clock.advance(1)
        self.assertEqual(self.type_of(self.ask(digest)), ("hit", OCI_MANIFEST))
        self.assertEqual(self.type_of(self.ask(digest, namespace="evil.example")), ("hit", OCI_INDEX))

    def type_of(self, ask: Ask) -> tuple[str, str]:
        """Pull; returns the outcome and the type."""
        serve: Serve = self.served(ask)
        self.assertEqual(self.bytes_of(serve), PLAIN)
        return serve.outcome, serve.descriptor.media_type
