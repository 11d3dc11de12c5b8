"""The three places where a setting can be said, each read into the same form."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from attrs import field, frozen

from txociproxy.settings import SETTINGS, Setting
from txociproxy.upstreams.entries.read_keys import name_of, without_userinfo
from txociproxy.yamlfile import ConfigError, LinedList, LinedMapping, parsed

# Kubernetes tells every container about a Service named "ociproxy" in variables of these names.
_KUBERNETES = re.compile(r"OCIPROXY_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_[A-Z]+(_(PROTO|PORT|ADDR))?)?)")


@frozen
class Said:
    """What one place says about one setting.

    :ivar where: the place in the words of the person who wrote it: ``--listen``, ``LISTEN_ADDR``, ``FILE:3: listen``.
    """

    where: str
    texts: tuple[str, ...]

    def read(self, setting: Setting) -> Any:
        """Return the value, or a tuple of values where there may be several.

        :raises ConfigError: it cannot be read.
        """
        if setting.several:
            return tuple(self._read(setting, text) for text in self.texts)
        return self._read(setting, self.texts[-1])

    def _read(self, setting: Setting, text: str) -> Any:
        try:
            return setting.read(text)
        except ValueError as error:
            raise ConfigError(f"{self.where}: {shown(text)} {error}") from error


def shown(value: object) -> str:
    """Quote a value for a message, on one line and without a password that may stand in a URL."""
    return repr(without_userinfo(value)[:200])


def said_in_options(options: Mapping[str, Any]) -> dict[str, Said]:
    """Read parsed options; those that were not given are None, or an empty list.

    :raises ConfigError: one was given as an empty text, as by a variable of a shell that nobody has set.
    """
    said = {}
    for setting in SETTINGS:
        value = options.get(setting.option)
        if value == "":
            raise ConfigError(f"--{setting.option}: is empty; write a value, or leave it out")
        if value:
            said[setting.name] = Said(f"--{setting.option}", tuple(value) if setting.several else (str(value),))
    return said


def said_in_environment(environ: Mapping[str, str]) -> dict[str, Said]:
    """Read environment variables; an empty one counts as absent, as compose files write them.

    :raises ConfigError: a name begins with OCIPROXY_ and is not known.
    """
    known = {setting.variable: setting for setting in SETTINGS}
    for name in sorted(environ):
        if name.startswith("OCIPROXY_") and name not in known and not _KUBERNETES.fullmatch(name):
            raise ConfigError(f"environment: {name} is not known; {_advice(name, known, 'remove it')}")
    said = {}
    for variable, setting in known.items():
        text = environ.get(variable, "").strip()
        if text:
            texts = tuple(part.strip() for part in text.split(",")) if setting.several else (text,)
            said[setting.name] = Said(variable, texts)
    return said


@frozen
class Written:
    """The ``upstreams`` of a file, with what is needed to name a place in it.

    :ivar path: of the file; empty where there is none.
    :ivar items: as YAML reads them, with their lines.
    """

    path: str = ""
    items: LinedList = field(factory=LinedList)

    def place(self, *at: object) -> str:
        """Return ``FILE:LINE: `` of what these keys lead to, or of the nearest thing around it."""
        found: Any = self.items
        line = found.line
        for key in at:
            line = getattr(found, "lines", {}).get(key, line)
            try:
                found = found[key]
            except (KeyError, IndexError, TypeError):
                break
        return f"{self.path}:{line}: "


def said_in_file(path: str) -> tuple[dict[str, Said], Written]:
    """Read a YAML file; returns its settings and its ``upstreams``.

    :raises ConfigError: it cannot be read or holds something else.
    """
    content = parsed(path)
    known = {setting.name: setting for setting in SETTINGS if setting.name != "config"}
    said = {}
    for name, value in content.items():
        if name == "upstreams":
            continue
        where = f"{path}:{content.lines[name]}: {name_of(name)}"
        if name not in known:
            raise ConfigError(f"{where}: not known; {_advice(name_of(name), [*known, 'upstreams'], 'remove it')}")
        if value is not None:
            said[name] = Said(where, _texts(where, known[name], value))
    return said, _upstreams(path, content)


def _upstreams(path: str, content: LinedMapping) -> Written:
    """Return the list of upstreams."""
    items = content.get("upstreams")
    if items is None:
        return Written(path)
    if not isinstance(items, LinedList):
        line = content.lines["upstreams"]
        raise ConfigError(f"{path}:{line}: upstreams: not a list; write '- namespace: …' for each")
    return Written(path, items)


def _texts(where: str, setting: Setting, value: object) -> tuple[str, ...]:
    """Turn what YAML made of a value back into text, so that all places are read alike."""
    values = value if setting.several and isinstance(value, list) else [value]
    if not values:
        raise ConfigError(f"{where}: an empty list; name at least one, or remove the key")
    texts = []
    for item in values:
        if isinstance(item, bool):
            texts.append("true" if item else "false")
        elif isinstance(item, (str, int, float)):
            texts.append(str(item))
        else:
            raise ConfigError(f"{where}: {shown(item)} is not a single value; write {setting.name}: VALUE")
    return tuple(texts)


def _advice(name: str, known: Iterable[str], otherwise: str) -> str:
    """Guess what was meant."""
    # What all of them begin with would make any two alike; but OCIPROXY_MODE means PROXY_MODE.
    bare = {each.removeprefix("OCIPROXY_"): each for each in known}
    near = get_close_matches(name.removeprefix("OCIPROXY_"), [*bare], 1, 0.7)
    meant = [bare[each] for each in near] or get_close_matches(name, [*bare.values()], 1, 0.7)
    return f"did you mean {meant[0]}?" if meant else otherwise
