"""Real clients pull with the files that ``ociproxy client-config`` prints, as they are printed."""

from __future__ import annotations

from pathlib import Path

from tests.cli.test_client_config import parted
from tests.e2e.certificates import self_signed
from tests.e2e.clients import Reference, containerd_pull, docker_pull, podman_pull
from tests.e2e.commands import ociproxy
from tests.e2e.laboratory import LIBRARY, ORGANISATION, LaboratoryTestCase
from tests.e2e.processes import CommandFailed, run
from tests.e2e.proxy import start_proxy


class PrintedTests(LaboratoryTestCase):
    """Nothing but what is printed leads to the cache; whoever passes it by finds nobody."""

    def printed(self, client: str, *words: object, scheme: str = "http") -> dict[str, str]:
        """Return the printed files by path."""
        done = ociproxy("client-config", client, "--url", f"{scheme}://127.0.0.1:{self.proxy.port}", *words)
        self.assertEqual((done.status, done.err), (0, ""))
        return parted(done.out)

    def assert_pulled(self, held: frozenset[str]) -> None:
        """The image is whole, and has come through the cache."""
        self.assert_whole(held, "as printed")
        self.assertNotEqual(self.proxy.outcomes(), [])

    def hosts(self, files: dict[str, str]) -> Path:
        """Write the directory of hosts.toml."""
        directory, prefix = self.shop.directory("certs.d"), "/etc/containerd/certs.d/"
        for path, content in files.items():
            if path.startswith(prefix):
                file = directory / path.removeprefix(prefix)
                file.parent.mkdir()
                file.write_text(content)
        return directory

    def containerd(self, reference: Reference, files: dict[str, str]) -> frozenset[str]:
        """Pull with containerd; of two ``--hosts-dir`` the later one counts."""
        return containerd_pull(self.shop, reference, "", ["--hosts-dir", str(self.hosts(files))])

    def test_containerd(self) -> None:
        """A registry with a file of its own, and one that has only ``_default``."""
        files = self.printed("containerd", "--registry", "docker.io")
        self.assert_pulled(self.containerd(LIBRARY, files))
        self.assert_pulled(self.containerd(ORGANISATION, files))

    def test_containerd_reads_its_own_configuration(self) -> None:
        """As the daemon understands it."""
        files = self.printed("containerd")
        config = self.shop.directory("c") / "config.toml"
        config.write_text(files["/etc/containerd/config.toml (containerd 1.5 to 1.7)"])
        dumped = run(["containerd", "--config", config, "config", "dump"], 30)
        self.assertIn('config_path = "/etc/containerd/certs.d"', dumped)

    def test_containerd_over_tls(self) -> None:
        """With the authority that is named, and a certificate of its own; without them it is refused."""
        directory = self.shop.directory("certificates")
        authority = self_signed(directory, "authority")
        ours, client = authority.issue(directory, "ours", "127.0.0.1"), authority.issue(directory, "client")
        self.proxy.stop()
        self.proxy = start_proxy(
            self.shop, self.registry.url, tls_cert=ours.cert, tls_key=ours.key, tls_client_ca=authority.cert
        )
        trust = ("--ca", authority.cert, "--client-cert", client.cert, "--client-key", client.key)
        held = self.containerd(LIBRARY, self.printed("containerd", *trust, scheme="https"))
        self.assert_whole(held, "with a certificate")
        nobody = self.printed("containerd", "--ca", authority.cert, scheme="https")
        self.assertRaises(CommandFailed, self.containerd, LIBRARY, nobody)

    def test_podman(self) -> None:
        """The drop-in is a whole configuration."""
        files = self.printed("podman")
        (registries,) = files.values()
        self.assert_pulled(podman_pull(self.shop, registries, [], str(ORGANISATION)))

    def test_podman_over_tls(self) -> None:
        """Nothing is checked, as it was asked for."""
        ours = self_signed(self.shop.directory("certificates"), "ours", "127.0.0.1")
        self.proxy.stop()
        self.proxy = start_proxy(self.shop, self.registry.url, tls_cert=ours.cert, tls_key=ours.key)
        (registries,) = self.printed("podman", "--insecure", scheme="https").values()
        self.assert_whole(podman_pull(self.shop, registries, [], str(LIBRARY)), "insecure")
        (registries,) = self.printed("podman", scheme="https").values()
        self.assertRaises(CommandFailed, podman_pull, self.shop, registries, [], str(LIBRARY))

    def test_docker(self) -> None:
        """The engine starts with daemon.json as it is printed, and finds its mirror in it."""
        files = self.printed("docker")
        file = self.shop.directory("docker-config") / "daemon.json"
        file.write_text(files["/etc/docker/daemon.json"])
        name = f"{LIBRARY.repository}:{LIBRARY.tag}"
        self.assert_pulled(docker_pull(self.shop, [f"--config-file={file}"], name))
