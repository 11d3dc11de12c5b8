"""The systemd units, judged by systemd's own tools."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.e2e.processes import ROOT, CommandFailed, Workshop, run

UNITS = ROOT / "deploy/systemd"
SERVICE, SOCKET = "txociproxy.service", "txociproxy.socket"
# Where distributions keep the units that ours name.
LIBRARIES = (Path("/usr/lib/systemd/system"), Path("/lib/systemd/system"))
# What is left is being a network service: below 2 systemd calls a unit OK.
MOST_EXPOSED = 2.0


class UnitTests(SynchronousTestCase):
    """``systemd-analyze`` in a root of its own, where the package is installed as docs/operations.md says."""

    def setUp(self) -> None:
        """Lay out the root: the units of the distribution, ours, and programs of the names that ours start."""
        self.library = next(filter(Path.is_dir, LIBRARIES), None)
        if shutil.which("systemd-analyze") is None or self.library is None:
            raise SkipTest("not installed here: systemd (.ci/run names the packages)")
        self.shop = Workshop()
        self.addCleanup(self.shop.close)
        self.root = self.shop.directory("root")
        shutil.copytree(self.library, self.root / "usr/lib/systemd/system", symlinks=True)
        ours = self.root / "etc/systemd/system"
        ours.mkdir(parents=True)
        for name in (SERVICE, SOCKET):
            shutil.copyfile(UNITS / name, ours / name)
        for program in ("opt/txociproxy/bin/twistd", "bin/sh"):
            (self.root / program).parent.mkdir(parents=True, exist_ok=True)
            (self.root / program).write_text("#!/bin/sh\n")
            (self.root / program).chmod(0o755)

    def analyze(self, *words: str) -> str:
        """Run ``systemd-analyze`` on the root."""
        return run(["systemd-analyze", *words[:1], f"--root={self.root}", *words[1:]], 60)

    def verify(self) -> str:
        """Return what systemd finds wrong with the units."""
        try:
            said = run(["sh", "-c", f"systemd-analyze verify --man=no --root={self.root} {SERVICE} {SOCKET} 2>&1"], 60)
        except CommandFailed as error:
            said = str(error)
        return said.strip()

    def spoil(self, old: str, new: str) -> None:
        """Change the installed unit."""
        file = self.root / "etc/systemd/system" / SERVICE
        file.write_text(file.read_text().replace(old, new))

    def test_systemd_finds_nothing_wrong(self) -> None:
        """No unknown key, no missing program, no unit that is not there."""
        self.assertEqual(self.verify(), "")

    def test_systemd_would_find_what_is_wrong(self) -> None:
        """A slip of one letter is said, so that silence above means something."""
        self.spoil("ProtectSystem=", "ProtectSytem=")
        self.assertIn("ProtectSytem", self.verify())

    def test_little_is_exposed(self) -> None:
        """The level that ``systemd-analyze security`` computes from the unit alone, with every sandbox that we name."""
        table = self.analyze("security", "--offline=true", "--no-pager", SERVICE)
        found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", table)
        assert found is not None, table
        print(f"systemd exposure level: {found[1]}")
        self.assertLess(float(found[1]), MOST_EXPOSED, table)
