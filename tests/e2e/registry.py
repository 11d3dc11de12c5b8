"""The upstream: Debian's docker-registry on loopback, anonymous, behind a token server, or with a password file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import yaml
from attrs import define, field, frozen

from tests.e2e.processes import Process, Workshop, accepts, free_port, run
from tests.e2e.tokens import TokenServer
from tests.e2e.users import User

_ACCESS_LINE = re.compile(r'"(?P<method>[A-Z]+) (?P<target>\S+) HTTP/1\.[01]" (?P<status>\d{3}) ')
# As cheap as bcrypt goes: a registry checks it at every request.
_ROUNDS = 4


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
    """A docker-registry that runs, or did."""

    port: int
    storage: Path
    tokens: TokenServer | None
    _shop: Workshop
    _config: Path
    _runs: list[Process] = field(factory=list, init=False)
    _seen: int = field(default=0, init=False)

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, or start it again on its port and storage; whom it trusts is read now."""
        process = self._shop.start("registry", ["docker-registry", "serve", self._config])
        self._runs.append(process)
        process.wait_for(lambda: accepts(self.port), 15, "listens")

    def requests(self) -> tuple[Request, ...]:
        """Return every request it has answered."""
        found = _ACCESS_LINE.finditer("".join(process.log() for process in self._runs))
        return tuple(Request(line["method"], line["target"], int(line["status"])) for line in found)

    def news(self) -> tuple[Request, ...]:
        """Return the requests since the last call."""
        everything = self.requests()
        news, self._seen = everything[self._seen :], len(everything)
        return news

    def stop(self) -> None:
        """Take the registry away: connections are refused from now on."""
        self._runs[-1].stop()

    def stop_all(self) -> None:
        """Take its token server away too."""
        self.stop()
        if self.tokens is not None:
            self.tokens.stop()

    def restart(self) -> None:
        """Let it read again whom it trusts."""
        self.stop()
        self.start()


def start_registry(
    shop: Workshop, storage: Path | None = None, tokens: TokenServer | None = None, users: Sequence[User] = ()
) -> Registry:
    """Start a registry on a storage of its own or a given one.

    :param tokens: when given, Bearer tokens from there are wanted.
    :param users: when there are any, Basic credentials are wanted, and each of these may have everything.
    """
    storage = storage or shop.directory("registry")
    directory, port = shop.directory("registry-config"), free_port()
    config: dict[str, object] = {
        "version": "0.1",
        "log": {"level": "error", "accesslog": {"disabled": False}},
        "storage": {"filesystem": {"rootdirectory": str(storage)}},
        "http": {"addr": f"127.0.0.1:{port}"},
    }
    if tokens is not None:
        config["auth"] = tokens.registry_auth()
    elif users:
        config["auth"] = {"htpasswd": {"realm": "e2e", "path": str(password_file(directory, users))}}
    file = directory / "config.yml"
    file.write_text(yaml.safe_dump(config))
    registry = Registry(port, storage, tokens, shop, file)
    registry.start()
    return registry


def password_file(directory: Path, users: Sequence[User]) -> Path:
    """Write a file of bcrypt hashes, the only ones that docker-registry takes."""
    file = directory / "htpasswd"
    lines = (run(["htpasswd", "-nbB", "-C", _ROUNDS, user.name, user.password], 30) for user in users)
    file.write_text("".join(f"{line.strip()}\n" for line in lines))
    return file
