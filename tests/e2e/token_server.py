"""A strict token server with users: ``python -m tests.e2e.token_server PORT DIRECTORY``.

The directory has the signing pair and who may pull what; both are read at each ask, so that a test changes them by
writing files.  Each ask is printed as one line of JSON, without any password.
distribution: docs/spec/auth/token.md (GET, Basic) and docs/spec/auth/oauth.md (POST, password).
"""

from __future__ import annotations

import base64
import binascii
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from attrs import frozen

from tests.e2e.signing import TOKEN_LIFE_S, signed_token
from tests.e2e.users import User

ACCOUNTS_NAME = "accounts.json"


@frozen
class Accounts:
    """Who may pull what.

    :ivar public: repositories that anybody may pull.
    :ivar people: password and repositories of each name.
    """

    public: frozenset[str]
    people: dict[str, tuple[str, frozenset[str]]]

    @classmethod
    def read(cls, file: Path) -> Accounts:
        """Read what a test has written."""
        fields = json.loads(file.read_text())
        people = {name: (password, frozenset(names)) for name, (password, names) in fields["people"].items()}
        return cls(frozenset(fields["public"]), people)

    def knows(self, user: User) -> bool:
        """Say whether there is such a user with this password."""
        return user.name in self.people and self.people[user.name][0] == user.password

    def access(self, user: User | None, scopes: list[str]) -> list[dict[str, Any]]:
        """Return what is granted: pull of what they may pull; anything else is left out without a word."""
        allowed = self.public | (self.people[user.name][1] if user else frozenset())
        granted = []
        for scope in scopes:
            kind, _, rest = scope.partition(":")
            name, _, actions = rest.rpartition(":")
            if kind == "repository" and name in allowed and "pull" in actions.split(","):
                granted.append({"type": kind, "name": name, "actions": ["pull"]})
        return granted


class TokenHandler(BaseHTTPRequestHandler):
    """Answers GET and POST of the realm."""

    protocol_version = "HTTP/1.1"
    directory: Path

    def do_GET(self) -> None:
        """Give a token for the scopes of the query to whom the Basic credentials name, or to anybody."""
        user = _basic(self.headers.get("Authorization"))
        self._issue(user, parse_qs(urlsplit(self.path).query).get("scope", []))

    def do_POST(self) -> None:
        """Give a token for the scopes of the form to whom its password names (RFC 6749, section 4.3)."""
        form = parse_qs(self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode())
        if form.get("grant_type") != ["password"]:
            return self._answer(400, {"error": "unsupported_grant_type"})
        self._issue(User(form.get("username", [""])[0], form.get("password", [""])[0]), form.get("scope", []))

    def _issue(self, user: User | None, values: list[str]) -> None:
        """Sign what is granted; who shows a wrong password gets nothing."""
        scopes = [word for value in values for word in value.split()]
        accounts = Accounts.read(self.directory / ACCOUNTS_NAME)
        is_known = user is None or accounts.knows(user)
        access = accounts.access(user, scopes) if is_known else []
        noted = {"method": self.command, "user": user.name if user else None, "scopes": scopes}
        print(json.dumps({**noted, "known": is_known, "granted": [entry["name"] for entry in access]}), flush=True)
        if not is_known:
            return self._answer(401, {"errors": [{"code": "UNAUTHORIZED", "message": "who is that?"}]})
        token = signed_token(self.directory, user.name if user else "", access)
        # The two ways to ask know the token by different names.
        self._answer(200, {"access_token" if self.command == "POST" else "token": token, "expires_in": TOKEN_LIFE_S})

    def _answer(self, status: int, fields: dict[str, Any]) -> None:
        """Send JSON."""
        body = json.dumps(fields).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing beside the lines of JSON."""


def _basic(value: str | None) -> User | None:
    """Return who a Basic field names; what cannot be read is somebody that nobody knows."""
    if value is None:
        return None
    try:
        name, _, password = base64.b64decode(value.removeprefix("Basic "), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return User("", "")
    return User(name, password)


def main(port: int, directory: Path) -> None:
    """Serve until the process is ended."""
    TokenHandler.directory = directory
    ThreadingHTTPServer(("127.0.0.1", port), TokenHandler).serve_forever()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
