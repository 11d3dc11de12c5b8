"""``ociproxy``: one command, and the end of its process."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence

from txociproxy.cli.answer import Answer
from txociproxy.cli.words import parser


def main(words: Sequence[str] | None = None, environ: Mapping[str, str] | None = None) -> int:
    """Run a command.

    :param words: None is the process's own arguments.
    :param environ: None is the process's own environment.
    :returns: the exit status.
    """
    said = parser().parse_args(words)
    try:
        answer = _answer(said, os.environ if environ is None else environ)
        if answer.text:
            (sys.stdout if answer.status == 0 else sys.stderr).write(f"{answer.text}\n")
        sys.stdout.flush()
    except BrokenPipeError:  # `| head` has seen enough; Python would complain about it once more at the end
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141
    except KeyboardInterrupt:  # what has been said stands; where it was interrupted is nobody's business
        return 130
    return answer.status


def _answer(said: argparse.Namespace, environ: Mapping[str, str]) -> Answer:
    """Run what was asked for; only that is imported, since a health check begins anew every few seconds."""
    if said.command == "healthcheck":
        from txociproxy.cli.healthcheck import healthcheck

        return healthcheck(said, environ)
    if said.command == "client-config":
        from txociproxy.cli.client_config import client_config

        return client_config(said)
    if said.command == "smoke":
        from txociproxy.cli.smoke import smoke

        return smoke(said, environ)
    from txociproxy.cli.check import check

    return check(said, environ)
