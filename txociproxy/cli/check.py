"""``ociproxy config check FILE``: is this a configuration that would start?"""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from attrs import frozen

from txociproxy.config import ConfigError, load


@frozen
class Answer:
    """What a command says at its end.

    :ivar status: of the process.
    :ivar text: without the last line end.
    """

    status: int
    text: str


def check(said: argparse.Namespace, environ: Mapping[str, str] | None) -> Answer:
    """Read a file as the start would.

    :param said: ``file``, and ``mode`` or None.
    """
    try:
        # Without a mode nothing that hangs on it is wrong; every rule that only one mode has is one of transparent.
        config = load({"config": said.file, "mode": said.mode}, environ, default_mode="authenticated")
    except ConfigError as error:
        return Answer(1, str(error))
    return Answer(0, f"{said.file}: ok: {len(config.upstreams)} upstreams, default {config.default_namespace}")
