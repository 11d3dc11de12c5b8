"""Real clients.  Each pull has a root of its own, so that whatever arrives has come over the wire.

Every client says afterwards which digests it holds; all of them prove content against its digest themselves.
"""

from __future__ import annotations

import hashlib
import json
import socket
from collections.abc import Callable, Mapping
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


def docker_mirror(shop: Workshop, port: int, reference: Reference) -> frozenset[str]:
    """Pull with the Docker engine that knows the cache as its mirror of Docker Hub."""
    return _docker(shop, [f"--registry-mirror=http://127.0.0.1:{port}"], f"{reference.repository}:{reference.tag}")


def docker_path(shop: Workshop, port: int, reference: Reference) -> frozenset[str]:
    """Pull with the Docker engine from the cache as a registry, the namespace in the path."""
    return _docker(shop, [], f"127.0.0.1:{port}/{reference}")


def _docker(shop: Workshop, options: list[str], name: str) -> frozenset[str]:
    """Start an engine, pull, and ask it what the image consists of."""
    directory = shop.directory("d")
    sock = directory / "s"
    private = ["--data-root", directory / "data", "--exec-root", directory / "exec", "-p", directory / "pid"]
    quiet = ["--bridge=none", "--iptables=false", "--ip6tables=false", "--userland-proxy=false"]
    words = ["dockerd", *private, "-H", f"unix://{sock}", *quiet, "--storage-driver=vfs", *options]
    engine = shop.start("dockerd", words, FENCED, cwd=directory)
    docker = ["docker", "--config", directory / "config", "-H", f"unix://{sock}"]
    try:
        engine.wait_for(lambda: _unix_accepts(sock), 30, "listens")
        _run_client([*docker, "pull", name], engine)
        facts = json.loads(run([*docker, "image", "inspect", name], 30))[0]
    finally:
        engine.stop()
        discard(directory)
    repo_digests = [entry.partition("@")[2] for entry in facts["RepoDigests"]]
    return frozenset([*repo_digests, facts["Id"], *facts["RootFS"]["Layers"]])


def containerd_ns(shop: Workshop, port: int, reference: Reference) -> frozenset[str]:
    """Pull with containerd and ctr; the namespace travels as ``ns=``."""
    return _containerd(shop, reference, f'[host."http://127.0.0.1:{port}"]\n  capabilities = ["pull", "resolve"]\n')


def containerd_override_path(shop: Workshop, port: int, reference: Reference) -> frozenset[str]:
    """Pull with containerd and ctr; the namespace travels in the path and as ``ns=`` too."""
    host = f'[host."http://127.0.0.1:{port}/v2/{reference.namespace}"]\n'
    return _containerd(shop, reference, f'{host}  capabilities = ["pull", "resolve"]\n  override_path = true\n')


def _containerd(shop: Workshop, reference: Reference, host: str) -> frozenset[str]:
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
        pull = ["images", "pull", "--snapshotter", "native", "--hosts-dir", hosts, str(reference)]
        _run_client([*ctr, *pull], engine)
        images = run([*ctr, "images", "ls", f"name=={reference}"], 30).split()
        content = run([*ctr, "content", "ls", "-q"], 30).split()
    finally:
        engine.stop()
        discard(directory)
    return frozenset(word for word in [*images, *content] if word.startswith("sha256:"))


def podman_path(shop: Workshop, port: int, reference: Reference) -> frozenset[str]:
    """Pull with podman from the cache as a registry, the namespace in the path."""
    return _podman(shop, "", ["--tls-verify=false"], f"127.0.0.1:{port}/{reference}")


def podman_mirror(shop: Workshop, port: int, reference: Reference) -> frozenset[str]:
    """Pull with podman that knows the cache as the mirror of a registry."""
    registries = (
        f'[[registry]]\nlocation = "{reference.namespace}"\n'
        f'[[registry.mirror]]\nlocation = "127.0.0.1:{port}/{reference.namespace}"\ninsecure = true\n'
    )
    return _podman(shop, registries, [], str(reference))


def _podman(shop: Workshop, registries: str, options: list[str], name: str) -> frozenset[str]:
    """Pull with podman into a root of its own, and ask it what the image consists of."""
    directory = shop.directory("p")
    env = {**_private_home(directory), "CONTAINERS_REGISTRIES_CONF": str(directory / "registries.conf"), **FENCED}
    (directory / "registries.conf").write_text(registries)
    storage = ["--root", directory / "root", "--runroot", directory / "run", "--storage-driver", "vfs"]
    podman = ["podman", *storage, "--cgroup-manager=cgroupfs", "--events-backend=file"]
    try:
        run([*podman, "pull", "--signature-policy", _policy(directory), *options, name], PULL_S, env)
        facts = json.loads(run([*podman, "image", "inspect", name], 30, env))[0]
    finally:
        discard(directory)
    repo_digests = [entry.partition("@")[2] for entry in facts["RepoDigests"]]
    return frozenset([*repo_digests, f"sha256:{facts['Id']}", *facts["RootFS"]["Layers"]])


def skopeo_path(shop: Workshop, port: int, reference: Reference) -> frozenset[str]:
    """Copy all images of an index with skopeo, and hash every file that arrives."""
    directory = shop.directory("s")
    try:
        skopeo_copy(directory, port, reference, f"dir:{directory}/out")
        files = (directory / "out").iterdir()
        return frozenset(f"sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}" for file in files)
    finally:
        discard(directory)


def skopeo_copy(directory: Path, port: int, reference: Reference | str, target: str) -> None:
    """Run ``skopeo copy --all`` from the cache to a target of any kind."""
    source = f"docker://127.0.0.1:{port}/{reference}"
    copy = ["skopeo", "--insecure-policy", "copy", "--all", "--src-tls-verify=false", source, target]
    run(copy, PULL_S, {**_private_home(directory), **FENCED})


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
        raise E2EError(f"{error}\n--- {engine.name}\n{engine.log()[-1200:]}") from None


def _unix_accepts(path: Path) -> bool:
    """Say whether something listens on a UNIX socket."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        return probe.connect_ex(str(path)) == 0
