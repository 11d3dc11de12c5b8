"""Opens sockets, says as systemd does that they are handed over, and becomes the program (sd_listen_fds(3)).

Usage: activated_child.py UNIX_PATH TCP4_PORT TCP6_PORT NAMES PROGRAM...
The three sockets are 3, 4 and 5; NAMES are theirs, or ``-`` for none.
"""

from __future__ import annotations

import os
import socket
import sys


def main(path: str, port4: str, port6: str, names: str, *program: str) -> None:
    """Do it."""
    local = socket.socket(socket.AF_UNIX)
    local.bind(path)
    os.chmod(path, 0o640)
    local.listen()
    four = socket.create_server(("127.0.0.1", int(port4)))
    six = socket.create_server(("::1", int(port6)), family=socket.AF_INET6)
    copies = [os.dup(each.fileno()) for each in (local, four, six)]
    high = [os.dup2(copy, 50 + index) for index, copy in enumerate(copies)]
    for index, copy in enumerate(high):
        os.dup2(copy, 3 + index, inheritable=True)
    os.closerange(6, 60)
    told = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "3"}
    if names != "-":
        told["LISTEN_FDNAMES"] = names
    os.execvpe(program[0], program, {**os.environ, **told})


if __name__ == "__main__":
    main(*sys.argv[1:])
