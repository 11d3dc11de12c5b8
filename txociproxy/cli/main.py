"""``ociproxy``: its words, its help, and the end of its process."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence

from txociproxy import __version__
from txociproxy.cli.check import check

_ABOUT = (
    "Tools for txociproxy, a pull-through cache for OCI container registries. The proxy itself is started by twistd:"
)
_START = "  twistd -n ociproxy --mode transparent"
_CHECK_ABOUT = """\
Read a configuration file as the proxy would at its start or at SIGHUP, and say what is wrong in one line:
FILE:LINE: KEY: what, and what to write instead. Nothing is connected and nothing is changed; files that it names
(passwords, certificates, a Docker config.json), helper programs and the AWS SDK must be there. The environment counts
as it does at the start: run it as the user of the service and with its environment."""
_CHECK_EXAMPLES = """\
examples:
  ociproxy config check /etc/ociproxy.yaml
  ociproxy config check --mode authenticated /etc/ociproxy.yaml && systemctl reload ociproxy

exit status: 0 the file is right, 1 something is wrong, 2 the command itself was not understood."""


def parser() -> argparse.ArgumentParser:
    """Return what understands the words after ``ociproxy``."""
    top = argparse.ArgumentParser(
        "ociproxy",
        description=f"{_ABOUT}\n\n{_START}",
        epilog="'ociproxy COMMAND --help' explains a command.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"txociproxy {__version__}")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    config = commands.add_parser(
        "config", help="check a configuration file", description="Work with the configuration."
    )
    actions = config.add_subparsers(title="commands", metavar="COMMAND", required=True)
    checking = actions.add_parser(
        "check",
        help="say whether a file can be used, without a network",
        description=_CHECK_ABOUT,
        epilog=_CHECK_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    checking.add_argument("file", metavar="FILE", help="the YAML file of --config")
    checking.add_argument(
        "--mode",
        choices=("transparent", "authenticated"),
        help="as --mode of the proxy; needed only for what depends on it, if neither FILE nor PROXY_MODE says it",
    )
    checking.set_defaults(run=check)
    return top


def main(words: Sequence[str] | None = None, environ: Mapping[str, str] | None = None) -> int:
    """Run a command.

    :param words: None is the process's own arguments.
    :param environ: None is the process's own environment.
    :returns: the exit status.
    """
    said = parser().parse_args(words)
    answer = said.run(said, environ)
    (sys.stdout if answer.status == 0 else sys.stderr).write(f"{answer.text}\n")
    return int(answer.status)
