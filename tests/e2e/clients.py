"""Real clients.  Each pull has a root of its own, so that whatever arrives has come over the wire.

Every client says afterwards which digests it holds; all of them prove content against its digest themselves.
"""

from __future__ import annotations

import hashlib
import json
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from attrs import frozen

from tests.e2e.processes import E2EError, Process, Workshop, discard, run

PULL_S = 90
# Nothing listens here: whoever goes past the cache fails at once instead of finding the real registry.
DEAD = "http://127.0.0.1:9"
FENCED = {"HTTPS_PROXY": DEAD, "HTTP_PROXY": DEAD, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}


@frozen
class Reference:
    """What a person asks for."""

    namespace: str
    repository: str
    tag: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.repository}:{self.tag}"


Client = Callable[[Workshop, int, Reference], frozenset[str]]
# What happens before the pull: it gets the words that every call of the tool begins with, and its configuration.
Preparation = Callable[[Sequence[object], Path], object]


def nothing(words: Sequence[object], config: Path) -> None:
    """Prepare nothing: nobody is logged in."""


def docker_mirror(shop: Workshop, port: int, reference: Reference) -> frozenset[str]:
    """Pull with the Docker engine that knows the cache as its mirror of Docker Hub."""
    return docker_pull(shop, [f"--registry-mirror=http://127.0.0.1:{port}"], f"{reference.repository}:{reference.tag}")


def docker_path(shop: Workshop, port: int, reference: Reference) -> frozenset[str]:
    """Pull with the Docker engine from the cache as a registry, the namespace in the path."""
    return docker_pull(shop, [], f"127.0.0.1:{port}/{reference}")


def docker_pull(shop: Workshop, options: list[str], name: str, prepare: Preparation = nothing) -> frozenset[str]:
    """Start an engine, pull, and ask it what the image consists of."""
    directory = shop.directory("d")
    sock = directory / "s"
    private = ["--data-root", directory / "data", "--exec-root", directory / "exec", "-p", directory / "pid"]
    quiet = ["--bridge=none", "--iptables=false", "--ip6tables=false", "--userland-proxy=false"]
    words = ["dockerd", *private, "-H", f"unix://{sock}", *quiet, "--storage-driver=vfs", *options]
    engine = shop.start("dockerd", words, FENCED, cwd=directory)
    config = directory / "config"
    config.mkdir()
    docker = ["docker", "--config", config, "-H", f"unix://{sock}"]
    try:
        engine.wait_for(lambda: _unix_accepts(sock), 30, "listens")
        prepare(docker, config / "config.json")
        _run_client([*docker, "pull", name], engine)
        facts = json.loads(run([*docker, "image", "inspect", name], 30))[0]
    finally:
        engine.stop()
        discard(directory)
    repo_digests = [entry.partition("@")[2] for entry in facts["RepoDigests"]]
    return frozenset([*repo_digests, facts["Id"], *facts["RootFS"]["Layers"]])


def containerd_ns(shop: Workshop, port: int, reference: Reference) -> frozenset[str]:
    """Pull with containerd and ctr; the namespace travels as ``ns=``."""
    return containerd_pull(shop, reference, ns_host(port))


def ns_host(port: int) -> str:
    """Return the part of hosts.toml that leads to the cache."""
    return f'[host."http://127.0.0.1:{port}"]\n  capabilities = ["pull", "resolve"]\n'


def containerd_override_path(shop: Workshop, port: int, reference: Reference) -> frozenset[str]:
    """Pull with containerd and ctr; the namespace travels in the path and as ``ns=`` too."""
    host = f'[host."http://127.0.0.1:{port}/v2/{reference.namespace}"]\n'
    return containerd_pull(shop, reference, f'{host}  capabilities = ["pull", "resolve"]\n  override_path = true\n')


def containerd_pull(shop: Workshop, reference: Reference, host: str, options: Sequence[str] = ()) -> frozenset[str]:
    """Start a containerd, pull, and list its image and its content."""
    directory = shop.directory("c")
    sock, hosts = directory / "s", directory / "certs.d"
    (hosts / reference.namespace).mkdir(parents=True)
    (hosts / reference.namespace / "hosts.toml").write_text(f'server = "{DEAD}"\n{host}')
    config = directory / "config.toml"
    config.write_text(
        f'version = 2\nroot = "{directory}/root"\nstate = "{directory}/state"\n'
        f'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n[grpc]\naddress = "{sock}"\n'
    )
    engine = shop.start("containerd", ["containerd", "--config", config], FENCED, cwd=directory)
    ctr = ["ctr", "--address", sock, "--namespace", "e2e"]
    try:
        engine.wait_for(lambda: _unix_accepts(sock), 30, "listens")
        pull = ["images", "pull", "--snapshotter", "native", "--hosts-dir", hosts, *options, str(reference)]
        _run_client([*ctr, *pull], engine)
        images = run([*ctr, "images", "ls", f"name=={reference}"], 30).split()
        content = run([*ctr, "content", "ls", "-q"], 30).split()
    finally:
        engine.stop()
        discard(directory)
    return frozenset(word for word in [*images, *content] if word.startswith("sha256:"))


def podman_path(shop: Workshop, port: int, reference: Reference) -> frozenset[str]:
    """Pull with podman from the cache as a registry, the namespace in the path."""
    return podman_pull(shop, "", ["--tls-verify=false"], f"127.0.0.1:{port}/{reference}")


def podman_mirror(shop: Workshop, port: int, reference: Reference) -> frozenset[str]:
    """Pull with podman that knows the cache as the mirror of a registry."""
    registries = (
        f'[[registry]]\nlocation = "{reference.namespace}"\n'
        f'[[registry.mirror]]\nlocation = "127.0.0.1:{port}/{reference.namespace}"\ninsecure = true\n'
    )
    return podman_pull(shop, registries, [], str(reference))


def podman_pull(
    shop: Workshop, registries: str, options: list[str], name: str, prepare: Preparation = nothing
) -> frozenset[str]:
    """Pull with podman into a root of its own, and ask it what the image consists of."""
    directory = shop.directory("p")
    env = {**_private_home(directory), "CONTAINERS_REGISTRIES_CONF": str(directory / "registries.conf"), **FENCED}
    (directory / "registries.conf").write_text(registries)
    storage = ["--root", directory / "root", "--runroot", directory / "run", "--storage-driver", "vfs"]
    # The environment is a word of the command, so that preparations need nothing else.
    podman = [*_in(env), "podman", *storage, "--cgroup-manager=cgroupfs", "--events-backend=file"]
    try:
        prepare(podman, directory / "auth.json")
        run([*podman, "pull", "--signature-policy", _policy(directory), *options, name], PULL_S)
        facts = json.loads(run([*podman, "image", "inspect", name], 30))[0]
    finally:
        discard(directory)
    repo_digests = [entry.partition("@")[2] for entry in facts["RepoDigests"]]
    return frozenset([*repo_digests, f"sha256:{facts['Id']}", *facts["RootFS"]["Layers"]])


def skopeo_path(shop: Workshop, port: int, reference: Reference) -> frozenset[str]:
    """Copy all images of an index with skopeo, and hash every file that arrives."""
    return skopeo_pull(shop, port, reference)


def skopeo_pull(
    shop: Workshop, port: int, reference: Reference | str, options: Sequence[str] = (), prepare: Preparation = nothing
) -> frozenset[str]:
    """Copy all images of an index with skopeo, and hash every file that arrives."""
    directory = shop.directory("s")
    try:
        skopeo_copy(directory, port, reference, f"dir:{directory}/out", options, prepare)
        files = (directory / "out").iterdir()
        return frozenset(f"sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}" for file in files)
    finally:
        discard(directory)


def skopeo_copy(
    directory: Path,
    port: int,
    reference: Reference | str,
    target: str,
    options: Sequence[str] = (),
    prepare: Preparation = nothing,
) -> None:
    """Run ``skopeo copy --all`` from the cache to a target of any kind."""
    source = f"docker://127.0.0.1:{port}/{reference}"
    skopeo = [*_in({**_private_home(directory), **FENCED}), "skopeo"]
    prepare(skopeo, directory / "auth.json")
    copy = ["--insecure-policy", "copy", "--all", "--src-tls-verify=false", *options, source, target]
    run([*skopeo, *copy], PULL_S)


def _in(env: Mapping[str, str]) -> list[str]:
    """Return the words that give a command its environment."""
    return ["env", *(f"{name}={value}" for name, value in env.items())]


def _private_home(directory: Path) -> Mapping[str, str]:
    """Return an environment in which no login of the person who runs the tests is found."""
    auth = directory / "auth.json"
    auth.write_text("{}")
    return {"HOME": str(directory), "REGISTRY_AUTH_FILE": str(auth), "XDG_RUNTIME_DIR": str(directory)}


def _policy(directory: Path) -> Path:
    """Write the signature policy that a fresh machine may lack."""
    policy = directory / "policy.json"
    policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    return policy


def _run_client(words: list[object], engine: Process) -> None:
    """Run the client of an engine; when it fails the engine's log belongs to the story."""
    try:
        run(words, PULL_S)
    except E2EError as error:
        raise type(error)(f"{error}\n--- {engine.name}\n{engine.log()[-1200:]}") from None


def _unix_accepts(path: Path) -> bool:
    """Say whether something listens on a UNIX socket."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        return probe.connect_ex(str(path)) == 0
