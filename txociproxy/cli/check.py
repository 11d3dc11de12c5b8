"""``ociproxy config check FILE``: is this a configuration that would start?"""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from txociproxy.cli.answer import Answer
from txociproxy.config import ConfigError, load


def check(said: argparse.Namespace, environ: Mapping[str, str]) -> Answer:
    """Read a file as the start would.

    :param said: ``file``, and ``mode`` or None.
    """
    try:
        # Without a mode nothing that hangs on it is wrong; every rule that only one mode has is one of transparent.
        config = load({"config": said.file, "mode": said.mode}, environ, default_mode="authenticated")
    except ConfigError as error:
        return Answer(1, str(error))
    return Answer(0, f"{said.file}: ok: {len(config.upstreams)} upstreams, default {config.default_namespace}")
