"""The Dockerfile, built by buildah over a Debian of our own, and its image run as a container engine runs it."""

from __future__ import annotations

import atexit
import json
import os
import resource
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from attrs import frozen
from twisted.trial.unittest import SynchronousTestCase

from tests.e2e.debian import AUTHORITIES, debian_tar, index_environment, want_root
from tests.e2e.processes import CommandFailed, Workshop, accepts, free_port, run, wait_until
from tests.e2e.proxy import ask
from tests.e2e.scripts import Content, blob, start_scripted
from tests.e2e.test_readme import fresh_clone

MIB = 1 << 20
BASE, IMAGE = "localhost/e2e-base", "localhost/e2e-txociproxy"
NOBODY = 65532
MOST = 4096
BUILD_S = 240
# Above the base; with Amazon's SDK.
MOST_ADDED_BYTES = 100 * MIB
SDK = """
import boto3
for name in ("s3", "ecr", "ecr-public", "sts"):
    boto3.client(name, region_name="us-east-1")
"""


# As deploy/compose has it: nothing can be written but the volume, and nothing can be won.
LIMITED = ("--network", "host", "--read-only", "--tmpfs", "/tmp", "--cap-drop", "all")


def ulimits() -> list[str]:
    """Return limits that can be set here: not everywhere may root raise them to what podman likes to set."""
    kinds = {"nofile": resource.RLIMIT_NOFILE, "nproc": resource.RLIMIT_NPROC}
    return [word for name, kind in kinds.items() for word in ("--ulimit", f"{name}={_allowed(kind)}")]


def _allowed(kind: int) -> str:
    """Return a soft and a hard limit within those of this process."""
    hard = resource.getrlimit(kind)[1]
    limit = MOST if hard == resource.RLIM_INFINITY else min(hard, MOST)
    return f"{limit}:{limit}"


@frozen
class Store:
    """Where buildah and podman keep what the tests make."""

    path: Path

    @property
    def words(self) -> list[object]:
        """The options that both understand."""
        return ["--root", self.path / "root", "--runroot", self.path / "run", "--storage-driver", "vfs"]

    def podman(self, *words: object, within_s: float = 60) -> str:
        """Run podman, by what works without systemd and with any kind of cgroups."""
        quiet = ["--cgroup-manager=cgroupfs", "--events-backend=file", "--runtime=runc"]
        return run(["podman", *self.words, *quiet, *words], within_s)

    def config(self, image: str) -> dict[str, Any]:
        """Return what an image says about itself."""
        facts = json.loads(self.podman("image", "inspect", image))[0]
        return {**facts["Config"], "Healthcheck": facts["Healthcheck"]}

    def size_bytes(self, image: str) -> int:
        """Return how much an image unpacks to."""
        return int(json.loads(self.podman("image", "inspect", image))[0]["Size"])


@cache
def built() -> Store:
    """Build the image once per process, over a base that is made here, from what git would take of this checkout.

    :raises SkipTest: a tool is missing, or no base can be made.
    """
    want_root("buildah", "podman", "runc")
    tar = debian_tar()
    shop = Workshop()
    atexit.register(_end, shop, os.getpid())
    store, context = Store(shop.path), shop.directory("base")
    os.link(tar, context / "base.tar")
    (context / "Dockerfile").write_text("FROM scratch\nADD base.tar /\n")
    build = ["buildah", *store.words, "bud", "--isolation", "chroot", "--format", "docker", "--layers=false"]
    run([*build, "--tag", BASE, context], BUILD_S)
    # As on a machine whose index, and whose authority for it, are its own.
    said = {**index_environment(), "BASE": BASE, "PIP_CERT": "/run/authorities.crt"}
    args = [word for name, value in said.items() for word in ("--build-arg", f"{name}={value}")]
    ours = ["--volume", f"{AUTHORITIES}:/run/authorities.crt:ro", "--tag", IMAGE]
    checkout = fresh_clone(shop.directory("checkout"))
    run([*build, *args, *ours, "--file", checkout / "deploy/container/Dockerfile", checkout], BUILD_S)
    return store


def _end(shop: Workshop, owner_pid: int) -> None:
    """Remove the store, unless this is a fork of the process that made it."""
    if os.getpid() == owner_pid:
        shop.close()


class ImageTests(SynchronousTestCase):
    """What is in the image, and what it says about itself."""

    def setUp(self) -> None:
        """Build it."""
        self.store = built()

    def test_it_says_how_it_is_run(self) -> None:
        """Nobody's user, one port, one volume, a health check without a shell, and no mode that nobody has chosen."""
        config = self.store.config(IMAGE)
        self.assertEqual(config["User"], f"{NOBODY}:{NOBODY}")
        self.assertEqual(list(config["ExposedPorts"]), ["8080/tcp"])
        self.assertEqual(list(config["Volumes"]), ["/var/cache/txociproxy"])
        self.assertEqual(config["StopSignal"], "SIGTERM")
        self.assertEqual(config["Healthcheck"]["Test"], ["CMD", "ociproxy", "healthcheck"])
        self.assertEqual([word for word in config["Env"] if word.startswith(("PROXY_MODE", "PIP_", "OCIPROXY_"))], [])

    def test_it_is_small_and_says_nothing_about_where_it_was_built(self) -> None:
        """What it adds to its base is bounded; index and authority are in no layer's history."""
        added_bytes = self.store.size_bytes(IMAGE) - self.store.size_bytes(BASE)
        print(f"image: {added_bytes / MIB:.0f} MiB above its base")
        self.assertLess(added_bytes, MOST_ADDED_BYTES)
        self.assertNotIn("authorities", self.store.podman("history", "--no-trunc", IMAGE))

    def test_what_was_left_out_of_the_sdk_is_not_needed(self) -> None:
        """Bucket, registries and identity are still described."""
        self.store.podman("run", "--rm", *LIMITED, *ulimits(), "--entrypoint", "python", IMAGE, "-c", SDK)

    def test_without_a_mode_it_says_so_and_ends(self) -> None:
        """The first thing that a person meets is one sentence."""
        with self.assertRaises(CommandFailed) as caught:
            self.store.podman("run", "--rm", *LIMITED, *ulimits(), IMAGE)
        self.assertIn("PROXY_MODE", str(caught.exception))


class ContainerTests(SynchronousTestCase):
    """The image in a container whose file system is read-only."""

    def setUp(self) -> None:
        """Start an upstream, and write the configuration that leads to it."""
        self.store = built()
        self.shop = Workshop()
        self.addCleanup(self.shop.close)
        self.content = Content(3_000_000, 8)
        upstream = start_scripted(self.shop, blob("library/sample", self.content))
        self.port = free_port()
        self.file = self.shop.path / "c.yaml"
        self.file.write_text(yaml.safe_dump({"upstreams": [{"namespace": "docker.io", "urls": [upstream.url]}]}))
        self.shop.path.chmod(0o755)

    def start(self) -> str:
        """Start a container as a person would, and return its number when it listens."""
        told = {"PROXY_MODE": "transparent", "LISTEN_ADDR": f"127.0.0.1:{self.port}", "OCIPROXY_CONFIG": "/c.yaml"}
        env = [word for name, value in told.items() for word in ("--env", f"{name}={value}")]
        mount = ["--volume", f"{self.file}:/c.yaml:ro"]
        number = self.store.podman("run", "--detach", *LIMITED, *ulimits(), *env, *mount, IMAGE).split()[-1]
        self.addCleanup(self.store.podman, "rm", "--force", "--volumes", "--time", "0", number)
        wait_until(lambda: accepts(self.port), 20, "the container listens")
        return number

    def asked_for_health(self, number: str) -> bool:
        """Run the health check of the image, as an engine does."""
        try:
            self.store.podman("healthcheck", "run", number)
        except CommandFailed:
            return False
        return True

    def test_it_pulls_and_is_healthy_and_ends_well(self) -> None:
        """A pull through it, its health check, the user that it is, its log, its end."""
        number = self.start()
        status, _, body = ask(self.port, "GET", f"/v2/docker.io/library/sample/blobs/{self.content.digest}")
        self.assertEqual((status, body == self.content.data()), (200, True))
        self.assertTrue(self.asked_for_health(number))
        facts = json.loads(self.store.podman("inspect", number))[0]
        process = Path(f"/proc/{facts['State']['Pid']}/status").read_text()
        self.assertIn(f"Uid:\t{NOBODY}\t{NOBODY}\t{NOBODY}\t{NOBODY}\n", process)
        self.assertIn("CapEff:\t0000000000000000\n", process)
        digest = self.content.digest.partition(":")[2]
        kept = f"/var/cache/txociproxy/blobs/sha256/{digest[:2]}/{digest}"
        wait = f"for each in 1 2 3 4 5 6 7 8 9; do test -s {kept} && exit; sleep 0.5; done; exit 1"
        self.podman_exec(number, ["sh", "-c", wait])
        self.store.podman("stop", "--time", "65", number)
        log = self.store.podman("logs", number)
        self.assertNotIn("plugin cache", log)
        self.assertNotIn("level=critical", log)
        self.assertEqual(json.loads(self.store.podman("inspect", number))[0]["State"]["ExitCode"], 0)
        self.assertFalse(self.asked_for_health(number))

    def test_the_health_check_fails_where_nothing_answers(self) -> None:
        """Exit 1, which is what engines call unhealthy; 0 while it runs."""
        number = self.start()
        self.podman_exec(number, ["ociproxy", "healthcheck"])
        elsewhere = ["--env", f"LISTEN_ADDR=127.0.0.1:{free_port()}"]
        with self.assertRaises(CommandFailed) as caught:
            self.store.podman("exec", *elsewhere, number, "ociproxy", "healthcheck")
        self.assertIn("exit 1:", str(caught.exception))

    def podman_exec(self, number: str, words: Sequence[object]) -> str:
        """Run a command in the container; it fails when the command does."""
        return self.store.podman("exec", number, *words)
