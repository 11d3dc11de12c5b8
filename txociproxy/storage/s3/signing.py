"""Presigned URLs: who has one may read one object for a while, with any Range and no credential.

Signature Version 4 in a query, as the S3 API reference says under "Authenticating Requests: Using Query Parameters".
It is written out here because a hit needs one, in the reactor: the SDK takes fifty times as long.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Callable
from typing import Literal
from urllib.parse import quote, urlsplit

from attrs import define, field, frozen

# The longest life that a signature of this kind may have.
MOST_S = 7 * 24 * 3600
_ALGORITHM = "AWS4-HMAC-SHA256"


@frozen
class Identity:
    """Whose signature it is.

    :ivar token: of a session; None for long-lived keys.
    :ivar ends_at_s: when the keys end, in seconds since the epoch; None is never, or not known.
    """

    access_key: str = field(repr=False)
    secret_key: str = field(repr=False)
    token: str | None = field(default=None, repr=False)
    ends_at_s: float | None = None


@frozen
class Base:
    """What stands before the keys in a bucket's URLs.

    :ivar url: without a slash at its end.
    :ivar host: as it stands in the Host field, that is without the scheme's own port (RFC 9110 section 4.2.3).
    :ivar path: already encoded, without a slash at its end.
    """

    url: str
    host: str
    path: str

    @classmethod
    def of(cls, url: str) -> Base:
        """Take a URL apart; its query is left out."""
        where = urlsplit(url)
        usual = {"http": ":80", "https": ":443"}.get(where.scheme, "")
        host = where.netloc.rpartition("@")[2].lower().removesuffix(usual)
        path = where.path.rstrip("/")
        return cls(f"{where.scheme}://{host}{path}", host, path)


@define(eq=False)
class Signer:
    """Signs for one bucket.

    :ivar _take: gives the identity anew; blocks, since it may be renewed over the network.
    :ivar _base, _public_base: of the bucket as we reach it, and as clients do.
    :ivar _identity: the one that was taken last; what is signed with it never waits for another.
    :ivar count: how many URLs were signed.
    """

    _take: Callable[[], Identity] = field(repr=False)
    _region: str
    _base: Base
    _public_base: Base
    _identity: Identity = field(init=False)
    count: int = 0

    def __attrs_post_init__(self) -> None:
        self.refresh()

    def refresh(self) -> None:
        """Take the identity anew; blocks.

        :raises S3Trouble: there is none; the one that was taken before stays.
        """
        self._identity = self._take()

    def presign(
        self, method: Literal["GET", "HEAD"], key: str, life_s: float, now_s: float, public: bool = False
    ) -> tuple[str, float]:
        """Return a URL, and for how many seconds it is good: never longer than the identity is.

        :param now_s: seconds since the epoch.
        :param public: under the name by which clients reach the bucket.
        """
        self.count += 1
        identity, whole_s = self._identity, int(now_s)
        ends_at_s = now_s + min(life_s, MOST_S)
        if identity.ends_at_s is not None:
            ends_at_s = min(ends_at_s, identity.ends_at_s)
        life_s = max(1, int(ends_at_s - whole_s))
        url = _signed(method, self._public_base if public else self._base, key, self._region, identity, whole_s, life_s)
        return url, max(0.0, min(ends_at_s, whole_s + life_s) - now_s)


def _signed(method: str, base: Base, key: str, region: str, identity: Identity, now_s: int, life_s: int) -> str:
    """Return the URL with its signature; of the header only the host is signed, so that any Range may be asked for."""
    at = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now_s))
    scope = f"{at[:8]}/{region}/s3/aws4_request"
    parts = {
        "X-Amz-Algorithm": _ALGORITHM,
        "X-Amz-Credential": f"{identity.access_key}/{scope}",
        "X-Amz-Date": at,
        "X-Amz-Expires": str(life_s),
        **({} if identity.token is None else {"X-Amz-Security-Token": identity.token}),
        "X-Amz-SignedHeaders": "host",
    }
    query = "&".join(f"{name}={quote(value, safe='')}" for name, value in parts.items())  # in the order of the names
    encoded = quote(key, safe="/")
    request = f"{method}\n{base.path}/{encoded}\n{query}\nhost:{base.host}\n\nhost\nUNSIGNED-PAYLOAD"
    text = f"{_ALGORITHM}\n{at}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
    secret = f"AWS4{identity.secret_key}".encode()
    for part in (at[:8], region, "s3", "aws4_request", text):
        secret = hmac.digest(secret, part.encode(), "sha256")
    return f"{base.url}/{encoded}?{query}&X-Amz-Signature={secret.hex()}"
