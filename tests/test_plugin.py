"""``twistd`` knows us, as a person would find it: installed, and outside the checkout."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TextIO, cast

from twisted.trial.unittest import SkipTest, SynchronousTestCase

ROOT = Path(__file__).parent.parent
LIST_PLUGINS = """
from twisted.application.service import IServiceMaker
from twisted.plugin import getPlugins
print(*(plugin.tapname for plugin in getPlugins(IServiceMaker)))
"""


def bare_environment() -> dict[str, str]:
    """Return what a program needs; PYTHONPATH would show the checkout, and PROXY_MODE would answer for us."""
    return {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}


def run(*words: str, cwd: str) -> subprocess.CompletedProcess[str]:
    """Run a program to its end."""
    return subprocess.run(
        words, cwd=cwd, env=bare_environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60
    )


class PluginTests(SynchronousTestCase):
    """The door of the house."""

    def setUp(self) -> None:
        """Stand in a directory that is not the checkout, with txociproxy installed."""
        self.elsewhere = self.mktemp()
        os.makedirs(self.elsewhere)
        if run(sys.executable, "-c", "import txociproxy", cwd=self.elsewhere).returncode:
            raise SkipTest("txociproxy is not installed here; `make test` installs it")

    def twistd(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run ``twistd -n ociproxy``."""
        twistd = str(Path(sys.executable).with_name("twistd"))
        return run(twistd, "-n", "--pidfile=", "ociproxy", *words, cwd=self.elsewhere)

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start ``twistd -n ociproxy``; it ends with the test."""
        twistd = str(Path(sys.executable).with_name("twistd"))
        process = subprocess.Popen(
            [twistd, "-n", "--pidfile=", "ociproxy", *words],
            cwd=self.elsewhere,
            env=bare_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.addCleanup(cast(TextIO, process.stdout).close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def test_twisted_finds_the_plugin(self) -> None:
        """``ociproxy`` is among the service makers."""
        found = run(sys.executable, "-c", LIST_PLUGINS, cwd=self.elsewhere)
        self.assertIn("ociproxy", found.stdout.split(), found.stderr)

    def test_twistd_explains_the_options(self) -> None:
        """``twistd ociproxy --help`` ends well and names them."""
        help_text = self.twistd("--help")
        self.assertEqual(help_text.returncode, 0, help_text.stderr)
        self.assertIn("--tag-fresh-s=", help_text.stdout)

    def test_a_wrong_value_stops_the_start_with_one_line(self) -> None:
        """No traceback, no page of options, and the sentence is the last line."""
        stopped = self.twistd("--mode=transparent", "--min-free=lots")
        self.assertEqual(stopped.returncode, 1)
        lines = (stopped.stdout + stopped.stderr).strip().splitlines()
        self.assertLessEqual(len(lines), 3, lines)
        self.assertIn("--min-free: 'lots' is not an amount of space; write", lines[-1])

    def test_a_root_that_cannot_be_written_stops_the_start(self) -> None:
        """The last line says so, and there is no traceback (RULES G2)."""
        stopped = self.twistd("--mode=transparent", "--listen=127.0.0.1:0", "--fs-root=/dev/null/cache")
        self.assertEqual(stopped.returncode, 1)
        output = (stopped.stdout + stopped.stderr).strip()
        self.assertNotIn("Traceback", output)
        self.assertIn("--fs-root: '/dev/null/cache': cannot write", output.splitlines()[-1])

    def test_the_command_checks_a_file(self) -> None:
        """``ociproxy config check`` is installed; it ends with 0 or 1 and says why in one line."""
        command = str(Path(sys.executable).with_name("ociproxy"))
        for text, status, said in (
            ("mode: transparent\n", 0, ": ok: "),
            ("tag_fresh_s: never\n", 1, ":1: tag_fresh_s"),
        ):
            (Path(self.elsewhere) / "file.yaml").write_text(text)
            checked = run(command, "config", "check", "file.yaml", cwd=self.elsewhere)
            self.assertEqual(checked.returncode, status, checked.stderr)
            self.assertIn(f"file.yaml{said}", checked.stdout + checked.stderr)

    def test_a_signal_reloads_the_table(self) -> None:
        """SIGHUP reads the file again; a bad one leaves what was there, and the process."""
        file = Path(self.elsewhere) / "live.yaml"
        file.write_text("upstreams: [{namespace: one.example}]\n")
        words = ["--mode=transparent", "--listen=127.0.0.1:0", f"--fs-root={self.mktemp()}", f"--config={file.name}"]
        process = self.start(*words)
        lines = iter(process.stdout or ())
        self.assertTrue(any(" msg=listening " in line for line in lines))
        file.write_text("upstreams: [{namespace: one.example}, {namespace: two.example}]\n")
        process.send_signal(signal.SIGHUP)
        self.assertTrue(any("added=two.example" in line for line in lines))
        file.write_text("upstreams: [{namespace: one.example, urls: 7}]\n")
        process.send_signal(signal.SIGHUP)
        self.assertTrue(any("live.yaml:1: upstreams[one.example].urls" in line for line in lines))
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(30), 0)

    def test_it_listens_and_ends_well_at_sigterm(self) -> None:
        """The first line introduces us; SIGTERM is a good end."""
        words = ["--mode=transparent", "--listen=127.0.0.1:0", f"--fs-root={self.mktemp()}"]
        process = self.start(*words)
        lines = iter(process.stdout or ())
        self.assertRegex(next(lines), r"^ts=\S+ level=info msg=starting version=\S+ mode=transparent storage=fs:\S+ ")
        self.assertTrue(any(" msg=listening doors=127.0.0.1:" in line for line in lines))
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(30), 0)


class PluginFileTests(SynchronousTestCase):
    """The file that every ``twistd`` of the machine imports."""

    def test_it_imports_nothing_of_ours(self) -> None:
        """It names its module as text."""
        tree = ast.parse((ROOT / "twisted/plugins/txociproxy_plugin.py").read_text("utf-8"))
        modules = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        self.assertEqual(modules, ["twisted.application.service"])

    def test_the_plugin_folder_is_no_package(self) -> None:
        """An ``__init__.py`` there would hide Twisted's own plugins, or Twisted."""
        self.assertEqual([*(ROOT / "twisted").rglob("__init__.py")], [])
