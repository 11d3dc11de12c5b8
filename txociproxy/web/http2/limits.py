"""What a client may make us hold or do on one HTTP/2 connection (RULES A3, A5)."""

from __future__ import annotations

from typing import Final

from attrs import define, field
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.settings import SettingCodes, Settings
from twisted.internet.interfaces import IReactorTime

from txociproxy.web.heads import MAX_FORM_BYTES

MAX_STREAMS: Final = 100
MAX_HEAD_BYTES: Final = 256 * 1024
MAX_FIELD_BYTES: Final = 128 * 1024
MAX_FIELDS: Final = 500
# Forms that arrive side by side, all together.
MAX_FORMS_BYTES: Final = 4 * MAX_FORM_BYTES
# What one stream may have waiting, and all of a connection; then their producers are paused.
STREAM_BYTES: Final = 256 * 1024
CONNECTION_BYTES: Final = 4 * 1024 * 1024
# Bodies without a producer are in memory whole; what is beyond this ends its stream.
QUEUE_BYTES: Final = 16 * 1024 * 1024
# Per turn of the reactor, and per stream before the next one has its turn.
TURN_BYTES: Final = 256 * 1024
SLICE_BYTES: Final = 64 * 1024
# Answers to a client that does not read: acknowledgements, and the heads of answers.
MAX_CONTROL_BYTES: Final = 1024 * 1024
# A request that is reset at once costs its sender nothing (CVE-2023-44487).
RESETS_PER_MINUTE: Final = 100
# PING, SETTINGS, WINDOW_UPDATE and so on; a request and what was sent to the client give it more.
FRAMES_PER_MINUTE: Final = 1000
FRAMES_PER_REQUEST: Final = 10
SENT_BYTES_PER_FRAME: Final = 4096

_MINUTE_S: Final = 60.0
_MAX_EARNED: Final = 4
# The client may offer more; our encoder would fill whatever it is given.
_MAX_TABLE_BYTES: Final = 4096


@define(eq=False)
class Allowance:
    """So much at once, and as much again each minute."""

    _clock: IReactorTime
    _per_minute: int
    _left: float = field(init=False)
    _at_s: float = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._left = self._per_minute
        self._at_s = self._clock.seconds()

    def spend(self, count: int) -> bool:
        """Take some; False says that they were not there."""
        now_s = self._clock.seconds()
        if self._left < self._per_minute:
            # A wall clock may step back.
            refill = max(0.0, now_s - self._at_s) * self._per_minute / _MINUTE_S
            self._left = min(self._per_minute, self._left + refill)
        self._at_s = now_s
        if self._left < count:
            return False
        self._left -= count
        return True

    def earn(self, count: float) -> None:
        """Add some, up to a few minutes' worth."""
        self._left = min(self._per_minute * _MAX_EARNED, self._left + count)


class Machine(H2Connection):
    """The state of one connection as h2 keeps it, with less memory of streams that are over."""

    MAX_CLOSED_STREAMS = 1024


def make_machine() -> Machine:
    """Return the server's side of a connection that announces our limits."""
    machine = Machine(H2Configuration(client_side=False, header_encoding=None))
    limits = {
        SettingCodes.MAX_CONCURRENT_STREAMS: MAX_STREAMS,
        SettingCodes.MAX_HEADER_LIST_SIZE: MAX_HEAD_BYTES,
    }
    machine.local_settings = Settings(client=False, initial_values=limits)
    machine.decoder.max_header_list_size = MAX_HEAD_BYTES
    return machine


def bound_encoder(machine: Machine) -> None:
    """Use no more memory for compression than by default, whatever the client has offered just now."""
    if machine.encoder.header_table_size > _MAX_TABLE_BYTES:
        machine.encoder.header_table_size = _MAX_TABLE_BYTES
