"""Mappings of the configuration file, read key by key; an error knows the keys that lead to it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any

Reader = Callable[[object], object]

# A password in a URL is refused, and must not be shown while that is said.  Whoever put it there may have put any
# character into it, a slash, a quote or an @ as well, so that nothing before the last @ is safe to show.
_USERINFO = re.compile(r".*@", re.DOTALL)
# `password:hunter2` without a space is one key for YAML: only what a key of ours could be is shown of a key.
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,39}")


class HiddenKey(str):
    """A key that leads to its place in the file, but is not shown itself: it may be a slip of a password."""

    __slots__ = ()


class WrongValue(ValueError):
    """Something that stands in the file cannot be used.

    :ivar text: one line with the remedy, and with the value unless that may be secret.
    :ivar at: the keys and places in lists that lead to it, from the mapping that was read.
    """

    def __init__(self, text: str, *at: object) -> None:
        self.text = text
        self.at = at
        super().__init__(f"{self.label()}: {text}" if at else text)

    def below(self, key: object) -> WrongValue:
        """Return the same error, seen from the mapping or list around."""
        return WrongValue(self.text, key, *self.at)

    def label(self) -> str:
        """Return where it is, in the words of the file: ``.tls.ca``, ``.tags[0].match``."""
        return "".join(f"[{key}]" if type(key) is int else f".{name_of(key)}" for key in self.at)


def read_keys(
    mapping: object,
    readers: Mapping[str, Reader],
    example: str,
    elsewhere: Mapping[str, str] = MappingProxyType({}),
    is_secret: bool = False,
) -> dict[str, Any]:
    """Read every value of a mapping by the reader of its key.

    :param example: what a person could write.
    :param elsewhere: keys of similar programs, and what is written here instead.
    :param is_secret: whether values and unknown keys, which may be slips of a password, are kept out of messages.
    :raises WrongValue: something is wrong.
    """
    if not isinstance(mapping, Mapping):
        raise WrongValue(f"{'' if is_secret else shown(mapping) + ' '}must be a mapping, for example {example}")
    values = {}
    for key, value in mapping.items():
        if key not in readers:
            raise _unknown(key, readers, elsewhere, is_secret)
        values[key] = read_value(key, value, readers[key], is_secret)
    return values


def read_value(key: object, value: object, reader: Reader, is_secret: bool = False) -> object:
    """Read one value.

    :raises WrongValue: it is wrong.
    """
    try:
        return reader(value)
    except WrongValue as error:
        raise error.below(key) from None
    except ValueError as error:
        clause = str(error) if str(error).startswith(("must ", "needs ", "cannot ")) else f"is {error}"
        raise WrongValue(clause if is_secret else f"{shown(value)} {clause}", key) from None


def _unknown(key: object, readers: Mapping[str, Reader], elsewhere: Mapping[str, str], is_secret: bool) -> WrongValue:
    """Say what is written instead of a key that is not ours."""
    known = f"unknown key; known keys are {', '.join(readers)}"
    if not isinstance(key, str):
        return WrongValue(f"has an {known}")
    if key in elsewhere:
        return WrongValue(f"unknown key; write {elsewhere[key]}", key)
    if is_secret:
        return WrongValue(known, HiddenKey(key))
    if name_of(key) != key and name_of(key) in {*readers, *elsewhere}:
        return WrongValue("unknown key; put a space after its colon, and quotes around what needs them", key)
    close = get_close_matches(key, readers, 1)
    return WrongValue(f"unknown key; did you mean `{close[0]}`?" if close else known, key)


def name_of(key: object) -> str:
    """Return what may be shown of a key."""
    found = _NAME.match(key) if isinstance(key, str) and not isinstance(key, HiddenKey) else None
    return found.group() if found else "?"


def without_userinfo(value: object) -> str:
    """Return a value as text that may be shown, without what could be a password."""
    return _USERINFO.sub("...@", str(value))


def shown(value: object) -> str:
    """Quote a value for a message, on one line."""
    return without_userinfo(repr(value))[:256]
