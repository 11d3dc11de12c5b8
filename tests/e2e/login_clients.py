"""Real clients with a name and a password, given in each of the ways that people use.

Whether the password is right is the test's affair: a pull that is refused raises CommandFailed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from tests.e2e.clients import (
    Client,
    Reference,
    containerd_pull,
    docker_pull,
    ns_host,
    podman_pull,
    skopeo_pull,
)
from tests.e2e.processes import Workshop, run
from tests.e2e.users import User

# The name under which Docker's client keeps the login of Docker Hub.
HUB_LOGIN = "https://index.docker.io/v1/"
LOGIN_S = 30

LoginClient = Callable[[Workshop, int, Reference, User], frozenset[str]]


def as_user(client: LoginClient, user: User) -> Client:
    """Return the client as it is when this person uses it."""
    return partial(_with_user, client, user)


def _with_user(client: LoginClient, user: User, shop: Workshop, port: int, reference: Reference) -> frozenset[str]:
    """Call the client with its arguments in its own order."""
    return client(shop, port, reference, user)


def docker_login(shop: Workshop, port: int, reference: Reference, user: User) -> frozenset[str]:
    """``docker login`` at the cache, then pull from it as a registry, the namespace in the path."""
    return docker_pull(shop, [], f"127.0.0.1:{port}/{reference}", partial(_login, [], port, user))


def docker_mirror_with_hub_password(shop: Workshop, port: int, reference: Reference, user: User) -> frozenset[str]:
    """Pull from the cache as the mirror of Docker Hub, when the password of Hub was saved by an earlier login."""

    def save(words: Sequence[object], config: Path) -> None:
        config.write_text(json.dumps({"auths": {HUB_LOGIN: {"auth": user.encoded}}}))

    name = f"{reference.repository}:{reference.tag}"
    return docker_pull(shop, [f"--registry-mirror=http://127.0.0.1:{port}"], name, save)


def containerd_user(shop: Workshop, port: int, reference: Reference, user: User) -> frozenset[str]:
    """``ctr --user``: the namespace travels as ``ns=``, and the token is asked for by POST."""
    return containerd_pull(shop, reference, ns_host(port), ["--user", user.pair])


def podman_creds(shop: Workshop, port: int, reference: Reference, user: User) -> frozenset[str]:
    """``podman pull --creds`` from the cache as a registry."""
    options = ["--tls-verify=false", "--creds", user.pair]
    return podman_pull(shop, "", options, f"127.0.0.1:{port}/{reference}")


def podman_login(shop: Workshop, port: int, reference: Reference, user: User) -> frozenset[str]:
    """``podman login`` at the cache, then pull from it as a registry."""
    name, prepare = f"127.0.0.1:{port}/{reference}", partial(_login, ["--tls-verify=false"], port, user)
    return podman_pull(shop, "", ["--tls-verify=false"], name, prepare)


def skopeo_creds(shop: Workshop, port: int, reference: Reference, user: User) -> frozenset[str]:
    """``skopeo copy --src-creds``."""
    return skopeo_pull(shop, port, reference, ["--src-creds", user.pair])


def skopeo_login(shop: Workshop, port: int, reference: Reference, user: User) -> frozenset[str]:
    """``skopeo login`` at the cache, then copy."""
    return skopeo_pull(shop, port, reference, prepare=partial(_login, ["--tls-verify=false"], port, user))


def _login(options: list[str], port: int, user: User, words: Sequence[object], config: Path) -> None:
    """Log in at the cache; docker, podman and skopeo take the same words."""
    run([*words, "login", *options, "-u", user.name, "-p", user.password, f"127.0.0.1:{port}"], LOGIN_S)
