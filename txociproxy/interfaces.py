"""The seams of the house, and the values that cross them.

Units live in names: ``_bytes`` and ``_s``.  Types live in annotations; the prose states the contract: who may
call, how often, and what each error means.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Literal

from attrs import field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer
from twisted.web.iweb import IResponse
from zope.interface import Attribute, Interface

from txociproxy.oci.accept import AcceptClass
from txociproxy.oci.names import Descriptor, Digest, Reference, Repository
from txociproxy.oci.ranges import ByteRange, RangeSpec

Kind = Literal["manifest", "blob"]
Visibility = Literal["public", "private"]
Outcome = Literal["hit", "miss", "join", "stale", "relay", "bypass", "error"]
HeaderList = tuple[tuple[str, str], ...]


@frozen
class Pull:
    """One client's wish for a manifest or a blob.

    :ivar namespace: the canonical name of the upstream, for example ``docker.io``.
    :ivar repository: as the upstream names it (``library/`` already added for Docker Hub).
    :ivar reference: a :class:`Digest` or, for manifests only, a :class:`Tag`.
    :ivar accept_class: the media types the client takes (distribution-spec, end-3).
    """

    namespace: str
    repository: Repository
    reference: Reference
    kind: Kind
    accept_class: AcceptClass


@frozen
class Credentials:
    """In whose name upstream is asked; never printed.

    :ivar authorization: what the client brought: the value of an Authorization field to send upstream as it is, or
        None.
    :ivar expires_at_s: when what the client brought ends, in seconds since the epoch; None is not known.
    :ivar own: ask with the proxy's own credentials for this upstream; then ``authorization`` is None.
    """

    authorization: str | None = None
    expires_at_s: float | None = None
    own: bool = False

    @property
    def is_anonymous(self) -> bool:
        """Whether upstream is asked as anybody may."""
        return self.authorization is None and not self.own

    def __repr__(self) -> str:
        return f"Credentials({'own' if self.own else 'anonymous' if self.authorization is None else '...'})"


ANONYMOUS = Credentials()
OWN = Credentials(own=True)


@frozen
class Ask:
    """A pull with the circumstances in which it was asked.

    :ivar range_spec: the part of a blob that is wanted; If-Range has been judged already.
    :ivar client: the address of the client, for the caps per address.
    :ivar has_fallback: whether the client has another place to ask (``ns=`` or a bound host), which shortens
        the deadline to the first byte.
    """

    method: Literal["GET", "HEAD"]
    pull: Pull
    credentials: Credentials = ANONYMOUS
    range_spec: RangeSpec | None = None
    client: str = ""
    has_fallback: bool = False


@frozen
class Local:
    """Content that this machine holds, open for reading.

    Whoever receives it calls ``body.close()`` or gives the body to a reader, which does.

    :ivar namespace: where it came from last; ``headers`` are from there.
    :ivar kept_at_s: when it was published last, in seconds since the epoch; None is not known.
    """

    descriptor: Descriptor
    headers: HeaderList
    namespace: str | None
    body: IBody
    kept_at_s: float | None = None


@frozen
class Elsewhere:
    """Content that lies where a client can fetch it, and so can we.

    :ivar namespace, kept_at_s: as in :class:`Local`.
    :ivar fill: opens a spool whose commit keeps a copy on this machine; None where none is wanted.  Raises as
        :meth:`IStorage.open_spool`.
    """

    descriptor: Descriptor
    headers: HeaderList
    namespace: str | None
    place: IPlace
    kept_at_s: float | None = None
    fill: Callable[[], ISpool] | None = None


@frozen
class Address:
    """A URL that anybody can GET who has it; it is signed, so it is never logged.

    :ivar expires_s: how long it is good from now on.
    """

    url: str = field(repr=False)
    expires_s: float


@frozen
class TagName:
    """The full name of a tag."""

    namespace: str
    repository: Repository
    tag: str


@frozen
class TagRecord:
    """What a tag meant to clients of one Accept class when upstream was last asked.

    :ivar checked_at_s: seconds since the epoch.
    """

    accept_class: AcceptClass
    digest: Digest
    media_type: str
    size_bytes: int
    checked_at_s: float


@frozen
class Serve:
    """Answer with this content.

    :ivar headers: the upstream's own header fields that are kept and replayed (RULES E10).
    :ivar body: None for HEAD.
    :ivar partial: set when the body is only this part of the content (a relayed range); then offsets in the body
        are absolute and only this part can be read.
    :ivar unsatisfiable_total_bytes: set for a range beyond the end: answer 416 with this total.
    """

    descriptor: Descriptor
    headers: HeaderList
    body: IBody | None
    outcome: Outcome
    cache_control: str
    partial: ByteRange | None = None
    vary_accept: bool = False
    unsatisfiable_total_bytes: int | None = None


@frozen
class Redirect:
    """Send the client to another address.

    :ivar cache_control: shorter than the address lives, and ``no-store`` where a mode asks about each client.
    """

    descriptor: Descriptor
    url: str = field(repr=False)
    expires_s: float
    outcome: Outcome
    cache_control: str


@frozen
class Relay:
    """Pass the upstream's answer on, unchanged but for the header table; nothing is kept.

    :ivar body: whole, at most 1 MiB.
    """

    status: int
    headers: HeaderList
    body: bytes
    outcome: Outcome = "relay"
    content_length: int | None = None


class IFollower(Interface):
    """Something that moves along a body."""

    offset_bytes: int = Attribute("How far it has come, counted from the start of the content.")

    def advanced() -> None:
        """More can be read, or the body's fate is known.  Must not raise."""


class IBody(Interface):
    """Content that is all here, or still arriving."""

    size_bytes: int | None = Attribute("Whole length; None only while an upstream that did not say is arriving.")

    def read_at(offset_bytes: int, max_bytes: int) -> bytes:
        """Return up to ``max_bytes`` from ``offset_bytes`` on; never blocks.

        ``b""`` says: not here, or not in memory, yet; the followers are told when it is.

        :raises BodyLost: what is asked for will never be here.
        """

    def extent_at(offset_bytes: int, max_bytes: int) -> tuple[int, int] | None:
        """Return (descriptor, readable bytes) when the bytes lie in a file and can be read without waiting.

        The file's offsets are the content's offsets.  The descriptor is only lent: it is good until this turn of
        the reactor ends.
        """

    def follow(follower: IFollower) -> None:
        """Tell this follower about progress from now on; never calls it at once."""

    def unfollow(follower: IFollower) -> None:
        """Forget the follower; unknown ones are ignored.  The last one that leaves closes the body."""

    def promise() -> None:
        """Say that one more will follow or close it."""

    def close() -> None:
        """Say that this body will not be followed.  Whoever is given a body either follows or closes it, once."""


class IPlace(Interface):
    """Where content lies that is not on this machine."""

    def address() -> Address:
        """Return where a client gets it, ranges included; never blocks.

        :raises StorageUnavailable: nothing can be signed now.
        """

    def read(byte_range: str | None) -> Awaitable[IResponse]:
        """GET it ourselves: 200, or 206 for a range; headers in, body not yet delivered, as :meth:`IUpstream.get`.

        :param byte_range: the value of a Range field, for example ``bytes=100-``.
        :raises StorageUnavailable: no such answer came, and not in time.
        """


class ISpool(IConsumer):
    """The storage's consumer in the pipeline: content on its way in."""

    flushed_bytes: int = Attribute("How far the medium really holds the bytes.")
    failure: Exception | None = Attribute("Why this spool is dead, or None.")

    def write(data: bytes) -> None:
        """Take the next bytes; never blocks.  An error kills this spool, not the pull."""

    def read_at(offset_bytes: int, max_bytes: int) -> bytes:
        """Return flushed bytes; ``b""`` when they cannot be read without waiting.  Works on a dead spool too."""

    def extent_at(offset_bytes: int, max_bytes: int) -> tuple[int, int] | None:
        """Return (descriptor, readable bytes) for flushed bytes, as :meth:`IBody.extent_at`."""

    def follow(progressed: Callable[[], None]) -> None:
        """Call ``progressed()`` after every change of ``flushed_bytes`` or ``failure``, and when pages were read."""

    def commit(descriptor: Descriptor, headers: HeaderList, namespace: str, held: bool) -> Awaitable[None]:
        """Publish atomically after all that was written; the same content twice is fine.

        :param held: it came with credentials that others do not have, so that it is found from ``namespace`` only.
            What is open already stays open, what is held for others is held for this one too; a commit that is not held
            opens it to all (RULES D3).

        :raises StorageUnavailable: it was not published; the spool is dead.
        """

    def abandon() -> None:
        """Never publish.  Idempotent; a no-op after commit.  What is flushed stays readable until close."""

    def close() -> None:
        """Let go of the descriptor.  Idempotent.  Abandons what was not committed."""


class IStorage(Interface):
    """Where content is kept."""

    def find(digest: Digest, namespace: str) -> Awaitable[Local | Elsewhere | None]:
        """Return where the content is; None is a miss, also for what is held for other namespaces (RULES D3).

        :raises StorageUnavailable: it cannot be told.
        """

    def open_spool(digest: Digest, size_bytes: int | None) -> ISpool:
        """Begin to keep content.

        :raises NoSpace: it cannot fit.
        :raises StorageUnavailable: nothing can be written now.
        """

    def await_turn(digest: Digest) -> Awaitable[bool]:
        """Before content is fetched: let another process on the same storage that is fetching it be first.

        Waits for a bounded time and never raises.  True says that somebody was waited for, so that it pays to look
        again; False says at once that nobody else is known to be at work.
        """

    def leave_turn(digest: Digest) -> None:
        """The turn that was awaited has come to nothing: no spool was opened, so that others may go ahead at once."""

    def remove(digest: Digest) -> Awaitable[bool]:
        """Forget the content and for whom it was held; says whether it was there, held for whomever."""

    def recall_tag(name: TagName) -> Awaitable[tuple[TagRecord, ...]]:
        """Return what is known of the tag, one record per Accept class, latest first.  Trouble is an empty answer."""

    def record_tag(name: TagName, record: TagRecord) -> Awaitable[None]:
        """Remember a record in place of the one with its Accept class; at most four are kept.  Trouble is ignored."""

    def forget_tag(name: TagName) -> Awaitable[None]:
        """Forget all that is known of the tag."""

    def walk() -> AsyncIterator[Descriptor]:
        """Iterate over what is kept, held for whomever, each digest once."""


@frozen
class Exchanged:
    """What an upstream wants to see in a client's name.

    :ivar authorization: None when it wants nothing.
    :ivar life_s: how long it is good; None when that is not said.
    """

    authorization: str | None = field(repr=False)
    life_s: float | None = None


class IUpstream(Interface):
    """One namespace, for example docker.io: who has the original.

    Every method raises :class:`UpstreamUnreachable` (``timed_out`` says which status a client gets) when no answer
    came.  An answer, whatever its status, is returned with its headers in and its body not yet delivered; whoever
    gets it delivers or closes it.  Redirects have been followed and tokens fetched.
    """

    namespace: str = Attribute("Canonical name.")
    has_own_credentials: bool = Attribute("Whether it can be asked as ``OWN``.")
    can_spare: bool = Attribute("Whether its quota leaves room for asks that no client waits for.")

    def get(
        pull: Pull, credentials: Credentials, byte_range: str | None, deadline_s: float | None
    ) -> Awaitable[IResponse]:
        """GET a manifest or blob.

        :param byte_range: the value of a Range field, for example ``bytes=100-``.
        :param deadline_s: to the first byte of the answer, token time not counted; None is the entry's own.
        """

    def head(pull: Pull, credentials: Credentials, deadline_s: float | None) -> Awaitable[IResponse]:
        """HEAD a manifest or blob; never becomes a GET."""

    def probe(pull: Pull, credentials: Credentials, deadline_s: float | None) -> Awaitable[IResponse]:
        """Ask whether these credentials reach this content in this repository (RULES D1).

        A HEAD; where HEAD cannot tell (a redirect target that answers 403, 405 or 501, a registry that answers 405
        or 501), one GET of the first byte, closed after its headers.  200 and 206 are a yes.  Nothing is left to
        deliver: the answer has its status, its header fields and, for a refusal, a short body at most.

        :raises UpstreamUnreachable: also for 5xx of a redirect target.
        """

    def exchange(repositories: tuple[Repository, ...], authorization: str) -> Awaitable[Exchanged | Relay]:
        """Turn what a client shows us (``Basic ...``) into what this upstream wants, at its own token server.

        :returns: a Relay for the token server's refusal.
        :raises UpstreamUnreachable: there is no answer.
        :raises OCIError: the token server may not see credentials for this upstream (RULES C8).
        """

    def listing(
        repository: Repository, path: str, query: str, credentials: Credentials, accept: str
    ) -> Awaitable[IResponse]:
        """GET ``/v2/<repository>/<path>?<query>``: tag lists and referrers."""

    def ping(credentials: Credentials) -> Awaitable[IResponse]:
        """GET ``/v2/``; a challenge is returned, not answered."""


@frozen
class Admitted:
    """The client may have it; for a tag the digest says which content is meant.

    :ivar headers: the upstream's header fields, as they came; empty where nobody was asked.
    """

    digest: Digest | None = None
    media_type: str | None = None
    size_bytes: int | None = None
    headers: HeaderList = ()


@frozen
class Refused:
    """The upstream said no, in its own words."""

    response: Relay


class IMode(Interface):
    """Who may have what, and what happens when the upstream is gone."""

    answers_head_from_cache: bool = Attribute("Whether a kept HEAD needs no upstream.")
    survives_upstream_loss: bool = Attribute("Whether kept tags are served stale.")
    uses_own_credentials: bool = Attribute("Whether upstream is asked in our own and nobody's name, too.")
    visibility: Visibility = Attribute("``public`` or ``private``, for Cache-Control.")

    def admit(ask: Ask) -> Awaitable[Admitted | Refused]:
        """Decide whether this client may have this content.

        :raises UpstreamUnreachable: it cannot be told.
        """


class IWorkers(Interface):
    """A bounded pool of threads that the service owns."""

    def run(function: Callable[..., Any], *args: Any) -> Deferred[Any]:
        """Call ``function(*args)`` in a thread and give its result to the reactor."""

    def stuck(limit_s: float) -> bool:
        """Whether every thread is taken and none has finished anything for ``limit_s`` seconds."""
