"""``ociproxy client-config CLIENT``: the files that let a client pull through the cache, and their traps."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType

from txociproxy.cli.answer import Answer
from txociproxy.cli.client_config import buildkit, containerd, docker, k3s, podman
from txociproxy.cli.client_config.files import Cache, File, printed
from txociproxy.upstreams.entries.reading import SHIPPED_URLS

WRITERS: Mapping[str, Callable[[Cache], list[File]]] = MappingProxyType(
    {
        "containerd": containerd.files,
        "docker": docker.files,
        "podman": podman.files,
        "crio": podman.crio_files,
        "k3s": k3s.files,
        "buildkit": buildkit.files,
    }
)
# As the first part of an image's name; with a port if need be.
_REGISTRY = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,252}[a-z0-9])?(?::[0-9]{1,5})?")


def client_config(said: argparse.Namespace) -> Answer:
    """Print the files of one client.

    :param said: ``client``, ``url``, ``registry``, ``ca``, ``client_cert``, ``client_key``, ``insecure``.
    """
    try:
        cache = Cache(
            said.url, _registries(said.registry), said.ca, said.client_cert, said.client_key, insecure=said.insecure
        )
        files = WRITERS[said.client](cache)
    except ValueError as error:
        return Answer(1, str(error))
    return Answer(0, printed(files).rstrip("\n"))


def _registries(names: list[str]) -> tuple[str, ...]:
    """Return the wanted registries; unless said those that the proxy knows by itself.

    :raises ValueError: one is none.
    """
    for name in names:
        if not _REGISTRY.fullmatch(name):
            raise ValueError(f"--registry: {name[:200]!r} is no registry; write docker.io or registry.internal:5000")
    return tuple(dict.fromkeys(names)) or tuple(SHIPPED_URLS)
