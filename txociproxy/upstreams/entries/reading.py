"""Entries of the table out of what the configuration file says, with errors that name key, value and remedy."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

from txociproxy.oci.errors import OCIError
from txociproxy.oci.names import canonical_namespace
from txociproxy.upstreams.entries import read_values as v
from txociproxy.upstreams.entries.entry import Entry
from txociproxy.upstreams.entries.read_account import EXAMPLE as LOGIN_EXAMPLE
from txociproxy.upstreams.entries.read_account import read_account
from txociproxy.upstreams.entries.read_keys import Reader, WrongValue, read_keys, shown, without_userinfo
from txociproxy.upstreams.entries.read_tags import read_manifest_invalidation, read_tag_rules
from txociproxy.upstreams.entries.read_tls import read_tls
from txociproxy.upstreams.origins import Origin, base_url

__all__ = ["KEYS", "SHIPPED_URLS", "EntryError", "entry_from_mapping", "entry_from_url", "without_userinfo"]

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

_NOTHING: Mapping[str, str] = MappingProxyType({})

# One line per key of the file; most names are those of Entry.
_READERS: Mapping[str, Reader] = MappingProxyType(
    {
        "namespace": v.text,
        "urls": v.urls,
        "hosts": v.hosts,
        "listen": v.text,
        "library": v.flag,
        "dotted_repositories": v.flag,
        "client_credentials": v.one_of("forward", "ignore"),
        "credentials": partial(read_account, environ=_NOTHING),
        "tls": read_tls,
        "origins": v.origins,
        "token_realm": v.realm,
        "allowed": v.texts,
        "refused": v.texts,
        "tags": read_tag_rules,
        "manifest_invalidation_time": read_manifest_invalidation,
        "blob_invalidation_time": v.seconds,
        "connect_timeout_s": v.deadline,
        "stale_deadline_s": v.deadline,
        "head_deadline_s": v.deadline,
        "blob_deadline_s": v.deadline,
        "deadline_s": v.deadline,
        "token_deadline_s": v.deadline,
        "silence_timeout_s": v.deadline,
        "max_connections": v.connections,
        "quota_low": v.part,
        "user_agent": v.text,
    }
)
KEYS = tuple(_READERS)

# Keys of similar programs' files.
_ELSEWHERE: Mapping[str, str] = MappingProxyType(
    {
        "name": "`namespace`",
        "host": "`urls`, for example urls: [https://registry.example.com]",
        "url": "`urls`, for example urls: [https://registry.example.com]",
        "description": "it as a comment, behind a #",
        "auth": f"`credentials`, for example credentials: {LOGIN_EXAMPLE}",
        "username": f"it below `credentials`: credentials: {LOGIN_EXAMPLE}",
        "password": f"it below `credentials`: credentials: {LOGIN_EXAMPLE}",
        "accept_invalid_certs": "tls: {verify: false}",
        "insecure_skip_verify": "tls: {verify: false}",
        "ca": "tls: {ca: PATH}",
        "cert": "tls: {cert: PATH, key: PATH}",
        "key": "tls: {cert: PATH, key: PATH}",
    }
)


class EntryError(ValueError):
    """An item of ``upstreams`` is wrong; one line that names the key, the remedy and, unless secret, the value.

    :ivar at: the keys that lead to it, from the item.
    """

    def __init__(self, text: str, *at: object) -> None:
        super().__init__(text)
        self.at = at


def entry_from_mapping(mapping: object, environ: Mapping[str, str] = _NOTHING) -> Entry:
    """Read one item of ``upstreams``.

    ``namespace`` may be a URL; then it is its host, and ``urls`` need not be there.  Registries of the shipped
    table need no ``urls`` either, and any other name leads to ``https://<name>``.

    :param environ: where variables that it names are looked up.
    :raises EntryError: something is wrong.
    """
    if not isinstance(mapping, Mapping):
        # What stands here instead may be `password:…` without its space.
        raise EntryError("upstreams: an upstream must be a mapping, for example {namespace: docker.io}")
    where = f"upstreams[{_label(mapping.get('namespace', '?'))}]"
    readers: dict[str, Reader] = {**_READERS, "credentials": partial(read_account, environ=environ)}
    try:
        return _entry(read_keys(mapping, readers, "{namespace: docker.io}", _ELSEWHERE))
    except WrongValue as error:
        raise entry_error(where, error) from None


def _label(namespace: object) -> str:
    """Return what stands for an item in messages, on one line."""
    return "".join(char if char.isprintable() else "?" for char in without_userinfo(namespace)[:256])


def entry_error(where: str, error: WrongValue) -> EntryError:
    """Return an error as the person at the start sees it."""
    return EntryError(f"{where}{error}" if error.at else f"{where}: {error}", *error.at)


def entry_from_url(url: str) -> Entry:
    """Return an entry that is named after the host of its URL (RULES B6, ``UPSTREAM_REGISTRY``).

    :raises ValueError: it cannot be used.
    """
    return entry_from_mapping({"namespace": url})


def _entry(values: dict[str, Any]) -> Entry:
    """Make the entry out of values that are right, each by itself."""
    if "namespace" not in values:
        if "urls" not in values:
            raise WrongValue("an upstream needs `namespace`, for example {namespace: docker.io}")
        values["namespace"] = values["urls"][0]
    namespace, url = _namespace(values.pop("namespace"))
    values.setdefault("urls", (url,))
    for key, name in (("credentials", "account"), ("blob_invalidation_time", "blob_invalidation_time_s")):
        if key in values:
            values[name] = values.pop(key)
    rules = values.pop("tags", ())
    if "manifest_invalidation_time" in values:
        rules = (*rules, values.pop("manifest_invalidation_time"))
    try:
        return Entry(namespace, values.pop("urls"), tag_rules=rules, **values)
    except ValueError as error:
        raise WrongValue(str(error)) from None


def _namespace(text: str) -> tuple[str, str]:
    """Return the canonical namespace that a name or URL means, and where it leads by default."""
    try:
        if "://" not in text:
            namespace = canonical_namespace(text)
            return namespace, SHIPPED_URLS.get(namespace, f"https://{namespace}")
        return canonical_namespace(str(Origin.of(text)).partition("://")[2]), base_url(text)
    except (OCIError, ValueError) as error:
        message = error.message if isinstance(error, OCIError) else str(error)
        raise WrongValue(f"{shown(text)}: {message}; write for example docker.io", "namespace") from None
