"""A Debian of our own in a directory, with the cache installed from the checkout: where OpenRC and images are tried.

It is made by mmdebstrap once per process, and what is done in it happens in mount namespaces that end by themselves.
"""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

from twisted.trial.unittest import SkipTest

from tests.e2e.processes import E2EError, Workshop, run
from tests.e2e.test_readme import fresh_clone

PACKAGES = ("python3", "python3-venv", "ca-certificates", "openrc")
MAKE_S = 300
INSTALL_S = 180
# What nobody reads there, and what a machine does for its disk that is to last.
LEAN = ("force-unsafe-io", *(f"path-exclude=/usr/share/{unread}/*" for unread in ("doc", "man", "locale")))
AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")
# What a container's build and a chroot have to be told about the index of this machine.
INDEX_SETTINGS = ("index-url", "extra-index-url", "trusted-host")


def want_root(*tools: str) -> None:
    """Skip the test where it cannot be run; the reason is in the report."""
    missing = [
        tool for tool in tools if shutil.which(tool, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") is None
    ]
    if os.geteuid() != 0:
        raise SkipTest("needs root, for mounts and other users")
    if missing:
        raise SkipTest(f"not installed here: {', '.join(missing)} (.ci/run names the packages)")


@cache
def debian_tar() -> Path:
    """Return a root file system of this machine's Debian as a tar file.

    :raises SkipTest: none can be made here, for want of a tool or of Debian's archive.
    """
    want_root("mmdebstrap")
    shop = Workshop()
    atexit.register(_end, shop, os.getpid())
    tar = shop.path / "debian.tar"
    options = [f"--include={','.join(PACKAGES)}", *(f"--dpkgopt={option}" for option in LEAN)]
    try:
        run(["mmdebstrap", "--variant=minbase", "--quiet", *options, _suite(), tar, *_mirror()], MAKE_S)
    except E2EError as error:
        raise SkipTest(f"no Debian could be made here: {error}") from None
    return tar


@cache
def installed_tree() -> Path:
    """Return a directory with that Debian, and the cache of this checkout in /opt/txociproxy."""
    tar = debian_tar()
    tree = tar.with_name("tree")
    tree.mkdir(exist_ok=True)
    run(["tar", "-xf", tar, "-C", tree], 60)
    fresh_clone(tree / "src")
    shutil.copyfile(AUTHORITIES, tree / "etc/ssl/certs/ca-certificates.crt")
    shutil.copyfile("/etc/resolv.conf", tree / "etc/resolv.conf")
    pip = "/opt/txociproxy/bin/pip install --no-cache-dir --disable-pip-version-check --quiet /src"
    env = {**index_environment(), "PIP_CERT": str(AUTHORITIES), "PIP_FIND_LINKS": "", "PYTHONPATH": ""}
    run(["chroot", tree, "sh", "-c", f"python3 -m venv /opt/txociproxy && {pip}"], INSTALL_S, env)
    run(["chroot", tree, "/opt/txociproxy/bin/twistd", "--help"], 60, {"PYTHONPATH": ""})
    return tree


@cache
def index_environment() -> dict[str, str]:
    """Return what this machine's pip is told about its index, as environment variables."""
    said = {}
    for name in INDEX_SETTINGS:
        words = [sys.executable, "-m", "pip", "config", "get", f"global.{name}"]
        answer = subprocess.run(words, capture_output=True, check=False, timeout=60, text=True).stdout.strip()
        variable = f"PIP_{name.upper().replace('-', '_')}"
        if os.environ.get(variable) or answer:
            said[variable] = os.environ.get(variable) or answer
    return said


def _suite() -> str:
    """Return the name of the Debian that runs here."""
    for line in Path("/etc/os-release").read_text("utf-8").splitlines():
        name, _, value = line.partition("=")
        if name == "VERSION_CODENAME":
            return value.strip('"')
    raise SkipTest("this is no Debian: /etc/os-release has no VERSION_CODENAME")


def _mirror() -> list[str]:
    """Return the archive that apt uses here, where it says so in the form of our days."""
    file = Path("/etc/apt/sources.list.d/debian.sources")
    lines = file.read_text("utf-8").splitlines() if file.exists() else []
    return [line.partition(":")[2].strip() for line in lines if line.startswith("URIs:")][:1]


def _end(shop: Workshop, owner_pid: int) -> None:
    """Remove everything, unless this is a fork of the process that made it."""
    if os.getpid() == owner_pid:
        shop.close()
