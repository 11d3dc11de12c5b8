"""Logins out of a ``config.json``, as ``docker login`` writes it: in the file itself, or with a helper it names."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Mapping
from typing import Any

from attrs import define, field

from txociproxy.interfaces import IWorkers
from txociproxy.upstreams.logins.accounts import DockerConfig, Helper, Login, LoginSource, LoginUnavailable
from txociproxy.upstreams.logins.keeper import Reader, Reading, in_thread
from txociproxy.upstreams.logins.secret_files import read_secret
from txociproxy.upstreams.logins.server_names import rank, server_name

MAX_CONFIG_BYTES = 1024 * 1024
CONFIG_KEPT_S = 60.0
_TOKENS = ("identitytoken", "registrytoken")


@define(eq=False)
class DockerConfigReader(Reader):
    """Looks into the file each time, and asks the helper it names through a source that keeps the answer.

    :ivar _helper_source: makes the source of a helper's logins.
    :ivar _helper: the one that the file named last, and its source.
    """

    _account: DockerConfig
    _url: str
    _workers: IWorkers
    _helper_source: Callable[[Helper], LoginSource]
    _helper: tuple[Helper, LoginSource] | None = field(init=False, default=None)

    async def read(self) -> Reading:
        """See :meth:`Reader.read`."""
        found = await in_thread(self._workers, look_up, self._account, self._url)
        return Reading(await self._source_of(found).login() if isinstance(found, Helper) else found, CONFIG_KEPT_S)

    def refused(self, login: Login) -> None:
        """Tell the helper's source, which keeps it longer than this one."""
        if self._helper is not None:
            self._helper[1].refused(login)

    def stop(self) -> None:
        """End the helper."""
        if self._helper is not None:
            self._helper[1].stop()

    def _source_of(self, helper: Helper) -> LoginSource:
        """Return the source of this helper's logins, the same as long as the file names the same helper."""
        if self._helper is None or self._helper[0] != helper:
            self._helper = (helper, self._helper_source(helper))
        return self._helper[1]


def look_up(account: DockerConfig, url: str) -> Login | Helper:
    """Return the login that the file has for the registry at this URL, or the helper that knows it; blocks.

    :raises LoginUnavailable: it has neither.
    """
    config = _mapping(_parsed(account.path), account.path)
    key, entry = _best(_mapping(config.get("auths"), account.path), url) or (server_name(url), {})
    login = _login_in(_mapping(entry, account.path), f"{account.path}, {key}")
    if login is not None:
        return login
    name = _helper_name(config, account.path, url)
    if name:
        try:
            return Helper(name, server=key, environment=account.environment)
        except ValueError as error:
            raise LoginUnavailable(f"{account.path}: {error}") from None
    if any(_mapping(entry, account.path).get(token) for token in _TOKENS):
        raise LoginUnavailable(
            f"{account.path} has only an identity token for {key}, which cannot be used here: "
            "configure username and password (or an access token in its place) for this upstream"
        )
    raise LoginUnavailable(f"{account.path} has no login for {key}")


def _parsed(path: str) -> object:
    try:
        result: object = json.loads(read_secret(path, MAX_CONFIG_BYTES))
    except (ValueError, RecursionError):  # what cannot be read may be a piece of a secret, and is not shown
        raise LoginUnavailable(f"{path} is not JSON") from None
    return result


def _mapping(value: object, path: str) -> Mapping[str, Any]:
    """Return an object of the JSON text; what is absent is empty."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise LoginUnavailable(f"{path} is not a configuration as docker writes it")
    return value


def _best(named: Mapping[str, Any], url: str) -> tuple[str, Any] | None:
    """Return the item whose name means this registry best; the first of those that mean it alike."""
    ranked = [(how_well, key) for key in named if (how_well := rank(key, url)) is not None]
    if not ranked:
        return None
    _, key = min(ranked, key=lambda each: each[0])
    return key, named[key]


def _login_in(entry: Mapping[str, Any], where: str) -> Login | None:
    """Return the login of an entry; None if it has none, as with a helper."""
    auth = entry.get("auth")
    if not auth:
        username, password = entry.get("username"), entry.get("password")
    else:
        username, password = _decoded(auth, where)
    if not username and not password:
        return None
    if not isinstance(username, str) or not isinstance(password, str) or not username or not password:
        raise LoginUnavailable(f"{where}: a username and a password are not both there")
    return Login(username, password)


def _decoded(auth: object, where: str) -> tuple[str, str]:
    """Return name and password of an ``auth``; docker once padded passwords with NUL bytes."""
    try:
        text = base64.b64decode(auth, validate=True).decode("utf-8") if isinstance(auth, str) else ""
    except (binascii.Error, ValueError):
        text = ""
    username, colon, password = text.partition(":")
    if not colon:
        raise LoginUnavailable(f"{where}: auth is not the base64 of user:password")
    return username, password.strip("\0")


def _helper_name(config: Mapping[str, Any], path: str, url: str) -> str:
    """Return the end of the helper's name; empty if there is none, or if there shall be none for this registry."""
    helpers = _mapping(config.get("credHelpers"), path)
    best = _best(helpers, url)
    name = config.get("credsStore") or "" if best is None else best[1]
    if not isinstance(name, str):
        raise LoginUnavailable(f"{path} is not a configuration as docker writes it")
    return name
