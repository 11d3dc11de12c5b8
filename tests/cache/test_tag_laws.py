"""The laws of tags, whatever clients and upstream do (RULES E7, E8; promise 7)."""

from __future__ import annotations

from typing import Literal

from attrs import define, field
from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.web.iweb import IResponse

from tests.cache.house import INDEX_CLASS, MANIFEST_CLASS, WIDE_CLASS, CacheCase
from tests.cache.place import AcceptingUpstream, manifest
from tests.doubles import FakeResponse, Request
from txociproxy.assembly import CoreRules
from txociproxy.cache import Answer
from txociproxy.interfaces import Credentials, Pull, Relay, Serve
from txociproxy.meanings import TagRules
from txociproxy.oci.accept import EVERYTHING, AcceptClass, answers
from txociproxy.oci.errors import OCIError, UpstreamUnreachable
from txociproxy.oci.manifests import OCI_INDEX, OCI_MANIFEST
from txociproxy.oci.names import Digest

CLASSES = (INDEX_CLASS, MANIFEST_CLASS, WIDE_CLASS, EVERYTHING)
FRESH_S = 3600.0
Condition = Literal["well", "down", "500", "429", "401", "404", "page", "no digest", "no manifest"]
CONDITIONS: tuple[Condition, ...] = ("well", "down", "500", "429", "401", "404", "page", "no digest", "no manifest")


@define(frozen=True)
class Wait:
    """Time passes."""

    seconds: float


@define(frozen=True)
class Move:
    """The tag means other manifests from now on."""


@define(frozen=True)
class Become:
    """Something happens to upstream."""

    condition: Condition


@define(frozen=True)
class Want:
    """A client asks."""

    method: Literal["GET", "HEAD"]
    accept: AcceptClass


Step = Wait | Move | Become | Want
WANTS = st.builds(Want, st.sampled_from(("GET", "HEAD")), st.sampled_from(CLASSES))
STEPS = st.lists(
    st.one_of(
        WANTS,
        WANTS,
        st.builds(Wait, st.sampled_from((1.0, 29.0, 31.0, FRESH_S - 1, FRESH_S + 1))),
        st.just(Move()),
        st.builds(Become, st.sampled_from(CONDITIONS)),
    ),
    max_size=25,
)


@define(eq=False)
class Witness(AcceptingUpstream):
    """An upstream that remembers what it has said of the tag, and to which class."""

    said: list[tuple[AcceptClass, str, Digest]] = field(factory=list)

    def _answer(
        self, method: str, pull: Pull, credentials: Credentials, byte_range: str | None, deadline_s: float | None
    ) -> Deferred[IResponse]:
        data = self.place.meaning(pull.accept_class)
        if str(pull.reference) == "1" and data is not None:
            media_type = OCI_INDEX if b"index" in data else OCI_MANIFEST
            self.said.append((pull.accept_class, media_type, Digest.of(data)))
        return super()._answer(method, pull, credentials, byte_range, deadline_s)


class TagLawTests(CacheCase):
    """One tag, four classes of clients, an upstream that may do anything."""

    def start(self, swr_s: float) -> None:
        """Begin with an upstream that is well and a store that is empty."""
        self.setUp()
        self.swr_s = swr_s
        self.witness = Witness("docker.io", self.script, place=self.hub)
        self.registry.upstreams["docker.io"] = self.witness
        self.build(CoreRules(tags=TagRules(fresh_s=FRESH_S, swr_s=swr_s)))
        self.condition: Condition = "well"
        self.version = 0
        self.idle_s = 0.0
        self.answered: set[AcceptClass] = set()
        self.move()

    def move(self) -> None:
        """Let the tag mean something new; old manifests stay where they are."""
        self.version += 1
        index, single = manifest(f"index {self.version}", OCI_INDEX), manifest(f"single {self.version}")
        self.hub.tag("1", index, single)

    def script(self, request: Request) -> FakeResponse | Exception:
        """Answer as upstream's condition is."""
        self.hub.says_digest = self.condition != "no digest"
        if self.condition == "down":
            return UpstreamUnreachable("refused")
        if self.condition in ("500", "429", "401", "404"):
            return FakeResponse(int(self.condition), {}, b"{}")
        if self.condition == "page":
            return FakeResponse(200, {"Content-Type": "text/html"}, b"<html>")
        if self.condition == "no manifest" and request.method == "GET":
            return FakeResponse(404, {}, b"{}")
        return self.hub.respond(request)

    @settings(deadline=None, max_examples=300)
    @given(STEPS, st.sampled_from((0.0, 100.0)))
    @example([Want("GET", WIDE_CLASS), Move(), Wait(FRESH_S + 1), Want("HEAD", WIDE_CLASS), Become("down")], 0.0)
    def test_whatever_happens_the_answer_is_one_that_upstream_gave(self, steps: list[Step], swr_s: float) -> None:
        """And there is one whenever there could be one."""
        self.start(swr_s)
        for step in [*steps, *(Want("GET", accept) for accept in CLASSES)]:
            if isinstance(step, Wait):
                self.clock.advance(step.seconds)
                self.idle_s += step.seconds
            elif isinstance(step, Move):
                self.move()
            elif isinstance(step, Become):
                self.condition = step.condition
            else:
                self.want(step)
        self.assert_at_rest()

    def want(self, want: Want) -> None:
        """Ask, and judge the answer."""
        d: Deferred[Answer] = self.begin(self.ask("1", want.method, accept=want.accept))
        results: list[object] = []
        d.addBoth(results.append)
        (result,) = results
        idle_s, self.idle_s = self.idle_s, 0.0
        if not isinstance(result, Serve):
            self.judge_error(want, result)
            return
        self.judge_digest(want, result, idle_s)
        if want.method == "GET":
            self.assertEqual(Digest.of(self.bytes_of(result)), result.descriptor.digest)
            self.answered.add(want.accept)

    def judge_error(self, want: Want, result: object) -> None:
        """No answer is right only if this class was never answered, or upstream itself answered a HEAD."""
        relayed_head = isinstance(result, Relay) and want.method == "HEAD" and result.status == 200
        self.assertTrue(want.accept not in self.answered or relayed_head, (want, result))
        self.assertNotEqual((self.condition, relayed_head), ("well", False))
        if not isinstance(result, Relay):
            failure = getattr(result, "value", None)
            self.assertIsInstance(failure, UpstreamUnreachable | OCIError)

    def judge_digest(self, want: Want, serve: Serve, idle_s: float) -> None:
        """Upstream said it, to a class that may answer this one; and it is not older than it may be."""
        said = {digest for cls, media_type, digest in self.witness.said if answers(cls, media_type, want.accept)}
        self.assertIn(serve.descriptor.digest, said)
        data = self.hub.meaning(want.accept)
        if self.condition == "well" and idle_s > FRESH_S + self.swr_s and data is not None:
            self.assertEqual(serve.descriptor.digest, Digest.of(data))
