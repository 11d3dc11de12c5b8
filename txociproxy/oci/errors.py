"""What can go wrong, one class each, and the one table from an OCI error code to an HTTP status."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from types import MappingProxyType

# distribution-spec, "Error Codes", with the status that its text and its conformance suite expect.  UNAVAILABLE is
# ours (the spec has no word for an upstream that is lost); ``status=`` says 504 where time ran out.
CODES: Mapping[str, int] = MappingProxyType(
    {
        "BLOB_UNKNOWN": 404,
        "MANIFEST_UNKNOWN": 404,
        "NAME_UNKNOWN": 404,
        "NAME_INVALID": 400,
        "DIGEST_INVALID": 400,
        "MANIFEST_INVALID": 400,
        "SIZE_INVALID": 400,
        "RANGE_INVALID": 416,
        "UNAUTHORIZED": 401,
        "DENIED": 403,
        "UNSUPPORTED": 405,
        "TOOMANYREQUESTS": 429,
        "UNAVAILABLE": 502,
    }
)


def reason_phrase(status: int) -> str:
    """Return the words behind a status in a status line; Twisted's own table ends before 429."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"


class TxOCIProxyError(Exception):
    """The root of everything this project raises on purpose."""


class OCIError(TxOCIProxyError):
    """The request gets this error as its answer.

    :param code: a key of :data:`CODES`.
    :param message: for the person at the client; never holds a credential.
    :param status: the HTTP status, where it is not the table's.
    :param headers: header fields that go with the answer.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        status: int | None = None,
        headers: tuple[tuple[str, str], ...] = (),
    ) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.status = CODES[code] if status is None else status
        self.headers = headers

    def to_json(self) -> bytes:
        """Return the body that the spec wants (distribution-spec, "Error Codes")."""
        return json.dumps({"errors": [{"code": self.code, "message": self.message}]}).encode("ascii")


def is_error(body: bytes) -> bool:
    """Say whether a body is an error as the spec wants it (distribution-spec, "Error Codes")."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and isinstance(found.get("errors"), list)


class UpstreamUnreachable(TxOCIProxyError):
    """No answer came from the upstream.

    :ivar timed_out: True says 504, False says 502.
    """

    def __init__(self, message: str, timed_out: bool = False) -> None:
        super().__init__(message)
        self.timed_out = timed_out


class StorageUnavailable(TxOCIProxyError):
    """The storage cannot do it now; the pull goes on without it."""


class NoSpace(StorageUnavailable):
    """The content cannot fit into the storage."""


class BodyLost(TxOCIProxyError):
    """These bytes of a body will never be here."""
