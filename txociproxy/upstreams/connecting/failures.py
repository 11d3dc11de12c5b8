"""Why no answer came, in words that are safe to show: no query, no header, no address (RULES D7)."""

from __future__ import annotations

from OpenSSL import SSL
from service_identity import VerificationError
from twisted.internet import error as network
from twisted.internet.defer import CancelledError
from twisted.python.failure import Failure
from twisted.web._newclient import ParseError, _WrapperException  # private: the root of ResponseFailed and its kin

from txociproxy.oci.errors import OCIError, TxOCIProxyError, UpstreamUnreachable
from txociproxy.upstreams.origins import Origin

_MAX_REASON = 160
# Every word that :func:`reason` knows.
REASONS = (
    "refused",
    "dns",
    "tls",
    "timeout",
    "reset",
    "unreachable",
    "proxy",
    "breaker",
    "busy",
    "guard",
    "nonsense",
    "other",
)


class LeftAlone(UpstreamUnreachable):
    """Nothing was sent: the origin has not answered lately (RULES D8)."""


class Nonsense(UpstreamUnreachable):
    """An answer came that is none."""


def explained(error: Exception, url: str, expired_s: float | None) -> Exception:
    """Return what an exception of an agent means to us.

    :param expired_s: the deadline that had passed, or None; cancelling shows as many things, also as
        ``ResponseFailed([CancelledError])``.
    """
    if expired_s is not None:
        text = f"{Origin.of(url)} did not answer within {expired_s:.3g} s"
        return UpstreamUnreachable(text, timed_out=True)
    cause = _cause(error)
    if isinstance(cause, TxOCIProxyError | CancelledError):
        return cause
    timed_out = isinstance(cause, network.TimeoutError)
    return UpstreamUnreachable(f"{Origin.of(url)}: {words(cause)}", timed_out=timed_out)


def reason(error: BaseException, has_expired: bool, was_sent: bool = True) -> str:
    """Return what an exception of an agent means to us as one word of :data:`REASONS`.

    :param has_expired: the deadline had passed.
    :param was_sent: False for a request whose deadline passed while it waited for a place among our own connections.
    """
    if has_expired:
        return "timeout" if was_sent else "busy"
    cause = _cause(error)
    match cause:
        case LeftAlone():
            return "breaker"
        case Nonsense() | ParseError():
            return "nonsense"
        case UpstreamUnreachable():  # no agent says this of a registry, only the way through an outbound proxy does
            return "proxy"
        case OCIError():
            return "guard"
        case SSL.Error() | VerificationError():
            return "tls"
    return _network_reason(cause)


def _network_reason(cause: BaseException) -> str:
    match cause:
        case network.DNSLookupError():
            return "dns"
        case network.ConnectionRefusedError():
            return "refused"
        case network.TimeoutError():
            return "timeout"
        case network.ConnectError():
            return "unreachable"
        case network.ConnectionClosed():
            return "reset"
    return "other"


def has_hung_up(error: Exception) -> bool:
    """Say whether a connection that stood was closed in place of an answer."""
    return isinstance(error, _WrapperException) and isinstance(_cause(error), network.ConnectionClosed)


def _cause(error: BaseException) -> BaseException:
    """Unwrap what Twisted wraps in lists of reasons; the first that is more than the loss of the connection."""
    if not isinstance(error, _WrapperException):
        return error
    causes = [_cause(reason.value) for reason in error.reasons if isinstance(reason, Failure) and reason.value]
    telling = [cause for cause in causes if not isinstance(cause, network.ConnectionDone | network.ConnectionLost)]
    return (telling or causes or [error])[0]


def words(cause: BaseException) -> str:
    """Say what kind of failure it was; nothing of its own text but OpenSSL's reasons."""
    match cause:
        case SSL.Error():
            return f"TLS: {_tls_reason(cause)}"
        case VerificationError():
            return "TLS: the certificate is for another host"
        case network.DNSLookupError():
            return "its name has no address"
        case network.ConnectionRefusedError():
            return "connection refused"
        case network.TimeoutError():
            return "no connection in time"
        case network.ConnectError():
            return "no connection"
        case network.ConnectionClosed():
            return "the connection was closed before an answer"
        case ParseError():
            return "what came is not HTTP"
    return f"no answer ({type(cause).__name__})"


def _tls_reason(error: SSL.Error) -> str:
    """Return OpenSSL's words; they come as a list of (library, function, reason), or not at all."""
    reasons = [str(item[-1]) for item in (error.args[0] if error.args else ()) if isinstance(item, tuple) and item]
    text = ", ".join(reasons) or "the connection was closed during the handshake"
    if "wrong version number" in text:
        text += " (is it plain http? then write http:// in `urls`)"
    return "".join(char if char.isprintable() and char.isascii() else "?" for char in text)[:_MAX_REASON]
