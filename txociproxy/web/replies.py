"""What the cache decided, as status and header fields.  Pure: no connection, no time."""

from __future__ import annotations

from typing import Final, Literal

from attrs import evolve, frozen

from txociproxy.interfaces import HeaderList, Redirect, Relay, Serve
from txociproxy.oci.errors import BodyLost, OCIError, StorageUnavailable, UpstreamUnreachable, is_error
from txociproxy.oci.headers import cache_control, etag, etag_matches, kept, listed, relayed, rewrite_link
from txociproxy.oci.ranges import ByteRange, RangeSpec
from txociproxy.web.sending import Reply

VERSION_FIELD: Final = ("Docker-Distribution-Api-Version", "registry/2.0")
# A 404 may be kept by caches in front of us unless it says otherwise (RFC 9110 §15.1).
NOT_KEPT: Final = ("Cache-Control", "no-store")
CHALLENGE: Final = "www-authenticate"


@frozen
class Circumstances:
    """What of a request changes the look of its answer.

    :ivar namespace: the value of OCI-Namespace, when the client named one with ``ns=``.
    :ivar challenge: our own WWW-Authenticate, should the answer be a 401 (RULES C3); None where no login would help,
        since Authorization goes nowhere: a 401 leaves as a 403 then (RULES C6).
    :ivar if_none_match: all If-None-Match lines as one.
    :ivar range_spec: the part that is wanted, If-Range judged already.
    :ivar is_private: the answer is for this client only (RULES D4).
    :ivar cache_status: what the cache did, as Cache-Status says it; None where no cache was asked.
    """

    method: Literal["GET", "HEAD"]
    namespace: str | None
    challenge: str | None
    if_none_match: str | None = None
    range_spec: RangeSpec | None = None
    is_private: bool = False
    cache_status: str | None = None

    @property
    def made(self) -> HeaderList:
        """The fields that every answer of the registry carries."""
        namespace = () if self.namespace is None else (("OCI-Namespace", self.namespace),)
        status = () if self.cache_status is None else (("Cache-Status", self.cache_status),)
        return (VERSION_FIELD, *namespace, *status)


@frozen
class Plan:
    """The head of an answer whose body is read from the content.

    :ivar start: where to begin in the content.
    :ivar stop: where to end; None is the end of the content, known or not.
    :ivar length_bytes: Content-Length; None is not known yet.
    """

    status: int
    headers: HeaderList
    start: int = 0
    stop: int | None = None
    length_bytes: int | None = None


class BadToken(OCIError):
    """A token of ours is no good here; the challenge says so, and clients fetch another one.

    :param why: in the words of RFC 6750 §3.1, for example ``invalid_token``.
    """

    def __init__(self, why: str, message: str) -> None:
        super().__init__("UNAUTHORIZED", message)
        self.why = why


class LoginWanted(OCIError):
    """A name and a password of this proxy's own are wanted (RFC 7617, section 2)."""

    challenge: Final = 'Basic realm="txociproxy", charset="UTF-8"'

    def __init__(self) -> None:
        super().__init__("UNAUTHORIZED", "a name and a password of this proxy are wanted")


def content_lost() -> OCIError:
    """Return what a client is told whose body broke off before its first byte."""
    return OCIError("UNAVAILABLE", "the upstream's content was lost on its way")


def as_oci_error(error: Exception) -> OCIError | None:
    """Return what a client is told of an error; None for one that nobody expected."""
    if isinstance(error, OCIError):
        return error
    if isinstance(error, UpstreamUnreachable):
        return OCIError("UNAVAILABLE", str(error), status=504 if error.timed_out else 502)
    if isinstance(error, BodyLost):
        return content_lost()
    if isinstance(error, StorageUnavailable):
        return OCIError("UNAVAILABLE", "the storage cannot be used now", status=503)
    return None


def error_reply(error: OCIError, around: Circumstances | None = None) -> Reply:
    """Answer with an error in the spec's form (distribution-spec, "Error Codes")."""
    if error.status == 401 and around is not None and around.challenge is None and not isinstance(error, LoginWanted):
        error = OCIError("DENIED", error.message)
    made = (VERSION_FIELD,) if around is None else around.made
    challenge = _challenge(error.status, around)
    if isinstance(error, LoginWanted):
        challenge = (("WWW-Authenticate", error.challenge),)
    if isinstance(error, BadToken):
        challenge = tuple((name, f'{value},error="{error.why}"') for name, value in challenge)
    body = error.to_json()
    own = (field for field in error.headers if field[0].lower() != CHALLENGE)
    headers = (("Content-Type", "application/json"), NOT_KEPT, *made, *challenge, *own)
    return Reply(error.status, headers, body, len(body))


def relay_reply(relay: Relay, around: Circumstances) -> Reply:
    """Pass on what the upstream said, with the fields that may pass (RULES E11)."""
    return _relay(relay, relayed(relay.headers), around)


def in_words(relay: Relay, unknown: str) -> Relay:
    """Give an error without a body the one of the spec; docker reads it to know whether to go on.

    There is none when the upstream had to answer a HEAD, which costs less, for a client's GET.

    :param unknown: the code of a 404.
    """
    if relay.body or relay.status < 400:
        return relay
    code = {401: "UNAUTHORIZED", 403: "DENIED", 404: unknown, 429: "TOOMANYREQUESTS"}.get(relay.status, "UNAVAILABLE")
    about_body = ("content-type", "content-encoding", "content-range")
    fields = tuple(field for field in relay.headers if field[0].lower() not in about_body)
    body = OCIError(code, f"the upstream answers with status {relay.status}").to_json()
    return evolve(relay, headers=(*fields, ("Content-Type", "application/json")), body=body)


def as_gateway(relay: Relay) -> Relay:
    """Tell an upstream's failure as a gateway does: any 5xx is 502, and words are those of the spec.

    A registry that fails says so in pages for people, and its 500 must not look like one of ours.
    """
    if relay.status < 500 and (relay.status != 429 or not relay.body or is_error(relay.body)):
        return relay
    retry = tuple(field for field in relay.headers if field[0].lower() == "retry-after")
    bare = evolve(relay, headers=retry, body=b"", content_length=None)
    return evolve(in_words(bare, ""), status=502 if relay.status >= 500 else 429)


def listing_reply(relay: Relay, around: Circumstances, path: str) -> Reply:
    """Pass on a tag list or referrers; the next page is found here, not at the upstream.

    :param path: our own path of the listing, as the client asked.
    """
    extra_query = "" if around.namespace is None else f"ns={around.namespace}"
    fields: list[tuple[str, str]] = []
    for name, value in listed(relay.headers):
        rewritten = rewrite_link(value, path, extra_query) if name.lower() == "link" else value
        if rewritten is not None:
            fields.append((name, rewritten))
    return _relay(relay, tuple(fields), around)


def _relay(relay: Relay, fields: HeaderList, around: Circumstances) -> Reply:
    """Put together a relayed answer."""
    if relay.status == 401 and around.challenge is None:
        return error_reply(OCIError("DENIED", "the upstream wants a login, and clients' own go nowhere here"), around)
    passed = tuple(field for field in fields if field[0].lower() != VERSION_FIELD[0].lower())
    private = (("Cache-Control", cache_control("revalidate", "private")),) if around.is_private else ()
    not_kept = (NOT_KEPT,) if relay.status >= 400 else private
    nosniff = ("X-Content-Type-Options", "nosniff")
    headers = (*passed, *around.made, nosniff, *not_kept, *_challenge(relay.status, around))
    length_bytes = len(relay.body) if relay.body or around.method == "GET" else relay.content_length
    return Reply(relay.status, headers, relay.body, None if relay.status == 304 else length_bytes)


def _challenge(status: int, around: Circumstances | None) -> HeaderList:
    """Give every 401 exactly one challenge, ours."""
    if status != 401 or around is None or around.challenge is None:
        return ()
    return (("WWW-Authenticate", around.challenge),)


def redirect_reply(redirect: Redirect, around: Circumstances) -> Reply:
    """Send the client elsewhere; never with the content's own length or a long life."""
    headers = (
        ("Location", redirect.url),
        ("Docker-Content-Digest", str(redirect.descriptor.digest)),
        ("Cache-Control", redirect.cache_control),
        *around.made,
    )
    return Reply(307, headers, b"", 0)


def serve_plan(serve: Serve, around: Circumstances, is_blob: bool) -> Plan | Reply:
    """Decide how content is sent: 200, 206, or without a body 304 and 416."""
    about = (
        ("ETag", etag(serve.descriptor.digest)),
        ("Docker-Content-Digest", str(serve.descriptor.digest)),
        ("Cache-Control", serve.cache_control),
        *((("Vary", "Accept"),) if serve.vary_accept else ()),
        *around.made,
    )
    # RFC 9110 §13.2.2: If-None-Match is judged before Range.
    if etag_matches(around.if_none_match, serve.descriptor.digest):
        return Reply(304, about)
    if serve.unsatisfiable_total_bytes is not None:
        return _unsatisfiable(serve.unsatisfiable_total_bytes, around)
    # Judged when they were kept; a sidecar may be older than the table, or somebody has written in it (RULES G1).
    content = (*kept(serve.headers), ("Content-Type", serve.descriptor.media_type), *about)
    if is_blob:
        content = (*content, ("Accept-Ranges", "bytes"))
    size_bytes = serve.descriptor.size_bytes if serve.body is None else serve.body.size_bytes
    if serve.partial is not None:
        return _partial(content, serve.partial)
    if around.range_spec is None or size_bytes is None:
        return Plan(200, content, length_bytes=size_bytes)
    part = around.range_spec.resolve(size_bytes)
    return _unsatisfiable(size_bytes, around) if part is None else _partial(content, part)


def _partial(content: HeaderList, part: ByteRange) -> Plan:
    """Send a part of the content."""
    headers = (*content, ("Content-Range", part.content_range()))
    return Plan(206, headers, part.start, part.stop, part.length_bytes)


def _unsatisfiable(total_bytes: int, around: Circumstances) -> Reply:
    """Say how long the content is, since no byte of the range exists (RFC 9110 §15.5.17)."""
    error = OCIError(
        "RANGE_INVALID", "no byte of the range exists", headers=(("Content-Range", f"bytes */{total_bytes}"),)
    )
    return error_reply(error, around)
