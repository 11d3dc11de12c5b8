"""Transparent mode while the upstream is away: one table of what it does and what clients get (RULES D7, D8, E8).

Everything is real but the sockets: the resource tree, the core, tokens, deadlines and the breaker, on one clock.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet import error
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers

from tests.cache.place import content, manifest
from tests.house.whole import Waiting, WholeHouse, stuck
from tests.upstreams.fakes import NAMESPACE, REALM, URL, Answer, TokenRegistry, answer
from txociproxy.oci.manifests import OCI_MANIFEST
from txociproxy.oci.names import Digest
from txociproxy.upstreams.entries.entry import Entry

KEPT, ABSENT = manifest("kept"), manifest("absent")
KEPT_BLOB, ABSENT_BLOB = content(100_000, 1), content(100_000, 2)
CONTENT = {str(Digest.of(data)): data for data in (KEPT, ABSENT, KEPT_BLOB, ABSENT_BLOB)}
TAGS = {"kept": KEPT, "absent": ABSENT}
LIST = b'{"name":"team/app","tags":["kept"]}'
STALE_S, DEADLINE_S = Entry(NAMESPACE, (URL,)).stale_deadline_s, Entry(NAMESPACE, (URL,)).deadline_s
TOKEN_S = Entry(NAMESPACE, (URL,)).token_deadline_s

State = Callable[["OutageCase", str, str, Headers], Answer]


def dead(case: OutageCase, method: str, url: str, headers: Headers) -> Answer:
    """Refuse connections."""
    return error.ConnectionRefusedError("refused")


def hanging(case: OutageCase, method: str, url: str, headers: Headers) -> Answer:
    """Take the request and say nothing."""
    return case.waiting.hang()


def hanging_in_the_body(case: OutageCase, method: str, url: str, headers: Headers) -> Answer:
    """Send headers and half of the body, then nothing."""
    found = case.healthy(method, url, headers)
    return found if method == "HEAD" or url.startswith(REALM) or found.code != 200 else stuck(found)


def status(code: int) -> State:
    """Return an upstream that answers everything so."""
    return lambda case, method, url, headers: answer(code, b"<html>oops</html>", content_type="text/html")


def no_tokens(case: OutageCase, method: str, url: str, headers: Headers) -> Answer:
    """Have a registry whose token server is gone, and forget all tokens."""
    if url.startswith(REALM):
        return error.ConnectionRefusedError("refused")
    return answer(401, b"{}", www_authenticate=case.registry.challenge)


def hanging_tokens(case: OutageCase, method: str, url: str, headers: Headers) -> Answer:
    """Have a registry whose token server says nothing."""
    return case.waiting.hang() if url.startswith(REALM) else no_tokens(case, method, url, headers)


def token_status(code: int) -> State:
    """Have a registry whose token server answers so."""

    def state(case: OutageCase, method: str, url: str, headers: Headers) -> Answer:
        return answer(code, b"") if url.startswith(REALM) else no_tokens(case, method, url, headers)

    return state


class OutageCase(SynchronousTestCase):
    """A proxy that has one image and not the other."""

    def setUp(self) -> None:
        """Pull one image while the upstream is well; then its tag is old enough to be confirmed."""
        self.waiting = Waiting()
        self.registry = TokenRegistry(content=self.serve)
        self.state: State | None = None
        self.house = WholeHouse(self.answer)
        for path in ("manifests/kept", f"blobs/{Digest.of(KEPT_BLOB)}", "tags/list"):
            self.assertEqual(self.house.get(f"/v2/team/app/{path}").status, 200)
        self.house.let_pass(4000)

    def answer(self, method: str, url: str, headers: Headers) -> Answer:
        """Answer as the state of the upstream is."""
        if self.state is None:
            return self.registry(method, url, headers)
        return self.state(self, method, url, headers)

    def healthy(self, method: str, url: str, headers: Headers) -> Any:
        """Answer as it should."""
        return self.registry(method, url, headers)

    def serve(self, method: str, url: str, headers: Headers) -> Answer:
        """Give the content that a URL names."""
        reference = url.rpartition("/")[2]
        data = CONTENT.get(reference) or TAGS.get(reference) or (LIST if url.endswith("/tags/list") else None)
        if data is None:
            return answer(404, b"{}")
        is_manifest = "/manifests/" in url
        return answer(
            200,
            data,
            content_length=str(len(data)),
            content_type=OCI_MANIFEST if is_manifest else "application/octet-stream",
            docker_content_digest=str(Digest.of(data)),
        )

    def assert_kept_is_served(self) -> None:
        """Tag, digests and list, GET and HEAD, within the time that is given to a lost upstream."""
        for method in ("GET", "HEAD"):
            for path, data in (
                (f"blobs/{Digest.of(KEPT_BLOB)}", KEPT_BLOB),
                (f"manifests/{Digest.of(KEPT)}", KEPT),
                ("manifests/kept", KEPT),
            ):
                asked = len(self.house.net.asked)
                got = self.house.within(2 * STALE_S + 0.1, self.house.begin(method, f"/v2/team/app/{path}"), method)
                self.assertEqual((got.status, got.body), (200, data if method == "GET" else b""), path)
                if "sha256" in path:
                    self.assertEqual(len(self.house.net.asked), asked, "a kept digest needs no network")
        self.house.let_pass(TOKEN_S)  # an ask for a token goes on for others, as long as one may take
        self.assertEqual(self.waiting.outstanding, 0)
        got = self.house.within(2 * STALE_S + 0.1, self.house.begin("GET", "/v2/team/app/tags/list"))
        self.assertEqual((got.status, got.body), (200, LIST))
        self.house.let_pass(DEADLINE_S)  # so does one for a list
        self.assertEqual(self.waiting.outstanding, 0)

    def assert_absent_is(self, statuses: set[int]) -> None:
        """Tag and digests that are not kept, within the deadline; an error of the spec's form."""
        for path in ("manifests/absent", f"manifests/{Digest.of(ABSENT)}", f"blobs/{Digest.of(ABSENT_BLOB)}"):
            for method in ("GET", "HEAD"):
                got = self.house.within(3 * DEADLINE_S, self.house.begin(method, f"/v2/team/app/{path}"), method)
                self.assertIn(got.status, statuses, (method, path, got.body))
                if method == "GET":
                    self.assertEqual(got.error(), "TOOMANYREQUESTS" if got.status == 429 else "UNAVAILABLE")
                self.assertEqual(self.waiting.outstanding, 0, path)


class OutageTests(OutageCase):
    """What the upstream does, and what clients get."""

    def check(self, state: State, absent: set[int]) -> None:
        """Assert one row of the table: kept content, then absent, then kept again, then the upstream is back."""
        self.state = state
        self.assert_kept_is_served()
        self.assert_absent_is(absent)
        self.assert_kept_is_served()
        self.state = None
        self.house.let_pass(400)
        self.assertEqual(self.house.get("/v2/team/app/manifests/absent").status, 200)

    def test_dead(self) -> None:
        """Connections are refused."""
        self.check(dead, {502})

    def test_hanging_before_the_headers(self) -> None:
        """The deadline of each ask is kept; later ones are told at once that nobody answers there."""
        self.check(hanging, {504, 502})

    def test_server_errors(self) -> None:
        """A failing registry is 502 where nothing is kept, with words of the spec in place of its page."""
        for code in (500, 502, 503):
            self.setUp()
            self.check(status(code), {502})

    def test_too_many_requests(self) -> None:
        """Passed on where nothing is kept, with words of the spec in place of its page."""
        self.check(status(429), {429})

    def test_a_dead_token_server(self) -> None:
        """No token, no answer."""
        self.check(no_tokens, {502})

    def test_a_hanging_token_server(self) -> None:
        """As much time as a token gets."""
        self.check(hanging_tokens, {504, 502})

    def test_a_failing_token_server(self) -> None:
        """5xx is an outage, 429 is passed on."""
        self.check(token_status(500), {502})
        self.setUp()
        self.check(token_status(429), {429})

    def test_hanging_in_the_body(self) -> None:
        """A manifest is an error in time; a blob that has begun is cut."""
        self.state = hanging_in_the_body
        self.assert_kept_is_served()
        for path in ("manifests/absent", f"manifests/{Digest.of(ABSENT)}"):
            got = self.house.within(200, self.house.begin("GET", f"/v2/team/app/{path}"))
            self.assertEqual((got.status, got.error()), (504, "UNAVAILABLE"))
        self.assert_kept_is_served()
        self.state = None
        self.house.let_pass(400)
        self.assertEqual(self.house.get("/v2/team/app/manifests/absent").status, 200)
