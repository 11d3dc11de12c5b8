"""``ociproxy`` as a person types it: a process with arguments, an environment, an exit status and two streams."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping

from attrs import frozen

from tests.e2e.processes import environment


@frozen
class Done:
    """A command that has ended."""

    status: int
    out: str
    err: str


def ociproxy(*words: object, env: Mapping[str, str] | None = None, within_s: float = 60) -> Done:
    """Run ``ociproxy`` to its end.

    :raises subprocess.TimeoutExpired: it does not end.
    """
    argv = [sys.executable, "-m", "txociproxy.cli", *map(str, words)]
    ended = subprocess.run(
        argv,
        env=environment(env),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=within_s,
        text=True,
        check=False,
    )
    return Done(ended.returncode, ended.stdout, ended.stderr)
