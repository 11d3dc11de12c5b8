"""Real ``docker-credential-*`` programs, run by a real reactor."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.e2e.processes import Workshop, run, wait_until

URL = "https://registry.example.com"
SECRET = "s3cret-of-the-helper"
# It writes down all that it was given, then answers.
WITNESS = """#!/bin/sh
echo run >> {notes}/runs
/usr/bin/tr '\\0' '\\n' < /proc/$$/environ > {notes}/environment
/usr/bin/tr '\\0' '\\n' < /proc/$$/cmdline > {notes}/argv
ls /proc/self/fd > {notes}/descriptors
/bin/cat > {notes}/stdin
echo {secret} >&2
echo '{{"ServerURL":"x","Username":"robot","Secret":"{secret}"}}'
"""
HANGS = """#!/bin/sh
echo $$ > {notes}/pid
exec sleep 600
"""
# A child lives on and holds the pipe for errors; the program itself has said everything and ends.
LEAVES_A_CHILD = """#!/bin/sh
sleep 20 > /dev/null &
echo $! > {notes}/pid
echo '{{"ServerURL":"x","Username":"robot","Secret":"{secret}"}}'
"""
FLOODS = """#!/bin/sh
echo $$ > {notes}/pid
exec cat /dev/zero
"""
FAILS = """#!/bin/sh
echo {secret}
echo {secret} >&2
exit 7
"""


def is_alive(pid: int) -> bool:
    """Say whether a process runs; one that has ended and was not reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


class HelperTests(SynchronousTestCase):
    """One program, one child of ours that asks it."""

    timeout = 120

    def setUp(self) -> None:
        """Make a place for the programs, and one for what they write down."""
        self.shop = Workshop()
        self.addCleanup(self.shop.close)
        self.bin, self.notes = self.shop.directory("bin"), self.shop.directory("notes")

    def program(self, script: str, mode: int = 0o755) -> None:
        """Write ``docker-credential-x``."""
        place = self.bin / "docker-credential-x"
        place.write_text(script.format(notes=self.notes, secret=SECRET))
        place.chmod(mode)

    def ask(self, kind: str = "Helper", env: dict[str, str] | None = None, **more: Any) -> dict[str, Any]:
        """Let a child ask, and return what it found."""
        environment = {"PATH": f"{self.bin}:/usr/bin:/bin", "ONLY": "this one"}
        arguments = {"name": "x"} if kind == "Helper" else {"path": str(self.bin / "config.json")}
        orders = {"account": [kind, {**arguments, "environment": environment}], "url": URL, **more}
        words = [sys.executable, "-W", "error", "-m", "tests.e2e.login_child", json.dumps(orders)]
        found: dict[str, Any] = json.loads(run(words, 60, env=env))
        self.assertEqual(found["children"], [])
        return found

    def note(self, name: str) -> list[str]:
        """Return the lines that a program has written down."""
        return (self.notes / name).read_text().splitlines()

    def assert_refused(self, found: dict[str, Any], *words: str) -> None:
        """Assert that there was no login, with these words and no secret."""
        for word in ("docker-credential-x", *words):
            self.assertIn(word, found["answers"][0])
        self.assertNotIn(SECRET, json.dumps(found))

    def test_what_a_helper_sees(self) -> None:
        """The account's environment, three descriptors, "get", and the server on its input; once for all who ask."""
        self.program(WITNESS)
        found = self.ask(env={"AWS_SECRET_ACCESS_KEY": "not yours"}, asks=5)
        self.assertEqual(found["answers"], [["robot", SECRET]] * 5)
        # A shell sets PWD, OLDPWD and the like for its children only: what the kernel shows is what was given.
        self.assertEqual(sorted(self.note("environment")), ["ONLY=this one", f"PATH={self.bin}:/usr/bin:/bin"])
        self.assertEqual(self.note("argv")[1:], [str(self.bin / "docker-credential-x"), "get"])
        # The last one is that with which they are listed; the child that asks has an inheritable one open.
        self.assertEqual(self.note("descriptors"), ["0", "1", "2", "3"])
        self.assertEqual(self.note("stdin"), ["registry.example.com"])
        self.assertEqual(self.note("runs"), ["run"])

    def test_a_helper_that_docker_s_file_names(self) -> None:
        """It is found and run in the same way."""
        self.program(WITNESS)
        (self.bin / "config.json").write_text(json.dumps({"auths": {URL: {}}, "credsStore": "x"}))
        found = self.ask("DockerConfig", asks=3)
        self.assertEqual(found["answers"], [["robot", SECRET]] * 3)
        self.assertEqual((self.note("stdin"), self.note("runs")), ([URL], ["run"]))

    def test_one_that_hangs_is_killed(self) -> None:
        """After ten seconds, and it is reaped."""
        self.program(HANGS)
        found = self.ask()
        self.assert_refused(found, "10 s")
        self.assertTrue(10 <= found["took_s"] < 15, found["took_s"])
        self.assertFalse(is_alive(int(self.note("pid")[0])))

    def test_stopping_kills_the_one_that_runs(self) -> None:
        """At once."""
        self.program(HANGS)
        found = self.ask(stop_after_s=1)
        self.assertLess(found["took_s"], 5)
        self.assertIn("stopped", found["answers"][0])
        self.assertFalse(is_alive(int(self.note("pid")[0])))

    def test_one_that_never_stops_printing_is_killed(self) -> None:
        """Long before its time is over."""
        self.program(FLOODS)
        found = self.ask()
        self.assert_refused(found, "65536")
        self.assertLess(found["took_s"], 5)
        self.assertFalse(is_alive(int(self.note("pid")[0])))

    def test_a_child_that_it_leaves_behind_holds_nobody_up(self) -> None:
        """Agents live on."""
        self.program(LEAVES_A_CHILD)
        found = self.ask()
        left = int(self.note("pid")[0])
        self.addCleanup(wait_until, lambda: not is_alive(left), 5, "the child ends")
        self.addCleanup(os.kill, left, 9)
        self.assertEqual(found["answers"], [["robot", SECRET]])
        self.assertLess(found["took_s"], 5)
        self.assertTrue(is_alive(left))

    def test_failures_are_told_without_what_was_printed(self) -> None:
        """By code, and by what is not there."""
        began_s = time.monotonic()
        self.assert_refused(self.ask(), "not to be found", str(self.bin))
        self.program(FAILS)
        self.assert_refused(self.ask(), "code 7")
        self.program(WITNESS, 0o644)
        self.assert_refused(self.ask(), "not to be found")
        self.program("no program at all")
        self.assert_refused(self.ask(), "format")
        self.assertLess(time.monotonic() - began_s, 40)
