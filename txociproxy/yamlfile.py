"""The configuration file as YAML: every mapping and list remembers the lines of what is in it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from txociproxy.oci.errors import TxOCIProxyError
from txociproxy.upstreams.entries.read_keys import name_of

# PyYAML quotes names of anchors and tags, which are pieces of a password that begins with *, & or !.  Single
# characters and its own words are harmless.
_QUOTED = re.compile(r"('.'|'<[a-z ]+>')|['\"].*", re.DOTALL)


class ConfigError(TxOCIProxyError):
    """The configuration is wrong; the text names the place, the value and the remedy, in one line."""


class LinedMapping(dict[Any, Any]):
    """A mapping of the file.

    :ivar lines: by key, counted from 1.
    """

    lines: dict[Any, int]

    def __init__(self) -> None:
        super().__init__()
        self.lines = {}


class LinedList(list[Any]):
    """A list of the file.

    :ivar line: where it begins.
    :ivar lines: by place.
    """

    line: int
    lines: dict[int, int]

    def __init__(self, line: int = 1) -> None:
        super().__init__()
        self.line = line
        self.lines = {}


class _Loader(yaml.SafeLoader):
    """Remembers lines, and refuses the same key twice, of which YAML's loader would silently take the last."""

    def lined_mapping(self, node: yaml.MappingNode) -> Iterator[LinedMapping]:
        """Make a mapping; what is in it comes later, since YAML can refer to what is around."""
        data = LinedMapping()
        yield data
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for number, name in enumerate(names):
            if name in names[:number]:
                mark = node.value[number][0].start_mark
                raise yaml.constructor.ConstructorError(problem=f"{name_of(name)} is there twice", problem_mark=mark)
        data.update(self.construct_mapping(node))
        for key, _ in node.value:  # with what `<<` has brought
            data.lines[self.construct_object(key)] = key.start_mark.line + 1

    def lined_list(self, node: yaml.SequenceNode) -> Iterator[LinedList]:
        """Make a list."""
        data = LinedList(node.start_mark.line + 1)
        yield data
        data.extend(self.construct_sequence(node))
        data.lines = {number: item.start_mark.line + 1 for number, item in enumerate(node.value)}


_Loader.add_constructor("tag:yaml.org,2002:map", _Loader.lined_mapping)
_Loader.add_constructor("tag:yaml.org,2002:seq", _Loader.lined_list)


def parsed(path: str) -> LinedMapping:
    """Return the top of a YAML file.

    :raises ConfigError: it cannot be read, or is something else; nothing of what stands in it is in the text.
    """
    try:
        content = yaml.load(Path(path).read_text("utf-8"), _Loader)
    except OSError as error:
        raise ConfigError(f"--config: {path!r} cannot be read ({error.strerror}); name a readable file") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(_not_yaml(path, error)) from None
    if content is None:
        return LinedMapping()
    if not isinstance(content, LinedMapping):
        hint = "put 'upstreams:' above the list" if isinstance(content, LinedList) else "write 'name: value' lines"
        raise ConfigError(f"{path}:1: the file is not a mapping; {hint}")
    return content


def _not_yaml(path: str, error: Exception) -> str:
    """Say where YAML ends and why."""
    mark = getattr(error, "problem_mark", None)
    place = f"{path}:{mark.line + 1}" if mark is not None else path
    problem = getattr(error, "problem", None) or "not text, or a value that none can be"
    return f"{place}: the file is not YAML ({_QUOTED.sub(_harmless, problem)}); correct it there"


def _harmless(found: re.Match[str]) -> str:
    return found.group(1) or "…"
