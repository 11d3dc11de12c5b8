"""Each path of a pull, asked as a client asks, with the exact list of requests that reach the upstream."""

from __future__ import annotations

import treq
from attrs import evolve
from treq.testing import RequestTraversalAgent
from twisted.web.iweb import IResponse

from tests.cache.house import CacheCase, content, manifest
from tests.doubles import FakeResponse, Request
from tests.web.doubles import KEY, Answer, Registry, result_of
from txociproxy.assembly import Core, CoreRules
from txociproxy.envelopes import Envelopes
from txociproxy.meanings import TagRules
from txociproxy.oci.manifests import OCI_INDEX
from txociproxy.oci.names import Digest
from txociproxy.parts import RangeRules
from txociproxy.upstreams.entries.table import LiveTable, UpstreamTable, shipped_entries
from txociproxy.web.making import make_root
from txociproxy.web.settings import WebSettings

BLOB = content(300_000)
MANIFEST = manifest("one", OCI_INDEX)
NEXT = manifest("two", OCI_INDEX)


class Door(Registry):
    """The door of a core."""

    def __init__(self, core: Core, case: CacheCase) -> None:
        self.clock = case.clock
        table = LiveTable(UpstreamTable(shipped_entries(), "docker.io"))
        envelopes = Envelopes(KEY, self.clock.seconds)
        self.root = make_root(self.clock, core.cache, table, envelopes, WebSettings())
        self.agent = RequestTraversalAgent(self.root)


class PathCase(CacheCase):
    """A client at the door of a house whose only upstream is scripted."""

    rules = CoreRules(
        tags=TagRules(keep_latest=True, fresh_s=3600.0), ranges=RangeRules(near_bytes=50_000, small_bytes=10_000)
    )

    def setUp(self) -> None:
        """Open the door."""
        super().setUp()
        self.door = Door(self.core, self)

    def blob(self, digest: Digest, *fields: tuple[str, str], method: str = "GET") -> Answer:
        """Ask for a blob."""
        return self.door.ask(method, f"/v2/library/alpine/blobs/{digest}", *fields)

    def manifest(self, reference: object, *fields: tuple[str, str], method: str = "GET") -> Answer:
        """Ask for a manifest."""
        return self.door.ask(method, f"/v2/library/alpine/manifests/{reference}", *fields)


class BlobPathTests(PathCase):
    """Blobs."""

    def setUp(self) -> None:
        """Upstream has one."""
        super().setUp()
        self.digest = self.hub.add(BLOB)

    def test_miss_then_hit(self) -> None:
        """One GET, and none any more; the answers are the same."""
        miss = self.blob(self.digest)
        self.asked(f"GET {self.digest}")
        self.hub.down = True
        hit = self.blob(self.digest)
        self.asked()
        for answer in (miss, hit):
            self.assertEqual((answer.status, answer.body), (200, BLOB))
            self.assertEqual(answer.get("Docker-Content-Digest"), str(self.digest))
            self.assertEqual(answer.get("Content-Length"), str(len(BLOB)))
            self.assertEqual(answer.get("ETag"), f'"{self.digest}"')
        self.assert_at_rest()

    def test_head_of_what_is_not_kept_and_of_what_is(self) -> None:
        """A HEAD is a HEAD upstream, and nothing once it is kept."""
        cold = self.blob(self.digest, method="HEAD")
        self.asked(f"HEAD {self.digest}")
        self.blob(self.digest)
        self.hub_asked.requests.clear()
        warm = self.blob(self.digest, method="HEAD")
        self.asked()
        for answer in (cold, warm):
            self.assertEqual((answer.status, answer.get("Content-Length"), answer.body), (200, str(len(BLOB)), b""))

    def test_a_storm_is_one_request(self) -> None:
        """Those who come before the answer, in the middle of the body, and at its end."""
        self.hub.holding = self.hub.by_hand = True
        url = f"http://cache.example/v2/library/alpine/blobs/{self.digest}".encode()
        early = [self.door.agent.request(b"GET", url) for _ in range(8)]
        self.door.agent.flush()
        self.hub.answer()
        upstream = self.hub.sent[0]
        upstream.send(BLOB[:150_000])
        late = [self.door.agent.request(b"GET", url) for _ in range(8)]
        self.door.agent.flush()
        upstream.send(BLOB[150_000:])
        upstream.end()
        bodies = [self.body_of(result_of(d)) for d in early + late]
        self.assertEqual(set(bodies), {BLOB})
        self.asked(f"GET {self.digest}")
        self.assert_at_rest()

    def body_of(self, response: IResponse) -> bytes:
        """Read an answer that came in pieces."""
        collected = treq.content(response)
        for _ in range(100):
            if collected.called:
                break
            self.door.agent.flush()
            self.clock.advance(0)
        return bytes(result_of(collected))

    def test_ranges_of_what_is_not_kept(self) -> None:
        """Far and last parts are asked for by themselves; what begins near is read from the whole download."""
        far = self.blob(self.digest, ("Range", "bytes=200000-200999"))
        self.assertEqual((far.status, far.body), (206, BLOB[200_000:201_000]))
        self.assertEqual(far.get("Content-Range"), f"bytes 200000-200999/{len(BLOB)}")
        last = self.blob(self.digest, ("Range", "bytes=-5"))
        self.assertEqual((last.status, last.body), (206, BLOB[-5:]))
        beyond = self.blob(self.digest, ("Range", f"bytes={len(BLOB)}-"))
        self.assertEqual((beyond.status, beyond.get("Content-Range")), (416, f"bytes */{len(BLOB)}"))
        self.asked(*(f"GET {self.digest} bytes={part}" for part in ("200000-200999", "-5", f"{len(BLOB)}-")))
        near = self.blob(self.digest, ("Range", "bytes=1000-"))
        self.assertEqual((near.status, near.body), (206, BLOB[1000:]))
        self.asked(f"GET {self.digest}")
        again = self.blob(self.digest, ("Range", "bytes=200000-200999"))
        self.assertEqual((again.status, again.body), (206, far.body))
        self.asked()
        self.assert_at_rest()

    def test_a_break_is_mended(self) -> None:
        """The rest is asked for, and the client sees one whole body."""
        whole = self.hub.script

        def breaking(request: Request) -> object:
            response = whole(request)
            assert isinstance(response, FakeResponse)
            if request.byte_range is None:
                response = evolve(response, body=BLOB[:100_000], length=len(BLOB), ends=False)
                self.clock.callLater(0, response.break_off)
            return response

        self.hub_asked.script = breaking  # type: ignore[assignment]
        url = f"http://cache.example/v2/library/alpine/blobs/{self.digest}".encode()
        answer = self.door.agent.request(b"GET", url)
        self.door.agent.flush()
        self.clock.advance(0)
        self.assertEqual(self.body_of(result_of(answer)), BLOB)
        self.asked(f"GET {self.digest}", f"GET {self.digest} bytes=100000-")
        self.assert_at_rest()

    def test_a_refusal_is_relayed_each_time(self) -> None:
        """Nothing of it is kept."""
        for self.hub.status, told in ((404, 404), (429, 429), (500, 502)):
            self.assertEqual(self.blob(self.digest).status, told)
            self.assertEqual(self.blob(self.digest).status, told)
            self.asked(f"GET {self.digest}", f"GET {self.digest}")

    def test_an_upstream_that_is_gone_is_502(self) -> None:
        """In the words of the spec."""
        self.hub.down = True
        answer = self.blob(self.digest)
        self.assertEqual((answer.status, answer.error()), (502, "UNAVAILABLE"))
        self.asked(f"GET {self.digest}")


class TagPathTests(PathCase):
    """Tags, and the manifests that they mean."""

    def setUp(self) -> None:
        """Upstream has a tag."""
        super().setUp()
        self.digest = self.hub.tag("v1", MANIFEST)

    def test_a_tag_is_believed_confirmed_moved_and_stale(self) -> None:
        """GET once; nothing while fresh; one HEAD after that; a GET by digest when it has moved; stale when lost."""
        self.assertEqual(self.manifest("v1").body, MANIFEST)
        self.asked("GET v1")
        self.assertEqual(self.manifest("v1").body, MANIFEST)
        self.asked()
        self.clock.advance(4000)
        self.assertEqual(self.manifest("v1").body, MANIFEST)
        self.asked("HEAD v1")
        moved = self.hub.tag("v1", NEXT)
        self.clock.advance(4000)
        self.assertEqual(self.manifest("v1").body, NEXT)
        self.asked("HEAD v1", f"GET {moved}")
        self.hub.down = True
        self.clock.advance(4000)
        stale = self.manifest("v1")
        self.assertEqual((stale.status, stale.body, stale.get("Cache-Control")), (200, NEXT, "no-cache"))
        self.assertEqual(stale.get("Vary"), "Accept")
        self.asked("HEAD v1")
        self.assertEqual(self.manifest("v1").body, NEXT)
        self.asked()

    def test_one_who_heads_the_tag_and_gets_the_digest_survives_an_outage(self) -> None:
        """docker and containerd never GET a tag."""
        for self.hub.down in (False, True):
            head = self.manifest("v1", ("Accept", OCI_INDEX), method="HEAD")
            self.assertEqual((head.status, head.get("Docker-Content-Digest")), (200, str(self.digest)))
            got = self.manifest(self.digest, ("Accept", OCI_INDEX))
            self.assertEqual((got.status, got.body, got.get("Content-Type")), (200, MANIFEST, OCI_INDEX))
            self.asked(*(() if self.hub.down else ("HEAD v1", f"GET {self.digest}")))
            self.clock.advance(1)

    def test_a_manifest_by_digest_is_asked_for_once(self) -> None:
        """Also when it was a tag first."""
        self.manifest("v1")
        self.hub_asked.requests.clear()
        self.assertEqual(self.manifest(self.digest).body, MANIFEST)
        self.asked()

    def test_lists_go_upstream_and_pings_do_not(self) -> None:
        """With several upstreams a ping means none of them; a list is remembered for a minute."""
        self.assertEqual(self.door.get("/v2/").status, 401)
        self.asked()
        for _ in range(2):
            self.assertEqual(self.door.get("/v2/library/alpine/tags/list?n=2").status, 200)
        self.asked("GET tags/list?n=2")
        self.assertEqual(self.door.get(f"/v2/library/alpine/referrers/{self.digest}").status, 200)
        self.asked(f"GET referrers/{self.digest}?")
