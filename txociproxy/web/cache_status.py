"""What the cache did, in the words of RFC 9211 (Cache-Status): one member, since ours is the only cache that we know.

=======  ==================================================  ========================================================
outcome  value                                               because
=======  ==================================================  ========================================================
hit      ``txociproxy; hit``                                 the content was here (``detail=redirect``: in the bucket)
stale    ``txociproxy; hit; detail=stale``                   what is here is used, since the upstream is lost
miss     ``txociproxy; fwd=uri-miss; stored``                it comes from the upstream and is kept
join     ``txociproxy; fwd=uri-miss; collapsed``             it was on its way already, for somebody else
bypass   ``txociproxy; fwd=uri-miss; detail=bypass``         it comes from the upstream, and the storage cannot keep it
relay    ``txociproxy; fwd=miss; fwd-status=404``            the upstream's own answer, which is not kept
error    ``txociproxy; detail=error``                        there is no answer but our own
=======  ==================================================  ========================================================

For a tag it is ``fwd=miss``: it may be unknown, older than it is believed, or known for another Accept only, and only
the first of these is a miss of the URI (RFC 9211, section 2.2).
"""

from __future__ import annotations

from typing import Final

from txociproxy.interfaces import Outcome

NAME: Final = "txociproxy"
ERROR: Final = f"{NAME}; detail=error"


def cache_status(outcome: Outcome, by_digest: bool, fwd_status: int | None = None, is_redirect: bool = False) -> str:
    """Return the value of the field.

    :param by_digest: whether a digest was asked for, rather than a tag or a list.
    :param fwd_status: what the upstream answered with, where that may be another status than ours.
    """
    if outcome == "hit":
        return f"{NAME}; hit; detail=redirect" if is_redirect else f"{NAME}; hit"
    fwd = "fwd=uri-miss" if by_digest else "fwd=miss"
    parameters = {
        "stale": "hit; detail=stale",
        "miss": f"{fwd}; stored",
        "join": f"{fwd}; collapsed",
        "bypass": f"{fwd}; detail=bypass",
        "relay": "fwd=miss" if fwd_status is None else f"fwd=miss; fwd-status={fwd_status}",
        "error": "detail=error",
    }
    return f"{NAME}; {parameters[outcome]}"
