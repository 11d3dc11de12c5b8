"""Entries of the table out of what the configuration file says, with errors that name key, value and remedy."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any

from txociproxy.oci.errors import OCIError
from txociproxy.oci.names import canonical_namespace
from txociproxy.upstreams.entry import Entry
from txociproxy.upstreams.origins import Origin, base_url

# RULES B6.  Docker Hub is the one registry whose name is not its host.
SHIPPED_URLS: Mapping[str, str] = MappingProxyType(
    {
        "docker.io": "https://registry-1.docker.io",
        "ghcr.io": "https://ghcr.io",
        "quay.io": "https://quay.io",
        "gcr.io": "https://gcr.io",
        "registry.k8s.io": "https://registry.k8s.io",
        "public.ecr.aws": "https://public.ecr.aws",
        "mcr.microsoft.com": "https://mcr.microsoft.com",
        "cgr.dev": "https://cgr.dev",
    }
)

MAX_DURATION_S = 3600.0
MAX_CONNECTIONS = 4096

# A password in a URL is refused, and must not be shown while that is said.  Whoever put it there may have put any
# character into it, a slash, a quote or an @ as well, so that nothing before the last @ is safe to show.
_USERINFO = re.compile(r".*@", re.DOTALL)
# RFC 3986 §3.2.2, with a port if need be; as the door takes them.
_HOST = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")


def _text(value: object) -> str:
    if not isinstance(value, str) or not value.isascii() or not value.isprintable() or not value.strip():
        raise ValueError("must be a text of printable ASCII")
    return value.strip()


def _texts(value: object) -> tuple[str, ...]:
    """Read a list; one text alone is a list of one."""
    if isinstance(value, str):
        return (_text(value),)
    if not isinstance(value, list | tuple):
        raise ValueError("must be a list of texts")
    return tuple(_text(item) for item in value)


def _hosts(value: object) -> tuple[str, ...]:
    hosts = _texts(value)
    if not all(_HOST.fullmatch(host) for host in hosts):
        raise ValueError("must be hosts as clients name them, for example [cache-hub.example.com]")
    return hosts


def _urls(value: object) -> tuple[str, ...]:
    urls = _texts(value)
    if not urls:
        raise ValueError("must be a list of at least one URL, for example [https://registry.example.com]")
    return tuple(_url(url, base_url) for url in urls)


def _origins(value: object) -> tuple[str, ...]:
    return tuple(_url(url, lambda text: str(Origin.of(text))) for url in _texts(value))


def _realm(value: object) -> str:
    realm = _text(value)
    _url(realm, lambda text: str(Origin.of(text)))
    return realm


def _url(url: str, check: Callable[[str], str]) -> str:
    try:
        return check(url)
    except ValueError as error:
        raise ValueError(f"{error}; write for example https://registry.example.com:5000") from None


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("must be true or false")
    return value


def _duration_s(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= MAX_DURATION_S:
        raise ValueError(f"must be a number of seconds above 0, up to {MAX_DURATION_S:.0f}")
    return float(value)


def _connections(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= MAX_CONNECTIONS:
        raise ValueError(f"must be a whole number from 1 to {MAX_CONNECTIONS}")
    return value


def _client_credentials(value: object) -> str:
    if value not in ("forward", "ignore"):
        raise ValueError("must be `forward` or `ignore`")
    return str(value)


# One line per key of the file; the names are those of Entry.
_READERS: Mapping[str, Callable[[object], object]] = MappingProxyType(
    {
        "namespace": _text,
        "urls": _urls,
        "hosts": _hosts,
        "listen": _text,
        "library": _flag,
        "dotted_repositories": _flag,
        "client_credentials": _client_credentials,
        "origins": _origins,
        "token_realm": _realm,
        "allowed": _texts,
        "refused": _texts,
        "connect_timeout_s": _duration_s,
        "stale_deadline_s": _duration_s,
        "head_deadline_s": _duration_s,
        "blob_deadline_s": _duration_s,
        "deadline_s": _duration_s,
        "token_deadline_s": _duration_s,
        "silence_timeout_s": _duration_s,
        "max_connections": _connections,
        "user_agent": _text,
    }
)


def entry_from_mapping(mapping: object) -> Entry:
    """Read one item of ``upstreams``.

    ``namespace`` may be a URL; then it is its host, and ``urls`` need not be there.  Registries of the shipped
    table need no ``urls`` either, and any other name leads to ``https://<name>``.

    :raises ValueError: one line that names the key, the value and the remedy.
    """
    if not isinstance(mapping, Mapping):
        raise ValueError(f"upstreams: {_shown(repr(mapping))} must be a mapping, for example {{namespace: docker.io}}")
    where = f"upstreams[{_shown(mapping.get('namespace', '?'))}]"
    values: dict[str, Any] = {key: _read(where, key, value) for key, value in mapping.items()}
    if "namespace" not in values:
        if "urls" not in values:
            raise ValueError("upstreams: an upstream needs `namespace`, for example {namespace: docker.io}")
        values["namespace"] = values["urls"][0]
    namespace, url = _namespace(where, values.pop("namespace"))
    values.setdefault("urls", (url,))
    try:
        return Entry(namespace, values.pop("urls"), **values)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def entry_from_url(url: str) -> Entry:
    """Return an entry that is named after the host of its URL (RULES B6, ``UPSTREAM_REGISTRY``).

    :raises ValueError: it cannot be used.
    """
    return entry_from_mapping({"namespace": url})


def _read(where: str, key: object, value: object) -> object:
    reader = _READERS.get(str(key))
    if reader is None:
        close = get_close_matches(str(key), _READERS, 1)
        remedy = f"did you mean `{close[0]}`?" if close else f"known keys are {', '.join(_READERS)}"
        raise ValueError(f"{where}: unknown key `{key}`; {remedy}")
    try:
        return reader(value)
    except ValueError as error:
        raise ValueError(f"{where}.{key}: {_shown(repr(value))} {_as_clause(str(error))}") from None


def without_userinfo(value: object) -> str:
    """Return a value as text that may be shown, without what could be a password."""
    return _USERINFO.sub("...@", str(value))


def _shown(value: object) -> str:
    return without_userinfo(value)[:256]


def _as_clause(text: str) -> str:
    return text if text.startswith("must ") else f"is {text}"


def _namespace(where: str, text: str) -> tuple[str, str]:
    """Return the canonical namespace that a name or URL means, and where it leads by default."""
    try:
        if "://" not in text:
            namespace = canonical_namespace(text)
            return namespace, SHIPPED_URLS.get(namespace, f"https://{namespace}")
        return canonical_namespace(str(Origin.of(text)).partition("://")[2]), base_url(text)
    except (OCIError, ValueError) as error:
        message = error.message if isinstance(error, OCIError) else str(error)
        raise ValueError(f"{where}.namespace: {_shown(repr(text))}: {message}; write for example docker.io") from None
