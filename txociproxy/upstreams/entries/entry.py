"""What is configured about one upstream: a frozen value, checked when it is made."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Literal

from attrs import field, frozen

from txociproxy import __version__
from txociproxy.oci.errors import OCIError
from txociproxy.oci.names import Repository, canonical_namespace
from txociproxy.upstreams.logins.accounts import Account
from txociproxy.upstreams.origins import Origin, base_url

ClientCredentials = Literal["forward", "ignore"]


def _base_urls(urls: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(base_url(url) for url in urls)


def _lower(texts: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(text.lower() for text in texts)


@frozen
class Tls:
    """TLS to the origins of ``urls`` and ``origins``; every other one is met with the system's trust and ``ca``.

    :ivar ca: a file of PEM certificates that are trusted beside the system's (RULES F3).
    :ivar cert: a file with the client's certificate and its chain, PEM.
    :ivar key: a file with its private key, PEM; None is the same file.
    :ivar verify: False takes any certificate.
    """

    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    verify: bool = True


@frozen
class TagRule:
    """What is decided about some tags of one upstream; None leaves it to the settings of all.

    :ivar match: a glob over ``<repository>:<tag>``; ``*`` matches slashes too.
    :ivar keep: whether they are believed at all.
    :ivar stale_if_error_s: infinity is unlimited.
    """

    match: str = "*"
    keep: bool | None = None
    fresh_s: float | None = None
    swr_s: float | None = None
    stale_if_error_s: float | None = None
    on_upstream_404: Literal["keep", "drop"] | None = None

    def matches(self, repository: Repository, tag: str) -> bool:
        """Whether it is about this tag."""
        return fnmatchcase(f"{repository}:{tag}", self.match)


@frozen
class Entry:
    """One upstream of the table.

    :ivar namespace: canonical (RULES B5).
    :ivar urls: where it is, first choice first; http and ports are fine.
    :ivar hosts: values of Host that mean this upstream; then the whole path is the repository (RULES B2).
    :ivar listen: the listener that means this upstream, as written in the configuration.
    :ivar library: whether a repository of one segment gets ``library/`` in front (Docker Hub).
    :ivar dotted_repositories: on the default entry: a first segment that looks like a host is none (RULES B3).
    :ivar client_credentials: whether it may see what clients send in Authorization (RULES C6).
    :ivar origins: further origins that it may send us to, whatever their address (RULES F2).
    :ivar token_realm: a token server elsewhere that may see credentials for it (RULES C8).
    :ivar allowed: globs of repositories; empty allows all.  ``*`` matches slashes too.
    :ivar refused: globs of repositories; they win over ``allowed``.
    :ivar account: where our own credentials for it come from; None has none.
    :ivar tls: for its own origins.
    :ivar tag_rules: the first that matches a tag counts.
    :ivar blob_invalidation_time_s: how old a kept blob may be before the upstream is asked whether it still has it;
        None never asks.
    :ivar quota_low: the part of the upstream's pull quota (RateLimit-Limit) below which tags are not confirmed in the
        background any more.
    :ivar is_listed: False for one that nobody has configured: public addresses only, nobody's credentials (RULES F1).
    :ivar stale_deadline_s: to the first byte where a stale answer is at hand (RULES D7, as the next three).
    :ivar head_deadline_s: for HEAD and manifests when the client has a fallback.
    :ivar blob_deadline_s: for blobs when the client has a fallback.
    :ivar deadline_s: for all else.
    :ivar token_deadline_s: to the first byte of the token server's answer.
    :ivar silence_timeout_s: without a byte, after which a body counts as broken off.
    :ivar max_connections: blob bodies at a time; short asks (HEAD, manifests, tokens) have as many again, so that
        they never wait behind long bodies.
    :raises ValueError: a namespace that is not canonical, no URL, or one that cannot be used.
    """

    namespace: str
    urls: tuple[str, ...] = field(converter=_base_urls)
    hosts: tuple[str, ...] = field(default=(), converter=_lower)
    listen: str | None = None
    library: bool = field(kw_only=True)
    dotted_repositories: bool = False
    client_credentials: ClientCredentials = "forward"
    origins: tuple[str, ...] = ()
    token_realm: str | None = None
    allowed: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    connect_timeout_s: float = 10.0
    stale_deadline_s: float = 2.0
    head_deadline_s: float = 10.0
    blob_deadline_s: float = 20.0
    deadline_s: float = 30.0
    token_deadline_s: float = 10.0
    silence_timeout_s: float = 30.0
    max_connections: int = 64
    user_agent: str = f"txociproxy/{__version__}"
    account: Account | None = field(default=None, repr=False)
    tls: Tls | None = None
    tag_rules: tuple[TagRule, ...] = ()
    blob_invalidation_time_s: float | None = None
    quota_low: float = 0.1
    is_listed: bool = True
    own_hosts: frozenset[str] = field(init=False, eq=False, repr=False)
    named_origins: frozenset[Origin] = field(init=False, eq=False, repr=False)

    @library.default
    def _library(self) -> bool:
        # RULES §6: only Docker Hub has official images under a name of its own.
        return self.namespace == "docker.io"

    @own_hosts.default
    def _own_hosts(self) -> frozenset[str]:
        return frozenset(Origin.of(url).host for url in self.urls)

    @named_origins.default
    def _named_origins(self) -> frozenset[Origin]:
        realm = () if self.token_realm is None else (self.token_realm,)
        return frozenset(Origin.of(url) for url in (*self.urls, *self.origins, *realm))

    def __attrs_post_init__(self) -> None:
        if not self.urls:
            raise ValueError("an upstream needs at least one URL")
        try:
            canonical = canonical_namespace(self.namespace)
        except OCIError as error:
            raise ValueError(error.message) from None
        if canonical != self.namespace:
            raise ValueError(f"write the namespace as {canonical!r}")

    def check(self, repository: Repository) -> None:
        """Let an allowed repository pass (RULES B7).

        :raises OCIError: DENIED.
        """
        path = str(repository)
        refused = any(fnmatchcase(path, glob) for glob in self.refused)
        if refused or (self.allowed and not any(fnmatchcase(path, glob) for glob in self.allowed)):
            key = "refused" if refused else "allowed"
            raise OCIError("DENIED", f"{path} is not served here: see `{key}` of the upstream {self.namespace}")

    def named(self, path: str) -> Repository:
        """Return the repository that a client means by this path.

        :raises OCIError: NAME_INVALID.
        """
        return Repository.parse(f"library/{path}" if self.library and "/" not in path else path)
