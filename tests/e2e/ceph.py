"""The judge of everything about S3: Ceph's object gateway from Debian's packages, alone on loopback, in memory.

A monitor, one OSD that keeps everything in memory, and the gateway (radosgw), which checks signatures, their end and
rights as no imitation does.  It takes about ten seconds to start, so a test process has one, and each test its own
bucket.  It ends with the test process, however that ends.
"""

from __future__ import annotations

import atexit
import os
import secrets
import uuid
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from attrs import field, frozen

from tests.e2e.processes import Process, Workshop, accepts, free_port, run

START_S = 60
MEMORY_BYTES = 2 * 2**30
OWNER = "owner"
REGION = "us-east-1"

_ALL = "allow *"
# Who there is in the cluster, and what each may do.
_CAPABILITIES: Mapping[str, Mapping[str, str]] = {
    "mon.": {"mon": _ALL},
    "client.admin": {"mon": _ALL, "osd": _ALL, "mgr": _ALL},
    "osd.0": {"mon": "allow profile osd", "osd": _ALL},
    "client.rgw": {"mon": "allow rwx", "osd": "allow rwx"},
}


@frozen
class Account:
    """Somebody whom the gateway knows, as the AWS SDK wants to be told."""

    access_key: str
    secret_key: str = field(repr=False)

    def environment(self) -> dict[str, str]:
        """Return what a process needs in its environment to be this one, and nobody whom it finds elsewhere."""
        nowhere = "/nonexistent"
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_SHARED_CREDENTIALS_FILE": nowhere,
            "AWS_CONFIG_FILE": nowhere,
        }


@frozen
class Ceph:
    """A gateway that runs.

    :ivar account: whoever may make buckets.
    """

    port: int
    account: Account
    _config: Path
    _directory: Path

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}"

    def add_account(self, name: str) -> Account:
        """Make somebody who may make buckets too, and sees nobody else's."""
        return _add_account(self._config, name)

    def bound(self, bucket: str, objects: int) -> None:
        """Let no more than so many objects into a bucket; it counts at once."""
        self._quota("set", bucket, "--max-objects", objects)
        self._quota("enable", bucket)

    def unbound(self, bucket: str) -> None:
        """Let anything into a bucket again."""
        self._quota("disable", bucket)

    def _quota(self, what: str, bucket: str, *more: object) -> None:
        _tool("radosgw-admin", "-c", self._config, "quota", what, "--quota-scope", "bucket", "--bucket", bucket, *more)


@cache
def running_ceph() -> Ceph:
    """Return the gateway of this process; the first call starts it."""
    shop = Workshop()
    atexit.register(_end, shop, os.getpid())
    return _start(shop)


def _end(shop: Workshop, owner_pid: int) -> None:
    """End the daemons, unless this is a fork of the process that started them."""
    if os.getpid() == owner_pid:
        # Nothing is kept, and an OSD that has lost its monitor takes its time to leave.
        for process in shop.processes:
            process.kill()
        shop.close()


def _start(shop: Workshop) -> Ceph:
    """Found a cluster and start its daemons, each as soon as the one that it needs answers."""
    port, monitor_port = free_port(), free_port()
    config = _write_config(shop.path, port, monitor_port)
    _make_monitor(shop, config, monitor_port)
    _make_osd(shop, config)
    account = _add_account(config, OWNER)
    gateway = _daemon(shop, config, "radosgw", "-n", "client.rgw", "--keyring", shop.path / "keyring")
    gateway.wait_for(lambda: accepts(port), START_S, "listens")
    return Ceph(port, account, config, shop.path)


def _write_config(directory: Path, port: int, monitor_port: int) -> Path:
    """Write the configuration of all daemons: one copy of everything, and nothing outside the directory."""
    settings: dict[str, dict[str, object]] = {
        "global": {
            "fsid": uuid.uuid4(),
            "mon host": f"v2:127.0.0.1:{monitor_port}/0",
            "mon initial members": "a",
            "public network": "127.0.0.0/8",
            "ms bind msgr1": "false",
            "keyring": directory / "keyring",
            "run dir": directory,
            "crash dir": directory,
            "log file": directory / "$name.log",
            "admin socket": directory / "$name.asok",
            "pid file": directory / "$name.pid",
            # One OSD is all there is.
            "osd pool default size": 1,
            "osd pool default min size": 1,
            "osd pool default pg num": 1,
            "osd pool default pgp num": 1,
            "osd pool default pg autoscale mode": "off",
            "osd crush chooseleaf type": 0,
            "mon allow pool size one": "true",
            "mon max pg per osd": 1000,
        },
        "mon": {"mon data": directory / "mon", "mon cluster log file": directory / "cluster.log"},
        "osd": {
            "osd data": directory / "osd",
            "osd objectstore": "memstore",
            "memstore device bytes": MEMORY_BYTES,
            "osd class load list": "*",
            "osd class default list": "*",
        },
        "client.rgw": {"rgw frontends": f"beast endpoint=127.0.0.1:{port}", "rgw data": directory / "rgw"},
    }
    for name in ("mon", "osd", "rgw"):
        (directory / name).mkdir()
    sections = (_section(name, values) for name, values in settings.items())
    config = directory / "ceph.conf"
    config.write_text("\n".join(sections))
    return config


def _section(name: str, values: Mapping[str, object]) -> str:
    """Return one section of the file."""
    lines = (f"{key} = {value}\n" for key, value in values.items())
    return f"[{name}]\n{''.join(lines)}"


def _make_monitor(shop: Workshop, config: Path, monitor_port: int) -> None:
    """Make everybody's keys and the monitor's store, and start it."""
    keyring, monmap = shop.path / "keyring", shop.path / "monmap"
    _tool("ceph-authtool", "--create-keyring", keyring)
    for name, capabilities in _CAPABILITIES.items():
        caps = [word for kind, what in capabilities.items() for word in ("--cap", kind, what)]
        _tool("ceph-authtool", keyring, "--gen-key", "-n", name, *caps)
    _tool("monmaptool", "-c", config, "--create", "--addv", "a", f"[v2:127.0.0.1:{monitor_port}]", monmap)
    mine = ["-i", "a", "--keyring", keyring]
    _tool("ceph-mon", "-c", config, "--mkfs", "--monmap", monmap, *mine)
    monitor = _daemon(shop, config, "ceph-mon", *mine)
    monitor.wait_for(lambda: accepts(monitor_port), START_S, "listens")


def _make_osd(shop: Workshop, config: Path) -> None:
    """Tell the monitor of an OSD and of its place, make its store, and start it."""
    name = uuid.uuid4()
    ceph = ["ceph", "-c", config, "--connect-timeout", "20", "osd"]
    _tool(*ceph, "new", name)
    _tool(*ceph, "crush", "add", "osd.0", "1.0", "root=default", "host=localhost")
    mine = ["-i", "0", "--keyring", shop.path / "keyring"]
    _tool("ceph-osd", "-c", config, "--mkfs", "--osd-uuid", name, *mine)
    _daemon(shop, config, "ceph-osd", *mine)


def _add_account(config: Path, name: str) -> Account:
    """Make a user with keys that nobody else has; it waits until the cluster can write."""
    account = Account(f"AK{secrets.token_hex(8)}", f"SK{secrets.token_hex(16)}")
    keys = ["--access-key", account.access_key, "--secret-key", account.secret_key]
    _tool("radosgw-admin", "-c", config, "user", "create", "--uid", name, "--display-name", name, *keys)
    return account


def _tool(*words: object) -> None:
    """Run one of Ceph's commands to its end."""
    run(words, START_S)


def _daemon(shop: Workshop, config: Path, program: str, *words: object) -> Process:
    """Start a daemon in the foreground; the kernel ends it when this process is gone before it could (prctl(2))."""
    tied = ["setpriv", "--pdeathsig", "KILL", program, "-c", config, "-f", *words]
    return shop.start(program, tied)
