"""Manifests by digest: outcome, bytes, and the exact list of upstream requests (RULES E3)."""

from __future__ import annotations

from attrs import define, field
from twisted.internet.defer import Deferred, succeed

from tests.cache.house import MANIFEST_CLASS, CacheCase, content, manifest
from tests.cache.troubled import TroubledStorage
from tests.doubles import FakeResponse
from txociproxy.bodies.lending import MemoryBody
from txociproxy.interfaces import Local, Relay
from txociproxy.manifests import KEEP_S, MAX_FRESH_BYTES
from txociproxy.oci.errors import OCIError, UpstreamUnreachable
from txociproxy.oci.manifests import OCI_INDEX
from txociproxy.oci.names import Descriptor, Digest
from txociproxy.storage.memory import MemoryStorage

SMALL = content(1000)
BIG = content(200_000)
IMMUTABLE = "public, max-age=31536000, immutable"


@define(eq=False)
class Stuck(MemoryBody):
    """A body on a disk that does not answer."""

    closed: bool = field(default=False, kw_only=True)

    def read_at(self, offset_bytes: int, max_bytes: int) -> bytes:
        """Nothing comes."""
        return b""

    def _let_go(self) -> None:
        self.closed = True


@define(eq=False)
class OneBodyStorage(MemoryStorage):
    """A store that has one body, once, and knows nothing of it."""

    body: MemoryBody = field(kw_only=True)
    digest: Digest = field(kw_only=True)

    def find(self, digest: Digest, namespace: str) -> Deferred[Local | None]:
        """Return the body."""
        descriptor = Descriptor(self.digest, self.body.size_bytes, "application/octet-stream")
        return succeed(Local(descriptor, (), namespace, self.body))


class ManifestTests(CacheCase):
    """Manifests by digest."""

    def test_a_miss_is_fetched_once_and_then_a_hit(self) -> None:
        """With its own type; by digest Accept is not judged (RULES E7)."""
        data = manifest("one", OCI_INDEX)
        digest = self.hub.add(data)
        for outcome in ("miss", "hit"):
            serve = self.served(self.ask(digest, accept=MANIFEST_CLASS))
            self.assertEqual((serve.outcome, serve.descriptor.media_type), (outcome, OCI_INDEX))
            self.assertEqual((serve.cache_control, serve.vary_accept), (IMMUTABLE, False))
            self.assertEqual(self.bytes_of(serve), data)
        self.asked(f"GET {digest}")
        self.assert_at_rest()

    def test_a_head_of_what_is_not_kept_is_a_head(self) -> None:
        """And of what is kept needs nobody."""
        data = manifest("one", OCI_INDEX)
        digest = self.hub.add(data)
        head = self.served(self.ask(digest, "HEAD"))
        self.assertEqual((head.outcome, head.descriptor.media_type), ("relay", OCI_INDEX))
        self.asked(f"HEAD {digest}")
        self.get(self.ask(digest))
        self.asked(f"GET {digest}")
        head = self.served(self.ask(digest, "HEAD"))
        self.assertEqual((head.outcome, head.body, head.descriptor.size_bytes), ("hit", None, len(data)))
        self.asked()

    def test_many_at_once_share_one_ask(self) -> None:
        """One miss, the others join."""
        digest = self.hub.add(manifest("one"))
        self.hub.holding = True
        waiting = [self.begin(self.ask(digest)) for _ in range(8)]
        self.hub.answer()
        self.assertEqual([self.serve_of(d).outcome for d in waiting], ["miss"] + ["join"] * 7)
        self.asked(f"GET {digest}")

    def test_what_is_no_manifest_is_asked_for_once_more_and_then_an_error(self) -> None:
        """Wrong digest, a page, too long: 502 MANIFEST_INVALID, nothing kept (RULES E3)."""
        digest = self.hub.add(manifest("one"))
        pages = (manifest("two"), b"<html>sign in</html>", b"{" + b" " * (4 * 1024 * 1024) + b"}")
        for page in pages:
            self.hub.content[str(digest)] = page
            error = self.failureResultOf(self.begin(self.ask(digest)), OCIError).value
            self.assertEqual((error.code, error.status), ("MANIFEST_INVALID", 502))
            self.asked(f"GET {digest}", f"GET {digest}")
        no_manifest = self.hub.add(b"a blob")
        self.failureResultOf(self.begin(self.ask(no_manifest)), OCIError)
        self.assertEqual(self.storage.content, {})
        self.hub.add(manifest("one"))
        self.assertEqual(self.get(self.ask(digest))[0], "miss")
        self.assert_at_rest()

    def test_wrong_bytes_once_are_not_noticed(self) -> None:
        """Also a body that broke off."""
        data = manifest("one")
        digest = Digest.of(data)
        for wrong in (manifest("two"), data[:-1], None):
            broken = FakeResponse(200, {}, data[:5], ends=False)
            answers = [broken if wrong is None else FakeResponse(200, {}, wrong), FakeResponse(200, {}, data)]
            self.hub_asked.script = lambda _, answers=answers: answers.pop(0)  # type: ignore[misc]
            d = self.begin(self.ask(digest))
            broken.break_off()
            self.assertEqual(self.bytes_of(self.serve_of(d)), data)
            self.asked(f"GET {digest}", f"GET {digest}")
            self.storage.content.clear()

    def test_an_old_manifest_is_relayed_and_not_kept(self) -> None:
        """Schema1: its digest is not the hash of its bytes (RULES E3)."""
        data = b'{"schemaVersion": 1, "signatures": []}'
        self.hub.tag("old", data)
        digest = Digest.of(b"something else")
        self.hub.content[str(digest)] = data
        for reference in (digest, "old"):
            relay = self.relayed(self.ask(reference))
            self.assertEqual((relay.status, relay.body), (200, data))
        self.assertEqual(self.storage.content, {})

    def test_content_that_is_no_manifest_is_no_manifest_hit(self) -> None:
        """It was kept as a blob; upstream is asked (RULES E3)."""
        digest = self.hub.add(BIG)
        self.get(self.ask(digest, kind="blob"))
        del self.hub.content[str(digest)]
        self.assertEqual(self.relayed(self.ask(digest)).status, 404)
        self.asked(f"GET {digest}", f"GET {digest}")

    def test_a_manifest_that_was_fetched_as_a_blob_is_a_manifest_hit(self) -> None:
        """With its own type."""
        digest = self.hub.add(manifest("one", OCI_INDEX))
        self.get(self.ask(digest, kind="blob"))
        serve = self.served(self.ask(digest))
        self.assertEqual((serve.outcome, serve.descriptor.media_type), ("hit", OCI_INDEX))
        self.asked(f"GET {digest}")

    def test_a_silent_upstream_is_no_answer(self) -> None:
        """Twice the silence is all that is waited for."""
        digest = Digest.of(manifest("one"))
        self.hub_asked.script = lambda _: FakeResponse(200, {}, b"{", ends=False)
        d = self.begin(self.ask(digest))
        self.clock.advance(31)
        self.clock.advance(31)
        self.assertTrue(self.failureResultOf(d, UpstreamUnreachable).value.timed_out)
        self.assert_at_rest()

    def test_a_kept_one_that_the_disk_does_not_give_is_a_miss(self) -> None:
        """It has no type of its own beside it, so that it would have to be read first."""
        data = manifest("one")
        digest = self.hub.add(data)
        body = Stuck(data, promised=1)
        self.build(self.rules, OneBodyStorage(body=body, digest=digest))
        d = self.begin(self.ask(digest))
        self.assertNoResult(d)
        self.clock.advance(10)
        self.assertEqual(self.bytes_of(self.serve_of(d)), data)
        self.assertTrue(body.closed)
        self.asked(f"GET {digest}")

    def test_a_storage_that_lags_holds_no_more_than_a_bound_of_them_in_memory(self) -> None:
        """Those beyond it are answered and not kept."""
        trouble = TroubledStorage(holds_commits=True)
        self.build(self.rules, trouble)
        big = [manifest("x" * 3_900_000 + str(number)) for number in range(MAX_FRESH_BYTES // 3_900_000 + 2)]
        outcomes = [self.get(self.ask(self.hub.add(data)))[0] for data in big]
        self.assertEqual((outcomes[0], outcomes[-1]), ("miss", "bypass"))
        self.assertLessEqual(sum(outcome == "miss" for outcome in outcomes) * 3_900_000, MAX_FRESH_BYTES)
        self.clock.advance(KEEP_S)
        self.assert_at_rest()

    def test_refusals_are_each_client_s_own(self) -> None:
        """After one client's 401 the next asks with what he has (law 7)."""
        digest = self.hub.add(manifest("one"))
        self.hub.refuses = {None: 401}
        self.hub.holding = True
        first = self.begin(self.ask(digest))
        second = self.begin(self.ask(digest, authorization="Bearer good"))
        third = self.begin(self.ask(digest))
        self.hub.answer()
        refusal = self.successResultOf(first)
        assert isinstance(refusal, Relay)
        self.assertEqual(refusal.status, 401)
        self.hub.answer()
        self.assertEqual([self.serve_of(d).outcome for d in (second, third)], ["miss", "join"])
        self.assertEqual([r.authorization for r in self.hub_asked.requests], [None, "Bearer good"])
