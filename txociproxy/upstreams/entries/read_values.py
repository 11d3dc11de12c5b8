"""Single values of an upstream; a reader returns the value or raises ValueError with "must be …" or "is …"."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path

from txociproxy.upstreams.origins import Origin, base_url

MAX_DEADLINE_S = 3600.0
MAX_CONNECTIONS = 4096

_SECONDS = (("", 1), ("s", 1), ("m", 60), ("h", 3600), ("d", 86400), ("w", 7 * 86400))
_DURATION = re.compile(r"(\d{1,15}(?:\.\d{1,6})?) ?([A-Za-z]{0,3})")
# RFC 3986 §3.2.2, with a port if need be; as the door takes them.
_HOST = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")


def duration(text: str) -> float:
    """Read a time in seconds; zero is allowed."""
    found = _DURATION.fullmatch(text)
    seconds = dict(_SECONDS).get(found.group(2).lower()) if found else None
    if found is None or seconds is None:
        raise ValueError("is not a duration; write seconds, or a number with s, m, h, d or w (for example 90s or 1h)")
    return float(found.group(1)) * seconds


def absolute_path(text: str) -> str:
    """Make a path absolute, since the process may go elsewhere later."""
    try:
        if text.isprintable():
            return str(Path(text).expanduser().absolute())
    except RuntimeError:
        pass  # ~somebody who is not there
    raise ValueError("is not a path; write an absolute one")


def text(value: object) -> str:
    """Read a text of one line."""
    if not isinstance(value, str) or not value.isascii() or not value.isprintable() or not value.strip():
        raise ValueError("must be a text of printable ASCII")
    return value.strip()


def texts(value: object) -> tuple[str, ...]:
    """Read a list; one text alone is a list of one."""
    if isinstance(value, str):
        return (text(value),)
    if not isinstance(value, list | tuple):
        raise ValueError("must be a list of texts")
    return tuple(text(item) for item in value)


def hosts(value: object) -> tuple[str, ...]:
    """Read names as they stand in Host."""
    names = texts(value)
    if not all(_HOST.fullmatch(name) for name in names):
        raise ValueError("must be hosts as clients name them, for example [cache-hub.example.com]")
    return names


def urls(value: object) -> tuple[str, ...]:
    """Read addresses of registries."""
    found = texts(value)
    if not found:
        raise ValueError("must be a list of at least one URL, for example [https://registry.example.com]")
    return tuple(_url(url, base_url) for url in found)


def origins(value: object) -> tuple[str, ...]:
    """Read URLs of which only scheme, host and port count."""
    return tuple(_url(url, lambda item: str(Origin.of(item))) for url in texts(value))


def realm(value: object) -> str:
    """Read the URL of a token server."""
    url = text(value)
    _url(url, lambda item: str(Origin.of(item)))
    return url


def _url(url: str, check: Callable[[str], str]) -> str:
    try:
        return check(url)
    except ValueError as error:
        raise ValueError(f"{error}; write for example https://registry.example.com:5000") from None


def flag(value: object) -> bool:
    """Read a truth value as YAML knows it."""
    if not isinstance(value, bool):
        raise ValueError("must be true or false")
    return value


def seconds(value: object) -> float:
    """Read a duration: a number of seconds, or a text as the settings have it; zero is allowed."""
    if isinstance(value, str):
        try:
            return duration(value.strip())
        except ValueError:
            pass
    elif isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e15:
        return float(value)
    raise ValueError("must be a duration: seconds, or a number with s, m, h, d or w (for example 90s or 1h)")


def patience(value: object) -> float:
    """Read a duration that may be unlimited, which is infinity."""
    return math.inf if value == "unlimited" else seconds(value)


def deadline(value: object) -> float:
    """Read a time to wait, which is neither nothing nor endless."""
    remedy = f"must be a number of seconds above 0, up to {MAX_DEADLINE_S:.0f} (for example 30 or 30s)"
    try:
        found = seconds(value)
    except ValueError:
        raise ValueError(remedy) from None
    if not 0 < found <= MAX_DEADLINE_S:
        raise ValueError(remedy)
    return found


def connections(value: object) -> int:
    """Read a cap of connections."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= MAX_CONNECTIONS:
        raise ValueError(f"must be a whole number from 1 to {MAX_CONNECTIONS}")
    return value


def part(value: object) -> float:
    """Read a part of a whole: 0 to 1, or a percentage."""
    found = re.fullmatch(r"(\d{1,3}(?:\.\d{1,6})?) ?%", value) if isinstance(value, str) else None
    number = float(found.group(1)) / 100 if found else value
    if isinstance(number, bool) or not isinstance(number, int | float) or not 0 <= number <= 1:
        raise ValueError("must be a part from 0 to 1, or a percentage (for example 10%)")
    return float(number)


def one_of(*words: str) -> Callable[[object], str]:
    """Make a reader of one of these words."""

    def read(value: object) -> str:
        if value not in words:
            raise ValueError(f"must be {' or '.join(f'`{word}`' for word in words)}")
        return str(value)

    return read


def path(value: object) -> str:
    """Read the path of a file; relative ones count from the working directory.

    What somebody has pasted in place of a path is not taken for one, so that it is not shown as one later.
    """
    if not isinstance(value, str) or not value.strip() or "-----BEGIN" in value or len(value) > 4096:
        raise ValueError("must be the path of a file, for example /etc/ociproxy/file")
    try:
        return absolute_path(value.strip())
    except ValueError:
        raise ValueError("must be the path of a file, for example /etc/ociproxy/file") from None
