"""The key ``credentials`` of an upstream, and ``UPSTREAM_CREDENTIALS``; no error says anything of what stands there."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from txociproxy.oci.errors import OCIError
from txociproxy.oci.names import canonical_namespace
from txociproxy.upstreams.entries.read_keys import Reader, WrongValue, read_keys
from txociproxy.upstreams.entries.read_values import path, seconds, text, texts
from txociproxy.upstreams.logins.accounts import (
    Account,
    DockerConfig,
    Ecr,
    Helper,
    Password,
    PasswordFile,
    is_text,
)

EXAMPLE = "{username: NAME, password_file: PATH}"
# What every program needs to find others and its files; the rest of our environment is none of a helper's business.
ALWAYS_SEEN = ("HOME", "PATH")
_HINT = "username with password, password_file or password_env; docker_config; helper; or ecr"
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_HELPER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_CONTROLS = re.compile(r"[\x00-\x1f\x7f]")


def _username(value: object) -> str:
    """Read a name; RFC 7617 §2 lets it have no colon."""
    if not isinstance(value, str) or not value or ":" in value or _CONTROLS.search(value) or not is_text(value):
        raise ValueError("must be a text without a colon; put it in quotes")
    return value


def _password(value: object) -> str:
    """Read a password; a number would have lost its zeros in YAML."""
    if not isinstance(value, str) or not value or _CONTROLS.search(value) or not is_text(value):
        raise ValueError("must be a text of one line; put it in quotes")
    return value


def _variable(value: object) -> str:
    if not isinstance(value, str) or not _VARIABLE.fullmatch(value):
        raise ValueError("must be the name of an environment variable")
    return value


def _variables(value: object) -> tuple[str, ...]:
    return tuple(_variable(name) for name in texts(value))


def _helper(value: object) -> str:
    if not isinstance(value, str) or not _HELPER.fullmatch(value):
        raise ValueError("must be the part of the program's name after docker-credential-, for example ecr-login")
    return value


def _lifetime(value: object) -> float:
    lifetime_s = seconds(value)
    if lifetime_s <= 0:
        raise ValueError("must be more than 0, for example 1h")
    return lifetime_s


def _ecr(value: object) -> Ecr:
    if value is True:
        return Ecr()
    return Ecr(**read_keys(value, _ECR_READERS, "{region: eu-central-1}", is_secret=True))


_ECR_READERS: Mapping[str, Reader] = MappingProxyType({"region": text, "profile": text})
_READERS: Mapping[str, Reader] = MappingProxyType(
    {
        "username": _username,
        "password": _password,
        "password_file": path,
        "password_env": _variable,
        "docker_config": path,
        "helper": _helper,
        "server": text,
        "lifetime_s": _lifetime,
        "environment": _variables,
        "ecr": _ecr,
    }
)
KEYS = tuple(_READERS)
_ELSEWHERE: Mapping[str, str] = MappingProxyType(
    {"user": "`username`", "pass": "`password`", "login": "`username`", "token": "`username` and `password`"}
)
# Which keys make a form, and which may stand beside them.
FORMS: Mapping[frozenset[str], frozenset[str]] = MappingProxyType(
    {
        frozenset({"username", "password"}): frozenset(),
        frozenset({"username", "password_file"}): frozenset(),
        frozenset({"username", "password_env"}): frozenset(),
        frozenset({"docker_config"}): frozenset({"environment"}),
        frozenset({"helper"}): frozenset({"server", "lifetime_s", "environment"}),
        frozenset({"ecr"}): frozenset(),
    }
)


def read_account(value: object, environ: Mapping[str, str]) -> Account:
    """Read where our own login for an upstream comes from.

    :param environ: where ``password_env`` and a helper's ``environment`` are looked up, now.
    :raises WrongValue: something is wrong.
    """
    values = read_keys(value, _READERS, EXAMPLE, _ELSEWHERE, is_secret=True)
    if not any(form <= set(values) <= form | besides for form, besides in FORMS.items()):
        raise WrongValue(f"must be exactly one of: {_HINT}")
    return _account(values, environ)


def _account(values: dict[str, Any], environ: Mapping[str, str]) -> Account:
    """Make the one that these keys mean."""
    if "environment" in values or "helper" in values or "docker_config" in values:
        values["environment"] = _seen(values.get("environment", ()), environ)
    if "docker_config" in values:
        return DockerConfig(values["docker_config"], values["environment"])
    if "helper" in values:
        return Helper(values.pop("helper"), **values)
    if "ecr" in values:
        ecr: Ecr = values["ecr"]
        return ecr
    if "password_file" in values:
        return PasswordFile(values["username"], values["password_file"])
    password = values["password"] if "password" in values else _in_environment(values["password_env"], environ)
    return Password(values["username"], password)


def _in_environment(name: str, environ: Mapping[str, str]) -> str:
    """Return the password that a variable holds; its last line end does not count, as in a file."""
    password = environ.get(name, "").removesuffix("\n").removesuffix("\r")
    if not password:
        raise WrongValue("must name an environment variable that is set and not empty", "password_env")
    if _CONTROLS.search(password) or not is_text(password):
        what = "must name an environment variable with the password alone, on one line and in UTF-8"
        raise WrongValue(what, "password_env")
    return password


def _seen(names: tuple[str, ...], environ: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Return the variables that a helper sees."""
    for place, name in enumerate(names):
        if name not in environ:
            raise WrongValue("must name an environment variable that is set", "environment", place)
    return tuple((name, environ[name]) for name in dict.fromkeys((*ALWAYS_SEEN, *names)) if name in environ)


def accounts_from_json(content: str) -> dict[str, Password]:
    """Read ``{"<namespace>": {"username": …, "password": …}, …}``; returns accounts by canonical namespace.

    :raises ValueError: it is something else; the text completes "UPSTREAM_CREDENTIALS: …".
    """
    shape = 'write {"NAMESPACE": {"username": "NAME", "password": "PASSWORD"}}'
    try:
        parsed = json.loads(content, object_pairs_hook=_without_twins)
    except _Twins:
        raise ValueError("one of its keys is there twice; keep one of them") from None
    except (ValueError, RecursionError):
        raise ValueError(f"its value is not JSON; {shape}") from None
    if not isinstance(parsed, dict):
        raise ValueError(f"its value is not a JSON object; {shape}")
    accounts: dict[str, Password] = {}
    for name, login in parsed.items():
        try:
            namespace = canonical_namespace(name)
        except OCIError:
            raise ValueError(f"one of its keys is not a namespace; {shape}") from None
        if namespace in accounts:
            raise ValueError(f"{namespace} is there twice; keep one of them")
        accounts[namespace] = _password_of(namespace, login, shape)
    return accounts


class _Twins(ValueError):
    """A key of a JSON object is there twice."""


def _without_twins(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Make an object of JSON; the standard library would silently take the last of two."""
    if len({key for key, _ in pairs}) < len(pairs):
        raise _Twins
    return dict(pairs)


def _password_of(namespace: str, login: object, shape: str) -> Password:
    if not isinstance(login, dict) or set(login) != {"username", "password"}:
        raise ValueError(f"{namespace} does not have exactly a username and a password; {shape}")
    try:
        return Password(_username(login["username"]), _password(login["password"]))
    except ValueError:
        raise ValueError(f"{namespace} has a username or password that cannot be one; {shape}") from None
