"""The three places where a setting can be said, each read into the same form."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml
from attrs import frozen

from txociproxy.oci.errors import TxOCIProxyError
from txociproxy.settings import SETTINGS, Setting
from txociproxy.upstreams.reading import without_userinfo

# Kubernetes tells every container about a Service named "ociproxy" in variables of these names.
_KUBERNETES = re.compile(r"OCIPROXY_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_[A-Z]+(_(PROTO|PORT|ADDR))?)?)")


class ConfigError(TxOCIProxyError):
    """The configuration is wrong; the text names the place, the value and the remedy, in one line."""


@frozen
class Said:
    """What one place says about one setting.

    :ivar where: the place in the words of the person who wrote it: ``--listen``, ``LISTEN_ADDR``, ``listen in FILE``.
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
    """Read parsed options; those that were not given are None or empty."""
    said = {}
    for setting in SETTINGS:
        value = options.get(setting.option)
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


def said_in_file(path: str) -> tuple[dict[str, Said], list[Any]]:
    """Read a YAML file; returns its settings and its ``upstreams``.

    :raises ConfigError: it cannot be read or holds something else.
    """
    content = _parsed(path)
    known = {setting.name: setting for setting in SETTINGS if setting.name != "config"}
    said = {}
    for name, value in content.items():
        if name == "upstreams":
            continue
        if name not in known:
            advice = _advice(str(name), [*known, "upstreams"], "remove it")
            raise ConfigError(f"{path}: {shown(name)} is not known; {advice}")
        if value is not None:
            where = f"{name} in {path}"
            said[name] = Said(where, _texts(where, known[name], value))
    upstreams = content.get("upstreams") or []
    if not isinstance(upstreams, list):
        raise ConfigError(f"upstreams in {path}: not a list; write '- namespace: …' for each")
    return said, upstreams


class _Loader(yaml.SafeLoader):
    """Refuses the same key twice, of which YAML's loader would silently take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Make a mapping."""
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for number, key in enumerate(keys):
            if key in keys[:number]:
                raise yaml.constructor.ConstructorError(problem=f"{key} is there twice", problem_mark=node.start_mark)
        return super().construct_mapping(node, deep)


def _parsed(path: str) -> Mapping[Any, Any]:
    """Return the top of a YAML file."""
    try:
        content = yaml.load(Path(path).read_text("utf-8"), _Loader)
    except OSError as error:
        raise ConfigError(f"--config: {path!r} cannot be read ({error.strerror}); name a readable file") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}" if mark is not None else ""
        problem = getattr(error, "problem", None) or "not text"
        raise ConfigError(f"--config: {path!r} is not YAML ({problem}{place}); correct it there") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"--config: {path!r} is not a mapping; write 'name: value' lines")
    return content


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
    # OCIPROXY_MODE means PROXY_MODE: the seeds' names have no common beginning.
    near = get_close_matches(name, [*known], 1, 0.7) or get_close_matches(
        name.removeprefix("OCIPROXY_"), [*known], 1, 0.7
    )
    return f"did you mean {near[0]}?" if near else otherwise
