"""What a client's Authorization means to the upstream (RULES C3, C5, C6)."""

from __future__ import annotations

from attrs import frozen
from twisted.web.server import Request

from txociproxy.envelopes import Envelopes, is_envelope
from txociproxy.interfaces import ANONYMOUS, Credentials
from txociproxy.oci.errors import OCIError
from txociproxy.upstreams.table import Entry, Route
from txociproxy.web.asking import field_lines
from txociproxy.web.heads import malformed

# What skopeo sends when it has neither name nor password.
_EMPTY_BASIC = "Og=="


@frozen
class Reception:
    """Reads Authorization fields.

    :ivar _forgives: a bad or expired token of ours counts as none; else it is refused (RULES C5).
    """

    _envelopes: Envelopes
    _forgives: bool

    def credentials(self, request: Request, route: Route) -> Credentials:
        """Return what goes to the upstream of this route in the client's name.

        :raises OCIError: two Authorization fields, or a token of ours that is no good.
        """
        authorization = _authorization(request)
        token = _bearer_token(authorization)
        if token is not None and is_envelope(token):
            return self._opened(token, route)
        return _forwarded(authorization, route.entry)

    def shows_ours(self, request: Request) -> bool:
        """Say whether a ping shows a token that we gave and that is still good."""
        token = _bearer_token(_authorization(request))
        return token is not None and self._envelopes.open(token) is not None

    def _opened(self, token: str, route: Route) -> Credentials:
        """Look into a token of ours; it is good for its own repositories only."""
        envelope = self._envelopes.open(token)
        if envelope is not None and envelope.covers(route.namespace, str(route.repository)):
            return _forwarded(envelope.authorization, route.entry)
        if self._forgives:
            return ANONYMOUS
        raise OCIError("UNAUTHORIZED", "the token is expired, or was given for something else")


def _forwarded(authorization: str | None, entry: Entry) -> Credentials:
    """Pass it on as it is, unless this upstream must not see what clients hold for us."""
    if authorization is None or entry.client_credentials != "forward":
        return ANONYMOUS
    return Credentials(authorization)


def _authorization(request: Request) -> str | None:
    """Return the field as it came; an empty credential is none."""
    lines = field_lines(request, "Authorization")
    if len(lines) > 1:
        raise malformed("Authorization may stand in a request only once")
    scheme, value = _parted(lines[0] if lines else "")
    return None if not value or (scheme, value) == ("basic", _EMPTY_BASIC) else lines[0].strip()


def _bearer_token(authorization: str | None) -> str | None:
    """Return the token of a Bearer credential."""
    scheme, value = _parted(authorization or "")
    return value if scheme == "bearer" else None


def _parted(authorization: str) -> tuple[str, str]:
    """Return the lower-case scheme and what follows."""
    scheme, _, value = authorization.strip().partition(" ")
    return scheme.lower(), value.strip()
