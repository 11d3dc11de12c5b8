"""Commands in this process, as a shell would see them."""

from __future__ import annotations

import io
from contextlib import redirect_stderr, redirect_stdout

from txociproxy.cli.main import main


def run_command(*words: str, **environ: str) -> tuple[int, str, str]:
    """Return exit status, output and errors of ``ociproxy``."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            status = main(words, environ)
        except SystemExit as end:  # how argparse ends
            status = int(str(end.code))
    return status, out.getvalue(), err.getvalue()
