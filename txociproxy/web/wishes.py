"""What is asked of the token endpoint, in its two forms: for which repositories, and in whose name (RULES C4).

A GET says it in its query and in Authorization, a POST in its form (RFC 6749, section 4.3): containerd tries that first
when it has a user.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import BinaryIO, Final, cast
from urllib.parse import parse_qs

from attrs import field, frozen
from twisted.web.server import Request

from txociproxy.oci.challenges import Scope, basic, parse_scopes
from txociproxy.oci.errors import OCIError
from txociproxy.oci.names import Repository
from txociproxy.oci.requests import TokenAsk
from txociproxy.upstreams.entries.table import UpstreamTable
from txociproxy.web.asking import host_of, listener_of
from txociproxy.web.authorization import authorization_of, decoded, forwards, hides_envelope, parted
from txociproxy.web.heads import malformed

MAX_PARAMETERS: Final = 64

# The bytes of each value, one character each.
Parameters = Mapping[str, list[str]]
# The namespace, empty for none, and its repositories.
_Named = tuple[str, tuple[Repository, ...]]


@frozen
class Wish:
    """For what a token is wanted.

    :ivar namespace: empty for a login without scope, whose token is good for nothing but a ping.
    :ivar repositories: those that are served here.
    :ivar login: what is to be exchanged at the upstream, ``Basic ...``; None asks nobody.
    """

    namespace: str
    repositories: tuple[Repository, ...]
    login: str | None = field(repr=False)

    @classmethod
    def of(cls, request: Request, asked: TokenAsk, table: UpstreamTable) -> Wish:
        """Read a request.

        :raises OCIError: it makes no sense, or its namespace is not served here.
        """
        parameters = _parameters(request)
        login = _login(request, parameters)
        scopes = tuple(filter(_pulls, parse_scopes(parameters.get("scope", []))))
        if asked.namespace is None:
            namespace, repositories = _routed(table, scopes, host_of(request), listener_of(request))
        else:
            namespace = table.listed(asked.namespace).namespace
            repositories = _repositories(table, scopes, namespace)
        entry = table.entry(namespace)
        sees_it = entry is not None and forwards(entry) and bool(repositories)
        return cls(namespace, repositories, login if sees_it else None)


def _pulls(scope: Scope) -> bool:
    """Say whether anything is left of a scope once it is cut to pulling from a repository."""
    return scope.type == "repository" and bool({"pull", "*"} & set(scope.actions))


def _routed(table: UpstreamTable, scopes: Iterable[Scope], host: str | None, listener: str | None) -> _Named:
    """Take the namespace of the first scope that has one; the others must agree."""
    namespace = ""
    repositories: dict[Repository, None] = {}
    for scope in scopes:
        try:
            route = table.route(scope.name, None, host, listener)
        except OCIError:
            continue
        namespace = namespace or route.namespace
        if route.namespace == namespace:
            repositories[route.repository] = None
    return namespace, tuple(repositories)


def _repositories(table: UpstreamTable, scopes: Iterable[Scope], namespace: str) -> tuple[Repository, ...]:
    """Return the repositories of this namespace that are named; a name that is not served is left out."""
    repositories: dict[Repository, None] = {}
    for scope in scopes:
        try:
            repositories[table.route(scope.name, namespace, None).repository] = None
        except OCIError:
            continue
    return tuple(repositories)


def _parameters(request: Request) -> Parameters:
    """Return what a GET says in its query or a POST in its form."""
    text = request.uri.partition(b"?")[2]
    if request.method == b"POST":
        text = cast(BinaryIO, request.content).read()
    try:
        # Latin-1, so that a password keeps its bytes, whatever they mean.
        return parse_qs(text.decode("ascii"), keep_blank_values=True, encoding="latin-1", max_num_fields=MAX_PARAMETERS)
    except ValueError as error:  # not ASCII, too many, or no form at all
        raise malformed("the form cannot be read") from error


def _login(request: Request, parameters: Parameters) -> str | None:
    """Return what a client shows, as ``Basic ...``; nothing, and what is no Basic credential, is none.

    :raises OCIError: it cannot be read, or cannot be any good.
    """
    authorization = authorization_of(request)
    login = _in_form(parameters) if request.method == b"POST" else _in_field(authorization)
    if login is not None and hides_envelope(login):
        raise OCIError("UNAUTHORIZED", "a token of this registry is no password")
    return login


def _in_field(authorization: str | None) -> str | None:
    """Read an Authorization field."""
    scheme, value = parted(authorization or "")
    if scheme != "basic":
        return None
    if b":" not in (decoded(value) or b""):
        raise malformed("Authorization is no Basic credential")
    return f"Basic {value}"


def _in_form(parameters: Parameters) -> str | None:
    """Read a form (RFC 6749, sections 4.3.2 and 6)."""
    grant_type = _only(parameters, "grant_type")
    if grant_type == "refresh_token":
        raise OCIError("UNAUTHORIZED", "no refresh token was given here; ask with name and password")
    if grant_type != "password":
        raise malformed("the grant_type must be password")
    name, password = _only(parameters, "username"), _only(parameters, "password")
    if ":" in name:
        raise malformed("a user's name has no colon")  # RFC 7617 §2: it would end there
    if not name and not password:
        return None
    return basic(f"{name}:{password}".encode("latin-1"))


def _only(parameters: Parameters, name: str) -> str:
    """Return a parameter that makes sense only once; absent is empty."""
    values = parameters.get(name, [""])
    if len(values) > 1:
        raise malformed(f"{name} may stand in a form only once")
    return values[0]
