"""What a client's Authorization means to the upstream (RULES C3, C5, C6)."""

from __future__ import annotations

import base64
import binascii

from attrs import field, frozen
from twisted.web.server import Request

from txociproxy.envelopes import PREFIX, Envelope, Envelopes, is_envelope
from txociproxy.interfaces import ANONYMOUS, Credentials
from txociproxy.upstreams.entries.table import Entry, Route
from txociproxy.web.asking import field_lines
from txociproxy.web.heads import malformed
from txociproxy.web.replies import BadToken

# What skopeo sends when it has neither name nor password.
_NOBODY = b":"


@frozen
class Shown:
    """What stands in a request's Authorization; at most one of these is set.

    :ivar native: what is no token of ours, as it came.
    :ivar envelope: a token of ours that is good.
    :ivar is_bad: a token of ours that is expired, was changed, or stands where none belongs.
    """

    native: str | None = field(default=None, repr=False)
    envelope: Envelope | None = None
    is_bad: bool = False


@frozen
class Reception:
    """Reads Authorization fields.

    :ivar _consumes: all of it is for our own door, and nothing goes on (RULES C6).
    :ivar _forgives: a bad or expired token of ours counts as none; else it is refused (RULES C5).
    """

    _envelopes: Envelopes
    _forgives: bool
    _consumes: bool = False

    def shown(self, request: Request) -> Shown:
        """Look at what a client shows.

        :raises OCIError: two Authorization fields.
        """
        authorization = authorization_of(request)
        if authorization is None or self._consumes:
            return Shown()
        scheme, value = parted(authorization)
        if scheme == "bearer" and is_envelope(value):
            envelope = self._envelopes.open(value)
            return Shown(envelope=envelope, is_bad=envelope is None)
        return Shown(is_bad=True) if hides_envelope(authorization) else Shown(native=authorization)

    def credentials(self, request: Request, route: Route) -> Credentials:
        """Return what goes to the upstream of this route in the client's name.

        :raises OCIError: two Authorization fields, or a token of ours that is no good here.
        """
        shown = self.shown(request)
        if not forwards(route.entry):
            return ANONYMOUS
        envelope = shown.envelope
        if envelope is None:
            return self.without_envelope(shown, route.entry)
        if envelope.covers(route.namespace, str(route.repository)):
            return _credentials(envelope.authorization, envelope.expires_at_s)
        if self._forgives:
            return ANONYMOUS
        raise BadToken("insufficient_scope", "the token was given for something else")

    def without_envelope(self, shown: Shown, entry: Entry) -> Credentials:
        """Return what may go to an upstream of all but good tokens of ours.

        :raises OCIError: it is a bad one, and that is not forgiven.
        """
        if shown.is_bad and forwards(entry) and not self._forgives:
            raise expired()
        return _credentials(shown.native) if forwards(entry) else ANONYMOUS


def expired() -> BadToken:
    """Return the error for a token of ours that cannot be opened (any more)."""
    return BadToken("invalid_token", "the token is expired or damaged; fetch another")


def forwards(entry: Entry) -> bool:
    """Say whether an upstream may see what clients hold for us; one that nobody configured never does (RULES C6)."""
    return entry.is_listed and entry.client_credentials == "forward"


def authorization_of(request: Request) -> str | None:
    """Return the field as it came; an empty credential is none.

    :raises OCIError: there are two.
    """
    lines = field_lines(request, "Authorization")
    if len(lines) > 1:
        raise malformed("Authorization may stand in a request only once")
    scheme, value = parted(lines[0] if lines else "")
    return None if not value or (scheme == "basic" and decoded(value) == _NOBODY) else lines[0].strip()


def parted(authorization: str) -> tuple[str, str]:
    """Return the lower-case scheme and what follows."""
    scheme, _, value = authorization.strip().partition(" ")
    return scheme.lower(), value.strip()


def decoded(value: str) -> bytes | None:
    """Return ``name:password`` out of a Basic credential (RFC 7617 §2); None says that it is none."""
    try:
        return base64.b64decode(value.encode("latin-1"), validate=True)
    except binascii.Error:
        return None


def hides_envelope(authorization: str) -> bool:
    """Say whether a token of ours stands where it does not belong, for example as a password.

    An upstream that got it could pull from here with it (RULES C5).
    """
    scheme, value = parted(authorization)
    inside = (decoded(value) or b"") if scheme == "basic" else b""
    return PREFIX in authorization or PREFIX.encode("ascii") in inside


def _credentials(authorization: str | None, expires_at_s: float | None = None) -> Credentials:
    """Return what a client brought; nothing is what everybody has."""
    return ANONYMOUS if authorization is None else Credentials(authorization, expires_at_s)
