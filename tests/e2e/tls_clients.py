"""Real clients that check certificates, and may show one."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

from attrs import define, field, frozen

from tests.e2e import clients
from tests.e2e.certificates import Certificate
from tests.e2e.clients import FENCED, PULL_S, Reference
from tests.e2e.processes import Workshop, discard, run

# dockerd takes certificates from this place only; it gets one of its own there.
ETC_DOCKER = "/etc/docker"


@frozen
class Trust:
    """Whom a client believes, and who it says it is.

    :ivar authority: a file of PEM; None believes anybody.
    """

    authority: str | None = None
    client: Certificate | None = None

    def directory(self, parent: Path) -> Path:
        """Return a directory as skopeo, podman and docker want it (certs.d)."""
        parent.mkdir(parents=True, exist_ok=True)
        if self.authority is not None:
            shutil.copy(self.authority, parent / "ca.crt")
        if self.client is not None:
            shutil.copy(self.client.cert, parent / "client.cert")
            shutil.copy(self.client.key, parent / "client.key")
        return parent


TlsClient = Callable[[Workshop, int, Reference, Trust], frozenset[str]]


def skopeo(shop: Workshop, port: int, reference: Reference, trust: Trust) -> frozenset[str]:
    """Copy with skopeo."""
    options = ["--src-cert-dir", str(trust.directory(shop.directory("certs")))]
    # The last word about it counts.
    options += ["--src-tls-verify=true"] if trust.authority is not None else []
    return clients.skopeo_pull(shop, port, reference, options)


def podman(shop: Workshop, port: int, reference: Reference, trust: Trust) -> frozenset[str]:
    """Pull with podman."""
    options = ["--cert-dir", str(trust.directory(shop.directory("certs")))]
    options += ["--tls-verify=false"] if trust.authority is None else []
    return clients.podman_pull(shop, "", options, f"127.0.0.1:{port}/{reference}")


def containerd(shop: Workshop, port: int, reference: Reference, trust: Trust) -> frozenset[str]:
    """Pull with containerd and ctr, which have the cache as a mirror."""
    lines = [f'[host."https://127.0.0.1:{port}"]', '  capabilities = ["pull", "resolve"]']
    lines.append("  skip_verify = true" if trust.authority is None else f'  ca = "{trust.authority}"')
    if trust.client is not None:
        lines.append(f'  client = [["{trust.client.cert}", "{trust.client.key}"]]')
    return clients.containerd_pull(shop, reference, "\n".join(lines) + "\n")


def docker_insecure(shop: Workshop, port: int, reference: Reference, trust: Trust) -> frozenset[str]:
    """Pull with the Docker engine, for which loopback is one of its insecure registries: nothing is checked."""
    assert trust == Trust()
    return clients.docker_path(shop, port, reference)


def docker(shop: Workshop, port: int, reference: Reference, trust: Trust) -> frozenset[str]:
    """Pull with the Docker engine from this machine's own address, whose certificate it checks."""
    host = f"{own_address()}:{port}"
    directory = shop.directory("d")
    etc = directory / "etc"
    trust.directory(etc / "certs.d" / host)
    sock = directory / "s"
    private = ["--data-root", directory / "data", "--exec-root", directory / "exec", "-p", directory / "pid"]
    quiet = ["--bridge=none", "--iptables=false", "--ip6tables=false", "--userland-proxy=false"]
    words = ["dockerd", *private, "-H", f"unix://{sock}", *quiet, "--storage-driver=vfs"]
    script = f"mount --bind {etc} {ETC_DOCKER} && exec " + " ".join(map(str, words))
    env = {**FENCED, "NO_PROXY": str(own_address()), "no_proxy": str(own_address())}
    engine = shop.start("dockerd", ["unshare", "--mount", "sh", "-c", script], env, cwd=directory)
    (directory / "config").mkdir()
    command = ["docker", "--config", directory / "config", "-H", f"unix://{sock}"]
    try:
        engine.wait_for(lambda: listens(sock), 30, "listens")
        run([*command, "pull", f"{host}/{reference}"], PULL_S)
        held = run([*command, "image", "inspect", f"{host}/{reference}"], 30)
    finally:
        engine.stop()
        discard(directory)
    return frozenset(word for word in held.replace("@", '"').split('"') if word.startswith("sha256:"))


def own_address() -> str | None:
    """Return an address of this machine that is not loopback; None if it has none.  Nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("198.51.100.1", 9))
        except OSError:
            return None
        address = str(probe.getsockname()[0])
    return None if address.startswith("127.") else address


def listens(path: Path) -> bool:
    """Say whether something listens on a Unix socket."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        return probe.connect_ex(str(path)) == 0


def shown(port: int) -> str:
    """Return the certificate that a new connection sees, as PEM."""
    return ssl.get_server_certificate(("127.0.0.1", port), timeout=10)


@define(eq=False)
class OnlyH2(threading.Thread):
    """Carries what comes in without TLS to a door by TLS, and offers nothing but h2 there.

    curl always offers HTTP/1.1 too, and then our order of preference decides; behind this it speaks HTTP/2 by prior
    knowledge, and the door sees a client that has only h2.  ``openssl`` does the work.
    """

    _port: int
    _authority: str
    listening: socket.socket = field(factory=lambda: socket.create_server(("127.0.0.1", 0)))
    _carriers: list[subprocess.Popen[bytes]] = field(factory=list)

    def __attrs_post_init__(self) -> None:
        super().__init__(daemon=True)

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.listening.getsockname()[1])

    def run(self) -> None:
        """Carry one connection after another until it is closed."""
        words = ["openssl", "s_client", "-quiet", "-alpn", "h2", "-CAfile", self._authority, "-verify_return_error"]
        while True:
            try:
                client, _ = self.listening.accept()
            except OSError:
                return
            with client:
                carrier = subprocess.Popen(
                    [*words, "-connect", f"127.0.0.1:{self._port}"],
                    stdin=client.fileno(),
                    stdout=client.fileno(),
                    stderr=subprocess.DEVNULL,
                )
                self._carriers.append(carrier)

    def close(self) -> None:
        """End it, and who carries for it."""
        self.listening.shutdown(socket.SHUT_RDWR)
        self.listening.close()
        self.join(5)
        for carrier in self._carriers:
            carrier.kill()
            carrier.wait(5)
