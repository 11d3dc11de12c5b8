"""Logins from a ``docker-credential-*`` program, run without a shell and with a clean environment.

Nothing that it prints is ever shown: what goes wrong is told by the program's name and how it ended.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from typing import Any, cast

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IDelayedCall, IProcessTransport
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from txociproxy.interfaces import IWorkers
from txociproxy.upstreams.logins.accounts import Helper, Login, LoginUnavailable
from txociproxy.upstreams.logins.keeper import Reader, Reading, in_thread
from txociproxy.upstreams.logins.server_names import server_name

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PREFIX = "docker-credential-"
MAX_OUTPUT_BYTES = 64 * 1024
HELPER_S = 10.0
# What helpers give as a user's name when the secret is an identity token (docker-credential-helpers).
_TOKEN_USER = "<token>"


def find_program(name: str, path: str) -> str | None:
    """Return the program of this name in the first directory that has it; blocks.

    Directories that are not absolute are passed over: what runs must not depend on where we were started.
    """
    places = (os.path.join(directory, name) for directory in path.split(":") if os.path.isabs(directory))
    return next((place for place in places if os.path.isfile(place) and os.access(place, os.X_OK)), None)


@define(eq=False)
class HelperReader(Reader):
    """Runs the program for each reading.

    :ivar _find: (program, PATH) → where it lies.
    """

    _account: Helper
    _url: str
    _reactor: Any
    _workers: IWorkers
    _find: Callable[[str, str], str | None] = find_program

    async def read(self) -> Reading:
        """See :meth:`Reader.read`."""
        account, program = self._account, PREFIX + self._account.name
        environment = {"PATH": DEFAULT_PATH, **dict(account.environment)}
        executable = await in_thread(self._workers, self._find, program, environment["PATH"])
        if executable is None:
            raise LoginUnavailable(f"{program} is not to be found in {environment['PATH']}")
        server = account.server or server_name(self._url)
        output = await self._run(program, executable, environment, server)
        return Reading(login_from(output, program), account.lifetime_s)

    def _run(self, program: str, executable: str, environment: dict[str, str], server: str) -> Deferred[bytes]:
        """Run the program to its end, or to ours; the server's name goes to its input, not to its arguments."""
        talk = HelperTalk(program, server.encode(), self._reactor)
        try:
            # Twisted closes all other descriptors, and reaps it whenever it ends.
            self._reactor.spawnProcess(talk, executable, [program, "get"], environment)
        except (OSError, ValueError, TypeError) as error:  # the latter two: a NUL byte, a name with "="
            why = error.strerror if isinstance(error, OSError) else "its environment cannot be one"
            talk.fail(f"could not be started: {why}")
        return talk.output


def login_from(output: bytes, program: str) -> Login:
    """Return the login out of what a helper has printed.

    :raises LoginUnavailable: there is none in it.
    """
    try:
        answer = json.loads(output)
    except (ValueError, RecursionError):
        raise LoginUnavailable(f"{program} has not answered with JSON") from None
    username = answer.get("Username") if isinstance(answer, dict) else None
    secret = answer.get("Secret") if isinstance(answer, dict) else None
    if not isinstance(username, str) or not isinstance(secret, str) or not username or not secret:
        raise LoginUnavailable(f"{program} has answered without Username or Secret")
    if username == _TOKEN_USER:
        raise LoginUnavailable(
            f"{program} has an identity token, which cannot be used here: log in with an access token as the password"
        )
    return Login(username, secret)


@define(eq=False)
class HelperTalk(ProcessProtocol):
    """One run of a helper: the server's name goes in, an answer comes out, in bounded time and size.

    :ivar output: all that it has printed, once it has ended well; cancelling kills it.
    """

    _program: str
    _server: bytes
    _reactor: Any
    output: Deferred[bytes] = field(init=False)
    _printed: bytearray = field(init=False, factory=bytearray, repr=False)
    _bound: IDelayedCall | None = field(init=False, default=None)
    _ended: Failure | None = field(init=False, default=None)
    _is_all_read: bool = field(init=False, default=False)

    def __attrs_post_init__(self) -> None:
        self.output = Deferred(lambda _: self._let_go())

    def connectionMade(self) -> None:
        """Say what is wanted, and that there is no more to come."""
        self._bound = self._reactor.callLater(HELPER_S, self._too_late)
        transport = cast(IProcessTransport, self.transport)
        transport.writeToChild(0, self._server + b"\n")
        transport.closeStdin()

    def outReceived(self, data: bytes) -> None:
        """Take a piece of the answer."""
        if self.output.called:
            return  # what was in the pipe when it was killed
        self._printed += data
        if len(self._printed) > MAX_OUTPUT_BYTES:
            self.fail(f"has printed more than {MAX_OUTPUT_BYTES} bytes")

    def errReceived(self, data: bytes) -> None:
        """Drop it: it may hold a secret."""

    def outConnectionLost(self) -> None:
        """Note that the answer is complete."""
        self._is_all_read = True
        self._settle()

    def processExited(self, reason: Failure) -> None:
        """Note the end; a child that it leaves behind, such as an agent, may keep its other pipes open."""
        self._ended = reason
        self._settle()

    def fail(self, what: str, timed_out: bool = False) -> None:
        """Give up, and end it if it runs."""
        self._let_go()
        if not self.output.called:
            self.output.errback(LoginUnavailable(f"{self._program} {what}", timed_out))

    def _too_late(self) -> None:
        self.fail(f"has not answered within {HELPER_S:g} s", timed_out=True)

    def _settle(self) -> None:
        """Answer when it has ended and all is read, whichever comes last."""
        if self._ended is None or not self._is_all_read or self.output.called:
            return
        error: Any = self._ended.value
        if error.exitCode == 0:
            self._let_go()
            self.output.callback(bytes(self._printed))
        else:
            self.fail(f"was ended by signal {error.signal}" if error.signal else f"ended with code {error.exitCode}")

    def _let_go(self) -> None:
        """End the process if it runs, and close our ends of its pipes, which a child of its own may hold open."""
        if self._bound is not None and self._bound.active():
            self._bound.cancel()
        if self.transport is None:
            return  # it has never run
        with contextlib.suppress(ProcessExitedAlready):
            self.transport.signalProcess("KILL")
        self.transport.loseConnection()
