"""The Docker engine: daemon.json, and certificates beside it."""

from __future__ import annotations

import json
from typing import Any

from txociproxy.cli.client_config.files import Cache, File, certificate_files

_HUB = "docker.io"


def files(cache: Cache) -> list[File]:
    """Return the files of the engine."""
    # A port within the path of an image's name is refused.
    others = [name for name in cache.registries if name != _HUB and ":" not in name]
    settings: dict[str, Any] = {}
    remarks = ["Merge this into the file (JSON has no comments: leave these lines out) and restart the engine."]
    if _HUB in cache.registries:
        settings["registry-mirrors"] = [cache.url]
        remarks.append("registry-mirrors are asked for images of Docker Hub only, and Docker Hub itself if they fail;")
        remarks.append("a docker login for Docker Hub is shown to them too.")
    if others:
        remarks.append("Images of other registries are pulled with the cache in front of their names:")
        remarks.append(f"  docker pull {cache.host}/{others[0]}/NAME:TAG")
    if cache.insecure or (cache.is_plain and not cache.is_loopback):
        settings["insecure-registries"] = [cache.host]
        remarks.append("insecure-registries lets plain HTTP and unknown certificates pass; 127.0.0.0/8 needs no entry.")
    if cache.is_loopback:
        remarks.append("Docker Desktop runs its engine in a machine of its own, where 127.0.0.1 is not yours: use")
        remarks.append("host.docker.internal there, in its Settings, Docker Engine.")
    engine = File("/etc/docker/daemon.json", tuple(remarks), json.dumps(settings, indent=2) + "\n")
    return [engine, *certificate_files(cache, "/etc/docker/certs.d", "The engine")]
