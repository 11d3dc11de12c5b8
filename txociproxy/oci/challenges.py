"""Challenges and scopes: who may come in, in the words of RFC 9110 §11 and of the token specification."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable

from attrs import frozen

# RULES C7: a hostile upstream chooses these texts.
MAX_CHALLENGE_BYTES = 8 * 1024
MAX_CHALLENGES = 8
MAX_PARAMETERS = 32
# RULES C4: a client chooses these.
MAX_SCOPES = 8

_TOKEN = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+"
_SCHEME = re.compile(rf"({_TOKEN})(?:[ \t]+|(?=,)|\Z)")
# Some registries leave URLs unquoted, which is no token but can be told apart.  An empty value is none.
_PARAMETER = re.compile(rf'({_TOKEN})[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*+)"|([^\s,"=][^\s,"]*))(?=[\s,]|\Z)')
# The other form that credentials can have (Negotiate); nothing here understands it, so it is only stepped over.
_TOKEN68 = re.compile(r"[A-Za-z0-9._~+/-]+=*[ \t]*(?=,|\Z)")
_GAP = re.compile(r"[ \t,]*")
_UNQUOTE = re.compile(r"\\(.)")
_QUOTE = re.compile(r'(["\\])')
_UNPRINTABLE = re.compile(r"[^\x20-\x7e]")

# distribution, "Token Scope Documentation": resourcescope; the name may have colons, its host may have a port.
_SCOPE = re.compile(r"([a-z0-9]+(?:\([a-z0-9]+\))?):([!-~]+):((?:[a-z]+|\*)(?:,(?:[a-z]+|\*))*)?")


@frozen
class Challenge:
    """What must be shown to come in.

    :ivar scheme: in lower case.
    :ivar parameters: pairs of (lower-case name, value), each name once.
    """

    scheme: str
    parameters: tuple[tuple[str, str], ...] = ()

    def get(self, name: str) -> str | None:
        """Return a parameter by its lower-case name."""
        return dict(self.parameters).get(name)


@frozen
class Scope:
    """What a token is good for, for example ``repository:library/alpine:pull``."""

    type: str
    name: str
    actions: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> Scope | None:
        """Read one scope; None says that it is not one, and whoever asked gets a token without it."""
        match = _SCOPE.fullmatch(text)
        if match is None:
            return None
        return cls(match[1], match[2], tuple(match[3].split(",")) if match[3] else ())

    def __str__(self) -> str:
        return f"{self.type}:{self.name}:{','.join(self.actions)}"


def parse_scopes(values: Iterable[str]) -> tuple[Scope, ...]:
    """Return the first scopes, each once, of all ``scope`` parameters; each may hold several (RULES C4)."""
    scopes: dict[Scope, None] = {}
    for text in (part for value in values for part in value.split(" ")):
        scope = Scope.parse(text)
        if scope is not None and len(scopes) < MAX_SCOPES:
            scopes[scope] = None
    return tuple(scopes)


def parse_challenges(lines: Iterable[str]) -> tuple[Challenge, ...]:
    """Read all WWW-Authenticate lines of an answer; never raises.

    What is too long or malformed is dropped, and with it what follows in its line.
    """
    challenges: list[Challenge] = []
    for line in lines:
        if len(line) <= MAX_CHALLENGE_BYTES:
            challenges.extend(_challenges(line))
    return tuple(challenges[:MAX_CHALLENGES])


def _challenges(line: str) -> Iterable[Challenge]:
    """Give the challenges of one line, up to the first thing that is none."""
    position = _gap(line, 0)
    while match := _SCHEME.match(line, position):
        scheme = match[1].lower()
        parameters, position = _parameters(line, match.end())
        if other := None if parameters else _TOKEN68.match(line, position):
            position = other.end()
        position = _gap(line, position)
        # The next thing must be another scheme; a parameter that could not be read spoils its challenge.
        if len(parameters) > MAX_PARAMETERS or (position < len(line) and not _SCHEME.match(line, position)):
            return
        yield Challenge(scheme, tuple(parameters.items()))


def _parameters(line: str, position: int) -> tuple[dict[str, str], int]:
    """Return the parameters from here on, the first of each name, and where they end."""
    parameters: dict[str, str] = {}
    while match := _PARAMETER.match(line, position):
        name, quoted, bare = match.groups()
        parameters.setdefault(name.lower(), bare if quoted is None else _UNQUOTE.sub(r"\1", quoted))
        position = _gap(line, match.end())
    return parameters, position


def _gap(line: str, position: int) -> int:
    """Return where the next element begins; lists may have empty elements (RFC 9110 §5.6.1)."""
    match = _GAP.match(line, position)
    return match.end() if match else position


def basic(user_and_password: bytes) -> str:
    """Return the value of an Authorization field (RFC 7617 §2).

    :param user_and_password: ``user:password``, in whatever bytes they are meant.
    """
    return "Basic " + base64.b64encode(user_and_password).decode("ascii")


def bearer(realm: str, service: str, scope: str | None, error: str | None = None) -> str:
    """Return the value of a WWW-Authenticate field that sends clients to a token endpoint.

    :param scope: None for a ping, which concerns no repository.
    :param error: why the token that came was refused, for example ``invalid_token`` (RFC 6750 §3.1).
    """
    fields = (("realm", realm), ("service", service), ("scope", scope), ("error", error))
    return "Bearer " + ",".join(f"{name}={_quoted(value)}" for name, value in fields if value is not None)


def _quoted(text: str) -> str:
    """Return a quoted-string; what could end the field is left out."""
    return '"' + _QUOTE.sub(r"\\\1", _UNPRINTABLE.sub("", text)) + '"'
