"""The values that people write into a configuration: durations, sizes, addresses, words.

A reader takes text and returns the value, or raises ValueError with "is not …; write …", which completes the sentence
"<option>: <text> …".
"""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import ip_address
from urllib.parse import urlsplit

from attrs import frozen

from txociproxy.upstreams.entries.read_values import absolute_path, duration
from txociproxy.web.doors import check_listen

__all__ = [
    "MinFree",
    "absolute_path",
    "address",
    "base_url",
    "boolean",
    "choice",
    "count",
    "duration",
    "min_free",
    "patience",
    "room",
    "size",
    "subject",
    "timeout",
    "word",
]

GIB = 2**30

_BYTES = {"": 1, "b": 1, "kib": 2**10, "mib": 2**20, "gib": GIB, "tib": 2**40, "kb": 10**3, "mb": 10**6, "gb": 10**9}
_BYTES.update({"k": 2**10, "m": 2**20, "g": GIB, "t": 2**40, "tb": 10**12})
_NUMBER = re.compile(r"(\d{1,15}(?:\.\d{1,6})?) ?([A-Za-z]{0,3})")


@frozen
class MinFree:
    """How much of the file system stays free: a share of it, and never less than a number of bytes."""

    fraction: float
    at_least_bytes: int


def boolean(text: str) -> bool:
    """Read a truth value."""
    try:
        return {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}[text.lower()]
    except KeyError:
        raise ValueError("is neither true nor false; write true, yes or 1, or false, no or 0") from None


def count(text: str) -> int:
    """Read a cap, which is at least one."""
    if not re.fullmatch(r"[0-9]{1,9}", text) or int(text) < 1:
        raise ValueError("is not a cap; write a whole number, at least 1")
    return int(text)


def timeout(text: str) -> float:
    """Read a time to wait in seconds; it is more than zero, since nothing here waits for ever or not at all."""
    seconds = duration(text)
    if seconds <= 0:
        raise ValueError("is no time to wait; write more than 0 (for example 30s)")
    return seconds


def patience(text: str) -> float | None:
    """Read a time that may be unlimited, which is None."""
    return None if text.lower() == "unlimited" else duration(text)


def size(text: str) -> int:
    """Read a number of bytes; KiB, MiB and GiB are powers of 1024, kB, MB and GB of 1000."""
    found = _NUMBER.fullmatch(text)
    if found is None or found.group(2).lower() not in _BYTES:
        raise ValueError("is not a size; write bytes, or a number with KiB, MiB, GiB or TiB (for example 256MiB)")
    return int(float(found.group(1)) * _BYTES[found.group(2).lower()])


def room(text: str) -> int:
    """Read a number of bytes that is more than nothing."""
    found = size(text)
    if found == 0:
        raise ValueError("leaves no room; write a size above 0 (for example 20GiB)")
    return found


def min_free(text: str) -> MinFree:
    """Read what must stay free: a percentage (then at least 1 GiB), a size, or 0 for nothing (RULES G2)."""
    found = re.fullmatch(r"(\d{1,2}(?:\.\d{1,3})?) ?%", text)
    if found is not None:
        fraction = float(found.group(1)) / 100
        return MinFree(fraction, GIB if fraction else 0)
    try:
        return MinFree(0.0, size(text))
    except ValueError:
        raise ValueError("is not an amount of space; write a percentage (5%), a size (10GiB), or 0") from None


def choice(*words: str) -> Callable[[str], str]:
    """Make a reader of one of these words."""

    def read(text: str) -> str:
        if text.lower() not in words:
            raise ValueError(f"is not known; write {' or '.join(words)}")
        return text.lower()

    return read


def address(text: str) -> str:
    """Check where to listen: ``:8080``, ``127.0.0.1:8080``, ``[::1]:8080`` or a Twisted endpoint description."""
    try:
        check_listen(text)
    except ValueError as error:
        raise ValueError(
            "is no place to listen; write :8080, 127.0.0.1:8080, [::1]:8080, unix:/path, systemd:, or a Twisted "
            "endpoint, with http:// or https:// in front if need be"
        ) from error
    return text


def subject(text: str) -> str:
    """Check a name or an IP address that a certificate can be for."""
    try:
        return str(ip_address(text))
    except ValueError:
        pass
    if not re.fullmatch(r"(?:\*\.)?[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*", text) or len(text) > 253:
        raise ValueError("is no name of a host and no IP address; write cache.internal or 10.0.0.5")
    return text.lower()


def base_url(text: str) -> str:
    """Check a URL under which clients reach us; no trailing slash."""
    try:
        parts = urlsplit(text)
        odd = parts.query or parts.fragment or "@" in parts.netloc or parts.path.strip("/") or not text.isprintable()
        if parts.scheme in ("http", "https") and parts.hostname and not odd and parts.port != 0:
            return f"{parts.scheme}://{parts.netloc}"
    except ValueError:
        pass  # a port that is no number, half an IPv6 address
    raise ValueError("is not the address of this proxy; write https://cache.example or http://cache.example:8080")


def word(text: str) -> str:
    """Take it as it is; it is judged where it is used."""
    return text
