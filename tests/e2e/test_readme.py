"""What the README promises to a person with a fresh clone: one command runs the cache, and it works."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.e2e.clients import Reference, skopeo_copy
from tests.e2e.images import Image, make_image, push
from tests.e2e.processes import ROOT, Workshop, accepts, free_port
from tests.e2e.proxy import write_config
from tests.e2e.registry import Registry, start_registry

MIB = 1 << 20
SIZES = (2_000, 700_000, 10 * MIB, 64 * MIB)
IMAGE = Reference("ghcr.io", "team/application", "1.0")
# A virtual environment is made and filled from the package index meanwhile.
INSTALLED_WITHIN_S = 300


def fresh_clone(target: Path) -> Path:
    """Copy what is, or is about to be, under version control; no environment, nothing built."""
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listing, cwd=ROOT, check=True, capture_output=True, timeout=30).stdout.split(b"\0")
    for name in filter(None, names):
        source, copy = ROOT / name.decode(), target / name.decode()
        if source.is_file():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, copy)
    return target


def files_below(directory: Path) -> dict[str, bytes]:
    """Return every file of a layout by its path."""
    files = (path for path in directory.rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): path.read_bytes() for path in files}


class ReadmeTests(SynchronousTestCase):
    """A fresh clone, ``make run``, and skopeo."""

    def setUp(self) -> None:
        """Make an image with layers of up to 64 MiB and put it into a registry."""
        self.shop = Workshop()
        self.addCleanup(self.shop.close)
        self.image = make_image(self.shop.path / "layout", seed=7, tag=IMAGE.tag, sizes=SIZES)
        self.registry = start_registry(self.shop)
        push(self.image, self.registry.port, IMAGE.repository)

    def make_run(self, registry: Registry) -> int:
        """Type ``make run CONFIG=file`` in the clone and return the port when it listens."""
        clone, port = fresh_clone(self.shop.directory("clone")), free_port()
        file = clone / "ociproxy.yaml"
        write_config(file, port, self.shop.directory("store"), registry.url)
        make = self.shop.start("make", ["make", "run", f"CONFIG={file}"], cwd=clone, as_in_a_shell=True)
        make.wait_for(lambda: accepts(port), INSTALLED_WITHIN_S, "listens")
        return port

    def copy(self, port: int, name: str, reference: Reference | str) -> dict[str, bytes]:
        """Copy the image into a layout with skopeo and return the files of the layout."""
        directory = self.shop.directory("copy")
        skopeo_copy(directory, port, reference, f"oci:{directory}/{name}")
        return files_below(directory / name)

    def assert_same_files(self, got: dict[str, bytes], wanted: dict[str, bytes]) -> None:
        """Both layouts have the same files, byte for byte."""
        self.assertEqual(sorted(got), sorted(wanted))
        self.assertEqual([name for name in wanted if got[name] != wanted[name]], [])

    def assert_blobs_of(self, image: Image, files: dict[str, bytes]) -> None:
        """The layout holds every blob of the image as it was made, the index too, and nothing else."""
        blobs = {name: data for name, data in files.items() if name.startswith("blobs/")}
        made = {f"blobs/sha256/{path.name}": path.read_bytes() for path in image.layout.glob("blobs/sha256/*")}
        self.assert_same_files(blobs, made)

    def test_a_copy_and_a_second_one_without_upstream_are_the_original(self) -> None:
        """``make run``, ``skopeo copy``, upstream off, ``skopeo copy``: the layouts are the same bytes."""
        port = self.make_run(self.registry)
        original = self.copy(self.registry.port, "out", f"{IMAGE.repository}:{IMAGE.tag}")
        first = self.copy(port, "out", IMAGE)
        self.registry.stop()
        second = self.copy(port, "out", IMAGE)
        self.assert_blobs_of(self.image, first)
        self.assert_same_files(first, original)
        self.assert_same_files(second, original)
