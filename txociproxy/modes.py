"""The modes: who may have what, and what happens when the upstream is gone."""

from __future__ import annotations

from attrs import define
from twisted.internet.defer import Deferred, succeed
from twisted.web.iweb import IResponse
from zope.interface import implementer

from txociproxy.admissions import Admissions
from txociproxy.answers import field_of, fields_of, promised_length
from txociproxy.asking import Asking
from txociproxy.collect import discard
from txociproxy.interfaces import Admitted, Ask, HeaderList, IMode, Refused, Visibility
from txociproxy.manifests import promised_digest
from txociproxy.oci.errors import UpstreamUnreachable
from txociproxy.oci.manifests import bare_media_type
from txociproxy.oci.names import Digest
from txociproxy.oci.ranges import parse_content_range


@implementer(IMode)
@define(eq=False)
class Transparent:
    """Whoever can reach us may have what we have; kept content needs no upstream."""

    answers_head_from_cache: bool = True
    survives_upstream_loss: bool = True
    uses_own_credentials: bool = True
    visibility: Visibility = "public"

    def admit(self, ask: Ask) -> Deferred[Admitted | Refused]:
        """Everybody is admitted, and nobody is asked."""
        return succeed(Admitted())


@implementer(IMode)
@define(eq=False)
class Authenticated:
    """The upstream decides about each pull, for the credential that came with it; we only save the bytes.

    Admission says that the registry lets *this credential* reach *this content* in *this repository*: a digest in
    the store is no proof of access, whoever brought it there (RULES D1).
    """

    _asking: Asking
    _admissions: Admissions
    answers_head_from_cache: bool = False
    survives_upstream_loss: bool = False
    uses_own_credentials: bool = False
    visibility: Visibility = "private"

    async def admit(self, ask: Ask) -> Admitted | Refused:
        """Ask the upstream, unless it has admitted the same a short while ago; a client's HEAD always asks."""
        reference = ask.pull.reference
        if ask.method == "GET" and self._admissions.has(ask.pull, ask.credentials):
            return Admitted(reference if isinstance(reference, Digest) else None)
        response = await self._asking.probe(ask)
        if response.code in (401, 403, 404):
            self._admissions.forget(ask.pull, ask.credentials)
        if response.code not in (200, 206):
            return Refused(await self._asking.relay(response))
        discard(response)
        media_type = bare_media_type(field_of(response, "Content-Type") or "")
        if media_type == "text/html":
            raise UpstreamUnreachable("the upstream answers with a page for people, which admits nobody")
        self._admissions.keep(ask.pull, ask.credentials)
        digest = reference if isinstance(reference, Digest) else promised_digest(response)
        return Admitted(digest, media_type or None, _size_bytes(response), _fields(response))


def _fields(response: IResponse) -> HeaderList:
    """Return the fields of the content, but for what is true of its first byte only."""
    return tuple(field for field in fields_of(response) if field[0].lower() != "content-range")


def _size_bytes(response: IResponse) -> int | None:
    """Return how long the content is, which a single byte of it says as well as a HEAD."""
    if response.code == 200:
        return promised_length(response)
    found = parse_content_range(field_of(response, "Content-Range") or "")
    return found.total if found is not None else None
