"""Programs that are started and never run: what they are given is noted, what they do is what the test says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import define, field
from twisted.internet.error import ProcessDone, ProcessExitedAlready, ProcessTerminated
from twisted.internet.task import Clock
from twisted.python.failure import Failure


@define(eq=False)
class Program:
    """One program that was started, and the transport that its protocol sees.

    :ivar signals: that it was sent while it ran.
    """

    protocol: Any
    executable: str
    args: Sequence[str]
    env: Mapping[str, str] | None
    other_arguments: Mapping[str, Any]
    stdin: bytes = b""
    is_stdin_closed: bool = False
    are_pipes_closed: bool = False
    has_exited: bool = False
    is_output_closed: bool = False
    signals: list[str] = field(factory=list)

    def writeToChild(self, descriptor: int, data: bytes) -> None:
        """Note what it is given."""
        assert descriptor == 0 and not self.is_stdin_closed
        self.stdin += data

    def closeStdin(self) -> None:
        """Note that there is no more."""
        self.is_stdin_closed = True

    def signalProcess(self, name: str) -> None:
        """Note a signal; one that has ended cannot get any."""
        if self.has_exited:
            raise ProcessExitedAlready
        self.signals.append(name)

    def loseConnection(self) -> None:
        """Note that our ends of all pipes are closed; the protocol hears so in a later turn, from the test."""
        self.are_pipes_closed = True

    def prints(self, data: bytes, to: int = 1) -> None:
        """Print something."""
        self.protocol.childDataReceived(to, data)

    def closes(self, descriptor: int = 1) -> None:
        """Close an output."""
        self.is_output_closed = self.is_output_closed or descriptor == 1
        self.protocol.childConnectionLost(descriptor)

    def exits(self, code: int | None = 0, signal: int | None = None) -> None:
        """End."""
        self.has_exited = True
        status = ProcessTerminated(code, signal, 1) if code or signal else ProcessDone(0)
        self.protocol.processExited(Failure(status))

    def ends(self, printed: bytes = b"", code: int | None = 0, signal: int | None = None) -> None:
        """Print something and end in good order: Twisted may tell it all."""
        if printed:
            self.prints(printed)
        self.closes(1)
        self.closes(2)
        self.exits(code, signal)
        self.protocol.processEnded(Failure(ProcessDone(0)))


@define(eq=False)
class Starter(Clock):
    """A clock that starts programs as a reactor does.

    :ivar refusal: what starting one raises.
    """

    programs: list[Program] = field(factory=list)
    refusal: Exception | None = None

    def __attrs_pre_init__(self) -> None:
        super().__init__()

    def spawnProcess(
        self,
        protocol: Any,
        executable: str,
        args: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        **more: Any,
    ) -> Program:
        """Start a program, and tell its protocol."""
        if self.refusal is not None:
            raise self.refusal
        program = Program(protocol, executable, tuple(args), env, more)
        self.programs.append(program)
        protocol.makeConnection(program)
        return program
