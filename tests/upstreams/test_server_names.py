"""Which saved name means which registry."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txociproxy.upstreams.logins.server_names import HUB_KEY, rank, server_name

HOST = "https://registry.example.com"
PORT = "https://registry.example.com:5000"
HUB = "https://registry-1.docker.io"


class ServerNamesTests(SynchronousTestCase):
    """As docker writes and reads them."""

    def test_the_name_that_docker_uses(self) -> None:
        """The host, with its port unless it is the scheme's own; Docker Hub by an address of its own."""
        for url, name in (
            (HOST, "registry.example.com"),
            ("https://Registry.Example.com.:443/v2/", "registry.example.com"),
            (PORT, "registry.example.com:5000"),
            ("http://registry.example.com:443", "registry.example.com:443"),
            ("http://127.0.0.1", "127.0.0.1"),
            ("https://[::1]", "[::1]"),
            ("https://[::1]:5000", "[::1]:5000"),
            (HUB, HUB_KEY),
            ("https://docker.io", HUB_KEY),
            ("https://index.docker.io", HUB_KEY),
        ):
            self.assertEqual(server_name(url), name, url)
        self.assertEqual(HUB_KEY, "https://index.docker.io/v1/")

    def test_names_that_mean_it(self) -> None:
        """Docker's own form is the best."""
        for url, key, how_well in (
            (HOST, "registry.example.com", 0),
            (HOST, "registry.example.com:443", 1),
            (HOST, "https://registry.example.com", 1),
            (HOST, "http://registry.example.com/v2/", 1),
            (HOST, "https://registry.example.com/v1/", 1),
            (HOST, "https://registry.example.com/", 1),
            (HOST, "Registry.Example.com", 1),
            (PORT, "registry.example.com:5000", 0),
            (PORT, "http://registry.example.com:5000/v2", 1),
            ("http://[::1]", "[::1]", 0),
            ("http://[::1]", "http://[::1]:80", 1),
            (HUB, "https://index.docker.io/v1/", 0),
            (HUB, "https://index.docker.io/v1", 1),
            (HUB, "docker.io", 1),
            (HUB, "index.docker.io", 1),
            (HUB, "registry-1.docker.io", 1),
            (HUB, "https://registry-1.docker.io/v2/", 1),
        ):
            self.assertEqual(rank(key, url), how_well, (key, url))

    def test_names_that_do_not(self) -> None:
        """A login goes nowhere else, and one for a part of a registry not to the whole."""
        for url, key in (
            (HOST, "registry.example.com:5000"),
            (HOST, "registry.example.com:80"),
            (HOST, "example.com"),
            (HOST, "evil-registry.example.com"),
            (HOST, "registry.example.com.evil.example"),
            (HOST, "registry.example.com/team"),
            (HOST, "https://registry.example.com/v2/team"),
            (HOST, "https://user@registry.example.com"),
            (HOST, "ftp://registry.example.com"),
            (HOST, ""),
            (PORT, "registry.example.com"),
            (PORT, "registry.example.com:443"),
            (HUB, "hub.docker.com"),
            (HUB, "auth.docker.io"),
            (HUB, "docker.io/team"),
            (HUB, "[::1]"),
            (HOST, "docker.io"),
        ):
            self.assertIsNone(rank(key, url), (key, url))
