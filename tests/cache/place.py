"""A scripted upstream, and content for it."""

from __future__ import annotations

import json

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.web.iweb import IResponse

from tests.doubles import FakeResponse, FakeUpstream, Request
from txociproxy.interfaces import Credentials, Pull
from txociproxy.oci.accept import EVERYTHING, AcceptClass
from txociproxy.oci.errors import UpstreamUnreachable
from txociproxy.oci.manifests import OCI_MANIFEST, manifest_media_type
from txociproxy.oci.names import Digest, Repository
from txociproxy.oci.ranges import parse_range


def manifest(name: str, media_type: str = OCI_MANIFEST) -> bytes:
    """Return a manifest like no other."""
    return json.dumps({"schemaVersion": 2, "mediaType": media_type, "annotations": {"name": name}}).encode()


def content(size_bytes: int, seed: int = 1) -> bytes:
    """Return bytes in which every part looks different."""
    block = b"".join(((seed * 1_000_003 + n * 7) % 2**32).to_bytes(4, "big") for n in range(1024))
    return (block * (size_bytes // len(block) + 1))[:size_bytes]


@define(eq=False)
class Place:
    """A scripted upstream.

    :ivar tags: what each tag means; of several the first whose type the client takes.
    :ivar content: blobs and manifests by digest.
    :ivar down: gives no answer.
    :ivar status: answers everything with this status.
    :ivar refuses: statuses for clients with these credentials; None is anonymous.
    :ivar refuses_own: the status for the proxy's own credentials.
    :ivar by_hand: the test sends the bodies of blobs, which are in ``sent``.
    :ivar holding: answers come when the test calls :meth:`answer`.
    """

    tags: dict[str, tuple[bytes, ...]] = field(factory=dict)
    content: dict[str, bytes] = field(factory=dict)
    fields: dict[str, str] = field(factory=dict)
    down: bool = False
    status: int | None = None
    refuses: dict[str | None, int] = field(factory=dict)
    refuses_own: int | None = None
    says_digest: bool = True
    says_length: bool = True
    does_ranges: bool = True
    by_hand: bool = False
    holding: bool = False
    accept: AcceptClass = EVERYTHING
    sent: list[FakeResponse] = field(factory=list)
    held: list[tuple[Deferred[FakeResponse], Request]] = field(factory=list)
    cancelled: int = 0

    def add(self, data: bytes) -> Digest:
        """Have this content; returns its digest."""
        digest = Digest.of(data)
        self.content[str(digest)] = data
        return digest

    def tag(self, name: str, *manifests: bytes) -> Digest:
        """Let a tag mean these manifests, one per media type; returns the digest of the first."""
        self.tags[name] = manifests
        digests = [self.add(data) for data in manifests]
        return digests[0]

    def script(self, request: Request) -> FakeResponse | Exception | Deferred[FakeResponse]:
        """Answer, or hold the answer back."""
        if not self.holding:
            return self.respond(request)
        d: Deferred[FakeResponse] = Deferred(self._cancel)
        self.held.append((d, request))
        return d

    def answer(self, count: int | None = None) -> None:
        """Let the answers go that are held back."""
        for _ in range(len(self.held) if count is None else count):
            d, request = self.held.pop(0)
            response = self.respond(request)
            d.errback(response) if isinstance(response, Exception) else d.callback(response)

    def _cancel(self, deferred: Deferred[FakeResponse]) -> None:
        self.cancelled += 1
        self.held = [(d, request) for d, request in self.held if d is not deferred]

    def respond(self, request: Request) -> FakeResponse | Exception:
        """Return the answer to a request."""
        if self.down:
            return UpstreamUnreachable("refused")
        refusal = self.refuses_own if request.own else self.refuses.get(request.authorization)
        status = self.status or refusal
        if status is not None:
            return FakeResponse(status, {"Content-Type": "application/json"}, b'{"errors":[]}')
        if request.reference == "" or request.reference.startswith(("tags/", "referrers/")):
            return FakeResponse(200, {"Content-Type": "application/json"}, b'{"tags":[]}')
        data = self._find(request)
        if data is None:
            return FakeResponse(404, {"Content-Type": "application/json"}, b'{"errors":[]}')
        return self._give(request, data)

    def _find(self, request: Request) -> bytes | None:
        if ":" in request.reference:
            return self.content.get(request.reference)
        return self.meaning(self.accept, request.reference)

    def meaning(self, accept: AcceptClass, tag: str = "1") -> bytes | None:
        """Return what a tag means for a class of clients."""
        for data in self.tags.get(tag, ()):
            if accept == EVERYTHING or manifest_media_type(data, None) in accept:
                return data
        return None

    def _give(self, request: Request, data: bytes) -> FakeResponse:
        fields = {"Content-Type": manifest_media_type(data, None) or "application/octet-stream", **self.fields}
        if self.says_digest and ":" not in request.reference:
            fields["Docker-Content-Digest"] = str(Digest.of(data))
        code, total = 200, len(data)
        if request.byte_range is not None and self.does_ranges:
            spec = parse_range(request.byte_range)
            part = spec.resolve(total) if spec is not None else None
            if part is None:
                return FakeResponse(416, {"Content-Range": f"bytes */{total}"}, b"")
            code, data = 206, data[part.start : part.stop]
            fields["Content-Range"] = part.content_range()
        fields["Content-Length"] = str(len(data))
        if request.method == "HEAD":
            return FakeResponse(200, fields, b"")
        by_hand = self.by_hand and manifest_media_type(data, None) is None
        response = FakeResponse(code, fields, b"" if by_hand else data, ends=not by_hand)
        if self.says_length:
            response.length = len(data)
        self.sent.append(response)
        return response


@define(eq=False)
class AcceptingUpstream(FakeUpstream):
    """A FakeUpstream whose place learns what the client takes."""

    place: Place = field(kw_only=True)

    def _answer(
        self, method: str, pull: Pull, credentials: Credentials, byte_range: str | None, deadline_s: float | None
    ) -> Deferred[IResponse]:
        self.place.accept = pull.accept_class if pull.kind == "manifest" else EVERYTHING
        return super()._answer(method, pull, credentials, byte_range, deadline_s)

    def listing(
        self, repository: Repository, path: str, query: str, credentials: Credentials, accept: str
    ) -> Deferred[IResponse]:
        """GET of a list."""
        return self._ask(Request("GET", str(repository), f"{path}?{query}", authorization=credentials.authorization))
