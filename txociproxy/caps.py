"""Caps: the bounds that all ingests share (RULES A5)."""

from __future__ import annotations

from attrs import frozen


@frozen
class IngestCaps:
    """The bounds that all ingests share.

    :ivar lonely: how many may go on without a reader.
    :ivar memory_bytes: windows and outstanding bytes of all together.
    :ivar carried: how many of what lies elsewhere come through us; those of :attr:`total` are not among them.
    :ivar carried_per_client: None is half of them.
    :ivar carried_wait_s: how long one of these waits for its place: there is nobody else to ask.
    """

    total: int = 256
    per_namespace: int = 64
    per_client: int = 32
    lonely: int = 16
    memory_bytes: int = 256 * 1024 * 1024
    wait_s: float = 5.0
    carried: int = 512
    carried_per_client: int | None = None
    carried_wait_s: float = 20.0
