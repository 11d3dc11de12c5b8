"""``ociproxy config check FILE``: what it says, and how it ends."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.cli.commands import run_command


class CheckTests(SynchronousTestCase):
    """One line and an exit status."""

    def file(self, content: str) -> str:
        """Write a file."""
        path = Path(self.mktemp())
        path.write_text(content, "utf-8")
        return str(path)

    def test_a_good_file(self) -> None:
        """How many upstreams there are, and which is the default; a mode is not needed."""
        file = self.file("shipped_upstreams: false\nupstreams: [{namespace: a.example}, {namespace: docker.io}]")
        self.assertEqual(run_command("config", "check", file), (0, f"{file}: ok: 2 upstreams, default docker.io\n", ""))

    def test_a_bad_file(self) -> None:
        """The one line of the start, on standard error."""
        file = self.file("mode: transparent\nupstreams:\n- namespace: a.example\n  tls: {ca: /nowhere/ca.pem}\n")
        status, out, err = run_command("config", "check", file)
        self.assertEqual((status, out, err.count("\n")), (1, "", 1))
        self.assertTrue(err.startswith(f"{file}:4: upstreams[a.example].tls.ca: /nowhere/ca.pem: No such file"), err)

    def test_no_file(self) -> None:
        """Said as at the start; no name at all is no good file either."""
        self.assertEqual(run_command("config", "check", "")[0], 1)
        self.assertIn("cannot be read", run_command("config", "check", "/nowhere.yaml")[2])

    def test_rules_of_the_mode(self) -> None:
        """They count where a mode is said: by the option, the environment or the file."""
        file = self.file("auth_cache_s: 5\n")
        self.assertEqual(run_command("config", "check", file)[0], 0)
        self.assertEqual(run_command("config", "check", file, "--mode", "authenticated")[0], 0)
        for status, _, err in (
            run_command("config", "check", file, "--mode=transparent"),
            run_command("config", "check", file, PROXY_MODE="transparent"),
            run_command("config", "check", self.file("mode: transparent\nauth_cache_s: 5\n")),
        ):
            self.assertEqual(status, 1)
            self.assertIn("auth_cache_s: counts in authenticated mode only", err)

    def test_the_environment_counts(self) -> None:
        """For what the file takes out of it, and for what it says itself."""
        file = self.file("upstreams: [{namespace: a.b, credentials: {username: u, password_env: TOKEN}}]")
        self.assertEqual(run_command("config", "check", file)[0], 1)
        self.assertEqual(run_command("config", "check", file, TOKEN="x")[0], 0)
        self.assertEqual(run_command("config", "check", file, TOKEN="x", UPSTREAM_CREDENTIALS="{")[0], 1)

    def test_bad_usage(self) -> None:
        """Status 2, as programs do."""
        for words in ((), ("config",), ("config", "check"), ("nonsense",), ("config", "check", "x", "--mode", "y")):
            status, out, err = run_command(*words)
            self.assertEqual((status, out), (2, ""))
            self.assertTrue(err.startswith("usage: ociproxy"))

    def test_help_teaches(self) -> None:
        """What the commands do, how they end, and how the proxy itself is started."""
        status, out, _ = run_command("--help")
        self.assertEqual(status, 0)
        self.assertIn("twistd -n ociproxy --mode transparent", out)
        self.assertIn("check a configuration file", out)
        status, out, _ = run_command("config", "check", "--help")
        self.assertEqual(status, 0)
        for words in ("exit status", "FILE:LINE: KEY:", "--mode", "examples:"):
            self.assertIn(words, out)
