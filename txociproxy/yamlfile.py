"""The configuration file as YAML: every mapping and list remembers the lines of what is in it."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from typing import Any

import yaml

from txociproxy.oci.errors import TxOCIProxyError
from txociproxy.upstreams.entries.read_keys import name_of
from txociproxy.upstreams.logins.secret_files import read_regular

# A thousand upstreams have less than one MiB.
MAX_BYTES = 4 * 1024 * 1024

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


class _Unbuildable(yaml.constructor.ConstructorError):
    """A value is not what it says that it is."""

    def __init__(self, node: yaml.Node) -> None:
        super().__init__(problem="a value that none can be", problem_mark=node.start_mark)


class _Loader(yaml.SafeLoader):
    """Remembers lines, and refuses the same key twice, of which YAML's loader would silently take the last."""

    def lined_mapping(self, node: yaml.MappingNode) -> Iterator[LinedMapping]:
        """Make a mapping; what is in it comes later, since YAML can refer to what is around."""
        data = LinedMapping()
        yield data
        if not isinstance(node, yaml.MappingNode):  # "!!map" in front of something else
            raise _Unbuildable(node)
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for number, name in enumerate(names):
            if name in names[:number]:
                mark = node.value[number][0].start_mark
                raise yaml.constructor.ConstructorError(problem=f"{name_of(name)} is there twice", problem_mark=mark)
        data.update(self.construct_mapping(node))
        for key, _ in node.value:  # with what `<<` has brought
            data.lines[self.construct_object(key)] = key.start_mark.line + 1

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Make a value; one that is not what its tag says ends PyYAML in many ways, and none knows the line."""
        try:
            return super().construct_object(node, deep)
        except (AttributeError, LookupError, TypeError, ValueError, ArithmeticError):
            raise _Unbuildable(node) from None

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
    text = ""
    try:
        text = _text(path)
        content = yaml.load(text, _Loader)
    except OSError as error:
        raise ConfigError(f"--config: {path!r} cannot be read ({error.strerror}); name a readable file") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(_not_yaml(path, error, text)) from None
    if content is None:
        return LinedMapping()
    if not isinstance(content, LinedMapping):
        hint = "put 'upstreams:' above the list" if isinstance(content, LinedList) else "write 'name: value' lines"
        raise ConfigError(f"{path}:1: the file is not a mapping; {hint}")
    return content


def _text(path: str) -> str:
    """Return what stands in the file; a pipe that nobody writes to must not hold up every later reload.

    :raises OSError: it cannot be read.
    :raises ValueError: it is no text.
    """
    data = read_regular(path, MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise OSError(errno.EFBIG, f"it has more than {MAX_BYTES} bytes")
    return data.decode("utf-8")


def _not_yaml(path: str, error: Exception, text: str) -> str:
    """Say where YAML ends and why."""
    line = _line_of(error, text)
    place = path if line is None else f"{path}:{line}"
    problem = getattr(error, "problem", None) or "not text, or a value that none can be"
    return f"{place}: the file is not YAML ({_QUOTED.sub(_harmless, problem)}); correct it there"


def _line_of(error: Exception, text: str) -> int | None:
    """Return the line of an error, as far as it is known."""
    mark = getattr(error, "problem_mark", None)
    if mark is not None:
        return int(mark.line) + 1
    if isinstance(error, UnicodeDecodeError):
        return error.object.count(b"\n", 0, error.start) + 1
    if isinstance(error, yaml.reader.ReaderError):  # a character that YAML does not have
        return text.count("\n", 0, error.position) + 1
    return None


def _harmless(found: re.Match[str]) -> str:
    return found.group(1) or "…"
