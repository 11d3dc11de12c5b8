"""Real processes on loopback: started, waited for, and always ended by their own process id."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from attrs import define, field

ROOT = Path(__file__).resolve().parents[2]
POLL_S = 0.05


class E2EError(AssertionError):
    """A process of the laboratory did not do what it was started for."""


class CommandFailed(E2EError):
    """A command ended by itself with an exit code that is not 0; the text has what it printed."""


def free_port() -> int:
    """Return a port of 127.0.0.1 that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def accepts(port: int) -> bool:
    """Say whether something listens on this port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_until(fact: Callable[[], bool], within_s: float, what: str) -> None:
    """Return when the fact is true; it is asked again and again, since other processes tell nobody."""
    end_s = time.monotonic() + within_s
    while not fact():
        if time.monotonic() > end_s:
            raise E2EError(f"not within {within_s} s: {what}")
        time.sleep(POLL_S)


def environment(changes: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment for a child: no outbound proxy in the way, and the checkout importable."""
    kept = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    kept.update({"no_proxy": "*", "NO_PROXY": "*", "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"})
    kept.update(changes or {})
    return kept


def run(argv: Sequence[object], within_s: float, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> str:
    """Run a command to its end and return what it printed; a failure or a late end is an error that shows it."""
    words = [str(word) for word in argv]
    child = subprocess.Popen(
        words,
        env=environment(env),
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        out, err = child.communicate(timeout=within_s)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        out, err = child.communicate()
        raise E2EError(f"not within {within_s} s: {' '.join(words)}\n{_tail(out)}\n{_tail(err)}") from None
    if child.returncode != 0:
        raise CommandFailed(f"exit {child.returncode}: {' '.join(words)}\n{_tail(out)}\n{_tail(err)}")
    return out.decode("utf-8", "replace")


def _tail(data: bytes) -> str:
    """Return the end of an output, as much as a person reads."""
    return data[-6000:].decode("utf-8", "replace")


@define(eq=False)
class Process:
    """A server that runs until it is stopped, with everything it prints in a file."""

    name: str
    popen: subprocess.Popen[bytes]
    log_path: Path

    @property
    def pid(self) -> int:
        """The process id of what was started."""
        return self.popen.pid

    def log(self) -> str:
        """Return what it has printed so far."""
        return self.log_path.read_text("utf-8", "replace")

    def wait_for(self, fact: Callable[[], bool], within_s: float, what: str) -> None:
        """Return when the fact is true; an end of the process meanwhile is an error that shows its log."""

        def true_or_dead() -> bool:
            if self.popen.poll() is not None:
                raise E2EError(f"{self.name} ended with {self.popen.returncode}:\n{self.log()[-6000:]}")
            return fact()

        try:
            wait_until(true_or_dead, within_s, f"{self.name}: {what}")
        except E2EError as error:
            raise E2EError(f"{error}\n{self.log()[-6000:]}") from None

    def stop(self, grace_s: float = 10) -> int:
        """End it by SIGTERM, or by SIGKILL when it takes longer than the grace; return how it ended."""
        if self.popen.poll() is None:
            self.popen.terminate()
            try:
                self.popen.wait(grace_s)
            except subprocess.TimeoutExpired:
                self.kill()
        return self.popen.wait(5)

    def kill(self) -> None:
        """End it, and what it has started in its own session, at once."""
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        self.popen.wait(5)


@define(eq=False)
class Workshop:
    """A temporary directory and the processes that live in it; :meth:`close` leaves nothing behind."""

    path: Path = field(factory=lambda: Path(tempfile.mkdtemp(prefix="oe-", dir="/tmp")))
    processes: list[Process] = field(factory=list)

    def directory(self, name: str) -> Path:
        """Return a new directory whose name starts with this one."""
        return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.path))

    def start(
        self,
        name: str,
        argv: Sequence[object],
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        as_in_a_shell: bool = False,
    ) -> Process:
        """Start a server; it leads a session of its own, so that its children can be ended with it.

        :param as_in_a_shell: leave the environment as it is, for what a person types.
        """
        log_path = self.path / f"{name}-{len(self.processes)}.log"
        with log_path.open("wb") as log:
            popen = subprocess.Popen(
                [str(word) for word in argv],
                env=None if as_in_a_shell else environment(env),
                cwd=cwd or self.path,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        process = Process(name, popen, log_path)
        self.processes.append(process)
        return process

    def close(self) -> None:
        """End every process, latest first, undo what they have mounted and remove the directory."""
        for process in reversed(self.processes):
            process.stop()
            process.kill()
        discard(self.path)


def discard(path: Path) -> None:
    """Remove a directory, with what a container engine left mounted below it taken off first."""
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for mount in reversed(mounts):
        if mount.startswith(f"{path}/"):
            subprocess.run(["umount", "-l", mount], check=False, timeout=20, capture_output=True)
    shutil.rmtree(path, ignore_errors=True)
