"""The values that people write about a bucket; the readers are as those of :mod:`txociproxy.quantities`."""

from __future__ import annotations

import re
from ipaddress import IPv4Network, IPv6Network, ip_network
from urllib.parse import urlsplit

from txociproxy.quantities import duration, size
from txociproxy.upstreams.origins import Origin

# The SDK keeps sixteen connections to a bucket, four of which are for all else.
MOST_UPLOADS = 12
# A key has 1,024 bytes at most; the longest that goes behind it, that of a tag, is bounded too.
MAX_PREFIX_BYTES = 512
LEAST_URL_LIFE_S, MOST_URL_LIFE_S = 30.0, 12 * 3600.0


def bucket(text: str) -> str:
    """Check the name of a bucket; servers differ in what they take, so only what no server takes is refused."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{2,62}", text) or ".." in text:
        raise ValueError("is not the name of a bucket; write 3 to 63 letters, digits, dots and dashes")
    return text


def key_prefix(text: str) -> str:
    """Read what stands in front of all keys of a bucket; slashes at its ends do not count."""
    prefix = text.strip("/")
    parts = prefix.split("/") if prefix else []
    if not prefix.isprintable() or {"", ".", ".."} & {*parts} or len(prefix.encode()) > MAX_PREFIX_BYTES:
        raise ValueError(
            f"cannot stand in front of keys; write up to {MAX_PREFIX_BYTES} bytes as in team/cache, without . and .."
        )
    return prefix


def region(text: str) -> str:
    """Check the name of a region."""
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", text):
        raise ValueError("is not a region; write for example eu-central-1")
    return text


def endpoint(text: str) -> str:
    """Check the URL of an S3 server; only scheme, host and port."""
    try:
        parts = urlsplit(text)
        if not parts.path.strip("/") and not parts.query and not parts.fragment:
            return str(Origin.of(text))
    except ValueError:
        pass  # what is wrong may be a piece of a password
    raise ValueError("is not the address of an S3 server; write https://s3.example.com or http://10.0.0.5:9000")


def days(text: str) -> int:
    """Read a number of days; 0 is off."""
    if not re.fullmatch(r"[0-9]{1,5}", text):
        raise ValueError("is not a number of days; write a whole number, 0 is off")
    return int(text)


def url_life(text: str) -> float:
    """Read how long a signed URL is good: long enough to be followed, and not until it is forgotten."""
    seconds = duration(text)
    if not LEAST_URL_LIFE_S <= seconds <= MOST_URL_LIFE_S:
        raise ValueError("is not from 30s to 12h; write for example 15m")
    return seconds


def uploads(text: str) -> int:
    """Read how many uploads run at once."""
    if not text.isascii() or not text.isdigit() or len(text) > 2 or not 1 <= int(text) <= MOST_UPLOADS:
        raise ValueError(f"is not from 1 to {MOST_UPLOADS}; write a whole number")
    return int(text)


def redirect_above(text: str) -> int | None:
    """Read from which size on clients are redirected: above this many bytes; None is never."""
    if text.lower() in ("always", "never"):
        return 0 if text.lower() == "always" else None
    try:
        if text.startswith(">"):
            return size(text[1:].strip())
    except ValueError:
        pass
    raise ValueError("is not known; write always, never, or a size behind > (for example >64MiB)")


def network(text: str) -> IPv4Network | IPv6Network:
    """Read a network of client addresses; one address alone is one of its own."""
    try:
        return ip_network(text)
    except ValueError:
        raise ValueError("is not a network; write for example 10.0.0.0/8 or fd00::/8") from None
