"""``ociproxy client-config``: what is printed is what each client reads."""

from __future__ import annotations

import json
import tomllib
from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.cli.commands import run_command
from txociproxy.cli.client_config import WRITERS
from txociproxy.cli.client_config.files import Cache, quoted
from txociproxy.cli.words import CLIENTS
from txociproxy.upstreams.entries.reading import SHIPPED_URLS

PLAIN = "http://cache.internal:8080"
TLS = "https://cache.internal:8443"
TRUST = ("--ca", "/etc/ca.pem", "--client-cert", "/etc/me.pem", "--client-key", "/etc/me.key")


def parted(text: str) -> dict[str, str]:
    """Return the content below each path, without the remarks in front of it."""
    files = {}
    for part in text.split("# --- ")[1:]:
        path, _, rest = part.partition("\n")
        lines = rest.splitlines()
        while lines and lines[0].startswith("# "):
            del lines[0]
        files[path] = "\n".join(lines)
    return files


class ClientConfigTestCase(SynchronousTestCase):
    """What the tests have in common."""

    def printed(self, client: str, *words: str, url: str = PLAIN) -> str:
        """Return what is printed."""
        status, out, err = run_command("client-config", client, "--url", url, *words)
        self.assertEqual((status, err), (0, ""))
        return out

    def files(self, client: str, *words: str, url: str = PLAIN) -> dict[str, str]:
        """Return the files by path."""
        return parted(self.printed(client, *words, url=url))

    def refused(self, *words: str, client: str = "docker", url: str = TLS) -> str:
        """Return why nothing is printed."""
        status, out, err = run_command("client-config", client, "--url", url, *words)
        self.assertEqual((status, out, err.count("\n")), (1, "", 1))
        return err


class CommandTests(ClientConfigTestCase):
    """What holds for all clients."""

    def test_each_client_has_its_files(self) -> None:
        """Those that the command names; below each path there are remarks."""
        self.assertEqual(sorted(WRITERS), sorted(CLIENTS))
        for client in CLIENTS:
            out = self.printed(client)
            self.assertTrue(out.startswith("# --- /etc/"), out)
            self.assertIn("\n# ", out)
            self.assertEqual([line for line in out.splitlines() if len(line) > 120], [])

    def test_all_shipped_registries_unless_said(self) -> None:
        """Each once."""
        for client in ("containerd", "podman", "crio", "k3s", "buildkit"):
            out = self.printed(client)
            self.assertEqual([name for name in SHIPPED_URLS if name not in out], [])
            self.assertNotIn("quay.io", self.printed(client, "--registry", "ghcr.io", "--registry", "ghcr.io"))

    def test_what_cannot_be(self) -> None:
        """One sentence each."""
        self.assertIn("--url", self.refused(url="cache:8080"))
        for url in (
            "http://cache/v2",
            "http://u@cache",
            "http://ca che",
            'http://a"',
            "http://",
            "ftp://a",
            "http://a?b",
        ):
            self.assertIn("--url: write https://cache.example", self.refused(url=url))
        self.assertIn("each needs the other", self.refused("--client-cert", "/c"))
        self.assertIn("each needs the other", self.refused("--client-key", "/c"))
        self.assertIn("https:// only", self.refused("--ca", "/c", url=PLAIN))
        self.assertIn("https:// only", self.refused("--insecure", url=PLAIN))
        self.assertIn("leave one of them out", self.refused("--ca", "/c", "--insecure"))
        for path in ("ca.pem", "/a\nb", "/a\u2028b"):
            self.assertIn("whole path", self.refused("--ca", path))
        self.assertIn("--registry: 'https://docker.io' is no registry", self.refused("--registry", "https://docker.io"))
        self.assertIn("without a port", self.refused("--registry", "r.x:5000", client="podman"))

    @settings(deadline=None)
    @given(st.text(st.characters(exclude_categories=["C", "Z"]) | st.just(" "), min_size=1, max_size=40))
    def test_paths_are_quoted(self, name: str) -> None:
        """Whatever a file is called, TOML, YAML and JSON read the same name back."""
        text = quoted(f"/{name}")
        self.assertEqual(tomllib.loads(f"x = {text}"), {"x": f"/{name}"})
        self.assertEqual(yaml.safe_load(f"x: {text}"), {"x": f"/{name}"})
        self.assertEqual(json.loads(text), f"/{name}")

    def test_a_slash_behind_the_address(self) -> None:
        """Is left out: clients would ask for //v2/."""
        self.assertEqual(Cache("http://a/", ()).url, "http://a")


class ContainerdTests(ClientConfigTestCase):
    """config.toml and hosts.toml."""

    def toml(self, path: str, *words: str, url: str = PLAIN) -> dict[str, Any]:
        """Return one file's content."""
        return tomllib.loads(self.files("containerd", *words, url=url)[f"/etc/containerd/{path}"])

    def test_the_directory_is_named_for_both_generations(self) -> None:
        """As exactly one directory: a list is taken for one path by some versions."""
        one = self.toml("config.toml (containerd 1.5 to 1.7)")
        self.assertEqual(one["version"], 2)
        registry = one["plugins"]["io.containerd.grpc.v1.cri"]["registry"]
        self.assertEqual(registry, {"config_path": "/etc/containerd/certs.d"})
        two = self.toml("config.toml (containerd 2.x)")
        self.assertEqual(two["version"], 3)
        registry = two["plugins"]["io.containerd.cri.v1.images"]["registry"]
        self.assertEqual(registry, {"config_path": "/etc/containerd/certs.d"})
        self.assertIn("use_local_image_pull = true", self.printed("containerd"))

    def test_a_registry(self) -> None:
        """The cache first, the registry itself behind it."""
        hosts = self.toml("certs.d/docker.io/hosts.toml")
        self.assertEqual(hosts["server"], "https://registry-1.docker.io")
        self.assertEqual(hosts["host"], {PLAIN: {"capabilities": ["pull", "resolve"]}})
        own = self.toml("certs.d/own.test:5000/hosts.toml", "--registry", "own.test:5000")
        self.assertEqual(own["server"], "https://own.test:5000")

    def test_all_others(self) -> None:
        """Without a server, which would be that of all of them."""
        others = self.toml("certs.d/_default/hosts.toml")
        self.assertEqual(others, {"host": {PLAIN: {"capabilities": ["pull", "resolve"]}}})

    def test_trust(self) -> None:
        """An authority and a certificate of the client's own, or none at all."""
        (host,) = self.toml("certs.d/ghcr.io/hosts.toml", *TRUST, url=TLS)["host"].values()
        self.assertEqual((host["ca"], host["client"]), ("/etc/ca.pem", [["/etc/me.pem", "/etc/me.key"]]))
        self.assertNotIn("skip_verify", host)
        (host,) = self.toml("certs.d/_default/hosts.toml", "--insecure", url=TLS)["host"].values()
        self.assertIs(host["skip_verify"], True)


class DockerTests(ClientConfigTestCase):
    """daemon.json."""

    def settings(self, *words: str, url: str = PLAIN) -> dict[str, Any]:
        """Return daemon.json."""
        found: dict[str, Any] = json.loads(self.files("docker", *words, url=url)["/etc/docker/daemon.json"])
        return found

    def test_a_mirror_of_docker_hub(self) -> None:
        """With plain HTTP on another machine it has to be allowed; for TLS and loopback not."""
        hub = ("--registry", "docker.io")
        self.assertEqual(
            self.settings(*hub), {"registry-mirrors": [PLAIN], "insecure-registries": ["cache.internal:8080"]}
        )
        for url in (TLS, "http://127.0.0.1:8080", "http://localhost:8080", "http://[::1]:8080"):
            self.assertEqual(self.settings(*hub, url=url), {"registry-mirrors": [url]})
        self.assertIn("insecure-registries", self.settings(*hub, "--insecure", url=TLS))

    def test_other_registries_are_no_mirrors(self) -> None:
        """The engine knows mirrors of Docker Hub only; how others are pulled is told."""
        words = ("--registry", "ghcr.io", "--registry", "own.test:5000")
        self.assertEqual(self.settings(*words, url=TLS), {})
        self.assertIn("docker pull cache.internal:8080/ghcr.io/NAME:TAG", self.printed("docker", *words))

    def test_certificates_are_copied(self) -> None:
        """To names that the engine looks for, the port in the directory's name."""
        out = self.printed("docker", *TRUST, url=TLS)
        for source, name in (("ca.pem", "ca.crt"), ("me.pem", "client.cert"), ("me.key", "client.key")):
            self.assertIn(f"\n# cp /etc/{source} /etc/docker/certs.d/cache.internal:8443/{name}\n", f"{out}\n")

    def test_a_shell_takes_a_path_as_one_word(self) -> None:
        """The lines are there to be pasted."""
        out = self.printed("docker", "--ca", "/etc/my ca;x.pem", url=TLS)
        self.assertIn("\n# cp '/etc/my ca;x.pem' /etc/docker/certs.d/", out)

    def test_docker_desktop(self) -> None:
        """Its loopback is another one."""
        self.assertIn("host.docker.internal", self.printed("docker", url="http://127.0.0.1:8080"))
        self.assertNotIn("host.docker.internal", self.printed("docker"))


class PodmanTests(ClientConfigTestCase):
    """A drop-in of registries.conf, for CRI-O too."""

    PATH = "/etc/containers/registries.conf.d/50-txociproxy.conf"

    def registries(self, *words: str, client: str = "podman", url: str = PLAIN) -> list[dict[str, Any]]:
        """Return the list of registries."""
        found: list[dict[str, Any]] = tomllib.loads(self.files(client, *words, url=url)[self.PATH])["registry"]
        return found

    def test_mirrors(self) -> None:
        """The registry's name stands in the path, since these clients do not say ns=."""
        words = ("--registry", "docker.io", "--registry", "quay.io")
        for client in ("podman", "crio"):
            self.assertEqual(
                self.registries(*words, client=client),
                [
                    {"location": name, "mirror": [{"location": f"cache.internal:8080/{name}", "insecure": True}]}
                    for name in ("docker.io", "quay.io")
                ],
            )

    def test_trust(self) -> None:
        """TLS is checked unless told otherwise; certificates are copied."""
        (registry,) = self.registries("--registry", "docker.io", url=TLS)
        self.assertEqual(registry["mirror"], [{"location": "cache.internal:8443/docker.io"}])
        (registry,) = self.registries("--registry", "docker.io", "--insecure", url=TLS)
        self.assertIs(registry["mirror"][0]["insecure"], True)
        out = self.printed("crio", *TRUST, url=TLS)
        self.assertIn("# cp /etc/ca.pem /etc/containers/certs.d/cache.internal:8443/ca.crt\n", out)


class K3sTests(ClientConfigTestCase):
    """registries.yaml."""

    def content(self, *words: str, url: str = PLAIN) -> dict[str, Any]:
        """Return the file."""
        found: dict[str, Any] = yaml.safe_load(self.files("k3s", *words, url=url)["/etc/rancher/k3s/registries.yaml"])
        return found

    def test_mirrors(self) -> None:
        """Each registry, and all others; plain HTTP needs nothing more."""
        endpoint = {"endpoint": [PLAIN]}
        self.assertEqual(self.content("--registry", "docker.io"), {"mirrors": {"docker.io": endpoint, "*": endpoint}})

    def test_trust(self) -> None:
        """It belongs to the host of the endpoint."""
        tls = {"ca_file": "/etc/ca.pem", "cert_file": "/etc/me.pem", "key_file": "/etc/me.key"}
        self.assertEqual(self.content(*TRUST, url=TLS)["configs"], {"cache.internal:8443": {"tls": tls}})
        found = self.content("--insecure", url=TLS)["configs"]
        self.assertEqual(found, {"cache.internal:8443": {"tls": {"insecure_skip_verify": True}}})


class BuildkitTests(ClientConfigTestCase):
    """buildkitd.toml."""

    def registry(self, *words: str, url: str = PLAIN) -> dict[str, Any]:
        """Return the tables of registries."""
        content = self.files("buildkit", "--registry", "docker.io", *words, url=url)["/etc/buildkit/buildkitd.toml"]
        found: dict[str, Any] = tomllib.loads(content)["registry"]
        return found

    def test_mirrors(self) -> None:
        """Mirrors have no scheme: it stands in the cache's own table."""
        self.assertEqual(
            self.registry(), {"docker.io": {"mirrors": ["cache.internal:8080"]}, "cache.internal:8080": {"http": True}}
        )

    def test_trust(self) -> None:
        """An authority, the client's certificate, or nothing checked."""
        pair = {"cert": "/etc/me.pem", "key": "/etc/me.key"}
        found = self.registry(*TRUST, url=TLS)["cache.internal:8443"]
        self.assertEqual(found, {"ca": ["/etc/ca.pem"], "keypair": [pair]})
        self.assertEqual(self.registry("--insecure", url=TLS)["cache.internal:8443"], {"insecure": True})
        self.assertEqual(self.registry(url=TLS)["cache.internal:8443"], {})

    def test_buildx(self) -> None:
        """How a builder gets it, and that its loopback is another one."""
        self.assertIn("docker buildx create", self.printed("buildkit"))
        self.assertNotIn("network=host", self.printed("buildkit"))
        self.assertIn("network=host", self.printed("buildkit", url="http://127.0.0.1:8080"))
