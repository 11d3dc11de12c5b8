"""The product as it is run: ``twistd -n ociproxy`` with a configuration file, in a process of its own."""

from __future__ import annotations

import http.client
import os
import shlex
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

import yaml
from attrs import define, field

from tests.e2e.processes import Process, Workshop, accepts, free_port

NAMESPACES = ("docker.io", "ghcr.io")


@define(eq=False)
class Proxy:
    """A running proxy, its store and its log."""

    port: int
    fs_root: Path
    process: Process
    config: Path
    _seen_lines: int = field(default=0)

    @property
    def pid(self) -> int:
        """The process id, for /proc and signals."""
        return self.process.pid

    def lines(self) -> list[dict[str, str]]:
        """Return the logfmt lines printed so far as fields."""
        return [_fields(line) for line in self.process.log().splitlines()]

    def pulls(self) -> list[dict[str, str]]:
        """Return the line of every pull that is over and was not returned by an earlier call."""
        # A line is written behind its client's back; a later request is answered after that.
        self.ask("GET", "/healthz")
        lines = self.lines()
        news, self._seen_lines = lines[self._seen_lines :], len(lines)
        return [line for line in news if "outcome" in line]

    def outcomes(self) -> list[str]:
        """Return the outcome of every pull that :meth:`pulls` returns."""
        return [line["outcome"] for line in self.pulls()]

    def complaints(self) -> list[str]:
        """Return the messages of all lines that say that something of its own went wrong."""
        return [line.get("msg", "") for line in self.lines() if line.get("level") in ("error", "critical")]

    def memory_bytes(self, name: str = "VmRSS") -> int:
        """Return a field of /proc/PID/status: ``VmRSS`` is now, ``VmHWM`` is the peak since :meth:`forget_peak`."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
        raise KeyError(name)

    def forget_peak(self) -> None:
        """Let ``VmHWM`` begin again at what is resident now (proc(5), clear_refs)."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    def ask(
        self, method: str, target: str, headers: Mapping[str, str] | None = None, body: str | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """Send one plain request and return status, header fields by lower-case name, and the body."""
        return ask(self.port, method, target, headers, body)

    def reload(self) -> None:
        """Let it read its file again."""
        os.kill(self.pid, signal.SIGHUP)

    def stop(self) -> None:
        """End the proxy and wait for it."""
        self.process.stop()


def ask(
    port: int, method: str, target: str, headers: Mapping[str, str] | None = None, body: str | None = None
) -> tuple[int, dict[str, str], bytes]:
    """Send one plain request to a server on loopback; return status, header fields by lower-case name, and the body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, target, body, dict(headers or {}))
        response = connection.getresponse()
        fields = {name.lower(): value for name, value in response.getheaders()}
        return response.status, fields, response.read()
    finally:
        connection.close()


def _fields(line: str) -> dict[str, str]:
    """Split a logfmt line; what is not logfmt becomes an empty answer."""
    try:
        words = shlex.split(line)
    except ValueError:
        return {}
    return dict(word.split("=", 1) for word in words if "=" in word)


def write_config(file: Path, port: int, fs_root: Path, upstream_url: str, **more: object) -> None:
    """Write the YAML file: every namespace leads to the one upstream on loopback."""
    upstreams = [{"namespace": namespace, "urls": [upstream_url]} for namespace in NAMESPACES]
    config = {"listen": [f"127.0.0.1:{port}"], "fs_root": str(fs_root), "upstreams": upstreams, **more}
    file.write_text(yaml.safe_dump(config))


def start_proxy(
    shop: Workshop,
    upstream_url: str,
    port: int | None = None,
    fs_root: Path | None = None,
    mode: str = "transparent",
    env: Mapping[str, str] | None = None,
    **more: object,
) -> Proxy:
    """Start a proxy in front of the upstream.

    :param fs_root: a store that is there already, or a fresh one.
    :param env: what its environment has beside that of the laboratory.
    :param more: further keys of the configuration file.
    """
    port = port or free_port()
    fs_root = fs_root or shop.directory("store")
    file = shop.directory("proxy-config") / "ociproxy.yaml"
    write_config(file, port, fs_root, upstream_url, **more)
    twistd = Path(sys.executable).with_name("twistd")
    words = [sys.executable, twistd, "-n", "--pidfile=", "ociproxy", "--mode", mode, "--config", file]
    process = shop.start("proxy", words, env)
    process.wait_for(lambda: accepts(port), 30, "listens")
    return Proxy(port, fs_root, process, file)
