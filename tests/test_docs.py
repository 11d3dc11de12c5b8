"""The documents say what the code does."""

from __future__ import annotations

import re
from pathlib import Path

from attrs import fields
from twisted.trial.unittest import SynchronousTestCase

from txociproxy import __version__
from txociproxy.config import load
from txociproxy.options import Options
from txociproxy.settings import SETTINGS
from txociproxy.upstreams.entry import Entry

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


def rows(text: str) -> list[list[str]]:
    """Return the cells of all table rows."""
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in text.splitlines() if line[:1] == "|"]


class ConfigurationPageTests(SynchronousTestCase):
    """docs/configuration.md against the table of settings, the options and the upstreams' keys."""

    def setUp(self) -> None:
        """Read the page."""
        self.page = (ROOT / "docs/configuration.md").read_text("utf-8")

    def test_every_setting_has_its_row_and_every_row_its_setting(self) -> None:
        """Option, variable, default and meaning are those of the code, word for word."""
        written = {cells[0]: cells for cells in rows(self.page) if cells[0].startswith("`--")}
        known = {
            f"`--{setting.option}`": [
                f"`--{setting.option}`",
                f"`{setting.variable}`",
                "–" if setting.default is None else f"`{setting.default}`",
                setting.meaning,
            ]
            for setting in SETTINGS
        }
        self.assertEqual(set(written), set(known))
        self.assertEqual([cells for option, cells in known.items() if written[option] != cells], [])

    def test_every_option_of_the_command_is_a_setting(self) -> None:
        """Nothing can be said on the command line that the page does not have."""
        usage = Options({}).getUsage(width=200)
        options = set(re.findall(r"^ +--([a-z0-9-]+)=", usage, re.M))
        self.assertEqual(options, {setting.option for setting in SETTINGS})

    def test_every_key_of_an_upstream_has_its_row(self) -> None:
        """The keys are the attributes of an entry."""
        section = self.page.partition("\n## Upstreams")[2].partition("\n## ")[0]
        written = {cells[0].strip("`") for cells in rows(section)} - {"Key", "---", "|---"}
        keys = {attribute.name for attribute in fields(Entry) if attribute.init}
        self.assertEqual({name for name in written if name.isidentifier()}, keys)

    def test_the_example_is_a_configuration(self) -> None:
        """What a person copies from the page starts."""
        examples = re.findall(r"```yaml\n(.*?)```", self.page, re.S)
        self.assertTrue(examples)
        for example in examples:
            path = Path(self.mktemp())
            path.write_text(example, "utf-8")
            self.assertEqual(load({"config": str(path)}, {}).mode, "transparent")


class LinkTests(SynchronousTestCase):
    """All documents."""

    def test_links_between_documents_lead_somewhere(self) -> None:
        """Every relative link names a file of the tree."""
        broken = [
            f"{document.name}: {target}"
            for document in DOCUMENTS
            for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text("utf-8"))
            if not (document.parent / target).exists()
        ]
        self.assertEqual(broken, [])

    def test_paths_of_the_code_exist(self) -> None:
        """A file that a document names is there; a renamed one is renamed there too."""
        pattern = re.compile(r"`((?:txociproxy|tests|docs|twisted)/[A-Za-z0-9_./-]+)`")
        broken = [
            f"{document.name}: {name}"
            for document in DOCUMENTS
            for name in pattern.findall(document.read_text("utf-8"))
            if not (ROOT / name).exists()
        ]
        self.assertEqual(broken, [])

    def test_the_changelog_has_this_version(self) -> None:
        """What is released is described."""
        self.assertIn(f"## {__version__}", (ROOT / "CHANGELOG.md").read_text("utf-8"))
