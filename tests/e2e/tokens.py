"""The token server, seen from the test: who may pull what, and what was asked."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from attrs import define, field, frozen

from tests.e2e import signing
from tests.e2e.processes import Process, Workshop, accepts, free_port
from tests.e2e.token_server import ACCOUNTS_NAME
from tests.e2e.users import User


@frozen
class TokenAsk:
    """One ask for a token.

    :ivar user: None when nobody was named.
    :ivar known: whether the password was right, or none was needed.
    :ivar granted: the repositories that the token is good for.
    """

    method: str
    user: str | None
    scopes: list[str]
    known: bool
    granted: list[str]


@define(eq=False)
class TokenServer:
    """A running token server."""

    port: int
    directory: Path
    public: tuple[str, ...]
    people: dict[User, tuple[str, ...]]
    process: Process
    _seen: int = field(default=0, init=False)

    def registry_auth(self) -> dict[str, object]:
        """Return the ``auth`` section of a registry that believes this server."""
        realm = f"http://127.0.0.1:{self.port}/token"
        trusted = str(self.directory / signing.CERTIFICATE_NAME)
        token = {"realm": realm, "service": signing.SERVICE, "issuer": signing.ISSUER, "rootcertbundle": trusted}
        return {"token": token}

    def asks(self) -> list[TokenAsk]:
        """Return every ask."""
        return [TokenAsk(**json.loads(line)) for line in self.process.log().splitlines() if line.startswith("{")]

    def news(self) -> list[TokenAsk]:
        """Return the asks since the last call."""
        everything = self.asks()
        news, self._seen = everything[self._seen :], len(everything)
        return news

    def revoke(self, user: User) -> None:
        """Let somebody be unknown from now on; what was signed for them stays good until the key is another."""
        del self.people[user]
        write_accounts(self.directory, self.public, self.people)

    def rotate(self) -> None:
        """Sign with another key from now on; registries read whom they trust when they start."""
        signing.make_pair(self.directory)

    def stop(self) -> None:
        """Take it away: connections are refused from now on."""
        self.process.stop()


def write_accounts(directory: Path, public: Sequence[str], people: Mapping[User, Sequence[str]]) -> None:
    """Tell the server who may pull what; it never reads half of it."""
    names = {user.name: (user.password, list(repositories)) for user, repositories in people.items()}
    fresh = directory / f"{ACCOUNTS_NAME}.new"
    fresh.write_text(json.dumps({"public": list(public), "people": names}))
    fresh.rename(directory / ACCOUNTS_NAME)


def start_tokens(
    shop: Workshop, public: Sequence[str] = (), people: Mapping[User, Sequence[str]] | None = None
) -> TokenServer:
    """Start a token server.

    :param public: repositories that anybody may pull.
    :param people: what each user may pull beside that.
    """
    directory, port = shop.directory("tokens"), free_port()
    signing.make_pair(directory)
    held = {user: tuple(names) for user, names in (people or {}).items()}
    write_accounts(directory, public, held)
    process = shop.start("tokens", [sys.executable, "-m", "tests.e2e.token_server", str(port), directory])
    process.wait_for(lambda: accepts(port), 15, "listens")
    return TokenServer(port, directory, tuple(public), held, process)
