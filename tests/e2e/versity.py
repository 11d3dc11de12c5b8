"""versitygw, an S3 server in one binary over a directory: the second opinion, where somebody has installed it."""

from __future__ import annotations

import atexit
import os
import secrets
import shutil
from functools import cache
from pathlib import Path

from attrs import frozen

from tests.e2e.ceph import Account
from tests.e2e.processes import ROOT, Workshop, accepts, free_port

NAME = "versitygw"
START_S = 20


@frozen
class Versity:
    """A server that runs."""

    port: int
    account: Account

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}"


def found() -> Path | None:
    """Return the binary: ``$VERSITYGW``, what is on the path, or what lies in ``.tools/bin`` of the checkout."""
    path = f"{os.environ.get('PATH', os.defpath)}{os.pathsep}{ROOT / '.tools' / 'bin'}"
    binary = os.environ.get("VERSITYGW") or shutil.which(NAME, path=path)
    return Path(binary) if binary else None


@cache
def running_versity() -> Versity | None:
    """Return the server of this process, or None where there is no binary; the first call starts it."""
    binary = found()
    if binary is None:
        return None
    shop = Workshop()
    atexit.register(_end, shop, os.getpid())
    port, account = free_port(), Account(f"AK{secrets.token_hex(8)}", f"SK{secrets.token_hex(16)}")
    # Secrets do not belong into arguments, which everybody on the machine can read.
    env = {"ROOT_ACCESS_KEY": account.access_key, "ROOT_SECRET_KEY": account.secret_key}
    words = [binary, "--port", f"127.0.0.1:{port}", "--quiet", "posix", shop.directory("objects")]
    server = shop.start(NAME, words, env)
    server.wait_for(lambda: accepts(port), START_S, "listens")
    return Versity(port, account)


def _end(shop: Workshop, owner_pid: int) -> None:
    """End the server, unless this is a fork of the process that started it."""
    if os.getpid() == owner_pid:
        shop.close()
