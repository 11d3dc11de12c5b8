"""What each kind of registry is asked for each kind of client, and what the client gets: one row per story.

A step is ``status: request | request ...``; a request is the server, the method, the target, what was shown and the
status.  ``scope`` is the right one for the row's repository, ``data`` the CDN's copy of the blob, behind its signature.
"""

from __future__ import annotations

from typing import Literal

from attrs import frozen

from tests.e2e.kinds import ECR, GHCR, HUB, QUAY, Kind

Mode = Literal["transparent", "authenticated"]
TRANSPARENT: Mode = "transparent"
AUTHENTICATED: Mode = "authenticated"

_SERVES_NOBODY = "200: registry GET blobs/DIGEST bearer nobody 307 | cdn GET data nobody 200"
_SERVES_CLIENT = "200: registry GET blobs/DIGEST bearer client 307 | cdn GET data nobody 200"
_SERVES_OWN = "200: registry GET blobs/DIGEST bearer own 307 | cdn GET data nobody 200"
_ADMITS_NOBODY = "200: registry HEAD blobs/DIGEST bearer nobody 307 | cdn HEAD data nobody 200"
_ADMITS_CLIENT = "200: registry HEAD blobs/DIGEST bearer client 307 | cdn HEAD data nobody 200"


@frozen
class Step:
    """What a client gets for one request, and what its upstream was asked.

    :ivar status: 0 where nothing was asked.
    """

    status: int
    requests: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> Step:
        """Read a step."""
        status, _, requests = text.partition(":")
        return cls(int(status), tuple(request.strip() for request in requests.split("|") if request.strip()))


@frozen
class Row:
    """One client, one repository that nobody has pulled before.

    :ivar own: whether the proxy has credentials of its own for this upstream.
    :ivar who: ``nobody``, the ``client``, or ``wrong``, who mistypes the password.
    :ivar owner: the first part of the repository's name: ``public`` or ``team``.
    :ivar token: our token endpoint, which nobody does not ask.
    """

    kind: Kind
    mode: Mode
    own: bool
    who: Literal["nobody", "client", "wrong"]
    owner: str
    token: str
    manifest: str
    blob: str

    def __str__(self) -> str:
        return f"{self.kind.name} {self.mode} {'own ' if self.own else ''}{self.who} {self.owner}"


def _quay(step: str) -> str:
    """Quay redirects by 302."""
    return step.replace(" 307", " 302")


def _bearer(kind: Kind) -> tuple[Row, ...]:
    """Return the rows in which all Bearer kinds are alike (distribution: docs/spec/auth/token.md)."""
    quay = _quay if kind is QUAY else str
    return (
        # C7: nobody is challenged, gets a token of the right scope as nobody, and shows that.  F3: not to the CDN.
        Row(
            kind, TRANSPARENT, False, "nobody", "public", "0:",
            "200: registry GET manifests/1 nobody 401 | tokens GET scope nobody 200"
            " | registry GET manifests/1 bearer nobody 200",
            quay(_SERVES_NOBODY),
        ),
        # C4, C8: the client's password goes to the token server only; C5: what it gave goes to the registry.
        Row(
            kind, TRANSPARENT, False, "client", "team",
            "200: registry GET /v2/ nobody 401 | tokens GET scope basic client 200",
            "200: registry GET manifests/1 bearer client 200",
            quay(_SERVES_CLIENT),
        ),
        # D: our own login serves whoever has none, and goes to the token server only.
        Row(
            kind, TRANSPARENT, True, "nobody", "team", "0:",
            "200: registry GET manifests/1 nobody 401 | tokens GET scope basic own 200"
            " | registry GET manifests/1 bearer own 200",
            quay(_SERVES_OWN),
        ),
        # D: the client's own comes first.
        Row(
            kind, TRANSPARENT, True, "client", "team",
            "200: registry GET /v2/ nobody 401 | tokens GET scope basic client 200",
            "200: registry GET manifests/1 bearer client 200",
            quay(_SERVES_CLIENT),
        ),
        # D1: HEAD, redirects followed, then one GET in the same name; the tag's digest is what is fetched.
        Row(
            kind, AUTHENTICATED, False, "nobody", "public", "0:",
            "200: registry HEAD manifests/1 nobody 401 | tokens GET scope nobody 200"
            " | registry HEAD manifests/1 bearer nobody 200 | registry GET manifests/DIGEST bearer nobody 200",
            quay(f"{_ADMITS_NOBODY} | {_SERVES_NOBODY[5:]}"),
        ),
        Row(
            kind, AUTHENTICATED, False, "client", "team",
            "200: registry GET /v2/ nobody 401 | tokens GET scope basic client 200",
            "200: registry HEAD manifests/1 bearer client 200 | registry GET manifests/DIGEST bearer client 200",
            quay(f"{_ADMITS_CLIENT} | {_SERVES_CLIENT[5:]}"),
        ),
    )  # fmt: skip


def _refused_late(kind: Kind) -> tuple[Row, ...]:
    """Return refusals of those that give everybody a token, good for nothing (Docker Hub, Quay)."""
    late = (
        "401: registry {0} nobody 401 | tokens GET scope nobody 200 | registry {0} bearer nobody 401",
        # C7: a 401 with a kept token leads to one fresh one.
        "401: registry {0} bearer nobody 401 | tokens GET scope nobody 200 | registry {0} bearer nobody 401",
    )
    first, again = (step.format for step in late)
    wrong = "401: registry GET /v2/ nobody 401 | tokens GET scope basic ? 401"
    return (
        Row(kind, TRANSPARENT, False, "nobody", "team", "0:", first("GET manifests/1"), again("GET blobs/DIGEST")),
        Row(kind, TRANSPARENT, False, "wrong", "team", wrong, first("GET manifests/1"), again("GET blobs/DIGEST")),
        # Authenticated mode never uses our own login.
        Row(kind, AUTHENTICATED, True, "nobody", "team", "0:", first("HEAD manifests/1"), again("HEAD blobs/DIGEST")),
        Row(kind, AUTHENTICATED, True, "wrong", "team", wrong, first("HEAD manifests/1"), again("HEAD blobs/DIGEST")),
    )


def _refused_early() -> tuple[Row, ...]:
    """Return refusals of GHCR, whose token server says 403."""
    refused = "401: registry {0} nobody 401 | tokens GET scope nobody 403".format
    wrong = "401: registry GET /v2/ nobody 401 | tokens GET scope basic ? 403"
    return (
        Row(GHCR, TRANSPARENT, False, "nobody", "team", "0:", refused("GET manifests/1"), refused("GET blobs/DIGEST")),
        Row(GHCR, TRANSPARENT, False, "wrong", "team", wrong, refused("GET manifests/1"), refused("GET blobs/DIGEST")),
        Row(GHCR, AUTHENTICATED, True, "nobody", "team", "0:",
            refused("HEAD manifests/1"), refused("HEAD blobs/DIGEST")),
        Row(GHCR, AUTHENTICATED, True, "wrong", "team", wrong,
            refused("HEAD manifests/1"), refused("HEAD blobs/DIGEST")),
    )  # fmt: skip


# C4: a registry that wants Basic sends nobody to a token server, so that no password is tried at our endpoint.
_PING = "200: registry GET /v2/ nobody 401"
_ECR = (
    Row(ECR, TRANSPARENT, False, "nobody", "team", "0:",
        "401: registry GET manifests/1 nobody 401", "401: registry GET blobs/DIGEST nobody 401"),
    Row(ECR, TRANSPARENT, False, "client", "team", _PING,
        "200: registry GET manifests/1 basic client 200",
        "200: registry GET blobs/DIGEST basic client 307 | cdn GET data nobody 200"),
    # D: the client's refusal leads to nobody's.
    Row(ECR, TRANSPARENT, False, "wrong", "team", _PING,
        "401: registry GET manifests/1 basic ? 401 | registry GET manifests/1 nobody 401",
        "401: registry GET blobs/DIGEST basic ? 401 | registry GET blobs/DIGEST nobody 401"),
    Row(ECR, TRANSPARENT, True, "nobody", "team", "0:",
        "200: registry GET manifests/1 nobody 401 | registry GET manifests/1 basic own 200",
        "200: registry GET blobs/DIGEST basic own 307 | cdn GET data nobody 200"),
    # D: the client's refusal leads to our own; that Basic is wanted is known then.
    Row(ECR, TRANSPARENT, True, "wrong", "team", _PING,
        "200: registry GET manifests/1 basic ? 401 | registry GET manifests/1 nobody 401"
        " | registry GET manifests/1 basic own 200",
        "200: registry GET blobs/DIGEST basic ? 401"
        " | registry GET blobs/DIGEST basic own 307 | cdn GET data nobody 200"),
    Row(ECR, AUTHENTICATED, True, "nobody", "team", "0:",
        "401: registry HEAD manifests/1 nobody 401", "401: registry HEAD blobs/DIGEST nobody 401"),
    # D1: the address was signed for GET, so that HEAD is 403 there; the first byte tells.
    Row(ECR, AUTHENTICATED, False, "client", "team", _PING,
        "200: registry HEAD manifests/1 basic client 200 | registry GET manifests/DIGEST basic client 200",
        "200: registry HEAD blobs/DIGEST basic client 307 | cdn HEAD data nobody 403"
        " | registry GET blobs/DIGEST basic client 307 bytes=0-0 | cdn GET data nobody 206 bytes=0-0"
        " | registry GET blobs/DIGEST basic client 307 | cdn GET data nobody 200"),
    Row(ECR, AUTHENTICATED, True, "wrong", "team", _PING,
        "401: registry HEAD manifests/1 basic ? 401", "401: registry HEAD blobs/DIGEST basic ? 401"),
)  # fmt: skip

ROWS = (
    *_bearer(HUB),
    *_refused_late(HUB),
    *_bearer(GHCR),
    *_refused_early(),
    *_bearer(QUAY),
    *_refused_late(QUAY),
    *_ECR,
)
