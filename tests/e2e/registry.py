"""The upstream: Debian's docker-registry on loopback, anonymous or behind a token server."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import yaml
from attrs import define, field, frozen

from tests.e2e import token_server
from tests.e2e.processes import Process, Workshop, accepts, free_port

_ACCESS_LINE = re.compile(r'"(?P<method>[A-Z]+) (?P<target>\S+) HTTP/1\.[01]" (?P<status>\d{3}) ')


@frozen
class Request:
    """One request that the registry has answered, from its access log."""

    method: str
    target: str
    status: int

    @property
    def is_content(self) -> bool:
        """Whether a manifest or a blob was asked for."""
        return "/manifests/" in self.target or "/blobs/" in self.target

    @property
    def content_name(self) -> str:
        """The digest or tag that was asked for."""
        return self.target.partition("?")[0].rpartition("/")[2]


@define(eq=False)
class Registry:
    """A running docker-registry."""

    port: int
    storage: Path
    process: Process
    tokens: Process | None = None
    _seen: int = field(default=0)

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}"

    def requests(self) -> tuple[Request, ...]:
        """Return every request it has answered."""
        found = _ACCESS_LINE.finditer(self.process.log())
        return tuple(Request(line["method"], line["target"], int(line["status"])) for line in found)

    def news(self) -> tuple[Request, ...]:
        """Return the requests since the last call."""
        everything = self.requests()
        news, self._seen = everything[self._seen :], len(everything)
        return news

    def token_asks(self) -> list[dict[str, list[str]]]:
        """Return what the token server was asked, and what it granted."""
        lines = self.tokens.log().splitlines() if self.tokens else []
        return [json.loads(line) for line in lines if line.startswith("{")]

    def stop(self) -> None:
        """Take the registry and its token server away: connections are refused from now on."""
        self.process.stop()
        if self.tokens is not None:
            self.tokens.stop()


def start_registry(shop: Workshop, storage: Path | None = None, repositories: tuple[str, ...] = ()) -> Registry:
    """Start a registry on a storage of its own or a given one.

    :param repositories: when there are any, Bearer tokens are wanted, and these are the ones that can be had.
    """
    storage = storage or shop.directory("registry")
    port = free_port()
    config: dict[str, object] = {
        "version": "0.1",
        "log": {"level": "error", "accesslog": {"disabled": False}},
        "storage": {"filesystem": {"rootdirectory": str(storage)}},
        "http": {"addr": f"127.0.0.1:{port}"},
    }
    tokens = None
    if repositories:
        tokens, config["auth"] = _start_tokens(shop, repositories)
    file = shop.directory("registry-config") / "config.yml"
    file.write_text(yaml.safe_dump(config))
    process = shop.start("registry", ["docker-registry", "serve", file])
    process.wait_for(lambda: accepts(port), 15, "listens")
    return Registry(port, storage, process, tokens)


def _start_tokens(shop: Workshop, repositories: tuple[str, ...]) -> tuple[Process, dict[str, object]]:
    """Start the token server and return it with the registry's configuration for it."""
    directory, port = shop.directory("tokens"), free_port()
    key_file, cert_file = directory / "key.pem", directory / "cert.pem"
    token_server.make_pair(key_file, cert_file)
    words = [sys.executable, "-m", "tests.e2e.token_server", str(port), key_file, cert_file, *repositories]
    process = shop.start("tokens", words)
    process.wait_for(lambda: accepts(port), 15, "listens")
    realm = f"http://127.0.0.1:{port}/token"
    token = {
        "realm": realm,
        "service": token_server.SERVICE,
        "issuer": token_server.ISSUER,
        "rootcertbundle": str(cert_file),
    }
    return process, {"token": token}
