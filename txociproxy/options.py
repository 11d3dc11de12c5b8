"""What stands after ``twistd ociproxy`` on the command line."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any, cast

from twisted.python import usage

from txociproxy import __version__
from txociproxy.config import Config, ConfigError, load
from txociproxy.settings import SETTINGS, Setting


def explained(setting: Setting) -> str:
    """Return the text of ``--help`` about a setting; % and tabs mean nothing special in it."""
    default = "" if setting.default is None else f" Default: {setting.default}."
    return f"{setting.meaning}{default} [{setting.variable}]"


class Options(usage.Options):
    """Options of ``twistd ociproxy``; after parsing, ``config`` is the whole configuration."""

    longdesc = (
        "A pull-through cache for OCI container registries. Every option can also be given in the environment (the "
        "name in brackets) or, in snake_case, in the file of --config; an option wins over the environment, that over "
        "the file, that over the default."
    )
    # Raw defaults are None: whether an option was given decides about precedence.
    optParameters = [  # noqa: RUF012 - usage.Options reads it from the class
        [setting.option, None, None, explained(setting)] for setting in SETTINGS if not setting.several
    ]
    config: Config

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        """Begin with nothing given.

        :param environ: None is the process's own environment.
        """
        super().__init__()  # type: ignore[no-untyped-call]
        for setting in SETTINGS:
            if setting.several:
                self[setting.option] = []
        self._environ = environ
        self._failed = False

    def opt_version(self) -> None:
        """Print the version and exit."""
        sys.stdout.write(f"txociproxy {__version__}\n")
        raise SystemExit(0)

    def parseOptions(self, options: Any = None) -> None:
        """Parse; an error is one line, and a name that is nearly right is recognised."""
        try:
            super().parseOptions(options)  # type: ignore[no-untyped-call]
        except usage.UsageError as error:
            self._failed = True
            raise usage.UsageError(_with_advice(str(error))) from error

    def postOptions(self) -> None:
        """Make the configuration, so that everything wrong is said before anything is started."""
        try:
            self.config = load(self, self._environ)
        except ConfigError as error:
            raise usage.UsageError(str(error)) from error

    def reread(self) -> Config:
        """Read everything once more, without changing what holds; the file is the one that was named at the start.

        :raises ConfigError: something is wrong.
        """
        return load({**self, "config": self.config.config}, self._environ)

    def getUsage(self, width: int | None = None) -> str:
        """Explain every option; after an error only say where that is to be had, so that the error is seen."""
        if self._failed:
            return "For all options: twistd ociproxy --help"
        return super().getUsage(width)


def _gathering(setting: Setting) -> Callable[[Options, str], None]:
    """Return the method for an option that may be given more than once; its docstring is for ``--help``."""

    def gather(self: Options, value: str) -> None:
        cast(list[str], self[setting.option]).append(value)

    gather.__doc__ = explained(setting)
    return gather


for _each in SETTINGS:
    if _each.several:
        setattr(Options, f"opt_{_each.name}", _gathering(_each))


def _with_advice(error: str) -> str:
    """Add what was meant to getopt's complaint about an unknown option."""
    words = error.split()
    near = get_close_matches(words[1].lstrip("-"), [setting.option for setting in SETTINGS], 1) if words[1:] else []
    return f"{error}; did you mean --{near[0]}?" if near and "not recognized" in error else error
