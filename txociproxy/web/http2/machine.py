"""The state of one connection as h2 keeps it, with less memory of what is over, and heads that have a price."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from h2.config import H2Configuration
from h2.connection import ConnectionInputs, ConnectionState, H2Connection, H2ConnectionStateMachine
from h2.settings import SettingCodes, Settings
from hpack import Decoder, HeaderTuple, OversizedHeaderListError
from twisted.internet.interfaces import IReactorTime

from txociproxy.web.http2.limits import (
    FREE_HEAD_BYTES,
    HEAD_BYTES_PER_MINUTE,
    MAX_HEAD_BYTES,
    MAX_STREAMS,
    Allowance,
)

# The client may offer more; our encoder would fill whatever it is given.
_MAX_TABLE_BYTES: Final = 4096
# What each field counts beside its characters (RFC 9113 §6.5.2).
_FIELD_BYTES: Final = 32


class HeadReader(Decoder):
    """Reads field sections, as long as there are not too many long ones; all that come are read, also those in vain.

    A few bytes can stand for many (RFC 7541 §6.1), and each byte of a Huffman code is read by itself.
    """

    def __init__(self, clock: IReactorTime) -> None:
        super().__init__(MAX_HEAD_BYTES)
        self._allowance = Allowance(clock, HEAD_BYTES_PER_MINUTE)

    @property
    def is_weary(self) -> bool:
        """Whether the client had better go on elsewhere."""
        return not self._allowance.has(HEAD_BYTES_PER_MINUTE // 2)

    def decode(self, data: bytes, raw: bool = False) -> Iterable[HeaderTuple]:
        """Read one field section.

        :raises OversizedHeaderListError: it is too long, or too much has been said lately.
        """
        self._spend(len(data))
        fields = list(super().decode(data, raw))
        size_bytes = sum(len(name) + len(value) + _FIELD_BYTES for name, value in fields)
        self._spend(size_bytes - max(len(data), FREE_HEAD_BYTES))
        return fields

    def _spend(self, size_bytes: int) -> None:
        if size_bytes > FREE_HEAD_BYTES and not self._allowance.spend(size_bytes):
            raise OversizedHeaderListError("too many long heads")


# Who says goodbye will ask for nothing more, and still opens windows for what is on its way (RFC 9113 §6.8).
_TRANSITIONS: Final = {
    **H2ConnectionStateMachine._transitions,
    (ConnectionState.SERVER_OPEN, ConnectionInputs.RECV_GOAWAY): (None, ConnectionState.SERVER_OPEN),
}


class _States(H2ConnectionStateMachine):
    """A connection that goes on after the client's goodbye."""

    _transitions = _TRANSITIONS


class Machine(H2Connection):
    """What h2 knows of one connection."""

    MAX_CLOSED_STREAMS = 1024
    decoder: Any

    @property
    def is_weary(self) -> bool:
        """Whether the client has sent so many long heads that it had better go on elsewhere."""
        return bool(self.decoder.is_weary)

    def clear_outbound_data_buffer(self) -> None:
        """Lose nothing that is printed when the client says goodbye."""


def make_machine(clock: IReactorTime) -> Machine:
    """Return the server's side of a connection that announces our limits."""
    machine = Machine(H2Configuration(client_side=False, header_encoding=None))
    limits = {
        SettingCodes.MAX_CONCURRENT_STREAMS: MAX_STREAMS,
        SettingCodes.MAX_HEADER_LIST_SIZE: MAX_HEAD_BYTES,
    }
    machine.local_settings = Settings(client=False, initial_values=limits)
    machine.decoder = HeadReader(clock)
    machine.state_machine = _States()
    return machine


def bound_encoder(machine: Machine) -> None:
    """Use no more memory for compression than by default, whatever the client has offered just now."""
    if machine.encoder.header_table_size > _MAX_TABLE_BYTES:
        machine.encoder.header_table_size = _MAX_TABLE_BYTES
