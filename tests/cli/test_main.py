"""``ociproxy`` itself: its help, its versions, and its end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.cli.commands import run_command
from twisted import __version__ as twisted_version
from txociproxy import __version__
from txociproxy.cli.main import main

ROOT = Path(__file__).parents[2]
COMMANDS = (("config", "check"), ("healthcheck",), ("client-config",), ("smoke",))


class MainTests(SynchronousTestCase):
    """What a person meets first."""

    def test_help_names_every_command(self) -> None:
        """And how the proxy itself is started."""
        status, out, _ = run_command("--help")
        self.assertEqual(status, 0)
        self.assertIn("twistd -n ociproxy --mode transparent", out)
        for command in COMMANDS:
            self.assertRegex(out, rf"\n    {command[0]}\s+[a-z]")

    def test_each_help_teaches(self) -> None:
        """Examples, exit status, and no line that a terminal folds."""
        for command in COMMANDS:
            status, out, _ = run_command(*command, "--help")
            self.assertEqual(status, 0)
            self.assertIn("\nexamples:\n", out)
            self.assertIn("\nexit status: 0 ", out)
            self.assertEqual([line for line in out.splitlines() if len(line) > 120], [])

    def test_bad_usage(self) -> None:
        """Status 2, as programs do."""
        url = ("--url", "http://127.0.0.1")
        for words in (
            ("healthcheck", "--timeout", "0"),
            ("healthcheck", "--timeout", "never"),
            ("client-config", "docker"),
            ("client-config", "nonsense", *url),
            ("smoke", *url),
            ("smoke", "--image", "alpine"),
        ):
            status, out, err = run_command(*words)
            self.assertEqual((status, out), (2, ""), words)
            self.assertTrue(err.startswith("usage: ociproxy"), err)

    def test_versions(self) -> None:
        """The package's on a line of its own; that of Twisted explains many a report."""
        status, out, _ = run_command("--version")
        first, second = out.splitlines()
        self.assertEqual((status, first), (0, f"txociproxy {__version__}"))
        self.assertEqual(second, f"Python {sys.version.split()[0].rstrip('+')}, Twisted {twisted_version}")

    def test_an_interrupt_is_an_end_without_a_trace(self) -> None:
        """As a shell counts SIGINT."""

        class Interrupted(dict[str, str]):
            def get(self, *_: object) -> Any:
                raise KeyboardInterrupt

        words = ("smoke", "--url", "http://127.0.0.1", "--image", "a", "--user", "me")
        self.assertEqual(main(words, Interrupted()), 130)

    def test_a_health_check_loads_little(self) -> None:
        """It begins anew every few seconds: with an address it needs nothing of the proxy, not even Twisted."""
        code = (
            "import sys; from txociproxy.cli.main import main; "
            "main(['healthcheck', '--url', 'unix:/nonexistent/socket']); "
            "print(sorted({name.split('.')[0] for name in sys.modules} & {'twisted', 'yaml', 'OpenSSL'}))"
        )
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, timeout=30, check=True)
        self.assertEqual(done.stdout, b"[]\n", done.stderr)
